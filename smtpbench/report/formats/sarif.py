"""SARIF 2.1.0, for code scanning: findings of `check`, of `fuzz` and of the hostile sessions of a run.

Each result is one SARIF run. Two alerts are the same if their fingerprints are equal. A fingerprint is made of the rule and
the cause, and of no time, port or random data, so a finding has the same one every day. `automationDetails` identify what
was measured, so that a rerun replaces the previous one.

A rule that was not tried, or whose verdict is inconclusive, is a result of the kind `notApplicable`, with the reason.

Source: OASIS, Static Analysis Results Interchange Format Version 2.1.0 plus Errata 01; and GitHub's "SARIF support for code
scanning", for `security-severity` and for what an upload must hold.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from smtpbench.measure.saved import CHECK, FUZZ, RUN, Saved
from smtpbench.report.reading.findings import LEVELS, SavedFinding, SavedVerdict, findings_of, unverified_of, verdicts_of
from smtpbench.report.reading.formatting import format_instant, rfc_url
from smtpbench.report.reading.head import COMPLETED, Head, heads_of
from smtpbench.rules.register import BY_NAME
from smtpbench.rules.rule import CRASH, HANG, SECURITY

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: High on the scale of CVSS, which GitHub uses. What an attacker gains from a violation depends on how a server is used.
_SECURITY_SEVERITY: Final = "8.0"
#: Lines of the server's log that a message quotes at most; `evidence` has all.
MAX_LOG_LINES: Final = 5
#: The time in the default name of a folder.
_STAMP = re.compile(r"^\d{8}-\d{6}-")


def sarif(several: Sequence[Saved]) -> str:
    """Return the log. Comparisons and capacity searches have no findings and are left out."""
    runs = [_run(head, saved) for head, saved in heads_of(several) if saved.kind in (RUN, CHECK, FUZZ)]
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": runs}, indent=2) + "\n"


def _run(head: Head, saved: Saved) -> dict[str, Any]:
    findings = findings_of(saved)
    rules: dict[str, SavedVerdict | SavedFinding] = {finding.rule: finding for finding in findings}
    rules |= {verdict.name: verdict for verdict in (*verdicts_of(saved), *unverified_of(saved))}
    index_of = {name: index for index, name in enumerate(rules)}
    driver: dict[str, Any] = {"name": "smtpbench", "rules": [_rule(name, source) for name, source in rules.items()]}
    if head.version:
        driver["version"] = head.version
    invocation: dict[str, Any] = {"executionSuccessful": head.status == COMPLETED}
    if head.started is not None:
        invocation["startTimeUtc"] = format_instant(head.started)
    if head.reason:
        invocation["exitCodeDescription"] = head.reason
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"smtpbench/{head.kind}/{_STAMP.sub('', head.label)}/"},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": [
            *(_result(finding, index_of[finding.rule]) for finding in findings),
            *(_not_applicable(saved, verdict, index_of[verdict.name]) for verdict in unverified_of(saved)),
        ],
        "properties": {"target": head.target, "banner": head.banner},
    }


def _rule(name: str, source: SavedVerdict | SavedFinding) -> dict[str, Any]:
    """A rule from the register; a rule that the register does not know, from the result."""
    known = BY_NAME.get(name)
    if known is not None:
        number, section, severity = known.id, known.section, known.severity
        requirement, expected = known.requirement, known.expected
    else:
        number, section, severity, requirement, expected = "", source.section, source.severity, source.requirement, ""
    help_text = "\n".join(filter(None, (requirement, expected and f"Expected: {expected}", section)))
    tags = ["smtp", *([severity] if severity in (CRASH, HANG, SECURITY) else [])]
    rule: dict[str, Any] = {
        "id": name,
        "name": name,
        "shortDescription": {"text": _text(requirement) or name},
        "fullDescription": {"text": _text(help_text) or name},
        "help": {"text": _text(help_text) or name},
        "defaultConfiguration": {"level": LEVELS[severity]},
        "properties": {"tags": tags, "section": section, "number": number},
    }
    if severity == SECURITY:
        rule["properties"]["security-severity"] = _SECURITY_SEVERITY
    url = rfc_url(section)
    if url:
        rule["helpUri"] = url
    return rule


def _result(finding: SavedFinding, index: int) -> dict[str, Any]:
    lines = [
        finding.actual or "The rule is violated.",
        f"Required: {finding.requirement}" if finding.requirement else "",
        f"Reproduced: {finding.reproducibility}" if finding.reproducibility else "",
        f"Death: {finding.death.text}" if finding.death is not None else "",
        *(f"Log: {line.quoted}" for line in finding.log_lines[:MAX_LOG_LINES]),
        f"Replay: {finding.repeat}" if finding.repeat else "",
    ]
    data: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.level,
        "message": {"text": _text("\n".join(filter(None, lines)))},
        "locations": [{"physicalLocation": {"artifactLocation": _location(finding.file), "region": {"startLine": 1}}}],
        "partialFingerprints": {"smtpbenchFinding/v1": hashlib.sha256(finding.key.encode()).hexdigest()},
        "occurrenceCount": min(finding.hits, 2**31 - 1),
        "properties": {"id": finding.id, "dialogue": list(finding.dialogue), "counts": finding.counts},
    }
    if finding.evidence:
        data["properties"]["evidence"] = finding.evidence
    if finding.known:
        data["suppressions"] = [{"kind": "external", "justification": "It is in the baseline."}]
    return data


def _not_applicable(saved: Saved, verdict: SavedVerdict, index: int) -> dict[str, Any]:
    return {
        "ruleId": verdict.name,
        "ruleIndex": index,
        "kind": "notApplicable",
        "level": "none",
        "message": {"text": _text(f"{verdict.mark}: {verdict.actual}" if verdict.actual else verdict.mark)},
        "locations": [{"physicalLocation": {"artifactLocation": _location(saved.path), "region": {"startLine": 1}}}],
        "partialFingerprints": {"smtpbenchVerdict/v1": hashlib.sha256(verdict.name.encode()).hexdigest()},
    }


def _text(text: str) -> str:
    """The text of a message, in which `[words](address)` would be a link (SARIF §3.11.6)."""
    return text.replace("](", "]\\(")


def _location(file: Path) -> dict[str, str]:
    """The location of a file, which is within the source tree if its path is relative."""
    path = quote(file.as_posix().encode("utf-8", "surrogateescape"))
    return {"uri": f"file://{path}"} if file.is_absolute() else {"uri": path, "uriBaseId": "%SRCROOT%"}
