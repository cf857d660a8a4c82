"""Targets: address, TLS settings and credentials, from a URL, files and the environment.

URLs look like `smtp://user@host:port?tls=starttls`, `smtps://host`, `lmtp://host:24` or `lmtp+unix:///path`. Octets that
have a meaning in URLs are percent-encoded in the user name and in the path (RFC 3986 §2.1), and `parse_target(target.url)`
is the same target again. A URL does not contain a password. The password comes from a file or from the variable
SMTPBENCH_PASSWORD, and no repr shows it.
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
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from smtpbench.engine.connection import Route
from smtpbench.errors import CannotRun, UsageError

PASSWORD_VARIABLE = "SMTPBENCH_PASSWORD"  # the variable's name, not a password

_DEFAULT_PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}
SCHEMES = ("smtp", "smtps", "lmtp", "lmtp+unix")
_EXAMPLES = "use a URL like smtp://host:25, smtps://host:465, lmtp://host:24 or lmtp+unix:///path/to/socket"
_TLS_CHOICES = ("auto", "starttls")
_STARTTLS_MISPLACED = "tls=starttls is not allowed here; use it with smtp:// only"
#: Not percent-encoded in a user name, and in a path, besides letters, digits and `_.-~` (RFC 3986 §3.2.1, §3.3).
_SAFE_IN_USER = "!$&'()*+,;="
_SAFE_IN_PATH = _SAFE_IN_USER + "/:@"
_UNIX_PATH_BYTES = 107  # sockaddr_un holds 108 with the final NUL


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target URL.

    Attributes:
        scheme: smtp, smtps, lmtp or lmtp+unix.
        host: Host name or address; empty for lmtp+unix.
        port: TCP port; 0 for lmtp+unix.
        user: User name for AUTH; empty for none.
        starttls: Whether STARTTLS is added to scenarios that have none.
        path: Path of the socket for lmtp+unix; otherwise empty.
    """

    scheme: str
    host: str
    port: int
    user: str = ""
    starttls: bool = False
    path: str = ""

    @property
    def lmtp(self) -> bool:
        """Whether the protocol is LMTP (RFC 2033)."""
        return self.scheme.startswith("lmtp")

    @property
    def implicit_tls(self) -> bool:
        """Whether TLS starts before the greeting (RFC 8314 §3.3)."""
        return self.scheme == "smtps"

    @property
    def url(self) -> str:
        """The target as a URL, percent-encoded."""
        if self.path:
            return f"{self.scheme}://{quote(self.path, _SAFE_IN_PATH, errors='surrogateescape')}"
        # the zone of an address follows `%25` (RFC 6874)
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        user = f"{quote(self.user, _SAFE_IN_USER)}@" if self.user else ""
        return f"{self.scheme}://{user}{host}:{self.port}" + ("?tls=starttls" if self.starttls else "")


