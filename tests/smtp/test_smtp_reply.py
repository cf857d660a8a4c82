"""Replies: they do not depend on how octets are split, and none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpbench.smtp.reply import MAX_LINE_BYTES, MAX_REPLY_BYTES, Reply, ReplyReader, enhanced_code, first_code


def read(*pieces: bytes) -> tuple[list[Reply], bytes]:
    reader = ReplyReader()
    return [reply for piece in pieces for reply in reader.feed(piece)], reader.pending


@pytest.mark.parametrize(
    ("data", "codes", "malformed"),
    [
        (b"250 ok\r\n", [250], [False]),
        (b"250\r\n", [250], [False]),
        (b"250 bare\n", [250], [False]),
        (b"250-a\r\n250-b\r\n250 c\r\n221 bye\r\n", [250, 221], [False, False]),
        (b"250-a\r\n251 b\r\n", [251], [True]),
        (b"250-a\r\n250-b\r\n550 c\r\n", [550], [True]),
        (b"550-a\r\n250-b\r\nnonsense\r\n", [250], [True]),
        (b"250-a\r\nnonsense\r\n250 c\r\n", [250, 250], [True, False]),
        (b"\r\n", [0], [True]),
        (b"2500 x\r\n", [0], [True]),
        (b"199 x\r\n600 x\r\n", [0, 0], [True, True]),
        (b"\xff\0\r\n", [0], [True]),
        (b"250 unfinished", [], []),
    ],
)
def test_codes_and_malformed_replies(data: bytes, codes: list[int], malformed: list[bool]) -> None:
    replies, pending = read(data)
    assert [reply.code for reply in replies] == codes
    assert [reply.malformed for reply in replies] == malformed
    assert b"".join(reply.raw for reply in replies) + pending == data


@given(
    st.lists(st.sampled_from([b"250 a\r\n", b"250-b\r\n", b"354 c\n", b"x\r\n", b"\n", b"250-", b"2", b"\r"]), max_size=8),
    st.data(),
)
def test_replies_do_not_depend_on_how_octets_are_split(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(*pieces) == read(whole) == read(*(bytes((octet,)) for octet in whole))


@pytest.mark.parametrize(
    ("piece", "count"), [(b"2" * 1000, MAX_LINE_BYTES // 1000 + 1), (b"250-x\r\n" * 1000, MAX_REPLY_BYTES // 7000 + 1)]
)
def test_reply_without_an_end_overflows(piece: bytes, count: int) -> None:
    reader = ReplyReader()
    for _ in range(count - 2):
        assert reader.feed(piece) == []
        assert not reader.overflow
    reader.feed(piece * 3)
    assert reader.overflow


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"250 2.1.0 ok\r\n", "2.1.0"),
        (b"550-5.7.26 x\r\n", "5.7.26"),
        (b"250 2.1.0\r\n", "2.1.0"),
        (b"250 2.1.0x\r\n", ""),
        (b"250 3.1.0 x\r\n", ""),
        (b"250 ok 2.1.0\r\n", ""),
    ],
)
def test_enhanced_codes(raw: bytes, code: str) -> None:
    assert enhanced_code(raw) == code
    assert Reply(250, raw).enhanced == code


def test_lines_and_first_code() -> None:
    assert Reply(250, b"250-a b\r\n250 \r\n").lines == (b"a b", b"")
    assert Reply(0, b"what\r\n").lines == (b"what",)
    assert (first_code(b"354 x\r\n"), first_code(b"35 x")) == (354, 0)


@pytest.mark.parametrize(
    ("raw", "decisive", "enhanced", "mixed"),
    [
        (b"250-2.1.0 a\r\n250 2.1.5 b\r\n", b"250-2.1.0 a\r\n250 2.1.5 b\r\n", "2.1.0", False),
        (b"250-2.1.0 a\r\n550 5.1.1 b\r\n", b"550 5.1.1 b\r\n", "5.1.1", True),
        (b"250-2.1.0 a\r\nnonsense\r\n", b"250-2.1.0 a\r\n", "2.1.0", False),
        (b"nonsense\r\n", b"nonsense\r\n", "", False),
    ],
)
def test_last_line_with_a_code_decides_if_the_codes_differ(raw: bytes, decisive: bytes, enhanced: str, mixed: bool) -> None:
    ((reply,), _) = read(raw)
    assert (reply.decisive, reply.enhanced, reply.mixed_codes) == (decisive, enhanced, mixed)
