"""Run a real mail server in the foreground on one loopback port, as the published comparisons do.

    python -m bench.published.serve postfix --port 2525
    python -m bench.published.serve aiosmtpd@1.4.6 --port 2526

What a server needs is installed on its first start, by pip, npm or apt, into `.servers` beside this file; packages of Debian
that would push out another mail server are unpacked there and run in a mount namespace of their own (root only). All
take mail for everybody and keep none; what each does before it says 250 stands at its configuration below.
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
class Place:
    """Where a server runs. home: a new folder of this start. package: where its program is installed."""

    port: int
    version: str
    home: Path
    package: Path
    certificate: Path
    key: Path

    def write(self, name: str, text: str) -> Path:
        """A configuration file in its folder."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


Launch = Callable[[Place], list[str]]


def installed(folder: Path, *commands: list[str]) -> Path:
    """The folder, with what the commands put into it; a half-made one is thrown away."""
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for command in commands:
            subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL)
        (folder / ".complete").touch()
    return folder


def certificates() -> tuple[Path, Path]:
    """A certificate for localhost and 127.0.0.1 and its key; `ca.pem` beside them is what to trust."""
    certificate, key, authority = (STORE / name for name in ("server.pem", "server-key.pem", "ca.pem"))
    if not authority.exists():
        STORE.mkdir(parents=True, exist_ok=True)
        ca = trustme.CA()
        issued = ca.issue_cert("localhost", HOST)
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        ca.cert_pem.write_to_path(authority)
    return certificate, key


# -- Postfix: a queue file, fsync, then 250; its queue manager discards the message afterwards --------------------------

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


