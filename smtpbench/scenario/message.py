"""Rendering of messages, prepared as far as possible before the run.

A generated message has a header that differs between messages, and filler that does not. `render(n)` formats the header and
takes as much from the end of the filler as gives the exact size. A small message is joined to one piece. A large one is a
pair of header and a view of the filler, so that its octets are shared and never copied.

Of a text, the lines without values are encoded and their dots stuffed once; a message renders only the lines with values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path

from smtpbench.scenario.content import Message
from smtpbench.scenario.corpus import VIEW_BYTES, Corpora, Corpus, ReportFiles
from smtpbench.scenario.file_access import FileAccess, OutsideFolder
from smtpbench.scenario.mbox import messages_in
from smtpbench.scenario.reader import Document
from smtpbench.scenario.values import Provider, Values, merge_text, mix
from smtpbench.session.script import Wire
from smtpbench.smtp.content import END_OF_DATA, header, normalise_line_ends, stuff_dots

DEFAULT_BYTES = (4096, 4096)
RUN_HEADER = "X-Smtpbench-Run"

_LINE = b"x" * 76 + b"\r\n"
#: Messages below this size are joined; larger ones refer to the shared filler.
_JOIN_BYTES = VIEW_BYTES
MAX_BYTES = 256 * 1024 * 1024
MAX_FILES = 10_000

#: Files of a corpus between two reports of progress.
_FILES_PER_REPORT = 100

#: Function that returns the message of arrival n as it is sent, the final dot included.
Render = Callable[[int], Wire]


def compile_message(
    message: Message, values: Values, document: Document, path: tuple[object, ...], files: FileAccess, *, run_id: str,
    seed: int, now: datetime, corpora: Corpora, extend: bool = False,
) -> Render | None:  # fmt: skip
    """Return the function that renders a message; None, with problems in the document, if it has a mistake.

    With `extend`, a size below that of the header is no mistake: the message is the header and one line.
    """
    if sum(part is not None for part in (message.size, message.eml, message.text)) > 1:
        document.problem(path, "a message may have only one of `size`, `eml` and `text`")
        return None
    if message.eml is not None:
        return _from_files(message, document, path, files, corpora, run_id, seed)
    header_of = _header(message, values, document, path, now)
    if header_of is None:
        return None
    if message.text is not None:
        text = values.template(message.text, (*path, "text"), line_ends=True)
        return None if text is None else _from_text(header_of, text)
    low, high = message.size or DEFAULT_BYTES
    if high > MAX_BYTES:
        document.problem((*path, "size"), f"this size is too large; at most {MAX_BYTES // 1024**2} MiB are allowed")
        return None
    least = max(len(header_of(n)) for n in (0, 10**9))
    if low < least and extend:
        low = high = least + len(_LINE)
    if low < least:
        document.problem((*path, "size"), f"this size is too small; the header alone takes {least} octets")
        return None
    return _generated(header_of, low, high, seed)


Formatter = Callable[[int], bytes]


def formatter(parts: list[str | Provider], values: Values, i: int = 0) -> Formatter:
    """Return the fastest function that formats the parts of a template for arrival n, iteration i."""
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
    return formatter(merge_text([*parts, "\r\n"]), values)


def _from_text(header_of: Formatter, text: list[str | Provider]) -> Render:
    """Prepare all lines without values; the others are rendered for each message. See `_constant_and_varying`."""
    pieces: list[bytes | list[str | Provider]] = [
        _as_sent(piece) if isinstance(piece, str) else piece for piece in _constant_and_varying(text)
    ]
    tail = END_OF_DATA
    while pieces and isinstance(last := pieces[-1], bytes):
        tail = last + tail
        pieces.pop()

    def render(n: int) -> Wire:
        head = b"".join([header_of(n), *(piece if isinstance(piece, bytes) else _rendered(piece, n) for piece in pieces)])
        return head + tail if len(tail) < _JOIN_BYTES else (head, tail)

    return render


def _as_sent(text: str) -> bytes:
    return stuff_dots(normalise_line_ends(text.encode()))


def _rendered(parts: list[str | Provider], n: int) -> bytes:
    return _as_sent("".join([part if isinstance(part, str) else part(n, 0) for part in parts]))


def _constant_and_varying(text: list[str | Provider]) -> list[str | list[str | Provider]]:
    """Divide a text behind line feeds into pieces: constant ones, and those with a value, as parts of a template.

    A line feed ends a line whatever stands around it, so each piece can be prepared for sending by itself.
    """
    found: list[str | list[str | Provider]] = []
    line: list[str | Provider] = []  # a piece with a value whose last line has not ended
    for part in text:
        if not isinstance(part, str):
            line.append(part)
            continue
        if line:
            end = part.find("\n") + 1
            if not end:
                line.append(part)
                continue
            found.append([*line, part[:end]])
            line, part = [], part[end:]
        end = part.rfind("\n") + 1
        if part[:end]:
            found.append(part[:end])
        if part[end:]:
            line = [part[end:]]
    if line:
        found.append(line if any(not isinstance(part, str) for part in line) else "".join(map(str, line)))
    return found


def _generated(header_of: Formatter, low: int, high: int, seed: int) -> Render:
    lines = _LINE * (high // len(_LINE) + 1)
    # if the cut falls between CR and LF, the second filler is used, whose lines are shifted by one octet
    fillers = tuple(memoryview(lines + _LINE[drop:] + END_OF_DATA) for drop in (0, 1))
    span = high - low + 1
    end_size = len(END_OF_DATA)

    def render(n: int) -> Wire:
        head = header_of(n)
        size = low if span == 1 else low + mix(seed, "message.size", n) % span
        rest = size - len(head) + end_size
        filler = fillers[0][-rest:]
        if filler[0] == 10:
            filler = fillers[1][-rest:]
        if size < _JOIN_BYTES:
            return head + filler
        return head, filler  # type: ignore[return-value]  # sockets take views like bytes

    if span == 1 and low < _JOIN_BYTES:
        return _fixed_size(header_of, low + end_size, fillers)
    return render


def _fixed_size(header_of: Formatter, wire_size: int, fillers: tuple[memoryview, ...]) -> Render:
    """Render messages of one small size: the filler for each length of the header is cut only once."""
    tails: dict[int, bytes] = {}

    def render(n: int) -> bytes:
        head = header_of(n)
        tail = tails.get(len(head))
        if tail is None:
            rest = wire_size - len(head)
            filler = fillers[0][-rest:]
            tail = tails[len(head)] = bytes(fillers[1][-rest:] if filler[0] == 10 else filler)
        return head + tail

    return render


def _from_files(
    message: Message, document: Document, path: tuple[object, ...], access: FileAccess, corpora: Corpora, run_id: str,
    seed: int,
) -> Render | None:  # fmt: skip
    where = (*path, "eml")
    pattern = message.eml or ""
    corpus = corpora.find(pattern)
    if corpus is None:
        files = _matching_files(pattern, document, where, access)
        if not files:
            return None
        try:
            corpus = corpora.add(pattern, _prepared(files, corpora.report))
        except OSError as error:
            about = error.filename or "the temporary file of the prepared messages (TMPDIR)"
            document.problem(where, f"{about}: {(error.strerror or str(error)).lower()}")
            return None
    return _from_corpus(corpus, header(RUN_HEADER, run_id), seed if message.order == "random" else None)


def _matching_files(pattern: str, document: Document, where: tuple[object, ...], access: FileAccess) -> list[Path]:
    """Return the files of a corpus; none, with a problem in the document, if they cannot be used."""
    try:
        files = access.matches(pattern, MAX_FILES + 1)
    except OutsideFolder as error:
        document.problem(where, str(error))
        return []
    except (ValueError, NotImplementedError) as error:
        document.problem(where, f"{pattern!r} is not a pattern of file names: {error}")
        return []
    if not files or len(files) > MAX_FILES:
        document.problem(
            where, f"{pattern!r} matches {'no file' if not files else f'more than {MAX_FILES:,} files, which is the limit'}"
        )
        return []
    return files


def _prepared(files: Sequence[Path], report: ReportFiles) -> Iterator[bytes]:
    """Yield the messages of files as they are sent, without the header field of the run. Raises OSError."""
    for done, file in enumerate(files):
        if done % _FILES_PER_REPORT == 0:
            report(done, len(files))
        for one in messages_in(file.read_bytes()):
            yield stuff_dots(normalise_line_ends(one)) + END_OF_DATA
    report(len(files), len(files))


def _from_corpus(corpus: Corpus, run_header: bytes, seed: int | None) -> Render:
    """Return the function that renders the messages of a corpus: in their order or, with a seed, in random order."""
    count = len(corpus)

    def render(n: int) -> Wire:
        body = corpus.message(n % count if seed is None else mix(seed, "message.eml", n) % count)
        return run_header + body if len(body) < _JOIN_BYTES else (run_header, body)

    return render
