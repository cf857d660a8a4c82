"""From a scenario to a script: a flat dialogue, rendered as far as it can be, with a way on from every refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise

from smtpbench.errors import Problem, ScenarioError
from smtpbench.scenario import model
from smtpbench.scenario.body import Render, compile_message, formatter
from smtpbench.scenario.load import ScenarioFile
from smtpbench.scenario.values import Values, draw
from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step, Wire
from smtpbench.smtp import sasl
from smtpbench.smtp.command import expected
from smtpbench.smtp.content import END_OF_DATA

_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}

Path = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What the target and the command line say about a script.

    lmtp: speak LMTP. implicit_tls: TLS before the greeting. starttls: add STARTTLS where the scenario has none.
    credentials: whether there is a user and a password. message_bytes: overrides the message's size.
    """

    run_id: str = "none"
    seed: int = 0
    lmtp: bool = False
    implicit_tls: bool = False
    starttls: bool = False
    credentials: bool = True
    message_bytes: int | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(slots=True)
class _Flat:
    """A step on its way, and its place in the document."""

    step: Step
    path: Path


def compile_scenario(file: ScenarioFile, options: CompileOptions) -> Script:
    """The script of a scenario. Raises ScenarioError with every mistake that its reading could not show."""
    return _Compiler(file, options).compile()


