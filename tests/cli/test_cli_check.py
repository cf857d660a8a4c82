"""`check` and `rules` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import servers
from runner import sink, smtpbench


def test_conforming_server_passes(tmp_path: Path) -> None:
    with sink() as (port, _):
        done = smtpbench("check", "--target", f"smtp://127.0.0.1:{port}", "eod-lf-lf", "R52", "--out", str(tmp_path))
    assert done.code == 0, done.out
    assert "2 pass" in done.out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["rules"]["eod-lf-lf"]["verdict"] == result["rules"]["eod-lf-crlf"]["verdict"] == "pass"
    assert result["rules"]["eod-cr"]["verdict"] == "not-run"
    assert result["findings"] == []
    assert result["latency"]["MAIL"]["service"]["count"] == result["replies"]["MAIL"]["250"] > 4
    assert result["generator"]["cpu_s"] > 0
    assert result["target"]["recipient"] == "user@recipient.example"


def test_violation_is_shown_with_its_dialogue_and_the_command_that_repeats_it(tmp_path: Path) -> None:
    with sink("--mutant", "eod-lf-crlf") as (port, _):
        url = f"smtp://127.0.0.1:{port}"
        done = smtpbench("check", "-t", url, "eod-lf-lf", "eod-lf-crlf", "--out", str(tmp_path))
    assert done.code == 1
    assert r"text\n.\r\nNOOP\r\n" in done.out
    assert f"smtpbench check --target {url} eod-lf-crlf" in done.out
    result = json.loads((tmp_path / "result.json").read_text())
    rule = result["rules"]["eod-lf-crlf"]
    assert (rule["verdict"], rule["severity"]) == ("violation", "security")
    (finding,) = result["findings"]
    assert finding["id"].startswith("eod-lf-crlf-")
    assert finding["reproducibility"] == "2 of 2"


def test_several_targets_give_a_matrix() -> None:
    with sink() as (clean, _), sink("--mutant", "eod-cr") as (mutant, _):
        targets = ["-t", f"smtp://127.0.0.1:{clean}", "-t", f"smtp://127.0.0.1:{mutant}"]
        done = smtpbench("check", *targets, "eod-cr")
        assert smtpbench("check", *targets, "--out", "x").code == 2
    assert done.code == 1
    assert ["eod-cr", "passed", "SECURITY"] in [line.split() for line in done.out.splitlines()]
    assert done.out.splitlines()[-2:] == ["A: PASSED: 1 rule", "B: FAILED: 1 rule violated: eod-cr (security)"]


def test_server_text_is_escaped() -> None:
    with sink("--on", "connect=220 \x1b[2J<b>") as (port, _):
        done = smtpbench("check", "-t", f"smtp://127.0.0.1:{port}", "eod-cr")
    assert done.code == 0
    assert "\x1b" not in done.out
    assert r"220 \x1b[2J<b>" in done.out


def test_fixture_file_completes_the_options(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    with sink("--user", "me", "--require-auth", SMTPBENCH_SINK_PASSWORD="secret") as (port, _):
        file = tmp_path / "target.yaml"
        url = f"smtp://me@127.0.0.1:{port}"
        file.write_text(f"target: {url}\nrecipient: b@recipient.example\npassword-file: password\n")
        done = smtpbench("check", "--fixture", str(file), "postmaster", "auth-order", "--out", str(tmp_path / "out"))
        assert done.code == 0, done.out + done.err
        result = json.loads((tmp_path / "out" / "result.json").read_text())
        assert result["target"]["recipient"] == "b@recipient.example"
        assert result["rules"]["postmaster"]["verdict"] == result["rules"]["auth-order"]["verdict"] == "pass"
        without_target = smtpbench("check", "postmaster")
        misspelt = tmp_path / "misspelt.yaml"
        misspelt.write_text("targets: x\n")
        misspelled_key = smtpbench("check", "--fixture", str(misspelt))
    assert (without_target.code, misspelled_key.code) == (2, 2)
    assert "--target URL" in without_target.err
    assert "misspelt.yaml:1:1" in misspelled_key.err
    assert "secret" not in done.out + json.dumps(result)


def test_invalid_options_and_unreachable_targets() -> None:
    unheard = f"smtp://127.0.0.1:{servers.free_port()}"
    for argv, code, expected_texts in (
        (("-t", unheard), 3, "no greeting (connection refused)"),
        (("-t", unheard, "eod-lf"), 2, "did you mean eod-lf-lf"),
        (("-t", unheard, "nonsense"), 2, "`smtpbench rules` lists them"),
        (("-t", "smtp://192.0.2.1"), 2, "--authorized"),
    ):
        done = smtpbench("check", *argv)
        assert done.code == code
        assert expected_texts in done.err
        assert "Traceback" not in done.err
    assert "eod-cr" in smtpbench("sink", "--mutant", "nonsense").err


def test_rules_are_listed_and_explained() -> None:
    assert "R52  eod-lf-crlf          security" in smtpbench("rules").out
    explained = smtpbench("rules", "r52").out
    assert "LF.CRLF is part of the text" in explained
    assert "needs:      recipient" in explained
    assert smtpbench("rules", "r99").code == 2
