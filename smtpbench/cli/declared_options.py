"""The options that a command declares, read from its source: what the shell's completion needs, in a few milliseconds.

Theory of operation: to import `cli.run` imports trio, pydantic and histograms, which takes half a second; nobody waits
so long for a Tab. The signature of `command` is there to be read, so its syntax tree is: `Annotated[type,
typer.Option(…)]`, or a name for it from the module itself or from another one of `smtpbench.cli`. Nothing is executed.
A test holds what is found here against what typer makes of every command.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).resolve().parent


class Declared(NamedTuple):
    """A parameter of a command.

    names: `--target`, `-t`; none of an argument. kind: `flag`, `path` or `text`. choices: the words of an enumeration.
    repeated: it may be given again.
    """

    name: str
    names: tuple[str, ...]
    kind: str
    repeated: bool = False
    choices: tuple[str, ...] = ()
    help: str = ""


def declared(command: str) -> list[Declared]:
    """The parameters of `smtpbench.cli.<command>`; none where the source is not at hand."""
    tree = _tree(command)
    names = _assigned(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "command":
            return [_parameter(argument, names) for argument in (*node.args.args, *node.args.kwonlyargs)]
    return []


def _tree(module: str) -> ast.Module:
    try:
        return ast.parse((_FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    except OSError:
        return ast.Module([], [])


def _assigned(tree: ast.Module) -> dict[str, ast.expr | ast.ClassDef]:
    """What the names of a module stand for: its own, and those from other modules of the command line."""
    found: dict[str, ast.expr | ast.ClassDef] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smtpbench.cli."):
            theirs = _assigned(_tree((node.module or "").rpartition(".")[2]))
            found |= {alias.asname or alias.name: theirs[alias.name] for alias in node.names if alias.name in theirs}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.ClassDef):
            found[node.name] = node
    return found


def _parameter(argument: ast.arg, names: dict[str, ast.expr | ast.ClassDef]) -> Declared:
    annotation: ast.AST | None = argument.annotation
    if isinstance(annotation, ast.Name):
        annotation = names.get(annotation.id, annotation)
    if not (isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple)):
        return Declared(argument.arg, (), "text")
    what, call = annotation.slice.elts[:2]
    words = {node.id for node in ast.walk(what) if isinstance(node, ast.Name)}
    kind = "flag" if "bool" in words else "path" if "Path" in words else "text"
    choices = tuple(choice for word in words for choice in _members(names.get(word)))
    option = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "Option"
    spelled = [str(node.value) for node in getattr(call, "args", ()) if isinstance(node, ast.Constant)]
    if option and not spelled:
        spelled = [f"--{argument.arg.replace('_', '-')}"]
        spelled += [f"--no-{argument.arg.replace('_', '-')}"] if kind == "flag" else []
    about = next((_text(one.value, names) for one in getattr(call, "keywords", ()) if one.arg == "help"), "")
    return Declared(
        argument.arg, tuple(name for text in spelled for name in text.split("/")), kind, "list" in words, choices, about
    )


def _members(node: ast.AST | None) -> Iterator[str]:
    """The values of an enumeration."""
    for line in getattr(node, "body", ()) if isinstance(node, ast.ClassDef) else ():
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
            yield str(line.value.value)


def _text(node: ast.AST | None, names: dict[str, ast.expr | ast.ClassDef]) -> str:
    """A string as it is written, with the constants that an f-string names."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, names) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, names)
    if isinstance(node, ast.Name):
        return _text(names.get(node.id), {})
    return str(node.value) if isinstance(node, ast.Constant) else ""
