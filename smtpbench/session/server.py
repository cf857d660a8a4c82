"""The server's side of a session: strict SMTP and LMTP, fed with octets and times.

Theory of operation
===================

`receive` has a short path for what a well-behaved client sends nearly always: one whole command line, or one whole
message, in one read, with nothing waiting. Everything else goes through the buffer and `_work`, which takes one unit (a
line, text up to its end, a chunk) after the other in a loop, so that any number of pipelined commands costs no stack.

What a unit is depends on the mode: COMMAND lines, TEXT until CRLF.CRLF (and nothing else: a bare LF or CR ends neither
a line of text nor the data, RFC 5321 §2.3.8), a CHUNK of a known length (RFC 3030), a SASL line, or SKIP, the rest of a
line that was too long. Which commands are in order is read from the one table in `smtp.state`.

A `Manners` object, where there is one, may answer in the server's place, hold replies back, or hang up: see
`sink.behaviour`. Without one the short path pays a single comparison for it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from smtpbench.engine import api
from smtpbench.session.server_context import CLOSING_421, Envelope, FaultInjector, ReplyOverride, ServerContext
from smtpbench.smtp import command as c
from smtpbench.smtp import sasl, state
from smtpbench.smtp.command import Refusal
from smtpbench.smtp.content import unstuff_dots

#: A command line may be this long: 512 octets and what extensions add (RFC 5321 §4.5.3.1.4).
MAX_LINE_BYTES = 4096
#: What a client may send ahead while a reply is held back.
MAX_AHEAD_BYTES = 16 * 1024 * 1024

_COMMAND, _TEXT, _CHUNK, _SASL, _SKIP = range(5)

_ADDRESS = rb"<[A-Za-z0-9][A-Za-z0-9+=_-]{0,60}@[A-Za-z0-9]{1,60}(?:\.[A-Za-z0-9]{1,60}){1,3}>"
_PLAIN_MAIL = re.compile(rb"MAIL FROM:(" + _ADDRESS + rb")\r\n")
_PLAIN_RCPT = re.compile(rb"RCPT TO:(" + _ADDRESS + rb")\r\n")

_SENDER_OK = b"250 2.1.0 Sender ok\r\n"
_RECIPIENT_OK = b"250 2.1.5 Recipient ok\r\n"
_GO_AHEAD = b"354 End data with <CRLF>.<CRLF>\r\n"
_ACCEPTED = b"250 2.0.0 Message accepted\r\n"
_CHUNK_OK = b"250 2.0.0 Chunk ok\r\n"
_TOO_BIG = b"552 5.3.4 Message too big\r\n"
_END = b"\r\n.\r\n"
_FIXED = {
    "RSET": b"250 2.0.0 Ok\r\n",
    "NOOP": b"250 2.0.0 Ok\r\n",
    "HELP": b"214 2.0.0 See RFC 5321\r\n",
    "VRFY": b"252 2.0.0 Cannot verify, will try delivery\r\n",
    "EXPN": b"252 2.0.0 Cannot expand, will try delivery\r\n",
}


class ServerSession:
    """One client's connection; implements `engine.api.Session`.

    max_line_bytes: the longest command line that is read.
    """

    max_line_bytes = MAX_LINE_BYTES

    __slots__ = (
        "_authenticated",
        "_buffer",
        "_chunk_last",
        "_chunk_left",
        "_chunk_refused",
        "_counts",
        "_faults",
        "_held",
        "_idle_ns",
        "_messages",
        "_mode",
        "_octets",
        "_parts",
        "_recipients",
        "_sasl",
        "_sender",
        "_service",
        "_state",
        "_tail",
        "_then",
        "_tls",
        "_utf8",
        "deadline_ns",
        "pending_action",
        "wake_ns",
    )  # fmt: skip

    def __init__(self, service: ServerContext) -> None:
        self._service = service
        self._counts = service.counts
        self._faults = service.faults
        self._idle_ns = service.idle_ns
        self.pending_action = api.NOTHING
        self.wake_ns = 0
        self.deadline_ns = api.NEVER
        self._state = state.CONNECTED
        self._mode = _COMMAND
        self._buffer = b""
        self._held: list[tuple[int, bytes]] = []
        self._then = api.NOTHING
        self._tls = False
        self._authenticated = False
        self._sasl: sasl.Server | None = None
        self._messages = 0
        self._sender = b""
        self._recipients: list[bytes] = []
        self._utf8 = False
        self._octets = 0
        self._tail = b""
        self._parts: list[bytes] = []
        self._chunk_left = 0
        self._chunk_last = False
        self._chunk_refused: bytes = b""

    # -- what the engine calls -----------------------------------------------------------------------------

    def connected(self, now_ns: int) -> api.Out:
        counts = self._counts
        counts.connections += 1
        counts.connections_open += 1
        counts.connections_peak = max(counts.connections_peak, counts.connections_open)
        self.deadline_ns = now_ns + self._idle_ns
        if self._service.implicit_tls:
            self.pending_action = api.START_TLS
            return b""
        return self._greet(now_ns)

    def tls_started(self, now_ns: int) -> api.Out:
        self._counts.tls += 1
        self._tls = True
        if self._state == state.CONNECTED:
            return self._greet(now_ns)
        self._state = state.GREETED  # all that was said before is forgotten (RFC 3207 §4.2)
        self._authenticated = False
        self._clear()
        return b""

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        self.deadline_ns = now_ns + self._idle_ns
        if self._faults is None and not self._buffer:
            mode = self._mode
            if mode == _COMMAND:
                if data.find(b"\n") + 1 == len(data):
                    return self._command(data)
            elif mode == _TEXT and self._tail == b"\r\n" and data[:3] != b".\r\n":
                end = data.find(_END)
                if end >= 0 and end + 5 == len(data):
                    self._absorb(data)
                    return self._end_of_text()
        self._buffer = self._buffer + data if self._buffer else data
        if self._held and len(self._buffer) > MAX_AHEAD_BYTES:
            self._held, self._buffer = [], b""
            return self._hang_up(CLOSING_421)
        return self._work(now_ns)

    def wake(self, now_ns: int) -> api.Out:
        said = []
        while self._held and self._held[0][0] <= now_ns:
            said.append(self._held.pop(0)[1])
        if self._held:
            self._sleep()
        elif self._then:
            self.pending_action, self._then = self._then, api.NOTHING
        else:
            said.append(self._work(now_ns))
        return b"".join(said)

    def eof_received(self, now_ns: int) -> api.Out:
        if self._held:
            self._then = api.CLOSE  # what is held back is still said
        else:
            self.pending_action = api.CLOSE
        return b""

    def connection_lost(self, why: str, detail: str, now_ns: int) -> None:
        self._counts.connections_open -= 1
        if self._state in state.TRANSACTION:
            self._counts.aborted += 1
        self._state = state.CLOSED

    # -- units ---------------------------------------------------------------------------------------------

    def _work(self, now_ns: int) -> bytes:
        """Take units from the buffer until one is not whole, or a reply is held back."""
        said: list[bytes] = []
        while self._buffer and not (self._held or self.pending_action):
            reply = self._unit(now_ns)
            if reply is None:
                break
            said.append(reply)
        return b"".join(said)

    def _unit(self, now_ns: int) -> bytes | None:
        mode, buffer = self._mode, self._buffer
        if mode == _TEXT:
            return self._text(now_ns)
        if mode == _CHUNK:
            return self._chunk(now_ns)
        end = buffer.find(b"\n") + 1
        limit = sasl.MAX_LINE_BYTES if mode == _SASL else self.max_line_bytes
        if mode == _SKIP:
            self._buffer = buffer[end:] if end else b""
            if not end:
                return None
            self._mode = _COMMAND
            return self._refuse(c.TOO_LONG)
        if end > limit or (not end and len(buffer) > limit):
            self._sasl = None
            self._mode = _SKIP
            return b""
        if not end:
            return None
        line, self._buffer = buffer[:end], buffer[end:]
        if mode == _SASL:
            return self._sasl_line(line)
        if self._faults is None:
            return self._command(line)
        return self._mannered_command(self._faults, line, now_ns)

    def _text(self, now_ns: int) -> bytes | None:
        """Text of a message: all of it up to CRLF.CRLF, or all there is."""
        data = self._tail + self._buffer
        end = data.find(_END)
        if end < 0:
            self._absorb(self._buffer)
            self._tail, self._buffer = data[-4:], b""
            return None
        stop = end + len(_END) - len(self._tail)
        self._absorb(self._buffer[:stop])
        self._buffer = self._buffer[stop:]
        return self._mannered_end(now_ns, self._end_of_text)

    def _chunk(self, now_ns: int) -> bytes | None:
        """Octets of a BDAT chunk, counted and never looked at (RFC 3030 §2)."""
        piece = self._buffer[: self._chunk_left]
        self._buffer = self._buffer[len(piece) :]
        self._chunk_left -= len(piece)
        if not self._chunk_refused:
            self._absorb(piece)
        if self._chunk_left:
            return None
        self._mode = _COMMAND
        if self._chunk_refused:
            return self._say(self._chunk_refused)
        if self._chunk_last:
            return self._mannered_end(now_ns, self._end_of_chunks)
        if self._octets > self._service.size_bytes:
            self._abandon()
            return self._say(_TOO_BIG)
        self._state = state.after(self._state, "BDAT", 250)
        return self._say(_CHUNK_OK)

    def _absorb(self, piece: bytes) -> None:
        """Count octets of content, and keep them if somebody wants them and they are not too many."""
        self._octets += len(piece)
        if self._octets > self._service.size_bytes + 3:
            self._parts.clear()
        elif self._service.on_message is not None:
            self._parts.append(piece)

    # -- commands ------------------------------------------------------------------------------------------

    def _command(self, line: bytes) -> bytes:
        """One command line. The common forms of the common commands are taken here, the rest in `_other`."""
        at, counts = self._state, self._counts
        head = line[:4]
        if head == b"RCPT":
            if (at == "rcpt" or at == "mail") and len(self._recipients) < self._service.recipients:
                match = _PLAIN_RCPT.fullmatch(line)
                if match is not None:
                    self._recipients.append(match[1])
                    self._state = "rcpt"
                    counts.commands["RCPT"] += 1
                    counts.recipients_accepted += 1
                    counts.replies[b"250"] += 1
                    return _RECIPIENT_OK
        elif head == b"MAIL":
            if at == "ready" and self._may_send():
                match = _PLAIN_MAIL.fullmatch(line)
                if match is not None:
                    self._sender = match[1]
                    self._state = "mail"
                    counts.commands["MAIL"] += 1
                    counts.replies[b"250"] += 1
                    return _SENDER_OK
        elif line == b"DATA\r\n" and at == "rcpt":
            counts.commands["DATA"] += 1
            return self._begin_text()
        return self._other(line)

    def _may_send(self) -> bool:
        """Whether nothing stands between this client and MAIL but its place in the order."""
        service = self._service
        return (
            (service.messages is None or self._messages < service.messages)
            and (self._tls or not service.require_tls)
            and (self._authenticated or not service.require_auth)
        )

    def _other(self, line: bytes) -> bytes:
        read = c.parse_line(line)
        if isinstance(read, Refusal):
            verb = line[:4].upper().decode("latin-1")
            self._counts.commands[verb if verb in c.EXPECTED else "other"] += 1
            return self._refuse(read)
        verb, argument = read
        service = self._service
        known = verb in c.EXPECTED and verb != "ETRN"
        if service.lmtp and verb in ("EHLO", "HELO"):
            return self._refuse(Refusal(500, "5.5.1", "This is LMTP: say LHLO"))
        if not known or (verb == "LHLO" and not service.lmtp):
            self._counts.commands["other"] += 1
            return self._refuse(c.UNKNOWN)
        self._counts.commands[verb] += 1
        if verb == "BDAT":
            return self._bdat(argument)
        if verb not in state.IN_ORDER[self._state]:
            return self._refuse(Refusal(503, "5.5.1", "Bad sequence of commands"))
        if verb in ("EHLO", "HELO", "LHLO"):
            return self._hello(verb, argument)
        if verb == "MAIL":
            return self._mail(argument)
        if verb == "RCPT":
            return self._rcpt(argument)
        if verb == "DATA":
            return self._begin_text()
        if verb == "STARTTLS":
            return self._starttls()
        if verb == "AUTH":
            return self._auth(argument)
        if verb == "QUIT":
            self._state = state.CLOSED
            self.pending_action = api.LINGER if self._buffer else api.CLOSE
            return self._say(b"221 2.0.0 Bye\r\n")
        if verb == "RSET":
            self._state = state.after(self._state, verb, 250)
            self._clear()
        return self._say(_FIXED[verb])

    def _hello(self, verb: str, argument: bytes) -> bytes:
        read = c.parse_hello(verb, argument)
        if isinstance(read, Refusal):
            return self._refuse(read)
        self._state = state.READY
        self._clear()
        if verb == "HELO":
            return self._say(f"250 {self._service.name}\r\n".encode())
        return self._say(self._service.extensions(tls=self._tls, authenticated=self._authenticated))

    def _mail(self, argument: bytes) -> bytes:
        service = self._service
        if service.require_tls and not self._tls:
            return self._refuse(Refusal(530, "5.7.0", "Must issue a STARTTLS command first"))
        if service.require_auth and not self._authenticated:
            return self._refuse(Refusal(530, "5.7.0", "Authentication required"))
        if service.messages is not None and self._messages >= service.messages:
            return self._hang_up(b"421 4.7.0 Enough messages on this connection\r\n")
        read = c.parse_mail(argument, c.MAIL_PARAMETERS)
        if isinstance(read, Refusal):
            return self._refuse(read)
        if read.size_bytes > service.size_bytes:
            return self._say(_TOO_BIG)
        self._state = state.MAIL
        self._sender = read.path.mailbox
        self._utf8 = read.utf8
        return self._say(_SENDER_OK)

    def _rcpt(self, argument: bytes) -> bytes:
        read = c.parse_rcpt(argument, c.RCPT_PARAMETERS, utf8=self._utf8)
        if not isinstance(read, Refusal) and len(self._recipients) >= self._service.recipients:
            read = Refusal(452, "4.5.3", "Too many recipients")
        if isinstance(read, Refusal):
            self._counts.recipients_rejected += 1
            return self._refuse(read)
        self._recipients.append(read.path.mailbox)
        self._counts.recipients_accepted += 1
        self._state = state.RCPT
        return self._say(_RECIPIENT_OK)

    def _begin_text(self) -> bytes:
        self._state = state.DATA
        self._mode = _TEXT
        self._tail = b"\r\n"  # a dot may end the text as its first octet
        self._octets = 0
        return self._say(_GO_AHEAD)

    def _bdat(self, argument: bytes) -> bytes:
        read = c.parse_bdat(argument)
        if isinstance(read, Refusal):
            return self._refuse(read)
        self._chunk_left, self._chunk_last = read
        in_order = "BDAT" in state.IN_ORDER[self._state]
        # a refused chunk is still sent by a client that pipelines: its octets are taken and thrown away
        self._chunk_refused = b"" if in_order else b"503 5.5.1 Bad sequence of commands\r\n"
        if self._state == state.RCPT and in_order:
            self._octets = 0
        self._mode = _CHUNK
        if self._chunk_left or self._buffer:
            return b""
        return self._chunk(0) or b""

    def _end_of_text(self) -> bytes:
        self._mode = _COMMAND
        return self._settle(self._octets - 3, stuffed=True)

    def _end_of_chunks(self) -> bytes:
        return self._settle(self._octets, stuffed=False)

    def _settle(self, size_bytes: int, *, stuffed: bool) -> bytes:
        """The message is whole: take it, or refuse it for its size."""
        service, counts = self._service, self._counts
        answers = len(self._recipients) if service.lmtp else 1
        self._messages += 1
        if size_bytes > service.size_bytes:
            counts.rejected += 1
            reply = _TOO_BIG
        else:
            counts.accepted += 1
            counts.octets += size_bytes
            if service.on_message is not None:
                self._hand_over(service.on_message, stuffed=stuffed)
            reply = _ACCEPTED
        self._state = state.READY
        self._clear()
        if answers != 1:
            counts.replies[reply[:3]] += answers - 1
        return self._say(reply * answers)

    def _hand_over(self, keep: Callable[[Envelope], None], *, stuffed: bool) -> None:
        content = b"".join(self._parts)
        if stuffed:
            content = unstuff_dots(content[:-3])
        recipients = tuple(to.strip(b"<>") for to in self._recipients)
        keep(Envelope(self._sender.strip(b"<>"), recipients, content, self._tls, self._authenticated))

    def _abandon(self) -> None:
        """The transaction is over without a message."""
        self._counts.rejected += 1
        self._state = state.READY
        self._clear()

    def _clear(self) -> None:
        self._sender = b""
        if self._recipients:
            self._recipients = []
        if self._parts:
            self._parts = []
        self._utf8 = False

    # -- TLS and SASL --------------------------------------------------------------------------------------

    def _starttls(self) -> bytes:
        if not self._service.starttls or self._tls:
            return self._refuse(Refusal(503 if self._tls else 502, "5.5.1", "STARTTLS is not to be had"))
        self._buffer = b""  # what came in the clear behind the command never reaches the TLS side (RFC 3207 §4.2)
        self.pending_action = api.START_TLS
        return self._say(b"220 2.0.0 Ready to start TLS\r\n")

    def _auth(self, argument: bytes) -> bytes:
        if not self._service.users or self._authenticated:
            return self._refuse(Refusal(503, "5.5.1", "AUTH is not to be had"))
        read = c.parse_auth(argument)
        if isinstance(read, Refusal):
            return self._refuse(read)
        mechanism, initial = read
        if mechanism not in sasl.MECHANISMS:
            return self._refuse(Refusal(504, "5.5.4", "Unknown mechanism"))
        response = None if initial is None else sasl.decode_line(initial)
        if initial is not None and (response is None or mechanism in sasl.SERVER_FIRST):
            return self._refuse(Refusal(501, "5.5.2", "Not base64"))
        self._sasl = sasl.Server(mechanism, self._service.users, secrets.token_hex)
        return self._challenge(self._sasl, response)

    def _sasl_line(self, line: bytes) -> bytes:
        exchange, self._sasl = self._sasl, None
        self._mode = _COMMAND
        if line.rstrip(b"\r\n") == b"*":
            return self._refuse(Refusal(501, "5.7.0", "Authentication cancelled"))
        response = sasl.decode_line(line.rstrip(b"\r\n"))
        if response is None or exchange is None:
            return self._refuse(Refusal(501, "5.5.2", "Not base64"))
        return self._challenge(exchange, response)

    def _challenge(self, exchange: sasl.Server, response: bytes | None) -> bytes:
        verdict = exchange.step(response)
        if isinstance(verdict, bytes):
            self._sasl, self._mode = exchange, _SASL
            return self._say(b"334 " + sasl.encode_line(verdict) + b"\r\n")
        if verdict:
            self._authenticated = True
            self._counts.auth_ok += 1
            return self._say(b"235 2.7.0 Authentication succeeded\r\n")
        self._counts.auth_failed += 1
        return self._say(b"535 5.7.8 Authentication credentials invalid\r\n")

    # -- replies -------------------------------------------------------------------------------------------

    def _say(self, reply: bytes) -> bytes:
        self._counts.replies[reply[:3]] += 1
        return reply

    def _refuse(self, refusal: Refusal) -> bytes:
        return self._say(refusal.wire)

    def _hang_up(self, reply: bytes) -> bytes:
        self._state = state.CLOSED
        self.pending_action = api.LINGER
        return self._say(reply)

    def _greet(self, now_ns: int) -> bytes:
        self._state = state.GREETED
        protocol = "LMTP" if self._service.lmtp else "ESMTP"
        greeting = f"220 {self._service.name} {protocol} smtpbench sink\r\n".encode()
        override = self._faults.override("connect", b"", b"", now_ns) if self._faults else None
        if override is None:
            return self._say(greeting)
        return self._behave(override, self._say(override.reply or greeting), now_ns)

    # -- manners -------------------------------------------------------------------------------------------

    def _mannered_command(self, faults: FaultInjector, line: bytes, now_ns: int) -> bytes:
        verb = line.split(None, 1)[0].decode("latin-1").upper() if line.strip() else ""
        override = faults.override(verb, self._sender, line, now_ns)
        if override is None:
            return self._command(line)
        if override.reply or override.suppress or override.then_action:
            if verb in c.EXPECTED:
                self._counts.commands[verb] += 1
            if verb == "RCPT":
                self._counts.recipients_rejected += 1
            return self._behave(override, self._say(override.reply) if override.reply else b"", now_ns)
        return self._behave(override, self._command(line), now_ns)

    def _mannered_end(self, now_ns: int, settle: Callable[[], bytes]) -> bytes:
        recipients = b",".join(self._recipients)
        override = self._faults.override("message", self._sender, recipients, now_ns) if self._faults else None
        if override is None:
            return settle()
        if not (override.reply or override.suppress or override.then_action):
            return self._behave(override, settle(), now_ns)
        answers = len(self._recipients) if self._service.lmtp else 1
        self._mode = _COMMAND
        self._messages += 1
        self._abandon()
        return self._behave(override, self._say(override.reply) * answers if override.reply else b"", now_ns)

    def _behave(self, override: ReplyOverride, reply: bytes, now_ns: int) -> bytes:
        """Say a reply as manners have it: later, slowly, never, or with a slammed door."""
        if override.suppress:
            reply = b""
        if override.drip_ns and reply:
            at_ns = now_ns + override.hold_ns
            self._held = [(at_ns + i * override.drip_ns, reply[i : i + 1]) for i in range(len(reply))]
        elif override.hold_ns:
            self._held = [(now_ns + override.hold_ns, reply)]
        then = override.then_action or (api.LINGER if override.close else self.pending_action)
        if not self._held:
            self.pending_action = then
            return reply
        self._then = then
        self._sleep()
        return b""

    def _sleep(self) -> None:
        self.pending_action = api.SLEEP
        self.wake_ns = self._held[0][0]
