"""What no client may do to a server: end it, or make it fall silent.

RFC 5321 knows no rule "do not crash"; it knows that every command is answered (§4.2) and that only QUIT, an error that
is told by 421, or a time-out ends a session (§3.8). These probes are of the kind that real servers have died of.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import END, NOOP, envelope, line, mail, opening, oversize, raw, script
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script

_MANY = 10_000
#: Parameters whose value is missing, or is not what it should be.
_PARAMETERS = ("BODY", "BODY=", "SIZE", "SIZE=", "SIZE=-1", "SMTPUTF8=", "AUTH", "AUTH=", "RET", "ENVID=+", "=", "=X", "X=")
_PATHS = ("<@>", '<"', "<>", "<a@[>", "<@,@:a@b.example>", "<a@b.example", "<" + "(" * 200 + ">", "<a@xn--\u00fc.example>")


def _ordeals(target_info: TargetInfo) -> Sequence[Script]:
    scripts = [script(target_info, *opening(target_info), raw(b"NOOP\r\n" * _MANY, _MANY), NOOP)]
    scripts += [script(target_info, *opening(target_info), mail(target_info, parameter), NOOP) for parameter in _PARAMETERS]
    scripts += [script(target_info, *opening(target_info), line(f"MAIL FROM:{path}"), NOOP) for path in _PATHS]
    if target_info.recipient:
        scripts.append(script(target_info, *envelope(target_info), line("DATA"), raw(b".\r\n"), NOOP))
        text = oversize(target_info)
        if text:
            scripts.append(script(target_info, *envelope(target_info), line("DATA"), raw(text + END[2:]), NOOP))
    return scripts


def _lived(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if dialogue.end_reason != api.TIMEOUT:
            continue
        last = dialogue.exchanges[-1]
        if not last.codes and last.sent in (b"NOOP\r\n", b".\r\n"):
            what = "a message without an octet" if last.sent == b".\r\n" else "NOOP"
            before = dialogue.exchanges[-2]
            came = f", after {before.codes[-1]}," if before.codes else ""
            return r.violated(f"{what}{came} got no reply", dialogue_index)
    return r.PASSED


RULES = (
    Rule(
        "R81", "health", "RFC 5321 §3.8", r.SECURITY,
        "A server outlives every session: whatever one client says, it answers or closes, and goes on serving others.",
        "a reply to every command, and a greeting for the next client",
        probe=_ordeals, evaluate=_lived, exclusive=True,
    ),
)  # fmt: skip
