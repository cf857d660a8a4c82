"""What every SASL mechanism provides: an exchange for the client, an exchange for the server, and its properties."""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: What a server sends next: octets are a challenge (334), True is success (235), False is failure (535).
ChallengeOrOutcome = bytes | bool


class ClientExchange(ABC):
    """One exchange on the client's side. Its `repr` shows no credentials."""

    def __init__(self, user: bytes, password: bytes) -> None:
        self.user = user
        self.password = password

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @abstractmethod
    def initial_response(self) -> bytes | None:
        """Return the initial response; None if the mechanism lets the server begin."""

    @abstractmethod
    def respond(self, challenge: bytes) -> bytes:
        """Return the response to a challenge.

        Raises:
            ValueError: The mechanism has no response to this challenge. The client then cancels with `*`.
        """


class Accounts:
    """User names and passwords of a server. Passwords are compared in constant time.

    Args:
        users: Passwords by user name.
    """

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = users

    def __repr__(self) -> str:
        return f"<Accounts: {len(self._users)}>"

    def password(self, user: bytes) -> bytes | None:
        """Return the password of a user; None if there is no such user."""
        try:
            password = self._users.get(user.decode())
        except UnicodeDecodeError:
            return None
        return None if password is None else password.encode()

    def matches(self, user: bytes, password: bytes) -> bool:
        """Whether this is the password of this user."""
        known = self.password(user)
        return hmac.compare_digest(password, known or b"") and known is not None


class ServerExchange(ABC):
    """One exchange on the server's side. Its `repr` shows no credentials.

    Args:
        accounts: Who may log in.
        nonce: Return a text that is different at each call, for mechanisms whose challenge must not repeat.
    """

    def __init__(self, accounts: Accounts, nonce: Callable[[], str]) -> None:
        self.accounts = accounts
        self.nonce = nonce

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @abstractmethod
    def step(self, response: bytes | None) -> ChallengeOrOutcome:
        """Return what follows a response; None stands for an AUTH command without an initial response. Never raises."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One SASL mechanism.

    Attributes:
        name: Name as AUTH gives it, upper case.
        client: Makes a client's exchange from user name and password.
        server: Makes a server's exchange from the accounts and a source of nonces.
        server_first: The server sends the first challenge, so AUTH takes no initial response (RFC 4954 §4: 501).
    """

    name: str
    client: Callable[[bytes, bytes], ClientExchange]
    server: Callable[[Accounts, Callable[[], str]], ServerExchange]
    server_first: bool = False
