"""Published results contain nothing about attacks on a server that was not public before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.published.public import PUBLIC, UNPUBLISHED_RULES, publishable

PUBLISHED = Path(__file__).resolve().parent.parent / "results" / "published"
VIOLATED = {"verdict": "violation"}


@pytest.mark.parametrize("file", sorted((PUBLISHED / "rules").glob("*.json")), ids=lambda file: file.stem)
def test_published_verdicts_contain_public_findings_only(file: Path) -> None:
    result = json.loads(file.read_text())
    public = {one.rule for one in PUBLIC if one.server.split("@")[0] == file.stem.removesuffix("-plain")}
    violated = {name for name, rule in result["rules"].items() if rule["verdict"] == "violation"}
    assert violated & UNPUBLISHED_RULES <= public
    assert {finding["rule"] for finding in result["findings"]} <= violated
    assert len(result["rules"]) > 50  # the file is not empty


def test_published_comparisons_contain_no_rules() -> None:
    for file in PUBLISHED.glob("*/result.json"):
        result = json.loads(file.read_text())
        assert result["rules"] == {}
        assert result["rule_differences"] == []


def test_published_bugs_are_the_public_ones() -> None:
    found = json.loads((PUBLISHED / "known-bugs.json").read_text())
    shown = {(server, rule) for server, rules in found.items() for rule, one in rules.items() if one["dialogues"]}
    assert shown == {(one.server, one.rule) for one in PUBLIC}


def test_rules_that_are_not_public_are_left_out_whatever_their_verdict() -> None:
    rules = {"eod-cr": VIOLATED, "eod-lf-crlf": VIOLATED, "data-desync": {"verdict": "pass"}, "quit": VIOLATED}
    result = {"rules": rules, "findings": [{"rule": name} for name in ("eod-cr", "eod-lf-crlf", "quit")]}
    assert set(publishable(result, "aiosmtpd@1.2.2")["rules"]) == {"eod-lf-crlf", "quit"}
    assert [one["rule"] for one in publishable(result, "aiosmtpd@1.2.2")["findings"]] == ["eod-lf-crlf", "quit"]
    # the bug in a release that is said to be fixed would be a new finding
    assert set(publishable(result, "aiosmtpd@1.4.6")["rules"]) == {"quit"}
