"""The sink with real clients: smtplib of the standard library, and our own command line."""

from __future__ import annotations

import smtplib
import socket
import ssl
from pathlib import Path

import pytest
import trio
from runner import finish, run, sink, smtpbench, start
from servers import Tls

from smtpbench.session.server_context import ServerContext
from smtpbench.sink.serve import sink_running


async def test_sink_serves_smtplib(tls: Tls) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)
    service = ServerContext(users={"u": "secret"}, starttls=True)

    def send(port: int) -> None:
        with smtplib.SMTP("localhost", port) as client:
            client.starttls(context=ssl.create_default_context(cafile=str(tls.ca)))
            client.login("u", "secret")
            client.sendmail("a@b.example", ["c@d.example", "e@d.example"], "Subject: x\r\n\r\n.dot\r\n")

    with trio.fail_after(30):
        async with sink_running(service, tls=context, keep_messages=True) as running:
            await trio.to_thread.run_sync(send, running.port)
            await trio.to_thread.run_sync(send, running.port)
    assert [message.recipients for message in running.messages] == [(b"c@d.example", b"e@d.example")] * 2
    assert running.messages[0].content == b"Subject: x\r\n\r\n.dot\r\n"
    assert (running.counts.accepted, running.counts.tls, running.counts.auth_ok) == (2, 2, 2)


async def test_every_message_carries_the_run_id(tmp_path: Path) -> None:
    async with sink_running(keep_messages=True) as running:
        target = f"smtp://127.0.0.1:{running.port}"
        done = await trio.to_thread.run_sync(lambda: run("relay", target, tmp_path, "-n", "20", "-c", "2"))
    assert done.messages == {"accepted": 20}
    header = f"X-Smtpbench-Run: {done.result['run_id']}\r\n".encode()
    assert len(running.messages) == 20
    assert all(message.content.startswith(header) for message in running.messages)
    assert all(len(message.content) == 4096 for message in running.messages)
    ids = {line for message in running.messages for line in message.content.splitlines() if b"Message-ID" in line}
    assert len(ids) == 20


@pytest.mark.parametrize("lmtp", [False, True])
def test_unix_socket(tmp_path: Path, lmtp: bool) -> None:
    path = tmp_path / "sink.sock"
    process = start("sink", "--listen", f"unix:{path}", "--ready-json", *(["--lmtp"] if lmtp else []))
    assert process.stdout is not None
    assert process.stdout.readline()
    done = run("lmtp", f"lmtp+unix://{path}", tmp_path / "out", "-n", "10", "-c", "2")
    process.terminate()
    finish(process)
    assert not path.exists()
    if lmtp:
        assert done.messages == {"accepted": 10}
        assert done.result["recipients"] == {"accepted": 30, "rejected": 0}
    else:
        assert done.result["errors"]["lhlo_refused"] == 10


def test_ipv6_address(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    process = start("sink", "--listen", f"[::1]:{port}", "--ready-json")
    assert process.stdout is not None
    assert process.stdout.readline()
    done = run("relay", f"smtp://[::1]:{port}", tmp_path, "-n", "10", "-c", "2")
    process.terminate()
    finish(process)
    assert done.messages == {"accepted": 10}


def test_self_signed_certificate(tmp_path: Path) -> None:
    process = start("sink", "--listen", "127.0.0.1:0", "--ready-json", "--self-signed", "--implicit-tls")
    assert process.stdout is not None
    assert process.stderr is not None
    port = process.stdout.readline().rpartition(":")[2].rstrip('"]}\n ')
    ca = process.stderr.readline().rpartition("--ca ")[2].strip()
    done = run("relay", f"smtps://localhost:{port}", tmp_path, "-n", "10", "-c", "2", "--ca", ca)
    process.terminate()
    finish(process)
    assert done.messages == {"accepted": 10}
    assert done.result["latency"]["tls"]["service"]["count"] == 2


def test_limits_of_connections_and_messages(tmp_path: Path) -> None:
    with sink("--max-connections", "2", "--max-messages", "5", "--max-size", "2KiB") as (port, counts):
        target = f"smtp://127.0.0.1:{port}"
        done = run("relay", target, tmp_path, "-n", "30", "-c", "4", "--size", "1KiB")
    assert done.miscounted(counts) == []
    assert done.result["errors"]["closed_421"] > 0
    assert counts["connections_peak"] <= 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--listen", "0.0.0.0:0"), "--authorized"),
        (("--listen", "127.0.0.1"), "write HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), "the port is at most 65535"),
        (("--on", "RCPT=teapot"), "unknown action"),
        (("--implicit-tls",), "--self-signed"),
        (("--user", "u"), "SMTPBENCH_SINK_PASSWORD"),
        (("--config", "/nowhere"), "no such file"),
        (("--tls-cert", "/nowhere"), "No such file"),
    ],
)
def test_wrong_options_exit_with_code_2_and_one_line(options: tuple[str, ...], text: str) -> None:
    done = smtpbench("sink", *options)
    assert done.code == 2
    assert text in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_mistakes_in_a_configuration_file_are_reported_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "sink.yaml").write_text("seed: 1\non:\n- RCPT=450\n- RCPT=teapot\n")
    done = smtpbench("sink", "--config", str(tmp_path / "sink.yaml"))
    assert done.code == 2
    assert "sink.yaml:4:3: 'RCPT=teapot': unknown action 'teapot'" in done.err
