"""Whether a probe tested its rule: a rule passes only if the server replied to what the probe sent.

Which reply answers what is decided by the reply tracker. A server that closes the connection in place of a reply has not
shown that it keeps a rule, unless the rule allows a closed connection (`Rule.allows_close`). A server that ends the session
in order has shown it only if the probe had sent more than the usual beginning of a session, and never with 421: that code
says that the server has no time for any command.
"""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.rules.probe_steps import QUIT, envelope, no_reply_text
from smtpbench.rules.reply_tracker import track
from smtpbench.rules.rule import Rule
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script
from smtpbench.smtp.command import verb_of
from smtpbench.smtp.state import BANNER, MESSAGE


def untested_text(rule: Rule, target_info: TargetInfo, script: Script, dialogue: Dialogue) -> str:
    """Return why a session of a probe says nothing about the rule; empty if it does.

    Args:
        rule: The rule.
        target_info: What is known of the target.
        script: What the session had to send.
        dialogue: The session.
    """
    reason = no_reply_text(dialogue)
    if reason or dialogue.last_code == 221:
        return reason
    if len(dialogue.exchanges) == 1 and dialogue.closed_by_server and not rule.allows_refused_greeting:
        return "the server closed the connection before a command was sent"
    due = _reply_due(target_info, dialogue)
    if dialogue.end_reason == api.TIMEOUT:
        return f"the server did not reply to {due} in time" if due else ""
    usual = {step.wire for step in envelope(target_info)} | {b"DATA\r\n"}
    last = dialogue.exchanges[-1].sent
    if not dialogue.closed_by_server or (rule.allows_close and last not in usual):
        return ""
    writes = [step.wire for step in script.steps if step.wire not in (b"", QUIT.wire)]
    ended_early = dialogue.closed_with_reply and last in usual and writes[-1:] != [last]
    if dialogue.last_code == 421 or ended_early:
        return f"the server replied {dialogue.last_code} and closed the connection"
    if dialogue.closed_with_reply:
        return ""
    return f"the server closed the connection in place of a reply to {due}" if due else ""


def _reply_due(target_info: TargetInfo, dialogue: Dialogue) -> str:
    """Return what the server owed a reply to at the end of a session; empty if nothing, or only QUIT."""
    tracker = track(dialogue, lmtp=target_info.lmtp).tracker
    last, verb = dialogue.exchanges[-1], tracker.next_due
    if tracker.lenient and last.sent and not last.replies:
        verb = verb_of(last.sent) or "a text"
    return {MESSAGE: "the end of the message text", "QUIT": "", BANNER: ""}.get(verb, verb)
