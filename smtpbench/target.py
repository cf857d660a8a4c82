"""Targets: where a run goes and how it gets in, from a URL, files and the environment.

`smtp://user@host:port?tls=starttls`, `smtps://host`, `lmtp://host:24`, `lmtp+unix:///path`. A URL never carries a
password: that comes from a file or from SMTPBENCH_PASSWORD, and no repr shows it.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from smtpbench.engine.connection import Route
from smtpbench.errors import CannotRun, UsageError

PASSWORD_VARIABLE = "SMTPBENCH_PASSWORD"  # the variable's name, not a password

_DEFAULT_PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}
SCHEMES = ("smtp", "smtps", "lmtp", "lmtp+unix")
_FORM = "write it like smtp://host:25, smtps://host:465, lmtp://host:24 or lmtp+unix:///path/to/socket"
_TLS_CHOICES = ("auto", "starttls")
_UNIX_PATH_BYTES = 107  # sockaddr_un holds 108 with the final NUL


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target URL.

    scheme: smtp, smtps, lmtp or lmtp+unix. host, port: where; for lmtp+unix the socket's path, and 0.
    user: whom to log in as, or empty. starttls: add STARTTLS to scenarios that have none.
    """

    scheme: str
    host: str
    port: int
    user: str = ""
    starttls: bool = False
    path: str = ""

    @property
    def lmtp(self) -> bool:
        """Whether LMTP (RFC 2033) is spoken."""
        return self.scheme.startswith("lmtp")

    @property
    def implicit_tls(self) -> bool:
        """Whether TLS comes before the greeting (RFC 8314 §3.3)."""
        return self.scheme == "smtps"

    @property
    def url(self) -> str:
        """The target as a URL."""
        if self.path:
            return f"{self.scheme}://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{user}{host}:{self.port}" + ("?tls=starttls" if self.starttls else "")


