"""Which processes are the server under test, where smtpbench does not start it.

`listener_of` finds the process behind a loopback target: the inode of the listening socket in `/proc/net`, and then the
processes that hold it in `/proc/*/fd`. (`psutil.net_connections` names one holder of a socket, not all of them, so these
two are read here.) `resolve_watch` finds the processes that `--watch` names. What this user may not read is not known.

smtpbench never watches a process that it is part of itself: what it spends would be counted as the server's.
"""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from smtpbench.engine.connection import Route
from smtpbench.errors import CannotRun, UsageError
from smtpbench.supervisor.server_options import Watch, parse_watch
from smtpbench.text import visible

_SYSTEMCTL_S: Final = 10
#: proc_net_tcp: state of a socket that listens; unix(7): flag of one.
_TCP_LISTEN: Final = "0A"
_UNIX_LISTENS: Final = 0x10000
#: Programs that hold sockets for servers which they start later, or which run elsewhere.
_MANAGERS: Final = frozenset({"systemd", "init", "inetd", "xinetd", "openrc-init", "runit", "s6-svscan"})
_FORWARDERS: Final = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta", "pasta.avx2", "ssh", "kubectl"})
#: Programs whose file says nothing about which server a process is.
_INTERPRETER: Final = re.compile(
    r"(python|pypy|node|nodejs|ruby|perl|php|java|dotnet|beam|sh|bash|dash|zsh|busybox|env)[\d.]*"
)
#: Controllers (cgroup v1) in the order in which their folder of a cgroup is preferred: the one that counts CPU time first.
_CONTROLLERS: Final = ("cpuacct", "memory", "pids", "name=systemd")


@dataclass(frozen=True, slots=True)
class WatchedProcesses:
    """The processes of a server that runs already.

    Attributes:
        main: Its first process; the others are its descendants, or those of the cgroup.
        cgroup: Folder of the cgroup that holds all of them; None if they were not named by one.
    """

    main: psutil.Process
    cgroup: Path | None = None


def resolve_watch(watch: Watch) -> WatchedProcesses:
    """Return the processes that `--watch` names. For a unit, this asks systemctl, which may take a moment.

    Raises:
        UsageError: The value is malformed, or names processes that smtpbench is part of.
        CannotRun: There is no such process, cgroup or unit, or it has no process.
    """
    option = f"--watch {watch.kind}:{watch.value}"
    parse_watch(f"{watch.kind}:{watch.value}")
    if watch.kind == "unit":
        return _unit_processes(watch.value, option)
    if watch.kind == "cgroup":
        folder = _cgroup_folder(watch.value)
        if folder is None:
            raise CannotRun(f"{option}: there is no such cgroup; use a path below /sys/fs/cgroup, as in /proc/PID/cgroup")
        return _cgroup_processes(folder, option)
    try:
        process = psutil.Process(int(watch.value))
    except (psutil.NoSuchProcess, OverflowError):
        raise CannotRun(f"{option}: there is no process {watch.value}; use the identifier of one that runs") from None
    _refuse_own(process, option)
    return WatchedProcesses(process)


def listener_of(routes: Iterable[Route]) -> psutil.Process | None:
    """Return the process that listens on a loopback address or a unix socket; None if that cannot be told.

    Often several processes hold the socket: Postfix's master opens it, and its children smtpd accept from it. Of those, the
    one that is no descendant of another is returned, because it is there for as long as the server, and because what the
    whole server spends is what this process and its descendants spend. Its parent takes its place where both run the same
    program (OpenSMTPD opens its sockets in a child). If processes without a common holder share a port (SO_REUSEPORT), their
    nearest common ancestor is returned, or the oldest of them if they have none of their own.

    A service manager that holds the socket is not the server, and neither is a program that forwards connections. A process
    that smtpbench is part of is not returned.

    Args:
        routes: Routes to the target, in order of preference; the first with a listener counts.
    """
    for route in routes:
        inodes = _listening_sockets(route)
        if inodes and (holders := _holders(inodes)):
            return _first_process(holders)
    return None


def listening_sockets(routes: Iterable[Route]) -> frozenset[str]:
    """Return the inodes of the sockets that accept the connections of the first route that has any; see `listener_of`."""
    return frozenset(next(filter(None, map(_listening_sockets, routes)), ()))


def _listening_sockets(route: Route) -> set[str]:
    """Return the inodes of the sockets that accept connections of a route: those of the address before the wildcards."""
    if isinstance(route.address, str):
        return _unix_sockets(route.address)
    address = ipaddress.ip_address(str(route.address[0]).partition("%")[0])
    if not address.is_loopback:
        return set()
    found: dict[str, set[str]] = {}
    for table in ("tcp", "tcp6"):
        for local, port, inode in _listening_tcp(table):
            if port == route.address[1]:
                found.setdefault(local, set()).add(inode)
    mapped = getattr(address, "ipv4_mapped", None) or address
    places = [str(mapped), f"::ffff:{mapped}", "0.0.0.0", "::"] if mapped.version == 4 else [str(address), "::"]
    return next((found[place] for place in places if place in found), set())


def _listening_tcp(table: str) -> Iterator[tuple[str, int, str]]:
    """Yield address, port and inode of the listening sockets in a table of /proc/net."""
    for line in _lines_of(f"/proc/net/{table}")[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _TCP_LISTEN:
            local, _, port = fields[1].rpartition(":")
            yield _address(local), int(port, 16), fields[9]


def _address(text: str) -> str:
    """Return an address of /proc/net, which is written in numbers of 32 bits in the byte order of the machine."""
    octets = bytes.fromhex(text)
    if sys.byteorder == "little":
        octets = b"".join(octets[start : start + 4][::-1] for start in range(0, len(octets), 4))
    if len(octets) == 4:
        return str(ipaddress.IPv4Address(octets))
    address = ipaddress.IPv6Address(octets)
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)


