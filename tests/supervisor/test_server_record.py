"""The server under test in a result: its window, its rows, its deaths and what it shares with the generator."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from smtpbench.measure.server_usage import MeasuredServer, UsageSample
from smtpbench.supervisor import server_record
from smtpbench.supervisor.death import Death, LogLine
from smtpbench.supervisor.server_record import ServerRecord
from smtpbench.units import NS_PER_S


class FakeServer:
    """A server whose samples a test makes; its clock is that of the record too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known, self.can_restart = True, False
        self.deaths: list[Death] = []
        self.samples: list[UsageSample] = []
        self.lines: list[LogLine] = []
        self.measured = MeasuredServer("others", "exim4", "processes", "rss")
        self.now_s = 100.0
        self.cpu_s = self.busy_s = 50.0
        self.visible = True
        monkeypatch.setattr(server_record, "machine_busy_s", lambda: self.busy_s)
        monkeypatch.setattr(time, "monotonic_ns", lambda: round(self.now_s * NS_PER_S))

    def work(self, length_s: float, cpu_s: float, *, others_s: float = 0.0, sample: bool = True) -> None:
        self.now_s += length_s
        self.cpu_s += cpu_s
        self.busy_s += cpu_s + others_s
        if sample:
            found = self.measure()
            assert found is not None
            self.samples.append(found)

    def measure(self) -> UsageSample | None:
        return UsageSample(round(self.now_s * NS_PER_S), self.cpu_s, 0.0, processes=1) if self.visible else None

    def log_lines(self, from_ns: int, to_ns: int) -> list[LogLine]:
        return [line for line in self.lines if from_ns <= line.at_ns <= to_ns]

    async def death_since(self, at_ns: int) -> Death | None:
        return None

    async def wait_until_ready(self) -> bool:
        return True

    async def restart(self) -> bool:
        return False


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    return FakeServer(monkeypatch)


def section_of(record: ServerRecord, messages: int | None = None) -> dict[str, Any]:
    section = record.section(messages)
    assert section is not None
    return section


def test_only_the_window_is_counted(server: FakeServer) -> None:
    record = ServerRecord(server)
    server.work(1, 0.9)  # the warm-up
    server.work(0.25, 0.2, sample=False)
    record.begin()
    server.work(0.75, 0.3)
    record.flush()
    server.work(1, 0.4)
    server.work(0.5, 0.1, sample=False)
    record.end()
    server.work(1, 5.0)
    record.flush()
    found = section_of(record, messages=100)
    assert found["window_s"] == pytest.approx(2.25)
    assert found["cpu_s"] == pytest.approx(0.8)
    assert found["cpu_ms_per_message"] == pytest.approx(8.0)
    assert (found["started_by"], found["name"]) == ("others", "exim4")


def test_every_sample_after_the_start_is_a_row(server: FakeServer) -> None:
    lines: list[str] = []
    record = ServerRecord(server, lines.append)
    server.work(0.5, 0.0)
    record.start_ns = round(server.now_s * NS_PER_S)
    record.begin()
    for _ in range(3):
        server.work(1, 0.5)
        record.flush()
    server.work(0.5, 0.5, sample=False)
    record.end()
    assert [line.split(",")[:2] for line in lines] == [
        ["1.000", "0.5000"], ["2.000", "0.5000"], ["3.000", "0.5000"], ["3.500", "1.0000"],
    ]  # fmt: skip


def test_server_of_which_nothing_is_known_has_no_section(server: FakeServer) -> None:
    server.visible = False
    record = ServerRecord(server)
    record.begin()
    record.end()
    assert record.section() is None
    assert record.core_use(1.0) == (0.0, 0.0)
    assert record.notes() == []


def test_run_that_ended_in_its_warm_up_has_no_figures(server: FakeServer) -> None:
    record = ServerRecord(server)
    server.work(1, 0.5)
    record.flush()
    found = section_of(record)
    assert (found["cpu_s"], found["window_s"], found["restarts"]) == (None, 0.0, 0)


@pytest.mark.parametrize(
    ("restarted_by", "end"),
    [("smtpbench", " and was started again."), ("others", " and was started again by others."), ("", ".")],
)
def test_deaths_are_noted(server: FakeServer, restarted_by: str, end: str) -> None:
    record = ServerRecord(server)
    server.deaths.append(Death(at_ns=round(99 * NS_PER_S), signal_number=9))  # before
    assert not record.has_new_deaths()
    server.deaths.append(Death(at_ns=round(103.21 * NS_PER_S), signal_number=6, restarted_by=restarted_by))
    assert record.notes() == [f"The server died (signal 6 (SIGABRT)) after 3.2 s{end}"]
    assert [record.has_new_deaths(), record.has_new_deaths()] == [True, False]
    (death,) = section_of(record)["deaths"]
    assert (death["at_s"], death["signal"]) == (pytest.approx(3.21), 6)


def test_deaths_that_are_many_are_counted(server: FakeServer) -> None:
    record = ServerRecord(server)
    server.deaths += [Death(at_ns=round((101 + at) * NS_PER_S), exit_status=1) for at in range(7)]
    assert len(record.notes()) == 6
    assert record.notes()[-1] == "It died 2 more times."


def test_lines_of_the_log_are_noted_and_made_visible(server: FakeServer) -> None:
    record = ServerRecord(server)
    server.lines = [LogLine(round(at * NS_PER_S), f"panic {at}\x1b[2J", "/var/log/x") for at in (99, 101, 102)]
    assert record.notes() == ["2 lines of the server's log speak of an error; the first: panic 101\\x1b[2J"]
    assert section_of(record)["log_lines"][0] == {"at_s": 1.0, "source": "/var/log/x", "text": "panic 101\\x1b[2J"}


def test_cores_are_divided_among_server_others_and_other_workers(server: FakeServer) -> None:
    record = ServerRecord(server)
    record.begin()
    server.work(10, 12.0, others_s=7.0)  # of which the generator used 4
    record.end()
    assert record.core_use(4.0) == pytest.approx((1.2, 0.3))
    assert record.core_use(4.0, workers=2) == pytest.approx((1.2, 0.5))


def test_server_on_other_cores_does_not_explain_that_the_generator_waited(server: FakeServer) -> None:
    server.measured = MeasuredServer(cores=frozenset({max(os.sched_getaffinity(0)) + 1}))
    record = ServerRecord(server)
    record.begin()
    server.work(10, 12.0)
    record.end()
    assert record.core_use(4.0) == (0.0, 0.0)


def test_cores_are_divided_while_the_last_sample_is_some_time_ago(server: FakeServer) -> None:
    record = ServerRecord(server)
    record.begin()
    server.work(10, 10.0, others_s=2.0)
    record.flush()
    server.work(1, 1.0, others_s=0.2, sample=False)
    assert record.core_use(0.0) == pytest.approx((1.0, 0.2))
