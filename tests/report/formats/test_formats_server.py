"""What every format has of the server under test: its figures, how it died, and its log."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hostile_results import (
    HOSTILE,
    capacity_result,
    check_result,
    death,
    finding,
    fuzz_result,
    log_line,
    run_result,
    saved,
    server,
)
from junitparser import Failure, JUnitXml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from smtpbench.report.formats.github import workflow_commands
from smtpbench.report.formats.junit import junit
from smtpbench.report.formats.markdown import markdown
from smtpbench.report.formats.openmetrics import openmetrics
from smtpbench.report.formats.registry import FORMATS, render
from smtpbench.report.formats.sarif import sarif
from smtpbench.report.formats.tabular import csv_table, json_lines

DEATH = "signal 6 (SIGABRT), heap-buffer-overflow"


def watched(**changes: Any) -> dict[str, Any]:
    return run_result(hostile=None, server=server(**changes))


def with_evidence(**changes: Any) -> dict[str, Any]:
    evidence: dict[str, Any] = {"death": death(), "log_lines": [log_line(source="mail.err")]}
    return check_result(findings=[finding(**evidence)], **changes)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("make", [run_result, check_result, fuzz_result, capacity_result])
def test_result_without_a_server_says_nothing_of_it(name: str, make: Any) -> None:
    if (name, make) in {("sarif", capacity_result), ("annotations", capacity_result), ("hgrm", capacity_result)}:
        return
    result = make(text="plain")
    shown = render(name, [saved(result)]) if name != "hgrm" or make is run_result else ""
    body = shown.partition("<body>")[2].partition("<script")[0] if name == "html" else shown
    assert not {"server died", "server: ", "smtpbench_server", "Server: ", ">Server<"} & {
        text for text in ("server died", "server: ", "smtpbench_server", "Server: ", ">Server<") if text in body
    }


def test_csv_has_the_figures_of_the_server_in_every_row() -> None:
    table_rows = list(csv.DictReader(io.StringIO(csv_table([saved(watched(fsyncs=None)), saved(run_result())]))))
    first, old = table_rows[0], table_rows[-1]
    assert (first["server_cpu_ms_per_message"], first["server_rss_max_bytes"]) == ("1.42", "88080384")
    assert first["server_fsyncs"] == ""
    assert not any(value for name, value in old.items() if name.startswith("server_"))


def test_csv_has_the_figures_of_each_step() -> None:
    result = capacity_result()
    result["steps"][0] |= {"server_cores_share": 0.5, "server_cpu_ms_per_message": 1.5}
    table_rows = list(csv.DictReader(io.StringIO(csv_table([saved(result)]))))
    assert [(row["server_cores_share"], row["server_cpu_ms_per_message"]) for row in table_rows] == [
        ("0.5", "1.5"),
        ("", ""),
    ]


def test_json_lines_have_the_server_its_deaths_and_its_log() -> None:
    lines = [json.loads(line) for line in json_lines([saved(watched()), saved(with_evidence())]).splitlines()]
    records = {line["record"]: line for line in reversed(lines)}
    assert records["server"]["cpu_ms_per_message"] == 1.42
    assert records["server"]["rss_growth_interval"] == [-4_404_019.0, -2_097_152.0]
    assert records["death"]["text"] == "signal 6 (SIGABRT), master"
    assert records["log_line"]["text"] == "master"
    assert records["finding"]["death"]["text"] == DEATH
    assert records["finding"]["log_lines"] == [{"at_s": 4.5, "source": "mail.err", "text": "fatal: no memory"}]
    figures = {line["name"]: line["value"] for line in lines if line["record"] == "figure"}
    assert (figures["server.cpu_s"], figures["server.deaths"]) == (21.6, 1)


def test_openmetrics_has_the_server() -> None:
    families = text_string_to_metric_families(openmetrics([saved(watched())]))  # type: ignore[no-untyped-call]  # the library's own
    found = {
        (one.name, *(value for name, value in sorted(one.labels.items()) if name != "result")): one.value
        for family in families
        for one in family.samples
        if one.name.startswith("smtpbench_server")
    }
    assert found["smtpbench_server_cpu_seconds_total", "user"] == 15.0
    assert found["smtpbench_server_cpu_seconds_per_message",] == pytest.approx(0.00142)
    assert found["smtpbench_server_memory_max_bytes", "pss"] == 88_080_384
    assert found["smtpbench_server_memory_growth_bytes_per_hour",] == -3_250_586.0
    assert found["smtpbench_server_disk_bytes_total", "write"] == 48_234_496
    assert found["smtpbench_server_deaths_total", "signal 6 (SIGABRT), master"] == 1
    assert found["smtpbench_server_fsyncs_total",] == 7


def test_markdown_has_the_server_and_quotes_its_output() -> None:
    text = markdown([saved(watched(deaths=[death(), death()]))])
    assert text.splitlines()[0].endswith("**SERVER DIED**")
    assert "\nServer: 1.42 ms of CPU a message; 96 % of the machine's cores" in text
    assert f"\n**Server died** 2 times, first after 12.3 s: `{DEATH}`\n" in text
    assert "\n- frames: `heap-buffer-overflow < serve`\n" in text
    assert "3 lines on errors in the server's log" in text
    text = markdown([saved(with_evidence())])
    assert f"\nDeath: `{DEATH}`\n" in text
    assert "\nmail.err: fatal: no memory\n" in text


def test_markdown_has_columns_of_the_server_for_steps() -> None:
    result = capacity_result()
    result["steps"][1] |= {"server_cores_share": 0.97, "server_cpu_ms_per_message": 1.5}
    lines = markdown([saved(result)]).splitlines()
    assert any("| server, cores | CPU a message |" in line for line in lines)
    assert any("| 97 % | 1.50 ms |" in line for line in lines)
    assert "server, cores" not in markdown([saved(capacity_result())])


def test_junit_has_a_case_for_the_survival_of_the_server() -> None:
    (suite,) = JUnitXml.fromstring(junit([saved(watched())]).encode())
    (case,) = [case for case in suite if case.name == "the server does not die"]
    (failure,) = case.result
    assert isinstance(failure, Failure)
    assert failure.message == "signal 6 (SIGABRT), master, after 12.3 s"
    assert "frames: master < serve" in failure.text
    (suite,) = JUnitXml.fromstring(junit([saved(watched(deaths=[], log_lines=[]))]).encode())
    (case,) = [case for case in suite if case.name == "the server does not die"]
    assert not case.result
    (suite,) = JUnitXml.fromstring(junit([saved(run_result(hostile=None))]).encode())
    assert "the server does not die" not in [case.name for case in suite]


def test_junit_has_the_evidence_of_a_finding() -> None:
    text = junit([saved(with_evidence())])
    assert f"  death: {DEATH}" in text
    assert "  log: mail.err: fatal: no memory" in text


def test_sarif_has_the_death_and_the_log_of_a_finding() -> None:
    (run,) = json.loads(sarif([saved(with_evidence())]))["runs"]
    result = run["results"][0]
    assert f"\nDeath: {DEATH}\n" in result["message"]["text"]
    assert "\nLog: mail.err: fatal: no memory" in result["message"]["text"]
    assert result["properties"]["evidence"][0] == f"death: {DEATH}"
    (run,) = json.loads(sarif([saved(check_result())]))["runs"]
    assert "evidence" not in run["results"][0]["properties"]


def test_annotations_have_the_death_of_a_run_and_of_a_finding() -> None:
    commands = workflow_commands([saved(watched())]).splitlines()
    assert "::error title=server died%3A mine::signal 6 (SIGABRT), master, after 12.3 s" in commands
    (first, *_) = workflow_commands([saved(with_evidence())]).splitlines()
    assert f"%0Adeath: {DEATH}%0A" in first
    assert first.endswith("%0Alog: mail.err: fatal: no memory")
    hostile = workflow_commands([saved(check_result(findings=[finding(death=death(HOSTILE))]))])
    assert all(line.startswith("::") for line in hostile.splitlines())