def parse_target(url: str) -> Target:
    """Read a target URL. Raises UsageError."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise UsageError(f"target {_shown(url)!r} is not understood; {_meant(url)}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"target {_shown(url)!r}: {str(error).lower()}; {_FORM}") from None
    if parts.password is not None:
        raise UsageError(
            f"target {_shown(url)!r} holds a password, which process lists would show; leave it out and use "
            f"--password-file FILE or the variable {PASSWORD_VARIABLE}"
        )
    if scheme == "lmtp+unix":
        if parts.netloc or not parts.path:
            raise UsageError(f"target {_shown(url)!r}: a unix socket is named with three slashes, lmtp+unix:///path")
        return Target(scheme, "", 0, path=unquote(parts.path))
    if not parts.hostname:
        raise UsageError(f"target {_shown(url)!r} names no host; {_FORM}")
    if port == 0:
        raise UsageError(f"target {_shown(url)!r}: port 0 cannot be connected to")
    if parts.path.strip("/") or parts.fragment:
        raise UsageError(f"target {_shown(url)!r} has something behind the port; {_FORM}")
    starttls = _options(url, parts.query)
    if starttls and scheme != "smtp":
        raise UsageError(f"target {_shown(url)!r}: tls=starttls goes with smtp:// only")
    return Target(scheme, parts.hostname, port or _DEFAULT_PORTS[scheme], unquote(parts.username or ""), starttls)


def _meant(url: str) -> str:
    """What somebody who left the scheme out, or mistyped it, probably wants to say."""
    scheme, separator, place = url.partition("://")
    if not separator and url.startswith("/"):
        return f"for a unix socket say lmtp+unix://{_shown(url)}"
    if not separator and re.fullmatch(r"([^@/\s]+@)?(\[[0-9a-fA-F:.]+\]|[^@/:\s]+)(:\d+)?", url):
        port = url.rpartition(":")[2]
        near = {"465": "smtps", "24": "lmtp"}.get(port, "smtp")
        return f"say {near}://{_shown(url)}"
    near_schemes = difflib.get_close_matches(scheme.lower(), SCHEMES, 1) if separator else []
    return f"say {near_schemes[0]}://{_shown(place)}" if near_schemes else _FORM


def _options(url: str, query: str) -> bool:
    tls = "auto"
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "tls":
            raise UsageError(f"target {_shown(url)!r}: unknown option {name!r}; there is tls=starttls")
        if value not in _TLS_CHOICES:
            raise UsageError(f"target {_shown(url)!r}: tls={value} is not known; use tls=starttls or tls=auto")
        tls = value
    return tls == "starttls"


def _shown(url: str) -> str:
    """The URL without what may be a password."""
    before, at, after = url.rpartition("@")
    scheme, separator, userinfo = before.rpartition("://")
    return f"{scheme}{separator}{userinfo.partition(':')[0]}@{after}" if at else url


def read_password(file: Path | None) -> str | None:
    """The password from a file (its first line), else from SMTPBENCH_PASSWORD, else None. Raises UsageError."""
    if file is None:
        return os.environ.get(PASSWORD_VARIABLE)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"password file {file}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    if not lines or not lines[0]:
        raise UsageError(f"password file {file}: its first line is empty; the password stands there")
    return lines[0]


@dataclass(frozen=True, slots=True)
class Trust:
    """How TLS is checked.

    ca: a PEM file of trusted certificates, None for the system's; insecure: not at all. certificate, key: the client's.
    server_name: what SNI says and the certificate must hold, None for the target's host.
    """

    ca: Path | None = None
    insecure: bool = False
    server_name: str | None = None
    certificate: Path | None = None
    key: Path | None = field(default=None, repr=False)


def tls_context(trust: Trust) -> ssl.SSLContext:
    """The client's TLS context. Raises UsageError for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=str(trust.ca) if trust.ca else None)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca {trust.ca}: {_file_trouble(error, 'no PEM certificates in it')}") from None
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if trust.certificate:
        try:
            # an encrypted key would make OpenSSL ask on the terminal: an empty answer makes it an error instead
            context.load_cert_chain(trust.certificate, trust.key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            trouble = _file_trouble(error, "certificate and key cannot be read, or do not belong together")
            raise UsageError(f"--cert {trust.certificate}: {trouble}") from None
    elif trust.key:
        raise UsageError("--key goes with --cert")
    return context


def _file_trouble(error: Exception, default: str) -> str:
    if isinstance(error, ssl.SSLError) or not isinstance(error, OSError) or not error.strerror:
        return default
    return error.strerror.lower()


def resolve(target: Target, context: ssl.SSLContext | None, trust: Trust, *, authorized: bool) -> list[Route]:
    """Look the host up, once for the run: its addresses in the system's order of preference.

    context: for scripts that speak TLS. Raises CannotRun for a name without an address, and UsageError for an address
    that is not loopback unless `authorized`.
    """
    name = trust.server_name or target.host or "localhost"
    if target.path:
        if len(os.fsencode(target.path)) > _UNIX_PATH_BYTES:
            raise UsageError(f"the path of a unix socket holds at most {_UNIX_PATH_BYTES} octets: {target.path}")
        return [Route(socket.AF_UNIX, target.path, context, name)]
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise CannotRun(f"cannot find the address of {target.host}: {reason.lower()}") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    strangers = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    if strangers and not authorized:
        raise UsageError(
            f"{target.host} ({strangers[0]}) is not this machine; load and fuzzing go to loopback addresses only, "
            "unless --authorized says that you may test this host"
        )
    return [Route(entry[0], entry[4], context, name) for entry in found]  # type: ignore[arg-type]  # as connect() wants it


@dataclass(frozen=True, slots=True)
class Access:
    """A target, and what it takes to speak with it. timeout_ns: how long a reply may take."""

    target: Target
    trust: Trust = field(default_factory=Trust)
    password: str | None = field(default=None, repr=False)
    timeout_ns: int = 3_000_000_000
    authorized: bool = False

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password, where there are both."""
        return (self.target.user, self.password) if self.target.user and self.password is not None else None

    def routes(self) -> list[Route]:
        """Its addresses, with TLS set up. Raises CannotRun, UsageError."""
        return resolve(self.target, tls_context(self.trust), self.trust, authorized=self.authorized)
