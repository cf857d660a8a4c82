"""A sink in a thread, beside a program with or without an event loop."""

from __future__ import annotations

import smtplib
import socket
import threading

import pytest

from smtpbench.errors import CannotRun, UsageError
from smtpbench.sink import background
from smtpbench.sink.background import sink_in_a_thread
from smtpbench.sink.setup import SinkOptions, sink_setup


def thread_names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_sink_runs_as_long_as_the_context() -> None:
    with sink_in_a_thread(sink_setup(SinkOptions(lmtp=True))) as sink:
        assert "smtpbench-sink" in thread_names()
        with smtplib.LMTP("127.0.0.1", sink.port) as client:
            client.sendmail("a@b.example", ["c@d.example"], "Subject: x\r\n\r\nx\r\n")
    assert sink.counts.accepted == 1
    assert "smtpbench-sink" not in thread_names()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", sink.port))


async def test_sink_runs_beside_an_event_loop() -> None:
    with sink_in_a_thread(sink_setup(SinkOptions())) as sink, smtplib.SMTP("127.0.0.1", sink.port) as client:
        assert client.noop()[0] == 250


def test_failure_to_start_is_raised_in_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CannotRun("no port is free")

    monkeypatch.setattr(background, "sink_running", fail)
    with pytest.raises(CannotRun, match="no port is free"), sink_in_a_thread(sink_setup(SinkOptions())):
        raise AssertionError("the sink cannot have started")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (SinkOptions(mutant="nothing"), "--mutant nothing: unknown mutant; allowed: "),
        (SinkOptions(require_auth=True), "--require-auth needs --user"),
        (SinkOptions(require_tls=True), "TLS needs a certificate"),
        (SinkOptions(delay=["RCPT"]), "write VERB=VALUE"),
        (SinkOptions(behaviour={"on": 5}), "`on` must be a list"),
        (SinkOptions(max_size="huge"), "huge"),
    ],
)
def test_wrong_options_are_a_usage_error(options: SinkOptions, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        sink_setup(options)
    assert text in str(caught.value)


def test_rules_of_the_file_come_before_those_of_the_options() -> None:
    setup = sink_setup(SinkOptions(behaviour={"on": ["MAIL=450"], "seed": 3}, on=["MAIL=550"], reject=["RCPT=100%"]))
    faults = setup.context.faults
    assert faults is not None
    overrides = [faults.override(verb, b"", b"", 1) for verb in ("MAIL", "RCPT", "DATA")]
    assert [None if override is None else override.reply[:3] for override in overrides] == [b"450", b"550", None]