def parse_target(url: str) -> Target:
    """Parse a target URL. Raises UsageError."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise UsageError(f"{_without_password(url)!r} is not a target URL; {_suggestion(url)}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"target {_without_password(url)!r}: {str(error).lower()}; {_EXAMPLES}") from None
    if parts.password is not None:
        raise UsageError(
            f"target {_without_password(url)!r} contains a password, which process lists show; use --password-file FILE or "
            f"the variable {PASSWORD_VARIABLE} instead"
        )
    if scheme == "lmtp+unix":
        if parts.netloc or not parts.path:
            raise UsageError(
                f"target {_without_password(url)!r}: a unix socket needs three slashes; use lmtp+unix:///path/to/socket"
            )
        _refuse_fragment(url, parts.fragment)
        if _starttls_option(url, parts.query):
            raise UsageError(f"target {_without_password(url)!r}: {_STARTTLS_MISPLACED}")
        return Target(scheme, "", 0, path=unquote(parts.path, errors="surrogateescape"))
    if not parts.hostname:
        raise UsageError(f"target {_without_password(url)!r} has no host; {_EXAMPLES}")
    if port == 0:
        raise UsageError(f"target {_without_password(url)!r}: port 0 is not allowed; use a port from 1 to 65535")
    _refuse_fragment(url, parts.fragment)
    if parts.path.strip("/"):
        raise UsageError(f"target {_without_password(url)!r} has a path, which is not allowed; {_EXAMPLES}")
    starttls = _starttls_option(url, parts.query)
    if starttls and scheme != "smtp":
        raise UsageError(f"target {_without_password(url)!r}: {_STARTTLS_MISPLACED}")
    host = unquote(parts.hostname) if ":" in parts.hostname else parts.hostname
    try:
        user = unquote(parts.username or "", errors="strict")
    except UnicodeDecodeError:
        raise UsageError(f"target {_without_password(url)!r}: the user name is not UTF-8, percent-encoded") from None
    return Target(scheme, host, port or _DEFAULT_PORTS[scheme], user, starttls)


def _refuse_fragment(url: str, fragment: str) -> None:
    if fragment:
        raise UsageError(f"target {_without_password(url)!r} has a fragment, which is not allowed; write %23 for '#'")


def _suggestion(url: str) -> str:
    """Return what to write instead of a URL whose scheme is missing or misspelled."""
    scheme, separator, place = url.partition("://")
    if not separator and url.startswith("/"):
        return f"for a unix socket use lmtp+unix://{_without_password(url)}"
    if not separator and re.fullmatch(r"([^@/\s]+@)?(\[[0-9a-fA-F:.]+\]|[^@/:\s]+)(:\d+)?", url):
        port = url.rpartition(":")[2]
        near = {"465": "smtps", "24": "lmtp"}.get(port, "smtp")
        return f"use {near}://{_without_password(url)}"
    near_schemes = difflib.get_close_matches(scheme.lower(), SCHEMES, 1) if separator else []
    return f"use {near_schemes[0]}://{_without_password(place)}" if near_schemes else _EXAMPLES


def _starttls_option(url: str, query: str) -> bool:
    """Return whether the query of a URL asks for STARTTLS. Raises UsageError for anything else."""
    tls = "auto"
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "tls":
            raise UsageError(f"target {_without_password(url)!r}: unknown option {name!r}; the only option is tls=starttls")
        if value not in _TLS_CHOICES:
            raise UsageError(f"target {_without_password(url)!r}: unknown value tls={value}; use tls=starttls or tls=auto")
        tls = value
    return tls == "starttls"


def _without_password(url: str) -> str:
    """Return a URL without what may be a password."""
    before, at, after = url.rpartition("@")
    scheme, separator, userinfo = before.rpartition("://")
    return f"{scheme}{separator}{userinfo.partition(':')[0]}@{after}" if at else url


def read_password(file: Path | None) -> str | None:
    """Return the first line of a password file, or else SMTPBENCH_PASSWORD, or else None. Raises UsageError."""
    if file is None:
        return os.environ.get(PASSWORD_VARIABLE)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"password file {file}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    if not lines or not lines[0]:
        raise UsageError(f"password file {file}: its first line is empty; write the password there")
    return lines[0]


@dataclass(frozen=True, slots=True)
class Trust:
    """How TLS is verified.

    Attributes:
        ca: PEM file of trusted certificates; None for those of the system.
        insecure: Whether any certificate is accepted.
        server_name: Name for SNI and for the certificate; None for the host of the target.
        certificate: PEM file of the client certificate.
        key: PEM file of its key, if the certificate file does not hold it.
    """

    ca: Path | None = None
    insecure: bool = False
    server_name: str | None = None
    certificate: Path | None = None
    key: Path | None = field(default=None, repr=False)


def tls_context(trust: Trust) -> ssl.SSLContext:
    """Return the TLS context of the client. Raises UsageError for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=str(trust.ca) if trust.ca else None)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca {trust.ca}: {_file_error(error, 'no PEM certificates in this file')}") from None
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if trust.certificate:
        try:
            # for an encrypted key OpenSSL would ask on the terminal; an empty password makes it an error instead
            context.load_cert_chain(trust.certificate, trust.key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            reason = _file_error(error, "certificate and key cannot be read, or do not match")
            raise UsageError(f"--cert {trust.certificate}: {reason}") from None
    elif trust.key:
        raise UsageError("--key needs --cert; add the file of the certificate")
    return context


def _file_error(error: Exception, default: str) -> str:
    if isinstance(error, ssl.SSLError) or not isinstance(error, OSError) or not error.strerror:
        return default
    return error.strerror.lower()


def resolve(target: Target, context: ssl.SSLContext | None, trust: Trust, *, authorized: bool) -> list[Route]:
    """Look up the host of a target and return its routes, in the order of preference of the system.

    Args:
        target: The target.
        context: TLS context for scripts that use TLS.
        trust: TLS settings.
        authorized: Whether addresses other than loopback are allowed.

    Raises:
        CannotRun: The name has no address.
        UsageError: An address is not loopback and not authorized, or the path of a socket is too long.
    """
    name = trust.server_name or target.host or "localhost"
    if target.path:
        if len(os.fsencode(target.path)) > _UNIX_PATH_BYTES:
            raise UsageError(f"socket path {target.path} is too long; unix sockets allow at most {_UNIX_PATH_BYTES} octets")
        return [Route(socket.AF_UNIX, target.path, context, name)]
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise CannotRun(f"cannot find the address of {target.host}: {reason.lower()}") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    remote = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    if remote and not authorized:
        raise UsageError(
            f"{target.host} ({remote[0]}) is not a loopback address; use --authorized if you may test this host"
        )
    return [Route(entry[0], entry[4], context, name) for entry in found]  # type: ignore[arg-type]  # the form that connect() takes


@dataclass(frozen=True, slots=True)
class Access:
    """A target and how to reach it.

    Attributes:
        target: The target.
        trust: How TLS is verified.
        password: Password for AUTH; None for none.
        timeout_ns: Limit for one reply, nanoseconds.
        authorized: Whether the target may be another machine.
    """

    target: Target
    trust: Trust = field(default_factory=Trust)
    password: str | None = field(default=None, repr=False)
    timeout_ns: int = 3_000_000_000
    authorized: bool = False

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password; None if one of them is missing."""
        return (self.target.user, self.password) if self.target.user and self.password is not None else None

    def routes(self) -> list[Route]:
        """Return the routes to the target. Raises CannotRun, UsageError."""
        return resolve(self.target, tls_context(self.trust), self.trust, authorized=self.authorized)
