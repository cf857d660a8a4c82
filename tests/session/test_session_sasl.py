"""A SASL mechanism that is added to the table works on both sides of a session."""

from __future__ import annotations

import base64

import pytest
from fakes import ClientFeed, command_step

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Script, Step
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.smtp import sasl
from smtpbench.smtp.sasl import ChallengeOrOutcome, ClientExchange, Mechanism, ServerExchange


class ReversingClient(ClientExchange):
    """Sends the user name, then the password backwards."""

    def initial_response(self) -> bytes | None:
        return self.user

    def respond(self, challenge: bytes) -> bytes:
        return self.password[::-1] + challenge


class ReversingServer(ServerExchange):
    """Asks for the password backwards, followed by its challenge."""

    def __init__(self, accounts: sasl.Accounts, nonce: object) -> None:
        super().__init__(accounts, lambda: "7")
        self._user = b""

    def step(self, response: bytes | None) -> ChallengeOrOutcome:
        if not self._user:
            self._user = response or b""
            return self.nonce().encode()
        password, nonce = (response or b"")[:-1], (response or b"")[-1:]
        return nonce == self.nonce().encode() and self.accounts.matches(self._user, password[::-1])


AUTH = Step(
    s.AUTH,
    expected_replies=(ExpectedReply("AUTH", (2,)),),
    metric="AUTH",
    mechanism="X-REVERSE",
    on_unexpected=s.ABORT_SESSION,
)
SCRIPT = Script.of("auth", (command_step(b"EHLO c"), AUTH, command_step(b"QUIT", 221)), teardown=2)


def joined(output: api.Out) -> bytes:
    return output if isinstance(output, bytes) else b"".join(output)


@pytest.mark.parametrize(("password", "code"), [("secret", "235"), ("wrong", "535")])
def test_added_mechanism_logs_in(monkeypatch: pytest.MonkeyPatch, password: str, code: str) -> None:
    monkeypatch.setitem(sasl.MECHANISMS, "X-REVERSE", Mechanism("X-REVERSE", ReversingClient, ReversingServer))
    server = ServerSession(ServerContext(users={"ann": "secret"}))
    client = ClientFeed(SCRIPT, credentials=("ann", password))
    replies = [server.connected(0)]
    while (reply := replies[-1]) and (command := client.receive(joined(reply))):
        replies.append(server.receive(command, 1))
    assert b"XOAUTH2 X-REVERSE\r\n" in joined(replies[1])
    assert client.recorder.codes("AUTH") == {"334": 1, code: 1}
    assert client.session.pending_action == api.CLOSE
    assert server.authenticated is (code == "235")
    assert b"AUTH X-REVERSE " + base64.b64encode(b"ann") + b"\r\n" in client.sent


def test_server_first_mechanism_refuses_an_initial_response(monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism = Mechanism("X-REVERSE", ReversingClient, ReversingServer, server_first=True)
    monkeypatch.setitem(sasl.MECHANISMS, "X-REVERSE", mechanism)
    server = ServerSession(ServerContext(users={"ann": "secret"}))
    server.connected(0)
    server.receive(b"EHLO c\r\n", 1)
    assert server.receive(b"AUTH X-REVERSE YW5u\r\n", 2) == b"501 5.5.4 This mechanism takes no initial response\r\n"
    assert server.receive(b"AUTH X-REVERSE\r\n", 2) == b"334 Nw==\r\n"
