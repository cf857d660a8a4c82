"""Reports of crashes in a server's output: sanitizers, and the runtimes of languages.

Theory of operation
===================

`find_crash_report` reads the lines once, from the first to the last. At each line it tries the formats of `crash_formats`.
The first whose head matches reads the frames that follow, up to the first line that is none. What a log writes before the
head (time, host, program) is taken off the lines that follow, too.

Of all reports the last one counts. A report that ends the process counts before one that the process may have survived: an
exception that was logged does not explain a later SIGSEGV.

Two crashes at the same place have the same key wherever the program was loaded and whatever input it read: frames are names
of functions, without addresses, arguments, template arguments and line numbers, and without the frames of the runtime.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from smtpbench.supervisor.crash_formats import (
    FORMATS,
    HANDLER_LINE,
    RUNTIME_FUNCTION,
    RUNTIME_LINE,
    CrashFormat,
    Effect,
)
from smtpbench.text import visible

_FRAMES: Final = 3
#: Lines of a report that are read at most; lines without a frame after which the frames of a report have not started; frames
#: from which the top ones are chosen.
_REPORT_LINES: Final = 300
_LINES_BEFORE_FRAMES: Final = 12
_KEPT_FRAMES: Final = 200
#: Frames that a report must have if its format is a guess.
_GUESSED_FRAMES: Final = 2
#: Lines at the end of the output in which formats count that are like any log line.
_LAST_LINES: Final = 5
#: The last lines of the output that are searched, and the part of each: a hostile server must not keep patterns busy.
_SEARCHED_LINES: Final = 500
_LINE_CHARACTERS: Final = 300
_SUMMARY_CHARACTERS: Final = 200
_FUNCTION_CHARACTERS: Final = 100

#: Signals by which a process ends that reports an error itself.
_OWN_SIGNALS: Final[frozenset[int | None]] = frozenset({None, signal.SIGABRT, signal.SIGTRAP})

_CERTAIN: Final = tuple(crash_format for crash_format in FORMATS if not crash_format.guess)
_COLOUR: Final = re.compile(r"\x1b\[[\d;]*m")
_LOG_PREFIX: Final = re.compile(
    r"(?:[\w.-]+ +\| )?(?:<\d+>)?(?:(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|"
    r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?) +(?:\S+ \S+\[\d+\]: )?)?"
)
_ADDRESS: Final = re.compile(
    r",? (?:on|at)(?: unknown)? (?:address )?0x[0-9a-fA-F]+.*| \(pc 0x.*| \(pid=\d+\)| \(\S+\+0x[0-9a-f]+\)|"
    r"\b0x[0-9a-fA-F]+\b"
)
_NUMBER: Final = re.compile(r"\b\d+\b")


@dataclass(frozen=True, slots=True)
class CrashReport:
    """A report, shortened.

    Attributes:
        kind: What wrote it: `AddressSanitizer`, `Go panic`, `Python traceback` and so on.
        summary: One line: `AddressSanitizer: heap-buffer-overflow in parse_rcpt`.
        frames: The top frames, function names without addresses, the innermost first; at most 3.
        lines: The lines of the report that are worth quoting.
    """

    kind: str
    summary: str
    frames: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return the key by which deaths are grouped.

        It is the kind and the top frames. Without frames it is the summary, with N for numbers, which depend on the input.
        """
        return f"{self.kind}: {' < '.join(self.frames)}" if self.frames else _NUMBER.sub("N", self.summary)

    def to_data(self) -> dict[str, Any]:
        """Return `report` of an element of `server.deaths`."""
        return {
            "kind": self.kind,
            "summary": visible(self.summary),
            "frames": [visible(frame) for frame in self.frames],
            "lines": [visible(line) for line in self.lines],
        }


def find_crash_report(lines: Sequence[str], signal_number: int | None = None) -> CrashReport | None:
    """Return the last report of a crash in the output of a server; None without one.

    Args:
        lines: The last lines that the process wrote, the oldest first. Lines of a process before it would mislead.
        signal_number: Signal that ended the process, if it is known. An exception of a language does not explain a SIGKILL.
    """
    found: dict[Effect, CrashReport] = {}
    for crash_format, report in _reports([_COLOUR.sub("", line[:_LINE_CHARACTERS]) for line in lines[-_SEARCHED_LINES:]]):
        if crash_format.effect is not Effect.MAY_EXIT:
            found[crash_format.effect] = report
        elif signal_number in _OWN_SIGNALS:
            found[Effect.MAY_END] = report
    return found.get(Effect.ENDS) or found.get(Effect.MAY_END)


