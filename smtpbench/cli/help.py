"""How a command's help is laid out: its usage line, one style for every option and argument, and tables after them.

Typer shows the Python type of a value (`<str>`) and a range as an inequality (`x>=1`). Here a value has the placeholder
that its declaration names, such as `DURATION`, and all remarks stand in one bracket in one order:

    -c, --connections COUNT   Connections open at the same time.  [default: 10; at least 1]

A default that is not the parameter's own stands at the end of its help text, after two spaces: `…  [default: 5s]`. Bounds of
a value that typer reads as text stand there too: `…  [0.5%..100%]`. Options with a `rich_help_panel` stand in a table of
that name, after the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from typer.core import TyperCommand

_REMARKS = re.compile(r"\s+\[([^\[\]]+)\]$")
_DEFAULT = "default: "


class HelpEntry(NamedTuple):
    """An option or an argument as the help shows it.

    Attributes:
        names: `-t`, `--target`; the placeholder of an argument.
        placeholder: What its value is, such as `URL`; empty for a flag and for an argument.
        text: What it means.
        default: What applies when it is not given; empty for nothing.
        bounds: Which values are allowed, such as `1..256` or `at least 1`; empty for any.
        repeatable: Whether it may be given more than once.
        required: Whether it must be given.
    """

    names: tuple[str, ...]
    placeholder: str
    text: str
    default: str
    bounds: str
    repeatable: bool
    required: bool

    @property
    def heading(self) -> str:
        """The left column: `-t, --target URL`."""
        names = (" / " if any(name.startswith("--no-") for name in self.names) else ", ").join(self.names)
        return f"{names} {self.placeholder}".rstrip()

    @property
    def description(self) -> str:
        """The right column: the text, and the remarks in brackets."""
        remarks = [
            _DEFAULT + self.default if self.default else "",
            self.bounds,
            "repeatable" if self.repeatable and self.placeholder else "",
            "required" if self.required else "",
        ]
        shown = "; ".join(filter(None, remarks))
        return f"{self.text}  [{shown}]" if shown else self.text


class HelpSection(NamedTuple):
    """A table after the options.

    Attributes:
        title: Its heading, without the colon.
        entries: Name and meaning of each entry.
    """

    title: str
    entries: Sequence[tuple[str, str]]


class Command(TyperCommand):
    """A command with this help, which is named in each of its usage errors.

    Attributes:
        sections: Tables after the options.
    """

    sections: Sequence[HelpSection] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; an error knows the command that it belongs to."""
        from typer import TyperException

        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            if getattr(error, "ctx", None) is None:
                vars(error)["ctx"] = ctx
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line: `[OPTIONS]`, `SCENARIO`, `[RULE...]`."""
        names = [entry_of(one).names[0] if one.required else f"[{entry_of(one).names[0]}]" for one in _arguments(self)]
        return [str(self.options_metavar), *names]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options and the sections after them."""
        shown = [one for one in self.get_params(ctx) if not getattr(one, "hidden", False)]
        arguments = [entry_of(one) for one in shown if one.param_type_name == "argument"]
        options: dict[str, list[HelpEntry]] = {"Options": []}
        for one in shown:
            if one.param_type_name == "option":
                options.setdefault(getattr(one, "rich_help_panel", None) or "Options", []).append(entry_of(one))
        tables = [
            HelpSection(title, [(one.heading, one.description) for one in entries])
            for title, entries in {"Arguments": arguments, **options}.items()
        ]
        tables += self.sections
        write_sections(formatter, tables)


def write_sections(formatter: Any, sections: Iterable[HelpSection]) -> None:
    """Write tables of two columns; no entry is shortened."""
    for one in sections:
        if one.entries:
            with formatter.section(one.title):
                formatter.write_dl(list(one.entries))


def entry_of(parameter: Any) -> HelpEntry:
    """Return what the help shows of a parameter of typer's."""
    text, remarks = _split_remarks(" ".join((parameter.help or "").split()))
    bounds = [remark for remark in remarks if not remark.startswith(_DEFAULT)]
    default = next((remark.removeprefix(_DEFAULT) for remark in remarks if remark.startswith(_DEFAULT)), "")
    repeatable = bool(getattr(parameter, "multiple", False)) or parameter.nargs != 1
    placeholder = parameter.metavar or parameter.name.upper().replace("_", "-")
    if parameter.param_type_name == "argument":
        names, placeholder = (f"{placeholder}{'...' if repeatable else ''}",), ""
    else:
        names = (*sorted(parameter.opts, key=lambda name: name.startswith("--")), *parameter.secondary_opts)
        placeholder = "" if parameter.is_flag else placeholder
    return HelpEntry(
        names=names,
        placeholder=placeholder,
        text=text,
        default=default or _default(parameter),
        bounds="; ".join(filter(None, (*bounds, _bounds(parameter)))),
        repeatable=repeatable,
        required=bool(parameter.required),
    )


def _arguments(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "argument"]


def _split_remarks(text: str) -> tuple[str, list[str]]:
    """`Grace period.  [default: 5s]` → the text, and what stands in the bracket at its end."""
    match = _REMARKS.search(text)
    return (text[: match.start()], match[1].split("; ")) if match else (text, [])


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or callable(value) or isinstance(value, list | tuple):
        return ""
    if isinstance(value, bool):
        if not parameter.secondary_opts:
            return ""
        return str((parameter.opts if value else parameter.secondary_opts)[0]).lstrip("-")
    return str(value.value if isinstance(value, Enum) else value)


def _bounds(parameter: Any) -> str:
    low, high = parameter.min, parameter.max
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"{low}..{high}"
