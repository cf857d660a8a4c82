"""Exit codes, from the table that the command line ends by."""

from __future__ import annotations

from docs_build.markup import Page, anchored, code, sentence, table
from smtpbench.cli.exit_codes import EXIT_CODES


def pages() -> list[Page]:
    """Return the page."""
    body = (
        "Every command ends with one of these exit codes. `smtpbench report --fail` ends as the commands did that wrote the "
        "results.\n\n" + exit_codes_table()
    )
    return [Page("reference/exit-codes.md", "Exit codes", body)]


def exit_codes_table() -> str:
    """Return the table alone."""
    table_rows = [
        (anchored(f"exit-{one.code}", code(str(one.code))), sentence(one.name), sentence(one.meaning)) for one in EXIT_CODES
    ]
    return table("keys", ("Code", "Name", "When"), table_rows)