def _reports(lines: Sequence[str]) -> Iterator[tuple[CrashFormat, CrashReport]]:
    """Yield the reports in the order in which they were written."""
    number = 0
    sanitized = False
    while number < len(lines):
        found = _report_at(lines, number, FORMATS)
        if found is not None and found[0].guess:
            following = range(number + 1, min(number + 1 + found[0].confirmed_within, len(lines)))
            if any(_report_at(lines, line, _CERTAIN) for line in following):
                found = None
        if found is None:
            number += 1
            continue
        crash_format, report, number = found
        if not (crash_format.repeats and sanitized):
            yield crash_format, report
        sanitized = sanitized or report.kind.endswith("Sanitizer")


def _report_at(
    lines: Sequence[str], number: int, formats: Iterable[CrashFormat]
) -> tuple[CrashFormat, CrashReport, int] | None:
    """Return the report whose head is a line, with its format and the index of the line after it."""
    last = not any(map(str.strip, lines[number + _LAST_LINES :]))
    for crash_format in formats:
        found = None if crash_format.at_the_end and not last else _Reader(crash_format, lines, number).read()
        if found is not None:
            return crash_format, *found
    return None


class _Reader:
    """Reads one report.

    Args:
        crash_format: Its format.
        lines: All lines.
        number: Index of the line that may be its head.
    """

    def __init__(self, crash_format: CrashFormat, lines: Sequence[str], number: int) -> None:
        self._format = crash_format
        self._lines = lines
        self._number = number
        self._shape: re.Pattern[str] | None = None

    def read(self) -> tuple[CrashReport, int] | None:
        """Return the report and the index of the line after it; None if there is none."""
        crash_format = self._format
        head = self._head()
        if head is None or not self._confirmed():
            return None
        what, function = _joined(_group(head, "what"), _group(head, "message")), _group(head, "function")
        quoted = [head.string]
        frames: list[tuple[str, str]] = [(function, "")] if function else []
        has_detail = False
        started = crash_format.stack is None
        seen = 0
        end = self._number + 1
        for number in range(self._number + 1, min(self._number + _REPORT_LINES, len(self._lines))):
            line = self._body_line(number)
            if not started and crash_format.stack is not None and crash_format.stack.match(line):
                started, end = True, number + 1
                continue
            frame = crash_format.frame.match(line) if crash_format.frame is not None and started else None
            if frame is not None:
                seen += 1
                end = number + 1
                if seen <= _KEPT_FRAMES:
                    frames.append((self._function(frame), line))
                continue
            detail = crash_format.detail.match(line) if crash_format.detail is not None and not has_detail else None
            if detail is not None:
                what, has_detail, end = _joined(what or _group(detail, "what"), _group(detail, "message")), True, number + 1
                quoted.append(line)
            if seen and not line[:1].isspace():
                break  # the line after the frames; Python says the cause there
            if not seen and number - self._number >= (_REPORT_LINES if crash_format.stack else _LINES_BEFORE_FRAMES):
                break
        if crash_format.guess:
            if seen < _GUESSED_FRAMES:
                return None
            what = self._cause(what)
        if crash_format.outermost_first:
            frames.reverse()
        else:
            handlers = [index for index, (_, line) in enumerate(frames) if HANDLER_LINE.match(line)]
            frames = frames[handlers[-1] + 1 if handlers else 0 :]
        top = list(_top_frames(frames))
        kind = _group(head, "kind") or crash_format.kind
        names = tuple(name for name, _ in top)
        quoted += [line for _, line in top if line]
        return CrashReport(kind, _summary(kind, what, names), names, tuple(quoted)), end

    def _head(self) -> re.Match[str] | None:
        line = self._lines[self._number]
        prefix = _LOG_PREFIX.match(line)
        start = prefix.end() if prefix else 0
        pattern = self._format.head
        head = pattern.search(line, start) if self._format.anywhere else pattern.match(line, start)
        if head is not None and head.start():
            # numbers of the prefix vary, and an exception group draws a tree
            shape = re.sub(r"\d+", r"\\d+", re.escape(line[: head.start()])).replace(r"\+", "[+|]")
            self._shape = re.compile(shape)
        return head

    def _body_line(self, number: int) -> str:
        """Return a line after the head, without what the log writes before each line."""
        line = self._lines[number]
        prefix = self._shape.match(line) if self._shape is not None else None
        return line[prefix.end() :] if prefix is not None else line

    def _cause(self, what: str) -> str:
        """Return what the next line says, or else the line before, if the head is but a heading: `stack traceback:`."""
        if not what.endswith(":") or self._format.frame is None:
            return what
        following = self._body_line(self._number + 1).strip()
        if following and not self._format.frame.match(self._body_line(self._number + 1)):
            return following
        return self._lines[self._number - 1].strip() or what if self._number else what

    def _confirmed(self) -> bool:
        sign = self._format.confirmed_by
        following = range(self._number + 1, min(self._number + 1 + self._format.confirmed_within, len(self._lines)))
        return sign is None or any(sign.match(self._body_line(number)) for number in following)

    def _function(self, frame: re.Match[str]) -> str:
        """Return the name of a frame. Without a function it is the module in parentheses, with the offset in it."""
        function, offset = _group(frame, "function"), _group(frame, "offset")
        place = re.split(r"[/\\]", _group(frame, "place").removesuffix("/__init__.py"))[-1]
        if not function:
            return f"({place}{'+' * bool(offset)}{offset})" if place else ""
        return f"{place.removesuffix('.py')}.{function}" if self._format.named_by_place and place else function


