"""Findings: what was broken, as a scenario of concrete octets that anybody can say again.

A finding's file holds the dialogue's own steps, so `run`, `validate` and `replay` read it like any scenario, and a mapping
`finding` with the rule, what was seen, and where. Octets are written so that an editor shows each of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from smtpbench.rules.rule import Rule
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.session.transcript import CLIENT, EVENT, SERVER, Transcript
from smtpbench.smtp.reply import Reply
from smtpbench.text import visible
from smtpbench.units import NS_PER_MS

#: Octets of one read or write that a dialogue shows.
SHOWN = 300
#: Lines of a dialogue that are shown; what is more is cut out of the middle.
LINES = 40
_PLAIN = re.compile(rb"[A-Z][A-Z0-9-]*(?: [\x21-\x7a|~](?:[\x20-\x7a|~]*[\x21-\x7a|~])?)?\r\n")
#: Verbs that a scenario's line means more by than its octets.
_MEANT = (b"AUTH", b"STARTTLS", b"EHLO", b"HELO")
_WORDS = {s.TLS: "tls", s.CLOSE: "close", s.RESET: "reset", s.HALF_CLOSE: "half-close"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a server, and the session that shows it.

    take: which of the rule's own dialogues it is. reproducibility: `2 of 2`. hits: how often it was met. cause: what tells
    it from others of its rule. about: what goes into the file beside it (seed, target, banner, versions …).
    """

    rule: str
    severity: str
    actual: str
    script: Script
    transcript: Transcript
    by: str
    take: int = 0
    reproducibility: str = "1 of 1"
    hits: int = 1
    cause: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The rule's name and a digest of what was said and of what it showed."""
        sent = b"".join(entry.data for entry in self.transcript.entries if entry.who == CLIENT)
        return f"{self.rule}-{hashlib.sha256(sent + self.cause.encode()).hexdigest()[:8]}"

    def to_data(self, repeat: str) -> dict[str, Any]:
        """`findings[]` of a result. repeat: the command that says it again."""
        return {
            "id": self.id, "rule": self.rule, "severity": self.severity, "actual": self.actual, "cause": self.cause,
            "reproducibility": self.reproducibility, "hits": self.hits, "file": f"findings/{self.id}.yaml",
            "dialogue": dialogue_lines(self.transcript), "repeat": repeat,
        }  # fmt: skip

    def to_text(self) -> str:
        """The file."""
        head = [f"name: {self.id}", f"about: {json.dumps(self.actual)}", "finding:", "  version: 1"]
        told = {
            "rule": self.rule, "severity": self.severity, "actual": self.actual, "by": self.by, "cause": self.cause,
            "take": self.take, "reproducibility": self.reproducibility, **self.about,
        }  # fmt: skip
        head += [f"  {key}: {json.dumps(value)}" for key, value in told.items() if value is not None]
        head += ["  dialogue:", *(f"    - {json.dumps(text)}" for text in dialogue_lines(self.transcript))]
        return "\n".join([*head, "session:", *(f"  - {_step(step, self.script.lmtp)}" for step in self.script.steps)]) + "\n"


def _quoted(octets: bytes) -> str:
    """Octets as `raw` has them, in YAML's single quotes: each one that is not printable ASCII is spelled out."""
    text = "".join(
        {92: "\\\\", 13: "\\r", 10: "\\n", 9: "\\t"}.get(octet) or (chr(octet) if 32 <= octet < 127 else f"\\x{octet:02x}")
        for octet in octets
    )
    return "'" + text.replace("'", "''") + "'"


