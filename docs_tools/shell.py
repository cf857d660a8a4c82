"""Run the commands of a page as a reader would: one after the other, in one folder, with the servers it starts.

Every command runs in a bash of its own. Between them the exported variables, the current folder and the last exit code
are kept, so a page may `cd` and `export`. A server (`… &`) gets a process group of its own and is ended by it.

Ports: every port that the page names on the loopback is replaced by a free one in commands and files, and put back in
the output. Its folder is shown as `~/work` and the checkout as `~/smtpbench`. `make` runs only `make demo` for real,
because the other targets run the tests that run this.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from docs_tools.page import Block, Command, Page

ROOT = Path(__file__).resolve().parent.parent
#: Longest time for one command, seconds.
TIMEOUT_S = 300.0
#: Longest time until a server listens, seconds.
READY_S = 30.0
#: Ports for the servers of pages. Every process begins at another one and never uses one twice in a row.
_PORTS = range(20_000, 32_000)
_PORT_COUNTER = itertools.count(os.getpid() * 97)
_PORT = re.compile(r"(?:(?:127\.0\.0\.1|localhost|\[::1\]):|--metrics )(\d{2,5})\b")
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "published", "results", "site", "dist", "build"
)
#: Variables that would change what a command prints.
_NOT_PASSED_ON = re.compile(r"SMTPBENCH_|GITHUB_|PYTEST_|COV_|COVERAGE_|MAKE|MFLAGS|(NO_COLOR|FORCE_COLOR|COLUMNS|CI)$")


@dataclass(frozen=True)
class Ran:
    """A command that has ended, or a server that listens.

    Attributes:
        command: The command as the page has it.
        exit_code: Its exit code; 0 for a server.
        output: Lines that a terminal would show in the end, with the ports of the page.
        errors: What it wrote to standard error.
    """

    command: Command
    exit_code: int
    output: list[str]
    errors: str


@dataclass
class _Server:
    process: subprocess.Popen[bytes]
    log: Path


@dataclass
class Shell:
    """The shell of one page.

    Attributes:
        folder: Where its commands begin.
        ports: The ports of the page and those used instead.
    """

    folder: Path
    ports: dict[str, str]
    _state: Path
    _exit_code: int = 0
    _servers: list[_Server] = field(default_factory=list)

    def write(self, block: Block) -> None:
        """Write the file of a titled block."""
        file = Path(self._where(), block.title)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self._with_free_ports(block.text))

    def run(self, command: Command) -> Ran:
        """Run a command to its end, or start a server and wait until it listens.

        Raises:
            AssertionError: It does not end, or the server does not come up.
        """
        text = self._with_free_ports(command.text)
        if command.in_background:
            self._start(text[: text.rindex("&")])
            return Ran(command, 0, [], "")
        if ending := re.match(r"kill %(\d+)", text):
            _end(self._servers[int(ending[1]) - 1].process)
            return Ran(command, 0, [], "")
        process = self._bash(_dry(text), subprocess.PIPE, subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _end(process)
            process.communicate()
            raise AssertionError(f"`{command.text}` did not end within {TIMEOUT_S:g} s") from None
        self._exit_code = process.returncode
        output = out.decode(errors="replace") or err.decode(errors="replace")
        for path, name in ((self.folder, "~/work"), (ROOT, "~/smtpbench")):
            output = output.replace(str(path), name)
        return Ran(command, process.returncode, self._with_shown_ports(output).splitlines(), err.decode(errors="replace"))

    def end(self) -> None:
        """End the servers, the last first."""
        for server in reversed(self._servers):
            _end(server.process)

    def _bash(self, text: str, out: int, err: int) -> subprocess.Popen[bytes]:
        environment, folder = shlex.quote(f"{self._state}/environment"), shlex.quote(f"{self._state}/folder")
        script = (
            f'. {environment}; cd "$(cat {folder})" || exit 127; (exit {self._exit_code})\n{text}\n'
            f"code=$?; declare -px > {environment}; pwd > {folder}; exit $code"
        )
        return subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-c", script], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True, env={"PATH": _PATH},
        )  # fmt: skip

    def _start(self, text: str) -> None:
        log = self._state / f"server-{len(self._servers) + 1}.log"
        with log.open("ab") as out:
            process = self._bash(text, out.fileno(), out.fileno())
        self._servers.append(_Server(process, log))
        ports = {int(port) for port in _PORT.findall(text)}
        deadline = time.monotonic() + READY_S
        while not ports <= _listening():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"`{text.strip()}` does not listen\n{log.read_text(errors='replace')}")
            time.sleep(0.02)

    def _where(self) -> Path:
        return Path((self._state / "folder").read_text().strip())

    def _with_free_ports(self, text: str) -> str:
        return _replace(text, self.ports)

    def _with_shown_ports(self, text: str) -> str:
        return _replace(text, {free: shown for shown, free in self.ports.items()})


def _replace(text: str, ports: dict[str, str]) -> str:
    return re.sub(r"(?<![\d.])\d{2,5}(?![\d.]*\d)", lambda found: ports.get(found[0], found[0]), text)


def _dry(text: str) -> str:
    """Return `make` commands as dry runs, apart from `make demo`."""
    return re.sub(r"^make (?!demo\b)", "make --dry-run ", text)


def _listening() -> set[int]:
    """Return the TCP ports that something listens on, without a connection to any."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == "0A":
                    ports.add(int(local.rpartition(":")[2], 16))
    return ports


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def _free_ports(count: int) -> list[str]:
    """Return ports that nothing listens on, below those that the kernel gives to outgoing connections."""
    ports: list[str] = []
    while len(ports) < count:
        candidate = _PORTS.start + next(_PORT_COUNTER) % len(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
            ports.append(str(candidate))
    return ports


def ports_of(page: Page) -> list[str]:
    """Return the loopback ports that commands and files of a page name."""
    texts = [command.text for command in page.commands] + [block.text for block in page.blocks if block.title]
    return sorted({port for text in texts for port in _PORT.findall(text)})


@contextmanager
def opened(page: Page) -> Iterator[Shell]:
    """Open the shell of a page in a folder that other users can reach, and end its servers and the folder with it."""
    with tempfile.TemporaryDirectory(prefix="smtpbench-docs-", ignore_cleanup_errors=True) as temporary:
        base = Path(temporary)
        base.chmod(0o755)
        folder, state = base / "work", base / "state"
        state.mkdir()
        (base / "home").mkdir()
        if page.checkout:
            shutil.copytree(ROOT, folder, ignore=_NOT_COPIED)
            (folder / ".venv").mkdir()  # this environment, ready: nothing may be installed into it
            (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
            (folder / ".venv" / ".ready").touch()
        else:
            folder.mkdir()
        environment = {name: value for name, value in os.environ.items() if not _NOT_PASSED_ON.match(name)}
        environment |= {"HOME": str(base / "home"), "PATH": _PATH, "TERM": "dumb", "LANG": "C.UTF-8"}
        exports = [f"declare -x {name}={shlex.quote(value)}" for name, value in environment.items() if name.isidentifier()]
        (state / "environment").write_text("\n".join(exports) + "\n")
        (state / "folder").write_text(f"{folder}\n")
        shown = ports_of(page)
        shell = Shell(folder, dict(zip(shown, _free_ports(len(shown)), strict=True)), state)
        try:
            yield shell
        finally:
            shell.end()
