"""The registry of formats: what `smtpbench report` can make of saved results.

A format is a pure function of results to text, and its module is imported when it is asked for. It reads results by
`report.facts` and believes nothing in them; what it stumbles over nevertheless becomes one clear error.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from smtpbench.errors import UsageError
from smtpbench.measure.saved import Saved
from smtpbench.text import visible

Format = Callable[..., str]

#: name → `module:function`.
FORMATS: Final[dict[str, str]] = {
    "html": "smtpbench.report.html.page:html_report",
    "junit": "smtpbench.report.formats.junit:junit",
    "sarif": "smtpbench.report.formats.sarif:sarif",
    "markdown": "smtpbench.report.formats.markdown:markdown",
    "csv": "smtpbench.report.formats.tabular:csv_table",
    "jsonl": "smtpbench.report.formats.tabular:json_lines",
    "hgrm": "smtpbench.report.formats.hgrm:hgrm",
    "openmetrics": "smtpbench.report.formats.openmetrics:openmetrics",
    "annotations": "smtpbench.report.formats.github:workflow_commands",
    "summary": "smtpbench.report.formats.github:summary",
    "console": "smtpbench.report.terminal.saved:saved_results",
}
#: What reading a result of the wrong shape raises.
_MISSHAPEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def render(name: str, saved: Sequence[Saved], **options: Any) -> str:
    """The results in that format; options: of its function. Raises UsageError for what cannot be shown so."""
    module, _, function = FORMATS[name].partition(":")
    make: Format = getattr(importlib.import_module(module), function)
    try:
        return make(saved, **options)
    except _MISSHAPEN as error:
        where = ", ".join(visible(str(one.path)) for one in saved[:3]) + (" …" if len(saved) > 3 else "")
        what = f"{type(error).__name__}: {visible(str(error))}"
        raise UsageError(f"{where}: no {name} can be made of it, it is not as smtpbench writes a result ({what})") from None
