"""The commands of a server session: how each is answered and what it changes.

Theory of operation
===================

`CommandHandlers` holds what one client's session knows: its state in the table of `smtp.state`, the envelope, the content
received so far, and whether the client is inside TLS or authenticated. `handle_command` takes one whole command line and
returns the reply. `session.command_line` parses the line, from a cache where it can. MAIL, RCPT and DATA that are in order
are answered at once, and all the rest by `_dispatch`.

The class knows nothing of reads. `session.server` cuts the client's octets into units and calls it.
"""

from __future__ import annotations

import secrets
from functools import lru_cache

from smtpbench.engine import api
from smtpbench.session.command_line import CommandLine, CommandLineCache
from smtpbench.session.server_context import Envelope, ServerContext
from smtpbench.smtp import command as c
from smtpbench.smtp import sasl
from smtpbench.smtp import state as st
from smtpbench.smtp.command import Refusal
from smtpbench.smtp.content import unstuff_dots

# What the next octets of the client are.
COMMAND_MODE = 0  #: command lines
TEXT_MODE = 1  #: text of a message, up to CRLF.CRLF
CHUNK_MODE = 2  #: a BDAT chunk of a known length
SASL_MODE = 3  #: a line of a SASL exchange
SKIP_MODE = 4  #: the rest of a line that was too long

_CACHE = CommandLineCache()  # a pure function of the line: one for all sessions of the process
_cached = _CACHE.get
_parse_hello = lru_cache(maxsize=256)(c.parse_hello)

_helo_reply = lru_cache(maxsize=64)(lambda name: f"250 {name}\r\n".encode())

_SENDER_OK = b"250 2.1.0 Sender ok\r\n"
_RECIPIENT_OK = b"250 2.1.5 Recipient ok\r\n"
_START_INPUT = b"354 End data with <CRLF>.<CRLF>\r\n"
_MESSAGE_ACCEPTED = b"250 2.0.0 Message accepted\r\n"
_BYE = b"221 2.0.0 Bye\r\n"
TOO_BIG = b"552 5.3.4 Message too big\r\n"
#: Replies that depend on the verb only.
_FIXED_REPLIES = {
    "RSET": b"250 2.0.0 Ok\r\n",
    "NOOP": b"250 2.0.0 Ok\r\n",
    "HELP": b"214 2.0.0 See RFC 5321\r\n",
    "VRFY": b"252 2.0.0 Cannot verify, will try delivery\r\n",
    "EXPN": b"252 2.0.0 Cannot expand, will try delivery\r\n",
}


