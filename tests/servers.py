"""Real mail servers for the tests, each on free loopback ports, in a folder of its own, ended by its pid.

A server whose packages are missing is skipped with the reason; with SMTPBENCH_REQUIRE_SERVERS=1 that is a failure.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

HOST = "127.0.0.1"
USER, PASSWORD = "bench", "correct horse"
REQUIRED = os.environ.get("SMTPBENCH_REQUIRE_SERVERS") == "1"
#: Debian package of a program that is not named like it.
PACKAGES = {
    "smtp-sink": "postfix",
    "smtp-source": "postfix",
    "saslpasswd2": "sasl2-bin libsasl2-modules",
    "dovecot": "dovecot-lmtpd",
}
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Tls:
    """A CA of the tests, a server's certificate and its key, and certificates that must not be trusted."""

    ca: Path
    cert: Path
    key: Path
    client: Path
    wrong_host: Path
    stranger: Path


@dataclass
class Server:
    """A server that runs: `port` of its main listener, others by name."""

    name: str
    port: int
    ports: dict[str, int] = field(default_factory=dict)
    log: Path | None = None
    socket: Path | None = None

    def count_in_log(self, text: str) -> int:
        """How many lines of the log contain this text."""
        return sum(text in line for line in self.log.read_text().splitlines()) if self.log else 0


def need(*programs: str, root: bool = False) -> None:
    """Skip the test where a program is missing, and say what to install; with SMTPBENCH_REQUIRE_SERVERS=1, fail."""
    missing = [program for program in programs if not shutil.which(program, path=PATH)]
    packages = sorted({PACKAGES.get(program, program) for program in missing})
    reason = f"{', '.join(missing)} not found: apt-get install {' '.join(packages)}" if missing else ""
    if root and os.geteuid() and not reason:
        reason = f"{', '.join(programs)} must be started as root"
    if reason:
        if REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)


def make_tls(folder: Path) -> Tls:
    """Certificates for localhost, made once a session."""
    ca, other = trustme.CA(), trustme.CA()
    server, client = ca.issue_cert("localhost", HOST, "::1"), ca.issue_cert("client@client.example")
    tls = Tls(*(folder / f"{name}.pem" for name in ("ca", "cert", "key", "client", "wrong-host", "stranger")))
    ca.cert_pem.write_to_path(tls.ca)
    server.cert_chain_pems[0].write_to_path(tls.cert)
    server.private_key_pem.write_to_path(tls.key)
    client.private_key_and_cert_chain_pem.write_to_path(tls.client)
    ca.issue_cert("elsewhere.example").private_key_and_cert_chain_pem.write_to_path(tls.wrong_host)
    other.issue_cert("localhost", HOST).private_key_and_cert_chain_pem.write_to_path(tls.stranger)
    return tls


def make_reachable(folder: Path) -> None:
    """Let all users enter a folder: a server's own users have their files there."""
    for part in [folder, *folder.parents]:
        with contextlib.suppress(OSError):
            part.chmod(part.stat().st_mode | 0o055)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def wait_until(condition: Callable[[], bool], limit_s: float = 60) -> bool:
    """Poll a condition that another process makes true, which no event announces. Return whether it came true in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """Wait until the port accepts connections. Fail with the server's log where the process ends first."""

    def settled() -> bool:
        return process.poll() is not None or accepts(port)

    if not wait_until(settled) or process.poll() is not None:
        text = log.read_text()[-2000:] if log and log.exists() else ""
        pytest.fail(f"no server came up on port {port} (status {process.poll()})\n{text}")


