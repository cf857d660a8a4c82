"""Recipient domains that the arrivals of a scenario may have, as far as they are known without drawing values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from smtpbench.scenario.load import ScenarioFile
from smtpbench.scenario.steps import Choose, Pipeline, Raw, Repeat, ScenarioStep, Send
from smtpbench.scenario.values import Provider, Values
from smtpbench.smtp.command import verb_of
from smtpbench.smtp.domain import canonical

#: Largest number of alternatives for a command that is followed.
_MAX_STATES = 100_000
#: Position in a command: before its path, in its path, or after it.
_BEFORE_PATH, _IN_PATH, _AFTER_PATH = 0, 1, 2

#: Position, and the text after the last @ of the path so far; None if there was none.
PathState = tuple[int, str | None]
Choices = Callable[[Provider], Sequence[str] | None]


def possible_domains(file: ScenarioFile, run_id: str) -> frozenset[str] | None:
    """Return the domains that the first recipient of an arrival can have; None if they are not known.

    The domains are spelled as `smtp.domain.canonical` does. The scenario must have been compiled without a mistake.
    """
    session = file.scenario.session
    iterations = [step for step in session if isinstance(step, Repeat)]
    firsts, _ = _first_recipients(iterations or session)
    values = Values(file.scenario.values, file.document, file.files, 0, run_id)
    found: set[str] = set()
    for text in firsts:
        parts = None if text is None else values.template(text, ("session",))
        domains = None if parts is None else domains_in(parts, values.choices)
        if domains is None:
            return None
        found |= domains
    return frozenset(found)


def _first_recipients(steps: Iterable[ScenarioStep | Send]) -> tuple[list[str | None], bool]:
    """Return the RCPT commands that may come first in these steps, and whether there may be none.

    None stands for octets that may contain one.
    """
    found: list[str | None] = []
    for step in steps:
        if isinstance(step, Choose):
            alternatives = [_first_recipients(branch.steps) for branch in step.choose if branch.weight]
            may_have_none = any(none for _, none in alternatives)
            for firsts, _ in alternatives:
                found += firsts
        elif isinstance(step, Repeat | Pipeline):
            firsts, may_have_none = _first_recipients(step.steps if isinstance(step, Repeat) else step.pipeline)
            found += firsts
        elif isinstance(step, Raw):
            may_have_none = "RCPT" not in step.raw.upper()
            found += [] if may_have_none else [None]
        else:
            text = step.send if isinstance(step, Send) else step if isinstance(step, str) else ""
            may_have_none = verb_of(text.encode()) != "RCPT"
            found += [] if may_have_none else [text]
        if not may_have_none:
            return found, False
    return found, True


def domains_in(parts: Iterable[str | Provider], choices: Choices) -> set[str] | None:
    """Return the domains that the path of a command can have; None if they are not known.

    Args:
        parts: Parts of the command, as `Values.template` returns them.
        choices: Function that returns the values that a provider may give; None if they are not a list.
    """
    states: set[PathState] = {(_BEFORE_PATH, None)}
    for part in parts:
        texts = [part] if isinstance(part, str) else choices(part)
        if texts is None:
            # the value has no @ and no >, but may be a part of a domain
            if any(position == _IN_PATH and domain is not None for position, domain in states):
                return None
            continue
        if any('"' in text for text in texts):  # inside quotes, @ and > have no meaning
            return None
        states = {_advance(state, text) for state in states for text in texts}
        if len(states) > _MAX_STATES:
            return None
    found = {canonical(domain.encode()) for position, domain in states if position == _AFTER_PATH and domain is not None}
    return {domain for domain in found if domain is not None}


def _advance(state: PathState, text: str) -> PathState:
    """Return the state after more text of a command."""
    position, domain = state
    if position == _BEFORE_PATH:
        _, bracket, text = text.partition("<")
        position = _IN_PATH if bracket else position
    if position == _IN_PATH:
        path, bracket, _ = text.partition(">")
        _, at, after_at = path.rpartition("@")
        domain = after_at if at else None if domain is None else domain + path
        if domain is not None and ":" in domain and not domain.startswith("["):
            domain = None  # end of a source route, `@a,@b:`
        position = _AFTER_PATH if bracket else position
    return position, domain
