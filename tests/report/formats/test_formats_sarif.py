"""SARIF, valid by the official schema, and the same alert on another day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile_results import ADVICE_RULE, CONTROLS, HOSTILE, MAKERS, check_result, finding, fuzz_result, saved
from jsonschema import Draft4Validator

from smtpbench.report.formats.sarif import sarif

SCHEMA = json.loads((Path(__file__).parents[2] / "data" / "sarif-schema-2.1.0.json").read_text())
VALID = Draft4Validator(SCHEMA, format_checker=Draft4Validator.FORMAT_CHECKER)


def log_of(*results: dict[str, Any], folder: str = "results/mine") -> Any:
    log = json.loads(sarif([saved(result, folder) for result in results]))
    VALID.validate(log)
    return log


@pytest.mark.parametrize("text", ["x", HOSTILE, CONTROLS], ids=["plain", "markup", "controls"])
def test_log_is_valid_by_the_schema(text: str) -> None:
    log = log_of(*(make(text) for make in MAKERS.values()))
    assert len(log["runs"]) == 3  # results without findings have no run
    assert not VALID.is_valid({**log, "version": "2.0.0"})


def test_rules_hold_requirement_and_section() -> None:
    (run,) = log_of(check_result())["runs"]
    rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    rule = rules["eod-lf-lf"]
    assert rule["helpUri"] == "https://www.rfc-editor.org/rfc/rfc5321#section-4.1.1.4"
    assert rule["fullDescription"]["text"].startswith("Only CRLF.CRLF ends the message text")
    assert rule["properties"]["security-severity"] == "8.0"
    assert "security" in rule["properties"]["tags"]
    assert "security-severity" not in rules[ADVICE_RULE]["properties"]


def test_results_point_at_the_scenario_that_replays_them() -> None:
    (run,) = log_of(check_result("it went on"))["runs"]
    results = {result["ruleId"]: result for result in run["results"]}
    found = {name: result["level"] for name, result in results.items() if "kind" not in result}
    assert found == {"eod-lf-lf": "error", ADVICE_RULE: "note"}
    one = results["eod-lf-lf"]
    assert run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == "eod-lf-lf"
    (location,) = one["locations"]
    assert location["physicalLocation"]["artifactLocation"] == {
        "uri": "results/mine/findings/eod-lf-lf-0123abcd.yaml", "uriBaseId": "%SRCROOT%",
    }  # fmt: skip
    assert one["message"]["text"].startswith("it went on\nRequired: Only CRLF")
    (elsewhere,) = log_of(check_result(), folder="/abs/a b")["runs"]
    uri = elsewhere["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "file:///abs/a%20b/findings/eod-lf-lf-0123abcd.yaml"


def test_rule_that_was_not_verified_is_not_applicable() -> None:
    (run,) = log_of(check_result("no recipient"))["runs"]
    found = {result["ruleId"]: result for result in run["results"] if "kind" in result}
    assert {name: (result["kind"], result["level"]) for name, result in found.items()} == {
        "rcpt-100": ("notApplicable", "none"), "tls-inject": ("notApplicable", "none"),
    }  # fmt: skip
    assert found["rcpt-100"]["message"]["text"] == "inconclusive: no recipient"
    assert run["tool"]["driver"]["rules"][found["tls-inject"]["ruleIndex"]]["id"] == "tls-inject"


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "", ".", "a\nb", 7, None])
def test_file_outside_the_folder_is_ignored(file: Any) -> None:
    (run,) = log_of(check_result(findings=[finding(file=file)]))["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "results/mine/result.json"


def fingerprints(*results: dict[str, Any]) -> list[str]:
    return [one["partialFingerprints"]["smtpbenchFinding/v1"] for run in log_of(*results)["runs"] for one in run["results"]]


def test_same_finding_of_another_day_has_the_same_fingerprint() -> None:
    monday = fuzz_result(rules={}, findings=[finding("health", "no reply", cause="no reply to QUIT")])
    tuesday = fuzz_result(
        started="2026-05-06T07:08:09+00:00", seed=99, rules={},
        findings=[finding("health", "NOOP got no reply in state 'mail'", cause="no reply to QUIT", id="health-ffff", hits=9,
                          file="findings/health-ffff.yaml", repeat="smtpbench replay --target smtp://127.0.0.1:40001 x",
                          dialogue=["C: NOOP"])],
    )  # fmt: skip
    other = fuzz_result(rules={}, findings=[finding("health", "no reply", cause="the target is gone")])
    assert len(fingerprints(monday)) == 1
    assert fingerprints(monday) == fingerprints(tuesday) != fingerprints(other)


def test_rerun_has_the_same_automation_id() -> None:
    def id_of(folder: str) -> str:
        return str(log_of(fuzz_result(), folder=folder)["runs"][0]["automationDetails"]["id"])

    monday, tuesday = id_of("results/20260102-030405-fuzz-relay"), id_of("x/20270102-030405-fuzz-relay")
    assert monday == tuesday == "smtpbench/fuzz/fuzz-relay/"
    ids = [run["automationDetails"]["id"] for run in log_of(fuzz_result(), fuzz_result())["runs"]]
    assert len(set(ids)) == 2


def test_finding_in_the_baseline_is_suppressed() -> None:
    (run,) = log_of(fuzz_result())["runs"]
    assert {result["ruleId"]: "suppressions" in result for result in run["results"]} == {"health": False, "eod-lf-lf": True}


def test_link_in_text_of_a_server_is_escaped() -> None:
    (run,) = log_of(check_result("[click](http://evil.example)"))["runs"]
    assert "](" not in run["results"][0]["message"]["text"]


def test_crash_and_hang_are_errors_and_no_security_alerts() -> None:
    findings = [
        finding("health", f"the server {severity}s", cause=severity, severity=severity) for severity in ("crash", "hang")
    ]
    (run,) = log_of(fuzz_result(rules={}, findings=findings))["runs"]
    assert [one["level"] for one in run["results"] if one.get("kind") != "notApplicable"] == ["error", "error"]
    (rule,) = [one for one in run["tool"]["driver"]["rules"] if one["id"] == "health"]
    assert (rule["properties"]["tags"], rule["defaultConfiguration"]["level"]) == (["smtp", "crash"], "error")
    assert "security-severity" not in rule["properties"]