def postfix(kind: str) -> Launch:
    """Debian's Postfix, not pushed out of its own configuration: this one has a folder of its own."""

    def launch(place: Place) -> list[str]:
        if not Path("/usr/lib/postfix/sbin/master").exists():
            subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "postfix"], check=True,
                           stdout=sys.stderr, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})  # fmt: skip
        for name in ("spool", "data"):
            (place.home / name).mkdir()
        place.home.chmod(0o755)
        shutil.chown(place.home / "data", "postfix")
        place.write("conf/main.cf", f"""compatibility_level = 3.6
queue_directory = {place.home}/spool
data_directory = {place.home}/data
maillog_file = {place.home}/mail.log
maillog_file_prefixes = {place.home}
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
smtpd_tls_cert_file = {place.certificate}
smtpd_tls_key_file = {place.key}
{_POSTFIX[kind]}""")  # fmt: skip
        place.write("conf/master.cf", f"""{HOST}:{place.port} inet n - n - 100 smtpd
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
        # `postfix check` makes the queue's folders; without a terminal it keeps its complaints to itself
        subprocess.run(["script", "-qec", f"postfix -c {place.home}/conf check", "/dev/null"], check=True,
                       stdout=sys.stderr, stdin=subprocess.DEVNULL)  # fmt: skip
        return ["/usr/lib/postfix/sbin/master", "-c", str(place.home / "conf"), "-s"]

    return launch


# -- Debian packages that are unpacked, not installed -----------------------------------------------------------------


def unpacked(place: Place, users: str, setup: str, command: list[str]) -> list[str]:
    """Lay the package over /usr and /etc for this one process, with users and empty spools of its own.

    setup: shell lines run before it.
    """
    script = place.write("start.sh", f"""set -e
mount --make-rprivate /
mkdir -p {place.home}/etc {place.package}/root/etc
cp /etc/passwd /etc/group {place.home}/etc/
number=64800
for user in {users}; do
    number=$((number + 1))
    echo "$user:x:$number:$number::/home/$user:/bin/sh" >> {place.home}/etc/passwd
    echo "$user:x:$number:" >> {place.home}/etc/group
done
mount -t overlay overlay -o lowerdir={place.package}/root/usr:/usr /usr
mount -t overlay overlay -o lowerdir={place.home}/etc:{place.package}/root/etc:/etc /etc
mkdir -p {place.home}/spool {place.home}/lib
mount --bind {place.home}/spool /var/spool
mount --bind {place.home}/lib /var/lib
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /home
for user in {users}; do mkdir -p /home/$user; chown $user: /home/$user; done
{setup}
exec "$@"
""")  # fmt: skip
    return ["unshare", "-m", "sh", str(script), *command]


def debian(*packages: str) -> Callable[[str], list[list[str]]]:
    """The commands that download and unpack packages."""
    return lambda version: [
        ["apt-get", "download", "-q", *packages],
        ["sh", "-c", "for package in *.deb; do dpkg-deb -x \"$package\" root; done"],
    ]  # fmt: skip


def exim(place: Place) -> list[str]:
    """Exim: spool files, fsync, then 250; it delivers to nowhere (`:blackhole:`) at once, in a process of its own."""
    place.write("exim.conf", f"""exim_user = Debian-exim
exim_group = Debian-exim
never_users =
log_file_path = /var/spool/exim4/%slog
local_interfaces = {HOST}
daemon_smtp_ports = {place.port}
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
cp {place.home}/exim.conf /var/lib/exim4/config.autogenerated
cp {place.certificate} {place.key} /var/lib/exim4/
chown Debian-exim /var/lib/exim4/*.pem"""
    return unpacked(place, "Debian-exim", setup, ["/usr/sbin/exim4", "-bdf", "-q1h"])


def opensmtpd(place: Place) -> list[str]:
    """OpenSMTPD: a queue file without fsync, then 250; each message goes to `cat` and /dev/null afterwards."""
    place.write("smtpd.conf", f"""smtp max-message-size {SIZE_LIMIT_BYTES}
listen on {HOST} port {place.port} hostname {NAME}
action "nowhere" mda "/bin/cat >/dev/null" virtual {{ "@" = nobodys }}
match from any for any action "nowhere"
""")  # fmt: skip
    setup = f"""mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty /run/conf
chmod 711 /var/spool/smtpd
cp {place.home}/smtpd.conf /run/conf/
chmod 644 /run/conf/smtpd.conf"""
    return unpacked(place, "opensmtpd opensmtpq nobodys", setup, ["/usr/sbin/smtpd", "-d", "-f", "/run/conf/smtpd.conf"])


# -- npm --------------------------------------------------------------------------------------------------------------


def npm(package: str) -> Callable[[str], list[list[str]]]:
    """The command that installs a package of npm's."""
    flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--no-package-lock", "--prefix", "."]
    return lambda version: [["npm", "install", *flags, f"{package}@{version}"]]


def haraka(place: Place) -> list[str]:
    """Haraka: nothing on a disk; its queue/discard plugin says 250 once the message is in memory."""
    place.write("config/smtp.ini", f"listen={HOST}:{place.port}\nnodes=0\n[main]\nlisten={HOST}:{place.port}\nnodes=0\n")
    place.write("config/me", f"{NAME}\n")
    place.write("config/host_list", "recipient.example\n")
    place.write("config/databytes", f"{SIZE_LIMIT_BYTES}\n")
    packaged = place.package / "node_modules/Haraka/config/connection.ini"  # 3.1 and later do not start without it
    limits = packaged.read_text() if packaged.exists() else "[max]\n"
    place.write("config/connection.ini", limits)
    place.write("config/log.ini", "[main]\nlevel=warn\n")
    place.write("config/plugins", "tls\naccept_all\nqueue/discard\n")
    place.write("config/tls.ini", "key=tls_key.pem\ncert=tls_cert.pem\n")
    shutil.copy(place.key, place.home / "config/tls_key.pem")
    shutil.copy(place.certificate, place.home / "config/tls_cert.pem")
    place.write("plugins/accept_all.js", "exports.hook_rcpt = (next) => next(OK);\n")
    (place.home / "queue").mkdir()
    return [
        "env",
        "YES_REALLY_DO_DISCARD=1",
        "node",
        str(place.package / "node_modules/Haraka/bin/haraka"),
        "-c",
        str(place.home),
    ]


def smtp_server(place: Place) -> list[str]:
    """Nodemailer's smtp-server: nothing on a disk; the message is read and forgotten."""
    place.write("server.cjs", f"""const {{ SMTPServer }} = require({str(place.package / "node_modules/smtp-server")!r});
const fs = require('fs');
new SMTPServer({{
  name: {NAME!r}, size: {SIZE_LIMIT_BYTES}, authOptional: true, disableReverseLookup: true,
  key: fs.readFileSync({str(place.key)!r}), cert: fs.readFileSync({str(place.certificate)!r}),
  onData(stream, session, done) {{ stream.resume(); stream.on('end', () => done()); }},
}}).on('error', () => {{}}).listen({place.port}, {HOST!r});
""")  # fmt: skip
    return ["node", str(place.home / "server.cjs")]


# -- pip --------------------------------------------------------------------------------------------------------------


def pip(package: str) -> Callable[[str], list[list[str]]]:
    """The commands that install a package of PyPI's into an environment of its own."""
    return lambda version: [
        [sys.executable, "-m", "venv", "."],
        ["bin/pip", "install", "-q", f"{package}=={version}"],
    ]


def aiosmtpd(place: Place) -> list[str]:
    """aiosmtpd: nothing on a disk; the handler forgets the message."""
    place.write("server.py", f"""import asyncio, ssl
from aiosmtpd.smtp import SMTP

class Nowhere:
    async def handle_DATA(self, server, session, envelope):
        return "250 Message accepted for delivery"

async def main():
    context = None
    if {place.version!r} >= "1.4":  # before, its STARTTLS does not work on a Python of today
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain({str(place.certificate)!r}, {str(place.key)!r})
    loop = asyncio.get_running_loop()
    options = dict(hostname={NAME!r}, data_size_limit={SIZE_LIMIT_BYTES}, enable_SMTPUTF8=True, tls_context=context)
    make = lambda: SMTP(Nowhere(), loop=loop, **options)
    server = await loop.create_server(make, {HOST!r}, {place.port})
    await server.serve_forever()

asyncio.run(main())
""")  # fmt: skip
    return [str(place.package / "bin/python"), "-W", "ignore", str(place.home / "server.py")]


# -- the list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A server: how it starts, what it does before it says 250, what installs it, and the version where none is named."""

    launch: Launch
    keeps: str
    install: Callable[[str], list[list[str]]] = lambda version: []
    version: str = ""


_POSTFIX_KEEPS = "queue on disk, fsync; the queue manager discards it afterwards"
KINDS = {
    "postfix": Kind(postfix("tls"), _POSTFIX_KEEPS),
    "postfix-plain": Kind(postfix("plain"), _POSTFIX_KEEPS),
    "postfix-hardened": Kind(postfix("hardened"), _POSTFIX_KEEPS),
    "exim": Kind(
        exim,
        "queue on disk, fsync; a process a message delivers to nowhere afterwards",
        debian("exim4-daemon-light", "exim4-base", "libidn12"),
    ),
    "opensmtpd": Kind(
        opensmtpd, "queue in files, no fsync; `cat >/dev/null` a message afterwards", debian("opensmtpd", "libevent-2.1-7")
    ),
    "haraka": Kind(haraka, "nothing: discarded out of memory", npm("Haraka"), "3.3.4"),
    "smtp-server": Kind(smtp_server, "nothing: read and forgotten", npm("smtp-server"), "3.21.6"),
    "aiosmtpd": Kind(aiosmtpd, "nothing: forgotten by the handler", pip("aiosmtpd"), "1.4.6"),
}


def prepare(wanted: str) -> tuple[Kind, str, Path]:
    """A server's kind, its version, and where it is installed; installs it."""
    name, _, version = wanted.partition("@")
    kind = KINDS[name]
    version = version or kind.version
    return kind, version, installed(STORE / (f"{name}-{version}" if version else name), *kind.install(version))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help=f"one of {', '.join(KINDS)}, or with a version: aiosmtpd@1.4.6")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    if options.server.partition("@")[0] not in KINDS:
        parser.error(f"there is no server {options.server!r}; there are {', '.join(KINDS)}")
    certificate, key = certificates()
    kind, version, package = prepare(options.server)
    home = Path(tempfile.mkdtemp(prefix="smtpbench-server-"))
    home.chmod(0o755)
    argv = kind.launch(Place(options.port, version, home, package, certificate, key))
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
