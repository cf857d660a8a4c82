"""Real mail servers in the foreground on one loopback port, as the published comparisons use them.

    python -m bench.published.serve postfix --port 2525
    python -m bench.published.serve aiosmtpd@1.4.6 --port 2526

The first start of a server installs what it needs, with pip, npm or apt, into the folder `.servers` next to this file.
Debian packages that conflict with an installed mail server are unpacked there and run in a mount namespace of their own,
which needs root. All servers accept mail for every recipient and keep none of it. What each does before it sends 250 is
described at its configuration below.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trustme

HERE = Path(__file__).resolve().parent
STORE = Path(os.environ.get("SMTPBENCH_SERVERS") or HERE / ".servers")
HOST = "127.0.0.1"
SIZE_LIMIT_BYTES = 10 * 1024 * 1024
NAME = "mx.example"


@dataclass(frozen=True)
class Launch:
    """Settings of one start of a server.

    Attributes:
        port: Port on which it listens.
        version: Its version; empty for the version of the distribution.
        home: New folder for this start.
        package: Folder in which its program is installed.
        certificate: PEM file of its certificate.
        key: PEM file of the key.
    """

    port: int
    version: str
    home: Path
    package: Path
    certificate: Path
    key: Path

    def write(self, name: str, text: str) -> Path:
        """Write a configuration file into the folder and return its path."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


CommandOf = Callable[[Launch], list[str]]


def installed(folder: Path, *commands: list[str]) -> Path:
    """Return a folder, filled by these commands; an incomplete one is made again."""
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for command in commands:
            subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL)
        (folder / ".complete").touch()
    return folder


def certificates() -> tuple[Path, Path]:
    """Return a certificate for localhost and 127.0.0.1 and its key; `ca.pem` in the same folder is its authority."""
    certificate, key, authority = (STORE / name for name in ("server.pem", "server-key.pem", "ca.pem"))
    if not authority.exists():
        STORE.mkdir(parents=True, exist_ok=True)
        ca = trustme.CA()
        issued = ca.issue_cert("localhost", HOST)
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        ca.cert_pem.write_to_path(authority)
    return certificate, key


# -- Postfix: queue file, fsync, then 250; the queue manager discards the message afterwards ----------------------------

_POSTFIX = {
    "plain": "",
    "tls": "smtpd_tls_security_level = may\n",
    "hardened": """\
smtpd_tls_security_level = encrypt
smtpd_tls_mandatory_protocols = >=TLSv1.2
smtpd_tls_mandatory_ciphers = high
tls_preempt_cipherlist = yes
smtpd_forbid_bare_newline = normalize
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = yes
smtpd_helo_required = yes
strict_rfc821_envelopes = yes
disable_vrfy_command = yes
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = reject_non_fqdn_sender
smtpd_recipient_restrictions = reject_non_fqdn_recipient, permit_mynetworks, reject
smtpd_data_restrictions = reject_unauth_pipelining
""",
}


def postfix(kind: str) -> CommandOf:
    """Return the command of Debian's Postfix, with a configuration of its own."""

    def command_of(launch: Launch) -> list[str]:
        if not Path("/usr/lib/postfix/sbin/master").exists():
            subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "postfix"], check=True,
                           stdout=sys.stderr, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})  # fmt: skip
        for name in ("spool", "data"):
            (launch.home / name).mkdir()
        launch.home.chmod(0o755)
        shutil.chown(launch.home / "data", "postfix")
        launch.write("conf/main.cf", f"""compatibility_level = 3.6
queue_directory = {launch.home}/spool
data_directory = {launch.home}/data
maillog_file = {launch.home}/mail.log
maillog_file_prefixes = {launch.home}
inet_interfaces = {HOST}
inet_protocols = ipv4
myhostname = {NAME}
mydestination =
mynetworks = 127.0.0.0/8
local_recipient_maps =
alias_maps =
default_transport = discard:
local_transport = discard:
message_size_limit = {SIZE_LIMIT_BYTES}
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_tls_cert_file = {launch.certificate}
smtpd_tls_key_file = {launch.key}
{_POSTFIX[kind]}""")  # fmt: skip
        launch.write("conf/master.cf", f"""{HOST}:{launch.port} inet n - n - 100 smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
discard unix - - n - - discard
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
proxymap unix - - n - - proxymap
""")  # fmt: skip
        # `postfix check` makes the folders of the queue; it reports mistakes only on a terminal
        subprocess.run(["script", "-qec", f"postfix -c {launch.home}/conf check", "/dev/null"], check=True,
                       stdout=sys.stderr, stdin=subprocess.DEVNULL)  # fmt: skip
        return ["/usr/lib/postfix/sbin/master", "-c", str(launch.home / "conf"), "-s"]

    return command_of


# -- Debian packages that are unpacked, not installed -----------------------------------------------------------------


