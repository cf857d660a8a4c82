"""A mailbox keeps the newest messages, counts what it discarded, and wakes a thread that waits."""

from __future__ import annotations

import threading

import pytest

from smtpbench.session.server_context import Envelope
from smtpbench.sink.mailbox import Mailbox


def envelope(number: int, size_bytes: int = 10) -> Envelope:
    return Envelope(b"a@b.example", (b"r%d@b.example" % number,), b"x" * size_bytes)


@pytest.mark.parametrize(
    ("messages", "octets", "sizes", "kept"),
    [
        (3, 1000, [10] * 5, [2, 3, 4]),
        (100, 25, [10] * 5, [3, 4]),
        (100, 25, [10, 26], [1]),  # the newest is kept, whatever its size
        (100, 25, [26, 10], [1]),
        (100, 100, [10] * 10, list(range(10))),
    ],
)
def test_oldest_messages_are_discarded_beyond_a_limit(messages: int, octets: int, sizes: list[int], kept: list[int]) -> None:
    mailbox = Mailbox(messages, octets)
    for number, size_bytes in enumerate(sizes):
        mailbox.add(envelope(number, size_bytes))
    assert mailbox.messages() == [envelope(number, sizes[number]) for number in kept]
    assert mailbox.discarded == len(sizes) - len(kept)
    assert mailbox.wait_for(len(sizes), 0)
    assert not mailbox.wait_for(len(sizes) + 1, 0)


def test_clear_discards_messages_and_count() -> None:
    mailbox = Mailbox(1, 15)
    for number in range(3):
        mailbox.add(envelope(number))
    mailbox.clear()
    assert (mailbox.messages(), mailbox.discarded, mailbox.wait_for(1, 0)) == ([], 0, False)
    mailbox.add(envelope(7))
    assert mailbox.messages() == [envelope(7)]


def test_waiting_thread_is_woken() -> None:
    mailbox, received = Mailbox(), []
    waiting = threading.Thread(target=lambda: received.append(mailbox.wait_for(2, 30)))
    waiting.start()
    mailbox.add(envelope(1))
    mailbox.add(envelope(2))
    waiting.join(30)
    assert received == [True]
