"""Log files: what is new is read once, whole and in time, whatever happens to the file."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest
import trio

from smtpbench.errors import UsageError
from smtpbench.supervisor import log_tail
from smtpbench.supervisor.death import LogLine
from smtpbench.supervisor.log_tail import LINE_BYTES, LogTail, line_matcher
from smtpbench.supervisor.server_options import ERROR_PATTERN


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "server.log"
    path.write_text("panic: before the start\n")
    return path


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


def test_only_what_is_written_after_the_start_is_read(log: Path) -> None:
    with LogTail([log]) as tail:
        assert not tail.poll_now()
        append(log, "info: ok\nfatal: out of memory\r\n")
        assert tail.poll_now()
        assert not tail.poll_now()
        assert tail.last_lines() == ["info: ok", "fatal: out of memory"]
        assert texts(tail.matches()) == ["fatal: out of memory"]
        assert tail.matches()[0].source == str(log)


def test_lines_have_the_time_at_which_they_were_read(log: Path) -> None:
    clock = itertools.count(100)
    with LogTail([log], "x", clock=lambda: next(clock)) as tail:
        append(log, "x1\nx2\n")
        tail.poll_now()
        append(log, "x3\n")
        tail.poll_now()
        assert [line.at_ns for line in tail.matches()] == [100, 101, 102]
        assert texts(tail.matches(101, 101)) == ["x2"]
        assert texts(tail.matches(101)) == ["x2", "x3"]
        assert texts(tail.matches(0, 99)) == []


def test_each_match_is_reported_at_once(log: Path) -> None:
    found: list[LogLine] = []
    with LogTail([log], on_match=found.append) as tail:
        append(log, "info\npanic: 1\n")
        tail.poll_now()
        assert texts(found) == ["panic: 1"]


def test_line_is_read_when_it_is_whole(log: Path) -> None:
    with LogTail([log]) as tail:
        append(log, "pan")
        tail.poll_now()
        assert tail.last_lines() == []
        append(log, "ic: 1\n")
        tail.poll_now()
        assert tail.last_lines() == ["panic: 1"]


def test_line_without_an_end_counts_after_a_death_and_at_the_end(log: Path) -> None:
    with LogTail([log]) as tail:
        append(log, "panic: 1")
        tail.poll_now(final=True)
        assert texts(tail.matches()) == ["panic: 1"]
        append(log, "panic: 2")
    assert texts(tail.matches()) == ["panic: 1", "panic: 2"]


def test_file_that_appears_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "later" / "server.log"
    with LogTail([log]) as tail:
        assert not tail.poll_now()
        log.parent.mkdir()
        log.write_text("panic: 1\n")
        tail.poll_now()
        assert texts(tail.matches()) == ["panic: 1"]


def test_renamed_file_is_read_further_and_the_new_one_from_its_beginning(log: Path) -> None:
    with LogTail([log], "x") as tail:
        append(log, "x1\n")
        old = log.rename(log.with_suffix(".1"))
        tail.poll_now()
        append(old, "x2\nx3")
        log.write_text("x4\n")
        tail.poll_now()
        append(old, " still\n")
        append(log, "x5\n")
        tail.poll_now()
        assert texts(tail.matches()) == ["x1", "x2", "x4", "x3 still", "x5"]
        log.rename(log.with_suffix(".2"))
        append(old, "x6")
        log.write_text("x7\n")
        tail.poll_now()
        append(old, "x8\n")
        tail.poll_now()
        assert texts(tail.matches())[5:] == ["x6", "x7"]


def test_replaced_file_is_read_from_its_beginning(log: Path) -> None:
    with LogTail([log]) as tail:
        log.unlink()
        tail.poll_now()
        log.write_text("panic: 1\n" + "info\n" * 100)
        tail.poll_now()
        assert texts(tail.matches()) == ["panic: 1"]


def test_truncated_file_is_read_from_its_beginning(log: Path) -> None:
    with LogTail([log]) as tail:
        append(log, "x" * 100 + "\npanic: 1")
        tail.poll_now()
        log.write_text("panic: 2\n")
        tail.poll_now()
        assert texts(tail.matches()) == ["panic: 1", "panic: 2"]


@pytest.mark.parametrize("look_bytes", [1, 7, 256 * 1024])
def test_how_much_one_look_reads_does_not_matter(log: Path, monkeypatch: pytest.MonkeyPatch, look_bytes: int) -> None:
    monkeypatch.setattr(log_tail, "_LOOK_BYTES", look_bytes)
    with LogTail([log]) as tail:
        append(log, "ü1\n\npanic: ü\r\nlast\n")
        while tail.poll_now() or tail.last_lines()[-1:] != ["last"]:
            pass
        assert tail.last_lines() == ["ü1", "", "panic: ü", "last"]
        assert texts(tail.matches()) == ["panic: ü"]


def test_octets_that_are_not_utf8_are_replaced(log: Path) -> None:
    with LogTail([log]) as tail:
        append(log, b"panic: \xff\xfe \xc3\n")
        tail.poll_now()
        assert texts(tail.matches()) == ["panic: �� �"]


@pytest.mark.parametrize("parts", [1, 3])
def test_long_line_is_cut_once(log: Path, parts: int) -> None:
    with LogTail([log]) as tail:
        for _ in range(parts):
            append(log, "panic: " * LINE_BYTES)
            tail.poll_now()
        append(log, "\nnext\n")
        tail.poll_now()
        assert [len(line) for line in tail.last_lines()] == [LINE_BYTES, 4]
        assert len(tail.matches()) == 1


def test_oldest_lines_and_matches_are_dropped_and_counted(log: Path) -> None:
    with LogTail([log], "x") as tail:
        append(log, "".join(f"x{number}\n" for number in range(1200)))
        tail.poll_now()
        assert texts(tail.matches()) == [f"x{number}" for number in range(200, 1200)]
        assert tail.dropped == 200
        assert tail.last_lines() == [f"x{number}" for number in range(700, 1200)]


def test_file_that_grows_too_fast_is_skipped_and_that_is_counted(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "_LOOK_BYTES", 20)
    monkeypatch.setattr(log_tail, "_BEHIND_BYTES", 100)
    with LogTail([log], "x") as tail:
        append(log, "panic\n" * 100 + "part of a line\nx last\n")
        tail.poll_now()
        assert tail.last_lines() == ["x last"]
        assert tail.skipped_bytes == 600 + 22 - 20


def test_several_files_are_told_apart(log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.log"
    with LogTail([log, other, log], "x") as tail:
        append(log, "x1\n")
        append(other, "x2\n")
        tail.poll_now()
        assert [(line.source, line.text) for line in tail.matches()] == [(str(log), "x1"), (str(other), "x2")]
        assert tail.last_lines(other) == ["x2"]
        assert tail.last_lines() == ["x1", "x2"]
        assert tail.last_lines(tmp_path / "none") == []


def test_folder_and_device_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(UsageError, match=f"log file {path} is a folder or a device; use a regular file"):
            LogTail([path])


def test_file_below_a_file_is_refused(log: Path) -> None:
    with pytest.raises(UsageError, match=r"server.log/x: not a directory; use a file that can be read"):
        LogTail([log / "x"])


def test_fifo_that_appears_later_is_not_waited_for(tmp_path: Path) -> None:
    with LogTail([tmp_path / "fifo"]) as tail:
        os.mkfifo(tmp_path / "fifo")
        assert not tail.poll_now()


def test_malformed_pattern_is_a_usage_error_with_its_position(log: Path) -> None:
    with pytest.raises(UsageError, match=r"'panic\|\(' is not a regular expression: .* at position 6"):
        LogTail([log], "panic|(")


async def test_files_are_followed_until_cancelled(
    log: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    with LogTail([log]) as tail:
        nursery.start_soon(tail.follow)
        for number in range(3):
            append(log, f"panic: {number}\n")
            await trio.sleep(0.11)
            assert len(tail.matches()) == number + 1
        nursery.cancel_scope.cancel()


LINES = [
    "panic: x",
    "PANIC",
    "assertion failed",
    "Fatal",
    "traceback",
    "Traceback (most",
    "an error: x",
    "errors",
    "250 ok",
    "ok ERROR:",
]


@pytest.mark.parametrize(
    "pattern", [ERROR_PATTERN, f"(?i){ERROR_PATTERN}", "panic", "^panic", "err.r:", "ERROR:|x y", "", "|", "(?i)ß"]
)
def test_words_are_searched_as_their_regular_expression_is(pattern: str) -> None:
    assert [line_matcher(pattern)(line) for line in LINES] == [re.search(pattern, line) is not None for line in LINES]