def unpacked(launch: Launch, users: str, setup: str, command: list[str]) -> list[str]:
    """Return a command that mounts an unpacked package over /usr and /etc for one process, with its own users and spools.

    Args:
        launch: Settings of the start.
        users: Names of the users that the server needs.
        setup: Shell lines to run before it.
        command: Command of the server.
    """
    script = launch.write("start.sh", f"""set -e
mount --make-rprivate /
mkdir -p {launch.home}/etc {launch.package}/root/etc
cp /etc/passwd /etc/group {launch.home}/etc/
number=64800
for user in {users}; do
    number=$((number + 1))
    echo "$user:x:$number:$number::/home/$user:/bin/sh" >> {launch.home}/etc/passwd
    echo "$user:x:$number:" >> {launch.home}/etc/group
done
mount -t overlay overlay -o lowerdir={launch.package}/root/usr:/usr /usr
mount -t overlay overlay -o lowerdir={launch.home}/etc:{launch.package}/root/etc:/etc /etc
mkdir -p {launch.home}/spool {launch.home}/lib
mount --bind {launch.home}/spool /var/spool
mount --bind {launch.home}/lib /var/lib
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /home
for user in {users}; do mkdir -p /home/$user; chown $user: /home/$user; done
{setup}
exec "$@"
""")  # fmt: skip
    return ["unshare", "-m", "sh", str(script), *command]


def debian(*packages: str) -> Callable[[str], list[list[str]]]:
    """Return the commands that download and unpack Debian packages."""
    return lambda version: [
        ["apt-get", "download", "-q", *packages],
        ["sh", "-c", "for package in *.deb; do dpkg-deb -x \"$package\" root; done"],
    ]  # fmt: skip


def exim(launch: Launch) -> list[str]:
    """Exim: spool files, fsync, then 250; another process then delivers the message to `:blackhole:` at once."""
    launch.write("exim.conf", f"""exim_user = Debian-exim
exim_group = Debian-exim
never_users =
log_file_path = /var/spool/exim4/%slog
local_interfaces = {HOST}
daemon_smtp_ports = {launch.port}
primary_hostname = {NAME}
host_lookup =
rfc1413_query_timeout = 0s
message_size_limit = {SIZE_LIMIT_BYTES}
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
tls_advertise_hosts = *
tls_certificate = /var/lib/exim4/server.pem
tls_privatekey = /var/lib/exim4/server-key.pem
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin routers
nowhere:
  driver = redirect
  data = :blackhole:
begin transports
begin retry
""")  # fmt: skip
    setup = f"""mkdir -p /var/lib/exim4 /var/spool/exim4 /run/exim4
chown Debian-exim: /var/spool/exim4 /run/exim4
cp {launch.home}/exim.conf /var/lib/exim4/config.autogenerated
cp {launch.certificate} {launch.key} /var/lib/exim4/
chown Debian-exim /var/lib/exim4/*.pem"""
    return unpacked(launch, "Debian-exim", setup, ["/usr/sbin/exim4", "-bdf", "-q1h"])


def opensmtpd(launch: Launch) -> list[str]:
    """OpenSMTPD: queue file without fsync, then 250; a `cat` process then writes each message to /dev/null."""
    launch.write("smtpd.conf", f"""smtp max-message-size {SIZE_LIMIT_BYTES}
listen on {HOST} port {launch.port} hostname {NAME}
action "nowhere" mda "/bin/cat >/dev/null" virtual {{ "@" = nobodys }}
match from any for any action "nowhere"
""")  # fmt: skip
    setup = f"""mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty /run/conf
chmod 711 /var/spool/smtpd
cp {launch.home}/smtpd.conf /run/conf/
chmod 644 /run/conf/smtpd.conf"""
    return unpacked(launch, "opensmtpd opensmtpq nobodys", setup, ["/usr/sbin/smtpd", "-d", "-f", "/run/conf/smtpd.conf"])


# -- npm --------------------------------------------------------------------------------------------------------------


def npm(package: str) -> Callable[[str], list[list[str]]]:
    """Return the command that installs an npm package."""
    flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--no-package-lock", "--prefix", "."]
    return lambda version: [["npm", "install", *flags, f"{package}@{version}"]]


def haraka(launch: Launch) -> list[str]:
    """Haraka: nothing on disk; the queue/discard plugin sends 250 when the message is in memory."""
    launch.write("config/smtp.ini", f"listen={HOST}:{launch.port}\nnodes=0\n[main]\nlisten={HOST}:{launch.port}\nnodes=0\n")
    launch.write("config/me", f"{NAME}\n")
    launch.write("config/host_list", "recipient.example\n")
    launch.write("config/databytes", f"{SIZE_LIMIT_BYTES}\n")
    packaged = launch.package / "node_modules/Haraka/config/connection.ini"  # version 3.1 and later need it to start
    limits = packaged.read_text() if packaged.exists() else "[max]\n"
    launch.write("config/connection.ini", limits)
    launch.write("config/log.ini", "[main]\nlevel=warn\n")
    launch.write("config/plugins", "tls\naccept_all\nqueue/discard\n")
    launch.write("config/tls.ini", "key=tls_key.pem\ncert=tls_cert.pem\n")
    shutil.copy(launch.key, launch.home / "config/tls_key.pem")
    shutil.copy(launch.certificate, launch.home / "config/tls_cert.pem")
    launch.write("plugins/accept_all.js", "exports.hook_rcpt = (next) => next(OK);\n")
    (launch.home / "queue").mkdir()
    return [
        "env",
        "YES_REALLY_DO_DISCARD=1",
        "node",
        str(launch.package / "node_modules/Haraka/bin/haraka"),
        "-c",
        str(launch.home),
    ]


