"""The client's side of an AUTH command: what is written at each turn of the exchange, and what a transcript shows of it."""

from __future__ import annotations

from smtpbench.smtp import sasl
from smtpbench.smtp.reply import Reply

#: Responses of one exchange, at most. No mechanism needs more than a few.
MAX_RESPONSES = 10
#: How long an exchange may go on, as a multiple of the timeout that each reply has.
MAX_TIMEOUTS = 4


class SaslExchange:
    """One AUTH command with the challenges and responses that follow it (RFC 4954 §4).

    Args:
        mechanism: SASL mechanism.
        credentials: User and password.
        limit_ns: When it must be over.

    Attributes:
        exhausted: The exchange has no end: it was cancelled, or has had `MAX_RESPONSES` responses.
        limit_ns: When it must be over.
        command: The AUTH line, with the initial response if the mechanism has one.
        shown_command: The same for a transcript, without credentials.
        waited_ns: Time of the waits for the challenges so far.
    """

    #: What a transcript shows in place of a response.
    SHOWN_RESPONSE = b"(response)\r\n"

    __slots__ = ("_exchange", "_responses", "command", "exhausted", "limit_ns", "shown_command", "waited_ns")

    def __init__(self, mechanism: str, credentials: tuple[str, str], limit_ns: int) -> None:
        self._responses = 0
        self.limit_ns = limit_ns
        self.exhausted = False
        self.waited_ns = 0
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
        self._responses += 1
        self.exhausted = self._responses >= MAX_RESPONSES
        challenge = sasl.decode_line(reply.lines[0])
        try:
            if challenge is not None:
                return sasl.encode_line(self._exchange.respond(challenge)) + b"\r\n"
        except ValueError:
            pass
        self.exhausted = True  # a server must not go on after a client has cancelled (RFC 4954 §4)
        return b"*\r\n"
