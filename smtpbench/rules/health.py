"""Health: no client can crash the server or make it stop replying.

RFC 5321 has no rule "do not crash". It requires a reply to every command (§4.2), and allows a server to end a session only
after QUIT, with 421, or after a time-out (§3.8). Real servers have crashed on input like that of these probes.

The severity of a violation says what happened: `crash` where the server died, `hang` where it stops replying.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.engine import api
from smtpbench.rules import rule as r
from smtpbench.rules.probe_steps import END, NOOP, before_auth, envelope, line, mail, opening, oversize, pause, raw, script
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script
from smtpbench.units import NS_PER_S

_MANY_COMMANDS = 10_000
#: Time that many commands may take a server that delays each reply.
_MANY_COMMANDS_NS = 2 * NS_PER_S
#: Wait for the replies to octets of which the number of replies is not known, milliseconds.
_WAIT_MS = 300
#: Parameters of MAIL whose value is missing or malformed.
_PARAMETERS = ("BODY", "BODY=", "SIZE", "SIZE=", "SIZE=-1", "SMTPUTF8=", "AUTH", "AUTH=", "RET", "ENVID=+", "=", "=X", "X=")
_PATHS = (
    "<@>",
    '<"',
    "<>",
    "<a@[>",
    "<@,@:a@b.example>",
    "<a@b.example",
    "<" + "(" * 200 + ">",
    "<a@xn--\u00fc.example>",
    '<""@b.example>',
)
#: Octets after EHLO: many empty lines, and a group of commands in which one is unknown.
_OCTETS = (b"\r\n" * 40, b"XYZZY\r\nRSET\r\nXYZZY\r\nRSET\r\n")


def _crash_scripts(target_info: TargetInfo) -> Sequence[Script]:
    # a server that delays its reply to NOOP is busy with 10,000 of them for long, and that is no fault
    slow = target_info.noop_ns * _MANY_COMMANDS > _MANY_COMMANDS_NS * 10
    count = max(2, _MANY_COMMANDS_NS // target_info.noop_ns) if slow else _MANY_COMMANDS
    scripts = [script(target_info, *opening(target_info), raw(b"NOOP\r\n" * count, count), NOOP)]
    scripts += [script(target_info, *opening(target_info), mail(target_info, parameter), NOOP) for parameter in _PARAMETERS]
    scripts += [script(target_info, *opening(target_info), line(f"MAIL FROM:{path}"), NOOP) for path in _PATHS]
    scripts += [script(target_info, *opening(target_info), raw(octets, 0), pause(_WAIT_MS), NOOP) for octets in _OCTETS]
    mechanisms = target_info.login_keywords.split()
    if len(mechanisms) > 1:  # CVE-2011-1720
        cancelled = [step for name in mechanisms[:3] for step in (line(f"AUTH {name}"), raw(b"*\r\n"))]
        scripts.append(script(target_info, *before_auth(target_info), *cancelled, NOOP))
    if target_info.recipient:
        scripts.append(script(target_info, *envelope(target_info), line("DATA"), raw(b".\r\n"), NOOP))
        text = oversize(target_info)
        if text:
            scripts.append(script(target_info, *envelope(target_info), line("DATA"), raw(text + END[2:]), NOOP))
    return scripts


def _evaluate_still_replying(target_info: TargetInfo, dialogues: Sequence[Dialogue]) -> Verdict:
    for dialogue_index, dialogue in enumerate(dialogues):
        if dialogue.end_reason != api.TIMEOUT:
            continue
        last = dialogue.exchanges[-1]
        if not last.codes and last.sent == b"NOOP\r\n" and not target_info.noop_code:
            return r.inconclusive("the server does not reply to NOOP in time in any session", dialogue_index)
        if not last.codes and last.sent in (b"NOOP\r\n", b".\r\n"):
            what = "an empty message" if last.sent == b".\r\n" else "NOOP"
            previous = dialogue.exchanges[-2]
            where = f" after a reply of {previous.codes[-1]}" if previous.codes else ""
            return r.violated(f"the server did not reply to {what}{where}", dialogue_index, r.HANG)
    return r.PASSED


RULES = (
    Rule(
        "R81",
        "health",
        "RFC 5321 §3.8",
        r.CRASH,
        "Whatever a client sends, the server replies or closes the connection, and continues to serve other clients.",
        "a reply to every command, and a greeting for the next client",
        probe=_crash_scripts,
        evaluate=_evaluate_still_replying,
        exclusive=True,
        allows_close=True,
    ),
)
