"""The cgroup of a listening socket: the kernel's answer, and which cgroups are those of one service."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil
import pytest

from smtpbench.supervisor import socket_cgroup
from smtpbench.supervisor.socket_cgroup import cgroup_of


def own_cgroup() -> Path | None:
    """The folder of this process's cgroup (v2), if it is mounted here."""
    path = next((line[4:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::/")), None)
    mounts = [mount.mountpoint for mount in psutil.disk_partitions(all=True) if mount.fstype == "cgroup2"]
    return Path(mounts[0], path) if mounts and path is not None and Path(mounts[0], path).is_dir() else None


@pytest.mark.skipif(own_cgroup() is None, reason="no cgroup2 is mounted here")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_kernel_tells_the_cgroup_of_a_socket(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as sock, socket.create_server(("127.0.0.1", 0)):
        inodes = {str(os.fstat(sock.fileno()).st_ino)}
        found = dict(socket_cgroup._listening_sockets(family))
        folder = own_cgroup()
        assert folder is not None
        assert found[int(inodes.pop())] == folder.stat().st_ino
        assert socket_cgroup._folder(folder.stat().st_ino) == folder


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of cgroups; the one with number N has the socket with inode N."""
    monkeypatch.setattr(socket_cgroup, "_listening_sockets", lambda family: [(1, 1), (2, 2), (3, 1)])
    monkeypatch.setattr(socket_cgroup, "_folder", lambda cgroup: tmp_path / "mail.service" if cgroup == 1 else None)
    return tmp_path / "mail.service"


def test_sockets_of_one_service_have_its_cgroup(service: Path) -> None:
    assert cgroup_of(["1", "3"]) == service


@pytest.mark.parametrize("inodes", [["1", "2"], ["2"], ["9"], []])
def test_sockets_of_several_services_or_of_none_have_none(service: Path, inodes: list[str]) -> None:
    assert cgroup_of(inodes) is None


@pytest.mark.parametrize("name", ["session-3.scope", "user@1000.service", "init.scope", "system.slice", "unified"])
def test_cgroup_of_several_programs_is_none_of_a_service(service: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(socket_cgroup, "_folder", lambda cgroup: service.with_name(name))
    assert cgroup_of(["1"]) is None


def test_kernel_that_tells_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(family: int) -> None:
        raise OSError

    monkeypatch.setattr(socket_cgroup, "_listening_sockets", refuse)
    assert cgroup_of(["1"]) is None
