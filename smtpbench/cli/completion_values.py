"""How an unfinished command line may continue: the values that the shell's completion offers.

A module is imported only for the values that are asked for, because a Tab must not wait: see `cli.declared_options`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Final, NamedTuple

from smtpbench.cli.choices import ARRIVALS, PROGRESS, RESTART, TIMES, WHEN_BUSY
from smtpbench.cli.declared_options import DeclaredOption, declared_options


class CompletionValue(NamedTuple):
    """A word that may stand next.

    Attributes:
        text: The word.
        description: What it means; empty for nothing.
        finished: Whether a space follows; False where more of the word does.
    """

    text: str
    description: str = ""
    finished: bool = True


#: Options of `smtpbench` itself.
OPTIONS: Final = (
    CompletionValue("--help", "Show this message and exit."),
    CompletionValue("--version", "Print the version and exit."),
    CompletionValue("--show-completion", "Print the completion script of a shell."),
    CompletionValue("--install-completion", "Install the completion script of a shell."),
)
SHELLS: Final = ("bash", "zsh", "fish")
_HELP: Final = OPTIONS[0]


def completion_values(
    preceding: Sequence[str], incomplete: str, commands: Mapping[str, str]
) -> list[CompletionValue] | None:
    """Return what an incomplete word may become; None where it names a file.

    Args:
        preceding: Words before it, without `smtpbench`.
        incomplete: The word so far.
        commands: Command → its summary.
    """
    found = _candidates(preceding, incomplete, commands)
    return None if found is None else [value for value in found if value.text.startswith(incomplete)]


def _candidates(preceding: Sequence[str], incomplete: str, commands: Mapping[str, str]) -> Iterable[CompletionValue] | None:
    listed = [CompletionValue(name, summary) for name, summary in commands.items()]
    if preceding[-1:] in (["--show-completion"], ["--install-completion"]):
        return map(CompletionValue, SHELLS)
    command, *rest = [*dropwhile(lambda word: word.startswith("-"), preceding)] or [""]
    if not command:
        if incomplete.startswith("-"):
            return OPTIONS
        return [*listed, CompletionValue("help", "Show the help of a command.")]
    if command == "help":
        return () if rest else listed
    return _of_command(command, rest, incomplete) if command in commands else ()


def _of_command(command: str, rest: Sequence[str], incomplete: str) -> Iterable[CompletionValue] | None:
    parameters = declared_options(command)
    by_name = {name: one for one in parameters for name in one.names}
    given: set[str] = set()
    waiting: DeclaredOption | None = None
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
        return _values(command, waiting, incomplete)
    if incomplete.startswith("--") and "=" in incomplete:
        name, _, value = incomplete.partition("=")
        found = _values(command, by_name[name], value) if name in by_name else ()
        return None if found is None else [one._replace(text=f"{name}={one.text}") for one in found]
    if incomplete.startswith("-") and not only_arguments:
        free = [one for one in parameters if one.repeatable or one.name not in given]
        return [*(CompletionValue(name, one.help) for one in free for name in one.names if name.startswith("--")), _HELP]
    free = [one for one in parameters if not one.names]
    free = free[arguments:] or [one for one in free[-1:] if one.repeatable]
    return _values(command, free[0], incomplete) if free else ()


def _values(command: str, parameter: DeclaredOption, incomplete: str) -> Iterable[CompletionValue] | None:
    if parameter.choices:
        return map(CompletionValue, parameter.choices)
    source = _VALUES.get(f"{command} {parameter.name}") or _VALUES.get(parameter.name)
    if source is not None:
        return source(incomplete)
    return None if parameter.kind == "path" else ()


def _scenarios(incomplete: str) -> Iterable[CompletionValue]:
    from smtpbench.scenario.shipped import shipped_scenarios

    yield from (CompletionValue(name, _description(path)) for name, path in shipped_scenarios().items())
    yield from _files(incomplete, (".yaml", ".yml"))


def _description(path: Path) -> str:
    try:
        found = re.search(r"^about: *(.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1].strip("\"'") if found else ""


def _files(incomplete: str, endings: tuple[str, ...]) -> Iterable[CompletionValue]:
    """Yield files with these endings, and folders, in the folder that the incomplete word names."""
    folder, slash, base = incomplete.rpartition("/")
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


def _rules(incomplete: str) -> Iterable[CompletionValue]:
    from smtpbench.rules.register import RULES

    return [CompletionValue(rule.name, rule.requirement) for rule in RULES]


def _mutants(incomplete: str) -> Iterable[CompletionValue]:
    from smtpbench.sink.mutants import MUTANTS

    return map(CompletionValue, sorted(MUTANTS))


def _metrics(incomplete: str) -> Iterable[CompletionValue]:
    from smtpbench.threshold import METRIC_NAMES

    return map(CompletionValue, METRIC_NAMES)


def _thresholds(incomplete: str) -> Iterable[CompletionValue]:
    return [one._replace(finished=False) for one in _metrics(incomplete)]


def _latency_metrics(incomplete: str) -> Iterable[CompletionValue]:
    return [CompletionValue(one.text.removesuffix(".p50")) for one in _metrics(incomplete) if one.text.endswith(".p50")]


def _verbs(incomplete: str) -> Iterable[CompletionValue]:
    """Return the verbs of the sink's rules, VERB=ACTION."""
    from smtpbench.sink.behaviour import VERBS

    return [CompletionValue(f"{verb}=", finished=False) for verb in VERBS]