def accepts(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


@contextmanager
def started(argv: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own until the context ends."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            env={"PATH": PATH, "LANG": "C"},
        )  # fmt: skip
    try:
        wait_for(port, process, log)
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


@contextmanager
def smtp_sink(folder: Path, *options: str) -> Iterator[Server]:
    """Postfix's smtp-sink; `-L` for LMTP."""
    need("smtp-sink")
    port = free_port()
    with started(["smtp-sink", "-u", "nobody", *options, f"{HOST}:{port}", "1000"], port, folder / "smtp-sink.log"):
        yield Server("smtp-sink", port)


def configure_postfix(folder: Path, port: int, main: str = "", services: str = "") -> None:
    """Make the folders and the configuration of a Postfix that discards all mail.

    Args:
        folder: Folder for all of it; the configuration is in `conf`, the log is `mail.log`.
        port: Port of its listener.
        main: Further lines of `main.cf`.
        services: Further lines of `master.cf`.
    """
    for name in ("conf", "spool", "data"):
        (folder / name).mkdir(parents=True)
    make_reachable(folder)
    shutil.chown(folder / "data", "postfix")
    (folder / "conf" / "main.cf").write_text(
        f"""\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
inet_interfaces = {HOST}
inet_protocols = ipv4
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
local_recipient_maps =
alias_maps =
default_transport = discard:
local_transport = discard:
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
{main}"""
    )
    (folder / "conf" / "master.cf").write_text(
        f"""\
{HOST}:{port} inet n - n - 100 smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
discard unix - - n - - discard
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
proxymap unix - - n - - proxymap
{services}"""
    )
    # `postfix check` makes the queue's folders; without a terminal it would keep its complaints to itself
    check = ["script", "-qec", f"postfix -c {folder}/conf check", "/dev/null"]
    subprocess.run(check, check=True, capture_output=True, stdin=subprocess.DEVNULL, env={"PATH": PATH})


@contextmanager
def postfix(folder: Path, tls: Tls) -> Iterator[Server]:
    """Postfix that discards: plain with STARTTLS, `submission` (AUTH, TLS required) and `smtps` (implicit TLS, AUTH)."""
    need("postfix", "saslpasswd2", root=True)
    port, submission, smtps = free_port(), free_port(), free_port()
    conf = folder / "conf"
    main = f"""\
smtpd_tls_security_level = may
smtpd_tls_cert_file = {tls.cert}
smtpd_tls_key_file = {tls.key}
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain = postfix.example
"""
    services = f"""\
{HOST}:{submission} inet n - n - 100 smtpd
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_tls_auth_only=yes
{HOST}:{smtps} inet n - n - 100 smtpd
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
tlsmgr unix - - n 1000? 1 tlsmgr
"""
    configure_postfix(folder, port, main, services)
    (conf / "sasl").mkdir()  # where Debian's Postfix looks, whatever cyrus_sasl_config_path says
    (conf / "sasl" / "smtpd.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {conf}/sasldb2\nmech_list: PLAIN LOGIN CRAM-MD5\n"
    )
    secret = ["saslpasswd2", "-p", "-c", "-f", f"{conf}/sasldb2", "-u", "postfix.example", USER]
    subprocess.run(secret, input=PASSWORD.encode(), check=True, capture_output=True, env={"PATH": PATH})
    os.chown(conf / "sasldb2", pwd.getpwnam("postfix").pw_uid, -1)
    argv = ["/usr/lib/postfix/sbin/master", "-c", str(conf), "-s"]
    with started(argv, port, folder / "start.log"):
        yield Server("postfix", port, {"submission": submission, "smtps": smtps}, folder / "mail.log")


@contextmanager
def dovecot_lmtp(folder: Path) -> Iterator[Server]:
    """Dovecot's LMTP on TCP and on a unix socket; every user exists and has a Maildir."""
    need("dovecot", root=True)
    port, sock = free_port(), folder / "lmtp.sock"
    (folder / "mail").mkdir()
    shutil.chown(folder / "mail", "mail", "mail")
    make_reachable(folder)
    uid, gid = pwd.getpwnam("mail").pw_uid, pwd.getpwnam("mail").pw_gid
    conf = folder / "dovecot.conf"
    conf.write_text(
        f"""protocols = lmtp
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
ssl = no
first_valid_uid = 1
mail_location = maildir:{folder}/mail/%u
hostname = dovecot.example
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%u allow_all_users=yes
}}
service lmtp {{
  inet_listener lmtp {{
    address = {HOST}
    port = {port}
  }}
  unix_listener {sock} {{
    mode = 0666
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""
    )
    with started(["dovecot", "-F", "-c", str(conf)], port, folder / "start.log"):
        yield Server("dovecot", port, log=folder / "dovecot.log", socket=sock)
