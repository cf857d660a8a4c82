"""Shipped scenarios against real servers; what was counted here is what they took."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from runner import finish, run, start
from servers import PASSWORD, USER, Server, Tls, wait_until

COUNT = "40"
SECRET = {"SMTPBENCH_PASSWORD": PASSWORD}


def limits(count: str = COUNT) -> tuple[str, ...]:
    return ("-n", count, "-c", "4", "--size", "8KiB")


@pytest.mark.parametrize("scenario", ["relay", "one-per-connection", "pipelined", "many-recipients", "bounces"])
def test_scenarios_on_smtp_sink(smtp_sink: Server, tmp_path: Path, scenario: str) -> None:
    done = run(scenario, f"smtp://127.0.0.1:{smtp_sink.port}", tmp_path, *limits())
    assert done.code == 0, done.err
    assert done.messages == {"accepted": int(COUNT)}
    assert done.result["errors"] == {}


@pytest.mark.parametrize(
    "scenario",
    ["relay", "one-per-connection", "pipelined", "many-recipients", "mixed-sizes", "bounces", "chunking", "hesitant"],
)
def test_scenarios_on_postfix(postfix: Server, tmp_path: Path, scenario: str) -> None:
    options = limits() if scenario != "mixed-sizes" else ("-n", COUNT, "-c", "4")
    before = postfix.count_in_log("status=sent")
    done = run(scenario, f"smtp://127.0.0.1:{postfix.port}", tmp_path, *options)
    assert done.code == 0, done.err
    assert done.miscounted(one_each=scenario != "hesitant") == []
    assert done.result["errors"] == {}
    assert done.messages["accepted"] == done.result["messages"]["attempted"]
    if scenario != "hesitant":
        assert done.messages == {"accepted": int(COUNT)}
    assert done.result["target"]["banner"].startswith("220 postfix.example ESMTP")
    assert any(line.startswith("SIZE") for line in done.result["target"]["ehlo"])
    taken = done.messages["accepted"] * (50 if scenario == "many-recipients" else 1)
    # the queue empties after the last reply
    assert wait_until(lambda: postfix.count_in_log("status=sent") - before >= taken)
    assert postfix.count_in_log("status=sent") - before == taken


def test_starttls_asked_for_by_the_target(postfix: Server, tls: Tls, tmp_path: Path) -> None:
    done = run("relay", f"smtp://localhost:{postfix.port}?tls=starttls", tmp_path, *limits(), "--ca", str(tls.ca))
    assert done.code == 0, done.err
    assert done.messages == {"accepted": int(COUNT)}
    assert done.result["latency"]["tls"]["service"]["count"] == 4


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_submission_with_each_mechanism(postfix: Server, tls: Tls, tmp_path: Path, mechanism: str) -> None:
    scenario = tmp_path / "submission.yaml"
    shipped = Path(__file__).parents[2] / "scenarios" / "submission.yaml"
    scenario.write_text(shipped.read_text().replace("AUTH PLAIN", f"AUTH {mechanism}"))
    target = f"smtp://{USER}@localhost:{postfix.ports['submission']}"
    done = run(scenario, target, tmp_path / "out", *limits(), "--ca", str(tls.ca), **SECRET)
    assert done.code == 0, done.err
    assert done.messages == {"accepted": int(COUNT)}
    assert done.result["replies"]["AUTH"]["235"] == done.result["latency"]["session"]["service"]["count"] >= 4
    assert PASSWORD not in (tmp_path / "out" / "result.json").read_text() + done.out + done.err


def test_implicit_tls(postfix: Server, tls: Tls, tmp_path: Path) -> None:
    target = f"smtps://{USER}@localhost:{postfix.ports['smtps']}"
    done = run("implicit-tls", target, tmp_path, *limits(), "--ca", str(tls.ca), **SECRET)
    assert done.code == 0, done.err
    assert done.messages == {"accepted": int(COUNT)}


@pytest.mark.parametrize(
    ("options", "env", "expected_text"),
    [
        ((), SECRET, "certificate not trusted"),
        (("--insecure",), {"SMTPBENCH_PASSWORD": "wrong"}, "the server refused the login"),
    ],
)
def test_run_that_cannot_work_ends_before_the_load(
    postfix: Server, tmp_path: Path, options: tuple[str, ...], env: dict[str, str], expected_text: str
) -> None:
    target = f"smtp://{USER}@localhost:{postfix.ports['submission']}"
    done = run("submission", target, tmp_path, *limits(), *options, **env)
    assert done.code == 3
    assert expected_text in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_postfix_refusals_are_told_apart(postfix: Server, tmp_path: Path) -> None:
    scenario = tmp_path / "refused.yaml"
    lines = ["MAIL FROM:<{sender}>", "RCPT TO:<no domain>", "DATA", "message"]
    scenario.write_text(f"session: ['EHLO x.example', {{repeat: 5, steps: {lines}}}, QUIT]\n")
    done = run(scenario, f"smtp://127.0.0.1:{postfix.port}", tmp_path / "out", *limits("20"))
    assert done.code == 4, done.err
    assert done.messages == {"rejected": 20}
    assert done.result["recipients"] == {"accepted": 0, "rejected": 20}
    assert done.result["replies"]["RSET"] == {"250": 20}


@pytest.mark.parametrize("which", ["smtp-sink", "tcp", "unix"])
def test_lmtp(lmtp_sink: Server, dovecot_lmtp: Server, tmp_path: Path, which: str) -> None:
    target = {
        "smtp-sink": f"lmtp://127.0.0.1:{lmtp_sink.port}",
        "tcp": f"lmtp://127.0.0.1:{dovecot_lmtp.port}",
        "unix": f"lmtp+unix://{dovecot_lmtp.socket}",
    }[which]
    done = run("lmtp", target, tmp_path, *limits())
    assert done.code == 0, done.err
    assert done.messages == {"accepted": int(COUNT)}
    assert done.result["replies"]["message"] == {"250": 3 * int(COUNT)}


def test_two_workers_share_one_run(postfix: Server, tmp_path: Path) -> None:
    done = run("relay", f"smtp://127.0.0.1:{postfix.port}", tmp_path, *limits("41"), "--workers", "2")
    assert done.code == 0, done.err
    assert done.messages == {"accepted": 41}
    assert done.result["latency"]["message"]["service"]["count"] == 41


def test_the_password_is_in_no_process_list(postfix: Server, tls: Tls, tmp_path: Path) -> None:
    target = f"smtp://{USER}@localhost:{postfix.ports['submission']}"
    process = start(
        "run", "submission", "--target", target, "--ca", str(tls.ca), "-d", "2s", "-c", "2", "--workers", "2",
        "--out", str(tmp_path), "--progress", "none", **SECRET,
    )  # fmt: skip
    seen = ""
    while process.poll() is None:
        seen += subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    assert finish(process, tmp_path).code == 0
    assert "smtpbench.load.worker_processes" in seen
    assert PASSWORD not in seen