def _group(match: re.Match[str], name: str) -> str:
    """Return the group with a name, or with the name and a number, that took part in a match; else an empty text."""
    return next((text for group, text in match.groupdict().items() if group.rstrip("0123456789") == name and text), "")


def _joined(what: str, detail: str) -> str:
    """Return the cause that two lines say together."""
    return f"{what}: {detail}" if what and detail else what or detail


def _top_frames(frames: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the first frames that are no part of a runtime, with their lines; a recursion is one frame."""
    last = ""
    count = 0
    for text, line in frames:
        name = _function_name(text)
        if not name or name == last or RUNTIME_FUNCTION.match(name) or RUNTIME_LINE.search(line):
            continue
        last = name
        yield name, line
        count += 1
        if count == _FRAMES:
            return


def _function_name(text: str) -> str:
    """Return the name of a function without hash, offset, arguments, template arguments and folders."""
    text = text.strip()
    if re.fullmatch(r"\([^()\s]+\)", text):  # a module
        return text
    text = re.sub(r"::h[0-9a-f]{16}$|\[[0-9a-f]{16}\]|\+0x[0-9a-f]+\b.*$|\s\[clone .*\]|\s\(\.\w+.*\)$", "", text)
    if re.fullmatch(r"\w+,[^,]+,\d+", text):  # Erlang's tuple
        return re.sub(r"(.*),(.*),(.*)", r"\1:\2/\3", text)
    text = text.removesuffix(" const")
    while text.endswith(")") and (start := _opening(text)) > 0 and not text[:start].endswith("operator"):
        text = text[:start].rstrip()
    while (shorter := re.sub(r"(?<=[\w:])<[^<>]*>", "", text)) != text:
        text = shorter
    text = text.removesuffix("::")
    if " " not in text and not text.startswith(("(", "<")):
        text = re.sub(r"^.*/(?=[^\d])", "", text)
    return text[:_FUNCTION_CHARACTERS]


def _opening(text: str) -> int:
    """Return the index of the parenthesis that the last character closes; -1 if there is none."""
    depth = 0
    for index in range(len(text) - 1, -1, -1):
        depth += (text[index] == ")") - (text[index] == "(")
        if not depth:
            return index
    return -1


def _summary(kind: str, what: str, frames: Sequence[str]) -> str:
    what = " ".join(_ADDRESS.sub("", what).split()).rstrip(" :,")
    place = f" in {frames[0]}" if frames and frames[0] not in what else ""
    return f"{kind}: {what or 'no cause given'}{place}"[:_SUMMARY_CHARACTERS]
