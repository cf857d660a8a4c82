"""The sink of a test: where it listens, and the mail that it took."""

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

HOST = "127.0.0.1"
#: Options that may be given as one text, or as a list of them.
_LISTS = ("on", "delay", "reject", "tempfail", "drop")
#: Options of the fixture that the command has not.
_OURS = ("keep_messages", "keep_bytes")


@dataclass(frozen=True)
class Mail:
    """A message that a sink took.

    sender, recipients: the envelope's, without brackets. content: its octets as they were sent, dots unstuffed.
    tls, authenticated: whether it came over TLS, and from somebody who had logged in.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    tls: bool = False
    authenticated: bool = False

    @classmethod
    def of(cls, envelope: Envelope) -> Mail:
        """The mail of an envelope."""
        recipients = tuple(map(_text, envelope.recipients))
        return cls(_text(envelope.sender), recipients, envelope.content, envelope.tls, envelope.authenticated)

    @cached_property
    def message(self) -> EmailMessage:
        """The content, parsed."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


class ReceivingSink:
    """A sink that runs.

    host, port, url: where it listens. certificate: what its clients must trust; None where it has no TLS.
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
        """What it took, oldest first."""
        return [Mail.of(envelope) for envelope in self._mailbox.messages()]

    @property
    def forgotten(self) -> int:
        """How many of the oldest there was no room for; see the options keep_messages and keep_bytes."""
        return self._mailbox.discarded

    @property
    def counts(self) -> dict[str, Any]:
        """What it did since it began, as `smtpbench sink` prints it."""
        return self._sink.counts.to_data()

    def wait_for(self, count: int = 1, timeout: float = 10.0) -> list[Mail]:
        """Wait until it took so many messages, and return all; the test fails where they do not come in time.

        timeout: in seconds.
        """
        __tracebackhide__ = True
        if not self._mailbox.wait_for(count, timeout):
            counts = self._sink.counts
            pytest.fail(
                f"{count} messages were to come within {timeout:g} s, and {len(self._mailbox.messages())} did; the sink saw "
                f"{counts.connections} connections and refused {counts.rejected} messages"
            )
        return self.mails

    def clear(self) -> None:
        """Forget what came so far."""
        self._mailbox.clear()


@contextmanager
def receiving_sink(new_folder: Callable[[], Path], options: Mapping[str, Any]) -> Iterator[ReceivingSink]:
    """A sink for as long as the context lasts. options: of `sink.setup.Options`, keep_messages and keep_bytes.

    new_folder: makes the folder of a certificate of its own. The test fails for options that cannot be meant.
    """
    told = dict(options)
    keep_messages, keep_bytes = told.pop("keep_messages", MAX_MESSAGES), told.pop("keep_bytes", MAX_BYTES)
    known = [one.name for one in fields(SinkOptions) if one.name not in ("behaviour", "tls_folder")]
    unknown = sorted(set(told) - set(known))
    if unknown:
        pytest.fail(f"a sink has no option {unknown[0]!r}; there are {', '.join(sorted([*known, *_OURS]))}", pytrace=False)
    for name in _LISTS:
        if isinstance(told.get(name), str):
            told[name] = [told[name]]
    if told.get("self_signed"):
        told["tls_folder"] = new_folder()
    try:
        setup = sink_setup(SinkOptions(**told))
    except SmtpbenchError as error:
        pytest.fail(f"smtpbench_sink: {error}", pytrace=False)
    mailbox = Mailbox(keep_messages, keep_bytes)
    if keep_messages:
        setup.context.on_message = mailbox.add
    scheme = "lmtp" if setup.context.lmtp else "smtps" if setup.context.implicit_tls else "smtp"
    with sink_in_a_thread(setup) as sink:
        yield ReceivingSink(sink, mailbox, scheme, setup.certificate)