class CommandHandlers:
    """The commands of one session. `session.server.ServerSession` lists what a subclass may use and override."""

    __slots__ = (
        "authenticated",
        "buffer",
        "chunk_is_last",
        "chunk_left",
        "chunk_refusal",
        "content_bytes",
        "content_parts",
        "context",
        "counts",
        "message_count",
        "mode",
        "pending_action",
        "recipients",
        "sasl_exchange",
        "sender",
        "state",
        "text_tail",
        "tls",
        "utf8",
    )

    def __init__(self, context: ServerContext) -> None:
        self.context = context
        self.counts = context.counts
        self.pending_action = api.NOTHING
        self.state = st.CONNECTED
        self.mode = COMMAND_MODE
        self.buffer = b""
        self.tls = False
        self.authenticated = False
        self.sasl_exchange: sasl.ServerExchange | None = None
        self.message_count = 0
        self.sender = b""
        self.recipients: list[bytes] = []
        self.utf8 = False
        self.content_bytes = 0
        self.content_parts: list[bytes] = []
        self.text_tail = b""
        self.chunk_left = 0
        self.chunk_is_last = False
        self.chunk_refusal = b""

    # -- command lines -------------------------------------------------------------------------------------

    def handle_command(self, line: bytes) -> bytes:
        """Return the reply to one command line, line end included."""
        parsed = _cached(line) or _CACHE.parse(line)
        verb, mailbox, size_bytes, utf8, _, _ = parsed
        if verb == "RCPT":
            at = self.state
            if mailbox is not None and (at == "rcpt" or at == "mail") and len(self.recipients) < self.context.recipients:
                counts = self.counts
                self.recipients.append(mailbox)
                self.state = "rcpt"
                counts.commands["RCPT"] += 1
                counts.recipients_accepted += 1
                counts.replies[b"250"] += 1
                return _RECIPIENT_OK
        elif verb == "MAIL":
            if mailbox is not None and self.state == "ready" and self._may_send(size_bytes):
                counts = self.counts
                self.sender = mailbox
                self.utf8 = utf8
                self.state = "mail"
                counts.commands["MAIL"] += 1
                counts.replies[b"250"] += 1
                return _SENDER_OK
        elif verb == "DATA" and self.state == "rcpt":
            self.counts.commands["DATA"] += 1
            return self.begin_text()
        elif verb in ("QUIT", "HELO", "EHLO") and verb in st.IN_ORDER[self.state] and not self.context.lmtp:
            self.counts.commands[verb] += 1
            return self._handle_quit() if verb == "QUIT" else self.handle_hello(verb, parsed[4])
        return self._dispatch(line, parsed)

    def _may_send(self, size_bytes: int) -> bool:
        """Whether a well-formed MAIL is refused for no other reason than the order of commands."""
        context = self.context
        return (
            size_bytes <= context.size_bytes
            and (context.messages is None or self.message_count < context.messages)
            and (self.tls or not context.require_tls)
            and (self.authenticated or not context.require_auth)
        )

    def _dispatch(self, line: bytes, parsed: CommandLine) -> bytes:
        """Answer any command line."""
        verb, _, _, _, argument, refusal = parsed
        if refusal is not None:
            word = line[:4].upper().decode("latin-1")
            self.counts.commands[word if word in c.EXPECTED else "other"] += 1
            return self.refuse(refusal)
        context = self.context
        known = verb in c.EXPECTED and verb != "ETRN"
        if context.lmtp and verb in ("EHLO", "HELO"):
            return self.refuse(Refusal(500, "5.5.1", "This is LMTP: use LHLO"))
        if not known or (verb == "LHLO" and not context.lmtp):
            self.counts.commands["other"] += 1
            return self.refuse(c.UNKNOWN)
        self.counts.commands[verb] += 1
        if verb == "BDAT":
            return self.handle_bdat(argument)
        if verb not in st.IN_ORDER[self.state]:
            return self.refuse(Refusal(503, "5.5.1", "Bad sequence of commands"))
        if verb in ("EHLO", "HELO", "LHLO"):
            return self.handle_hello(verb, argument)
        if verb == "MAIL":
            return self._handle_mail(parsed)
        if verb == "RCPT":
            return self._handle_rcpt(parsed)
        if verb == "DATA":
            return self.begin_text()
        if verb == "STARTTLS":
            return self.handle_starttls()
        if verb == "AUTH":
            return self.handle_auth(argument)
        if verb == "QUIT":
            return self._handle_quit()
        if verb == "RSET":
            self.state = st.after(self.state, verb, 250)
            self.clear_transaction()
        return self.respond(_FIXED_REPLIES[verb])

    def handle_hello(self, verb: str, argument: bytes) -> bytes:
        """Answer EHLO, HELO or LHLO."""
        parsed = _parse_hello(verb, argument)
        if isinstance(parsed, Refusal):
            return self.refuse(parsed)
        self.state = st.READY
        self.clear_transaction()
        if verb == "HELO":
            self.counts.replies[b"250"] += 1
            return _helo_reply(self.context.name)
        return self.respond(self.context.extensions(tls=self.tls, authenticated=self.authenticated))

    def _handle_quit(self) -> bytes:
        self.state = st.CLOSED
        self.pending_action = api.LINGER if self.buffer else api.CLOSE
        self.counts.replies[b"221"] += 1
        return _BYE

    # -- the envelope --------------------------------------------------------------------------------------

    def _handle_mail(self, parsed: CommandLine) -> bytes:
        _, mailbox, size_bytes, utf8, argument, _ = parsed
        context = self.context
        if context.require_tls and not self.tls:
            return self.refuse(Refusal(530, "5.7.0", "Must issue a STARTTLS command first"))
        if context.require_auth and not self.authenticated:
            return self.refuse(Refusal(530, "5.7.0", "Authentication required"))
        if context.messages is not None and self.message_count >= context.messages:
            return self.close_with(b"421 4.7.0 Too many messages on this connection\r\n")
        if mailbox is None:
            mail = c.parse_mail(argument, c.MAIL_PARAMETERS)
            if isinstance(mail, Refusal):
                return self.refuse(mail)
            mailbox, size_bytes, utf8 = mail.path.mailbox, mail.size_bytes, mail.utf8
        if size_bytes > context.size_bytes:
            return self.respond(TOO_BIG)
        self.state = st.MAIL
        self.sender = mailbox
        self.utf8 = utf8
        return self.respond(_SENDER_OK)

    def _handle_rcpt(self, parsed: CommandLine) -> bytes:
        _, mailbox, _, _, argument, _ = parsed
        if mailbox is None:
            rcpt = c.parse_rcpt(argument, c.RCPT_PARAMETERS, utf8=self.utf8)
            if isinstance(rcpt, Refusal):
                return self._refuse_recipient(rcpt)
            mailbox = rcpt.path.mailbox
        if len(self.recipients) >= self.context.recipients:
            return self._refuse_recipient(Refusal(452, "4.5.3", "Too many recipients"))
        self.recipients.append(mailbox)
        self.counts.recipients_accepted += 1
        self.state = st.RCPT
        return self.respond(_RECIPIENT_OK)

    def _refuse_recipient(self, refusal: Refusal) -> bytes:
        self.counts.recipients_rejected += 1
        return self.refuse(refusal)

    def clear_transaction(self) -> None:
        """Forget the envelope and the content received so far."""
        self.sender = b""
        if self.recipients:
            self.recipients = []
        if self.content_parts:
            self.content_parts = []
        self.utf8 = False

    def reject_transaction(self) -> None:
        """End the transaction without a message, and count it as rejected."""
        self.counts.rejected += 1
        self.state = st.READY
        self.clear_transaction()

    # -- the content ---------------------------------------------------------------------------------------

    def begin_text(self) -> bytes:
        """Answer a DATA command that is in order: the text follows."""
        self.state = st.DATA
        self.mode = TEXT_MODE
        self.text_tail = b"\r\n"  # a dot may end the text as its first octet
        self.content_bytes = 0
        self.counts.replies[b"354"] += 1
        return _START_INPUT

    def handle_bdat(self, argument: bytes) -> bytes:
        """Answer BDAT once its whole chunk has come; return nothing until then."""
        raise NotImplementedError

    def add_content(self, octets: bytes) -> None:
        """Count octets of content; keep them if messages are handed on and this one is not too big."""
        self.content_bytes += len(octets)
        context = self.context
        if context.on_message is None:
            return
        if self.content_bytes > context.size_bytes + 3:
            self.content_parts.clear()
        else:
            self.content_parts.append(octets)

    def complete_message(self, size_bytes: int, *, dot_stuffed: bool) -> bytes:
        """Answer the end of a message: accept it, or reject it for its size."""
        context, counts = self.context, self.counts
        reply_count = len(self.recipients) if context.lmtp else 1
        self.message_count += 1
        if size_bytes > context.size_bytes:
            counts.rejected += 1
            reply = TOO_BIG
        else:
            counts.accepted += 1
            counts.octets += size_bytes
            if context.on_message is not None:
                context.on_message(self._envelope(dot_stuffed=dot_stuffed))
            reply = _MESSAGE_ACCEPTED
        self.state = st.READY
        self.clear_transaction()
        counts.replies[reply[:3]] += reply_count
        return reply * reply_count

    def _envelope(self, *, dot_stuffed: bool) -> Envelope:
        content = b"".join(self.content_parts)
        if dot_stuffed:
            content = unstuff_dots(content[:-3])
        return Envelope(self.sender, tuple(self.recipients), content, self.tls, self.authenticated)

    # -- TLS and SASL --------------------------------------------------------------------------------------

    def handle_starttls(self) -> bytes:
        """Answer STARTTLS."""
        if not self.context.starttls or self.tls:
            return self.refuse(Refusal(503 if self.tls else 502, "5.5.1", "STARTTLS is not available"))
        self.buffer = b""  # what came in the clear behind the command never reaches the TLS side (RFC 3207 §4.2)
        self.pending_action = api.START_TLS
        return self.respond(b"220 2.0.0 Ready to start TLS\r\n")

    def handle_auth(self, argument: bytes) -> bytes:
        """Answer AUTH."""
        if not self.context.users or self.authenticated:
            return self.refuse(Refusal(503, "5.5.1", "AUTH is not available"))
        parsed = c.parse_auth(argument)
        if isinstance(parsed, Refusal):
            return self.refuse(parsed)
        name, initial = parsed
        mechanism = sasl.MECHANISMS.get(name)
        if mechanism is None:
            return self.refuse(Refusal(504, "5.5.4", "Unknown mechanism"))
        if initial is not None and mechanism.server_first:
            return self.refuse(Refusal(501, "5.5.4", "This mechanism takes no initial response"))
        response = None if initial is None else sasl.decode_line(initial)
        if initial is not None and response is None:
            return self.refuse(Refusal(501, "5.5.2", "Not base64"))
        exchange = mechanism.server(sasl.Accounts(self.context.users), secrets.token_hex)
        return self.continue_auth(exchange, response)

    def handle_sasl_response(self, line: bytes) -> bytes:
        """Answer a line of a SASL exchange, line end included."""
        exchange, self.sasl_exchange = self.sasl_exchange, None
        self.mode = COMMAND_MODE
        if line.rstrip(b"\r\n") == b"*":
            return self.refuse(Refusal(501, "5.7.0", "Authentication cancelled"))
        response = sasl.decode_line(line.rstrip(b"\r\n"))
        if response is None or exchange is None:
            return self.refuse(Refusal(501, "5.5.2", "Not base64"))
        return self.continue_auth(exchange, response)

    def continue_auth(self, exchange: sasl.ServerExchange, response: bytes | None) -> bytes:
        """Answer a decoded SASL response; None stands for an AUTH command without an initial response."""
        outcome = exchange.step(response)
        if isinstance(outcome, bytes):
            self.sasl_exchange, self.mode = exchange, SASL_MODE
            return self.respond(b"334 " + sasl.encode_line(outcome) + b"\r\n")
        if outcome:
            self.authenticated = True
            self.counts.auth_ok += 1
            return self.respond(b"235 2.7.0 Authentication succeeded\r\n")
        self.counts.auth_failed += 1
        return self.respond(b"535 5.7.8 Authentication credentials invalid\r\n")

    # -- replies -------------------------------------------------------------------------------------------

    def respond(self, reply: bytes) -> bytes:
        """Count a reply and return it."""
        self.counts.replies[reply[:3]] += 1
        return reply

    def refuse(self, refusal: Refusal) -> bytes:
        """Count a refusal and return it."""
        return self.respond(refusal.wire)

    def close_with(self, reply: bytes) -> bytes:
        """Count a reply and return it; the connection is closed behind it."""
        self.state = st.CLOSED
        self.pending_action = api.LINGER
        return self.respond(reply)
