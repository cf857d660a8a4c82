"""A rule passes only if the server replied to what its probe sent: not if it closed the connection, or said 421."""

from __future__ import annotations

import pytest
from check_sink import check_sink
from odd_servers import ClosingSession, GreetsInTlsSession, NoEhloInTlsSession, PoliteSession

from smtpbench.engine import api
from smtpbench.rules import probe_steps
from smtpbench.rules.register import BY_NAME
from smtpbench.rules.rule import INCONCLUSIVE, PASS
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tested import untested_text
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Step
from smtpbench.session.transcript import CLIENT, EVENT, SERVER, Transcript

INFO = TargetInfo(recipient="b@recipient.example")
EHLO = b"EHLO client.example\r\n"


def test_close_in_place_of_a_reply_lets_no_rule_pass() -> None:
    names = ("rset-250", "noop-250", "no-side-effect", "verb-case", "arg-501", "helo-plain", "bdat-reject", "pre-ehlo")
    results = check_sink([*names, "rcpt-first", "overlong-resync"], ClosingSession)
    statuses = {name: result.verdict.status for name, result in results.items()}
    assert {name for name, status in statuses.items() if status == PASS} == {"rcpt-first", "overlong-resync"}
    assert {results[name].verdict.status for name in names} == {INCONCLUSIVE}
    assert results["rset-250"].verdict.actual == "the server closed the connection in place of a reply to RSET"


def test_busy_server_lets_no_rule_pass() -> None:
    names = ("rset-250", "noop-250", "size-552", "bad-param-555", "nested-mail", "path-brackets")
    results = check_sink([*names, "noop-arg"], PoliteSession)
    assert {name for name, result in results.items() if result.verdict.status == PASS} == {"noop-arg"}


def test_octets_before_tls_are_not_blamed_for_a_refusal_without_them() -> None:
    for session, text in (
        (NoEhloInTlsSession, "the server replied 502 to EHLO inside TLS in a session without added octets as well"),
        (
            GreetsInTlsSession,
            "the server sends more replies than commands inside TLS in a session without added octets as well",
        ),
    ):
        results = check_sink(["tls-partial", "tls-inject"], session)
        verdicts = {name: (result.verdict.status, result.verdict.actual) for name, result in results.items()}
        assert verdicts == {"tls-partial": (INCONCLUSIVE, text), "tls-inject": (INCONCLUSIVE, text)}


def dialogue(*entries: tuple[str, bytes]) -> Dialogue:
    transcript = Transcript()
    for at_ns, (who, octets) in enumerate(((SERVER, b"220 x\r\n"), (CLIENT, EHLO), (SERVER, b"250 x\r\n"), *entries)):
        transcript.add(at_ns, who, octets)
    return Dialogue.of(transcript)


CLOSED = (EVENT, api.CLOSED.encode())
GROUP = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRSET\r\n"


@pytest.mark.parametrize(
    ("rule", "steps", "entries", "text"),
    [
        ("noop-250", (probe_steps.raw(GROUP, 3),), ((CLIENT, GROUP), (SERVER, b"250 a\r\n250 b\r\n"), CLOSED),
         "the server closed the connection in place of a reply to RSET"),
        ("noop-250", (probe_steps.raw(GROUP, 3),),
         ((CLIENT, GROUP), (SERVER, b"250 a\r\n250 b\r\n"), (EVENT, api.TIMEOUT.encode())),
         "the server did not reply to RSET in time"),
        ("noop-250", (probe_steps.NOOP,), ((CLIENT, b"NOOP\r\n"), CLOSED),
         "the server closed the connection in place of a reply to NOOP"),
        ("close-without-421", (probe_steps.NOOP,), ((CLIENT, b"NOOP\r\n"), CLOSED), ""),
        ("close-without-421", (probe_steps.NOOP,), (CLOSED,), ""),
        ("noop-250", (probe_steps.NOOP,), ((CLIENT, b"NOOP\r\n"), (SERVER, b"421 x\r\n"), CLOSED),
         "the server replied 421 and closed the connection"),
        ("noop-250", (probe_steps.NOOP,), ((CLIENT, b"NOOP\r\n"), (SERVER, b"554 x\r\n"), CLOSED), ""),
        ("noop-250", (probe_steps.mail(INFO), probe_steps.NOOP),
         ((CLIENT, probe_steps.mail(INFO).wire), (SERVER, b"554 x\r\n"), CLOSED),
         "the server replied 554 and closed the connection"),
        ("noop-250", (probe_steps.NOOP,),
         ((CLIENT, b"NOOP\r\n"), (SERVER, b"250 x\r\n"), (CLIENT, b"QUIT\r\n"), CLOSED), ""),
    ],
)  # fmt: skip
def test_reason_for_which_a_session_tests_nothing(
    rule: str, steps: tuple[Step, ...], entries: tuple[tuple[str, bytes], ...], text: str
) -> None:
    script = probe_steps.script(INFO, probe_steps.hello(INFO), *steps)
    assert untested_text(BY_NAME[rule], INFO, script, dialogue(*entries)) == text
