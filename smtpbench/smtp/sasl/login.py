"""LOGIN (draft-murchison-sasl-login): two challenges, which ask for user name and password whatever their text."""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.smtp.sasl.mechanism import Accounts, ChallengeOrOutcome, ClientExchange, Mechanism, ServerExchange


class LoginClient(ClientExchange):
    """Client side of LOGIN."""

    def __init__(self, user: bytes, password: bytes) -> None:
        super().__init__(user, password)
        self._responses = iter((user, password))

    def initial_response(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        response = next(self._responses, None)
        if response is None:
            raise ValueError("LOGIN has no response to a third challenge")
        return response


class LoginServer(ServerExchange):
    """Server side of LOGIN."""

    def __init__(self, accounts: Accounts, nonce: Callable[[], str]) -> None:
        super().__init__(accounts, nonce)
        self._user: bytes | None = None

    def step(self, response: bytes | None) -> ChallengeOrOutcome:
        if response is None:
            return b"Username:"
        if self._user is None:
            self._user = response
            return b"Password:"
        return self.accounts.matches(self._user, response)


MECHANISM = Mechanism("LOGIN", LoginClient, LoginServer)
