"""Parsed command lines: the cache parses as the grammar does, keeps no state of a session, and is bounded."""

from __future__ import annotations

from itertools import product

import pytest

from smtpbench.session.command_line import CommandLineCache
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ReplyOverride, ServerContext
from smtpbench.smtp import command as c
from smtpbench.smtp.command import Refusal

PATHS = (
    "<a@b.example>", "<foo@host>", "<>", "<Postmaster>", '<"a b"@c.example>', '<""@c>', "<a.b@c-d.e>", "<a..b@c>", "<.a@c>",
    "<a@-c>", "<a@c->", "<a@b..c>", "<a@b.>", "<a@[192.0.2.1]>", "<a@[IPv6:::1]>", "<@r:a@b>", "a@b", "<a@b", "<a b@c>",
    "<a@b>x", "<" + "l" * 65 + "@d>", "<l@" + "d" * 64 + ">", "<l@" + "d" * 63 + ">", "<é@b.example>", "<a@é.example>",
)  # fmt: skip
TAILS = (
    "", " ", " SIZE=10", " size=10 body=8bitmime", " BODY=8BITMIME", " BODY=7BIT SIZE=1", " SIZE=", " SIZE=x",
    " SIZE=1 SIZE=1",
    " SMTPUTF8", " NOTIFY=NEVER", " ORCPT=rfc822;a@b", " FOO", "SIZE=1", " BODY=BINARY", " SIZE=" + "9" * 21, " RET=é",
)  # fmt: skip
HEADS = ("MAIL FROM:", "RCPT TO:", "mail from:", "Rcpt To:", "MAIL FROM: ", "MAIL TO:", "MAIL", "RCPT", "XMAIL FROM:")
OTHER_LINES = (
    b"DATA\r\n",
    b"data \r\n",
    b"DATA x\r\n",
    b"EHLO\r\n",
    b"EHLO c\r\n",
    b"\r\n",
    b"\xff\r\n",
    b"NOOP\n",
    b"BDAT 3 LAST\r\n",
)


def full_parse(line: bytes) -> tuple[str, bytes | None, int, bool]:
    """Parse a line with the whole grammar, without the short forms."""
    parsed = c.parse_line(line)
    if isinstance(parsed, Refusal):
        return "", None, 0, False
    verb, argument = parsed
    if verb == "MAIL" and argument.isascii():
        mail = c.parse_mail(argument, c.MAIL_PARAMETERS)
        if not isinstance(mail, Refusal):
            return verb, mail.path.mailbox, mail.size_bytes, mail.utf8
    if verb == "RCPT" and argument.isascii():
        rcpt = c.parse_rcpt(argument, c.RCPT_PARAMETERS, utf8=False)
        if not isinstance(rcpt, Refusal):
            return verb, rcpt.path.mailbox, 0, False
    return verb, None, 0, False


def test_cached_lines_are_parsed_as_the_grammar_does() -> None:
    cache = CommandLineCache()
    lines = [(head + path + tail + "\r\n").encode() for head, path, tail in product(HEADS, PATHS, TAILS)]
    for line in (*lines, *OTHER_LINES):
        parsed = cache.parse(line)
        assert parsed[:4] == full_parse(line), line
        assert (parsed[5] is not None) == isinstance(c.parse_line(line), Refusal)
        assert cache.get(line) in (None, parsed)


def lines_of(mail: bytes, rcpt: bytes, data: bytes = b"DATA") -> list[bytes]:
    return [line + b"\r\n" for line in (mail, rcpt, data)]


SHAPES = {
    "domain with a dot": lines_of(b"MAIL FROM:<a@sender.example>", b"RCPT TO:<b@recipient.example>"),
    "domain without a dot": lines_of(b"MAIL FROM:<foo@host>", b"RCPT TO:<foo@host>"),
    "parameters": lines_of(b"MAIL FROM:<a@b.example> SIZE=1024 BODY=8BITMIME", b"RCPT TO:<c@d.example> NOTIFY=NEVER"),
    "quoted local part": lines_of(b'MAIL FROM:<"a b"@c.example>', b'RCPT TO:<"c d"@e.example>'),
    "mixed case": lines_of(b"mail from:<a@b.example>", b"Rcpt To:<c@d.example>", b"data"),
    "null sender": lines_of(b"MAIL FROM:<>", b"RCPT TO:<Postmaster>"),
}


class ServerFeed:
    """A server session that is greeted, without a socket."""

    def __init__(self, **options: object) -> None:
        self.context = ServerContext(**options)  # type: ignore[arg-type]  # a test's own options
        self.session = ServerSession(self.context)
        self.session.connected(0)
        self.codes(b"LHLO c\r\n" if self.context.lmtp else b"EHLO c\r\n")

    def codes(self, *lines: bytes) -> list[int]:
        outs = [self.session.receive(bytes(bytearray(line)), 1) for line in lines]
        return [int(bytes(out)[:3]) for out in outs if isinstance(out, bytes)]


