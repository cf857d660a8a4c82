"""Compiler from scenarios to scripts.

Theory of operation
===================

A script is a flat list of steps. `repeat` inside another step is unrolled. `choose` becomes a CHOOSE step followed by its
alternatives, each of which ends with a JUMP. `step_compiler` compiles all other steps, one at a time, and renders their
octets as far as possible. At the end each step of a mail transaction gets an `abort_target`: the step at which the session
continues if the server rejects that transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from smtpbench.errors import Problem, ScenarioError
from smtpbench.scenario.load import ScenarioFile
from smtpbench.scenario.step_compiler import CompileOptions, DocumentPath, StepCompiler, octets_of
from smtpbench.scenario.steps import FOREVER, MAX_STEPS, Choose, Repeat, ScenarioStep
from smtpbench.scenario.values import draw
from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.smtp.command import expected

__all__ = ["CompileOptions", "compile_scenario"]


@dataclass(slots=True)
class _PlacedStep:
    """A step of the script and the path of its source in the document."""

    step: Step
    path: DocumentPath


def compile_scenario(file: ScenarioFile, options: CompileOptions) -> Script:
    """Return the script of a scenario. Raises ScenarioError with all mistakes that only compiling shows."""
    return _Compiler(file, options).compile()


class _Compiler:
    def __init__(self, file: ScenarioFile, options: CompileOptions) -> None:
        self._file = file
        self._scenario = file.scenario
        self._document = file.document
        self._options = options
        self._earlier_problems = len(file.document.problems)
        self._step_compiler = StepCompiler(file, options)
        self._steps: list[_PlacedStep] = []
        self._count = 0

    def compile(self) -> Script:
        session = self._scenario.session
        repeats = [at for at, step in enumerate(session) if isinstance(step, Repeat)]
        if len(repeats) > 1:
            self._problem(
                ("session", repeats[1]),
                "there is a second `repeat`; only one is allowed at the top level, because its iterations are the arrivals",
            )
        iterations, loop_start = 1, 0
        teardown: int | None = None
        for at, step in enumerate(session):
            path: DocumentPath = ("session", at)
            if at in repeats[:1] and isinstance(step, Repeat):
                loop_start, iterations = len(self._steps), step.repeat
                self._flatten(step.steps, (*path, "steps"), 0)
                teardown = len(self._steps)
            else:
                self._flatten([step], ("session",), 0, first=at)
        steps = [flat.step for flat in self._steps]
        if self._options.starttls:
            steps, added = _with_starttls(steps)
            if not any(step.kind == s.STARTTLS for step in steps):
                self._problem(
                    ("session",),
                    "the target has tls=starttls, but the session has no EHLO after which STARTTLS could be added",
                )
            loop_start, teardown = (loop_start + added if repeats else 0), None if teardown is None else teardown + added
        if teardown is None:
            teardown = next((at for at, step in enumerate(steps) if step.metric == "QUIT"), len(steps))
        self._check(steps)
        self._raise_problems()
        return Script.of(
            self._file.name,
            tuple(_with_abort_targets(steps, teardown)),
            loop_start=loop_start,
            teardown=teardown,
            iterations=iterations,
            repeats=bool(repeats),
            implicit_tls=self._options.implicit_tls,
            lmtp=self._options.lmtp,
            draw=lambda n, at: draw(self._options.seed, f"choose/{at}", n),
        )

    def _flatten(self, steps: Sequence[ScenarioStep], path: DocumentPath, iteration: int, first: int = 0) -> None:
        for at, step in enumerate(steps, first):
            if self._count > MAX_STEPS:
                return
            self._flatten_one(step, (*path, at), iteration)

    def _flatten_one(self, step: ScenarioStep, path: DocumentPath, iteration: int) -> None:
        if isinstance(step, Repeat):
            if step.repeat >= FOREVER:
                self._problem((*path, "repeat"), "`forever` is allowed for the repeat at the top level only")
                return
            for done in range(step.repeat):
                before = self._count
                self._flatten(step.steps, (*path, "steps"), done + 1)
                if (self._count - before) * (step.repeat - done) + before > MAX_STEPS:
                    self._problem((*path, "repeat"), f"this repeat makes more than {MAX_STEPS:,} steps when unrolled")
                    self._count = MAX_STEPS + 1
                    return
        elif isinstance(step, Choose):
            self._choose(step, path, iteration)
        else:
            for compiled in self._step_compiler.compile(step, path, iteration):
                self._append(compiled, path)

    def _append(self, step: Step, path: DocumentPath) -> None:
        self._count += 1
        line, _ = self._document.positions.get(path, (0, 0))
        self._steps.append(_PlacedStep(replace(step, line=line), path))

    def _choose(self, step: Choose, path: DocumentPath, iteration: int) -> None:
        weights = tuple(float(branch.weight) for branch in step.choose)
        if not sum(weights):
            self._problem((*path, "choose"), "all weights are 0; at least one must be greater")
            return
        choose_at = len(self._steps)
        self._append(Step(s.CHOOSE), path)
        targets, jumps = [], []
        for at, branch in enumerate(step.choose):
            targets.append(len(self._steps))
            self._flatten(branch.steps, (*path, "choose", at, "steps"), iteration)
            jumps.append(len(self._steps))
            self._append(Step(s.JUMP), path)
        self._steps[choose_at].step = replace(self._steps[choose_at].step, targets=tuple(targets), weights=weights)
        for at in jumps:
            self._steps[at].step = replace(self._steps[at].step, targets=(len(self._steps),))

    def _check(self, steps: Sequence[Step]) -> None:
        """Report mistakes that only the whole script shows."""
        kinds = [step.kind for step in steps]
        if self._options.implicit_tls and s.STARTTLS in kinds:
            path = self._steps[kinds.index(s.STARTTLS)].path
            self._problem(path, "STARTTLS is not possible with smtps://, which starts with TLS; use smtp://")
        if s.MESSAGE in kinds and not {"DATA", "BDAT"} & {reply.verb for step in steps for reply in step.expected_replies}:
            rendered = (step.render(0) for step in steps if step.kind == s.MESSAGE and step.render)
            if not any(octets_of(wire).startswith(b"BDAT") for wire in rendered):
                self._problem(self._steps[kinds.index(s.MESSAGE)].path, "there is no DATA before this message")

    def _problem(self, path: DocumentPath, text: str) -> None:
        self._document.problem(path, text)

    def _raise_problems(self) -> None:
        found: list[Problem] = self._document.problems[self._earlier_problems :]
        del self._document.problems[self._earlier_problems :]
        if found:
            raise ScenarioError(sorted(set(found), key=lambda problem: (problem.line, problem.column)))


def _with_starttls(steps: list[Step]) -> tuple[list[Step], int]:
    """Insert STARTTLS and a second EHLO after the first EHLO (RFC 3207 §4.2); return the steps and how many were added."""
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


def _with_abort_targets(steps: list[Step], teardown: int) -> list[Step]:
    """Set `abort_target`: the step after the message that ends the transaction, or else the end of the iteration."""
    found = list(steps)
    for at, step in enumerate(steps):
        if step.on_unexpected == s.ABORT_TRANSACTION:
            end = teardown if at < teardown else len(steps)
            message = next((k for k in range(at, end) if steps[k].kind == s.MESSAGE), None)
            following = next((k for k in range(at + 1, end) if _starts_transaction(steps[k])), end)
            abort_target = message + 1 if message is not None and message < following else following
            found[at] = replace(step, abort_target=abort_target)
    return found


def _starts_transaction(step: Step) -> bool:
    return step.kind == s.MAIL or (step.kind == s.GROUP and step.expected_replies[0].verb == "MAIL")
