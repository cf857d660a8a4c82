"""Mistyped commands, options and names: one line that says what is near, and exit code 2."""

from __future__ import annotations

import pytest

from smtpbench.cli import exit_codes
from smtpbench.cli.main import call

RUN = ("run", "relay", "-t", "smtp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "expected_texts"),
    [
        (("rnu",), "there is no command 'rnu'; did you mean run?"),
        (("help", "rnu"), "did you mean run?"),
        (("\x1b[31m",), "there is no command '\\x1b[31m'; `smtpbench --help` lists them"),
        (("--versoin",), "there is no option --versoin; did you mean --version? `smtpbench --help` lists the options"),
        ((*RUN, "--conections", "5"), "did you mean --connections? `smtpbench run --help` lists the options"),
        (("report", "x", "--formt", "y"), "there is no option --formt; `smtpbench report --help`"),
        ((*RUN, "-Z"), "there is no option -Z; `smtpbench run --help`"),
        ((*RUN, "-c", "many"), "'--connections' / '-c': the value must be a valid integer; `smtpbench run --help`"),
        ((*RUN, "-c", "0"), "the value must be at least 1"),
        ((*RUN, "surplus"), "got unexpected extra argument(s) (surplus); `smtpbench run --help`"),
        (("run",), "missing argument 'SCENARIO'; `smtpbench run --help`"),
        (("run", "relay"), "missing option '--target' / '-t'; `smtpbench run --help`"),
        (("run", "relay", "--target"), "option '--target' requires an argument; `smtpbench run --help`"),
        (("run", "rely", "-t", "smtp://127.0.0.1"), "unknown scenario 'rely'; did you mean relay?"),
        ((*RUN, "--progress", "lvie"), "--progress lvie: allowed are auto, live, plain, none; did you mean live?"),
        ((*RUN, "--arrivals", "poison"), "did you mean poisson?"),
        ((*RUN, "--threshold", "acepted > 5"), "'acepted' is not a metric; did you mean accepted?"),
        ((*RUN, "--threshold", "generator.late_p9 < 5ms"), "did you mean generator.late_p99?"),
        ((*RUN, "--threshold", "xyz > 5"), "'xyz' is not a metric; thresholds look like message.p99"),
        (("rules", "eod-lf-crfl"), "there is no rule 'eod-lf-crfl'; did you mean eod-lf-crlf?"),
        (("rules", "zzz"), "there is no rule 'zzz'; `smtpbench rules` lists them"),
        (("check", "eod-lf-crfl", "-t", "smtp://127.0.0.1"), "did you mean eod-lf-crlf?"),
        (("sink", "--mutant", "eod-lf-crfl"), "did you mean eod-lf-crlf?"),
        (("fuzz", "relay", "-t", "smtp://127.0.0.1", "--profile", "depe"), "did you mean deep?"),
        (("fuzz", "relay", "-t", "smtp://127.0.0.1", "--only", "oder"), "mutation family 'oder'; did you mean order?"),
        (("schema", "rseult"), "'rseult' is not one of 'scenario', "),
        (("schema", "rseult"), "; did you mean result? `smtpbench schema --help`"),
    ],
)
def test_mistyped_names_give_one_line_with_a_suggestion(
    arguments: tuple[str, ...], expected_texts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = exit_codes.exit_code_of(lambda: call(arguments))
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert expected_texts in printed.err
    assert printed.err.startswith("smtpbench: ")
    assert len(printed.err.splitlines()) == 1
