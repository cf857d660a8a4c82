"""An examination on a terminal."""

from __future__ import annotations

from smtpbench.doctor.diagnosis import BAD, OK, WARN, Diagnosis, unknown
from smtpbench.doctor.examine import report
from smtpbench.report.terminal.doctor import examination
from smtpbench.report.terminal.screen import Screen

MACHINE = [
    Diagnosis("cores", OK, "8", "a worker uses one core"),
    unknown("CPU governor", "virtual machines hide it"),
    Diagnosis("memory", WARN, "200 MiB available", "room for about 3 workers", "end what else runs " * 9),
]
TARGET = [Diagnosis("greeting", BAD, "554 \x1b[2J\\\\ no", "every session will be turned away", "mend it")]


def test_each_check_has_its_value_limit_and_advice() -> None:
    text = examination(report(MACHINE, TARGET, "smtp://127.0.0.1:25"), color=False, screen=Screen())
    lines = text.splitlines()
    assert "\x1b" not in text
    assert max(map(len, lines)) <= 80
    (at,) = (at for at, line in enumerate(lines) if line.startswith("  warn  memory"))
    assert lines[at].endswith("200 MiB available")
    assert lines[at + 1].strip() == "room for about 3 workers"
    assert lines[at + 2].strip().startswith("→ end what else")
    assert "smtp://127.0.0.1:25" in lines
    assert any("554 \\x1b[2J\\\\ no" in line for line in lines)
    assert lines[-1] == "1 bad, 1 warning, 1 unknown, 1 ok"


def test_colour_on_request() -> None:
    text = examination(report(MACHINE, TARGET, None), color=True)
    assert "\x1b[1;31mbad \x1b[0m" in text
    assert "\x1b[2J" not in text


def test_verdict_is_the_most_severe_of_all_checks() -> None:
    assert report(MACHINE, [], None)["verdict"] == WARN
    assert report(MACHINE, TARGET, "x")["verdict"] == BAD
    assert [check["of"] for check in report(MACHINE, TARGET, "x")["checks"]] == ["machine"] * 3 + ["target"]
