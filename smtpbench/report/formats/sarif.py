"""SARIF 2.1.0, for code scanning: what `check`, `fuzz` and hostile sessions of a run found; a SARIF run a result.

An alert of today is that of yesterday where its fingerprint is the same: it is made of the rule and the cause, and of no
time, port or random data. A result's `automationDetails` name what it was, so that a rerun replaces the one before.

Source: OASIS, Static Analysis Results Interchange Format Version 2.1.0 plus Errata 01; and GitHub's "SARIF support for code
scanning", for `security-severity` and what an upload must hold.
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
from smtpbench.report.reading import findings as judged
from smtpbench.report.reading import metrics as facts
from smtpbench.report.reading.findings import LEVELS, Found, SavedVerdict
from smtpbench.report.reading.metrics import COMPLETED, Head
from smtpbench.report.reading.sections import instant_text, rfc_url
from smtpbench.rules.register import BY_NAME
from smtpbench.rules.rule import SECURITY

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: On the scale of CVSS, as GitHub wants it: high. What a rule's breach makes possible differs by how a server is used.
_SECURITY_SEVERITY: Final = "8.0"
#: The time in the name of a folder that nobody named.
_STAMP = re.compile(r"^\d{8}-\d{6}-")


def sarif(saved: Sequence[Saved]) -> str:
    """The log. Comparisons and searches for capacity have no findings, and no run in it."""
    runs = [_run(head, one) for head, one in facts.heads(saved) if one.kind in (RUN, CHECK, FUZZ)]
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": runs}, indent=2) + "\n"


def _run(head: Head, saved: Saved) -> dict[str, Any]:
    found = judged.findings(saved)
    told: dict[str, SavedVerdict | Found] = {one.rule: one for one in found}
    told |= {ruling.name: ruling for ruling in judged.verdicts(saved)}
    places = {name: index for index, name in enumerate(told)}
    driver: dict[str, Any] = {"name": "smtpbench", "rules": [_rule(name, one) for name, one in told.items()]}
    if head.version:
        driver["version"] = head.version
    invocation: dict[str, Any] = {"executionSuccessful": head.status == COMPLETED}
    if head.started is not None:
        invocation["startTimeUtc"] = instant_text(head.started)
    if head.reason:
        invocation["exitCodeDescription"] = head.reason
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"smtpbench/{head.kind}/{_STAMP.sub('', head.label)}/"},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": [_result(one, places[one.rule]) for one in found],
        "properties": {"target": head.target, "banner": head.banner},
    }


def _rule(name: str, told: SavedVerdict | Found) -> dict[str, Any]:
    """From the register, and where that does not know it, from the result."""
    known = BY_NAME.get(name)
    if known is not None:
        id_, place, severity = known.id, known.section, known.severity
        requirement, expected = known.requirement, known.expected
    else:
        id_, place, severity, requirement, expected = "", told.section, told.severity, told.requirement, ""
    help_text = "\n".join(filter(None, (requirement, expected and f"Expected: {expected}", place)))
    rule: dict[str, Any] = {
        "id": name,
        "name": name,
        "shortDescription": {"text": _text(requirement) or name},
        "fullDescription": {"text": _text(help_text) or name},
        "help": {"text": _text(help_text) or name},
        "defaultConfiguration": {"level": LEVELS[severity]},
        "properties": {"tags": ["smtp", *(["security"] if severity == SECURITY else [])], "section": place, "number": id_},
    }
    if severity == SECURITY:
        rule["properties"]["security-severity"] = _SECURITY_SEVERITY
    url = rfc_url(place)
    if url:
        rule["helpUri"] = url
    return rule


def _result(one: Found, index: int) -> dict[str, Any]:
    lines = [one.actual or "It is broken.", f"Required: {one.requirement}" if one.requirement else ""]
    lines += [f"Seen: {one.reproducibility}" if one.reproducibility else "", f"Again: {one.repeat}" if one.repeat else ""]
    result: dict[str, Any] = {
        "ruleId": one.rule,
        "ruleIndex": index,
        "level": LEVELS[one.severity],
        "message": {"text": _text("\n".join(filter(None, lines)))},
        "locations": [{"physicalLocation": {"artifactLocation": _place(one.file), "region": {"startLine": 1}}}],
        "partialFingerprints": {"smtpbenchFinding/v1": hashlib.sha256(one.key.encode()).hexdigest()},
        "occurrenceCount": min(one.hits, 2**31 - 1),
        "properties": {"id": one.id, "dialogue": list(one.dialogue), "counts": one.counts},
    }
    if one.known:
        result["suppressions"] = [{"kind": "external", "justification": "It is in the baseline."}]
    return result


def _text(text: str) -> str:
    """A message's text, in which `[words](address)` would be a link (SARIF §3.11.6)."""
    return text.replace("](", "]\\(")


def _place(file: Path) -> dict[str, str]:
    """Where a file is: within the source tree where its path is relative."""
    path = quote(file.as_posix().encode("utf-8", "surrogateescape"))
    return {"uri": f"file://{path}"} if file.is_absolute() else {"uri": path, "uriBaseId": "%SRCROOT%"}
