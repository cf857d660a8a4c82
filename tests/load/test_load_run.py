"""Whole runs: the result agrees with the record of the sink, and latencies with what its delays imply.

No test depends on the speed of the machine: counts are compared with those of the sink, and a latency only with a lower
bound that the delays of the sink guarantee or with another latency of the same run.
"""

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
def test_counts_agree_with_those_of_the_sink(tmp_path: Path, options: tuple[str, ...]) -> None:
    with sink("--reject", "message=5%", "--tempfail", "RCPT=5%", "--drop", "DATA=2%") as (port, counts):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, *options)
    assert done.code == 0, done.err
    assert done.miscounted(counts) == []
    assert done.messages["rejected"] > 0


def test_waiting_for_a_connection_is_response_time_and_not_service_time(tmp_path: Path) -> None:
    interval_ms, delay_ms, count = 25, 50, 40
    with sink("--delay", f"message={delay_ms}ms") as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "-r", "40/s", "-c", "1", "-n", str(count))
    assert done.messages == {"accepted": count}
    service, response = (done.result["latency"]["message"][kind] for kind in ("service", "response"))
    assert service["min_ms"] >= delay_ms
    # arrival i is due after i intervals, and the connection serves it no earlier than after i + 1 delays
    least_ms = [(i + 1) * delay_ms - i * interval_ms for i in range(count)]
    assert response["mean_ms"] >= sum(least_ms) / count
    assert response["max_ms"] >= least_ms[-1]
    # one connection serves one message at a time, so that the service times fit between the first arrival and the last reply
    assert service["mean_ms"] * count <= (count - 1) * interval_ms + response["max_ms"] + 1
    assert done.result["generator"]["arrivals_waited"] > 0


def test_a_delay_is_attributed_to_the_command_that_is_delayed(tmp_path: Path) -> None:
    delay_ms = 500
    with sink("--delay", f"RCPT={delay_ms}ms") as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "-r", "100/s", "-c", "30", "-n", "30")
    fastest_ms = {metric: done.result["latency"][metric]["service"]["min_ms"] for metric in done.result["latency"]}
    assert fastest_ms["RCPT"] >= delay_ms
    assert fastest_ms["transaction"] >= fastest_ms["RCPT"]
    for metric in ("connect", "banner", "EHLO", "MAIL", "DATA", "message"):
        assert fastest_ms[metric] < fastest_ms["RCPT"], metric


def test_the_files_of_a_run_can_be_read_by_other_libraries(tmp_path: Path) -> None:
    with sink() as (port, _):
        done = run("pipelined", f"smtp://127.0.0.1:{port}", tmp_path, "-r", "300/s", "-c", "5", "-n", "600")
    schema = json.loads(smtpbench("schema", "result").out)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(done.result)
    timeline_rows = list(csv.DictReader((tmp_path / "timeline.csv").read_text().splitlines()))
    assert sum(int(row["accepted"]) for row in timeline_rows) == done.messages["accepted"] == 600
    assert len(timeline_rows) > 1
    assert {row["phase"] for row in timeline_rows} == {"steady"}
    log = (tmp_path / "histograms.hlog").read_text().splitlines()
    message = [line for line in log if line.startswith("Tag=message.response,")]
    total = HdrHistogram(1, 3_600_000_000, 3)
    for line in message:
        total.add(HdrHistogram.decode(line.split(",")[-1]))
    assert total.get_total_count() == 600
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
    assert sum(found) == 600


def test_without_a_free_connection_arrivals_are_dropped_and_do_not_wait(tmp_path: Path) -> None:
    with sink("--delay", "message=1s") as (port, counts):
        target = f"smtp://127.0.0.1:{port}"
        done = run("relay", target, tmp_path, "-r", "100/s", "-c", "2", "-n", "200", "--when-busy", "drop")
    assert done.miscounted(counts) == []
    # each connection accepts at most one message a second, and the arrivals last two seconds
    assert done.messages["dropped"] > 100
    assert done.messages["accepted"] > 0
    assert done.result["generator"]["arrivals_waited"] == 0


def test_the_warm_up_is_not_measured(tmp_path: Path) -> None:
    with sink() as (port, counts):
        target = f"smtp://127.0.0.1:{port}"
        done = run("relay", target, tmp_path, "-r", "100/s", "-n", "200", "--warmup", "1s", "-c", "5")
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
    received = []
    for number, seed in enumerate(("1", "1", "2")):
        with sink() as (port, counts):
            run(scenario, f"smtp://127.0.0.1:{port}", tmp_path / str(number), "-n", "50", "-c", "5", "--seed", seed)
        received.append(counts["message_bytes"])
    assert received[0] == received[1] != received[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_send_a_large_corpus_that_one_process_has_prepared(tmp_path: Path, workers: int) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.eml").write_bytes(b"Subject: %d\n\n%s\n" % (number, b"x" * 70_000))
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "name: corpus\nmessage: {eml: '*.eml'}\n"
        "session: ['EHLO {client}', 'MAIL FROM:<{sender}>', 'RCPT TO:<{recipient}>', DATA, message, QUIT]\n"
    )
    with sink() as (port, counts):
        options = ("-c", "4", "-n", "200", "--workers", str(workers))
        done = run(str(scenario), f"smtp://127.0.0.1:{port}", tmp_path / "out", *options)
    assert done.code == 0, done.err
    assert done.messages == {"accepted": 200}
    assert counts["messages"]["accepted"] == 200


@pytest.mark.parametrize(
    "options",
    [("-r", "20/s..150/s", "-d", "1500ms", "-c", "7", "--workers", "3"), ("-n", "300", "-c", "5", "--workers", "2")],
)
def test_rows_of_the_timeline_add_up_to_the_totals(tmp_path: Path, options: tuple[str, ...]) -> None:
    with sink("--reject", "message=5%", "--drop", "DATA=2%", "--delay", "message=30ms") as (port, _):
        done = run("relay", f"smtp://127.0.0.1:{port}", tmp_path, "--warmup", "600ms", *options)
    assert done.code == 0, done.err
    timeline_rows = list(csv.DictReader((tmp_path / "timeline.csv").read_text().splitlines()))
    warmup = [row for row in timeline_rows if row["phase"] == "warmup"]
    measured = [row for row in timeline_rows if row["phase"] != "warmup"]
    for part, messages in ((measured, done.result["messages"]), (warmup, done.result["warmup"]["messages"])):
        for outcome in ("accepted", "rejected", "failed", "dropped", "interrupted"):
            assert sum(int(row[outcome]) for row in part) == messages[outcome]
    assert sum(int(row["errors"]) for row in measured) == sum(done.result["errors"].values())
    assert done.result["messages"]["attempted"] > 0
    assert done.result["warmup"]["messages"]["attempted"] > 0
