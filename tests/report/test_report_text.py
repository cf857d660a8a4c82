"""Hostile text made visible: nothing that moves, hides or reorders gets through, and nothing readable is lost."""

from __future__ import annotations

import random
import unicodedata

import pytest

from smtpbench.text import visible

UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("250 2.1.5 Ok", "250 2.1.5 Ok"),
        (b"250 caf\xc3\xa9", "250 café"),
        (b"250 caf\xe9", r"250 caf\xe9"),
        ("日本語 Grüße", "日本語 Grüße"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("a\\x1b", r"a\\x1b"),
        ("\u202eexe\u2066", r"\u202eexe\u2066"),
        ("a\u2028b\ufeff", r"a\u2028b\ufeff"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_what_is_seen(text: str | bytes, shown: str) -> None:
    assert visible(text) == shown


def test_nothing_unsafe_gets_through_whatever_comes() -> None:
    draw = random.Random(11)
    for _ in range(300):
        for text in (draw.randbytes(60), "".join(chr(draw.randrange(0x110000)) for _ in range(60))):
            shown = visible(text, 10_000)
            assert not [character for character in shown if unicodedata.category(character) in UNSAFE]
            assert shown.encode("utf-8")


def test_octets_can_be_told_back_from_what_is_seen() -> None:
    for octet in range(256):
        raw = bytes([octet])
        assert visible(raw).encode().decode("unicode_escape").encode("latin-1") == raw


@pytest.mark.parametrize("limit", [1, 2, 10, 200])
@pytest.mark.parametrize("text", ["x" * 1000, "\x1b" * 1000, "日" * 1000, "x" * 10, b"\xff" * 200])
def test_it_is_never_longer_than_its_limit(text: str | bytes, limit: int) -> None:
    shown = visible(text, limit)
    assert len(shown) <= limit
    assert shown.endswith("…") == (len(visible(text, 10_000)) > limit)
