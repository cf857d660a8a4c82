"""Steps of a script from single steps of a scenario: lines and octets are rendered as far as possible beforehand."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise

from smtpbench.scenario.content import Message
from smtpbench.scenario.corpus import Corpora
from smtpbench.scenario.file_access import OutsideFolder
from smtpbench.scenario.load import ScenarioFile
from smtpbench.scenario.message import Render, compile_message, formatter
from smtpbench.scenario.steps import ACTIONS, MAX_STEPS, Auth, Bdat, MessageStep, Pause, Pipeline, Raw, ScenarioStep, Send
from smtpbench.scenario.values import Values
from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Step, Wire
from smtpbench.smtp import sasl
from smtpbench.smtp.command import expected
from smtpbench.smtp.content import END_OF_DATA

_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
_KINDS = {"MAIL": s.MAIL, "RCPT": s.RCPT}
_ACTION_KINDS = {"tls": s.TLS, "close": s.CLOSE, "reset": s.RESET, "half-close": s.HALF_CLOSE, "fin": s.FIN}

#: Keys and indices that lead to a part of a document.
DocumentPath = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """Settings of the target and of the command line that a script depends on.

    Attributes:
        run_id: Identifier of the run, the value `{run}`.
        seed: Random seed.
        lmtp: Whether the protocol is LMTP.
        implicit_tls: Whether TLS starts before the greeting.
        starttls: Whether STARTTLS is added to a scenario that has none.
        credentials: Whether there are a user and a password.
        message_bytes: Message size, instead of that of the scenario; None to keep it.
        extend_message: Whether a message whose header alone is longer than `message_bytes` may be longer than that.
        now: Time for the header field Date.
        corpora: Message files that are prepared already, and where others are kept.
    """

    run_id: str = "none"
    seed: int = 0
    lmtp: bool = False
    implicit_tls: bool = False
    starttls: bool = False
    credentials: bool = True
    message_bytes: int | None = None
    extend_message: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    corpora: Corpora = field(default_factory=Corpora)


class StepCompiler:
    """Compiles single steps of one scenario. Mistakes are added to the problems of its document."""

    def __init__(self, file: ScenarioFile, options: CompileOptions) -> None:
        self._scenario = file.scenario
        self._document = file.document
        self._options = options
        self._files = file.files
        self._values = Values(self._scenario.values, self._document, self._files, options.seed, options.run_id)
        self._message: Render | None = None

    def compile(self, step: ScenarioStep, path: DocumentPath, iteration: int) -> list[Step]:
        """Return the steps of the script for one step of the scenario, other than `repeat` and `choose`.

        Args:
            step: The step.
            path: Its path in the document.
            iteration: Number of the iteration of an unrolled repeat, the value `{i}`; 0 outside of one.

        Returns:
            The steps; none if the step has a mistake.
        """
        if isinstance(step, str):
            return self._action(step, path) if step in ACTIONS else self._command(step, path, iteration)
        if isinstance(step, Send):
            return self._send(step, path, iteration)
        if isinstance(step, Raw):
            return self._raw(step, path)
        if isinstance(step, Pipeline):
            return self._pipeline(step, path, iteration)
        if isinstance(step, Pause):
            return [Step(s.PAUSE, pause_ns=step.pause)]
        if isinstance(step, MessageStep):
            return self._message_step(self._render(step.message, (*path, "message")))
        if isinstance(step, Bdat):
            return self._bdat(step, path)
        if isinstance(step, Auth):
            return self._auth_with_credentials(step, path)
        raise AssertionError(f"unreachable: {step!r}")

    def _action(self, action: str, path: DocumentPath) -> list[Step]:
        if action == "message":
            return self._message_step(self._scenario_message(path))
        return [Step(_ACTION_KINDS[action], on_unexpected=s.ABORT_SESSION, metric="tls" if action == "tls" else "")]

    def _message_step(self, render: Render | None) -> list[Step]:
        if render is None:
            return []
        return [
            Step(
                s.MESSAGE,
                render=render,
                expected_replies=(ExpectedReply("message", (2,)),),
                metric="message",
                on_unexpected=s.ABORT_TRANSACTION,
            )
        ]

    def _scenario_message(self, path: DocumentPath) -> Render | None:
        if self._message is None:
            message = self._scenario.message
            if self._options.message_bytes is not None:
                if message.eml is not None and not self._may_name(message.eml):
                    return None
                message = message.model_copy(update={"size": (self._options.message_bytes,) * 2, "eml": None, "text": None})
            message_path: DocumentPath = ("message",) if ("message",) in self._document.positions else path
            self._message = self._render(message, message_path, extend=self._options.extend_message)
        return self._message

    def _may_name(self, pattern: str) -> bool:
        """Return whether the scenario may name these files, which another size replaces; if not, there is a problem."""
        try:
            self._files.check_pattern(pattern)
        except OutsideFolder as error:
            self._problem(("message", "eml"), str(error))
            return False
        return True

    def _render(self, message: Message, path: DocumentPath, *, extend: bool = False) -> Render | None:
        return compile_message(
            message, self._values, self._document, path, self._files,
            run_id=self._options.run_id, seed=self._options.seed, now=self._options.now,
            corpora=self._options.corpora, extend=extend,
        )  # fmt: skip

    def _command(self, text: str, path: DocumentPath, iteration: int) -> list[Step]:
        verb = text.split(" ")[0].upper()
        if verb == "AUTH":
            return self._auth(text, path)
        if verb in ("EHLO", "HELO") and self._options.lmtp:
            verb = "LHLO"
            text = verb + text[4:]
        wire, render = self._line(text, path, iteration)
        kind = s.STARTTLS if verb == "STARTTLS" else _KINDS.get(verb, s.COMMAND)
        expected_replies = (ExpectedReply(verb, expected(verb)),)
        return [Step(kind, wire, render, expected_replies=expected_replies, metric=verb, on_unexpected=_on_unexpected(verb))]

    def _send(self, step: Send, path: DocumentPath, iteration: int) -> list[Step]:
        wire, render = self._line(step.send, (*path, "send"), iteration)
        verb = step.send.split(" ")[0].upper()
        name = step.as_ or verb or "SEND"
        expected_replies = (ExpectedReply(name, tuple(step.expect) if step.expect else expected(verb)),)
        kind = _KINDS.get(verb, s.COMMAND)
        return [Step(kind, wire, render, expected_replies=expected_replies, metric=name, on_unexpected=_on_unexpected(verb))]

    def _auth(self, text: str, path: DocumentPath) -> list[Step]:
        parts = text.split()
        if len(parts) != 2 or parts[1].upper() not in sasl.MECHANISMS:
            self._problem(
                path, f"AUTH needs one mechanism of {', '.join(sasl.MECHANISMS)}; credentials belong to the target"
            )
            return []
        if not self._options.credentials:
            self._problem(
                path,
                "AUTH needs a user and a password; use a target like smtp://USER@host:port, and --password-file FILE or the "
                "variable SMTPBENCH_PASSWORD",
            )
        expected_replies = (ExpectedReply("AUTH", expected("AUTH")),)
        return [
            Step(
                s.AUTH,
                expected_replies=expected_replies,
                metric="AUTH",
                on_unexpected=s.ABORT_SESSION,
                mechanism=parts[1].upper(),
            )
        ]

    def _auth_with_credentials(self, step: Auth, path: DocumentPath) -> list[Step]:
        mechanism = step.auth.upper()
        if mechanism not in sasl.MECHANISMS:
            known = ", ".join(sasl.MECHANISMS)
            self._problem((*path, "auth"), f"unknown SASL mechanism {step.auth!r}; supported mechanisms: {known}")
            return []
        expected_replies = (ExpectedReply("AUTH", expected("AUTH")),)
        return [
            Step(
                s.AUTH,
                expected_replies=expected_replies,
                metric="AUTH",
                mechanism=mechanism,
                credentials=(step.user, step.password),
            )
        ]

    def _raw(self, step: Raw, path: DocumentPath) -> list[Step]:
        octets = self._unescape(step.raw, (*path, "raw"))
        if octets is None:
            return []
        replies = (1 if octets.endswith(b"\n") else 0) if step.replies is None else step.replies
        offsets = [0, *sorted(set(step.split)), len(octets)]
        if step.split and not 0 < offsets[1] <= offsets[-2] < len(octets):
            self._problem((*path, "split"), f"an offset is outside of the octets; use offsets from 1 to {len(octets) - 1}")
            return []
        pieces = tuple(octets[a:b] for a, b in pairwise(offsets)) if step.split else ()
        first = octets.split(b" ")[0].strip().upper()
        verb = step.as_ or (first.decode() if re.fullmatch(rb"[A-Z]{4,8}", first) else "raw")
        expect = tuple(step.expect) if step.expect else (2, 3)
        kind = s.STARTTLS if step.tls else s.GROUP if replies > 1 else s.COMMAND
        return [Step(kind, octets, expected_replies=(ExpectedReply(verb, expect),) * replies, metric=verb, split=pieces)]

    def _unescape(self, text: str, path: DocumentPath) -> bytes | None:
        """Return the octets that text with escapes stands for; None if it has a mistake."""
        octets, at = bytearray(), 0
        try:
            for match in _ESCAPE.finditer(text):
                octets += text[at : match.start()].encode("latin-1")
                at = match.end()
                if match[1]:
                    octets.append(int(match[1], 16))
                elif match[2] in _ESCAPES:
                    octets += _ESCAPES[match[2]]
                else:
                    self._problem(path, f"unknown escape {match[0]!r}; use \\r \\n \\t \\0 \\\\ or \\xNN")
                    return None
            return bytes(octets + text[at:].encode("latin-1"))
        except UnicodeEncodeError as error:
            character = error.object[error.start]
            self._problem(path, f"{character!r} is more than one octet; write {_hex_escapes(character)}")
            return None

    def _pipeline(self, step: Pipeline, path: DocumentPath, iteration: int) -> list[Step]:
        expected_replies: list[ExpectedReply] = []
        for at, item in enumerate(step.pipeline):
            item_path = (*path, "pipeline", at)
            for one in self._pipeline_item(item, item_path, iteration):
                last = at + 1 == len(step.pipeline)
                if one.kind in (s.AUTH, s.STARTTLS) or (one.metric in ("DATA", "EHLO", "HELO", "LHLO") and not last):
                    self._problem(item_path, f"{one.metric} must be the last command of a pipeline (RFC 2920 §3.1)")
                expected_replies += one.expected_replies
        lines = "".join((item if isinstance(item, str) else item.send) + "\r\n" for item in step.pipeline)
        wire, render = self._text(lines, path, iteration)
        return [
            Step(
                s.GROUP,
                wire,
                render,
                expected_replies=tuple(expected_replies),
                metric="pipeline",
                on_unexpected=s.ABORT_TRANSACTION,
            )
        ]

    def _pipeline_item(self, item: str | Send, path: DocumentPath, iteration: int) -> list[Step]:
        return self._command(item, path, iteration) if isinstance(item, str) else self._send(item, path, iteration)

    def _bdat(self, step: Bdat, path: DocumentPath) -> list[Step]:
        """Return the chunks of the message. Their number must be known, so the message must have one size."""
        render = self._scenario_message(path)
        chunk_bytes = step.bdat[0]
        if render is None:
            return []
        size = len(octets_of(render(0))) - len(END_OF_DATA)
        varies = size != len(octets_of(render(1))) - len(END_OF_DATA)
        if chunk_bytes < 1 or varies or self._scenario.message.eml or self._scenario.message.text:
            self._problem(path, "BDAT needs a message with one `size`, and chunks of at least 1 octet")
            return []
        starts = range(0, size, chunk_bytes)
        if len(starts) > MAX_STEPS // 10:
            self._problem(path, f"the message would have {len(starts):,} chunks; use a larger chunk size")
            return []
        steps = []
        for start in starts:
            last = start + chunk_bytes >= size
            chunk = partial(_chunk, render, start, start + chunk_bytes, last)
            kind, verb = (s.MESSAGE, "message") if last else (s.COMMAND, "BDAT")
            steps.append(
                Step(
                    kind,
                    render=chunk,
                    expected_replies=(ExpectedReply(verb, (2,)),),
                    metric=verb,
                    on_unexpected=s.ABORT_TRANSACTION,
                )
            )
        return steps

    def _line(self, text: str, path: DocumentPath, iteration: int) -> tuple[bytes, Render | None]:
        if "\r" in text or "\n" in text:
            self._problem(path, "a command must not contain line ends; use {raw: …} for other octets")
        return self._text(text + "\r\n", path, iteration)

    def _text(self, text: str, path: DocumentPath, iteration: int) -> tuple[bytes, Render | None]:
        """Return fixed octets, or a function that renders them if values differ between arrivals."""
        parts = self._values.template(text, path)
        if parts is None:
            return b"", None
        render = formatter(parts, self._values, iteration)
        if all(isinstance(part, str) for part in parts):
            return render(0), None
        return b"", render

    def _problem(self, path: DocumentPath, text: str) -> None:
        self._document.problem(path, text)


def _on_unexpected(verb: str) -> int:
    """Return what happens after an unexpected reply to a command."""
    if verb in ("EHLO", "HELO", "LHLO", "STARTTLS"):
        return s.ABORT_SESSION
    return s.ABORT_TRANSACTION if verb in ("MAIL", "RCPT", "DATA", "BDAT") else s.CONTINUE


def _chunk(render: Render, start: int, end: int, last: bool, n: int) -> Wire:
    """Return a BDAT command with its chunk of the message of arrival n; the chunk of a large message is not copied."""
    wire = render(n)
    head, body = wire if isinstance(wire, tuple) else (wire, b"")
    size = len(head) + len(body)
    end = size - len(END_OF_DATA) if last else min(end, size)
    command = b"BDAT %d%s\r\n" % (end - start, b" LAST" if last else b"")
    cut = len(head)
    command += head[start:end]
    rest = body[max(0, start - cut) : max(0, end - cut)]
    return (command, rest) if rest else command


def octets_of(wire: Wire) -> bytes:
    """Return the octets of rendered text, which may be in several pieces."""
    return wire if isinstance(wire, bytes) else b"".join(wire)


def _hex_escapes(character: str) -> str:
    return "".join(f"\\x{octet:02x}" for octet in character.encode())