@pytest.mark.parametrize("shape", SHAPES)
def test_repeated_lines_of_any_shape_are_parsed_once(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = SHAPES[shape]
    ServerFeed().codes(*lines, b"x\r\n.\r\n")
    server = ServerFeed()

    def refuse(line: bytes) -> Refusal:
        raise AssertionError(f"parsed again: {line!r}")

    monkeypatch.setattr(c, "parse_line", refuse)
    for _ in range(3):
        assert server.codes(*lines, b"x\r\n.\r\n") == [250, 250, 354, 250]
    assert server.context.counts.commands["RCPT"] == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cached_line_is_answered_by_the_state_of_its_own_session(shape: str) -> None:
    mail, rcpt, data = SHAPES[shape]
    ServerFeed().codes(mail, rcpt, data, b"x\r\n.\r\n")
    assert ServerFeed().codes(rcpt, data, mail, mail, data, rcpt) == [503, 503, 250, 503, 503, 250]
    assert ServerFeed(recipients=1).codes(mail, rcpt, rcpt, data) == [250, 250, 452, 354]
    assert ServerFeed(require_tls=True).codes(mail, rcpt) == [530, 503]
    assert ServerFeed(require_auth=True).codes(mail, rcpt) == [530, 503]
    assert ServerFeed(messages=1).codes(mail, rcpt, data, b"x\r\n.\r\n", mail) == [250, 250, 354, 250, 421]
    assert ServerFeed(lmtp=True).codes(mail, rcpt, data) == [250, 250, 354]


def test_limit_of_the_size_is_the_sessions_own() -> None:
    mail = b"MAIL FROM:<a@b.example> SIZE=5000\r\n"
    assert ServerFeed().codes(mail) == [250]
    assert ServerFeed(size_bytes=4999).codes(mail) == [552]
    assert ServerFeed(size_bytes=5000).codes(mail) == [250]


def test_addresses_that_need_smtputf8_depend_on_the_transaction() -> None:
    plain, utf8 = b"MAIL FROM:<a@b.example>\r\n", b"MAIL FROM:<a@b.example> SMTPUTF8\r\n"
    rcpt = "RCPT TO:<é@d.example>\r\n".encode()
    for _ in range(2):
        assert ServerFeed().codes(plain, rcpt) == [250, 553]
        assert ServerFeed().codes(utf8, rcpt, b"RSET\r\n", plain, rcpt) == [250, 250, 250, 250, 553]


class RefusesSecondMail:
    """A fault injector that refuses every second MAIL."""

    def __init__(self) -> None:
        self.senders: list[bytes] = []

    def override(self, verb: str, sender: bytes, argument: bytes, now_ns: int) -> ReplyOverride | None:
        if verb == "RCPT":
            self.senders.append(sender)
        if verb != "MAIL":
            return None
        self.mails = getattr(self, "mails", 0) + 1
        return ReplyOverride(b"451 4.7.1 Later\r\n") if self.mails % 2 == 0 else None


@pytest.mark.parametrize("shape", SHAPES)
def test_injected_faults_come_before_the_cache(shape: str) -> None:
    mail, rcpt, _ = SHAPES[shape]
    faults = RefusesSecondMail()
    server = ServerFeed(faults=faults)
    assert server.codes(mail, rcpt, b"RSET\r\n", mail, rcpt, mail) == [250, 250, 250, 451, 503, 250]
    assert b"<" not in faults.senders[0]


def test_cache_is_bounded_and_takes_lines_again() -> None:
    cache = CommandLineCache()
    lines, octets = 0, 0
    for number in range(30_000):
        line = b"RCPT TO:<user%d@d.example>\r\n" % number
        assert (cache.get(line) or cache.parse(line))[1] == b"user%d@d.example" % number
        lines = max(lines, len(cache))
    assert 100 < lines <= 1024
    cache = CommandLineCache()
    for number in range(30_000):
        line = b"RCPT TO:<user%d@d.example> ORCPT=rfc822;%s\r\n" % (number, b"x" * 400)
        cache.parse(line)
        octets = max(octets, len(cache) * len(line))
    assert octets < 256 * 1024
    long_line = b"NOOP " + b"x" * 1000 + b"\r\n"
    for _ in range(20_000):
        if cache.get(b"DATA\r\n") is None:
            cache.parse(b"DATA\r\n")
        cache.parse(long_line)
    assert cache.get(b"DATA\r\n") is not None
    assert cache.get(long_line) is None
