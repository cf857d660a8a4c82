"""Findings: a violation, as a scenario file of fixed octets that `replay` can repeat.

The file of a finding holds the steps of the session, so that `run`, `validate` and `replay` read it like any scenario. Its
mapping `finding` holds the rule, what the server did, and where and when it was found. Octets that are not printable ASCII
are escaped, so that an editor shows every octet.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
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
from smtpbench.text import plural, visible
from smtpbench.units import NS_PER_MS

#: Octets of one read or write that a dialogue shows.
SHOWN_OCTETS = 300
#: Lines that a dialogue shows; a longer one is cut in the middle.
SHOWN_LINES = 40
_PLAIN_COMMAND = re.compile(rb"[A-Z][A-Z0-9-]*(?: [\x21-\x7a|~](?:[\x20-\x7a|~]*[\x21-\x7a|~])?)?\r\n")
#: Verbs for which a line in a scenario does more than send octets.
_VERBS_WITH_MEANING = (b"AUTH", b"STARTTLS", b"EHLO", b"HELO")
_STEP_KEYWORDS = {s.TLS: "tls", s.CLOSE: "close", s.RESET: "reset", s.HALF_CLOSE: "half-close", s.FIN: "fin"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation of a rule, and the session that shows it.

    Attributes:
        rule: Name of the rule.
        severity: Severity of the violation.
        actual: What the server did.
        script: What the session sent.
        transcript: What was sent and received.
        by: Command that found it: `check` or `fuzz`.
        dialogue_index: Index of the session among those of the rule's probe.
        reproducibility: In how many attempts it showed, such as `2 of 2`.
        hits: Cases that showed it.
        cause: Tells it from other findings of the same rule.
        about: Circumstances for the file: seed, target, greeting, versions and so on.
        death: How the server's process ended, as `server.deaths` of a result has it; None if it is not known.
        log_lines: Error lines in the server's log while the session ran alone, escaped.
    """

    rule: str
    severity: str
    actual: str
    script: Script
    transcript: Transcript
    by: str
    dialogue_index: int = 0
    reproducibility: str = "1 of 1"
    hits: int = 1
    cause: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    death: Mapping[str, Any] | None = None
    log_lines: Sequence[str] = ()

    @property
    def id(self) -> str:
        """Return the name of the rule with a digest of the octets sent and of the cause."""
        sent = b"".join(entry.data for entry in self.transcript.entries if entry.who == CLIENT)
        return f"{self.rule}-{hashlib.sha256(sent + self.cause.encode()).hexdigest()[:8]}"

    @property
    def _evidence(self) -> dict[str, Any]:
        """Return what the server's processes and its log say, where they say something."""
        death = {} if self.death is None else {"death": dict(self.death)}
        return death | ({"log_lines": list(self.log_lines)} if self.log_lines else {})

    def to_data(self, repeat: str) -> dict[str, Any]:
        """Return an element of `findings` in a result. `repeat` is the command that repeats the finding."""
        return {
            "id": self.id, "rule": self.rule, "severity": self.severity, "actual": self.actual, "cause": self.cause,
            "reproducibility": self.reproducibility, "hits": self.hits, "file": f"findings/{self.id}.yaml",
            "dialogue": dialogue_lines(self.transcript), "repeat": repeat, **self._evidence,
        }  # fmt: skip

    def to_text(self) -> str:
        """Return the content of the finding's file."""
        header = [f"name: {self.id}", f"about: {json.dumps(self.actual)}", "finding:", "  version: 1"]
        fields = {
            "rule": self.rule, "severity": self.severity, "actual": self.actual, "by": self.by, "cause": self.cause,
            "take": self.dialogue_index, "reproducibility": self.reproducibility, **self.about, **self._evidence,
        }  # fmt: skip
        header += [f"  {key}: {json.dumps(value)}" for key, value in fields.items() if value is not None]
        header += ["  dialogue:", *(f"    - {json.dumps(text)}" for text in dialogue_lines(self.transcript))]
        return (
            "\n".join([*header, "session:", *(f"  - {_step(step, self.script.lmtp)}" for step in self.script.steps)]) + "\n"
        )


