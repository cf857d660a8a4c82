"""The cgroup in which a listening socket was made, which every user may ask for.

Which process holds a socket is told only to its owner and to root. The kernel tells everybody the cgroup (v2) of the process
that made it: `sock_diag(7)`, attribute INET_DIAG_CGROUP_ID (Linux 5.7). A service of systemd and a container have a cgroup
of their own. So a mail server that runs as a service is found for a user who may not look into it.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_AND_DUMP: Final = 0x301
_TCP_LISTEN: Final = 1 << 10
_INET_DIAG_CGROUP_ID: Final = 21
#: struct nlmsghdr, and struct inet_diag_req_v2 up to its empty socket identifier.
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI48x")
#: struct inet_diag_msg: the inode is the last member; struct rtattr.
_MESSAGE: Final = struct.Struct("=68xI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_READ_BYTES: Final = 1 << 16
_TIMEOUT_S: Final = 1.0

#: Cgroups of more than one program: a login, a user, the whole system.
_SHARED: Final = re.compile(r"session-.*\.scope|user@.*\.service|init\.scope|.*\.slice|unified|cgroup|")


def cgroup_of(inodes: Collection[str]) -> Path | None:
    """Return the cgroup of listening sockets; None if it is not told, is not one, or holds other programs as well.

    Args:
        inodes: Inodes of the sockets, as in /proc/net/tcp.
    """
    wanted = {int(inode) for inode in inodes}
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            found |= {cgroup for inode, cgroup in _listening_sockets(family) if inode in wanted}
    if len(found) != 1:
        return None
    folder = _folder(found.pop())
    return None if folder is None or _SHARED.fullmatch(folder.name) else folder


def _listening_sockets(family: int) -> Iterator[tuple[int, int]]:
    """Yield inode and cgroup of all listening sockets of an address family. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _TCP_LISTEN)
        netlink.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 0, 0) + request)
        while True:
            data = netlink.recv(_READ_BYTES)
            while len(data) >= _HEADER.size:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind != _SOCK_DIAG_BY_FAMILY:  # the end, or an error
                    return
                yield from _message(data[_HEADER.size : length])
                data = data[_aligned(length) :]


def _message(data: bytes) -> Iterator[tuple[int, int]]:
    (inode,) = _MESSAGE.unpack_from(data)
    data = data[_MESSAGE.size :]
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        if kind == _INET_DIAG_CGROUP_ID:
            yield inode, int.from_bytes(data[_ATTRIBUTE.size : length], sys.byteorder)
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _folder(cgroup: int) -> Path | None:
    """Return the folder of a cgroup; its identifier is the inode of the folder."""
    for mount in psutil.disk_partitions(all=True):
        if mount.fstype == "cgroup2":
            for folder, _, _ in os.walk(mount.mountpoint):
                with suppress(OSError):
                    if os.stat(folder).st_ino == cgroup:
                        return Path(folder)
    return None
