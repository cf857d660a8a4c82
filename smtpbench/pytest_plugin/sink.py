"""The sink of a test: its address, and the messages that it accepted."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from email.message import EmailMessage
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from smtpbench.errors import SmtpbenchError
from smtpbench.session.server_context import Envelope
from smtpbench.sink.background import sink_in_a_thread
from smtpbench.sink.mailbox import MAX_BYTES, MAX_MESSAGES, Mailbox
from smtpbench.sink.serve import Sink
from smtpbench.sink.setup import SinkOptions, sink_setup
from smtpbench.text import plural

HOST = "127.0.0.1"
#: Options that take one text or a list of them.
_REPEATABLE_OPTIONS = ("on", "delay", "reject", "tempfail", "drop")
#: Options of the fixture alone.
_FIXTURE_OPTIONS = ("keep_messages", "keep_bytes")


@dataclass(frozen=True)
class Mail:
    """A message that a sink accepted.

    Attributes:
        sender: Envelope sender (MAIL FROM), without brackets.
        recipients: Envelope recipients (RCPT TO), without brackets.
        content: Octets of the message as they were sent, without dot-stuffing.
        tls: Whether it came over TLS.
        authenticated: Whether the client had logged in.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    tls: bool = False
    authenticated: bool = False

    @classmethod
    def of(cls, envelope: Envelope) -> Mail:
        """Return the message of an envelope."""
        recipients = tuple(map(_text, envelope.recipients))
        return cls(_text(envelope.sender), recipients, envelope.content, envelope.tls, envelope.authenticated)

    @cached_property
    def message(self) -> EmailMessage:
        """Content, parsed."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


class ReceivingSink:
    """A running sink.

    Attributes:
        host: Address on which it listens.
        port: Its port.
        url: Both as a URL.
        certificate: Certificate that its clients must trust; None without TLS.
    """

    def __init__(self, sink: Sink, mailbox: Mailbox, scheme: str, certificate: Path | None) -> None:
        self.host = HOST
        self.port = sink.port
        self.url = f"{scheme}://{self.host}:{self.port}"
        self.certificate = certificate
        self._sink = sink
        self._mailbox = mailbox

    def __repr__(self) -> str:
        return f"<smtpbench sink {self.url}>"

    @property
    def mails(self) -> list[Mail]:
        """Messages that it accepted, oldest first."""
        return [Mail.of(envelope) for envelope in self._mailbox.messages()]

    @property
    def forgotten(self) -> int:
        """Number of oldest messages that were discarded; see the options keep_messages and keep_bytes."""
        return self._mailbox.discarded

    @property
    def counts(self) -> dict[str, Any]:
        """Counts since its start, as `smtpbench sink` prints them."""
        return self._sink.counts.to_data()

    def wait_for(self, count: int = 1, timeout: float = 10.0) -> list[Mail]:
        """Wait for messages and return all that there are; fail the test where too few come in time.

        Args:
            count: Number of messages to wait for.
            timeout: Time to wait, in seconds.
        """
        __tracebackhide__ = True
        if not self._mailbox.wait_for(count, timeout):
            counts = self._sink.counts
            pytest.fail(
                f"{plural(len(self._mailbox.messages()), 'message')} came within {timeout:g} s, {count:,} expected; "
                f"the sink had {plural(counts.connections, 'connection')} and rejected {plural(counts.rejected, 'message')}"
            )
        return self.mails

    def clear(self) -> None:
        """Discard all messages."""
        self._mailbox.clear()


@contextmanager
def receiving_sink(new_folder: Callable[[], Path], options: Mapping[str, Any]) -> Iterator[ReceivingSink]:
    """Run a sink while the context lasts; fail the test for options that it does not have.

    Args:
        new_folder: Function that makes a folder for a certificate.
        options: Fields of `sink.setup.SinkOptions`, keep_messages and keep_bytes.
    """
    given = dict(options)
    keep_messages, keep_bytes = given.pop("keep_messages", MAX_MESSAGES), given.pop("keep_bytes", MAX_BYTES)
    known = [one.name for one in fields(SinkOptions) if one.name not in ("behaviour", "tls_folder")]
    unknown = sorted(set(given) - set(known))
    if unknown:
        pytest.fail(
            f"a sink has no option {unknown[0]!r}; allowed are {', '.join(sorted([*known, *_FIXTURE_OPTIONS]))}",
            pytrace=False,
        )
    for name in _REPEATABLE_OPTIONS:
        if isinstance(given.get(name), str):
            given[name] = [given[name]]
    if given.get("self_signed"):
        given["tls_folder"] = new_folder()
    try:
        setup = sink_setup(SinkOptions(**given))
    except SmtpbenchError as error:
        pytest.fail(f"smtpbench_sink: {error}", pytrace=False)
    mailbox = Mailbox(keep_messages, keep_bytes)
    if keep_messages:
        setup.context.on_message = mailbox.add
    scheme = "lmtp" if setup.context.lmtp else "smtps" if setup.context.implicit_tls else "smtp"
    with sink_in_a_thread(setup) as sink:
        yield ReceivingSink(sink, mailbox, scheme, setup.certificate)
