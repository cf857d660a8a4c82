"""From a file to a checked scenario, with every mistake at its line and column."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from smtpbench.errors import ScenarioError, UsageError
from smtpbench.scenario import model
from smtpbench.scenario.model import COMMAND_LINE, STEP_KEYS, VALUE_KEYS, FixtureFile, Scenario
from smtpbench.scenario.reader import Document, parse, read_text
from smtpbench.scenario.shipped import shipped_scenarios
from smtpbench.text import did_you_mean

_WANTED = {
    "int_type": "a whole number is wanted",
    "int_from_float": "a whole number is wanted",
    "float_type": "a number is wanted",
    "string_type": "text is wanted; put it in quotes if it is meant as text",
    "list_type": "a list is wanted",
    "dict_type": "a mapping of keys to values is wanted",
    "model_type": "a mapping of keys to values is wanted",
    "model_attributes_type": "a mapping of keys to values is wanted",
}
_MODELS: dict[str, type[BaseModel]] = {
    "message": model.Message, "load": model.Load, "stages": model.LoadStage, "repeat": model.Repeat, "send": model.Send,
    "raw": model.Raw, "pipeline": model.Pipeline, "pause": model.Pause, "choose": model.Branch, "bdat": model.Bdat,
    "auth": model.Auth, "finding": model.FindingMetadata,
    "csv": model.Csv, "lines": model.Lines, "pick": model.Pick, "range": model.Numbers, "random": model.Random,
}  # fmt: skip


@dataclass(frozen=True)
class ScenarioFile:
    """A scenario, the file it stands in and its text."""

    path: Path
    text: str
    scenario: Scenario
    document: Document

    @property
    def name(self) -> str:
        """Its name, by default the file's."""
        return self.scenario.name or self.path.stem

    def to_data(self) -> dict[str, str]:
        """`scenario` of a result."""
        sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        return {"name": self.name, "file": str(self.path), "sha256": sha256, "text": self.text}


def find_scenario(wanted: str) -> Path:
    """A path to a file, or the bare name of a scenario that is shipped. Raises UsageError."""
    path = Path(wanted)
    if path.exists() or "/" in wanted or path.suffix:
        return path
    shipped = shipped_scenarios()
    if wanted in shipped:
        return shipped[wanted]
    hint = did_you_mean(wanted, shipped) or f"; shipped are {', '.join(shipped)}"
    raise UsageError(f"there is no scenario {wanted!r}{hint}; a file is named by its path".replace("?;", "?"))


def load_scenario(path: Path) -> ScenarioFile:
    """Read and check a scenario file. Raises ScenarioError with every mistake in it."""
    return load_text(read_text(path), path)


def load_text(text: str, path: Path) -> ScenarioFile:
    """The same from text; path is where relative file names begin, and what messages call it."""
    document = parse(text, str(path))
    return ScenarioFile(
        path, text, checked(document, Scenario, "a scenario is a mapping with at least the key `session`"), document
    )


def load_fixture(path: Path) -> FixtureFile:
    """Read what a file says of a target, its paths made absolute. Raises ScenarioError with every mistake in it."""
    document = parse(read_text(path), str(path))
    return checked(document, FixtureFile, "a fixture is a mapping with keys like `recipient`").beside(path.resolve().parent)


M = TypeVar("M", bound=BaseModel)


def checked(document: Document, whole: type[M], default: str, parts: Mapping[str, type[BaseModel]] = _MODELS) -> M:
    """What a document says, as a model. Raises ScenarioError with every mistake in it.

    otherwise: said of a document that is no mapping. parts: the models below certain keys, for what is said of unknown ones.
    """
    found = None
    if not isinstance(document.data, dict):
        document.problem((), default)
    else:
        try:
            found = whole.model_validate(document.data)
        except ValidationError as error:
            for mistake in error.errors(include_url=False):
                _explain(document, mistake, whole, parts)
    if document.problems or found is None:
        raise ScenarioError(sorted(set(document.problems), key=lambda problem: (problem.line, problem.column)))
    return found


def _explain(document: Document, mistake: Any, whole: type[BaseModel], parts: Mapping[str, type[BaseModel]]) -> None:
    """One of pydantic's findings in our words, at its place."""
    kind, context = mistake["type"], mistake.get("ctx", {})
    path, names = _path(document.data, mistake["loc"])
    key = False
    if kind == "missing":
        text = f"the key `{mistake['loc'][-1]}` is missing here"
    elif kind == "extra_forbidden":
        text, key = _unknown_key(str(mistake["loc"][-1]), names, whole, parts), True
    elif kind.startswith("union_tag"):
        text = _unknown_form(_at(document.data, path), path)
    elif kind == "literal_error":
        text = f"{mistake['input']!r} is not known here; allowed are {context['expected']}"
    elif kind == "greater_than_equal":
        text = f"{mistake['input']} is too small; at least {context['ge']}"
    elif kind == "less_than_equal":
        text = f"{mistake['input']} is too large; at most {context['le']}"
    elif kind == "too_short":
        text = f"the list is too short; at least {context['min_length']}"
    elif kind in ("string_too_short", "string_too_long"):
        text = "this text is empty, or longer than it may be"
    else:
        text = context.get("what") or _WANTED.get(kind) or f"is not allowed here ({kind.replace('_', ' ')})"
    document.problem(path, text, key=key)


def _path(data: Any, loc: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[str]]:
    """The path in the document of pydantic's location, which names the kind of each step and value in between.

    Also the words passed on the way, the last of which says what kind of mapping this is.
    """
    path: list[Any] = []
    names: list[str] = []
    tag_next = False
    for part in loc:
        if tag_next and isinstance(part, str):
            names.append(part)
            tag_next = False
        elif (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data = data[part]
            tag_next = (isinstance(part, int) and path[-1] in ("session", "steps", "pipeline")) or path == ["values"]
            path.append(part)
            if isinstance(part, str):
                names.append(part)
    return tuple(path), names


def _at(data: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        data = data[part]
    return data


def _unknown_key(key: str, names: list[str], whole: type[BaseModel], parts: Mapping[str, type[BaseModel]]) -> str:
    kinds = [name for name in names if name in parts and name != key]
    found = parts[kinds[-1]] if kinds else whole
    allowed = [field.alias or name for name, field in found.model_fields.items()]
    close = difflib.get_close_matches(key, allowed, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"the key {key!r} is not known here; {hint}Allowed are {', '.join(allowed)}"


def _unknown_form(value: Any, path: tuple[Any, ...]) -> str:
    if path and path[0] == "values":
        return f"a value is text, or a mapping with one of the keys {', '.join(VALUE_KEYS)}"
    if isinstance(value, dict):
        command = next((key for key in value if COMMAND_LINE.fullmatch(key)), None)
        if command:
            return f"YAML reads this line as a mapping; put it in quotes: {command + ': …'!r}"
    return f"a step is a command, an action, or a mapping with one of the keys {', '.join(STEP_KEYS)}"
