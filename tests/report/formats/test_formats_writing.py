"""Reports are written completely or not at all, and devices are never replaced."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from smtpbench.report.formats.writing import append, write_whole


def test_file_is_created_and_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    write_whole("one\udce9", path)
    assert path.read_bytes() == b"one\\udce9"
    path.chmod(0o600)
    write_whole("two", path)
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_longest_possible_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    write_whole("x", path)
    assert path.read_text() == "x"


def test_symbolic_link_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole("new", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_fifo_is_written_and_kept(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    text, received = "x" * 200_000, list[str]()  # more than a pipe holds
    reader = threading.Thread(target=lambda: received.append(fifo.read_text()))
    reader.start()
    write_whole(text, fifo)
    reader.join(timeout=30)
    assert received == [text]
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def test_device_is_written_and_kept(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    try:
        device = Path(os.ttyname(theirs))
        (tmp_path / "link").symlink_to(device)
        write_whole("one", device)
        write_whole("two", tmp_path / "link")
        assert os.read(ours, 3) + os.read(ours, 3) == b"onetwo"
        assert stat.S_ISCHR(device.lstat().st_mode)
    finally:
        os.close(theirs)
        os.close(ours)


def test_dev_fd_of_a_file_is_appended_to(tmp_path: Path) -> None:
    # with a shell's `> file`, /dev/stdout is a name of that file, which holds what was printed before
    path = tmp_path / "out"
    path.write_text("printed\n")
    with path.open("a") as out:
        write_whole("report\n", Path(f"/dev/fd/{out.fileno()}"))
        inode = os.fstat(out.fileno()).st_ino
    assert path.read_text() == "printed\nreport\n"
    assert path.stat().st_ino == inode


def test_failed_write_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole("x", tmp_path / "missing" / "a")
    with pytest.raises(OSError, match="irectory"):
        write_whole("x", tmp_path)
    (tmp_path / "a").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole("new", tmp_path / "a")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_append_adds_to_the_end(tmp_path: Path) -> None:
    append("one\n", tmp_path / "a")
    append("two\n", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "one\ntwo\n"
