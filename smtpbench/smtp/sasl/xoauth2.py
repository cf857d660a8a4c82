"""XOAUTH2 (Google's mechanism): the password is a bearer token.

A server that refuses the token sends an error report as a challenge. The client acknowledges it with an empty response.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.smtp.sasl.mechanism import Accounts, ChallengeOrOutcome, ClientExchange, Mechanism, ServerExchange


class XOAuth2Client(ClientExchange):
    """Client side of XOAUTH2."""

    def initial_response(self) -> bytes | None:
        return self._credentials()

    def respond(self, challenge: bytes) -> bytes:
        return b"" if challenge else self._credentials()

    def _credentials(self) -> bytes:
        return b"user=" + self.user + b"\x01auth=Bearer " + self.password + b"\x01\x01"


class XOAuth2Server(ServerExchange):
    """Server side of XOAUTH2."""

    def __init__(self, accounts: Accounts, nonce: Callable[[], str]) -> None:
        super().__init__(accounts, nonce)
        self._refused = False

    def step(self, response: bytes | None) -> ChallengeOrOutcome:
        if response is None:
            return b""
        if self._refused:
            return False
        fields = dict(part.partition(b"=")[::2] for part in response.split(b"\x01") if part)
        scheme, _, token = fields.get(b"auth", b"").partition(b" ")
        if scheme.lower() == b"bearer" and self.accounts.matches(fields.get(b"user", b""), token):
            return True
        self._refused = True
        return b'{"status":"401","schemes":"bearer"}'


MECHANISM = Mechanism("XOAUTH2", XOAuth2Client, XOAuth2Server)
