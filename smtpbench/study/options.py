"""A comparison from the command line: what a file would say, with the options' words in its places."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from smtpbench.errors import ScenarioError, UsageError
from smtpbench.scenario.comparison import read
from smtpbench.scenario.load import find_scenario
from smtpbench.scenario.reader import Document


def document_of(
    what: str, sides: Mapping[str, Sequence[str] | None], told: Mapping[str, Any], recipient: str
) -> tuple[Document, Path]:
    """The document of a comparison, and the folder that it is relative to. Raises UsageError.

    what: a comparison file, or a scenario. sides: `NAME=VALUE` texts of --target, --with, --start and --stop. told: keys of
    a comparison, None where an option was not given. recipient: of every candidate that has none.
    """
    candidates = _candidates(sides)
    document, folder = _file(what)
    if document is None:
        document, folder = Document("compare", {"scenario": what}), Path.cwd()
    elif candidates:
        raise UsageError(f"{what} has candidates of its own; leave --target, --with, --start and --stop out")
    data = document.data
    if candidates:
        data["candidates"] = candidates
    elif "candidates" not in data:
        raise UsageError("who is compared? Say --target A=URL --target B=URL, or name a comparison file with candidates")
    if len(candidates) == 1:
        raise UsageError("one candidate cannot be compared; give a second --target B=URL, or --with for each of two")
    for key, value in told.items():
        if isinstance(value, dict):
            said = {name: one for name, one in value.items() if one is not None}
            if said:
                data[key] = {**(data.get(key) or {}), **said}
        elif value is not None and value != []:
            data[key] = value
    for entry in data["candidates"].values() if recipient and isinstance(data["candidates"], dict) else ():
        if isinstance(entry, dict):
            entry.setdefault("recipient", recipient)
    return document, folder


def _file(what: str) -> tuple[Document | None, Path]:
    """The comparison file that is named, if it is one."""
    path = find_scenario(what)
    try:
        document = read(path)
    except ScenarioError:
        return None, path.parent  # whoever reads it as a scenario says what is wrong
    is_one = isinstance(document.data, dict) and "candidates" in document.data
    return (document if is_one else None), path.resolve().parent


def _candidates(sides: Mapping[str, Sequence[str] | None]) -> dict[str, dict[str, Any]]:
    targets = list(sides["target"] or ())
    found: dict[str, dict[str, Any]] = {}
    shared = ""
    if len(targets) == 1 and _named(targets[0]) is None:
        shared, targets = targets[0], []
    for text in targets:
        name, url = _pair(text, "target", "smtp://127.0.0.1:25")
        if name in found:
            raise UsageError(f"--target: the name {name!r} stands there twice")
        found[name] = {"target": url}
    for key in ("with", "start", "stop"):
        for text in sides[key] or ():
            name, value = _pair(text, key, "'-c 10'" if key == "with" else "COMMAND")
            if name not in found and shared:
                found[name] = {"target": shared}
            if name not in found:
                raise UsageError(f"--{key} {name}=…: there is no candidate {name!r}; name it with --target {name}=URL")
            found[name] |= _options(value) if key == "with" else {key: value}
    if shared and not found:
        raise UsageError(f"--target {shared}: with one target say what differs, --with A='-c 10' --with B='-c 100'")
    return found


def _named(text: str) -> str | None:
    """The NAME of `NAME=VALUE`; an URL may hold `=` too."""
    name, equals, _ = text.partition("=")
    return name if equals and "/" not in name and ":" not in name else None


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name = _named(text)
    if not name:
        raise UsageError(f"--{option} {text!r}: write NAME=VALUE, like --{option} A={example}")
    return name, text.partition("=")[2]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"--with: {message}; it takes options of `run`: -c, -n, -d, -r, --size, --workers and so on")


def _options(text: str) -> dict[str, Any]:
    """`-c 10 --size 64KiB` → what a candidate of a file would say."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name, short in (("connections", "-c"), ("messages", "-n"), ("duration", "-d"), ("rate", "-r")):
        parser.add_argument(f"--{name}", short)
    for name in ("arrivals", "when-busy", "warmup", "drain", "timeout", "workers", "size"):
        parser.add_argument(f"--{name}")
    try:
        given = vars(parser.parse_args(shlex.split(text)))
    except ValueError as error:
        raise UsageError(f"--with {text!r}: {error}") from None
    said = {name.replace("_", "-"): _number(value) for name, value in given.items() if value is not None}
    size = said.pop("size", None)
    return {"load": said, **({} if size is None else {"size": size})}


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
