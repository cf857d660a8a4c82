"""The output of every command ends with the verdict of the report on its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner import Done, sink, smtpbench

from smtpbench.measure.saved import load
from smtpbench.report.reading.verdict import verdict_of

QUIET = ("--progress", "none", "--no-html")


def verdict_at_the_end(done: Done, out: Path) -> list[str]:
    """Return the verdict of the saved result, which is the end of the output of its command and of `report`."""
    lines = verdict_of(load(out)).lines
    shown = smtpbench("report", str(out))
    for text in (done.out, shown.out):
        assert text.splitlines()[-len(lines) :] == lines
        assert sum(line in lines for line in text.splitlines()) == len(lines)
    return lines


def test_commands_end_with_their_verdict(tmp_path: Path) -> None:
    def command(name: str, *argv: str, out: str) -> tuple[Any, int]:
        done = smtpbench(name, *argv, "--out", str(tmp_path / out), *(QUIET if name != "diff" else QUIET[2:]))
        return verdict_at_the_end(done, tmp_path / out), done.code

    with sink("--mutant", "eod-lf-lf") as (port, _):
        target = f"smtp://127.0.0.1:{port}"
        load_options = ("-c", "2", "-n", "10")
        lines, code = command("run", "relay", "-t", target, *load_options, "--threshold", "rejected>1", out="run")
        assert (lines[0], code) == ("FAILED: rejected > 1 is 0, 100% beyond the limit", 99)
        lines, code = command("check", "-t", target, "noop-250", "eod-lf-lf", out="check")
        assert (lines, code) == (["FAILED: 1 rule violated: eod-lf-lf (security)"], 1)
        lines, code = command("fuzz", "relay", "-t", target, "--cases", "2", "--only", "pause", out="fuzz")
        assert (lines, code) == (["PASSED: 2 cases, no finding"], 0)
        rounds = ("--repeats", "1", "-n", "5", "--warmup", "0s")
        lines, code = command("compare", "relay", "-t", f"a={target}", "-t", f"b={target}", *rounds, out="compare")
        assert "CANNOT TELL: b against a: 1 round is too few for an interval" in "\n".join(lines)
        lines, code = command("diff", str(tmp_path / "run"), str(tmp_path / "run"), out="diff")
        assert lines[0].partition(":")[0] in ("CANNOT TELL", "NO DIFFERENCE SHOWN")
        replayed = smtpbench("replay", str(tmp_path / "check" / "findings"), "-t", target)
        assert replayed.out.splitlines()[-1].startswith("FAILED: 1 finding is still there: eod-lf-lf-")
        matrix = smtpbench("check", "-t", target, "-t", target, "noop-250")
        assert matrix.out.splitlines()[-2:] == ["A: PASSED: 1 rule", "B: PASSED: 1 rule"]


def test_run_of_which_nothing_is_accepted_says_so_once(tmp_path: Path) -> None:
    with sink("--reject", "RCPT=100%") as (port, _):
        out = tmp_path / "run"
        done = smtpbench("run", "relay", "-t", f"smtp://127.0.0.1:{port}", "-c", "1", "-n", "3", "--out", str(out), *QUIET)
    assert done.code == 4
    lines = verdict_at_the_end(done, out)
    assert lines[0].startswith("NOTHING ACCEPTED: 0 of 3 messages; most often: RCPT 550")
    assert "note: Nothing" not in done.out
