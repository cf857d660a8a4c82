"""The command line as a user meets it: help, mistakes with one clear message, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import servers
from jsonschema import Draft202012Validator
from runner import run, sink, smtpbench

import smtpbench as package
from smtpbench.cli.main import COMMANDS
from smtpbench.scenario.reader import parse, read_text
from smtpbench.scenario.shipped import shipped_scenarios


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    done = smtpbench(command, "--help")
    assert done.code == 0
    assert f"smtpbench {command}" in done.out.replace("python -m smtpbench.cli.main", "")


def test_help_lists_every_command_and_version_is_printed() -> None:
    done = smtpbench("--help")
    assert all(f"  {command} " in done.out for command in COMMANDS)
    assert all(about in " ".join(done.out.split()) for about in COMMANDS.values()), "a summary is cut off"
    assert smtpbench("--version").out.strip() == f"smtpbench {package.__version__}"
    assert smtpbench() == smtpbench("help") == done
    assert smtpbench("help", "rules") == smtpbench("rules", "--help")


def test_demo_and_sink_agree(here: Path) -> None:
    done = smtpbench("demo", "-d", "1s", "-r", "100/s")
    assert done.code == 0
    assert "accepted 100" in done.out
    assert "the sink accepted 100 messages" in done.out
    (folder,) = (here / "results").iterdir()
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["histograms.hlog", "report.html", "result.json", "server.csv", "server.log", "timeline.csv"]


def test_validate_reports_every_file(here: Path) -> None:
    (here / "bad.yaml").write_text("session: [noop]\nfoo: 1\n")
    done = smtpbench("validate", *shipped_scenarios(), "bad.yaml", "none.yaml")
    assert done.code == 2
    assert done.out.count("ok  ") == len(shipped_scenarios())
    assert [line.split(": ")[0] for line in done.err.splitlines()] == ["bad.yaml:1:11", "bad.yaml:2:1", "none.yaml"]
    assert smtpbench("validate", "relay").code == 0


def test_csv_file_without_a_header_gives_a_warning(here: Path) -> None:
    (here / "to.csv").write_text("a@recipient.example\nb@recipient.example\n")
    (here / "s.yaml").write_text("session: [EHLO x, 'NOOP {to}', QUIT]\nvalues: {to: {csv: to.csv}}\n")
    warning = "s.yaml:2:20: warning: to.csv seems to have no header line: its first line, 'a@recipient.example',"
    done = smtpbench("validate", "s.yaml")
    assert (done.code, done.out[:4]) == (0, "ok  ")
    assert done.err.startswith(warning)
    with sink() as (port, _):
        done = run("s.yaml", f"smtp://127.0.0.1:{port}", here / "out", "-n", "1")
    assert done.code == 0
    assert done.err.startswith(warning)


def test_scenario_schema_accepts_the_shipped_scenarios_alone() -> None:
    schema = json.loads(smtpbench("schema").out)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for path in shipped_scenarios().values():
        validator.validate(parse(read_text(path), str(path)).data)
    for invalid in ({}, {"session": ["noop"]}, {"session": ["NOOP"], "load": {"rate": "5"}}, {"session": ["NOOP"], "x": 1}):
        assert not validator.is_valid(invalid)


@pytest.mark.parametrize(
    ("target", "code", "expected_texts"),
    [
        ("127.0.0.1:25", 2, "use smtp://127.0.0.1:25"),
        ("u:secret@[::1]:465", 2, "use smtps://u@[::1]:465"),
        ("localhost", 2, "use smtp://localhost"),
        ("/run/lmtp.sock", 2, "use lmtp+unix:///run/lmtp.sock"),
        ("smpt://127.0.0.1:25", 2, "use smtp://127.0.0.1:25"),
        ("SMTP://127.0.0.1:25", 2, "use smtp://127.0.0.1:25"),
        ("a b", 2, "use a URL like smtp://"),
        ("http://127.0.0.1", 2, "use a URL like smtp://"),
        ("smtp://127.0.0.1:99999", 2, "port out of range"),
        ("smtp://127.0.0.1:0", 2, "port 0"),
        ("smtp://127.0.0.1:x", 2, "port could not be cast"),
        ("smtp://[::1", 2, "invalid ipv6"),
        ("smtp://", 2, "has no host"),
        ("smtp://u:secret@127.0.0.1", 2, "contains a password"),
        ("smtp://127.0.0.1/path", 2, "has a path"),
        ("smtp://127.0.0.1?tls=maybe", 2, "unknown value tls=maybe"),
        ("smtp://127.0.0.1?foo=1", 2, "unknown option 'foo'"),
        ("smtps://127.0.0.1?tls=starttls", 2, "with smtp:// only"),
        ("lmtp+unix://path", 2, "three slashes"),
        ("lmtp+unix:///" + "x" * 200, 2, "at most 107"),
        ("lmtp+unix:///none", 3, "cannot be reached"),
        ("smtp://no-such-host.invalid", 3, "cannot find the address"),
        ("smtp://192.0.2.1", 2, "--authorized"),
    ],
)
def test_unusable_targets_give_one_message(tmp_path: Path, target: str, code: int, expected_texts: str) -> None:
    done = run("relay", target, tmp_path, "-n", "1", "-c", "1")
    assert done.code == code
    assert expected_texts in done.err
    assert "secret" not in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "expected_texts"),
    [
        (("-d", "soon"), "not a duration"),
        (("-r", "500"), "not a rate"),
        (("-r", "0/s"), "no message is ever sent"),
        (("-r", "1/s..5/s", "-n", "5"), "needs a duration"),
        (("-d", "0s"), "more than 0"),
        (("--size", "big"), "not a size"),
        (("--when-busy", "wait"), "add --rate"),
        (("--when-busy", "panic"), "wait, drop"),
        (("-c", "2", "--workers", "3"), "cannot share"),
        (("--progress", "loud"), "auto, live, plain, none"),
        (("--ca", "/nowhere"), ""),
        (("--timeout", "0s"), "more than 0"),
        (("--threshold", "message.p99 is low"), "is not a threshold"),
        (("--threshold", "message.p99 < 5"), "must be a time, like 200ms"),
        (("--threshold", "mesage.p99 < 5ms"), "this scenario has no latency 'mesage'; did you mean message?"),
        (("--abort-on-fail", "--abort-grace", "soon"), "not a duration"),
    ],
)
def test_invalid_options_give_one_message(tmp_path: Path, options: tuple[str, ...], expected_texts: str) -> None:
    scenario = "submission" if "--ca" in options else "relay"
    done = run(scenario, f"smtp://u@127.0.0.1:{servers.free_port()}", tmp_path, *options, SMTPBENCH_PASSWORD="x")
    assert done.code == 2, done.err
    assert expected_texts in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_all_errors_of_a_scenario_are_shown(here: Path) -> None:
    (here / "f.yaml").write_text("session: [noop]\nfoo: 1\n")
    done = run("f.yaml", "smtp://127.0.0.1:1", here / "out")
    assert done.code == 2
    assert "f.yaml:1:11: " in done.err
    assert "f.yaml:2:1: " in done.err


@pytest.mark.parametrize("content", ["", "\n", b"\xff"])
def test_unusable_password_files_are_reported(here: Path, content: str | bytes) -> None:
    (here / "p").write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run("submission", "smtp://u@127.0.0.1:1", here / "out", "--password-file", "p")
    assert done.code == 2
    assert "password file p" in done.err


def test_hostile_text_is_escaped_on_the_console_and_in_the_result(here: Path) -> None:
    with sink("--on", "RCPT=550 \x1b[31m</script>\u202e") as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", here / "out", "-n", "5", "-c", "1")
    assert done.messages == {"rejected": 5}
    saved = (here / "out" / "result.json").read_text()
    for text in (done.out, saved):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "\\x1b[31m</script>\\u202e" in done.out
