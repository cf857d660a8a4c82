"""Options that several commands share, declared once as the fields of a dataclass.

A command takes the dataclass as one parameter, with an instance for its defaults:

    def command(target: …, access: LoginOptions = LoginOptions()) -> None: ...

Typer knows only single options. `with_separate_options` gives it a function with one parameter for each field, which builds
the instance and calls the command. Completion reads the same dataclass from the source: `cli.declared_options`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def with_separate_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a function that takes the fields of each dataclass parameter in its place; others stay as they are."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: one.annotation for name, one in signature.parameters.items() if is_dataclass(one.annotation)
    }

    def separate(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    parameters = [part for one in signature.parameters.values() for part in _parts(one, groups)]
    described: Any = separate
    described.__name__, described.__doc__ = command.__name__, command.__doc__
    described.__signature__ = signature.replace(parameters=parameters)
    described.__annotations__ = {one.name: one.annotation for one in parameters}
    return separate


def _parts(parameter: inspect.Parameter, groups: dict[str, Any]) -> Iterator[inspect.Parameter]:
    group = groups.get(parameter.name)
    if group is None:
        yield parameter
        return
    annotations = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = getattr(parameter.default, field.name)
        yield parameter.replace(name=field.name, annotation=annotations[field.name], default=default)
