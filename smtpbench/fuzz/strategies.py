"""What hypothesis draws a case from: one to three mutations, of every family that is wanted.

Draws never hang on a reply, and every draw is one of a list or a number, so that what was drawn can be made smaller. The
octets lie at and around the limits of RFC 5321 §4.5.3.1 and where parsers are known to disagree.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from smtpbench.errors import UsageError
from smtpbench.fuzz.mutation import FAMILIES, Mutation
from smtpbench.smtp.command import COMMAND_LINE_BYTES, DOMAIN_BYTES, LOCAL_PART_BYTES, PATH_BYTES, TEXT_LINE_BYTES
from smtpbench.text import did_you_mean

#: Mutations drawn at once, and the octets that hypothesis makes them of.
_DRAWN: Final = 60
_ENTROPY_BYTES: Final = 16 * _DRAWN

_VERBS: Final = (
    b"NOOP", b"RSET", b"VRFY postmaster", b"EXPN staff", b"HELP", b"EHLO client.example", b"HELO client.example", b"QUIT",
    b"MAIL FROM:<a@client.example>", b"RCPT TO:<b@recipient.example>", b"DATA", b"STARTTLS", b"AUTH PLAIN",
    b"ETRN x.example",
    b"LHLO client.example", b"BDAT 0 LAST", b"XYZZY", b"TURN", b"SEND FROM:<a@b.example>",
    b"mail from:<a@client.example>", b"",
    b" NOOP", b"NOOP ", b"\tNOOP", b".", b"EHLO", b"MAIL", b"RCPT", b"EHLO [127.0.0.1]", b"EHLO [IPv6:::1]", b"EHLO -",
    b"NOOP x",
)  # fmt: skip


def _around(*limits: int) -> tuple[int, ...]:
    return tuple(limit + near for limit in limits for near in (-1, 0, 1))


def _domain(length: int) -> bytes:
    labels = [b"d" * 60] * (length // 61)
    rest = length - 61 * len(labels)
    return b".".join([*labels, b"d" * max(1, rest)])


_ARGUMENTS: Final = (
    b"<>", b"<a@client.example>", b"a@client.example", b"<a@[127.0.0.1]>", b"<a@[IPv6:::1]>", b"<a@[x:y]>", b"<a@[]>",
    b"<a@[>",
    b"<@>", b"<@a,@b:c@client.example>", b"<@a:b>", b"<@,:a@b>", b"<\"a b\"@client.example>",
    b"<\"\\\"\"@client.example>", b"<\">",
    b"<\"\"@client.example>", b"<a@b@client.example>", b"<a@client.example", b"a@client.example>", b"<<a@client.example>>",
    b"< a@client.example >", b" <a@client.example>", b"<a\0b@client.example>", b"<a\x07@client.example>",
    b"<a\x7f@client.example>",
    b"<\xc3\xbc@client.example>", b"<\xff\xfe@client.example>", b"<a@\xc3\xbc.example>", b"<a@\xff.example>",
    b"<a@xn--zz--.example>",
    b"<a@.example>", b"<a@example.>", b"<a@-x.example>", b"<a..b@client.example>", b"<.a@client.example>",
    b"<%s%n@client.example>",
    b"<a|b`c;d$(e)@client.example>", b"<postmaster>", b"<PostMaster@client.example>", b"<a!b%c@client.example>", b"<'\"@x>",
    b"<a@client.example> <b@client.example>", b"<a@client.example>,<b@client.example>", b"<(comment)a@client.example>",
    b"-1", b"0",
    *(b"<" + b"l" * n + b"@client.example>" for n in _around(LOCAL_PART_BYTES)),
    *(b"<a@" + _domain(n) + b">" for n in _around(DOMAIN_BYTES, PATH_BYTES - 4)),
    *(b"x" * n for n in (*_around(COMMAND_LINE_BYTES - 7), *_around(TEXT_LINE_BYTES), 2047, 2048, 4096, 65536)),
    b"<" * 400, b"(" * 400, b"\"" * 400, b"@" * 300,
)  # fmt: skip
_PARAMETERS: Final = (
    b" SIZE=1", b" SIZE=", b" SIZE", b" SIZE=-1", b" SIZE=99999999999999999999", b" SIZE=1 SIZE=2", b" BODY=8BITMIME",
    b" BODY=",
    b" BODY", b" BODY=BINARYMIME", b" SMTPUTF8", b" SMTPUTF8=x", b" AUTH=<>", b" AUTH=", b" AUTH", b" RET=FULL", b" RET=",
    b" ENVID=+", b" ENVID=a+4", b" NOTIFY=NEVER,SUCCESS", b" NOTIFY=", b" ORCPT=rfc822;+", b" FOO=1", b" =", b" =x", b" x=",
    b" BY=1;R", b" HOLDFOR=1", b" MT-PRIORITY=9", b" REQUIRETLS", b" \0", b"  ", b"\t", b" " * 500, b" A=B" * 100,
    b" XFORWARD=x",
)  # fmt: skip
_LINE_ENDS: Final = (
    b"\n", b"\r", b"\r\r\n", b"\0\r\n", b" \r\n", b"\t\r\n", b"\n\r", b"", b"\r\n\r\n", b"\x0b\r\n", b"\x85\r\n",
    b"\xe2\x80\xa8\r\n",
)  # fmt: skip
_ENDS: Final = (
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n. \r\n", b"\r\n.\0\r\n", b"\r\n\0.\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n", b"\n\r.\n\r", b"\r\n..\r\n", b"\r\n.\t\r\n", b"\x0b.\x0b", b"\0.\0", b"\r\n.\\r\\n", b"\x85.\x85",
    b"\xe2\x80\xa8.\xe2\x80\xa8", b"\n\n.\n\n", b"\r\n.", b"\r\n.\r\n.",
)  # fmt: skip
_BEHIND: Final = (
    b"NOOP\r\nNOOP\r\nmore",
    b"MAIL FROM:<x@client.example>\r\nRCPT TO:<y@recipient.example>\r\nDATA\r\nsmuggled",
    b"more",
)
_DOTS: Final = (
    b"\r\n..\r\n", b"\r\n...\r\n", b"\r\n.x\r\n", b"\r\n..x\r\n", b"\r\n. .\r\n", b"..\r\n", b".x\r\n",
    b"\r\n" + b"." * 2000 + b"\r\n",
    b"\0", b"\xff" * 50, b"\r", b"\n", b"\r\n" + b"x" * (TEXT_LINE_BYTES - 1) + b"\r\n", b"\r\n" + b"x" * 70_000 + b"\r\n",
)  # fmt: skip
_TEXTS: Final = (b".\r\n", b"\r\n.\r\n", b"..\r\n.\r\n", b"x\r\n.\r\n", b"\n.\r\n\r\n.\r\n", b"x" * 110_000 + b"\r\n.\r\n")
_BDATS: Final = (
    b"# LAST",
    b"#",
    b"0",
    b"0 LAST",
    b"-1 LAST",
    b"",
    b"x LAST",
    b"# LAST LAST",
    b"# FIRST",
    b"99999999999 LAST",
    b"#  last",
)
_BEHIND_TLS: Final = (
    b"NOOP\r\n", b"NOOP ", b"EHLO stranger.example\r\n", b"NOOP\r\n" * 40, b"\r\n", b"X", b"\x16\x03\x01\x00\x05hello",
    b"\0" * 64,
    b"RSET\r\nMAIL FROM:<x@client.example>\r\n",
)  # fmt: skip
_SASL: Final = (
    b"AUTH PLAIN\n*", b"AUTH PLAIN\n=", b"AUTH PLAIN\n!", b"AUTH PLAIN AAAA", b"AUTH PLAIN =", b"AUTH LOGIN\n*",
    b"AUTH LOGIN\neA==\n*",
    b"AUTH LOGIN\n\n", b"AUTH CRAM-MD5\n*", b"AUTH CRAM-MD5\neA==", b"AUTH CRAM-MD5 eA==", b"AUTH", b"AUTH X-NO",
    b"AUTH PLAIN\nAHgAeA==",
    b"AUTH plain AHgAeA==", b"AUTH PLAIN AHgAeA== x", b"AUTH PLAIN " + b"A" * 12_000, b"AUTH PLAIN\nAGNvbnN0cnVjdG9yAA==",
    b"AUTH GSSAPI\n=", b"AUTH EXTERNAL =", b"AUTH XOAUTH2\ne30=\n",
)  # fmt: skip


def _entries() -> dict[str, list[Mutation]]:
    """Every edit with its octets, by family; the places are drawn."""
    smuggled = [end + behind for end in _ENDS for behind in _BEHIND]
    chunks = [(argument, (off,)) for argument in _BDATS for off in (0, 1, -1, 100)]
    return {
        "order": [
            *(Mutation("order", what) for what in ("drop", "double", "swap") for _ in range(len(_VERBS) // 3)),
            *(Mutation("order", "insert", octets=verb + b"\r\n") for verb in _VERBS),
        ],
        "argument": [
            *(Mutation("argument", "argument", octets=octets) for octets in _ARGUMENTS),
            *(Mutation("argument", "append", octets=octets) for octets in _PARAMETERS),
        ],
        "line": [Mutation("line", "line-end", octets=octets) for octets in _LINE_ENDS],
        "end": [
            *(Mutation("end", "text-insert", to=1000, octets=octets) for octets in smuggled),
            *(Mutation("end", "text-end", octets=octets) for octets in _ENDS),
        ],
        "dots": [
            *(Mutation("dots", "text-insert", octets=octets) for octets in _DOTS),
            *(Mutation("dots", "text", octets=octets) for octets in _TEXTS),
        ],
        "chunk": [Mutation("chunk", "bdat", octets=octets, numbers=numbers) for octets, numbers in chunks],
        "pipeline": [Mutation("pipeline", "join")],
        "segment": [Mutation("segment", "split"), Mutation("segment", "split", numbers=(1,))],
        "pause": [Mutation("pause", "pause")],
        "close": [Mutation("close", "close")],
        "tls": [Mutation("tls", "starttls", octets=octets) for octets in _BEHIND_TLS],
        "sasl": [Mutation("sasl", "sasl", octets=octets) for octets in _SASL],
    }  # fmt: skip


_ENTRIES: Final = _entries()
_PLACES: Final = 16
#: One number of so many octets says all of a mutation: which family and edit, and where.
_NUMBER_BYTES: Final = 5
_DRAWN_BYTES: Final = _NUMBER_BYTES * _DRAWN
#: Many numbers as one draw: what a draw costs is nearly all its beginning and its end.
_NUMBERS: Final = st.binary(min_size=_DRAWN_BYTES, max_size=_DRAWN_BYTES).map(
    lambda octets: [int.from_bytes(octets[at : at + _NUMBER_BYTES], "big") for at in range(0, len(octets), _NUMBER_BYTES)]
)


def mutation_of(number: int, wanted: Sequence[str]) -> Mutation:
    """The mutation of these families that a number stands for."""
    number, at = divmod(number, _PLACES)
    number, to = divmod(number, _PLACES)
    number, family = divmod(number, len(wanted))
    entries = _ENTRIES[wanted[family]]
    number, entry = divmod(number, len(entries))
    found = entries[entry]._replace(at=at)
    if found.numbers == (1,) and found.what == "split":
        return found._replace(numbers=tuple(number >> (8 * shift) & 0xFF for shift in range(1 + to % 3)))
    if found.what == "text-insert" and not found.to:
        return found._replace(to=(0, 500, 1000)[to % 3])
    return found if found.to else found._replace(to=to)


def families(only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[str, ...]:
    """Those that are wanted. Raises UsageError for a name that is none, and where none is left."""
    for name in (*only, *skip):
        if name not in FAMILIES:
            hint = did_you_mean(name, FAMILIES) or f"; there are {', '.join(FAMILIES)}"
            raise UsageError(f"there is no mutation family {name!r}{hint}")
    wanted = tuple(name for name in FAMILIES if (not only or name in only) and name not in skip)
    if not wanted:
        raise UsageError("--only and --skip leave no mutation family")
    return wanted


def cases(wanted: Sequence[str], seed: int) -> Iterator[tuple[Mutation, ...]]:
    """Cases without end; the same for the same seed. hypothesis is fed octets of our own, so it keeps nothing."""
    drawn: list[list[int]] = []

    @settings(database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(_NUMBERS)
    def case(numbers: list[int]) -> None:
        drawn.append(numbers)

    make = case.hypothesis.fuzz_one_input  # type: ignore[attr-defined]  # hypothesis puts it there
    rng = random.Random(seed)
    while True:
        drawn.clear()
        make(rng.randbytes(_ENTROPY_BYTES))
        numbers = drawn[0] if drawn else []
        while numbers:
            count = 1 + numbers[0] % 3
            yield tuple(mutation_of(number // 3, wanted) for number in numbers[:count])
            numbers = numbers[count:]
