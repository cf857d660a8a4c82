"""The server session: its replies, and that they do not depend on how the octets are split."""

from __future__ import annotations

import base64
from itertools import count, pairwise

import pytest

from smtpbench.engine import api
from smtpbench.session.server import MAX_LINE_BYTES, ServerSession
from smtpbench.session.server_context import Envelope, ServerContext


class ServerFeed:
    """A server session without a socket: give it commands, get its replies."""

    def __init__(self, **options: object) -> None:
        self.accepted: list[Envelope] = []
        self.context = ServerContext(on_message=self.accepted.append, **options)  # type: ignore[arg-type]  # a test's own options
        self.session = ServerSession(self.context)
        self.clock = count(1)
        self.greeting = self.session.connected(0)

    def receive(self, data: bytes) -> bytes:
        out = self.session.receive(data, next(self.clock))
        assert isinstance(out, bytes)
        return out

    def codes(self, *lines: bytes) -> list[int]:
        """Send command lines; return the code of the last line of each reply."""
        return [int(self.receive(line + b"\r\n").splitlines()[-1][:3] or b"0") for line in lines]


ENVELOPE = (b"EHLO c.example", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>")


def test_message_is_accepted_and_handed_on() -> None:
    server = ServerFeed()
    assert server.greeting == b"220 sink.example ESMTP smtpbench sink\r\n"
    assert server.codes(*ENVELOPE, b"DATA") == [250, 250, 250, 354]
    assert server.receive(b"Subject: x\r\n\r\n..dot\r\n.\r\n") == b"250 2.0.0 Message accepted\r\n"
    assert server.accepted == [Envelope(b"a@b.example", (b"c@d.example",), b"Subject: x\r\n\r\n.dot\r\n")]
    assert server.codes(b"RCPT TO:<c@d.example>", b"QUIT") == [503, 221]
    assert server.session.pending_action == api.CLOSE
    assert server.context.counts.to_data()["messages"] == {"accepted": 1, "rejected": 0}


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        pytest.param([b"MAIL FROM:<a@b.example>"], [503], id="MAIL before EHLO"),
        pytest.param([b"VRFY x", b"NOOP", b"HELP", b"RSET"], [252, 250, 214, 250], id="in order before EHLO"),
        pytest.param([b"EHLO c", b"RCPT TO:<c@d.example>"], [250, 503], id="RCPT before MAIL"),
        pytest.param([b"EHLO c", b"MAIL FROM:<a@b.example>", b"DATA"], [250, 250, 503], id="DATA without RCPT"),
        pytest.param([*ENVELOPE, b"MAIL FROM:<a@b.example>"], [250, 250, 250, 503], id="nested MAIL"),
        pytest.param([*ENVELOPE, b"RSET", b"RCPT TO:<c@d.example>"], [250] * 4 + [503], id="RSET clears"),
        pytest.param([*ENVELOPE, b"EHLO c", b"RCPT TO:<c@d.example>"], [250] * 4 + [503], id="EHLO clears"),
        pytest.param([*ENVELOPE, b"NOOP", b"VRFY x", b"DATA"], [250] * 4 + [252, 354], id="no side effects"),
        pytest.param([b"EHLO c", b"mAiL from:<>", b"rcpt TO:<Postmaster>"], [250] * 3, id="case, null sender, postmaster"),
        pytest.param([b"EHLO c", b"MAIL FROM:<a@b.example> FOO=1"], [250, 555], id="unknown parameter"),
        pytest.param([b"EHLO c", b"MAIL FROM:<a@b.example> SIZE=99999999999"], [250, 552], id="SIZE too big"),
        pytest.param([b"EHLO c", b"MAIL FROM:a@b.example"], [250, 501], id="no brackets"),
        pytest.param([b"EHLO c", b"MAIL FROM:<@x,@y:a@b.example>"], [250, 250], id="source route"),
        pytest.param([b"EHLO c", b"MAIL FROM:<\xc3\xa9@b.example>"], [250, 550], id="UTF-8 without SMTPUTF8"),
        pytest.param([b"EHLO c", b"MAIL FROM:<\xc3\xa9@b.example> SMTPUTF8"], [250, 250], id="SMTPUTF8"),
        pytest.param([b"EHLO", b"EHLO c", b"RSET x", b"QUIT x", b"XYZZY"], [501, 250, 501, 501, 500], id="arguments"),
        pytest.param([b"EHLO c", b"AUTH PLAIN", b"STARTTLS", b"LHLO c"], [250, 503, 502, 500], id="not offered"),
        pytest.param([b"HELO c", b"MAIL FROM:<a@b.example>"], [250, 250], id="HELO"),
    ],
)
def test_codes_for_order_and_syntax(lines: list[bytes], codes: list[int]) -> None:
    assert ServerFeed().codes(*lines) == codes


