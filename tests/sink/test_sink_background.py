"""A sink in a thread beside a program without an event loop, or with one."""

from __future__ import annotations

import smtplib
import socket
import threading

import pytest

from smtpbench.errors import CannotRun, UsageError
from smtpbench.sink import background
from smtpbench.sink.background import sink_in_a_thread
from smtpbench.sink.setup import Options, set_up


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_it_serves_and_ends_with_the_context() -> None:
    with sink_in_a_thread(set_up(Options(lmtp=True))) as sink:
        assert "smtpbench-sink" in names()
        with smtplib.LMTP("127.0.0.1", sink.port) as client:
            client.sendmail("a@b.example", ["c@d.example"], "Subject: x\r\n\r\nx\r\n")
    assert sink.counts.accepted == 1
    assert "smtpbench-sink" not in names()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", sink.port))


async def test_it_does_so_beside_a_loop_of_the_programs_own() -> None:
    with sink_in_a_thread(set_up(Options())) as sink, smtplib.SMTP("127.0.0.1", sink.port) as client:
        assert client.noop()[0] == 250


def test_what_keeps_it_from_beginning_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise CannotRun("no port is free")

    monkeypatch.setattr(background, "sink_running", full)
    with pytest.raises(CannotRun, match="no port is free"), sink_in_a_thread(set_up(Options())):
        raise AssertionError("it cannot have begun")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (Options(mutant="nothing"), "--mutant nothing: there are"),
        (Options(require_auth=True), "somebody who may log in"),
        (Options(require_tls=True), "TLS needs a certificate"),
        (Options(delay=["RCPT"]), "write VERB=VALUE"),
        (Options(behaviour={"on": 5}), "`on` is a list"),
        (Options(max_size="huge"), "huge"),
    ],
)
def test_options_that_cannot_be_meant(options: Options, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        set_up(options)
    assert text in str(caught.value)


def test_a_files_rules_come_before_those_of_the_options() -> None:
    setup = set_up(Options(behaviour={"on": ["MAIL=450"], "seed": 3}, on=["MAIL=550"], reject=["RCPT=100%"]))
    manners = setup.service.manners
    assert manners is not None
    said = [manners.act(verb, b"", b"", 1) for verb in ("MAIL", "RCPT", "DATA")]
    assert [None if act is None else act.reply[:3] for act in said] == [b"450", b"550", None]