class _Compiler:
    def __init__(self, file: ScenarioFile, options: CompileOptions) -> None:
        self._file = file
        self._scenario = file.scenario
        self._document = file.document
        self._options = options
        self._folder = file.path.resolve().parent
        self._before = len(file.document.problems)
        self._values = Values(self._scenario.values, self._document, self._folder, options.seed, options.run_id)
        self._message: Render | None = None
        self._steps: list[_Flat] = []
        self._count = 0

    def compile(self) -> Script:
        session = self._scenario.session
        repeats = [at for at, step in enumerate(session) if isinstance(step, model.Repeat)]
        if len(repeats) > 1:
            self._problem(("session", repeats[1]), "a second repeat; arrivals are made of the one outermost repeat")
        iterations, loop_start = 1, 0
        teardown: int | None = None
        for at, step in enumerate(session):
            path: Path = ("session", at)
            if at in repeats[:1] and isinstance(step, model.Repeat):
                loop_start, iterations = len(self._steps), step.repeat
                self._flatten(step.steps, (*path, "steps"), 0)
                teardown = len(self._steps)
            else:
                self._flatten([step], ("session",), 0, first=at)
        steps = [flat.step for flat in self._steps]
        if self._options.starttls:
            steps, moved = _with_starttls(steps)
            if not any(step.kind == s.STARTTLS for step in steps):
                self._problem(("session",), "the target says tls=starttls, but there is no EHLO to put STARTTLS behind")
            loop_start, teardown = (loop_start + moved if repeats else 0), None if teardown is None else teardown + moved
        if teardown is None:
            teardown = next((at for at, step in enumerate(steps) if step.metric == "QUIT"), len(steps))
        self._check(steps)
        self._raise()
        return Script.of(
            self._file.name,
            tuple(_with_ways_on(steps, teardown)),
            loop_start=loop_start,
            teardown=teardown,
            iterations=iterations,
            repeats=bool(repeats),
            implicit_tls=self._options.implicit_tls,
            lmtp=self._options.lmtp,
            draw=lambda n, at: draw(self._options.seed, f"choose/{at}", n),
        )

    # -- flattening ------------------------------------------------------------------------------------------------

    def _flatten(self, steps: Sequence[model.ScenarioStep], path: Path, i: int, first: int = 0) -> None:
        for at, step in enumerate(steps, first):
            if self._count > model.MAX_STEPS:
                return
            self._flatten_one(step, (*path, at), i)

    def _flatten_one(self, step: model.ScenarioStep, path: Path, i: int) -> None:
        if isinstance(step, model.Repeat):
            if step.repeat >= model.FOREVER:
                self._problem((*path, "repeat"), "only the outermost repeat may go on forever")
                return
            for one in range(step.repeat):
                before = self._count
                self._flatten(step.steps, (*path, "steps"), one + 1)
                if (self._count - before) * (step.repeat - one) + before > model.MAX_STEPS:
                    self._problem((*path, "repeat"), f"unrolled, this makes more than {model.MAX_STEPS:,} steps")
                    self._count = model.MAX_STEPS + 1
                    return
        elif isinstance(step, model.Choose):
            self._choose(step, path, i)
        else:
            compiled = self._compile(step, path, i)
            for one_step in compiled:
                self._append(one_step, path)

    def _append(self, step: Step, path: Path) -> None:
        self._count += 1
        line, _ = self._document.places.get(path, (0, 0))
        self._steps.append(_Flat(replace(step, line=line), path))

    def _choose(self, step: model.Choose, path: Path, i: int) -> None:
        weights = tuple(float(branch.weight) for branch in step.choose)
        if not sum(weights):
            self._problem((*path, "choose"), "one weight at least must be more than 0")
            return
        head = len(self._steps)
        self._append(Step(s.CHOOSE), path)
        targets, jumps = [], []
        for at, branch in enumerate(step.choose):
            targets.append(len(self._steps))
            self._flatten(branch.steps, (*path, "choose", at, "steps"), i)
            jumps.append(len(self._steps))
            self._append(Step(s.JUMP), path)
        self._steps[head].step = replace(self._steps[head].step, targets=tuple(targets), weights=weights)
        for at in jumps:
            self._steps[at].step = replace(self._steps[at].step, targets=(len(self._steps),))

    # -- single steps ----------------------------------------------------------------------------------------------

    def _compile(self, step: model.ScenarioStep, path: Path, i: int) -> list[Step]:
        if isinstance(step, str):
            return self._action(step, path) if step in model.ACTIONS else self._command(step, path, i)
        if isinstance(step, model.Send):
            return self._send(step, path, i)
        if isinstance(step, model.Raw):
            return self._raw(step, path)
        if isinstance(step, model.Pipeline):
            return self._pipeline(step, path, i)
        if isinstance(step, model.Pause):
            return [Step(s.PAUSE, pause_ns=step.pause)]
        if isinstance(step, model.MessageStep):
            return self._body(self._render(step.message, (*path, "message")))
        if isinstance(step, model.Bdat):
            return self._bdat(step, path)
        if isinstance(step, model.Auth):
            return self._stranger(step, path)
        raise AssertionError(f"unreachable: {step!r}")

    def _action(self, word: str, path: Path) -> list[Step]:
        if word == "message":
            return self._body(self._scenario_message(path))
        kinds = {"tls": s.TLS, "close": s.CLOSE, "reset": s.RESET, "half-close": s.HALF_CLOSE}
        return [Step(kinds[word], on_unexpected=s.ABORT_SESSION, metric="tls" if word == "tls" else "")]

    def _body(self, render: Render | None) -> list[Step]:
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

    def _scenario_message(self, path: Path) -> Render | None:
        if self._message is None:
            message = self._scenario.message
            if self._options.message_bytes is not None:
                message = message.model_copy(update={"size": (self._options.message_bytes,) * 2, "eml": None, "text": None})
            where: Path = ("message",) if ("message",) in self._document.places else path
            self._message = self._render(message, where)
        return self._message

    def _render(self, message: model.Message, path: Path) -> Render | None:
        return compile_message(
            message, self._values, self._document, path, self._folder,
            run_id=self._options.run_id, seed=self._options.seed, now=self._options.now,
        )  # fmt: skip

    def _command(self, text: str, path: Path, i: int) -> list[Step]:
        verb = text.split(" ")[0].upper()
        if verb == "AUTH":
            return self._auth(text, path)
        if verb in ("EHLO", "HELO") and self._options.lmtp:
            verb = "LHLO"
            text = verb + text[4:]
        wire, render = self._line(text, path, i)
        kind = {"MAIL": s.MAIL, "RCPT": s.RCPT, "STARTTLS": s.STARTTLS}.get(verb, s.COMMAND)
        expected_replies = (ExpectedReply(verb, expected(verb)),)
        return [Step(kind, wire, render, expected_replies=expected_replies, metric=verb, on_unexpected=_otherwise(verb))]

    def _send(self, step: model.Send, path: Path, i: int) -> list[Step]:
        wire, render = self._line(step.send, (*path, "send"), i)
        verb = step.as_ or step.send.split(" ")[0].upper() or "SEND"
        own = step.send.split(" ")[0].upper()
        expected_replies = (ExpectedReply(verb, tuple(step.expect) if step.expect else expected(own)),)
        kind = {"MAIL": s.MAIL, "RCPT": s.RCPT}.get(own, s.COMMAND)
        return [Step(kind, wire, render, expected_replies=expected_replies, metric=verb, on_unexpected=_otherwise(own))]

    def _auth(self, text: str, path: Path) -> list[Step]:
        words = text.split()
        if len(words) != 2 or words[1].upper() not in sasl.MECHANISMS:
            known = ", ".join(sasl.MECHANISMS)
            self._problem(path, f"AUTH names one mechanism, of {known}; credentials come with the target")
            return []
        if not self._options.credentials:
            self._problem(
                path,
                "AUTH needs a user and a password: name the user in the target, smtp://USER@host:port, and give the "
                "password by --password-file FILE or the variable SMTPBENCH_PASSWORD",
            )
        expected_replies = (ExpectedReply("AUTH", expected("AUTH")),)
        return [
            Step(
                s.AUTH,
                expected_replies=expected_replies,
                metric="AUTH",
                on_unexpected=s.ABORT_SESSION,
                mechanism=words[1].upper(),
            )
        ]

    def _stranger(self, step: model.Auth, path: Path) -> list[Step]:
        mechanism = step.auth.upper()
        if mechanism not in sasl.MECHANISMS:
            known = ", ".join(sasl.MECHANISMS)
            self._problem((*path, "auth"), f"{step.auth!r} is no mechanism known here; there are {known}")
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

    def _raw(self, step: model.Raw, path: Path) -> list[Step]:
        octets = self._octets(step.raw, (*path, "raw"))
        if octets is None:
            return []
        replies = (1 if octets.endswith(b"\n") else 0) if step.replies is None else step.replies
        offsets = [0, *sorted(set(step.split)), len(octets)]
        if step.split and not 0 < offsets[1] <= offsets[-2] < len(octets):
            self._problem((*path, "split"), f"offsets lie between 1 and {len(octets) - 1}, inside of the octets")
            return []
        pieces = tuple(octets[a:b] for a, b in pairwise(offsets)) if step.split else ()
        first = octets.split(b" ")[0].strip().upper()
        verb = step.as_ or (first.decode() if re.fullmatch(rb"[A-Z]{4,8}", first) else "raw")
        expect = tuple(step.expect) if step.expect else (2, 3)
        kind = s.STARTTLS if step.tls else s.GROUP if replies > 1 else s.COMMAND
        return [Step(kind, octets, expected_replies=(ExpectedReply(verb, expect),) * replies, metric=verb, split=pieces)]

    def _octets(self, text: str, path: Path) -> bytes | None:
        out, at = bytearray(), 0
        try:
            for match in _ESCAPE.finditer(text):
                out += text[at : match.start()].encode("latin-1")
                at = match.end()
                if match[1]:
                    out.append(int(match[1], 16))
                elif match[2] in _ESCAPES:
                    out += _ESCAPES[match[2]]
                else:
                    self._problem(path, f"the escape {match[0]!r} is not known; there are \\r \\n \\t \\0 \\\\ \\xNN")
                    return None
            return bytes(out + text[at:].encode("latin-1"))
        except UnicodeEncodeError as error:
            what = error.object[error.start]
            self._problem(path, f"{what!r} is more than one octet; spell it out, {_spelled(what)}")
            return None

    def _pipeline(self, step: model.Pipeline, path: Path, i: int) -> list[Step]:
        expected_replies: list[ExpectedReply] = []
        for at, item in enumerate(step.pipeline):
            where = (*path, "pipeline", at)
            for one in self._command(item, where, i) if isinstance(item, str) else self._send(item, where, i):
                last = at + 1 == len(step.pipeline)
                if one.kind in (s.AUTH, s.STARTTLS) or (one.metric in ("DATA", "EHLO", "HELO", "LHLO") and not last):
                    self._problem(where, f"{one.metric} is the last command of a group, or stands alone (RFC 2920 §3.1)")
                expected_replies += one.expected_replies
        whole = "".join((item if isinstance(item, str) else item.send) + "\r\n" for item in step.pipeline)
        wire, render = self._text(whole, path, i)
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

    def _bdat(self, step: model.Bdat, path: Path) -> list[Step]:
        """Chunks of a message whose size is known: those of one size, as its octets are cut beforehand."""
        render = self._scenario_message(path)
        chunk_bytes = step.bdat[0]
        if render is None:
            return []
        whole = _whole(render(0))[: -len(END_OF_DATA)]
        varies = len(whole) != len(_whole(render(1))) - len(END_OF_DATA)
        if chunk_bytes < 1 or varies or self._scenario.message.eml or self._scenario.message.text:
            self._problem(path, "BDAT wants a message of one size, made of `size`, and chunks of at least 1 octet")
            return []
        starts = range(0, len(whole), chunk_bytes)
        if len(starts) > model.MAX_STEPS // 10:
            self._problem(path, f"that makes {len(starts):,} chunks; take larger ones")
            return []
        steps = []
        for start in starts:
            last = start + chunk_bytes >= len(whole)
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

    # -- text ------------------------------------------------------------------------------------------------------

    def _line(self, text: str, path: Path, i: int) -> tuple[bytes, Render | None]:
        if "\r" in text or "\n" in text:
            self._problem(path, "a line holds no line end of its own; octets of any kind go in {raw: …}")
        return self._text(text + "\r\n", path, i)

    def _text(self, text: str, path: Path, i: int) -> tuple[bytes, Render | None]:
        """Octets, or what renders them where values differ from arrival to arrival."""
        parts = self._values.template(text, path)
        if parts is None:
            return b"", None
        render = formatter(parts, self._values, i)
        if all(isinstance(part, str) for part in parts):
            return render(0), None
        return b"", render

    # -- checks ----------------------------------------------------------------------------------------------------

    def _check(self, steps: Sequence[Step]) -> None:
        kinds = [step.kind for step in steps]
        if self._options.implicit_tls and s.STARTTLS in kinds:
            path = self._steps[kinds.index(s.STARTTLS)].path
            self._problem(path, "STARTTLS inside of TLS: the target is smtps://, which begins with TLS; use smtp://")
        if s.MESSAGE in kinds and not {"DATA", "BDAT"} & {ask.verb for step in steps for ask in step.expected_replies}:
            whole = any(b"BDAT" in _whole(step.render(0))[:4] for step in steps if step.kind == s.MESSAGE and step.render)
            if not whole:
                self._problem(self._steps[kinds.index(s.MESSAGE)].path, "a message without DATA before it")

    def _problem(self, path: Path, text: str) -> None:
        self._document.problem(path, text)

    def _raise(self) -> None:
        found: list[Problem] = self._document.problems[self._before :]
        del self._document.problems[self._before :]
        if found:
            raise ScenarioError(sorted(set(found), key=lambda problem: (problem.line, problem.column)))


