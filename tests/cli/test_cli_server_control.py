"""Options about the server under test: each command starts it, and stops it with all its processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import servers
from runner import smtpbench
from small_server import SERVER, listens

from smtpbench.cli.server_control import ServerControlOptions
from smtpbench.errors import UsageError
from smtpbench.supervisor.server_options import ERROR_PATTERN, Ready, Watch


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        (ServerControlOptions(stop="x"), r"--stop is about the server of --start; add --start COMMAND"),
        (ServerControlOptions(ready="port"), r"--ready is about the server of --start"),
        (ServerControlOptions(restart="never"), r"--restart is about the server of --start"),
        (ServerControlOptions(start="x", restart="often"), r"--restart often: allowed are always, never"),
        (ServerControlOptions(start="x", watch="pid:1"), r"--watch is about a server that runs already"),
        (ServerControlOptions(start="x", ready="now"), r"--ready: 'now' .* allowed are greets, port, text:TEXT, file:PATH"),
        (ServerControlOptions(start="x", ready="text:"), r"--ready: 'text:' "),
        (ServerControlOptions(watch="process:1"), r"--watch: 'process:1' names no process; use pid:N, cgroup:PATH, unit:"),
        (ServerControlOptions(log_pattern="("), r"--log-pattern: '\(' is not a regular expression: missing \)"),
    ],
)
def test_mistake_in_an_option_is_named(options: ServerControlOptions, mistake: str) -> None:
    with pytest.raises(UsageError, match=mistake):
        options.options(restart=False)


def test_options_are_passed_on() -> None:
    plain = ServerControlOptions().options(restart=True)
    assert (plain.start, plain.restart, plain.watch, plain.log_pattern) == ("", False, Watch(), ERROR_PATTERN)
    started = ServerControlOptions("run", "end", "text:up", server_log=[Path("a")], log_pattern="x").options(restart=True)
    assert (started.start, started.stop, started.ready) == ("run", "end", Ready("text", "up"))
    assert (started.restart, started.logs, started.log_pattern) == (True, (Path("a"),), "x")
    assert not ServerControlOptions("run", restart="never").options(restart=True).restart
    assert ServerControlOptions("run", restart="always").options(restart=False).restart
    assert ServerControlOptions(watch="unit:postfix").options(restart=False).watch == Watch("unit", "postfix")


def test_command_that_repeats_a_finding_starts_the_server_in_the_same_way() -> None:
    given = ServerControlOptions("run it", "end", "port", "never", [Path("a"), Path("b")], "x")
    assert given.repeat_options() == [
        "--start=run it", "--stop=end", "--ready=port", "--log-pattern=x", "--server-log=a", "--server-log=b",
    ]  # fmt: skip
    assert ServerControlOptions(watch="pid:1").repeat_options() == ["--watch=pid:1"]
    assert ServerControlOptions().repeat_options() == []


@pytest.fixture
def port() -> int:
    return servers.free_port()


def sink(port: int) -> str:
    return f"{sys.executable} -m smtpbench.cli.main sink --listen 127.0.0.1:{port}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "relay", "-n", "20"),
        ("check", "eod-lf-lf"),
        ("fuzz", "relay", "--cases", "20"),
        ("capacity", "relay", "--slo", "message.p99<5s", "--from", "10/s", "--max-rate", "20/s", "--step", "500ms"),
        ("doctor", "--json"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_server_runs_for_the_command_only(here: Path, port: int, arguments: tuple[str, ...]) -> None:
    out = ("--out", "out") if arguments[0] != "doctor" else ()
    done = smtpbench(*arguments, *out, "-t", f"smtp://127.0.0.1:{port}", "--start", sink(port))
    assert done.code in (0, 1), done.err
    assert not listens(port)
    if out:
        assert "sink: listening on" in (here / "out" / "server.log").read_text()
        again = smtpbench(*arguments, *out, "--overwrite", "-t", f"smtp://127.0.0.1:{port}", "--start", "false")
        assert again.code == 3
        assert not (here / "out" / "server.log").exists()


def test_replay_starts_the_server(here: Path, port: int) -> None:
    mutant = f"{sink(port)} --mutant rset-clears"
    checked = smtpbench("check", "rset-clears", "-t", f"smtp://127.0.0.1:{port}", "--start", mutant, "--out", "out")
    assert checked.code == 1, checked.err
    replayed = smtpbench("replay", "out/findings", "-t", f"smtp://127.0.0.1:{port}", "--start", mutant)
    assert "STILL THERE" in replayed.out
    assert smtpbench("replay", "out/findings", "-t", f"smtp://127.0.0.1:{port}", "--start", sink(port)).code == 0


def test_server_that_does_not_start_is_exit_code_3_with_its_last_output(here: Path, port: int) -> None:
    done = smtpbench("run", "relay", "-t", f"smtp://127.0.0.1:{port}", "--start", "echo 'no licence' >&2; exit 4")
    assert done.code == 3
    assert done.err.strip().endswith("ended with status 4; its last output: no licence")
    (folder,) = (here / "results").iterdir()
    assert [file.name for file in folder.iterdir()] == ["server.log"]


def test_crash_that_fuzz_finds_is_replayed_by_the_death(here: Path, port: int) -> None:
    (here / "server.py").write_text(SERVER.replace("exec(line)", "line[:4] == b'VRFY' and os.abort()"))
    target = ("-t", f"smtp://127.0.0.1:{port}")
    start = ("--start", f"{sys.executable} server.py {port}")
    fuzzed = smtpbench(
        "fuzz", "relay", *target, *start, "--only", "order", "--cases", "60", "--connections", "1", "--out", "out"
    )
    assert fuzzed.code == 1, fuzzed.err
    result = json.loads((here / "out" / "result.json").read_text())
    (crash,) = (finding for finding in result["findings"] if finding["severity"] == "crash")
    assert crash["cause"] == "the server died after VRFY: signal 6 (SIGABRT)"
    assert len([line for line in crash["dialogue"] if line.startswith("C: ")]) == 1
    assert f"'--start={start[1]}'" in crash["repeat"]
    assert (here / "out" / "server.csv").read_text().startswith("end_s,")
    assert {death["how"] for death in result["server"]["deaths"]} == {"signal 6 (SIGABRT)"}
    file = f"out/{crash['file']}"
    replayed = smtpbench("replay", file, *target, *start)
    assert "STILL THERE" in replayed.out
    assert "the server died: signal 6 (SIGABRT)" in replayed.out
    assert "FIXED" in smtpbench("replay", file, *target, "--start", sink(port)).out


def test_death_in_a_run_is_in_its_result(here: Path, port: int) -> None:
    third = 'seen = globals().get("seen", 0) + 1; seen < 3 or os.abort()'
    (here / "server.py").write_text(SERVER.replace("exec(line)", third))
    (here / "noop.yaml").write_text("session:\n- EHLO client.example\n- NOOP\n- QUIT\n")
    start = f"{sys.executable} server.py {port}"
    smtpbench("run", "noop.yaml", "-t", f"smtp://127.0.0.1:{port}", "-n", "9", "-c", "1", "--start", start, "--out", "out")
    (death,) = json.loads((here / "out" / "result.json").read_text())["server"]["deaths"]
    assert (death["how"], death["restarted_by"]) == ("signal 6 (SIGABRT)", "")


def test_several_targets_have_no_one_server(port: int) -> None:
    targets = ("-t", f"smtp://127.0.0.1:{port}", "-t", f"smtp://127.0.0.1:{port}")
    done = smtpbench("check", *targets, "--start", "true")
    assert done.code == 2
    assert "--start and --watch are about the server of one target, and 2 are given" in done.err


def test_doctor_needs_a_target_for_a_server() -> None:
    done = smtpbench("doctor", "--start", "true")
    assert done.code == 2
    assert "add --target URL" in done.err
