"""Mutations: small edits of a script's steps, as plain data, applied by one pure function.

A case is a script and one to three mutations of it. What a mutation does depends on its own fields and on the steps only, so
a case can be generated again from its number and the seed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import NamedTuple, Self

from smtpbench.rules.reply_tracker import without_wrong_ends
from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.smtp.command import verb_of
from smtpbench.units import NS_PER_MS

#: Pause after a wrong end of the message text, in which a server that accepts it replies.
_WRONG_END_PAUSE_NS = 300 * NS_PER_MS


class Mutation(NamedTuple):
    """One edit of a script's steps.

    Attributes:
        family: Name of its family, see `fuzz.families`.
        edit: Kind of edit, a key of `_EDITS`.
        position: Step, line or text to edit, from 0, modulo their number.
        parameter: Second number of an edit: another step, a position, a choice.
        octets: Octets to insert or to use instead.
        numbers: Further numbers: positions of a split, an offset of a size.
    """

    family: str
    edit: str
    position: int = 0
    parameter: int = 0
    octets: bytes = b""
    numbers: tuple[int, ...] = ()


class Addresses(NamedTuple):
    """Addresses of a campaign, which names in braces stand for in the octets of mutations.

    Attributes:
        sender: `{sender}`: envelope sender of the scenario.
        recipients: `{recipient}` is the first, which the server accepts; `{alias}` is one of the others, if there are any.
        unknown: `{unknown}`: a recipient that the server is likely to refuse.
        client: `{client}`: argument of EHLO.
    """

    sender: bytes = b"a@client.example"
    recipients: tuple[bytes, ...] = (b"b@recipient.example",)
    unknown: bytes = b"no-such-user@recipient.example"
    client: bytes = b"client.example"

    @classmethod
    def of(cls, steps: Sequence[Step], aliases: Sequence[str] = (), unknown: str = "") -> Self:
        """Return the addresses that the steps of a scenario use.

        Args:
            steps: The steps.
            aliases: Further recipients that the server accepts.
            unknown: A recipient that it refuses; empty for an unlikely one in the domain of the recipient.
        """
        found = {b"MAIL": list[bytes](), b"RCPT": list[bytes](), b"EHLO": list[bytes](), b"LHLO": list[bytes]()}
        for step in steps:
            line = _wire(step)
            argument = _ADDRESS.search(line) if line[:4] in (b"MAIL", b"RCPT") else _ARGUMENT.search(line)
            if line[:4] in found and argument is not None:
                found[line[:4]].append(argument[1])
        default = EXAMPLE_ADDRESSES
        recipients = (*(found[b"RCPT"] or default.recipients), *(alias.encode() for alias in aliases))
        domain = recipients[0].rpartition(b"@")[2] if b"@" in recipients[0] else b""
        return cls(
            (found[b"MAIL"] or [default.sender])[0],
            tuple(dict.fromkeys(recipients)),
            unknown.encode() or b"no-such-user" + b"@" * bool(domain) + domain,
            (found[b"EHLO"] or found[b"LHLO"] or [default.client])[0],
        )

    def fill(self, octets: bytes, number: int) -> bytes:
        """Return octets with addresses in place of their names; the number chooses among the aliases."""
        if b"{" not in octets:
            return octets
        aliases = self.recipients[1:] or self.recipients
        named = {
            b"{sender}": self.sender, b"{recipient}": self.recipients[0], b"{alias}": aliases[number % len(aliases)],
            b"{unknown}": self.unknown, b"{client}": self.client,
        }  # fmt: skip
        for name, address in named.items():
            octets = octets.replace(name, address)
        return octets


#: Addresses where a scenario has none.
EXAMPLE_ADDRESSES = Addresses()
#: A path in a line, and the argument of a line.
_ADDRESS = re.compile(rb":<([^<>]*)>")
_ARGUMENT = re.compile(rb" (\S+)")


def command_step(octets: bytes) -> Step:
    """Return a step that sends octets. The reply tracker of the session knows how many replies are due."""
    verb = verb_of(octets) or "other"
    return Step(s.COMMAND, octets, expected_replies=(ExpectedReply(verb, s.ANY),), metric=verb)


def fixed_script(script: Script, n: int = 0) -> Script:
    """Return a script of fixed octets: what arrival n would send, with its random choices made, and never aborted."""
    steps: list[Step] = []
    index = 0
    while index < len(script.steps):
        step = script.steps[index]
        index += 1
        if step.kind == s.CHOOSE:
            index = s.choose(step, script.draw(n, index - 1))
        elif step.kind == s.JUMP:
            index = step.targets[0]
        elif step.kind in (s.AUTH, s.STARTTLS):
            steps.append(
                replace(
                    step,
                    on_unexpected=s.CONTINUE,
                    expected_replies=tuple(ExpectedReply(reply.verb, s.ANY) for reply in step.expected_replies),
                )
            )
        elif step.kind < s.STARTTLS:
            wire = step.wire if step.render is None else step.render(n)
            octets = wire if isinstance(wire, bytes) else b"".join(wire)
            steps.append(replace(command_step(octets), metric=step.metric, split=step.split))
        else:
            steps.append(replace(step, on_unexpected=s.CONTINUE))
    return replace_steps(script, steps)


def replace_steps(script: Script, steps: Sequence[Step]) -> Script:
    """Return a script of these steps that accepts any greeting, with the other properties of `script`."""
    greeting = None if script.greeting is None else s.ANY_GREETING
    # expected replies need no numbers: a session with a transcript does not cache replies
    return Script(
        script.name, tuple(steps), teardown=len(steps), greeting=greeting, reply_count=2,
        implicit_tls=script.implicit_tls, lmtp=script.lmtp,
    )  # fmt: skip


def apply_mutations(
    steps: Sequence[Step], mutations: Sequence[Mutation], addresses: Addresses = EXAMPLE_ADDRESSES
) -> tuple[Step, ...]:
    """Return the steps, edited by one mutation after the other. Their octets use these addresses."""
    edited = list(steps)
    for mutation in mutations:
        if edited:
            octets = addresses.fill(mutation.octets, mutation.position + mutation.parameter)
            _EDITS[mutation.edit](edited, mutation._replace(octets=octets))
    return tuple(edited)


def without_wrong_ends_of_text(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps without wrong ends of the message text, all else equal, segments included."""
    return tuple(
        replace(step, wire=without_wrong_ends(_wire(step)), split=_resplit(step)) if step.kind == s.COMMAND else step
        for step in steps
    )


