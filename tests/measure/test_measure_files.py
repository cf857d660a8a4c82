"""The files that a run appends to: they are read back by the library, follow a grammar, and survive full disks."""

from __future__ import annotations

import csv
import io
import re
import resource
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes import full_disk
from figures import MS, busy_recorder, sample, tick
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from smtpbench.load.meter import Collector, WorkerReport
from smtpbench.load.plan import LoadPlan
from smtpbench.measure.files import TIMELINE_COLUMNS, AppendedFiles, RunFiles, Tick, hlog_header, hlog_lines, timeline_lines
from smtpbench.measure.histogram import DIGITS, HIGHEST_US, LOWEST_US, Histogram
from smtpbench.measure.recorder import Interval, Recorder
from smtpbench.units import NS_PER_S

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
LINE = re.compile(r"Tag=[^,\s]+,\d+\.\d{3},\d+\.\d{3},\d+\.\d{3},HISTFAAA[A-Za-z0-9+/]+=*")


def write(files: RunFiles, *ticks: Tick) -> None:
    for each in ticks:
        for _ in files.add_steps(each):
            pass


def read_hlog(path: Path) -> dict[str, HdrHistogram]:
    """Read a log with the reader of the library; return the sum of the lines of each tag."""
    reader = HistogramLogReader(str(path), HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS))
    found: dict[str, HdrHistogram] = {}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        assert histogram.get_start_time_stamp() >= STARTED.timestamp() * 1000
        if histogram.get_tag() in found:
            found[histogram.get_tag()].add(histogram)
        else:
            found[histogram.get_tag()] = histogram
    reader.close()
    return found


def timeline_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.mark.parametrize("late_us", [0, 2000])
def test_lines_of_a_tag_add_up_to_the_totals(tmp_path: Path, late_us: int) -> None:
    files, total = RunFiles(tmp_path / "new" / "run", STARTED), Interval()
    for second in range(1, 5):
        # in one second nothing is late, so that service and response time are the same object
        interval = busy_recorder(300, second, late_us if second != 2 else 0).drain()
        total.add(interval)
        write(files, tick(interval, end_s=float(second)))
    found = read_hlog(files.folder / "histograms.hlog")
    expected: dict[str, Histogram] = {}
    for (metric, ok), latency in total.latencies.items():
        name = metric if ok else f"{metric}.failed"
        expected |= {f"{name}.service": latency.service, f"{name}.response": latency.response}
    assert found.keys() == expected.keys()
    for tag, histogram in expected.items():
        assert {i: count for i, count in enumerate(found[tag].counts) if count} == histogram.counts, tag
    assert "message.failed.response" in found


def test_every_line_of_the_log_follows_the_grammar() -> None:
    head = hlog_header(STARTED).splitlines()
    assert head[1] == "#[Histogram log format version 1.2]"
    assert head[2].startswith("#[StartTime: 1767323045.678 (seconds since epoch), 2026-01-02T03:04:05")
    assert head[3] == '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
    lines = list(hlog_lines(tick(busy_recorder(late_us=50).drain())))
    assert lines
    for line in lines:
        assert LINE.fullmatch(line.removesuffix("\n")), line


def test_interval_is_in_seconds_and_maximum_in_milliseconds() -> None:
    recorder = Recorder()
    recorder.timing("connect").append(12_345_678)
    line = next(hlog_lines(tick(recorder.drain(), end_s=7.5, length_s=1.25)))
    assert line.startswith("Tag=connect.service,6.250,1.250,12.346,")


@pytest.mark.parametrize("metric", ["a,b c", "Grüße", "x\r\nTag=y", "\x1b[2J", "日本"])
def test_a_metric_of_any_name_gives_one_tag_and_one_line(tmp_path: Path, metric: str) -> None:
    recorder = Recorder()
    recorder.timing(metric).append(MS)
    files = RunFiles(tmp_path, STARTED)
    write(files, tick(recorder.drain()))
    assert [histogram.get_total_count() for histogram in read_hlog(tmp_path / "histograms.hlog").values()] == [1, 1]
    assert files.errors == ""


