"""How a command line that has been begun may go on: what the shell's completion offers.

Nothing is imported but for the names that are asked for: see `cli.declared`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Final, NamedTuple

from smtpbench.cli.choices import ARRIVALS, PROFILES, PROGRESS, TIMES, WHEN_BUSY
from smtpbench.cli.declared_options import Declared, declared


class CompletionValue(NamedTuple):
    """A word that may stand next. finished: a space comes after it; else more of the word does."""

    text: str
    about: str = ""
    finished: bool = True


#: Options of `smtpbench` itself.
OPTIONS: Final = (
    CompletionValue("--help", "Show this message and exit."),
    CompletionValue("--version", "Say the version."),
    CompletionValue("--show-completion", "Print the completion for a shell."),
    CompletionValue("--install-completion", "Install the completion for a shell."),
)
SHELLS: Final = ("bash", "zsh", "fish")
_HELP: Final = OPTIONS[0]


def completion_values(before: Sequence[str], begun: str, commands: Mapping[str, str]) -> list[CompletionValue] | None:
    """What the word `begun` may become, after the words `before`; None where it names a file.

    before: without `smtpbench` itself. commands: name → what it does.
    """
    found = _candidates(before, begun, commands)
    return None if found is None else [word for word in found if word.text.startswith(begun)]


def _candidates(before: Sequence[str], begun: str, commands: Mapping[str, str]) -> Iterable[CompletionValue] | None:
    listed = [CompletionValue(name, about) for name, about in commands.items()]
    if before[-1:] in (["--show-completion"], ["--install-completion"]):
        return map(CompletionValue, SHELLS)
    command, *rest = [*dropwhile(lambda word: word.startswith("-"), before)] or [""]
    if not command:
        return OPTIONS if begun.startswith("-") else [*listed, CompletionValue("help", "Show the help of a command.")]
    if command == "help":
        return () if rest else listed
    return _of_command(command, rest, begun) if command in commands else ()


def _of_command(command: str, rest: Sequence[str], begun: str) -> Iterable[CompletionValue] | None:
    parameters = declared(command)
    by_name = {name: one for one in parameters for name in one.names}
    given: set[str] = set()
    waiting: Declared | None = None
    arguments, only_arguments = 0, False
    for word in rest:
        if waiting is not None:
            waiting = None
        elif only_arguments or not word.startswith("-") or word == "-":
            arguments += 1
        elif word == "--":
            only_arguments = True
        else:
            name, equals, _ = word.partition("=")
            option = by_name.get(name)
            if option is not None:
                given.add(option.name)
                waiting = option if option.kind != "flag" and not equals else None
    if waiting is not None:
        return _values(command, waiting, begun)
    if begun.startswith("--") and "=" in begun:
        name, _, value = begun.partition("=")
        found = _values(command, by_name[name], value) if name in by_name else ()
        return None if found is None else [word._replace(text=f"{name}={word.text}") for word in found]
    if begun.startswith("-") and not only_arguments:
        free = [one for one in parameters if one.repeated or one.name not in given]
        return [*(CompletionValue(name, one.help) for one in free for name in one.names if name.startswith("--")), _HELP]
    free = [one for one in parameters if not one.names]
    free = free[arguments:] or [one for one in free[-1:] if one.repeated]
    return _values(command, free[0], begun) if free else ()


def _values(command: str, parameter: Declared, begun: str) -> Iterable[CompletionValue] | None:
    if parameter.choices:
        return map(CompletionValue, parameter.choices)
    source = _VALUES.get(f"{command} {parameter.name}") or _VALUES.get(parameter.name)
    if source is not None:
        return source(begun)
    return None if parameter.kind == "path" else ()


def _scenarios(begun: str) -> Iterable[CompletionValue]:
    from smtpbench.scenario.shipped import shipped_scenarios

    yield from (CompletionValue(name, _about(path)) for name, path in shipped_scenarios().items())
    yield from _files(begun, (".yaml", ".yml"))


def _about(path: Path) -> str:
    try:
        found = re.search(r"^about: *(.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1].strip("\"'") if found else ""


def _files(begun: str, endings: tuple[str, ...]) -> Iterable[CompletionValue]:
    """Files with these endings, and folders, as far as `begun` names them."""
    folder, slash, base = begun.rpartition("/")
    try:
        entries = sorted(os.scandir(os.path.expanduser(f"{folder}{slash}") or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") and not base.startswith("."):
            continue
        if entry.is_dir():
            yield CompletionValue(f"{folder}{slash}{entry.name}/", finished=False)
        elif entry.name.endswith(endings):
            yield CompletionValue(f"{folder}{slash}{entry.name}")


def _rules(begun: str) -> Iterable[CompletionValue]:
    from smtpbench.rules.register import RULES

    return [CompletionValue(rule.name, rule.requirement) for rule in RULES]


def _mutants(begun: str) -> Iterable[CompletionValue]:
    from smtpbench.sink.mutants import MUTANTS

    return map(CompletionValue, sorted(MUTANTS))


def _metrics(begun: str) -> Iterable[CompletionValue]:
    from smtpbench.threshold import METRIC_NAMES

    return map(CompletionValue, METRIC_NAMES)


def _thresholds(begun: str) -> Iterable[CompletionValue]:
    return [word._replace(finished=False) for word in _metrics(begun)]


def _slots(begun: str) -> Iterable[CompletionValue]:
    return [CompletionValue(word.text.removesuffix(".p50")) for word in _metrics(begun) if word.text.endswith(".p50")]


def _verbs(begun: str) -> Iterable[CompletionValue]:
    """Of the sink's rules: VERB=ACTION."""
    from smtpbench.sink.behaviour import VERBS

    return [CompletionValue(f"{verb}=", finished=False) for verb in VERBS]


def _families(begun: str) -> Iterable[CompletionValue]:
    from smtpbench.fuzz.mutation import FAMILIES

    before, comma, _ = begun.rpartition(",")
    return [CompletionValue(f"{before}{comma}{name}") for name in FAMILIES if name not in before.split(",")]


def _targets(begun: str) -> Iterable[CompletionValue]:
    from smtpbench.target import SCHEMES

    return [
        CompletionValue(f"{scheme}:///" if scheme == "lmtp+unix" else f"{scheme}://", finished=False) for scheme in SCHEMES
    ]


def _named_targets(begun: str) -> Iterable[CompletionValue]:
    """Of `compare`: NAME=URL."""
    name, equals, url = begun.partition("=")
    urls = _targets(url if equals else begun)
    return [word._replace(text=f"{name}={word.text}") for word in urls] if equals else urls


def _any_of(words: Iterable[str]) -> Callable[[str], Iterable[CompletionValue]]:
    return lambda _: map(CompletionValue, words)


#: Parameter → its values; `command parameter` where the name alone would not tell.
_VALUES: Final[Mapping[str, Callable[[str], Iterable[CompletionValue] | None]]] = {
    "scenario": _scenarios,
    "compare what": _scenarios,
    "validate files": _scenarios,
    "check rules": _rules,
    "rules name": _rules,
    "mutant": _mutants,
    "metric": _metrics,
    "threshold": _thresholds,
    "slo": _thresholds,
    "slot": _slots,
    **{f"sink {name}": _verbs for name in ("on", "delay", "reject", "tempfail", "drop")},
    "only": _families,
    "skip": _families,
    "target": _targets,
    "compare target": _named_targets,
    "progress": _any_of(PROGRESS),
    "arrivals": _any_of(ARRIVALS),
    "when_busy": _any_of(WHEN_BUSY),
    "profile": _any_of(PROFILES),
    "report time": _any_of(TIMES),
}
