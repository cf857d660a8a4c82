"""Compare the output that a page shows with what a command printed, and write it anew.

What differs between two runs is made equal first: figures with their units, times, ids, column widths and the words of a
statistical verdict. The dialogue lines of a finding (`S: …`, `C: …`) are compared as they are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

#: An output line that stands for any number of lines.
ELLIPSIS = "…"
#: Lines that only a busy machine adds.
BUSY = re.compile(r"^\s*GENERATOR LIMITED|the generator was the (limit|bottleneck)|Server and generator share \d")
_DIALOGUE = re.compile(r"^\s*[SC]: ")
_EQUAL: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(WORSE|BETTER|NO DIFFERENCE SHOWN|CANNOT TELL): .*", "<verdict>"),
        (r"\b\d{8}-\d{6}\b", "<time>"),
        (r"\b\d{4}-\d\d-\d\d[T ][\d:.]+Z?", "<time>"),
        (r"\b[0-9a-f]{8}\b", "<id>"),
        (r"\b(no difference shown|cannot tell|faster|slower|more|fewer|less)\b", "<verdict>"),
        (r"(?<!RFC )(?<![\w§.-])[-+−]?\d[\d,]*(\.\d+)?( ?(ns|us|µs|ms|s|min|h|B|KiB|MiB|GiB)\b|%)?", "#"),
        (r"[-+−]#", "#"),
        (r" \(#/h\)", ""),  # a growth of memory, which is shown only where it is none by chance
        (r"# ([A-Za-z]+)s\b", r"# \1"),  # 1 finding, 2 findings
        (r"[-=#.:]{6,}", "<bar>"),
        (r"\s+", " "),
    )
)
#: Least likeness of two parts that are taken for the same part with other words.
_LIKE = 0.6


def normalised(line: str) -> str:
    """Return a line without what differs between two runs."""
    line = line.rstrip()
    if _DIALOGUE.match(line):
        return line.strip()
    for pattern, replacement in _EQUAL:
        line = pattern.sub(replacement, line)
    return line.strip()


def normalised_lines(lines: Iterable[str], varies: Sequence[re.Pattern[str]]) -> list[str]:
    """Return lines without what differs between two runs; equal neighbours become one line."""
    result: list[str] = []
    for line in lines:
        if BUSY.search(line) or any(pattern.search(line) for pattern in varies):
            continue
        short = normalised(line)
        if not result or short != result[-1]:
            result.append(short)
    while result and not result[-1]:
        result.pop()
    return result


def line_difference(shown: Sequence[str], printed: Sequence[str], varies: Sequence[re.Pattern[str]] = ()) -> str:
    """Return how the shown output differs from the printed one, empty if only in figures.

    Args:
        shown: Lines of the page; without any, nothing is compared.
        printed: Lines that the command printed.
        varies: Lines that match one of these are left out on both sides.
    """
    if not shown:
        return ""
    wanted, real = normalised_lines(shown, varies), normalised_lines(printed, varies)
    if _matches(wanted, real):
        return ""
    return "\n".join(difflib.unified_diff(wanted, real, "on the page", "printed now", lineterm=""))


def _segments(lines: Sequence[str]) -> list[list[str]]:
    """Return what stands before, between and after the ellipses."""
    segments: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == ELLIPSIS:
            segments.append([])
        else:
            segments[-1].append(line)
    return segments


def _matches(wanted: Sequence[str], real: Sequence[str]) -> bool:
    first, *others = _segments(wanted)
    if not others:
        return first == list(real)
    if list(real[: len(first)]) != first:
        return False
    *between, last = others
    at = len(first)
    for segment in between:
        starts = range(at, len(real) - len(segment) + 1)
        found = next((start for start in starts if list(real[start : start + len(segment)]) == segment), None)
        if found is None:
            return False
        at = found + len(segment)
    return len(real) - len(last) >= at and list(real[len(real) - len(last) :]) == last


def renewed(shown: Sequence[str], printed: Sequence[str]) -> list[str]:
    """Return the lines to show: all that was printed, or with ellipses as many lines of each part as before.

    Raises:
        ValueError: A shown part has nothing like it in what was printed.
    """
    segments = _segments(shown)
    if len(segments) == 1:
        return list(printed)
    result: list[str] = []
    at = 0
    for number, segment in enumerate(segments):
        result += [ELLIPSIS] if number else []
        if number == 0:
            begin = 0
        elif number == len(segments) - 1:
            begin = max(at, len(printed) - len(segment))
        else:
            begin = _most_like(segment, printed, at)
        at = begin + len(segment)
        result += printed[begin:at]
    return result


def _most_like(segment: Sequence[str], printed: Sequence[str], at: int) -> int:
    """Return where the printed lines are most like a shown part, the first place of several."""
    shown, real = [normalised(line) for line in segment], [normalised(line) for line in printed]
    starts = range(at, len(real) - len(shown) + 1)
    likeness = [sum(map(_likeness, shown, real[start : start + len(shown)])) / len(shown) for start in starts]
    if not likeness or max(likeness) < _LIKE:
        raise ValueError(f"nothing like this was printed: {segment[0]}")
    return at + likeness.index(max(likeness))


def _likeness(line: str, other: str) -> float:
    return 1.0 if line == other else difflib.SequenceMatcher(None, line, other).ratio()