def _families(incomplete: str) -> Iterable[CompletionValue]:
    from smtpbench.fuzz.families import FAMILIES

    before, comma, _ = incomplete.rpartition(",")
    listed = before.split(",")
    return [CompletionValue(f"{before}{comma}{name}", text) for name, text in FAMILIES.items() if name not in listed]


def _profiles(incomplete: str) -> Iterable[CompletionValue]:
    from smtpbench.fuzz.profiles import PROFILES

    return [CompletionValue(name, profile.description) for name, profile in PROFILES.items()]


def _targets(incomplete: str) -> Iterable[CompletionValue]:
    from smtpbench.target import SCHEMES

    return [
        CompletionValue(f"{scheme}:///" if scheme == "lmtp+unix" else f"{scheme}://", finished=False) for scheme in SCHEMES
    ]


def _named_targets(incomplete: str) -> Iterable[CompletionValue]:
    """Return the URLs in NAME=URL of `compare`."""
    name, equals, url = incomplete.partition("=")
    urls = _targets(url if equals else incomplete)
    return [one._replace(text=f"{name}={one.text}") for one in urls] if equals else urls


def _ready(incomplete: str) -> Iterable[CompletionValue] | None:
    if incomplete.startswith("file:"):
        return [one._replace(text=f"file:{one.text}") for one in _files(incomplete.removeprefix("file:"), ("",))]
    return (
        CompletionValue("greets", "It greets a connection."),
        CompletionValue("port", "It accepts a connection."),
        CompletionValue("text:", "Its output contains a text.", finished=False),
        CompletionValue("file:", "A file exists.", finished=False),
    )


def _watch(incomplete: str) -> Iterable[CompletionValue]:
    return (
        CompletionValue("pid:", "A process and its descendants.", finished=False),
        CompletionValue("cgroup:", "The processes of a control group.", finished=False),
        CompletionValue("unit:", "The processes of a systemd unit.", finished=False),
        CompletionValue("none", "No process is watched."),
    )


def _any_of(values: Iterable[str]) -> Callable[[str], Iterable[CompletionValue]]:
    return lambda _: map(CompletionValue, values)


#: Parameter → its values; `command parameter` where its name is used with different meanings.
_VALUES: Final[Mapping[str, Callable[[str], Iterable[CompletionValue] | None]]] = {
    "scenario": _scenarios,
    "validate files": _scenarios,
    "check rules": _rules,
    "rules name": _rules,
    "mutant": _mutants,
    "metric": _metrics,
    "threshold": _thresholds,
    "slo": _thresholds,
    "latency_metric": _latency_metrics,
    **{f"sink {name}": _verbs for name in ("on", "delay", "reject", "tempfail", "drop")},
    "only": _families,
    "skip": _families,
    "target": _targets,
    "compare target": _named_targets,
    "progress": _any_of(PROGRESS),
    "arrivals": _any_of(ARRIVALS),
    "when_busy": _any_of(WHEN_BUSY),
    "profile": _profiles,
    "report time": _any_of(TIMES),
    "ready": _ready,
    "restart": _any_of(RESTART),
    "watch": _watch,
}
