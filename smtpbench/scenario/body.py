"""Messages, made beforehand as far as they can be.

A generated message has a header that differs from message to message, and filler that does not. `render(n)` makes the
header with one formatting and takes as much of the filler's end as gives the exact size: a small message is joined, a
large one is a pair (header, view of the filler), so that its octets are shared and never copied.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path

from smtpbench.scenario.model import Message
from smtpbench.scenario.reader import Document
from smtpbench.scenario.values import Provider, Values, merged, mix
from smtpbench.session.script import Wire
from smtpbench.smtp.content import END_OF_DATA, header, normalise_line_ends, stuff_dots

DEFAULT_BYTES = (4096, 4096)
RUN_HEADER = "X-Smtpbench-Run"

_LINE = b"x" * 76 + b"\r\n"
#: Below this a message is joined; above, its filler is handed on as it is.
_JOIN_BYTES = 32 * 1024
MAX_BYTES = 256 * 1024 * 1024
MAX_FILES = 10_000

#: Content of the message of arrival n as it goes over the wire, the final dot included.
Render = Callable[[int], Wire]


def compile_message(
    message: Message, values: Values, document: Document, path: tuple[object, ...], folder: Path, *, run_id: str,
    seed: int, now: datetime,
) -> Render | None:  # fmt: skip
    """What renders the message; None, and problems in the document, where it cannot be made."""
    if sum(part is not None for part in (message.size, message.eml, message.text)) > 1:
        document.problem(path, "a message has one of size, eml and text")
        return None
    if message.eml is not None:
        return _from_files(message, document, path, folder, run_id, seed)
    head = _header(message, values, document, path, now)
    if head is None:
        return None
    if message.text is not None:
        text = values.template(message.text, (*path, "text"))
        return None if text is None else _from_text(head, text)
    low, high = message.size or DEFAULT_BYTES
    if high > MAX_BYTES:
        document.problem((*path, "size"), f"at most {MAX_BYTES // 1024**2} MiB")
        return None
    return _generated(head, low, high, seed, document, path)


Formatter = Callable[[int], bytes]


def formatter(parts: list[str | Provider], values: Values, i: int = 0) -> Formatter:
    """Octets for arrival n from the parts of a template, by the cheapest way there is."""
    if all(isinstance(part, str) or values.is_n(part) for part in parts):
        pattern = "".join(part.replace("%", "%%") if isinstance(part, str) else "%(n)d" for part in parts)
        count = pattern.count("%(n)d")
        octets = pattern.replace("%(n)d", "%d").encode()
        if count == 0:
            fixed = octets % ()
            return lambda n: fixed
        if count == 1:
            return octets.__mod__
        return lambda n: octets % ((n,) * count)
    return lambda n: "".join([part if isinstance(part, str) else part(n, i) for part in parts]).encode()


def _header(
    message: Message, values: Values, document: Document, path: tuple[object, ...], now: datetime
) -> Formatter | None:
    fields = {
        RUN_HEADER: "{run}",
        "Date": format_datetime(now),
        "From": "<{sender}>",
        "To": "<{recipient}>",
        "Subject": message.subject,
        "Message-ID": "<{n}.{run}@{client}>",
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
    }
    own = {name.lower() for name in message.headers}
    fields = {name: value for name, value in fields.items() if name == RUN_HEADER or name.lower() not in own}
    parts: list[str | Provider] = []
    for name, value in (fields | message.headers).items():
        where = (*path, "headers", name) if name in message.headers else (*path, "subject")
        try:
            header(name, value)
        except ValueError as error:
            document.problem(where, str(error))
            return None
        found = values.template(value, where)
        if found is None:
            return None
        parts += [f"{name}: ", *found, "\r\n"]
    return formatter(merged([*parts, "\r\n"]), values)


def _from_text(head: Formatter, text: list[str | Provider]) -> Render:
    def render(n: int) -> bytes:
        body = "".join([part if isinstance(part, str) else part(n, 0) for part in text]).encode()
        return head(n) + stuff_dots(normalise_line_ends(body)) + END_OF_DATA

    return render


def _generated(
    head: Formatter, low: int, high: int, seed: int, document: Document, path: tuple[object, ...]
) -> Render | None:
    least = max(len(head(n)) for n in (0, 10**9))
    if low < least:
        document.problem((*path, "size"), f"the header alone takes {least} octets; a size must leave room for it")
        return None
    lines = _LINE * (high // len(_LINE) + 1)
    # the end is cut off anywhere: where the cut would fall between CR and LF, the other filler has none there
    fillers = tuple(memoryview(lines + _LINE[drop:] + END_OF_DATA) for drop in (0, 1))
    span = high - low + 1
    more = len(END_OF_DATA)

    def render(n: int) -> Wire:
        begin = head(n)
        size = low if span == 1 else low + mix(seed, "message.size", n) % span
        rest = size - len(begin) + more
        filler = fillers[0][-rest:]
        if filler[0] == 10:
            filler = fillers[1][-rest:]
        if size < _JOIN_BYTES:
            return begin + filler
        return begin, filler  # type: ignore[return-value]  # a view is as good as bytes to a socket

    if span == 1 and low < _JOIN_BYTES:
        return _fixed_size(head, low + more, fillers)
    return render


def _fixed_size(head: Formatter, whole: int, fillers: tuple[memoryview, ...]) -> Render:
    """The same for one small size: the ends are cut beforehand, one for each length that the header may have."""
    tails: dict[int, bytes] = {}

    def render(n: int) -> bytes:
        begin = head(n)
        tail = tails.get(len(begin))
        if tail is None:
            rest = whole - len(begin)
            filler = fillers[0][-rest:]
            tail = tails[len(begin)] = bytes(fillers[1][-rest:] if filler[0] == 10 else filler)
        return begin + tail

    return render


def _from_files(
    message: Message, document: Document, path: tuple[object, ...], folder: Path, run_id: str, seed: int
) -> Render | None:
    where = (*path, "eml")
    pattern = message.eml or ""
    try:
        base, relative = (Path("/"), pattern.lstrip("/")) if pattern.startswith("/") else (folder, pattern)
        files = sorted(file for file in base.glob(relative) if file.is_file())[: MAX_FILES + 1]
    except (ValueError, NotImplementedError) as error:
        document.problem(where, f"{pattern!r} is no pattern of file names: {error}")
        return None
    if not files or len(files) > MAX_FILES:
        document.problem(where, f"{pattern!r} names {'no file' if not files else f'more than {MAX_FILES:,} files'}")
        return None
    run_header = header(RUN_HEADER, run_id)
    wires: list[Wire] = []
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            document.problem(where, f"{file}: {(error.strerror or str(error)).lower()}")
            return None
        body = stuff_dots(normalise_line_ends(content)) + END_OF_DATA
        wires.append(run_header + body if len(body) < _JOIN_BYTES else (run_header, body))
    count = len(wires)
    if message.order == "random":
        return lambda n: wires[mix(seed, "message.eml", n) % count]
    return lambda n: wires[n % count]
