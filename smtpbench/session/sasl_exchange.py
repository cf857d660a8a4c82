"""The client's side of an AUTH command: what is written at each turn of the exchange, and what a transcript shows of it."""

from __future__ import annotations

from smtpbench.smtp import sasl
from smtpbench.smtp.reply import Reply


class SaslExchange:
    """One AUTH command with the challenges and responses that follow it (RFC 4954 §4).

    Attributes:
        command: The AUTH line, with the initial response if the mechanism has one.
        shown_command: The same for a transcript, without credentials.
    """

    #: What a transcript shows in place of a response.
    SHOWN_RESPONSE = b"(response)\r\n"

    __slots__ = ("_exchange", "command", "shown_command")

    def __init__(self, mechanism: str, credentials: tuple[str, str]) -> None:
        self._exchange = sasl.client_exchange(mechanism, *credentials)
        initial = self._exchange.initial_response()
        line = b"AUTH " + mechanism.encode()
        if initial is None:
            self.command = self.shown_command = line + b"\r\n"
        else:
            self.command = line + b" " + (sasl.encode_line(initial) or b"=") + b"\r\n"
            self.shown_command = line + b" (initial response)\r\n"

    def response_to(self, reply: Reply) -> bytes:
        """Return the line that answers a 334 reply; `*` cancels if its challenge is invalid or one too many."""
        challenge = sasl.decode_line(reply.lines[0])
        if challenge is None:
            return b"*\r\n"
        try:
            return sasl.encode_line(self._exchange.respond(challenge)) + b"\r\n"
        except ValueError:
            return b"*\r\n"
