"""Progress of a long command: which display is chosen, how often plain lines come, the time left, and the panel."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence, Sized
from dataclasses import dataclass

import pytest
from figures import MS, busy_recorder, sample, tick

from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.measure.server_usage import UsageSample
from smtpbench.report.terminal.progress import (
    AUTO,
    LIVE,
    NONE,
    PLAIN,
    LiveDisplay,
    PlainDisplay,
    ProgressUpdate,
    completion_text,
    duration_text,
    progress_display,
    remaining_s,
)
from smtpbench.report.terminal.run_progress import RunProgress, server_text, sparkline, status_line

SUBJECT = "relay → smtp://127.0.0.1:25"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("mode", "err", "term", "display"),
    [
        (AUTO, Terminal(), "xterm", LiveDisplay),
        (AUTO, Terminal(), "dumb", PlainDisplay),
        (AUTO, io.StringIO(), "xterm", PlainDisplay),
        (PLAIN, Terminal(), "xterm", PlainDisplay),
        (NONE, Terminal(), "xterm", PlainDisplay),
        (LIVE, io.StringIO(), "xterm", LiveDisplay),
    ],
)
def test_display_fits_the_stream(
    mode: str, err: io.StringIO, term: str, display: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert type(progress_display(mode, SUBJECT, err)) is display


def test_plain_lines_come_every_few_seconds_and_hold_no_escapes() -> None:
    err = io.StringIO()
    interval, total = busy_recorder().drain(), Interval()
    total.add(interval)
    with progress_display(PLAIN, SUBJECT, err) as display:
        observer = RunProgress(display, 20.0, None)
        for second in range(1, 21):
            observer.tick(tick(interval, end_s=second + 0.01), total)
    lines = err.getvalue().splitlines()
    assert [re.findall(r"(\d+% done), (\d+ s left)", line) for line in lines] == [
        [("5% done", "19 s left")],
        [("30% done", "14 s left")],
        [("55% done", "9 s left")],
        [("80% done", "4 s left")],
    ]
    assert all(line.startswith(f"smtpbench: {SUBJECT}  ") for line in lines)
    assert err.getvalue().replace("\n", "").isprintable()


def test_preparing_messages_is_shown_and_the_run_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    err, now_s = io.StringIO(), 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    interval, total = busy_recorder().drain(), Interval()
    with progress_display(PLAIN, SUBJECT, err) as display:
        observer = RunProgress(display, 20.0, None)
        for done in range(11):
            observer.preparing(1000 * done, 10_000)
            now_s += 1
        observer.tick(tick(interval, end_s=1.01), total)
    lines = err.getvalue().splitlines()
    assert [line.removeprefix(f"smtpbench: {SUBJECT}  ") for line in lines[:2]] == [
        "10% done, 9 s left  preparing messages: 1,000 of 10,000 files",
        "60% done, 4 s left  preparing messages: 6,000 of 10,000 files",
    ]
    assert lines[2].startswith(f"smtpbench: {SUBJECT}  5% done, 19 s left  steady")


def test_milestone_is_printed_at_once() -> None:
    err = io.StringIO()
    with progress_display(PLAIN, SUBJECT, err) as display:
        for second, milestone in ((0.1, False), (0.2, True), (0.3, False), (0.4, True)):
            display.update(ProgressUpdate(second, f"at {second}", milestone=milestone))
    assert [line.rpartition("  ")[2] for line in err.getvalue().splitlines()] == ["at 0.2", "at 0.4"]


def test_command_that_is_over_at_once_prints_no_progress() -> None:
    err = io.StringIO()
    with progress_display(PLAIN, SUBJECT, err) as display:
        display.update(ProgressUpdate(0.5, "soon over", 0.5))
    assert err.getvalue() == ""


def test_without_progress_only_notices_are_printed() -> None:
    err = io.StringIO()
    with progress_display(NONE, SUBJECT, err) as display:
        display.update(ProgressUpdate(10.0, "half of it", 0.5, milestone=True))
        display.notify("ending")
    assert err.getvalue() == "smtpbench: ending\n"


def test_time_left_follows_from_the_share_of_equal_parts() -> None:
    assert remaining_s(12.0, 0.25) == pytest.approx(36.0)
    assert remaining_s(12.0, 1.0) == 0.0
    assert remaining_s(12.0, 0.0) is None
    assert remaining_s(12.0, None) is None


@pytest.mark.parametrize(
    ("update", "text"),
    [
        (ProgressUpdate(12.0, ""), "12 s elapsed"),
        (ProgressUpdate(12.0, "", 0.0), "0% done"),
        (ProgressUpdate(12.0, "", 0.25), "25% done"),
        (ProgressUpdate(12.0, "", 0.25, 100.0), "25% done, 1 min 40 s left"),
        (ProgressUpdate(12.0, "", 1.0, 0.0), "100% done, 0 s left"),
    ],
)
def test_time_left_is_shown_only_where_there_is_a_basis(update: ProgressUpdate, text: str) -> None:
    assert completion_text(update) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3599, "59 min 59 s"), (3600, "1 h"),
        (3725, "1 h 2 min"), (-1, "0 s"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("length_s", "messages", "shown"),
    [
        (40.0, None, "25% done, 30 s left"),
        (None, 20, "50% done, 10 s left"),
        (40.0, 20, "50% done"),
        (None, None, "elapsed"),
    ],
)
def test_share_of_a_run_is_of_its_length_or_its_messages(length_s: float | None, messages: int | None, shown: str) -> None:
    err = io.StringIO()
    recorder = Recorder()
    recorder.accepted = 10
    interval = recorder.drain()
    with progress_display(PLAIN, SUBJECT, err) as display:
        RunProgress(display, length_s, messages).tick(tick(interval, end_s=10.0), interval)
    assert shown in err.getvalue()


@pytest.mark.parametrize(
    ("values", "shown"),
    [([], ""), ([0.0, 0.0], "▁▁"), ([5.0], "█"), ([0.0, 1.0, 2.0, 4.0, 8.0], "▁▂▃▅█"), ([1e-9, 1e9], "▁█")],
)
def test_sparkline_shows_shares_of_the_greatest(values: list[float], shown: str) -> None:
    assert sparkline(values) == shown


@dataclass
class Server:
    """A server that is watched."""

    samples: Sequence[UsageSample] = ()
    deaths: Sized = ()


BEFORE = UsageSample(0, 1.0, 0.5, memory_bytes=1 << 20)


@pytest.mark.parametrize(
    ("server", "text"),
    [
        (None, ""),
        (Server(), ""),
        (Server([BEFORE]), "memory 1.00 MiB"),
        (Server([BEFORE, UsageSample(10**9 // 2, 1.2, 0.6)]), "CPU 60%"),
        (Server([BEFORE, UsageSample(10**9, 0.1, 0.1)]), ""),  # its counters begin anew
        (Server([BEFORE, BEFORE], ("a", "b")), "memory 1.00 MiB, died 2 times"),
    ],
)
def test_server_under_test_is_shown_by_its_last_two_samples(server: Server | None, text: str) -> None:
    assert server_text(server) == text


def test_panel_has_a_line_for_the_server_once_it_is_watched() -> None:
    updates: list[ProgressUpdate] = []

    class Display(PlainDisplay):
        def update(self, update: ProgressUpdate) -> None:
            updates.append(update)

    observer = RunProgress(Display(SUBJECT, io.StringIO(), silent=True), 10.0, None)
    interval = busy_recorder().drain()
    observer.tick(tick(interval), interval)
    observer.watch(Server([BEFORE]))
    observer.tick(tick(interval), interval)
    assert [update.details[3:] for update in updates] == [[], ["server      memory 1.00 MiB"]]


def test_panel_shows_its_texts_without_markup(capsys: pytest.CaptureFixture[str]) -> None:
    interval = busy_recorder().drain()
    with progress_display(LIVE, "[bold]relay[/bold]") as display:
        for length_s in (10.0, None):
            observer = RunProgress(display, length_s, None)
            for second in range(3):
                observer.tick(tick(interval, end_s=float(second)), interval)
        observer.notify("[bold]no markup[/bold] :smile:")
    assert "smtpbench: [bold]no markup[/bold] :smile:" in capsys.readouterr().err


def test_status_of_a_run_has_its_counts() -> None:
    recorder = Recorder()
    recorder.samples("message", "message", b"250 Ok\r\n", True).extend([sample(8 * MS)] * 10)
    recorder.accepted, recorder.failed = 5120, 1
    interval = recorder.drain()
    totals = Interval()
    for _ in range(12):
        totals.add(interval)
    assert status_line(tick(interval, end_s=12.0, waiting=1234), totals) == (
        "steady  5,120 msg/s  accepted 61,440  failed 12  message p99 8.00 ms  open 10  waiting 1,234"
    )
