"""What no client may do to a server: end it, or make it fall silent.

RFC 5321 knows no rule "do not crash"; it knows that every command is answered (§4.2) and that only QUIT, an error that
is told by 421, or a time-out ends a session (§3.8). These probes are of the kind that real servers have died of.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.lines import END, NOOP, envelope, line, mail, opening, oversize, raw, script
from smtpbench.rules.offer import Offer
from smtpbench.rules.rule import Judgement, Rule
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script

_MANY = 10_000
#: Parameters whose value is missing, or is not what it should be.
_PARAMETERS = ("BODY", "BODY=", "SIZE", "SIZE=", "SIZE=-1", "SMTPUTF8=", "AUTH", "AUTH=", "RET", "ENVID=+", "=", "=X", "X=")
_PATHS = ("<@>", '<"', "<>", "<a@[>", "<@,@:a@b.example>", "<a@b.example", "<" + "(" * 200 + ">", "<a@xn--\u00fc.example>")


def _ordeals(offer: Offer) -> Sequence[Script]:
    scripts = [script(offer, *opening(offer), raw(b"NOOP\r\n" * _MANY, _MANY), NOOP)]
    scripts += [script(offer, *opening(offer), mail(offer, parameter), NOOP) for parameter in _PARAMETERS]
    scripts += [script(offer, *opening(offer), line(f"MAIL FROM:{path}"), NOOP) for path in _PATHS]
    if offer.recipient:
        scripts.append(script(offer, *envelope(offer), line("DATA"), raw(b".\r\n"), NOOP))
        text = oversize(offer)
        if text:
            scripts.append(script(offer, *envelope(offer), line("DATA"), raw(text + END[2:]), NOOP))
    return scripts


def _lived(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        if dialogue.fate != api.TIMEOUT:
            continue
        last = dialogue.turns[-1]
        if not last.codes and last.said in (b"NOOP\r\n", b".\r\n"):
            what = "a message without an octet" if last.said == b".\r\n" else "NOOP"
            before = dialogue.turns[-2]
            came = f", after {before.codes[-1]}," if before.codes else ""
            return r.broken(f"{what}{came} got no reply", take)
    return r.HELD


RULES = (
    Rule(
        "R81", "health", "RFC 5321 §3.8", r.SECURITY,
        "A server outlives every session: whatever one client says, it answers or closes, and goes on serving others.",
        "a reply to every command, and a greeting for the next client",
        probe=_ordeals, judge=_lived, alone=True,
    ),
)  # fmt: skip
