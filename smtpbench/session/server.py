"""The server's side of a session: strict SMTP and LMTP, fed with octets and times.

Theory of operation
===================

`receive` has a fast path for what a well-behaved client nearly always sends: one whole command line or one whole message
in one read, while the buffer is empty. Everything else goes into the buffer. `process_buffer` takes one unit after the other
from it, in a loop, so any number of pipelined commands needs no stack.

The mode says what the next unit is:

    COMMAND_MODE   a command line
    TEXT_MODE      text until CRLF.CRLF; a bare LF or CR ends neither a line of text nor the data (RFC 5321 §2.3.8)
    CHUNK_MODE     a chunk of a known length (RFC 3030)
    SASL_MODE      a line of a SASL exchange
    SKIP_MODE      the rest of a line that was too long, which is discarded

`session.server_commands` answers the commands. The table in `smtp.state` says which of them are in order.

A `FaultInjector` may replace a reply, delay it, or close the connection (`sink.behaviour`). Without one the fast path makes
a single comparison for it.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.engine import api
from smtpbench.session.server_commands import (
    CHUNK_MODE,
    COMMAND_MODE,
    SASL_MODE,
    SKIP_MODE,
    TEXT_MODE,
    TOO_BIG,
    CommandHandlers,
)
from smtpbench.session.server_context import CLOSING_421, FaultInjector, ReplyOverride, ServerContext
from smtpbench.smtp import command as c
from smtpbench.smtp import sasl
from smtpbench.smtp import state as st
from smtpbench.smtp.command import Refusal

#: A command line may be this long: 512 octets and what extensions add (RFC 5321 §4.5.3.1.4).
MAX_LINE_BYTES = 4096
#: What a client may send ahead while a reply is delayed.
MAX_AHEAD_BYTES = 16 * 1024 * 1024

_CHUNK_OK = b"250 2.0.0 Chunk ok\r\n"
_END_OF_TEXT = b"\r\n.\r\n"


class ServerSession(CommandHandlers):
    """One client's connection; implements `engine.api.Session`.

    Hooks for subclasses
    ====================

    A subclass uses the names below and no name that begins with an underscore.

    It may override these methods, and call the base class's own from them:

        connected, tls_started, receive, wake, eof_received, connection_lost: The engine's calls (`engine.api.Session`).
        greet(now_ns): The greeting is due.
        handle_command(line): A command line came, line end included. The base class calls the next five from here.
        handle_hello(verb, argument): EHLO, HELO or LHLO, in order.
        handle_starttls(): STARTTLS, in order.
        handle_auth(argument): AUTH, in order.
        begin_text(): DATA, in order.
        handle_bdat(argument): BDAT, in order or not.
        handle_sasl_response(line): A line of a SASL exchange came, line end included.
        continue_auth(exchange, response): A SASL response came and is decoded; None for AUTH without an initial response.
        read_chunk(now_ns): Octets of a BDAT chunk came and are in `buffer`. Returns None while some are missing.
        complete_message(size_bytes, dot_stuffed): The end of a message came, by DATA or BDAT.

    Each of these but the engine's calls returns the reply. The base class has counted what it returns. A subclass counts a
    reply of its own by `respond`, `refuse` or `close_with`, which return it.

    It may call `process_buffer(now_ns)` and `clear_transaction()`.

    It may read and change these attributes:

        max_line_bytes: Longest command line that is read, octets (of the class).
        pending_action: What the engine does once the reply is written.
        state: State in the table of `smtp.state`.
        sender, recipients: The envelope.
        content_bytes: Size of the content received so far.
        text_tail: The last octets of the text received so far, which may be the beginning of its end.
        chunk_left, chunk_is_last: Octets of the chunk yet to come; whether it is the last.
        buffer: Octets received and not yet processed.

    It may read `context` (what all sessions share) and `counts`.
    """

    max_line_bytes = MAX_LINE_BYTES

    __slots__ = (
        "_action_after_delay",
        "_delayed",
        "_faults",
        "_idle_ns",
        "deadline_ns",
        "wake_ns",
    )  # fmt: skip

    def __init__(self, context: ServerContext) -> None:
        super().__init__(context)
        self._faults = context.faults
        self._idle_ns = context.idle_ns
        self.wake_ns = 0
        self.deadline_ns = api.NEVER
        self._delayed: list[tuple[int, bytes]] = []  # (due_ns, octets), the earliest first
        self._action_after_delay = api.NOTHING

    # -- what the engine calls -----------------------------------------------------------------------------

    def connected(self, now_ns: int) -> api.Out:
        counts = self.counts
        counts.connections += 1
        counts.connections_open += 1
        if counts.connections_open > counts.connections_peak:
            counts.connections_peak = counts.connections_open
        self.deadline_ns = now_ns + self._idle_ns
        if self.context.implicit_tls:
            self.pending_action = api.START_TLS
            return b""
        return self.greet(now_ns)

    def tls_started(self, now_ns: int) -> api.Out:
        self.counts.tls += 1
        self.tls = True
        if self.state == st.CONNECTED:
            return self.greet(now_ns)
        self.state = st.GREETED  # all that the client sent before is forgotten (RFC 3207 §4.2)
        self.authenticated = False
        self.clear_transaction()
        return b""

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        self.deadline_ns = now_ns + self._idle_ns
        if self._faults is None and not self.buffer:
            mode = self.mode
            if mode == COMMAND_MODE:
                if data.find(b"\n") + 1 == len(data):
                    return self.handle_command(data)
            elif mode == TEXT_MODE and self.text_tail == b"\r\n" and data[:3] != b".\r\n":
                end = data.find(_END_OF_TEXT)
                if end >= 0 and end + 5 == len(data):
                    self.add_content(data)
                    return self._end_text()
        self.buffer = self.buffer + data if self.buffer else data
        if self._delayed and len(self.buffer) > MAX_AHEAD_BYTES:
            self._delayed, self.buffer = [], b""
            return self.close_with(CLOSING_421)
        return self.process_buffer(now_ns)

    def wake(self, now_ns: int) -> api.Out:
        outputs = []
        while self._delayed and self._delayed[0][0] <= now_ns:
            outputs.append(self._delayed.pop(0)[1])
        if self._delayed:
            self._sleep()
        elif self._action_after_delay:
            self.pending_action, self._action_after_delay = self._action_after_delay, api.NOTHING
        else:
            outputs.append(self.process_buffer(now_ns))
        return b"".join(outputs)

    def eof_received(self, now_ns: int) -> api.Out:
        if self._delayed:
            self._action_after_delay = api.CLOSE  # delayed replies are still sent
        else:
            self.pending_action = api.CLOSE
        return b""

    def connection_lost(self, reason: str, detail: str, now_ns: int) -> None:
        self.counts.connections_open -= 1
        if self.state in st.TRANSACTION:
            self.counts.aborted += 1
        self.state = st.CLOSED

    def greet(self, now_ns: int) -> bytes:
        """Return the greeting."""
        self.state = st.GREETED
        greeting = self.context.greeting()
        override = self._faults.override("connect", b"", b"", now_ns) if self._faults else None
        if override is None:
            return self.respond(greeting)
        return self._apply_override(override, self.respond(override.reply or greeting), now_ns)

    # -- units ---------------------------------------------------------------------------------------------

    def process_buffer(self, now_ns: int) -> bytes:
        """Take units from the buffer until one is not whole, or a reply is delayed; return the replies."""
        outputs: list[bytes] = []
        while self.buffer and not (self._delayed or self.pending_action):
            reply = self._take_unit(now_ns)
            if reply is None:
                break
            outputs.append(reply)
        return b"".join(outputs)

    def _take_unit(self, now_ns: int) -> bytes | None:
        mode, buffer = self.mode, self.buffer
        if mode == TEXT_MODE:
            return self._read_text(now_ns)
        if mode == CHUNK_MODE:
            return self.read_chunk(now_ns)
        end = buffer.find(b"\n") + 1
        limit = sasl.MAX_LINE_BYTES if mode == SASL_MODE else self.max_line_bytes
        if mode == SKIP_MODE:
            self.buffer = buffer[end:] if end else b""
            if not end:
                return None
            self.mode = COMMAND_MODE
            return self.refuse(c.TOO_LONG)
        if end > limit or (not end and len(buffer) > limit):
            self.sasl_exchange = None
            self.mode = SKIP_MODE
            return b""
        if not end:
            return None
        line, self.buffer = buffer[:end], buffer[end:]
        if mode == SASL_MODE:
            return self.handle_sasl_response(line)
        if self._faults is None:
            return self.handle_command(line)
        return self._command_with_faults(self._faults, line, now_ns)

    def _read_text(self, now_ns: int) -> bytes | None:
        """Take text of a message, up to CRLF.CRLF or all there is."""
        data = self.text_tail + self.buffer
        end = data.find(_END_OF_TEXT)
        if end < 0:
            self.add_content(self.buffer)
            self.text_tail, self.buffer = data[-4:], b""
            return None
        stop = end + len(_END_OF_TEXT) - len(self.text_tail)
        self.add_content(self.buffer[:stop])
        self.buffer = self.buffer[stop:]
        return self._message_with_faults(now_ns, self._end_text)

    def _end_text(self) -> bytes:
        self.mode = COMMAND_MODE
        return self.complete_message(self.content_bytes - 3, dot_stuffed=True)

    def handle_bdat(self, argument: bytes) -> bytes:
        parsed = c.parse_bdat(argument)
        if isinstance(parsed, Refusal):
            return self.refuse(parsed)
        self.chunk_left, self.chunk_is_last = parsed
        in_order = "BDAT" in st.IN_ORDER[self.state]
        # a client that pipelines still sends a refused chunk: its octets are read and discarded
        self.chunk_refusal = b"" if in_order else b"503 5.5.1 Bad sequence of commands\r\n"
        if self.state == st.RCPT and in_order:
            self.content_bytes = 0
        self.mode = CHUNK_MODE
        if self.chunk_left or self.buffer:
            return b""
        return self.read_chunk(0) or b""

    def read_chunk(self, now_ns: int) -> bytes | None:
        """Take octets of a BDAT chunk, whatever they are (RFC 3030 §2); None while some are missing."""
        octets = self.buffer[: self.chunk_left]
        self.buffer = self.buffer[len(octets) :]
        self.chunk_left -= len(octets)
        if not self.chunk_refusal:
            self.add_content(octets)
        if self.chunk_left:
            return None
        self.mode = COMMAND_MODE
        if self.chunk_refusal:
            return self.respond(self.chunk_refusal)
        if self.chunk_is_last:
            return self._message_with_faults(now_ns, self._end_chunks)
        if self.content_bytes > self.context.size_bytes:
            self.reject_transaction()
            return self.respond(TOO_BIG)
        self.state = st.after(self.state, "BDAT", 250)
        return self.respond(_CHUNK_OK)

    def _end_chunks(self) -> bytes:
        return self.complete_message(self.content_bytes, dot_stuffed=False)

    # -- injected faults -----------------------------------------------------------------------------------

    def _command_with_faults(self, faults: FaultInjector, line: bytes, now_ns: int) -> bytes:
        verb = line.split(None, 1)[0].decode("latin-1").upper() if line.strip() else ""
        override = faults.override(verb, self.sender, line, now_ns)
        if override is None:
            return self.handle_command(line)
        if override.reply or override.suppress or override.action:
            if verb in c.EXPECTED:
                self.counts.commands[verb] += 1
            if verb == "RCPT":
                self.counts.recipients_rejected += 1
            return self._apply_override(override, self.respond(override.reply) if override.reply else b"", now_ns)
        return self._apply_override(override, self.handle_command(line), now_ns)

    def _message_with_faults(self, now_ns: int, complete: Callable[[], bytes]) -> bytes:
        recipients = b",".join(self.recipients)
        override = self._faults.override("message", self.sender, recipients, now_ns) if self._faults else None
        if override is None:
            return complete()
        if not (override.reply or override.suppress or override.action):
            return self._apply_override(override, complete(), now_ns)
        reply_count = len(self.recipients) if self.context.lmtp else 1
        self.mode = COMMAND_MODE
        self.message_count += 1
        self.reject_transaction()
        reply = self.respond(override.reply) * reply_count if override.reply else b""
        return self._apply_override(override, reply, now_ns)

    def _apply_override(self, override: ReplyOverride, reply: bytes, now_ns: int) -> bytes:
        """Return a reply as the override has it; empty if it is delayed or never sent."""
        if override.suppress:
            reply = b""
        if override.drip_ns and reply:
            at_ns = now_ns + override.delay_ns
            self._delayed = [(at_ns + i * override.drip_ns, reply[i : i + 1]) for i in range(len(reply))]
        elif override.delay_ns:
            self._delayed = [(now_ns + override.delay_ns, reply)]
        action = override.action or (api.LINGER if override.close else self.pending_action)
        if not self._delayed:
            self.pending_action = action
            return reply
        self._action_after_delay = action
        self._sleep()
        return b""

    def _sleep(self) -> None:
        self.pending_action = api.SLEEP
        self.wake_ns = self._delayed[0][0]