def _resplit(step: Step) -> tuple[bytes, ...]:
    octets, ends = without_wrong_ends(_wire(step)), accumulate(map(len, step.split), initial=0)
    return tuple(octets[a:b] for a, b in pairwise(ends))


def _wire(step: Step) -> bytes:
    return step.wire if isinstance(step.wire, bytes) else b"".join(step.wire)


def _with_octets(step: Step, octets: bytes) -> Step:
    """Return the step with other octets. A step that is not a plain command becomes one, STARTTLS excepted."""
    if step.kind == s.STARTTLS:
        return replace(step, wire=octets)
    return replace(command_step(octets), metric=step.metric) if step.metric else command_step(octets)


def _message_indices(steps: list[Step]) -> list[int]:
    return [index for index, step in enumerate(steps) if step.kind == s.COMMAND and step.metric == "message"]


def _command_indices(steps: list[Step]) -> list[int]:
    return [index for index, step in enumerate(steps) if step.kind in (s.COMMAND, s.STARTTLS) and step.metric != "message"]


def _pick(indices: list[int], index: int) -> int | None:
    return indices[index % len(indices)] if indices else None


def _drop_step(steps: list[Step], mutation: Mutation) -> None:
    del steps[mutation.position % len(steps)]


def _repeat_step(steps: list[Step], mutation: Mutation) -> None:
    steps.insert(mutation.position % len(steps), steps[mutation.position % len(steps)])


def _swap_steps(steps: list[Step], mutation: Mutation) -> None:
    a, b = mutation.position % len(steps), mutation.parameter % len(steps)
    steps[a], steps[b] = steps[b], steps[a]


def _insert_command(steps: list[Step], mutation: Mutation) -> None:
    steps.insert(mutation.position % (len(steps) + 1), command_step(mutation.octets))


def _replace_argument(steps: list[Step], mutation: Mutation) -> None:
    """Replace the argument of a line; `{address}` and `{domain}` stand for those of the address in the line."""
    index = _pick(_command_indices(steps), mutation.position)
    if index is None:
        return
    line = _wire(steps[index])
    verb = line.split(b" ")[0].strip()
    head = {b"MAIL": b"MAIL FROM:", b"RCPT": b"RCPT TO:"}.get(verb.upper(), verb + b" ")
    own = _ADDRESS.search(line)
    address = own[1] if own is not None and b"@" in own[1] else EXAMPLE_ADDRESSES.sender
    argument = mutation.octets.replace(b"{address}", address).replace(b"{domain}", address.rpartition(b"@")[2])
    steps[index] = _with_octets(steps[index], head + argument + b"\r\n")


def _append_parameter(steps: list[Step], mutation: Mutation) -> None:
    """Insert octets before the CRLF of a line, such as a parameter."""
    index = _pick(_command_indices(steps), mutation.position)
    if index is not None:
        steps[index] = _with_octets(steps[index], _wire(steps[index]).removesuffix(b"\r\n") + mutation.octets + b"\r\n")


def _replace_line_end(steps: list[Step], mutation: Mutation) -> None:
    index = _pick(_command_indices(steps), mutation.position)
    if index is not None:
        steps[index] = _with_octets(steps[index], _wire(steps[index]).removesuffix(b"\r\n") + mutation.octets)