def _unix_sockets(path: str) -> set[str]:
    place = os.path.realpath(path)
    found = set()
    for line in _lines_of("/proc/net/unix")[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) < 8 or not int(fields[3], 16) & _UNIX_LISTENS:
            continue
        # a name that is relative was bound in the server's folder, which is not known here
        if fields[7].startswith("/") and os.path.realpath(fields[7]) == place:
            found.add(fields[6])
    return found


def _lines_of(file: str) -> list[str]:
    with suppress(OSError), open(file, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        return lines.read().split("\n")
    return []


def _holders(inodes: set[str]) -> list[psutil.Process]:
    """Return the servers that hold a descriptor of a socket, as far as this user may read that."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    holders = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.NoSuchProcess), os.scandir(f"/proc/{process.pid}/fd") as descriptors:
            holds = any(_link(descriptor) in wanted for descriptor in descriptors)
            if holds and process.name() not in _MANAGERS | _FORWARDERS:
                holders.append(process)
    return holders


def _link(entry: os.DirEntry[str]) -> str:
    with suppress(OSError):
        return os.readlink(entry)
    return ""


def _first_process(processes: Sequence[psutil.Process]) -> psutil.Process | None:
    """Return the process of which all others are descendants; see `listener_of`."""
    own = _with_ancestors(psutil.Process())
    lines = {process: _with_ancestors(process) for process in processes}
    roots = [process for process in processes if not any(other in lines for other in lines[process][1:])]
    if not roots:
        return None
    first = min(roots, key=lambda process: (process.create_time(), process.pid))
    if len(roots) > 1:
        shared = [other for other in lines[first][1:] if all(other in lines[root] for root in roots)]
        first = next((other for other in shared if other not in own and other.name() not in _MANAGERS), first)
    for parent in _with_ancestors(first)[1:]:
        if parent in own or not _same_program(parent, first):
            break
        first = parent
    return None if first in own else first


def _with_ancestors(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [process, *process.parents()]
    return [process]


def _same_program(parent: psutil.Process, child: psutil.Process) -> bool:
    """Return whether two processes are parts of one program: they run the same file, which is not an interpreter."""
    with suppress(psutil.Error):
        program = parent.exe()
        if not program or program != child.exe():
            return False
        return not _INTERPRETER.fullmatch(os.path.basename(program)) or parent.cmdline() == child.cmdline()
    return False


def _refuse_own(process: psutil.Process, option: str) -> None:
    if process in _with_ancestors(psutil.Process()):
        raise UsageError(f"{option} is smtpbench itself, or a process that started it; use the process of the server")


def _unit_processes(unit: str, option: str) -> WatchedProcesses:
    properties = ("LoadState", "ActiveState", "MainPID", "ControlGroup")
    command = ["systemctl", "show", *(f"--property={name}" for name in properties), "--", unit]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=_SYSTEMCTL_S
        )
    except FileNotFoundError:
        raise CannotRun(f"{option}: systemctl is not installed here; use pid:N or cgroup:PATH") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRun(f"{option}: systemctl cannot be asked: {error}; use pid:N or cgroup:PATH") from None
    if done.returncode:
        reason = visible(done.stderr.strip().partition("\n")[0]) or f"exit status {done.returncode}"
        raise CannotRun(f"{option}: systemctl says: {reason}; use pid:N or cgroup:PATH")
    found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    if found.get("LoadState") == "not-found":
        raise CannotRun(f"{option}: there is no such unit; `systemctl list-units` shows those that there are")
    folder = _cgroup_folder(found["ControlGroup"]) if found.get("ControlGroup") else None
    main = found.get("MainPID", "0")
    if main.isdigit() and int(main):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(main))
            _refuse_own(process, option)
            return WatchedProcesses(process, folder)
    if folder is not None:
        return _cgroup_processes(folder, option)
    raise CannotRun(f"{option}: the unit has no process; it is {visible(found.get('ActiveState', 'not active'))}")


def _cgroup_folder(path: str) -> Path | None:
    """Return the folder of a cgroup, given by its path below the root of cgroups, or as a folder."""
    if path.startswith("/sys/") and Path(path, "cgroup.procs").is_file():
        return Path(path)
    mounts = [part for part in psutil.disk_partitions(all=True) if part.fstype in ("cgroup", "cgroup2")]
    mounts.sort(key=lambda part: _preference(part.fstype, part.opts.split(",")))
    folders = (Path(part.mountpoint, path.lstrip("/")) for part in mounts)
    return next((folder for folder in folders if (folder / "cgroup.procs").is_file()), None)


def _preference(kind: str, options: Sequence[str]) -> int:
    if kind == "cgroup2":
        return 0
    return next((rank for rank, name in enumerate(_CONTROLLERS, 1) if name in options), len(_CONTROLLERS) + 1)


def _cgroup_processes(folder: Path, option: str) -> WatchedProcesses:
    found = []
    for file in sorted(folder.rglob("cgroup.procs")):
        for line in _lines_of(str(file)):
            with suppress(psutil.NoSuchProcess, ValueError):
                found.append(psutil.Process(int(line)))
    if not found:
        raise CannotRun(f"{option}: the cgroup has no process that can be seen here; start the server first")
    if os.getpid() in {process.pid for process in found}:
        raise UsageError(f"{option} holds smtpbench itself; use the cgroup of the server")
    first = _first_process(found)
    if first is None or first not in found:
        first = min(found, key=lambda process: (process.create_time(), process.pid))
    return WatchedProcesses(first, folder)
