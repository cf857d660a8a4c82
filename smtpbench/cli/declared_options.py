"""The options that a command declares, read from its source for the shell's completion.

Theory of operation: importing `cli.run` imports trio, pydantic and histograms, which takes half a second. That is too long
for a Tab. The signature of `command` is therefore read from the syntax tree. A parameter is `Annotated[type,
typer.Option(…)]`, or the name of such a type from this module or another one of `smtpbench.cli`, or the name of a dataclass
whose fields are the options (`cli.option_groups`). Nothing is executed. A test compares what is read with what typer makes
of every command.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).resolve().parent


class DeclaredOption(NamedTuple):
    """A parameter of a command.

    Attributes:
        name: Its name in Python.
        names: `--target`, `-t`; empty for an argument.
        kind: `flag`, `path` or `text`.
        repeatable: Whether it may be given more than once.
        choices: Values of its enumeration; empty for any other type.
        help: Its help text.
    """

    name: str
    names: tuple[str, ...]
    kind: str
    repeatable: bool = False
    choices: tuple[str, ...] = ()
    help: str = ""


_Definitions = Mapping[str, ast.expr | ast.ClassDef]


def declared_options(command: str) -> list[DeclaredOption]:
    """Return the parameters of `smtpbench.cli.<command>`; an empty list where its source cannot be read."""
    tree = _tree(command)
    definitions = _definitions(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "command":
            arguments = (*node.args.args, *node.args.kwonlyargs)
            return [option for one in arguments for option in _options(one.arg, one.annotation, definitions)]
    return []


def _tree(module: str) -> ast.Module:
    try:
        return ast.parse((_FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    except OSError:
        return ast.Module([], [])


def _definitions(tree: ast.Module) -> dict[str, ast.expr | ast.ClassDef]:
    """Return what the names of a module stand for: its own, and those that it imports from `smtpbench.cli`."""
    found: dict[str, ast.expr | ast.ClassDef] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smtpbench.cli."):
            imported = _definitions(_tree((node.module or "").rpartition(".")[2]))
            for alias in node.names:
                if alias.name in imported:
                    found |= imported | {alias.asname or alias.name: imported[alias.name]}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.ClassDef):
            found[node.name] = node
    return found


def _options(name: str, annotation: ast.AST | None, definitions: _Definitions) -> Iterator[DeclaredOption]:
    """Yield the option of a parameter, or the options of its dataclass, those of its base class first."""
    if isinstance(annotation, ast.Name):
        annotation = definitions.get(annotation.id, annotation)
    if not isinstance(annotation, ast.ClassDef):
        yield _option(name, annotation, definitions)
        return
    for base in annotation.bases:
        yield from _options(name, base, definitions)
    for field in annotation.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            yield from _options(field.target.id, field.annotation, definitions)


def _option(name: str, annotation: ast.AST | None, definitions: _Definitions) -> DeclaredOption:
    if not (isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple)):
        return DeclaredOption(name, (), "text")
    value_type, call = annotation.slice.elts[:2]
    type_names = {node.id for node in ast.walk(value_type) if isinstance(node, ast.Name)}
    kind = "flag" if "bool" in type_names else "path" if "Path" in type_names else "text"
    choices = tuple(choice for one in type_names for choice in _members(definitions.get(one)))
    is_option = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "Option"
    spelled = [str(node.value) for node in getattr(call, "args", ()) if isinstance(node, ast.Constant)]
    if is_option and not spelled:
        spelled = [f"--{name.replace('_', '-')}"]
        spelled += [f"--no-{name.replace('_', '-')}"] if kind == "flag" else []
    help_text = next((_text(one.value, definitions) for one in getattr(call, "keywords", ()) if one.arg == "help"), "")
    names = tuple(one for text in spelled for one in text.split("/"))
    return DeclaredOption(name, names, kind, "list" in type_names, choices, help_text)


def _members(node: ast.AST | None) -> Iterator[str]:
    """Yield the values of an enumeration."""
    for line in getattr(node, "body", ()) if isinstance(node, ast.ClassDef) else ():
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
            yield str(line.value.value)


def _text(node: ast.AST | None, definitions: _Definitions) -> str:
    """Return a string as it is written, with the constants that an f-string names."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, definitions) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, definitions)
    if isinstance(node, ast.Name):
        return _text(definitions.get(node.id), {})
    return str(node.value) if isinstance(node, ast.Constant) else ""
