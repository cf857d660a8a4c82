"""Generating cases with hypothesis: one to three mutations each, of the selected families.

What is generated never depends on a reply. The octets lie at and around the size limits of RFC 5321 §4.5.3.1, and where
parsers are known to disagree. A name in braces stands for an address of the campaign (`fuzz.mutation.Addresses`): a server
that verifies addresses would refuse any other, and what follows would not be tested.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from smtpbench.errors import UsageError
from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.mutation import Mutation
from smtpbench.smtp.command import COMMAND_LINE_BYTES, DOMAIN_BYTES, LOCAL_PART_BYTES, PATH_BYTES, TEXT_LINE_BYTES
from smtpbench.text import did_you_mean

#: Mutations of one hypothesis example, and the random octets that hypothesis needs for it.
_MUTATIONS_PER_EXAMPLE: Final = 60
_ENTROPY_BYTES: Final = 16 * _MUTATIONS_PER_EXAMPLE

_COMMANDS: Final = (
    b"NOOP", b"RSET", b"VRFY {recipient}", b"EXPN staff", b"HELP", b"EHLO {client}", b"HELO {client}", b"QUIT",
    b"MAIL FROM:<{sender}>", b"RCPT TO:<{recipient}>", b"RCPT TO:<{alias}>", b"RCPT TO:<{unknown}>", b"DATA",
    b"STARTTLS", b"AUTH PLAIN",
    b"ETRN x.example",
    b"LHLO {client}", b"BDAT 0 LAST", b"XYZZY", b"TURN", b"SEND FROM:<{sender}>",
    b"mail from:<{sender}>", b"",
    b" NOOP", b"NOOP ", b"\tNOOP", b".", b"EHLO", b"MAIL", b"RCPT", b"EHLO [127.0.0.1]", b"EHLO [IPv6:::1]", b"EHLO -",
    b"NOOP x", b"\r\n" * 40,
)  # fmt: skip


def _around(*limits: int) -> tuple[int, ...]:
    return tuple(limit + offset for limit in limits for offset in (-1, 0, 1))


def _domain(length: int) -> bytes:
    labels = [b"d" * 60] * (length // 61)
    rest = length - 61 * len(labels)
    return b".".join([*labels, b"d" * max(1, rest)])


_ARGUMENTS: Final = (
    b"<>", b"<{address}>", b"{address}", b"<a@[127.0.0.1]>", b"<a@[IPv6:::1]>", b"<a@[x:y]>", b"<a@[]>",
    b"<a@[>",
    b"<@>", b"<@a,@b:{address}>", b"<@a:b>", b"<@,:a@b>", b"<\"a b\"@{domain}>",
    b"<\"\\\"\"@{domain}>", b"<\">",
    b"<\"\"@{domain}>", b"<a@b@{domain}>", b"<{address}", b"{address}>", b"<<{address}>>",
    b"< {address} >", b" <{address}>", b"<a\0b@{domain}>", b"<a\x07@{domain}>",
    b"<a\x7f@{domain}>",
    b"<\xc3\xbc@{domain}>", b"<\xff\xfe@{domain}>", b"<a@\xc3\xbc.example>", b"<a@\xff.example>",
    b"<a@xn--zz--.example>",
    b"<a@.example>", b"<a@example.>", b"<a@-x.example>", b"<a..b@{domain}>", b"<.a@{domain}>",
    b"<%s%n@{domain}>",
    b"<a|b`c;d$(e)@{domain}>", b"<postmaster>", b"<{sender}>", b"<{recipient}>", b"<{alias}>",
    b"<{unknown}>", b"<PostMaster@{domain}>", b"<a!b%c@{domain}>", b"<'\"@x>",
    b"<{address}> <b@{domain}>", b"<{address}>,<b@{domain}>", b"<(comment){address}>",
    b"-1", b"0",
    *(b"<" + b"l" * n + b"@{domain}>" for n in _around(LOCAL_PART_BYTES)),
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
_TEXT_ENDS: Final = (
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n. \r\n", b"\r\n.\0\r\n", b"\r\n\0.\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n", b"\n\r.\n\r", b"\r\n..\r\n", b"\r\n.\t\r\n", b"\x0b.\x0b", b"\0.\0", b"\r\n.\\r\\n", b"\x85.\x85",
    b"\xe2\x80\xa8.\xe2\x80\xa8", b"\n\n.\n\n", b"\r\n.", b"\r\n.\r\n.",
)  # fmt: skip
_AFTER_END: Final = (
    b"NOOP\r\nNOOP\r\nmore",
    b"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\nsmuggled",
    b"more",
)
_TEXT_PARTS: Final = (
    b"\r\n..\r\n", b"\r\n...\r\n", b"\r\n.x\r\n", b"\r\n..x\r\n", b"\r\n. .\r\n", b"..\r\n", b".x\r\n",
    b"\r\n" + b"." * 2000 + b"\r\n",
    b"\0", b"\xff" * 50, b"\r", b"\n", b"\r\n" + b"x" * (TEXT_LINE_BYTES - 1) + b"\r\n", b"\r\n" + b"x" * 70_000 + b"\r\n",
)  # fmt: skip
_MESSAGE_TEXTS: Final = (
    b".\r\n",
    b"\r\n.\r\n",
    b"..\r\n.\r\n",
    b"x\r\n.\r\n",
    b"\n.\r\n\r\n.\r\n",
    b"x" * 110_000 + b"\r\n.\r\n",
)
_BDAT_ARGUMENTS: Final = (
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
_AFTER_STARTTLS: Final = (
    b"NOOP\r\n", b"NOOP ", b"EHLO stranger.example\r\n", b"NOOP\r\n" * 40, b"\r\n", b"X", b"\x16\x03\x01\x00\x05hello",
    b"\0" * 64,
    b"RSET\r\nMAIL FROM:<{sender}>\r\n",
)  # fmt: skip
_AUTH_EXCHANGES: Final = (
    b"AUTH PLAIN\n*", b"AUTH PLAIN\n=", b"AUTH PLAIN\n!", b"AUTH PLAIN AAAA", b"AUTH PLAIN =", b"AUTH LOGIN\n*",
    b"AUTH LOGIN\neA==\n*",
    b"AUTH LOGIN\n\n", b"AUTH CRAM-MD5\n*", b"AUTH CRAM-MD5\neA==", b"AUTH CRAM-MD5 eA==", b"AUTH", b"AUTH X-NO",
    b"AUTH PLAIN\nAHgAeA==",
    b"AUTH plain AHgAeA==", b"AUTH PLAIN AHgAeA== x", b"AUTH PLAIN " + b"A" * 12_000, b"AUTH PLAIN\nAGNvbnN0cnVjdG9yAA==",
    b"AUTH GSSAPI\n=", b"AUTH EXTERNAL =", b"AUTH XOAUTH2\ne30=\n",
)  # fmt: skip


def _mutations_by_family() -> dict[str, list[Mutation]]:
    """Return every edit with its octets, by family. Where in the session an edit applies is random."""
    smuggled = [end + following for end in _TEXT_ENDS for following in _AFTER_END]
    chunks = [(argument, (offset,)) for argument in _BDAT_ARGUMENTS for offset in (0, 1, -1, 100)]
    return {
        "order": [
            *(Mutation("order", edit) for edit in ("drop", "repeat", "swap") for _ in range(len(_COMMANDS) // 3)),
            *(Mutation("order", "insert", octets=command + b"\r\n") for command in _COMMANDS),
        ],
        "argument": [
            *(Mutation("argument", "argument", octets=octets) for octets in _ARGUMENTS),
            *(Mutation("argument", "append", octets=octets) for octets in _PARAMETERS),
        ],
        "line": [Mutation("line", "line-end", octets=octets) for octets in _LINE_ENDS],
        "end": [
            *(Mutation("end", "text-insert", parameter=1000, octets=octets) for octets in smuggled),
            *(Mutation("end", "text-end", octets=octets) for octets in _TEXT_ENDS),
        ],
        "dots": [
            *(Mutation("dots", "text-insert", octets=octets) for octets in _TEXT_PARTS),
            *(Mutation("dots", "text", octets=octets) for octets in _MESSAGE_TEXTS),
        ],
        "chunk": [Mutation("chunk", "bdat", octets=octets, numbers=numbers) for octets, numbers in chunks],
        "pipeline": [Mutation("pipeline", "join")],
        "segment": [Mutation("segment", "split"), Mutation("segment", "split", numbers=(1,))],
        "pause": [Mutation("pause", "pause")],
        "close": [Mutation("close", "close")],
        "tls": [Mutation("tls", "starttls", octets=octets) for octets in _AFTER_STARTTLS],
        "sasl": [Mutation("sasl", "sasl", octets=octets) for octets in _AUTH_EXCHANGES],
    }  # fmt: skip


_MUTATIONS: Final = _mutations_by_family()
_POSITIONS: Final = 16
#: Size of the number that defines a mutation: its family, its edit, and where it applies.
_NUMBER_BYTES: Final = 5
_EXAMPLE_BYTES: Final = _NUMBER_BYTES * _MUTATIONS_PER_EXAMPLE
#: Many numbers in one example: the cost of an example hardly depends on its size.
_NUMBERS: Final = st.binary(min_size=_EXAMPLE_BYTES, max_size=_EXAMPLE_BYTES).map(
    lambda octets: [int.from_bytes(octets[at : at + _NUMBER_BYTES], "big") for at in range(0, len(octets), _NUMBER_BYTES)]
)


def mutation_from(number: int, families: Sequence[str]) -> Mutation:
    """Return the mutation of these families that a number defines."""
    number, position = divmod(number, _POSITIONS)
    number, parameter = divmod(number, _POSITIONS)
    number, family = divmod(number, len(families))
    mutations = _MUTATIONS[families[family]]
    number, at = divmod(number, len(mutations))
    mutation = mutations[at]._replace(position=position)
    if mutation.numbers == (1,) and mutation.edit == "split":
        return mutation._replace(numbers=tuple(number >> (8 * shift) & 0xFF for shift in range(1 + parameter % 3)))
    if mutation.edit == "text-insert" and not mutation.parameter:
        return mutation._replace(parameter=(0, 500, 1000)[parameter % 3])
    return mutation if mutation.parameter else mutation._replace(parameter=parameter)


def select_families(only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the mutation families to use.

    Args:
        only: Families to use; all of them if empty.
        skip: Families to leave out.

    Raises:
        UsageError: A family does not exist, or no family is left.
    """
    for name in (*only, *skip):
        if name not in FAMILIES:
            hint = did_you_mean(name, FAMILIES) or f"; allowed are {', '.join(FAMILIES)}"
            raise UsageError(f"there is no mutation family {name!r}{hint}")
    families = tuple(name for name in FAMILIES if (not only or name in only) and name not in skip)
    if not families:
        raise UsageError("--only and --skip together leave no mutation family")
    return families


def cases(families: Sequence[str], seed: int) -> Iterator[tuple[Mutation, ...]]:
    """Yield cases without end, the same ones for the same families and seed.

    hypothesis gets its random octets from here and keeps no database.
    """
    example: list[list[int]] = []

    @settings(database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(_NUMBERS)
    def keep_example(numbers: list[int]) -> None:
        example.append(numbers)

    generate = keep_example.hypothesis.fuzz_one_input  # type: ignore[attr-defined]  # an attribute that hypothesis adds
    rng = random.Random(seed)
    while True:
        example.clear()
        generate(rng.randbytes(_ENTROPY_BYTES))
        numbers = example[0] if example else []
        while numbers:
            count = 1 + numbers[0] % 3
            yield tuple(mutation_from(number // 3, families) for number in numbers[:count])
            numbers = numbers[count:]
