"""The registry of formats into which `smtpbench report` converts saved results.

A format is a pure function from results to text. Its module is imported when the format is used. It reads results through
`report.reading`, which accepts misshapen results. An exception that happens nevertheless becomes one clear error.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from smtpbench.errors import UsageError
from smtpbench.measure.saved import Saved
from smtpbench.text import visible

Format = Callable[..., str]

#: Name → `module:function`.
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
#: Exceptions that a result of the wrong shape can cause.
_MISSHAPEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def render(name: str, saved: Sequence[Saved], **options: Any) -> str:
    """Return results in a format.

    Args:
        name: A key of FORMATS.
        saved: The results.
        options: Further arguments of the format's function.

    Raises:
        UsageError: The results cannot be shown in this format.
    """
    module, _, function = FORMATS[name].partition(":")
    make: Format = getattr(importlib.import_module(module), function)
    try:
        return make(saved, **options)
    except _MISSHAPEN as error:
        where = ", ".join(visible(str(one.path)) for one in saved[:3]) + (" …" if len(saved) > 3 else "")
        what = f"{type(error).__name__}: {visible(str(error))}"
        raise UsageError(f"{where}: cannot be converted to {name}: not a result as smtpbench writes it ({what})") from None
