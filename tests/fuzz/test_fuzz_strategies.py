"""Generated cases: the same for the same seed, of the selected families, and each edit changes what it names."""

from __future__ import annotations

from itertools import islice

import pytest
from simulated import campaign_on

from smtpbench.errors import UsageError
from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.mutation import Addresses, Mutation, apply_mutations, command_step
from smtpbench.fuzz.strategies import cases, select_families
from smtpbench.session import script as s
from smtpbench.session.script import ExpectedReply, Step
from smtpbench.session.server import ServerSession

ALL_FAMILIES = tuple(FAMILIES)
BASE = (
    command_step(b"EHLO c.example\r\n"),
    command_step(b"MAIL FROM:<a@b.example>\r\n"),
    command_step(b"DATA\r\n"),
    Step(s.COMMAND, b"text\r\n.\r\n", expected_replies=(ExpectedReply("message", (2,)),), metric="message"),
    command_step(b"QUIT\r\n"),
)


def wires(steps: tuple[Step, ...]) -> list[object]:
    return [step.wire for step in steps]


def test_same_seed_generates_same_cases() -> None:
    first, second = (list(islice(cases(ALL_FAMILIES, 7), 300)) for _ in range(2))
    assert first == second
    assert first != list(islice(cases(ALL_FAMILIES, 8), 300))
    assert {mutation.family for case in first for mutation in case} == set(FAMILIES)
    assert {len(case) for case in first} == {1, 2, 3}


def test_families_can_be_selected_and_skipped() -> None:
    selected = select_families(only=["end", "dots"], skip=["dots"])
    assert selected == ("end",)
    assert {mutation.family for case in islice(cases(selected, 1), 50) for mutation in case} == {"end"}
    for only, skip in ((["nothing"], []), (["end"], ["end"])):
        with pytest.raises(UsageError):
            select_families(only, skip)


def test_every_case_applies_to_any_script() -> None:
    for case in islice(cases(ALL_FAMILIES, 3), 2000):
        for base in (BASE, BASE[:1], ()):
            for step in apply_mutations(base, case):
                assert step.kind != s.COMMAND or step.expected_replies


@pytest.mark.parametrize(
    ("mutation", "expected"),
    [
        (Mutation("order", "drop", 1), [b"EHLO c.example\r\n", b"DATA\r\n", b"text\r\n.\r\n", b"QUIT\r\n"]),
        (Mutation("order", "insert", 0, octets=b"NOOP\r\n"), [b"NOOP\r\n", *wires(BASE)]),
        (Mutation("argument", "argument", 1, octets=b"<>"), [BASE[0].wire, b"MAIL FROM:<>\r\n", *wires(BASE[2:])]),
        (Mutation("argument", "append", 1, octets=b" X"),
         [BASE[0].wire, b"MAIL FROM:<a@b.example> X\r\n", *wires(BASE[2:])]),
        (Mutation("line", "line-end", 0, octets=b"\n"), [b"EHLO c.example\n", *wires(BASE[1:])]),
        (Mutation("dots", "text", 0, octets=b".\r\n"), [*wires(BASE[:3]), b".\r\n", b"QUIT\r\n"]),
        (Mutation("end", "text-end", 0, octets=b"\n.\n"), [*wires(BASE[:3]), b"text\n.\n", b"", b"\r\n.\r\n", b"QUIT\r\n"]),
        (Mutation("chunk", "bdat", 0, octets=b"# LAST"), [*wires(BASE[:2]), b"BDAT 6 LAST\r\ntext\r\n", b"QUIT\r\n"]),
        (Mutation("pipeline", "join", 0), [b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\n", *wires(BASE[2:])]),
    ],
)  # fmt: skip
def test_edit_changes_what_it_names(mutation: Mutation, expected: list[bytes]) -> None:
    assert wires(apply_mutations(BASE, [mutation])) == expected


def test_split_sends_the_same_octets() -> None:
    (split,) = [step for step in apply_mutations(BASE, [Mutation("segment", "split", 1, numbers=(3, 9))]) if step.split]
    assert b"".join(split.split) == split.wire == BASE[1].wire
    assert len(split.split) == 3


ADDRESSES = Addresses(b"s@known.test", (b"good@known.test", b"alias@known.test"), b"nobody@known.test", b"me.test")


def test_addresses_are_those_of_the_scenario() -> None:
    steps = [command_step(line) for line in (b"EHLO me.test\r\n", b"MAIL FROM:<s@known.test> SIZE=3\r\n")]
    steps += [command_step(b"RCPT TO:<good@known.test>\r\n"), command_step(b"RCPT TO:<good@known.test>\r\n")]
    assert Addresses.of(steps, ["alias@known.test"], "nobody@known.test") == ADDRESSES
    assert Addresses.of(steps).unknown == b"no-such-user@known.test"
    assert Addresses.of([command_step(b"RCPT TO:<Postmaster>\r\n")]).unknown == b"no-such-user"
    assert Addresses.of([]) == Addresses()


def test_names_in_braces_stand_for_addresses() -> None:
    insert = Mutation("order", "insert", 1, octets=b"RCPT TO:<{alias}>\r\nRCPT TO:<{unknown}>\r\n")
    assert (
        apply_mutations(BASE, [insert], ADDRESSES)[1].wire
        == b"RCPT TO:<alias@known.test>\r\nRCPT TO:<nobody@known.test>\r\n"
    )
    argument = Mutation("argument", "argument", 1, octets=b"<@x:{address}> <b@{domain}>")
    assert apply_mutations(BASE, [argument], ADDRESSES)[1].wire == b"MAIL FROM:<@x:a@b.example> <b@b.example>\r\n"
    plain = Addresses(b"", (b"only@known.test",))
    assert apply_mutations(BASE, [insert], plain)[1].wire[:26] == b"RCPT TO:<only@known.test>\r"


def test_every_octet_of_a_case_is_free_of_names() -> None:
    for case in islice(cases(ALL_FAMILIES, 5), 3_000):
        sent = b"".join(step.wire for step in apply_mutations(BASE, case, ADDRESSES) if isinstance(step.wire, bytes))
        assert b"{" not in sent
        assert b"recipient.example" not in sent


def test_server_that_verifies_addresses_accepts_what_is_inserted() -> None:
    refused, accepted = set[bytes](), set[bytes]()

    class Verifying(ServerSession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            verb, _, path = line.upper().partition(b":")
            if verb in (b"MAIL FROM", b"RCPT TO"):
                known = path.strip() in (b"<S@KNOWN.TEST>", b"<GOOD@KNOWN.TEST>", b"<ALIAS@KNOWN.TEST>")
                (accepted if known else refused).add(line.strip())
                if not known:
                    return b"550 5.7.1 Not accepted here\r\n"
            return super().handle_command(line)

    lines = {b"MAIL": b"MAIL FROM:<s@known.test>\r\n", b"RCPT": b"RCPT TO:<good@known.test>\r\n"}
    stats, _ = campaign_on(
        Verifying, lines=lines, cases=1_000, families=("order",), aliases=["alias@known.test"], unknown="nobody@known.test"
    )
    assert stats.run == 1_000
    assert refused == {b"RCPT TO:<nobody@known.test>"}
    assert {b"RCPT TO:<alias@known.test>", b"mail from:<s@known.test>"} <= accepted