DIALOGUES = {
    "lockstep": b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n",
    "empty message": b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n.\r\nNOOP\r\n",
    "dots": b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n..\r\n...\r\n.x\r\n\r\n.\r\nNOOP\r\n",
    "not the end": b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\na\n.\nb\r\n.\nc\n.\r\nd"
    b"\r.\re\r\r\n.\0\r\n\r\n. \r\n.\r\nNOOP\r\n",
    "bdat": b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 9\r\n\r\n.\r\nQUIT"
    b"BDAT 3 LAST\r\nabcNOOP\r\n",
    "bdat refused": b"EHLO c\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\nBDAT 0 LAST\r\nNOOP\r\n",
    "long line": b"EHLO c\r\nNOOP " + b"x" * (MAX_LINE_BYTES + 10) + b"\r\nNOOP\r\n",
    "nonsense": b"\0\xff\r\n\r\nEHLO c\nEHLO c\r\n",
}


@pytest.mark.parametrize("name", DIALOGUES)
def test_replies_do_not_depend_on_how_octets_are_split(name: str) -> None:
    data = DIALOGUES[name]

    def answers(*cuts: int) -> tuple[bytes, list[Envelope]]:
        server = ServerFeed()
        edges = [0, *cuts, len(data)]
        sent = b"".join(server.receive(data[a:b]) for a, b in pairwise(edges) if b > a)
        return sent, server.accepted

    whole = answers()
    if len(data) < 1000:
        assert answers(*range(1, len(data))) == whole
        for cut in range(1, len(data)):
            assert answers(cut) == whole
    else:
        for cut in (1, 9, 100, MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 20, len(data) - 8):
            assert answers(cut) == whole
    expected = {"lockstep": b"221", "nonsense": b"250 "}.get(name, b"250 2.0.0 Ok")
    assert whole[0].splitlines()[-1].startswith(expected)


def test_only_crlf_dot_crlf_ends_the_data() -> None:
    server = ServerFeed()
    server.receive(DIALOGUES["not the end"])
    assert server.accepted[0].content == b"a\n.\nb\r\n\nc\n.\r\nd\r.\re\r\r\n\0\r\n\r\n \r\n"


def test_oversize_message_is_read_to_its_end_and_refused_once() -> None:
    server = ServerFeed(size_bytes=1000)
    assert server.codes(*ENVELOPE, b"DATA") == [250, 250, 250, 354]
    for _ in range(50):
        assert server.receive(b"QUIT\r\n" * 100) == b""
    assert server.receive(b".\r\nNOOP\r\n") == b"552 5.3.4 Message too big\r\n250 2.0.0 Ok\r\n"
    assert server.accepted == []


def test_octets_in_the_clear_behind_starttls_are_discarded() -> None:
    server = ServerFeed(starttls=True)
    assert b"STARTTLS" in server.receive(b"EHLO c\r\n")
    assert server.receive(b"STARTTLS\r\nNOOP\r\nNOO").startswith(b"220 ")
    assert server.session.pending_action == api.START_TLS
    server.session.pending_action = api.NOTHING
    assert server.session.tls_started(9) == b""
    assert server.codes(b"MAIL FROM:<a@b.example>", b"STARTTLS x") == [503, 501]
    assert b"STARTTLS" not in server.receive(b"EHLO c\r\n")
    assert server.codes(b"STARTTLS") == [503]


@pytest.mark.parametrize("initial_response", [True, False])
def test_auth(initial_response: bool) -> None:
    server = ServerFeed(users={"u": "secret"})
    assert b"AUTH PLAIN LOGIN CRAM-MD5" in server.receive(b"EHLO c\r\n")
    good, bad = (base64.b64encode(b"\0u\0" + password) for password in (b"secret", b"wrong"))
    assert server.codes(b"AUTH NONE", b"AUTH PLAIN !!", b"AUTH PLAIN " + bad) == [504, 501, 535]
    assert server.codes(b"AUTH PLAIN", b"*") == [334, 501]
    if initial_response:
        assert server.codes(b"AUTH PLAIN " + good) == [235]
    else:
        assert server.codes(b"AUTH LOGIN", base64.b64encode(b"u"), base64.b64encode(b"secret")) == [334, 334, 235]
    assert server.codes(b"AUTH PLAIN " + good) == [503]
    assert server.context.counts.to_data()["auth"] == {"ok": 1, "failed": 1}


def test_lmtp_message_gets_one_reply_for_each_recipient() -> None:
    server = ServerFeed(lmtp=True)
    assert server.codes(b"EHLO c", b"LHLO c", b"MAIL FROM:<a@b.example>") == [500, 250, 250]
    assert server.codes(b"RCPT TO:<c@d.example>", b"RCPT TO:<e@d.example>", b"DATA") == [250, 250, 354]
    assert server.receive(b"x\r\n.\r\n") == b"250 2.0.0 Message accepted\r\n" * 2


def test_limits_of_recipients_and_messages() -> None:
    server = ServerFeed(recipients=1, messages=1)
    assert server.codes(*ENVELOPE, b"RCPT TO:<e@d.example>", b"DATA") == [250, 250, 250, 452, 354]
    server.receive(b"x\r\n.\r\n")
    assert server.codes(b"MAIL FROM:<a@b.example>") == [421]
    assert server.session.pending_action == api.LINGER


@pytest.mark.parametrize("option", ["require_tls", "require_auth"])
def test_mail_is_refused_without_required_tls_or_auth(option: str) -> None:
    assert ServerFeed(**{option: True}).codes(b"EHLO c", b"MAIL FROM:<a@b.example>") == [250, 530]
