"""CRAM-MD5 (RFC 2195): the client answers a challenge with its user name and a keyed digest of the challenge."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from smtpbench.smtp.sasl.mechanism import Accounts, ChallengeOrOutcome, ClientExchange, Mechanism, ServerExchange


class CramMd5Client(ClientExchange):
    """Client side of CRAM-MD5."""

    def initial_response(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        return self.user + b" " + _digest(self.password, challenge)


class CramMd5Server(ServerExchange):
    """Server side of CRAM-MD5."""

    def __init__(self, accounts: Accounts, nonce: Callable[[], str]) -> None:
        super().__init__(accounts, nonce)
        self._challenge = f"<{nonce()}@smtpbench>".encode()

    def step(self, response: bytes | None) -> ChallengeOrOutcome:
        if response is None:
            return self._challenge
        user, _, digest = response.rpartition(b" ")
        password = self.accounts.password(user)
        return hmac.compare_digest(digest, _digest(password or b"", self._challenge)) and password is not None


def _digest(password: bytes, challenge: bytes) -> bytes:
    return hmac.new(password, challenge, "md5").hexdigest().encode()


MECHANISM = Mechanism("CRAM-MD5", CramMd5Client, CramMd5Server, server_first=True)
