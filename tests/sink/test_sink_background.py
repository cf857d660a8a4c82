"""A sink in a thread beside a program without an event loop, or with one."""

from __future__ import annotations

import smtplib
import socket
import threading

import pytest

from smtpbench.errors import CannotRun, UsageError
from smtpbench.sink import background
from smtpbench.sink.background import sink_in_a_thread
from smtpbench.sink.setup import SinkOptions, set_up


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_it_serves_and_ends_with_the_context() -> None:
    with sink_in_a_thread(set_up(SinkOptions(lmtp=True))) as sink:
        assert "smtpbench-sink" in names()
        with smtplib.LMTP("127.0.0.1", sink.port) as client:
            client.sendmail("a@b.example", ["c@d.example"], "Subject: x\r\n\r\nx\r\n")
    assert sink.counts.accepted == 1
    assert "smtpbench-sink" not in names()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", sink.port))


async def test_it_does_so_beside_a_loop_of_the_programs_own() -> None:
    with sink_in_a_thread(set_up(SinkOptions())) as sink, smtplib.SMTP("127.0.0.1", sink.port) as client:
        assert client.noop()[0] == 250


def test_what_keeps_it_from_beginning_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise CannotRun("no port is free")

    monkeypatch.setattr(background, "sink_running", full)
    with pytest.raises(CannotRun, match="no port is free"), sink_in_a_thread(set_up(SinkOptions())):
        raise AssertionError("it cannot have begun")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (SinkOptions(mutant="nothing"), "--mutant nothing: there are"),
        (SinkOptions(require_auth=True), "somebody who may log in"),
        (SinkOptions(require_tls=True), "TLS needs a certificate"),
        (SinkOptions(delay=["RCPT"]), "write VERB=VALUE"),
        (SinkOptions(behaviour={"on": 5}), "`on` is a list"),
        (SinkOptions(max_size="huge"), "huge"),
    ],
)
def test_options_that_cannot_be_meant(options: SinkOptions, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        set_up(options)
    assert text in str(caught.value)


def test_a_files_rules_come_before_those_of_the_options() -> None:
    setup = set_up(SinkOptions(behaviour={"on": ["MAIL=450"], "seed": 3}, on=["MAIL=550"], reject=["RCPT=100%"]))
    faults = setup.service.faults
    assert faults is not None
    said = [faults.override(verb, b"", b"", 1) for verb in ("MAIL", "RCPT", "DATA")]
    assert [None if override is None else override.reply[:3] for override in said] == [b"450", b"550", None]
