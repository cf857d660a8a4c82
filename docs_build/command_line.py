"""Command line: a page for each command, from the parameters that typer knows of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import typer

from docs_build.markup import Page, anchored, block, code, escape, sentence, table
from smtpbench.cli import main

FOLDER = "reference/command-line"
#: What stands in brackets at the end of a help text: `[default: 5s]`, `[required]`, `[default: 1; x>=0]`.
_REMARK = re.compile(r"\s*\[((?:default: |required|env var: |-?[\d.]+<|x[<>])[^\[\]]*)\]\s*$")


class Parameter(NamedTuple):
    """An option or an argument, as its help shows it.

    Attributes:
        names: `--target`, `-t`; the name of an argument.
        value: Placeholder of its value; empty for a flag.
        help: What it means, without the remarks below.
        default: Value that is taken when it is not given; empty for none.
        bounds: Range of a number.
        repeatable: Whether it may be given more than once.
        required: Whether it must be given.
    """

    names: tuple[str, ...]
    value: str
    help: str
    default: str
    bounds: str
    repeatable: bool
    required: bool


def pages() -> list[Page]:
    """Return the overview and a page for each command."""
    return [_overview(), *(_page(name) for name in main.COMMANDS)]


def parameters(command: Any) -> tuple[list[Parameter], list[Parameter]]:
    """Return the arguments and the options of a command."""
    context = typer.Context(command, info_name=command.name)
    found: tuple[list[Parameter], list[Parameter]] = ([], [])
    for one in command.get_params(context):
        record = one.get_help_record(context)
        if record is not None:
            found[one.param_type_name == "option"].append(_parameter(one, *record))
    return found


def _parameter(one: Any, heading: str, text: str) -> Parameter:
    remarks: list[str] = []
    while match := _REMARK.search(text):
        remarks[:0] = match[1].split("; ")
        text = text[: match.start()]
    names = [*one.opts, *one.secondary_opts]
    default = next((remark.removeprefix("default: ") for remark in remarks if remark.startswith("default: ")), "")
    return Parameter(
        tuple(sorted(names, key=lambda name: not name.startswith("--"))),
        _value(heading, names),
        text.strip(),
        default,
        next((bounds_in_words(remark) for remark in remarks if re.search("x[<>]|<=x", remark)), ""),
        one.multiple or one.nargs != 1,
        "required" in remarks,
    )


def _value(heading: str, names: list[str]) -> str:
    """The placeholder in a help's left column: `-d, --duration DURATION` → `DURATION`; empty for a flag."""
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    rest = re.sub(rf"^(?:(?:{pattern})[,/ ]*)+", "", heading).strip()
    return rest.removeprefix("<").removesuffix(">")


def bounds_in_words(text: str) -> str:
    """`x>=1` → `at least 1`; `1<=x<=256` → `1 to 256`; others as they stand."""
    match = re.fullmatch(r"x(<=|>=|<|>)(\S+)", text)
    if match:
        words = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}
        return f"{words[match[1]]} {match[2]}"
    match = re.fullmatch(r"(\S+)<=x<=(\S+)", text)
    return f"{match[1]} to {match[2]}" if match else text


def _overview() -> Page:
    group = typer.main.get_command(main.app)
    options = parameters(group)[1]
    rows = [(f"[`{name}`]({name}.md)", sentence(about)) for name, about in main.COMMANDS.items()]
    body = (
        block("sh", "smtpbench COMMAND [OPTIONS]\nsmtpbench help COMMAND")
        + "\n## Commands\n\n"
        + table("pairs", ("Command", "What it does"), rows)
        + "\n## Options\n\nThese options stand before the command.\n\n"
        + _options(options)
        + "\nThe [exit codes](../exit-codes.md) are the same for every command.\n"
    )
    return Page(f"{FOLDER}/index.md", "Command line", body)


def _page(name: str) -> Page:
    command = main.load(name)
    arguments, options = parameters(command)
    context = typer.Context(command, info_name=f"smtpbench {name}")
    usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    summary, *more = _help(command.help or "")
    parts = [summary, block("sh", usage), *more]
    if arguments:
        rows = [(anchored(one.names[0], code(one.names[0])), _default(one), sentence(one.help)) for one in arguments]
        parts += ["## Arguments\n", table("options two", ("Argument", "Default", "Meaning"), rows)]
    parts += ["## Options\n", _options(options)]
    return Page(f"{FOLDER}/{name}.md", f"smtpbench {name}", "\n".join(parts))


def _options(options: list[Parameter]) -> str:
    rows = [
        (
            anchored(one.names[0], " ".join(code(name) for name in one.names)),
            ", ".join(filter(None, (one.value and code(one.value), one.bounds, "repeatable" if one.repeatable else ""))),
            _default(one),
            sentence(one.help),
        )
        for one in options
    ]
    return table("options", ("Option", "Value", "Default", "Meaning"), rows)


def _default(one: Parameter) -> str:
    if one.required:
        return "required"
    return code(one.default) if one.default else ""


def _help(text: str) -> list[str]:
    """The pieces of a command's help: paragraphs, and after `\\b` lines that stand as they are, most of them examples."""
    parts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        if lines and lines[0].strip() == "\b":
            parts += _as_it_stands(lines[1:])
        else:
            parts.append(f"{escape(paragraph)}\n")
    return parts


def _as_it_stands(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        indented = lines[at].startswith(" ")
        end = at + 1
        while end < len(lines) and lines[end].startswith(" ") == indented:
            end += 1
        run = [line.strip() for line in lines[at:end]]
        # a line that ends a sentence stays a line; others were broken for the width of a terminal
        yield (
            block("sh", "\n".join(run)) if indented else re.sub(r"(?<![.:])  \n", " ", "  \n".join(map(escape, run))) + "\n"
        )
        at = end
