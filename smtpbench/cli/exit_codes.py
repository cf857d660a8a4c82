"""How every command ends: one message on standard error, an exit code from `EXIT_CODES`, and never a traceback.

Theory of operation: `exit_code_of` calls the command and is the only function that catches every error. It first opens
standard output and standard error again, on a file that remembers its first error and raises none. A command therefore
needs no handling of failed output, and one that measured something saves it. Only then does failed output become the exit
code.
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
from typing import Any, NamedTuple, TextIO

import typer

from smtpbench import __version__
from smtpbench.errors import CannotRun, SmtpbenchError, UsageError
from smtpbench.text import did_you_mean, printable, visible

FINDINGS = 1
INCOMPLETE = 4
THRESHOLD_FAILED = 99
BUG = 70
INTERRUPTED = 130
PIPE_CLOSED = 141


class ExitCode(NamedTuple):
    """An exit code.

    Attributes:
        code: The number.
        name: What it says, in a few words.
        meaning: When it is used.
    """

    code: int
    name: str
    meaning: str


EXIT_CODES = (
    ExitCode(0, "fine", "The command did what it was asked for, and found nothing wrong."),
    ExitCode(FINDINGS, "findings", "The server broke a rule, a candidate is worse than the first, or the machine is unfit."),
    ExitCode(
        UsageError.exit_code,
        "usage or scenario error",
        "An option, a URL or a file cannot be understood; the message names the place.",
    ),
    ExitCode(
        CannotRun.exit_code,
        "could not run",
        "The target, a server that does not start, a certificate, a login or this machine stands in the way.",
    ),
    ExitCode(
        INCOMPLETE,
        "incomplete: a worker lost, nothing accepted",
        "The run sent messages and none was accepted, or a part of it was lost; the report says why.",
    ),
    ExitCode(BUG, "bug in smtpbench", "An error that smtpbench did not expect; the message names a file with details."),
    ExitCode(THRESHOLD_FAILED, "threshold failed", "A threshold of the run does not hold, or no rate meets the objectives."),
    ExitCode(INTERRUPTED, "interrupted", "SIGINT or SIGTERM ended the command; what was measured until then is saved."),
    ExitCode(PIPE_CLOSED, "output pipe closed", "The program that reads the output has ended."),
)
DEBUG_VARIABLE = "SMTPBENCH_DEBUG"

#: ASCII in place of a character that the encoding of the output does not have.
_ASCII = {
    "→": "->", "…": "...", "–": "-", "—": "-", "×": "x", "≤": "<=", "≥": ">=", "±": "+-", "·": "-", "µ": "u", "\xa0": " ",
    "’": "'", "“": '"', "”": '"', **dict.fromkeys("▁▂▃▄▅▆▇█", "#"),
}  # fmt: skip


def exit_code_of(command: Callable[[], object]) -> int:
    """Call a command, report what went wrong, and return the exit code."""
    _open_closed_descriptors()
    sys.stdout, output = safe_stream(sys.stdout)
    sys.stderr, _ = safe_stream(sys.stderr)
    code = 0
    try:
        command()
    except typer.Exit as end:
        code = end.exit_code
    except BaseException as error:
        code = _report(error)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # the exit code of the work comes first: a failed threshold is 99, whether or not the table could be written
    return code if code or output is None or output.failure is None else _report_output_failure(output.failure)


class SafeOutput(io.FileIO):
    """A descriptor for output. The first failed write is kept, and everything after it is discarded.

    It never raises: a run must not be lost because its progress cannot be written, or because a disk is full.

    Attributes:
        failure: Error of the first write that failed; None for none.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return len(data)


def safe_stream(stream: TextIO) -> tuple[TextIO, SafeOutput | None]:
    """Return a standard stream that never raises, and the output below it.

    Characters that its encoding does not have are replaced. A stream in memory is returned as it is, with None.
    """
    try:
        file = SafeOutput(stream.fileno(), "wb", closefd=False)
    except OSError:
        return stream, None
    stream.flush()
    write_through = getattr(stream, "write_through", False)
    line_buffering = getattr(stream, "line_buffering", False)
    buffered = io.BufferedWriter(file)
    return io.TextIOWrapper(buffered, stream.encoding, ASCII_ERRORS, line_buffering=write_through or line_buffering), file


