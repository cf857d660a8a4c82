"""Write the output shown on the pages anew: `python -m docs_tools [PAGE…]`, or `make docs-output`.

Run it on an idle machine: output that says that the generator was the limit is refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

from docs_tools import output, page, runner
from docs_tools.page import Page
from docs_tools.shell import Ran


def rewritten(read: Page, ran: list[Ran]) -> tuple[list[str], list[str]]:
    """Return the lines of a page with the output of its commands, and what could not be written."""
    fresh = {one.command.line: one for one in ran}
    lines, problems = list(read.lines), []
    for block in reversed(read.blocks):
        for command in reversed(block.commands):
            one = fresh.get(command.line)
            if one is None or not command.shown:
                continue
            where = f"{read.path.name}:{command.line}"
            if any(output.BUSY.search(line) for line in one.output):
                problems.append(f"{where}: the machine was busy; run it again")
                continue
            try:
                shown = output.renewed(command.shown, one.output)
            except ValueError as error:
                problems.append(f"{where}: {error}")
                continue
            begin = command.line - 1 + len(command.prompt)
            indented = [f"{' ' * block.indent}{line}".rstrip() for line in shown]
            lines[begin : begin + len(command.shown)] = indented
    return lines, problems


def main(argv: list[str]) -> int:
    """Rewrite the named pages, or all, and return the exit code."""
    failed = False
    for path in [Path(name).resolve() for name in argv] or runner.pages():
        read = page.read(path)
        if not read.commands:
            continue
        report = runner.run(read)
        lines, problems = rewritten(read, report.ran)
        path.write_text("\n".join(lines) + "\n")
        broken = [one for one in report.problems if "is out of date" not in one]
        print(f"{path.name}: {len(report.ran)} commands{''.join(f', skipped: {reason}' for reason in report.skipped)}")
        for problem in broken + problems:
            print(f"  {problem}", file=sys.stderr)
        failed = failed or bool(broken + problems)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
