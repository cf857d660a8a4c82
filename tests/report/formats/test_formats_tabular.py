"""CSV and JSON Lines."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hostile_results import capacity_result, check_result, comparison_result, run_result, saved

from smtpbench.errors import UsageError
from smtpbench.report.formats.tabular import COLUMNS, csv_table, json_lines


def test_csv_has_a_row_for_each_metric_and_time() -> None:
    result = run_result("x")
    table_rows = list(csv.DictReader(io.StringIO(csv_table([saved(result)]))))
    (row,) = [row for row in table_rows if (row["slot"], row["time"], row["expected"]) == ("RCPT", "response", "yes")]
    times = result["latency"]["RCPT"]["response"]
    assert int(row["count"]) == times["count"]
    assert float(row["p99_ms"]) == pytest.approx(times["p99_ms"], abs=1e-6)
    assert row["started"] == "2026-01-02T03:04:05Z"
    assert len(table_rows) == sum(2 * len(result[section]) for section in ("latency", "latency_failed"))


def test_csv_has_a_row_for_each_step_of_a_capacity_search() -> None:
    table_rows = list(csv.DictReader(io.StringIO(csv_table([saved(capacity_result())]))))
    assert [(row["rate_per_s"], row["count"], row["p99_ms"], row["p90_ms"]) for row in table_rows] == [
        ("400", "2000", "8", ""), ("500", "2500", "8", ""),
    ]  # fmt: skip


def test_results_without_latencies_are_an_error_that_names_the_alternative() -> None:
    with pytest.raises(UsageError, match="use JSON Lines"):
        csv_table([saved(comparison_result())])


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "  =1", "＝1", "=cmd|' /C calc'!A0"])
def test_text_that_looks_like_a_formula_is_quoted(text: str) -> None:
    table_rows = list(csv.reader(io.StringIO(csv_table([saved(check_result(text))]))))
    assert table_rows[1][COLUMNS.index("slot")] == f"'{text}"
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for row in table_rows[1:] for cell in row)


def test_json_lines_holds_one_object_a_line() -> None:
    lines = [json.loads(line) for line in json_lines([saved(run_result("x")), saved(comparison_result("B"))]).splitlines()]
    assert {line["record"] for line in lines} >= {
        "result", "figure", "count", "latency", "threshold", "rule", "finding", "difference", "rule_difference", "note",
    }  # fmt: skip
    assert {line["result"] for line in lines} == {"mine", "mine (2)"}
    (failed,) = [line for line in lines if line["record"] == "threshold" and not line["passed"]]
    assert (failed["value"], failed["unit"]) == (42.5, "ms")
    assert [line for line in lines if line["record"] == "count" and line["of"] == "replies" and line["name"] == "RCPT.550"]