def smtp_server(launch: Launch) -> list[str]:
    """smtp-server of Nodemailer: nothing on disk; the message is read and discarded."""
    launch.write("server.cjs", f"""const {{ SMTPServer }} = require({str(launch.package / "node_modules/smtp-server")!r});
const fs = require('fs');
new SMTPServer({{
  name: {NAME!r}, size: {SIZE_LIMIT_BYTES}, authOptional: true, disableReverseLookup: true,
  key: fs.readFileSync({str(launch.key)!r}), cert: fs.readFileSync({str(launch.certificate)!r}),
  onData(stream, session, done) {{ stream.resume(); stream.on('end', () => done()); }},
}}).on('error', () => {{}}).listen({launch.port}, {HOST!r});
""")  # fmt: skip
    return ["node", str(launch.home / "server.cjs")]


# -- pip --------------------------------------------------------------------------------------------------------------


def pip(package: str) -> Callable[[str], list[list[str]]]:
    """Return the commands that install a PyPI package into an environment of its own."""
    return lambda version: [
        [sys.executable, "-m", "venv", "."],
        ["bin/pip", "install", "-q", f"{package}=={version}"],
    ]


def aiosmtpd(launch: Launch) -> list[str]:
    """aiosmtpd: nothing on disk; the handler discards the message."""
    launch.write("server.py", f"""import asyncio, ssl
from aiosmtpd.smtp import SMTP

class Nowhere:
    async def handle_DATA(self, server, session, envelope):
        return "250 Message accepted for delivery"

async def main():
    context = None
    if {launch.version!r} >= "1.4":  # STARTTLS of earlier versions does not work with current Python
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain({str(launch.certificate)!r}, {str(launch.key)!r})
    loop = asyncio.get_running_loop()
    options = dict(hostname={NAME!r}, data_size_limit={SIZE_LIMIT_BYTES}, enable_SMTPUTF8=True, tls_context=context)
    make = lambda: SMTP(Nowhere(), loop=loop, **options)
    server = await loop.create_server(make, {HOST!r}, {launch.port})
    await server.serve_forever()

asyncio.run(main())
""")  # fmt: skip
    return [str(launch.package / "bin/python"), "-W", "ignore", str(launch.home / "server.py")]


# -- the list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of server.

    Attributes:
        command_of: Function that returns the command to start it.
        durability: What it does before it sends 250.
        install: Function that returns the commands to install a version.
        version: Version to use if none is named.
    """

    command_of: CommandOf
    durability: str
    install: Callable[[str], list[list[str]]] = lambda version: []
    version: str = ""


_POSTFIX_DURABILITY = "queue on disk, fsync; the queue manager discards the message afterwards"
KINDS = {
    "postfix": Kind(postfix("tls"), _POSTFIX_DURABILITY),
    "postfix-plain": Kind(postfix("plain"), _POSTFIX_DURABILITY),
    "postfix-hardened": Kind(postfix("hardened"), _POSTFIX_DURABILITY),
    "exim": Kind(
        exim,
        "queue on disk, fsync; one process for each message delivers it to nowhere afterwards",
        debian("exim4-daemon-light", "exim4-base", "libidn12"),
    ),
    "opensmtpd": Kind(
        opensmtpd,
        "queue in files, no fsync; one `cat >/dev/null` for each message afterwards",
        debian("opensmtpd", "libevent-2.1-7"),
    ),
    "haraka": Kind(haraka, "nothing; the message is discarded from memory", npm("Haraka"), "3.3.4"),
    "smtp-server": Kind(smtp_server, "nothing; the message is read and discarded", npm("smtp-server"), "3.21.6"),
    "aiosmtpd": Kind(aiosmtpd, "nothing; the handler discards the message", pip("aiosmtpd"), "1.4.6"),
}


def prepare(server: str) -> tuple[Kind, str, Path]:
    """Install a server, unless it is installed; return its kind, its version and its folder."""
    name, _, version = server.partition("@")
    kind = KINDS[name]
    version = version or kind.version
    return kind, version, installed(STORE / (f"{name}-{version}" if version else name), *kind.install(version))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "server", help=f"Name of a server, with or without a version, like aiosmtpd@1.4.6: {', '.join(KINDS)}."
    )
    parser.add_argument("--port", type=int, required=True, help="Port on loopback.")
    options = parser.parse_args()
    if options.server.partition("@")[0] not in KINDS:
        parser.error(f"unknown server {options.server!r}; servers: {', '.join(KINDS)}")
    certificate, key = certificates()
    kind, version, package = prepare(options.server)
    home = Path(tempfile.mkdtemp(prefix="smtpbench-server-"))
    home.chmod(0o755)
    argv = kind.command_of(Launch(options.port, version, home, package, certificate, key))
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
