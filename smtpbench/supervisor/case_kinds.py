"""Kinds of cases: what a client may send again and again, to see whether the server holds more of something each time.

A kind is derived from what was sent before: for each verb a line of it, and what must come before that line. So a kind says
what a campaign or a check said, and nothing that the target has not seen yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from smtpbench.rules.probe_steps import HEADER, NOOP, QUIT, before_auth, line, mail, message, opening, raw, rcpt, starttls
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session import script as s
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script, Step
from smtpbench.smtp.command import COMMAND_LINE_BYTES, EXPECTED, verb_of
from smtpbench.text import visible

#: Cases of a kind in one session: of commands that servers accept, and of what many servers limit.
_PER_SESSION: Final = 50
_FEW: Final = 5
#: Verbs that every server knows, and that many clients send.
_USUAL_VERBS: Final = ("RSET", "MAIL", "RCPT", "EHLO", "QUIT", "AUTH", "STARTTLS")
#: Cost of a connection, as a number of writes: a kind that needs one for each case is no simpler than a few commands.
_CONNECTION_COST: Final = 3
#: Octets of an unknown command that its name shows.
_SHOWN_OCTETS: Final = 30


@dataclass(frozen=True, slots=True)
class CaseKind:
    """A kind of case.

    Attributes:
        name: What one case is, after "for each": `RSET`, `connection without a command`.
        scripts: Sessions that send it, to be run in turn.
        per_session: Cases in one session.
        parallel: Sessions at the same time.
    """

    name: str
    scripts: tuple[Script, ...]
    per_session: int = 1
    parallel: int = 1

    @property
    def cost(self) -> float:
        """Return what one case takes, about as a number of writes: the simplest kind takes least."""
        writes = sum(len(_writes(script)) for script in self.scripts) / len(self.scripts)
        return (_CONNECTION_COST + writes) / self.per_session

    def done_in(self, script: Script, dialogue: Dialogue) -> int:
        """Return how many cases a session did: those of which the server replied to every write, or all if it had one."""
        if not dialogue.greeted:
            return 0
        if self.per_session == 1:
            return 1
        answered = sum(bool(exchange.codes) for exchange in dialogue.exchanges[1:])
        return self.per_session * answered // max(1, len(_writes(script)))


def _writes(script: Script) -> list[Step]:
    return [step for step in script.steps if step.wire or step.render or step.kind == s.AUTH]


def example_line(octets: bytes) -> tuple[str, bytes]:
    """Return the verb of the first line of some octets, empty for an unknown command, and the line without its end.

    A line that no server has to take is empty.
    """
    first = octets.partition(b"\n")[0].rstrip(b"\r")
    if not first or len(first) > COMMAND_LINE_BYTES - 2:
        return "", b""
    verb = verb_of(first)
    return verb if verb in EXPECTED else "", first


def lines_of(scripts: Iterable[Script]) -> dict[str, bytes]:
    """Return a line of each verb in these scripts, without its end: the first of plain text. See `kinds_of`."""
    lines: dict[str, bytes] = {}
    for script in scripts:
        for step in script.steps:
            add_line(lines, step)
    return lines


def add_line(lines: dict[str, bytes], step: Step) -> None:
    """Add the line of a step, unless there is one of its verb, or it is no plain text."""
    if step.wire and step.metric != "message":
        verb, text = example_line(step.wire)
        if text and text.isascii() and text.decode("ascii").isprintable():
            lines.setdefault(verb, text)


def control_kind(target_info: TargetInfo) -> CaseKind:
    """Return the kind that must not grow: NOOP."""
    return _repeated(target_info, "NOOP", NOOP)


def kinds_of(target_info: TargetInfo, lines: Mapping[str, bytes]) -> list[CaseKind]:
    """Return the kinds that these lines stand for, and a connection without a command; the usual ones first.

    Args:
        target_info: What is known of the target.
        lines: Verb → a line of it without its end; empty verb → an unknown command.
    """
    kinds = [control_kind(target_info), CaseKind("connection without a command", (_script(target_info, Step(s.CLOSE)),))]
    if target_info.recipient and {"DATA", "BDAT"} & lines.keys():
        transaction = (mail(target_info), rcpt(target_info), line("DATA"))
        kinds.append(_repeated(target_info, "message", *transaction, message()))
        aborted = (*opening(target_info), *transaction, raw(HEADER + b"text", 0), Step(s.CLOSE))
        kinds.append(CaseKind("message without an end", (_script(target_info, *aborted),)))
    for verb in sorted(lines, key=lambda verb: (verb not in _USUAL_VERBS, verb)):
        kinds += _kinds_of_verb(target_info, verb, lines[verb])
    return kinds


def _kinds_of_verb(target_info: TargetInfo, verb: str, text: bytes) -> Iterable[CaseKind]:
    step = line(text)
    if not verb:
        yield _repeated(target_info, f"unknown command ({visible(text, _SHOWN_OCTETS)})", step, per_session=_FEW)
    elif verb == "MAIL":
        yield _repeated(target_info, verb, mail(target_info), line("RSET"))
    elif verb == "RCPT":
        recipient = rcpt(target_info) if target_info.recipient else step
        yield _repeated(target_info, verb, mail(target_info), recipient, line("RSET"))
    elif verb == "QUIT":
        yield CaseKind("session of EHLO and QUIT", (_script(target_info, *opening(target_info), QUIT),))
    elif verb == "STARTTLS":
        if not target_info.missing(("starttls",)):
            yield CaseKind(verb, (_script(target_info, *before_auth(target_info)[:1], starttls(), QUIT),))
    elif verb == "AUTH":
        if not target_info.missing(("auth",)):
            cancelled = (step, raw(b"*\r\n")) * _FEW
            yield CaseKind(verb, (_script(target_info, *before_auth(target_info), *cancelled, QUIT),), _FEW)
    elif verb in ("VRFY", "EXPN", "ETRN", "HELP"):
        yield _repeated(target_info, verb, step, per_session=_FEW)
    elif verb not in ("NOOP", "DATA", "BDAT"):
        yield _repeated(target_info, verb, step)


def _repeated(target_info: TargetInfo, name: str, *steps: Step, per_session: int = _PER_SESSION) -> CaseKind:
    return CaseKind(name, (_script(target_info, *opening(target_info), *steps * per_session, QUIT),), per_session)


def _script(target_info: TargetInfo, *steps: Step) -> Script:
    return Script.of(
        "growth", steps, greeting=s.ANY_GREETING, implicit_tls=target_info.implicit_tls, lmtp=target_info.lmtp
    )  # fmt: skip