def usage_message(error: typer.TyperException) -> str:
    """Return one line on what typer found wrong with the arguments, and where the help is."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "smtpbench"
    message = _rephrased(" ".join(error.format_message().split()).rstrip("."))
    unknown = getattr(error, "option_name", None)
    if unknown is not None and hasattr(error, "possibilities"):
        known = [name for one in context.command.get_params(context) for name in (*one.opts, *one.secondary_opts)]
        hint = did_you_mean(unknown.lstrip("-"), [name[2:] for name in known if name.startswith("--")], "--")
        message = f"there is no option {visible(unknown)}{hint}"
    return f"{visible(message, 1000)}{'' if message.endswith('?') else ';'} `{path} --help` lists the options"


def _rephrased(message: str) -> str:
    """Return a message of typer or pydantic in the style of the others, with the nearest choice."""
    message = re.sub(r"Input should be (.*?)(, unable to parse .*)?$", r"the value must be \1", message)
    message = message.replace("Value error, ", "").replace("greater than or equal to", "at least")
    message = message.replace("less than or equal to", "at most")
    choice = re.search(r"'([^']*)' is not one of (.*)", message)
    hint = did_you_mean(choice[1], re.findall("'([^']*)'", choice[2])) if choice else ""
    return message[:1].lower() + message[1:] + hint


def _report(error: BaseException) -> int:
    """Print the message of an error, and return its exit code."""
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return INTERRUPTED
    first = leaves[0]
    if isinstance(first, SystemExit):
        return first.code if isinstance(first.code, int) else int(first.code is not None)
    if isinstance(first, typer.Abort):
        return INTERRUPTED
    if isinstance(first, SmtpbenchError):
        _print(str(first))
        return first.exit_code
    if isinstance(first, typer.TyperException):
        _print(usage_message(first))
        return UsageError.exit_code
    _print(_bug_message(error))
    return BUG


def _report_output_failure(failure: OSError) -> int:
    if isinstance(failure, BrokenPipeError):
        return PIPE_CLOSED
    _print(f"the output cannot be written: {(failure.strerror or str(failure)).lower()}")
    return CannotRun.exit_code


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _bug_message(error: BaseException) -> str:
    """Return the message for an unexpected error.

    Its traceback goes into a file, or into the message where the environment asks for it.
    """
    text = "".join(traceback.format_exception(error))
    last = visible(traceback.format_exception_only(error)[-1].strip(), 300)
    about = f"smtpbench {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}\n\n"
    if os.environ.get(DEBUG_VARIABLE):
        details = visible(text, 100_000).replace("\\n", "\n").rstrip()
    else:
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", errors="backslashreplace", prefix="smtpbench-bug-", suffix=".txt", delete=False
            ) as file:
                file.write(about + text)
            details = f"the traceback is in {file.name}; please attach it to a report"
        except OSError:
            details = f"set {DEBUG_VARIABLE}=1 to see the traceback"
    return f"this is a bug in smtpbench, not a mistake of yours: {last}\n{details}"


def _print(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"smtpbench: {printable(text)}", file=sys.stderr, flush=True)


def _open_closed_descriptors() -> None:
    """Open the null device for each standard stream that is closed.

    A command may be started with standard output closed. No other file may then get its number, and writing must not fail.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # the system gives out the lowest free number, which is the one of this stream
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False))


def _replace_characters(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error: `→` becomes `->`, others are escaped as in JSON, so that JSON output stays valid."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = [_ASCII.get(character) or _escaped(character) for character in error.object[error.start : error.end]]
    return "".join(units), error.end


def _escaped(character: str) -> str:
    octets = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{octets[at : at + 2].hex()}" for at in range(0, len(octets), 2))


ASCII_ERRORS = "smtpbench.ascii"
codecs.register_error(ASCII_ERRORS, _replace_characters)
