"""Loading of scenario and fixture files: validation against the models, with line and column of every mistake."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from smtpbench.errors import ScenarioError, UsageError
from smtpbench.scenario.content import VALUE_KEYS, Csv, Lines, Message, Numbers, Pick, Random
from smtpbench.scenario.file_access import FileAccess, OutsideFolder
from smtpbench.scenario.model import FindingMetadata, FixtureFile, GrowthMetadata, Load, LoadStage, Scenario
from smtpbench.scenario.reader import MAX_FINDING_BYTES, Document, parse, read_text
from smtpbench.scenario.shipped import shipped_scenarios
from smtpbench.scenario.steps import COMMAND_LINE, STEP_KEYS, Auth, Bdat, Branch, Pause, Pipeline, Raw, Repeat, Send
from smtpbench.text import did_you_mean, plural

_EXPECTED_TYPES = {
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_type": "a number is expected",
    "string_type": "text is expected; put the value in quotes to make it text",
    "list_type": "a list is expected",
    "dict_type": "a mapping of keys to values is expected",
    "model_type": "a mapping of keys to values is expected",
    "model_attributes_type": "a mapping of keys to values is expected",
}
_MODEL_BY_KEY: dict[str, type[BaseModel]] = {
    "message": Message, "load": Load, "stages": LoadStage, "repeat": Repeat, "send": Send,
    "raw": Raw, "pipeline": Pipeline, "pause": Pause, "choose": Branch, "bdat": Bdat,
    "auth": Auth, "finding": FindingMetadata, "growth": GrowthMetadata,
    "csv": Csv, "lines": Lines, "pick": Pick, "range": Numbers, "random": Random,
}  # fmt: skip


@dataclass(frozen=True)
class ScenarioFile:
    """A scenario and the file that it was loaded from.

    Attributes:
        path: Path of the file.
        text: Its text.
        scenario: The validated scenario.
        document: The document, with the position of every part.
        allow_files: Whether it may name files outside its folder.
    """

    path: Path
    text: str
    scenario: Scenario
    document: Document
    allow_files: bool = False

    @property
    def name(self) -> str:
        """Name of the scenario; without one, the name of the file."""
        return self.scenario.name or self.path.stem

    @property
    def files(self) -> FileAccess:
        """The files that it may name."""
        return FileAccess(self.path.resolve().parent, self.allow_files)

    def to_data(self) -> dict[str, str]:
        """Return the key `scenario` of a result."""
        sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        return {"name": self.name, "file": str(self.path), "sha256": sha256, "text": self.text}


def find_scenario(name: str) -> Path:
    """Return the path of a scenario, given by a path or by the name of a shipped scenario. Raises UsageError."""
    path = Path(name)
    if path.exists() or "/" in name or path.suffix:
        return path
    shipped = shipped_scenarios()
    if name in shipped:
        return shipped[name]
    hint = (
        did_you_mean(name, shipped)
        or f"; shipped scenarios: {', '.join(shipped)}; use a path for a file, like ./{name}.yaml"
    )
    raise UsageError(f"unknown scenario {name!r}{hint}")


def load_scenario(path: Path, *, allow_files: bool = False) -> ScenarioFile:
    """Load a scenario file. Raises ScenarioError with every mistake in it.

    Args:
        path: The file.
        allow_files: Whether it may name files outside its folder.
    """
    return load_text(read_text(path), path, allow_files=allow_files)


def load_finding(path: Path, *, allow_files: bool = False) -> ScenarioFile:
    """Load the file of a finding, which may be larger than other scenarios; see `load_scenario`."""
    return load_text(read_text(path, MAX_FINDING_BYTES), path, allow_files=allow_files)


def load_text(text: str, path: Path, *, allow_files: bool = False) -> ScenarioFile:
    """Load a scenario from its text.

    Args:
        text: The text of the file.
        path: Path to which file names in it are relative; error texts contain it.
        allow_files: Whether it may name files outside its folder.

    Raises:
        ScenarioError: The text has mistakes; the error holds all of them.
    """
    document = parse(text, str(path))
    return ScenarioFile(
        path,
        text,
        validate_document(document, Scenario, "a scenario needs at least the key `session`"),
        document,
        allow_files,
    )


def load_fixture(path: Path, *, allow_files: bool = False) -> FixtureFile:
    """Load a fixture file and make its paths absolute. Raises ScenarioError with every mistake in it.

    Args:
        path: The file.
        allow_files: Whether it may name files outside its folder.
    """
    document = parse(read_text(path), str(path))
    fixture = validate_document(document, FixtureFile, "a fixture file has keys like `recipient`")
    folder = path.resolve().parent
    check_files(document, {(): fixture}, FileAccess(folder, allow_files))
    return fixture.with_absolute_paths(folder)


def check_files(document: Document, fixtures: Mapping[tuple[str, ...], FixtureFile], files: FileAccess) -> None:
    """Raise ScenarioError for files that fixtures name and must not.

    Args:
        document: The document that they are from.
        fixtures: Path in the document → fixture.
        files: The files that they may name.
    """
    for path, fixture in fixtures.items():
        for key, name in (("password-file", fixture.password_file), ("ca", fixture.ca)):
            try:
                files.path(name or "")
            except OutsideFolder as error:
                document.problem((*path, key), str(error))
    if document.problems:
        raise ScenarioError(document.problems)


ModelT = TypeVar("ModelT", bound=BaseModel)


def validate_document(
    document: Document, model: type[ModelT], expected_keys: str, model_by_key: Mapping[str, type[BaseModel]] = _MODEL_BY_KEY
) -> ModelT:
    """Return the content of a document as a model.

    Args:
        document: The document.
        model: Model of the whole document.
        expected_keys: What the error text for a document that is not a mapping adds, like `a scenario has the key session`.
        model_by_key: Models below certain keys, for the error texts about unknown keys.

    Raises:
        ScenarioError: The document has mistakes; the error holds all of them.
    """
    found = None
    if not isinstance(document.data, dict):
        document.problem((), f"the document is not a mapping; {expected_keys}")
    else:
        try:
            found = model.model_validate(document.data)
        except ValidationError as error:
            for mistake in error.errors(include_url=False):
                _add_problem(document, mistake, model, model_by_key)
    if document.problems or found is None:
        raise ScenarioError(sorted(set(document.problems), key=lambda problem: (problem.line, problem.column)))
    return found


def _add_problem(
    document: Document, mistake: Any, model: type[BaseModel], model_by_key: Mapping[str, type[BaseModel]]
) -> None:
    """Add an error of pydantic to the problems of a document, with a text for users and its position."""
    kind, context = mistake["type"], mistake.get("ctx", {})
    path, names = _document_path(document.data, mistake["loc"])
    at_key = False
    if kind == "missing":
        text = f"the key {mistake['loc'][-1]!r} is missing"
    elif kind == "extra_forbidden":
        text, at_key = _unknown_key(str(mistake["loc"][-1]), names, model, model_by_key), True
    elif kind.startswith("union_tag"):
        text = _unknown_form(_value_at(document.data, path), path)
    elif kind == "literal_error":
        text = f"unknown value {mistake['input']!r}; allowed: {context['expected']}"
    elif kind == "greater_than_equal":
        text = f"{mistake['input']} is too small; it must be at least {context['ge']}"
    elif kind == "less_than_equal":
        text = f"{mistake['input']} is too large; it must be at most {context['le']}"
    elif kind == "too_short":
        text = f"the list is too short; it needs at least {plural(context['min_length'], 'entry')}"
    elif kind in ("string_too_short", "string_too_long"):
        text = "this text is empty or too long; its limit is in `smtpbench schema`"
    else:
        text = (
            context.get("text") or _EXPECTED_TYPES.get(kind) or f"this value is not allowed here ({kind.replace('_', ' ')})"
        )
    document.problem(path, text, key=at_key)


def _document_path(data: Any, loc: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[str]]:
    """Return the path in the document for a location of pydantic, which also contains the kinds of steps and values.

    The second value lists the keys and kinds on the way; the last of them shows what kind of mapping the location is in.
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


def _value_at(data: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        data = data[part]
    return data


def _unknown_key(key: str, names: list[str], model: type[BaseModel], model_by_key: Mapping[str, type[BaseModel]]) -> str:
    kinds = [name for name in names if name in model_by_key and name != key]
    mapping = model_by_key[kinds[-1]] if kinds else model
    allowed = [field.alias or name for name, field in mapping.model_fields.items()]
    close = difflib.get_close_matches(key, allowed, 1)
    hint = f"did you mean {close[0]!r}? allowed" if close else "allowed"
    return f"unknown key {key!r}; {hint}: {', '.join(allowed)}"


def _unknown_form(value: Any, path: tuple[Any, ...]) -> str:
    if path and path[0] == "values":
        return f"unknown kind of value; use text, or a mapping with one of the keys {', '.join(VALUE_KEYS)}"
    if isinstance(value, dict):
        command = next((key for key in value if COMMAND_LINE.fullmatch(key)), None)
        if command:
            return f"YAML reads this command as a mapping; put it in quotes, like {command + ': …'!r}"
    return f"unknown kind of step; use a command, an action, or a mapping with one of the keys {', '.join(STEP_KEYS)}"