def _step(step: Step, lmtp: bool) -> str:
    if step.kind in _WORDS:
        return _WORDS[step.kind]
    if step.kind == s.PAUSE:
        return f"pause: {step.pause_ns // 1000}us" if step.pause_ns % NS_PER_MS else f"pause: {step.pause_ns // NS_PER_MS}ms"
    if step.kind == s.AUTH:
        if step.credentials is None:
            return f"AUTH {step.mechanism}"
        user, password = map(json.dumps, step.credentials)
        return f"{{auth: {step.mechanism}, user: {user}, password: {password}}}"
    wire = step.wire if isinstance(step.wire, bytes) else b"".join(step.wire)
    if step.kind == s.STARTTLS and wire == b"STARTTLS\r\n":
        return "STARTTLS"
    told = wire.startswith(_MEANT) and (lmtp or not wire.startswith((b"EHLO", b"HELO")))
    if (
        _PLAIN.fullmatch(wire)
        and len(step.expected_replies) == 1
        and not step.split
        and not told
        and step.kind != s.STARTTLS
    ):
        return _quoted(wire[:-2])
    parts = [f"raw: {_quoted(wire)}", f"replies: {len(step.expected_replies)}"]
    if step.split:
        offsets = [sum(map(len, step.split[:at])) for at in range(1, len(step.split))]
        parts.append(f"split: {offsets}")
    if step.kind == s.STARTTLS:
        parts.append("tls: true")
    return "{" + ", ".join(parts) + "}"


def target_data(url: str, target_info: TargetInfo, banner: Reply) -> dict[str, Any]:
    """`target` of a result: what is known of it."""
    return {
        "url": visible(url),
        "banner": _shown(banner),
        "extensions": [visible(keyword) for keyword in sorted(target_info.keywords_before_tls)],
        "extensions_inside_tls": [visible(keyword) for keyword in sorted(target_info.keywords_in_tls)],
        "recipient": visible(target_info.recipient),
    }


def circumstances(url: str, target_info: TargetInfo, banner: Reply, started: datetime) -> dict[str, Any]:
    """`about` of a finding: where and when it was found."""
    return {
        "recipient": target_info.recipient, "sender": target_info.sender, "found": started.isoformat(timespec="seconds"),
        "target": visible(url), "banner": _shown(banner),
    }  # fmt: skip


def _shown(banner: Reply) -> str:
    return visible(banner.raw.rstrip(b"\r\n"), SHOWN)


def rule_data(rule: Rule, verdict: str, actual: str) -> dict[str, str]:
    """`rules.<name>` of a result."""
    return {
        "verdict": verdict, "severity": rule.severity, "id": rule.id, "section": rule.section,
        "requirement": rule.requirement, "expected": rule.expected, "actual": actual,
    }  # fmt: skip


def plain(script: Script) -> Script:
    """A script that is spoken to its end whatever is answered, as probes are: from a scenario or a finding."""
    steps = []
    for step in script.steps:
        kind = s.COMMAND if step.kind in (s.MAIL, s.RCPT, s.GROUP) else step.kind
        if kind == s.MESSAGE and not script.lmtp:
            kind = s.COMMAND
        expected_replies = tuple(
            ExpectedReply(ask.verb, (220,) if kind == s.STARTTLS else s.ANY) for ask in step.expected_replies
        )
        steps.append(replace(step, kind=kind, expected_replies=expected_replies, on_unexpected=s.CONTINUE))
    greeting = None if script.greeting is None else s.ANY_GREETING
    return Script.of(
        script.name, tuple(steps), greeting=greeting, implicit_tls=script.implicit_tls, lmtp=script.lmtp
    )  # fmt: skip


def dialogue_lines(transcript: Transcript) -> list[str]:
    """A transcript as `C:` and `S:` lines, every octet visible; what is long is cut, and says so.

    Reads that follow one another are shown as one: how the server cut its octets is chance.
    """
    lines = []
    for who, entries in groupby(transcript.entries, key=lambda entry: entry.who):
        parts = [entry.data for entry in entries]
        for octets in [b"".join(parts)] if who == SERVER else parts:
            more = f" {len(octets):,} octets" if len(octets) > SHOWN else ""
            lines.append(f"({visible(octets)})" if who == EVENT else f"{who}: {visible(octets, SHOWN)}{more}")
    if len(lines) > LINES:
        half = LINES // 2
        lines = [*lines[:half], f"… {len(lines) - LINES} more …", *lines[-half:]]
    return lines