def _otherwise(verb: str) -> int:
    if verb in ("EHLO", "HELO", "LHLO", "STARTTLS"):
        return s.ABORT_SESSION
    return s.ABORT_TRANSACTION if verb in ("MAIL", "RCPT", "DATA", "BDAT") else s.CONTINUE


def _with_starttls(steps: list[Step]) -> tuple[list[Step], int]:
    """STARTTLS and the same EHLO again behind the first EHLO (RFC 3207 §4.2); how many steps that added."""
    if any(step.kind == s.STARTTLS for step in steps):
        return steps, 0
    at = next((at for at, step in enumerate(steps) if step.metric == "EHLO"), None)
    if at is None:
        return steps, 0
    expected_replies = (ExpectedReply("STARTTLS", expected("STARTTLS")),)
    starttls = Step(
        s.STARTTLS,
        b"STARTTLS\r\n",
        expected_replies=expected_replies,
        metric="STARTTLS",
        on_unexpected=s.ABORT_SESSION,
        line=steps[at].line,
    )
    added = [starttls, steps[at]]
    moved = [
        replace(step, targets=tuple(target + len(added) if target > at else target for target in step.targets))
        for step in steps
    ]
    return [*moved[: at + 1], *added, *moved[at + 1 :]], len(added)


def _with_ways_on(steps: list[Step], teardown: int) -> list[Step]:
    """Set `abort_target`: after the message that ends the transaction, else the end of the iteration."""
    found = list(steps)
    for at, step in enumerate(steps):
        if step.on_unexpected == s.ABORT_TRANSACTION:
            end = teardown if at < teardown else len(steps)
            body = next((k for k in range(at, end) if steps[k].kind == s.MESSAGE), None)
            following = next((k for k in range(at + 1, end) if _begins(steps[k])), end)
            abort_target = body + 1 if body is not None and body < following else following
            found[at] = replace(step, abort_target=abort_target)
    return found


def _begins(step: Step) -> bool:
    return step.kind == s.MAIL or (step.kind == s.GROUP and step.expected_replies[0].verb == "MAIL")


def _chunk(render: Render, start: int, end: int, last: bool, n: int) -> bytes:
    octets = _whole(render(n))
    octets = octets[start : len(octets) - len(END_OF_DATA) if last else end]
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets


def _whole(wire: Wire) -> bytes:
    return wire if isinstance(wire, bytes) else b"".join(wire)


def _spelled(character: str) -> str:
    return "".join(f"\\x{octet:02x}" for octet in character.encode())