def test_log_excludes_the_warm_up_and_timeline_includes_it(tmp_path: Path) -> None:
    warm, measured = busy_recorder(50, 1).drain(), busy_recorder(70, 2).drain()
    both = Interval()
    both.add(warm)
    both.add(measured)
    files = RunFiles(tmp_path, STARTED)
    write(files, tick(both, measured=measured, warmup=warm), tick(warm, measured=Interval(), phase="warmup"))
    logged = sum(found.get_total_count() for found in read_hlog(tmp_path / "histograms.hlog").values())
    assert logged == 2 * sum(latency.service.count for latency in measured.latencies.values())
    assert sum(int(row["accepted"]) for row in timeline_rows(tmp_path / "timeline.csv")) == (
        both.messages["accepted"] + warm.messages["accepted"]
    )


@pytest.mark.parametrize("phase", ["warmup", "steady", "drain"])
def test_rows_of_the_warm_up_are_labelled_and_the_others_add_up_to_the_totals(tmp_path: Path, phase: str) -> None:
    collector = Collector(LoadPlan(warmup_ns=2 * NS_PER_S, duration_ns=2 * NS_PER_S), 0)
    files, seconds = RunFiles(tmp_path, STARTED), {"warmup": 2, "steady": 3, "drain": 5}[phase]
    for end_s in range(1, 6):
        # a message of the warm-up may end in any second, and in the last second of it a measured one may, too
        warm = busy_recorder(50, end_s).drain() if end_s <= seconds else Interval()
        measured = busy_recorder(70, 10 + end_s).drain() if end_s >= 2 else Interval()
        collector.add(report(end_s, warm, measured))
        second = collector.flush()
        assert second is not None
        write(files, second)
    lines = timeline_rows(tmp_path / "timeline.csv")
    for name in ("accepted", "rejected", "failed"):
        by_phase = Counter[str]()
        for row in lines:
            by_phase["warmup" if row["phase"] == "warmup" else "measured"] += int(row[name])
        assert by_phase["warmup"] == collector.warmup.messages[name]
        assert by_phase["measured"] == collector.totals.messages[name]
    assert {row["phase"] for row in lines} == {"warmup", "steady", "drain"}


def report(end_s: int, warmup: Interval, steady: Interval) -> WorkerReport:
    return WorkerReport(
        worker=0, end_ns=end_s * NS_PER_S, length_ns=NS_PER_S, warmup=warmup, baseline=Interval(), steady=steady,
        connections_open=1, busy=1, waiting=0, waited=0, cpu_user_s=0, cpu_system_s=0, cpu_wait_s=0, lag_ns=0,
        late=Histogram(), connections_peak=1, rss_bytes=1,
    )  # fmt: skip


def test_line_of_the_timeline() -> None:
    recorder = Recorder()
    recorder.samples("message", "message", b"250 Ok\r\n", True).extend([sample(8 * MS, late_us=2000), sample(4 * MS)])
    recorder.accepted, recorder.failed = 2, 1
    recorder.error("reset", count=3)
    (line,) = timeline_lines(tick(recorder.drain(), end_s=3.004, waiting=7))
    assert dict(zip(TIMELINE_COLUMNS, line.removesuffix("\n").split(","), strict=True)) == {
        "t_s": "3.00", "phase": "steady", "accepted": "2", "rejected": "0", "failed": "1", "dropped": "0",
        "interrupted": "0", "errors": "3", "connections_open": "10", "connections_busy": "4", "arrivals_waiting": "7",
        "message_service_p50_ms": "4.001", "message_service_p99_ms": "8.000", "message_service_max_ms": "8.000",
        "message_response_p50_ms": "4.001", "message_response_p99_ms": "10.000", "message_response_max_ms": "10.000",
        "cpu_percent": "25.6", "loop_lag_ms": "1.5",
    }  # fmt: skip


def test_a_second_without_messages_has_no_latency(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, STARTED)
    write(files, tick(Interval()))
    (row,) = timeline_rows(tmp_path / "timeline.csv")
    assert {value for name, value in row.items() if name.startswith("message_")} == {""}
    assert None not in row
    assert row["accepted"] == "0"


