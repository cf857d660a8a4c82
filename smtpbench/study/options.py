"""A comparison from the command line, as the document that a comparison file would be read into."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from smtpbench.errors import ScenarioError, UsageError
from smtpbench.scenario.comparison import read_comparison
from smtpbench.scenario.load import find_scenario
from smtpbench.scenario.reader import Document


def document_of(
    source: str, candidate_options: Mapping[str, Sequence[str] | None], settings: Mapping[str, Any], recipient: str
) -> tuple[Document, Path]:
    """Return the document of a comparison and the folder to which its paths are relative.

    Args:
        source: A comparison file, or a scenario.
        candidate_options: `NAME=VALUE` texts of the options target, with, start and stop.
        settings: Keys of a comparison; None for an option that was not given.
        recipient: Recipient of every candidate that has none.

    Raises:
        UsageError: The options contradict each other or the file.
    """
    candidates = _candidates(candidate_options)
    document, folder = _comparison_file(source)
    if document is None:
        document, folder = Document("compare", {"scenario": source}), Path.cwd()
    elif candidates:
        raise UsageError(f"{source} defines its own candidates; omit --target, --with, --start and --stop")
    data = document.data
    if candidates:
        data["candidates"] = candidates
    elif "candidates" not in data:
        raise UsageError("no candidates to compare; use --target A=URL --target B=URL, or a comparison file with candidates")
    if len(candidates) == 1:
        raise UsageError("a comparison needs two candidates; add a second --target B=URL, or use --with for each of two")
    for key, value in settings.items():
        if isinstance(value, dict):
            given = {name: one for name, one in value.items() if one is not None}
            if given:
                data[key] = {**(data.get(key) or {}), **given}
        elif value is not None and value != []:
            data[key] = value
    for entry in data["candidates"].values() if recipient and isinstance(data["candidates"], dict) else ():
        if isinstance(entry, dict):
            entry.setdefault("recipient", recipient)
    return document, folder


def _comparison_file(source: str) -> tuple[Document | None, Path]:
    """Return the comparison file, or None if it is a scenario, and its folder."""
    path = find_scenario(source)
    try:
        document = read_comparison(path)
    except ScenarioError:
        return None, path.parent  # reading it as a scenario reports what is wrong
    is_comparison = isinstance(document.data, dict) and "candidates" in document.data
    return (document if is_comparison else None), path.resolve().parent


def _candidates(candidate_options: Mapping[str, Sequence[str] | None]) -> dict[str, dict[str, Any]]:
    targets = list(candidate_options["target"] or ())
    found: dict[str, dict[str, Any]] = {}
    shared = ""
    if len(targets) == 1 and _name_part(targets[0]) is None:
        shared, targets = targets[0], []
    for text in targets:
        name, url = _pair(text, "target", "smtp://127.0.0.1:25")
        if name in found:
            raise UsageError(f"--target: the name {name!r} is used twice")
        found[name] = {"target": url}
    for key in ("with", "start", "stop"):
        for text in candidate_options[key] or ():
            name, value = _pair(text, key, "'-c 10'" if key == "with" else "COMMAND")
            if name not in found and shared:
                found[name] = {"target": shared}
            if name not in found:
                raise UsageError(f"--{key} {name}=…: unknown candidate {name!r}; add --target {name}=URL")
            found[name] |= _run_options(value) if key == "with" else {key: value}
    if shared and not found:
        raise UsageError(f"--target {shared}: one target needs two sets of options, like --with A='-c 10' --with B='-c 100'")
    return found


def _name_part(text: str) -> str | None:
    """Return the NAME of `NAME=VALUE`; None for a URL, which may contain `=` too."""
    name, equals, _ = text.partition("=")
    return name if equals and "/" not in name and ":" not in name else None


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name = _name_part(text)
    if not name:
        raise UsageError(f"--{option} {text!r} has no name; use --{option} NAME=VALUE, like --{option} A={example}")
    return name, text.partition("=")[2]


class _RunOptionParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(
            f"--with: {message}; allowed are options of `run` about the load, like -c, -n, -d, -r, --size, --workers"
        )


def _run_options(text: str) -> dict[str, Any]:
    """Return options of `run` as keys of a candidate: `-c 10 --size 64KiB` → load and size."""
    parser = _RunOptionParser(add_help=False, allow_abbrev=False)
    for name, short in (("connections", "-c"), ("messages", "-n"), ("duration", "-d"), ("rate", "-r")):
        parser.add_argument(f"--{name}", short)
    for name in ("arrivals", "when-busy", "warmup", "drain", "timeout", "workers", "size"):
        parser.add_argument(f"--{name}")
    try:
        given = vars(parser.parse_args(shlex.split(text)))
    except ValueError as error:
        raise UsageError(f"--with {text!r}: {error}") from None
    load = {name.replace("_", "-"): _number(value) for name, value in given.items() if value is not None}
    size = load.pop("size", None)
    return {"load": load, **({} if size is None else {"size": size})}


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
