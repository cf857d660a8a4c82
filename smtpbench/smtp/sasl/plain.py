"""PLAIN (RFC 4616): authorization identity (empty), user name and password in one response."""

from __future__ import annotations

from smtpbench.smtp.sasl.mechanism import ChallengeOrOutcome, ClientExchange, Mechanism, ServerExchange


class PlainClient(ClientExchange):
    """Client side of PLAIN."""

    def initial_response(self) -> bytes | None:
        return b"\0" + self.user + b"\0" + self.password

    def respond(self, challenge: bytes) -> bytes:
        if challenge:
            raise ValueError("PLAIN has no response to a challenge that is not empty")
        return b"\0" + self.user + b"\0" + self.password


class PlainServer(ServerExchange):
    """Server side of PLAIN."""

    def step(self, response: bytes | None) -> ChallengeOrOutcome:
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3:
            return False
        identity, user, password = parts
        return self.accounts.matches(user, password) and identity in (b"", user)


MECHANISM = Mechanism("PLAIN", PlainClient, PlainServer)
