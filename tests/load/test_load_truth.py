"""Figures against arithmetic: what the sink was told to do is what the result must say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from jsonschema import Draft202012Validator
from runner import run, sink, smtpbench


@pytest.mark.parametrize(
    "options",
    [
        ("-c", "10", "-n", "500"),
        ("-c", "10", "-d", "1s"),
        ("-c", "10", "-r", "300/s", "-d", "2s"),
        ("-c", "10", "-r", "10/s..400/s", "-d", "2s", "--arrivals", "poisson"),
        ("-c", "10", "-r", "300/s", "-n", "200", "--workers", "2"),
        ("-c", "10", "-n", "500", "--warmup", "300ms"),
    ],
)
def test_counts_equal_what_the_sink_counted(tmp_path: Path, options: tuple[str, ...]) -> None:
    with sink("--reject", "message=5%", "--tempfail", "RCPT=5%", "--drop", "DATA=2%") as (port, counts):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, *options)
    assert done.code == 0, done.err
    assert done.balanced()
    warmup = done.result["warmup"]["messages"]
    assert done.messages["accepted"] + warmup["accepted"] == counts["messages"]["accepted"]
    assert done.messages["rejected"] > 0
    if "200" in options:
        assert done.result["messages"]["attempted"] == 200
    if "500" in options:
        assert done.result["messages"]["attempted"] == 500


def test_a_stall_shows_in_response_time_and_hardly_in_service_time(tmp_path: Path) -> None:
    with sink("--stall", "4s..5s") as (port, _):
        target = f"smtp://127.0.0.1:{port}"
        done = run("relay", target, tmp_path, "-r", "200/s", "-c", "10", "-d", "10s", "--size", "1KiB")
    assert done.messages == {"accepted": 2000}
    for metric in ("message", "transaction"):
        response, service = (done.result["latency"][metric][kind] for kind in ("response", "service"))
        # a tenth of the arrivals falls into the stall, and each waits for what is left of it: from 0 to 1 s
        assert response["p95_ms"] == pytest.approx(500, abs=120)
        assert response["p99_ms"] == pytest.approx(900, abs=120)
        assert service["p99_ms"] < 300  # ten connections of two thousand messages were stopped: 0.5 %


def test_a_delay_shows_where_it_is_and_nowhere_else(tmp_path: Path) -> None:
    with sink("--delay", "RCPT=20ms") as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "-r", "100/s", "-c", "10", "-d", "3s")
    latency = done.result["latency"]
    assert latency["RCPT"]["service"]["min_ms"] >= 20
    assert latency["RCPT"]["service"]["p50_ms"] < 30
    for metric in ("MAIL", "DATA", "message"):
        assert latency[metric]["service"]["p50_ms"] < 10
        assert latency[metric]["response"]["p50_ms"] < 10
    assert latency["transaction"]["service"]["p50_ms"] >= 20


def test_a_run_s_files_are_read_back_by_others(tmp_path: Path) -> None:
    with sink() as (port, _):
        done = run("pipelined", f"smtp://127.0.0.1:{port}", tmp_path, "-r", "300/s", "-c", "5", "-d", "3s")
    schema = json.loads(smtpbench("schema", "result").out)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(done.result)
    rows = list(csv.DictReader((tmp_path / "timeline.csv").read_text().splitlines()))
    assert sum(int(row["accepted"]) for row in rows) == done.messages["accepted"] == 900
    assert {row["phase"] for row in rows} <= {"steady", "drain"}
    log = (tmp_path / "histograms.hlog").read_text().splitlines()
    message = [line for line in log if line.startswith("Tag=message.response,")]
    total = HdrHistogram(1, 3_600_000_000, 3)
    for line in message:
        total.add(HdrHistogram.decode(line.split(",")[-1]))
    assert total.get_total_count() == 900
    assert total.get_value_at_percentile(99) / 1000 == pytest.approx(
        done.result["latency"]["message"]["response"]["p99_ms"], rel=0.002
    )
    plain = tmp_path / "service.hlog"
    plain.write_text("\n".join(line for line in log if not line.startswith("Tag=") or "Tag=message.service" in line) + "\n")
    reader = HistogramLogReader(str(plain), HdrHistogram(1, 3_600_000_000, 3))
    found = []
    while (interval := reader.get_next_interval_histogram()) is not None:
        found.append(interval.get_total_count())
    reader.close()
    assert sum(found) == 900


def test_dropping_instead_of_waiting(tmp_path: Path) -> None:
    with sink("--delay", "message=100ms") as (port, counts):
        target = f"smtp://127.0.0.1:{port}"
        done = run("relay", target, tmp_path, "-r", "100/s", "-c", "2", "-d", "2s", "--when-busy", "drop")
    assert done.balanced()
    assert done.result["messages"]["attempted"] == 200
    assert done.messages["dropped"] > 100
    assert done.messages["accepted"] == counts["messages"]["accepted"]
    assert done.result["latency"]["transaction"]["response"]["max_ms"] < 1000


def test_the_warm_up_is_left_out(tmp_path: Path) -> None:
    with sink() as (port, counts):
        target = f"smtp://127.0.0.1:{port}"
        done = run("relay", target, tmp_path, "-r", "100/s", "-d", "2s", "--warmup", "1s", "-c", "5")
    assert done.messages == {"accepted": 200}
    assert done.result["warmup"]["messages"]["accepted"] == 100
    assert counts["messages"]["accepted"] == 300
    assert done.result["latency"]["message"]["service"]["count"] == 200


def test_the_same_seed_gives_the_same_messages(tmp_path: Path) -> None:
    scenario = tmp_path / "seeded.yaml"
    scenario.write_text(
        "session: ['EHLO {client}', {repeat: 5, steps: ['MAIL FROM:<{who}@a.example>', 'RCPT TO:<x@b.example>', DATA,"
        " message]}, QUIT]\nvalues: {who: {random: 8}}\nmessage: {size: 1KiB..9KiB}\n"
    )
    taken = []
    for number, seed in enumerate(("1", "1", "2")):
        with sink() as (port, counts):
            run(scenario, f"smtp://127.0.0.1:{port}", tmp_path / str(number), "-n", "50", "-c", "5", "--seed", seed)
        taken.append(counts["message_bytes"])
    assert taken[0] == taken[1] != taken[2]
