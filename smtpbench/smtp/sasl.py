"""SASL as SMTP carries it (RFC 4954): PLAIN, LOGIN, CRAM-MD5 and XOAUTH2, the client's side and the server's.

Responses and challenges are raw octets here; base64 is the wire's business (`decode_line`, `encode_line`).
Passwords are compared in constant time and never stand in a repr.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from smtpbench.errors import UsageError

MECHANISMS: Final = ("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2")
#: Mechanisms that take no initial response, for the server speaks first (RFC 4954 §4: 501).
SERVER_FIRST: Final = frozenset({"CRAM-MD5"})
#: The longest line of an exchange, CRLF included (RFC 4954 §4).
MAX_LINE_BYTES: Final = 12_288


def decode_line(line: bytes) -> bytes | None:
    """Base64 as a line of an exchange holds it; None where it is not base64 (RFC 4954 §4: 501)."""
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return None


def encode_line(data: bytes) -> bytes:
    """Octets as a line of an exchange, without its CRLF."""
    return base64.b64encode(data)


# -- the client's side --------------------------------------------------------------------------------------------


class Client(Protocol):
    """One exchange, as the client leads it."""

    def initial(self) -> bytes | None:
        """The initial response, None where the mechanism lets the server begin."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a challenge. Raises ValueError where there is none: cancel with `*`."""


def client(mechanism: str, user: str, password: str) -> Client:
    """An exchange for these credentials. Raises UsageError for a mechanism that is not known, naming those that are."""
    made = _CLIENTS.get(mechanism.upper())
    if made is None:
        raise UsageError(f"{mechanism!r} is no SASL mechanism known here; there are {', '.join(MECHANISMS)}")
    if "\0" in user or "\0" in password:
        raise UsageError("a user name or password for AUTH may not hold a NUL (RFC 4616)")
    return made(user.encode(), password.encode())


class _Secretive:
    __slots__ = ("_password", "_user")

    def __init__(self, user: bytes, password: bytes) -> None:
        self._user = user
        self._password = password

    def __repr__(self) -> str:
        return f"<{type(self).__name__.removeprefix('_')}>"


class _PlainClient(_Secretive):
    """RFC 4616: authorization identity (none), user, password."""

    __slots__ = ()

    def initial(self) -> bytes | None:
        return b"\0" + self._user + b"\0" + self._password

    def respond(self, challenge: bytes) -> bytes:
        if challenge:
            raise ValueError("PLAIN knows no challenge but the empty one")
        return b"\0" + self._user + b"\0" + self._password


class _LoginClient(_Secretive):
    """The old LOGIN: two challenges, whatever they say, ask for user and password."""

    __slots__ = ("_left",)

    def __init__(self, user: bytes, password: bytes) -> None:
        super().__init__(user, password)
        self._left = [password, user]

    def initial(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if not self._left:
            raise ValueError("LOGIN knows no third challenge")
        return self._left.pop()


class _CramMd5Client(_Secretive):
    """RFC 2195: the user and a keyed digest of the challenge."""

    __slots__ = ()

    def initial(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        return self._user + b" " + _cram_digest(self._password, challenge)


class _XOAuth2Client(_Secretive):
    """Google's XOAUTH2: the password is a bearer token; a challenge is an error report, which is acknowledged."""

    __slots__ = ()

    def initial(self) -> bytes | None:
        return b"user=" + self._user + b"\x01auth=Bearer " + self._password + b"\x01\x01"

    def respond(self, challenge: bytes) -> bytes:
        return b"" if challenge else self.initial() or b""


_CLIENTS: dict[str, Callable[[bytes, bytes], Client]] = {
    "PLAIN": _PlainClient,
    "LOGIN": _LoginClient,
    "CRAM-MD5": _CramMd5Client,
    "XOAUTH2": _XOAuth2Client,
}


# -- the server's side --------------------------------------------------------------------------------------------

#: What a server says next: octets are a challenge (334), True is 235, False is 535.
Verdict = bytes | bool


class Server:
    """One exchange, as the server leads it; `step` takes what the client sent and never raises on it.

    users: names and passwords.
    nonce: makes the part of a CRAM-MD5 challenge that may never come twice.
    """

    __slots__ = ("_challenge", "_doomed", "_mechanism", "_name", "_users")

    def __init__(self, mechanism: str, users: Mapping[str, str], nonce: Callable[[], str]) -> None:
        self._mechanism = mechanism
        self._users = users
        self._challenge = f"<{nonce()}@smtpbench>".encode() if mechanism == "CRAM-MD5" else b""
        self._name: bytes | None = None
        self._doomed = False

    def __repr__(self) -> str:
        return f"<sasl.Server {self._mechanism}>"

    def step(self, response: bytes | None) -> Verdict:
        """What to say to a response; None stands for an AUTH command without an initial one."""
        match self._mechanism:
            case "PLAIN":
                return b"" if response is None else self._plain(response)
            case "LOGIN":
                return self._login(response)
            case "CRAM-MD5":
                return self._challenge if response is None else self._cram_md5(response)
            case _:
                return b"" if response is None else self._xoauth2(response)

    def _plain(self, response: bytes) -> bool:
        parts = response.split(b"\0")
        if len(parts) != 3:
            return False
        identity, user, password = parts
        return self._matches(user, password) and identity in (b"", user)

    def _login(self, response: bytes | None) -> Verdict:
        if response is None:
            return b"Username:"
        if self._name is None:
            self._name = response
            return b"Password:"
        return self._matches(self._name, response)

    def _cram_md5(self, response: bytes) -> bool:
        user, _, digest = response.rpartition(b" ")
        expected = _cram_digest(self._password_of(user) or b"", self._challenge)
        return hmac.compare_digest(digest, expected) and self._password_of(user) is not None

    def _xoauth2(self, response: bytes) -> Verdict:
        if self._doomed:
            return False
        fields = dict(part.partition(b"=")[::2] for part in response.split(b"\x01") if part)
        scheme, _, token = fields.get(b"auth", b"").partition(b" ")
        if scheme.lower() == b"bearer" and self._matches(fields.get(b"user", b""), token):
            return True
        self._doomed = True
        return b'{"status":"401","schemes":"bearer"}'

    def _matches(self, user: bytes, password: bytes) -> bool:
        known = self._password_of(user)
        return hmac.compare_digest(password, known or b"") and known is not None

    def _password_of(self, user: bytes) -> bytes | None:
        try:
            password = self._users.get(user.decode())
        except UnicodeDecodeError:
            return None
        return None if password is None else password.encode()


def _cram_digest(password: bytes, challenge: bytes) -> bytes:
    return hmac.new(password, challenge, "md5").hexdigest().encode()