# -- disks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary folders are created."""
    folder = tmp_path / "temporary_root"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_files_of_a_folder_that_cannot_be_created_are_in_a_temporary_folder(tmp_path: Path, temporary_root: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    files = RunFiles(tmp_path / "file" / "run", STARTED)
    write(files, tick(busy_recorder().drain()))
    assert files.folder.parent == temporary_root
    assert "Not a directory" in files.errors
    assert str(files.folder) in files.errors
    assert len(timeline_rows(files.folder / "timeline.csv")) == 1
    assert read_hlog(files.folder / "histograms.hlog")


def test_files_of_a_folder_that_is_removed_continue_in_a_temporary_folder(tmp_path: Path, temporary_root: Path) -> None:
    files = RunFiles(tmp_path / "run", STARTED)
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    (tmp_path / "run").rmdir()
    write(files, tick(Interval()), tick(Interval()))
    assert files.folder.parent == temporary_root
    assert len(timeline_rows(files.folder / "timeline.csv")) == 2


def test_files_of_a_full_disk_continue_in_a_temporary_folder(
    tmp_path: Path, temporary_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interval = busy_recorder().drain()
    files = RunFiles(tmp_path / "run", STARTED)
    write(files, tick(interval, end_s=1.0))
    sizes = {path.name: path.stat().st_size for path in files.folder.iterdir()}
    make_folder = tempfile.mkdtemp

    def with_room(prefix: str) -> str:
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        return make_folder(prefix=prefix)

    monkeypatch.setattr(tempfile, "mkdtemp", with_room)
    with full_disk(sizes["histograms.hlog"] + 100):
        write(files, tick(interval, end_s=2.0), tick(interval, end_s=3.0))
    assert "File too large" in files.errors
    assert files.folder.parent == temporary_root
    assert [row["t_s"] for row in timeline_rows(files.folder / "timeline.csv")] == ["1.00", "2.00", "3.00"]
    tags = Counter(line.partition(",")[0] for line in (files.folder / "histograms.hlog").read_text().splitlines()[4:])
    assert set(tags.values()) == {3}
    assert (tmp_path / "run" / "histograms.hlog").stat().st_size == sizes["histograms.hlog"]


def test_further_file_is_made_with_its_first_line(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, STARTED, {"server.csv": "end_s\n"})
    write(files, tick(Interval()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["histograms.hlog", "timeline.csv"]
    files.append("server.csv", "1.000\n")
    assert (tmp_path / "server.csv").read_text() == "end_s\n1.000\n"


def test_file_of_the_server_continues_with_the_others(tmp_path: Path, temporary_root: Path) -> None:
    files = RunFiles(tmp_path / "run", STARTED, {"server.csv": "end_s\n"})
    files.append("server.csv", "1.000\n")
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    (tmp_path / "run").rmdir()
    files.append("server.csv", "2.000\n")
    write(files, tick(Interval()))
    assert files.folder.parent == temporary_root
    assert (files.folder / "server.csv").read_text() == "end_s\n2.000\n"
    assert len(timeline_rows(files.folder / "timeline.csv")) == 1
    assert f"timeline.csv, histograms.hlog and server.csv continue in {files.folder}" in files.errors


@pytest.mark.usefixtures("temporary_root")
def test_file_alone_continues_in_a_temporary_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files = AppendedFiles(tmp_path / "file" / "run", {"server.csv": "end_s\n"})
    files.append("server.csv", "1.000\n")
    assert (files.folder / "server.csv").read_text() == "end_s\n1.000\n"
    assert f"; server.csv continues in {files.folder}" in files.errors


@pytest.mark.usefixtures("temporary_root")
def test_without_any_free_disk_only_complete_lines_remain(tmp_path: Path) -> None:
    interval = busy_recorder().drain()
    files = RunFiles(tmp_path / "run", STARTED)
    write(files, tick(interval))
    before = (tmp_path / "run" / "histograms.hlog").read_bytes()
    with full_disk(len(before) + 100):
        write(files, tick(interval), tick(interval))
    assert files.errors.count("File too large") == 2
    for folder in (tmp_path / "run", files.folder):
        assert (folder / "histograms.hlog").read_bytes() == before
        assert (folder / "timeline.csv").read_bytes().endswith(b"\n")