def _quoted(octets: bytes) -> str:
    """Return octets as the scenario key `raw` takes them, in YAML's single quotes, escaped unless printable ASCII."""
    text = "".join(
        {92: "\\\\", 13: "\\r", 10: "\\n", 9: "\\t"}.get(octet) or (chr(octet) if 32 <= octet < 127 else f"\\x{octet:02x}")
        for octet in octets
    )
    return "'" + text.replace("'", "''") + "'"


def _step(step: Step, lmtp: bool) -> str:
    if step.kind in _STEP_KEYWORDS:
        return _STEP_KEYWORDS[step.kind]
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
    has_meaning = wire.startswith(_VERBS_WITH_MEANING) and (lmtp or not wire.startswith((b"EHLO", b"HELO")))
    if (
        _PLAIN_COMMAND.fullmatch(wire)
        and len(step.expected_replies) == 1
        and not step.split
        and not has_meaning
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
    """Return `target` of a result."""
    return {
        "url": visible(url),
        "banner": _banner_text(banner),
        "extensions": [visible(keyword) for keyword in sorted(target_info.keywords_before_tls)],
        "extensions_inside_tls": [visible(keyword) for keyword in sorted(target_info.keywords_in_tls)],
        "recipient": visible(target_info.recipient),
    }


def circumstances(url: str, target_info: TargetInfo, banner: Reply, started: datetime) -> dict[str, Any]:
    """Return the circumstances of a finding: where and when it was found."""
    return {
        "recipient": target_info.recipient, "sender": target_info.sender, "found": started.isoformat(timespec="seconds"),
        "target": visible(url), "banner": _banner_text(banner),
    }  # fmt: skip


def _banner_text(banner: Reply) -> str:
    return visible(banner.raw.rstrip(b"\r\n"), SHOWN_OCTETS)


def rule_data(rule: Rule, verdict: str, actual: str, severity: str = "") -> dict[str, str]:
    """Return `rules.<name>` of a result. `severity` is that of the violation; empty for the rule's."""
    return {
        "verdict": verdict, "severity": severity or rule.severity, "id": rule.id, "section": rule.section,
        "requirement": rule.requirement, "expected": rule.expected, "actual": actual,
    }  # fmt: skip


def plain(script: Script) -> Script:
    """Return a script that continues to its end whatever the server replies, as probes do."""
    steps = []
    for step in script.steps:
        kind = s.COMMAND if step.kind in (s.MAIL, s.RCPT, s.GROUP) else step.kind
        if kind == s.MESSAGE and not script.lmtp:
            kind = s.COMMAND
        expected_replies = tuple(
            ExpectedReply(reply.verb, (220,) if kind == s.STARTTLS else s.ANY) for reply in step.expected_replies
        )
        steps.append(replace(step, kind=kind, expected_replies=expected_replies, on_unexpected=s.CONTINUE))
    greeting = None if script.greeting is None else s.ANY_GREETING
    return Script.of(
        script.name, tuple(steps), greeting=greeting, implicit_tls=script.implicit_tls, lmtp=script.lmtp
    )  # fmt: skip


def dialogue_lines(transcript: Transcript) -> list[str]:
    """Return a transcript as `C:` and `S:` lines, with every octet visible and long writes cut.

    Consecutive reads form one line, because TCP decides where a read ends.
    """
    lines = []
    for who, entries in groupby(transcript.entries, key=lambda entry: entry.who):
        parts = [entry.data for entry in entries]
        for octets in [b"".join(parts)] if who == SERVER else parts:
            length = f" {len(octets):,} octets" if len(octets) > SHOWN_OCTETS else ""
            lines.append(f"({visible(octets)})" if who == EVENT else f"{who}: {visible(octets, SHOWN_OCTETS)}{length}")
    if len(lines) > SHOWN_LINES:
        half = SHOWN_LINES // 2
        lines = [*lines[:half], f"… {plural(len(lines) - SHOWN_LINES, 'more line')} …", *lines[-half:]]
    return lines
