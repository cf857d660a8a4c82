"""Which domains a scenario's arrivals may be for, where that can be told without drawing its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from smtpbench.scenario import model
from smtpbench.scenario.load import ScenarioFile
from smtpbench.scenario.values import Provider, Values
from smtpbench.smtp.command import verb_of
from smtpbench.smtp.domain import canonical

#: More ways than these to write a recipient's domain are not followed.
_MOST = 100_000
#: How far a command's text has been read: not to its path, to somewhere in it, or past it.
_BEFORE, _INSIDE, _BEHIND = 0, 1, 2

#: That, and what stands behind the path's last @ so far; None where there was none.
State = tuple[int, str | None]
Choices = Callable[[Provider], Sequence[str] | None]


def possible_domains(file: ScenarioFile, run_id: str) -> frozenset[str] | None:
    """The domains, as `canonical` spells them, that the first recipient of an arrival can have; None if it cannot be told.

    The scenario must have been compiled without a mistake.
    """
    session = file.scenario.session
    iterations = [step for step in session if isinstance(step, model.Repeat)]
    firsts, _ = _first_recipients(iterations or session)
    values = Values(file.scenario.values, file.document, file.path.resolve().parent, 0, run_id)
    found: set[str] = set()
    for text in firsts:
        parts = None if text is None else values.template(text, ("session",))
        domains = None if parts is None else domains_in(parts, values.choices)
        if domains is None:
            return None
        found |= domains
    return frozenset(found)


def _first_recipients(steps: Iterable[model.ScenarioStep | model.Send]) -> tuple[list[str | None], bool]:
    """The RCPT commands that may come first in these steps, None for octets that may hold one; whether there may be none."""
    found: list[str | None] = []
    for step in steps:
        if isinstance(step, model.Choose):
            ways = [_first_recipients(branch.steps) for branch in step.choose if branch.weight]
            passing = any(through for _, through in ways)
            for firsts, _ in ways:
                found += firsts
        elif isinstance(step, model.Repeat | model.Pipeline):
            firsts, passing = _first_recipients(step.steps if isinstance(step, model.Repeat) else step.pipeline)
            found += firsts
        elif isinstance(step, model.Raw):
            passing = "RCPT" not in step.raw.upper()
            found += [] if passing else [None]
        else:
            text = step.send if isinstance(step, model.Send) else step if isinstance(step, str) else ""
            passing = verb_of(text.encode()) != "RCPT"
            found += [] if passing else [text]
        if not passing:
            return found, False
    return found, True


def domains_in(parts: Iterable[str | Provider], choices: Choices) -> set[str] | None:
    """The domains of the path in a command that is made of these parts; None where it cannot be told."""
    states: set[State] = {(_BEFORE, None)}
    for part in parts:
        texts = [part] if isinstance(part, str) else choices(part)
        if texts is None:
            # whatever it is, it holds no @ and ends no path, but it may stand in the midst of a domain
            if any(place == _INSIDE and domain is not None for place, domain in states):
                return None
            continue
        if any('"' in text for text in texts):  # in quotes, an @ or > may mean nothing
            return None
        states = {_read(state, text) for state in states for text in texts}
        if len(states) > _MOST:
            return None
    found = {canonical(domain.encode()) for place, domain in states if place == _BEHIND and domain is not None}
    return {domain for domain in found if domain is not None}


def _read(state: State, text: str) -> State:
    place, domain = state
    if place == _BEFORE:
        _, begins, text = text.partition("<")
        place = _INSIDE if begins else place
    if place == _INSIDE:
        path, ends, _ = text.partition(">")
        _, at, behind = path.rpartition("@")
        domain = behind if at else None if domain is None else domain + path
        if domain is not None and ":" in domain and not domain.startswith("["):
            domain = None  # the end of a source route, `@a,@b:`
        place = _BEHIND if ends else place
    return place, domain