def _insert_text(steps: list[Step], mutation: Mutation) -> None:
    """Insert octets into a message text. The parameter is the position, in thousandths of the length."""
    index = _pick(_message_indices(steps), mutation.position)
    if index is not None:
        text = _wire(steps[index])
        place = mutation.parameter % 1001 * max(0, len(text) - 5) // 1000
        steps[index] = _with_octets(steps[index], text[:place] + mutation.octets + text[place:])


def _replace_text_end(steps: list[Step], mutation: Mutation) -> None:
    """End a message text wrongly, pause, and then send CRLF.CRLF."""
    index = _pick(_message_indices(steps), mutation.position)
    if index is not None:
        text = _wire(steps[index]).removesuffix(b".\r\n").removesuffix(b"\r\n")
        steps[index : index + 1] = [
            _with_octets(steps[index], text + mutation.octets),
            Step(s.PAUSE, pause_ns=_WRONG_END_PAUSE_NS),
            command_step(b"\r\n.\r\n"),
        ]


def _replace_text(steps: list[Step], mutation: Mutation) -> None:
    index = _pick(_message_indices(steps), mutation.position)
    if index is not None:
        steps[index] = _with_octets(steps[index], mutation.octets)


def _replace_data_by_bdat(steps: list[Step], mutation: Mutation) -> None:
    """Replace DATA and the message text by one BDAT chunk with this argument; `#` stands for the size."""
    index = _pick(_message_indices(steps), mutation.position)
    if index is None:
        return
    text = _wire(steps[index]).removesuffix(b".\r\n")
    argument = mutation.octets.replace(b"#", b"%d" % (len(text) + (mutation.numbers[0] if mutation.numbers else 0)))
    steps[index] = command_step(b"BDAT " + argument + b"\r\n" + text)
    if index and _wire(steps[index - 1]).upper() == b"DATA\r\n":
        del steps[index - 1]


def _join_writes(steps: list[Step], mutation: Mutation) -> None:
    """Join several writes into one, whether or not PIPELINING is offered."""
    a = mutation.position % len(steps)
    b = min(len(steps), a + 2 + mutation.parameter % 4)
    if b - a > 1 and all(step.kind == s.COMMAND for step in steps[a:b]):
        steps[a:b] = [command_step(b"".join(_wire(step) for step in steps[a:b]))]


def _split_write(steps: list[Step], mutation: Mutation) -> None:
    index = mutation.position % len(steps)
    wire = _wire(steps[index])
    if steps[index].kind != s.COMMAND or len(wire) < 2:
        return
    if mutation.numbers:
        cuts = sorted({1 + number % (len(wire) - 1) for number in mutation.numbers})
    else:
        cuts = list(range(1, min(len(wire), 64)))
    edges = [0, *cuts, len(wire)]
    steps[index] = replace(steps[index], split=tuple(wire[a:b] for a, b in pairwise(edges)))


def _insert_pause(steps: list[Step], mutation: Mutation) -> None:
    steps.insert(mutation.position % (len(steps) + 1), Step(s.PAUSE, pause_ns=(1 + mutation.parameter % 30) * NS_PER_MS))


def _insert_close(steps: list[Step], mutation: Mutation) -> None:
    kind = (s.CLOSE, s.RESET, s.HALF_CLOSE, s.FIN)[mutation.parameter % 4]
    steps.insert(mutation.position % (len(steps) + 1), Step(kind))


def _replace_starttls(steps: list[Step], mutation: Mutation) -> None:
    """Send STARTTLS with octets after it in the same write: in place of a STARTTLS step, or at any position."""
    there = [index for index, step in enumerate(steps) if step.kind == s.STARTTLS]
    step = Step(
        s.STARTTLS,
        b"STARTTLS\r\n" + mutation.octets,
        expected_replies=(ExpectedReply("STARTTLS", s.ANY),),
        metric="STARTTLS",
    )
    if there:
        steps[there[0]] = step
    else:
        steps.insert(1 + mutation.position % len(steps), step)


def _insert_sasl(steps: list[Step], mutation: Mutation) -> None:
    """Insert the lines of an AUTH exchange."""
    index = 1 + mutation.position % len(steps)
    steps[index:index] = [command_step(line + b"\r\n") for line in mutation.octets.split(b"\n")]


_EDITS = {
    "drop": _drop_step,
    "repeat": _repeat_step,
    "swap": _swap_steps,
    "insert": _insert_command,
    "argument": _replace_argument,
    "append": _append_parameter,
    "line-end": _replace_line_end,
    "text-insert": _insert_text,
    "text-end": _replace_text_end,
    "text": _replace_text,
    "bdat": _replace_data_by_bdat,
    "join": _join_writes,
    "split": _split_write,
    "pause": _insert_pause,
    "close": _insert_close,
    "starttls": _replace_starttls,
    "sasl": _insert_sasl,
}
