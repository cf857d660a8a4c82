"""SASL as SMTP carries it (RFC 4954), the client's side and the server's.

One module holds one mechanism: a class for each side, and a `Mechanism` that names them. `MECHANISMS` lists them all.
To add a mechanism, write its module and add it to that table; sessions, scenarios and the EHLO reply read the table.

Responses and challenges are raw octets here. `decode_line` and `encode_line` translate them to the base64 of the wire.
"""

from __future__ import annotations

from typing import Final

from smtpbench.errors import UsageError
from smtpbench.smtp.sasl import cram_md5, login, plain, xoauth2
from smtpbench.smtp.sasl.line import MAX_LINE_BYTES, decode_line, encode_line
from smtpbench.smtp.sasl.mechanism import Accounts, ChallengeOrOutcome, ClientExchange, Mechanism, ServerExchange

__all__ = [
    "MAX_LINE_BYTES", "MECHANISMS", "Accounts", "ChallengeOrOutcome", "ClientExchange", "Mechanism", "ServerExchange",
    "client_exchange", "decode_line", "encode_line",
]  # fmt: skip

#: Mechanisms by name, in the order in which a server lists them in its EHLO reply.
MECHANISMS: Final[dict[str, Mechanism]] = {
    module.MECHANISM.name: module.MECHANISM for module in (plain, login, cram_md5, xoauth2)
}


def client_exchange(mechanism: str, user: str, password: str) -> ClientExchange:
    """Begin an exchange with these credentials.

    Raises:
        UsageError: The mechanism is unknown (the text lists those that are known), or a credential contains NUL
            (RFC 4616 §2).
    """
    found = MECHANISMS.get(mechanism.upper())
    if found is None:
        raise UsageError(f"unknown SASL mechanism {mechanism!r}; allowed: {', '.join(MECHANISMS)}")
    if "\0" in user or "\0" in password:
        raise UsageError("a user name or password for AUTH must not contain a NUL character (RFC 4616)")
    return found.client(user.encode(), password.encode())
