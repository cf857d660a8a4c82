"""How a command ends, whatever happened: one message on stderr, an exit code, never a traceback.

    0    fine                                   70   a bug in smtpbench
    1    findings                               99   a threshold failed
    2    usage or scenario error                130  interrupted, what there was is saved
    3    could not run                          141  the reader of the output has gone

Theory of operation: `ended` calls the command and is the only place that catches everything. stdout and stderr are opened
anew on a file that remembers what went wrong with it and raises nothing. So no command has to mind its output, one that
measured something gets to save it, and only then does a failed output become the exit code.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import typer

from smtpbench import __version__
from smtpbench.errors import CannotRun, SmtpbenchError, UsageError
from smtpbench.text import did_you_mean, visible

BUG = 70
INTERRUPTED = 130
PIPE_CLOSED = 141
DEBUG_VARIABLE = "SMTPBENCH_DEBUG"

#: What a terminal that cannot show a character gets instead.
_PLAIN = {
    "→": "->", "…": "...", "–": "-", "—": "-", "×": "x", "≤": "<=", "≥": ">=", "±": "+-", "·": "-", "µ": "u", "\xa0": " ",
    "’": "'", "“": '"', "”": '"', **dict.fromkeys("▁▂▃▄▅▆▇█", "#"),
}  # fmt: skip


def ended(command: Callable[[], object]) -> int:
    """Call it, tell the user what went wrong, and say what to exit with."""
    _occupy_closed_descriptors()
    sys.stdout, out = watched(sys.stdout)
    sys.stderr, _ = watched(sys.stderr)
    code = 0
    try:
        command()
    except typer.Exit as end:
        code = end.exit_code
    except BaseException as error:
        code = _told(error)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # what a command has to say of its work goes first: 99 is 99, whether or not anybody reads the table
    return code if code or out is None or out.failure is None else _told_of_output(out.failure)


class Output(io.FileIO):
    """A descriptor that is written to. Where that fails, the first failure is kept and all that follows goes nowhere.

    It never raises: a run must not be lost because nobody reads its progress any more, or because a disk is full.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return len(data)


def watched(stream: TextIO) -> tuple[TextIO, Output | None]:
    """A standard stream, made to write what it can in place of what its encoding cannot hold; and what it writes to."""
    try:
        file = Output(stream.fileno(), "wb", closefd=False)
    except OSError:  # one that is in memory
        return stream, None
    stream.flush()
    at_once = getattr(stream, "write_through", False)
    lines = getattr(stream, "line_buffering", False)
    buffered = io.BufferedWriter(file)
    return io.TextIOWrapper(buffered, stream.encoding, REPLACE, line_buffering=at_once or lines), file


def usage(error: typer.TyperException) -> str:
    """What typer found wrong with the arguments, in our words and one line."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "smtpbench"
    told = _worded(" ".join(error.format_message().split()).rstrip("."))
    wrong = getattr(error, "option_name", None)
    if wrong is not None and hasattr(error, "possibilities"):
        known = [name for one in context.command.get_params(context) for name in (*one.opts, *one.secondary_opts)]
        hint = did_you_mean(wrong.lstrip("-"), [name[2:] for name in known if name.startswith("--")], "--")
        told = f"there is no option {visible(wrong)}{hint}"
    return f"{visible(told, 1000)}{'' if told.endswith('?') else ';'} `{path} --help` says how it is used"


def _worded(told: str) -> str:
    """Without the phrases of libraries, and with the nearest choice."""
    told = re.sub(r"Input should be (.*?)(, unable to parse .*)?$", r"it should be \1", told.replace("Value error, ", ""))
    choice = re.search(r"'([^']*)' is not one of (.*)", told)
    hint = did_you_mean(choice[1], re.findall("'([^']*)'", choice[2])) if choice else ""
    return told[:1].lower() + told[1:] + hint


def _told(error: BaseException) -> int:
    """Say what is to be said of an error; its exit code."""
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return INTERRUPTED
    first = leaves[0]
    if isinstance(first, SystemExit):
        return first.code if isinstance(first.code, int) else int(first.code is not None)
    if isinstance(first, typer.Abort):
        return INTERRUPTED
    if isinstance(first, SmtpbenchError):
        _say(str(first))
        return first.exit_code
    if isinstance(first, typer.TyperException):
        _say(usage(first))
        return UsageError.exit_code
    _say(_bug(error))
    return BUG


def _told_of_output(failure: OSError) -> int:
    if isinstance(failure, BrokenPipeError):
        return PIPE_CLOSED
    _say(f"the output cannot be written: {(failure.strerror or str(failure)).lower()}")
    return CannotRun.exit_code


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _bug(error: BaseException) -> str:
    """The message for an error that nobody foresaw; its traceback goes into a file, or to stderr where that is asked for."""
    text = "".join(traceback.format_exception(error))
    last = visible(traceback.format_exception_only(error)[-1].strip(), 300)
    about = f"smtpbench {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}\n\n"
    if os.environ.get(DEBUG_VARIABLE):
        where = visible(text, 100_000).replace("\\n", "\n").rstrip()
    else:
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", errors="backslashreplace", prefix="smtpbench-bug-", suffix=".txt", delete=False
            ) as file:
                file.write(about + text)
            where = f"its traceback is in {file.name}; please send it along"
        except OSError:
            where = f"{DEBUG_VARIABLE}=1 shows its traceback"
    return f"this is a bug in smtpbench, and nothing that you did: {last}\n{where}"


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"smtpbench: {text}", file=sys.stderr, flush=True)


def _occupy_closed_descriptors() -> None:
    """A command may be started with stdout closed: nothing else may get its number, nor may writing to it fail."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # the lowest free number is given out, which is this one
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False))


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """The error handler: `→` as `->`, anything else as JSON spells it, so that JSON is still JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = [_PLAIN.get(character) or _escaped(character) for character in error.object[error.start : error.end]]
    return "".join(units), error.end


def _escaped(character: str) -> str:
    octets = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{octets[at : at + 2].hex()}" for at in range(0, len(octets), 2))


REPLACE = "smtpbench.plainly"
codecs.register_error(REPLACE, _plainly)
