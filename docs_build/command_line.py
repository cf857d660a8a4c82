"""Command line: a page for each command, from the parameters that typer knows of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from docs_build.markup import REQUIRED, Page, anchored, block, code, escape_markdown, sentence, table
from smtpbench.cli import main
from smtpbench.cli.help import HelpEntry, HelpSection, entry_of

FOLDER = "reference/command-line"


def pages() -> list[Page]:
    """Return the overview and a page for each command."""
    return [_overview(), *(_page(name) for name in main.COMMANDS)]


def parameters(command: Any, kind: str) -> list[HelpEntry]:
    """Return the parameters of a command, as its help shows them.

    Args:
        command: A command of typer's.
        kind: `option` or `argument`.
    """
    context = typer.Context(command, info_name=command.name)
    shown = [one for one in command.get_params(context) if not getattr(one, "hidden", False)]
    return [entry_of(one) for one in shown if one.param_type_name == kind]


def _overview() -> Page:
    group = typer.main.get_command(main.app)
    table_rows = [(f"[`{name}`]({name}.md)", sentence(about)) for name, about in main.COMMANDS.items()]
    body = (
        block("sh", "smtpbench COMMAND [OPTIONS]\nsmtpbench help COMMAND")
        + "\n## Commands\n\n"
        + table("pairs", ("Command", "What it does"), table_rows)
        + "\n## Options\n\nThese options stand before the command.\n\n"
        + _options(parameters(group, "option"))
        + "\nThe [exit codes](../exit-codes.md) are the same for every command.\n"
    )
    return Page(f"{FOLDER}/index.md", "Command line", body)


def _page(name: str) -> Page:
    command = main.load(name)
    context = typer.Context(command, info_name=f"smtpbench {name}")
    usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    summary, *more = _help(command.help or "")
    parts = [summary, block("sh", usage), *more]
    arguments = parameters(command, "argument")
    if arguments:
        table_rows = [(anchored(_anchor(one), code(one.names[0])), *_facts(one)) for one in arguments]
        parts += ["## Arguments\n", table("options", ("Argument", "Value", "Default", "Meaning"), table_rows)]
    parts += ["## Options\n", _options(parameters(command, "option"))]
    parts += [_section(one) for one in command.sections]
    return Page(f"{FOLDER}/{name}.md", f"smtpbench {name}", "\n".join(parts))


def _options(options: list[HelpEntry]) -> str:
    table_rows = [(anchored(_anchor(one), " ".join(map(code, _long_first(one.names)))), *_facts(one)) for one in options]
    return table("options", ("Option", "Value", "Default", "Meaning"), table_rows)


def _long_first(names: tuple[str, ...]) -> list[str]:
    return sorted(names, key=lambda name: not name.startswith("--"))


def _anchor(one: HelpEntry) -> str:
    """`--seed`; of an argument its placeholder, `SCENARIO`."""
    return _long_first(one.names)[0].removesuffix("...")


def _facts(one: HelpEntry) -> tuple[str, str, str]:
    """Value, default and meaning."""
    value = (one.placeholder and code(one.placeholder), escape_markdown(one.bounds), "repeatable" if one.repeatable else "")
    default = escape_markdown(one.default) if " " in one.default else code(one.default) if one.default else ""
    return ", ".join(filter(None, value)), REQUIRED if one.required else default, sentence(one.text)


def _section(one: HelpSection) -> str:
    table_rows = [(code(name), sentence(text)) for name, text in one.entries]
    return f"## {escape_markdown(one.title)}\n\n" + table("pairs", ("Name", "Meaning"), table_rows)


def _help(text: str) -> list[str]:
    """The pieces of a command's help: paragraphs, and after `\\b` lines that stand as they are, most of them examples."""
    parts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        if lines and lines[0].strip() == "\b":
            parts += _as_it_stands(lines[1:])
        else:
            parts.append(f"{escape_markdown(paragraph)}\n")
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
        paragraph = "  \n".join(map(escape_markdown, run))
        yield block("sh", "\n".join(run)) if indented else re.sub(r"(?<![.:])  \n", " ", paragraph) + "\n"
        at = end
