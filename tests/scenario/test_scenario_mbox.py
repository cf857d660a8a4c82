"""Message files with `From ` lines: they belong to the mailbox and not to the message."""

from __future__ import annotations

import mailbox
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import load_text
from smtpbench.scenario.mbox import messages_in

FROM = b"From a@b.example Mon Jan  1 00:00:00 2024\n"


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"Subject: x\n\nFrom here on\n", [b"Subject: x\n\nFrom here on\n"]),
        (b"Subject: x\n\n>From here on\n\n", [b"Subject: x\n\n>From here on\n\n"]),
        (FROM + b"Subject: x\n\nbody\n", [b"Subject: x\n\nbody\n"]),
        (b">" + FROM + b"Subject: x\n\nbody\n", [b"Subject: x\n\nbody\n"]),
        (FROM.replace(b"\n", b"\r\n") + b"Subject: x\r\n\r\nbody\r\n", [b"Subject: x\r\n\r\nbody\r\n"]),
        (FROM + b"A: 1\n\none\n\n" + FROM + b"A: 2\n\ntwo\n\n", [b"A: 1\n\none\n", b"A: 2\n\ntwo\n"]),
        (
            b"From -\r\nA: 1\r\n\r\none\r\n\r\nFrom -\r\nA: 2\r\n\r\ntwo\r\n",
            [b"A: 1\r\n\r\none\r\n", b"A: 2\r\n\r\ntwo\r\n"],
        ),
        (FROM + b"A: 1\n\n>From x\n>>From y\n> From z\n", [b"A: 1\n\nFrom x\n>From y\n> From z\n"]),
        (FROM + b"A: 1\n\none\n\nFrom here on\nit is text.\n", [b"A: 1\n\none\n\nFrom here on\nit is text.\n"]),
        (FROM + b"A: 1\n\none\nFrom here:\nB: 2\n", [b"A: 1\n\none\nFrom here:\nB: 2\n"]),
        (FROM, [b""]),
        (b"", [b""]),
    ],
)
def test_envelope_lines_and_quoting_are_removed(content: bytes, messages: list[bytes]) -> None:
    assert list(messages_in(content)) == messages


_LINES = st.sampled_from(["text", "From here", ">From there", "", ".", "Subject: no"])


@given(bodies=st.lists(st.lists(_LINES, max_size=6).map("\n".join), min_size=1, max_size=4))
def test_messages_of_a_mailbox_come_out_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, bodies: list[str]) -> None:
    contents = [f"Subject: {number}\n\n{body}\n".encode() for number, body in enumerate(bodies)]
    path = tmp_path_factory.mktemp("mbox") / "m.mbox"
    box = mailbox.mbox(path)
    for content in contents:
        box.add(content.replace(b"\n>From ", b"\n>>From "))  # Python quotes as mboxo does, which loses quotes
    box.close()
    assert list(messages_in(path.read_bytes())) == contents


def test_mbox_file_is_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "m.mbox").write_bytes(FROM + b"A: 1\n\none\n\n" + FROM + b"A: 2\n\n.two\n")
    (tmp_path / "n.eml").write_bytes(b"A: 3\n\nthree\n")
    file = load_text("session: [DATA, message]\nmessage: {eml: '*.*'}", tmp_path / "s.yaml")
    render = compile_scenario(file, CompileOptions(run_id="r1")).steps[1].render
    assert render is not None
    assert [render(n) for n in range(4)] == [
        b"X-Smtpbench-Run: r1\r\nA: " + rest
        for rest in (
            b"1\r\n\r\none\r\n.\r\n",
            b"2\r\n\r\n..two\r\n.\r\n",
            b"3\r\n\r\nthree\r\n.\r\n",
            b"1\r\n\r\none\r\n.\r\n",
        )
    ]
