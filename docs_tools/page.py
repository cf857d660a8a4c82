"""Pages of the documentation as data: their commands with the output shown below them, their files and their other blocks.

A page is Markdown. Fenced blocks of the language `console` hold commands and output as a terminal shows them:

    $ smtpbench validate relay
    relay: ok
    $ smtpbench check --target smtp://127.0.0.1:2525   # exit code 1

A line `> …` continues a command. A comment `# exit code N` names the exit code that is expected instead of 0. A command
that ends in `&` is a server, kept until the end of the page. An output line `…` stands for any number of lines.

A fenced block with `title="NAME"` is a file of that name. Every other block is a fragment, which `docs_tools.fragments`
checks. Comments directly above a block give instructions:

    <!-- docs: varies REGEX -->      output lines that contain this may come, change or stay away
    <!-- docs: needs PROGRAM… -->    skip the block without these programs; `root` stands for being root
    <!-- docs: exit-codes N… -->     each of these exit codes may be that of any command of the block
    <!-- docs: not-run REASON -->    neither run nor checked, for this reason

A page that has `<!-- docs: checkout -->` anywhere runs in a copy of the checkout instead of an empty folder. A page that
has `<!-- docs: page-needs PROGRAM… -->` anywhere is skipped as a whole without these programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w+-]*)(?P<rest>.*)$")
_DIRECTIVE = re.compile(r"^\s*<!-- docs: (?P<name>[a-z-]+)(?: (?P<argument>.*?))? -->\s*$")
_TITLE = re.compile(r'\btitle="([^"]+)"')
_EXIT_CODE = re.compile(r"#[^#]*\bexit code (\d+)")
_BLOCK_DIRECTIVES = {"varies", "needs", "exit-codes", "not-run"}
_PAGE_DIRECTIVES = {"checkout", "page-needs"}


class PageError(Exception):
    """A page that cannot be read: what is wrong, and where."""


@dataclass
class Command:
    """A command of a console block.

    Attributes:
        text: The command as a shell reads it, continuation lines joined.
        prompt: The lines of the page that hold it, with their prompts.
        line: Line of the page where it begins, from 1.
        shown: Output lines below it.
        exit_codes: The exit code that the page states, 0 without a statement; several where it may be any of them.
    """

    text: str
    prompt: list[str]
    line: int
    shown: list[str] = field(default_factory=list)
    exit_codes: tuple[int, ...] = (0,)

    @property
    def in_background(self) -> bool:
        """Whether it is a server that the page keeps running."""
        return bool(re.search(r"(?<!&)&\s*(#.*)?$", self.text))


@dataclass
class Block:
    """A fenced block.

    Attributes:
        language: The word behind the fence.
        lines: The content, without the indentation of the fence.
        line: Line of the page where the content begins, from 1.
        indent: Columns by which the fence is indented.
        title: File name, empty for none.
        varies: Output lines that match one of these need not be there.
        needs: Programs without which the block is skipped.
        not_run: Why it is neither run nor checked, empty if it is.
        commands: Commands of a console block.
    """

    language: str
    lines: list[str]
    line: int
    indent: int
    title: str
    varies: list[re.Pattern[str]] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    not_run: str = ""
    commands: list[Command] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The content as a file."""
        return "\n".join(self.lines) + "\n"


@dataclass
class Page:
    """A page.

    Attributes:
        path: Its file.
        lines: All its lines.
        blocks: The fenced blocks, in order.
        checkout: Whether its commands run in a copy of the checkout.
        needs: Programs without which the page is skipped.
    """

    path: Path
    lines: list[str]
    blocks: list[Block]
    checkout: bool
    needs: list[str]

    @property
    def commands(self) -> list[Command]:
        """All commands, in order."""
        return [command for block in self.blocks for command in block.commands]

    def prose(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the text of every line outside fenced blocks."""
        inside = {number for block in self.blocks for number in range(block.line - 1, block.line + len(block.lines) + 1)}
        for number, line in enumerate(self.lines, 1):
            if number not in inside:
                yield number, line


def read(path: Path) -> Page:
    """Read a page.

    Raises:
        PageError: A block that does not end, output without a command, or an instruction that does not exist.
    """
    lines = path.read_text().splitlines()
    blocks: list[Block] = []
    checkout = False
    page_needs: list[str] = []
    pending: list[tuple[str, str]] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if directive := _DIRECTIVE.match(line):
            name, argument = directive["name"], directive["argument"] or ""
            if name not in _BLOCK_DIRECTIVES | _PAGE_DIRECTIVES:
                raise PageError(f"{path.name}:{at}: no such instruction: {name}")
            checkout = checkout or name == "checkout"
            page_needs += argument.split() if name == "page-needs" else []
            pending += [(name, argument)] if name in _BLOCK_DIRECTIVES else []
        elif fence := _FENCE.match(line):
            block, at = _block(path, lines, at, fence)
            _instruct(block, pending)
            pending = []
            blocks.append(block)
        elif pending and line.strip():
            raise PageError(f"{path.name}:{at}: an instruction must stand directly above a block")
    return Page(path, lines, blocks, checkout, page_needs)


def _block(path: Path, lines: list[str], at: int, fence: re.Match[str]) -> tuple[Block, int]:
    """Return the block whose content begins at a line, and the line after its end."""
    indent = len(fence["indent"])
    title = _TITLE.search(fence["rest"])
    block = Block(fence["language"], [], at + 1, indent, title[1] if title else "")
    for end in range(at, len(lines)):
        if lines[end].strip() == fence["fence"]:
            block.lines = [line[indent:] for line in lines[at:end]]
            if block.language == "console":
                block.commands = _commands(path, block)
            return block, end + 1
    raise PageError(f"{path.name}:{at}: the block does not end")


def _commands(path: Path, block: Block) -> list[Command]:
    commands: list[Command] = []
    for number, line in enumerate(block.lines, block.line):
        if line.startswith("$ "):
            commands.append(Command(line[2:], [line], number))
        elif not commands:
            raise PageError(f"{path.name}:{number}: output without a command")
        elif line.startswith("> ") and not commands[-1].shown:
            commands[-1].text += "\n" + line[2:]
            commands[-1].prompt.append(line)
        else:
            commands[-1].shown.append(line)
    for command in commands:
        while command.shown and not command.shown[-1].strip():
            command.shown.pop()
        if stated := _EXIT_CODE.search(command.text):
            command.exit_codes = (int(stated[1]),)
    return commands


def _instruct(block: Block, directives: list[tuple[str, str]]) -> None:
    for name, argument in directives:
        if name == "varies":
            block.varies.append(re.compile(argument))
        elif name == "needs":
            block.needs += argument.split()
        elif name == "exit-codes":
            for command in block.commands:
                command.exit_codes = tuple(int(code) for code in argument.split())
        else:
            block.not_run = argument or "no reason given"
