"""The report of a run: its content, that it fits a screen, that a pipe gets everything, and that hostile text is escaped."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
import unicodedata
from typing import Any

import pytest
from figures import MS, busy_recorder, result_of, sample

from smtpbench.measure.health import Health
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.report.terminal.screen import Screen, cells, cut, screen_of, wants_color
from smtpbench.report.terminal.tables import final_table

SCREEN = Screen()
WIDTH, HEIGHT = SCREEN
SAVED = "results/20260102-030405-relay/result.json"
UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
HOSTILE = (
    "\x1b[2J\x1b[1;31mred", "\r\noverwritten", "\x07\x08\x08\x08", "\u202egnp.exe", "\u2066\u2069", "\x9b31m",
    "\x00", "\u2028", "\ufeff", "\U000e0041", "\udc9b", "\\x1b",
)  # fmt: skip


def table(result: dict[str, Any], **options: Any) -> list[str]:
    """The report on a screen of 80 × 24."""
    return final_table(result, SAVED, screen=SCREEN, **options).split("\n")


def overloaded() -> dict[str, Any]:
    """A result with more of everything than a screen holds."""
    recorder = busy_recorder(500, late_us=900)
    for number in range(20):
        recorder.timing(f"step {number}").append(1_234_567)
        recorder.error(f"error_{number}", "x" * 500)
        recorder.samples("RCPT", "RCPT", b"55%d 5.1.1 no\r\n" % (number % 10), False).append(MS)
    recorder.accepted = recorder.failed = recorder.rejected = recorder.dropped = recorder.interrupted = 123_456_789_012
    health = Health(busiest_share=0.99, starved_share=0.9, late=Histogram.of([5000 * MS]), peak_rss_bytes=1 << 40)
    health.connections_peak = 1_000_000
    notes = [f"note {number} " + "y" * 200 for number in range(9)]
    return result_of(
        recorder.drain(), health=health, notes=notes, outcome={"status": "interrupted", "reason": "by a signal"}
    )


@pytest.mark.parametrize("model", ["open", "closed"])
def test_usual_result_fits_a_screen_completely(model: str) -> None:
    lines = table(result_of(busy_recorder(late_us=900).drain(), model=model))
    assert len(lines) <= HEIGHT
    assert max(map(cells, lines)) <= WIDTH
    assert not any("…" in line or "more" in line for line in lines)
    assert [line.split()[0] for line in lines if re.match(r"[A-Za-z]+ +[\d,]+ .*(us|ms|s)$", line)] == [
        "connect", "tls", "banner", "EHLO", "MAIL", "RCPT", "DATA", "message", "transaction", "session",
    ]  # fmt: skip


def test_large_result_fits_a_screen_and_counts_what_is_left_out() -> None:
    lines = table(overloaded())
    assert len(lines) <= HEIGHT
    assert max(map(cells, lines)) <= WIDTH
    text = "\n".join(lines)
    for noun in ("metrics", "kinds", "notes"):
        assert re.search(rf"and \d+ more {noun}; see result.json", text), noun
    assert "INTERRUPTED: by a signal" in lines
    assert text.count("GENERATOR LIMITED: ") == 1
    assert any(line.startswith("message ") for line in lines)
    # every outcome keeps its number, however long the numbers are
    for name in ("accepted", "rejected", "failed", "dropped", "interrupted"):
        assert re.search(rf"{name} 123,456,789,012", text), name


@pytest.mark.parametrize("metrics", range(20))
@pytest.mark.parametrize("errors", [0, 1, 5])
def test_screen_is_filled_and_never_exceeded(metrics: int, errors: int) -> None:
    recorder = Recorder()
    for number in range(metrics):
        recorder.timing(f"step {number}").append(MS)
    for number in range(errors):
        recorder.error(f"error_{number}")
    lines = table(result_of(recorder.drain()))
    everything = 4 + bool(metrics) + metrics + errors + 3
    assert len(lines) == min(everything, HEIGHT)
    assert any("more" in line for line in lines) is (everything > HEIGHT)


def test_lines_left_out_are_counted() -> None:
    result = overloaded()
    lines = table(result)
    metrics = [line for line in lines if re.search(r" [\d,]+ +[\d.]+ (us|ms|s) ", line)]
    (more,) = re.findall(r"and (\d+) more metrics", "\n".join(lines))
    assert len(metrics) + int(more) == len(result["latency"])
    (more,) = re.findall(r"and (\d+) more kinds", "\n".join(lines))
    assert sum(" × " in line for line in lines) + int(more) == len(result["errors"]) + 11


def test_report_of_a_run() -> None:
    recorder = Recorder()
    recorder.samples("message", "message", b"250 Ok\r\n", True).extend([sample(8 * MS, late_us=32_000)] * 10)
    refused = recorder.samples("RCPT", "RCPT", b"550 5.1.1 no such user\r\n", False)
    refused.extend([sample(MS)] * 3)
    recorder.error("timeout", "while waiting (MAIL)", count=2)
    recorder.accepted, recorder.rejected, recorder.failed = 1500, 3, 2
    health = Health(busiest_share=0.256, late=Histogram.of([2 * MS]), peak_rss_bytes=48 << 20, connections_peak=100)
    lines = table(result_of(recorder.drain(), health=health))
    assert lines == [
        "relay → smtp://127.0.0.1:2525",
        "50.0 messages/s accepted over 30.0 s  (recipients 0, refused 3)",
        "attempted 1,505 = accepted 1,500 + rejected 3 + failed 2",
        "open model, 500/s poisson, at most 100 connections",
        "service time     count      p50      p95      p99      max  resp. p50  resp. p99",
        "message             10  8.00 ms  8.00 ms  8.00 ms  8.00 ms    40.0 ms    40.0 ms",
        "        3 × RCPT refused: 550 5.1.1 no such user",
        "        2 × timeout: while waiting (MAIL)",
        "generator: core 26% busy, late p99 2.00 ms, 48.0 MiB, 100 connections at most",
        f"saved: {SAVED}",
        "COMPLETED: 1,500 of 1,505 messages accepted",
    ]


def test_closed_model_has_a_warning_and_no_response_time() -> None:
    text = "\n".join(table(result_of(busy_recorder().drain(), model="closed", notes=["Closed model: a slow server is …"])))
    assert "latency not safe from coordinated omission" in text
    assert "resp." not in text
    assert "note:" not in text  # the headline has said it


def test_run_without_messages_has_a_report() -> None:
    lines = table(result_of(Interval(), outcome={"status": "could-not-run", "reason": "nothing listens there"}))
    assert lines[-1] == "COULD NOT RUN: nothing listens there"
    assert "attempted 0 = accepted 0 + rejected 0 + failed 0" in lines


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_escaped(text: str) -> None:
    result = result_of(busy_recorder().drain(), notes=[text], outcome={"status": text, "reason": text})
    result["errors"][text] = 1_000_000
    result["examples"] |= {text: text, "RCPT 550 5.1.1": text, f"{text} 550 5.1.1": text}
    result["replies"][text] = {"550": 999_999}
    result["latency"][text] = result["latency"]["message"]
    result["scenario"]["name"] = result["target"]["url"] = text
    result["generator"]["limited_reasons"] = [text]
    shown = final_table(result, text, screen=SCREEN)
    assert not [character for character in shown if unicodedata.category(character) in UNSAFE and character != "\n"]
    assert len(shown.split("\n")) <= HEIGHT
    assert max(map(cells, shown.split("\n"))) <= WIDTH


def test_escaped_text_is_not_escaped_again() -> None:
    result = result_of(busy_recorder().drain())
    result["examples"]["RCPT 550 5.1.1"] = r"550 5.1.1 \x1b[2J and a backslash: \\"
    assert r"RCPT refused: 550 5.1.1 \x1b[2J and a backslash: \\" in final_table(result, SAVED)


def test_path_of_the_result_is_not_cut() -> None:
    long = "/tmp/" + "folder/" * 30 + "result.json"
    lines = final_table(overloaded(), long, screen=SCREEN).split("\n")
    (saved,) = [line for line in lines if line.startswith("saved: ")]
    assert saved == f"saved: {long}"
    assert len(lines) + cells(saved) // WIDTH <= HEIGHT


def test_colour_changes_no_text() -> None:
    plain, coloured = final_table(overloaded(), SAVED), final_table(overloaded(), SAVED, color=True)
    assert "\x1b[" not in plain
    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9;]+m", "", coloured) == plain


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "environment", "wanted"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        (Terminal(), {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (Terminal(), {"FORCE_COLOR": "0"}, False),
        (Terminal(), {"FORCE_COLOR": ""}, True),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "0"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_environment_and_stream_decide_on_colour(
    out: io.StringIO, environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_color(out) is wanted


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("short", 5, "short"), ("longer", 5, "long…"), ("日本語", 6, "日本語"), ("日本語", 5, "日本…"), ("日本語", 4, "日…"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"), ("", 1, ""),
    ],
)  # fmt: skip
def test_text_is_cut_to_columns(text: str, most: int, shown: str) -> None:
    assert cut(text, most) == shown
    assert cells(shown) <= most


def test_pipe_gets_every_line_whole() -> None:
    result = overloaded()
    text = final_table(result, SAVED)
    lines = text.splitlines()
    assert "…" not in text
    assert not re.search(r"and \d+ more", text)
    assert sum(" × " in line for line in lines) == len(result["errors"]) + 11
    assert sum(line.startswith("note: ") for line in lines) == len(result["notes"])
    for note in result["notes"]:
        assert f"note: {note}" in lines
    for metric in result["latency"]:
        assert any(line.startswith(f"{metric} ") for line in lines), metric


def test_one_connection_is_in_the_singular() -> None:
    result = result_of(busy_recorder().drain(), health=Health(connections_peak=1))
    result["load"]["connections"] = 1
    text = final_table(result, SAVED)
    assert "at most 1 connection\n" in text
    assert ", 1 connection at most\n" in text


def test_what_is_not_a_terminal_has_no_screen() -> None:
    assert screen_of(io.StringIO()) is None
    assert screen_of(Terminal()) == Screen()  # a terminal without a descriptor has no size


@pytest.mark.parametrize(
    ("columns", "lines", "screen"), [(0, 0, SCREEN), (40, 10, SCREEN), (120, 50, Screen(120, 49)), (80, 24, SCREEN)]
)
def test_screen_has_the_size_of_the_terminal_and_at_least_80_by_24(columns: int, lines: int, screen: Screen) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with os.fdopen(slave, "w") as out:
        assert screen_of(out) == screen
    os.close(master)
