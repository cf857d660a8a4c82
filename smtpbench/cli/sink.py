"""`smtpbench sink`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.errors import UsageError
from smtpbench.measure.health import raise_descriptor_limit
from smtpbench.sink.config import read_behaviour
from smtpbench.sink.serve import serve
from smtpbench.sink.setup import SinkOptions, set_up
from smtpbench.units import parse_duration_ns

PASSWORD_VARIABLE = "SMTPBENCH_SINK_PASSWORD"  # the variable's name, not a password


def command(
    listen: Annotated[
        list[str] | None, typer.Option("--listen", "-l", help="HOST:PORT, [IPv6]:PORT or unix:/path; port 0 is any.")
    ] = None,
    lmtp: Annotated[bool, typer.Option("--lmtp", help="Speak LMTP.")] = False,
    on: Annotated[list[str] | None, typer.Option("--on", help="A rule, VERB=ACTION[@SHARE]; see below.")] = None,
    delay: Annotated[list[str] | None, typer.Option(help="VERB=20ms, =10ms..50ms or =exp(20ms).")] = None,
    reject: Annotated[list[str] | None, typer.Option(help="VERB=5%: refuse that share with 5yz.")] = None,
    tempfail: Annotated[list[str] | None, typer.Option(help="VERB=5%: refuse that share with 4yz.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="VERB=1%: close the connection instead of a reply.")] = None,
    stall: Annotated[str | None, typer.Option(help="4s..5s: no reply in this window after the first MAIL.")] = None,
    greylist: Annotated[str | None, typer.Option(help="30s: put off each sender and recipient for so long.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with on, stall, greylist and seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="For the shares and the delays.")] = 0,
    max_connections: Annotated[int | None, typer.Option(min=1, help="421 beyond so many at once.")] = None,
    max_messages: Annotated[int | None, typer.Option(min=1, help="421 after so many on a connection.")] = None,
    max_recipients: Annotated[int, typer.Option(min=1, help="452 beyond so many of a message.")] = 1000,
    max_size: Annotated[str, typer.Option(help="552 beyond this size.")] = "64MiB",
    idle: Annotated[str, typer.Option(help="Close a connection that says nothing for so long.")] = "5m",
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate: offers STARTTLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key, if that is elsewhere.")] = None,
    self_sign: Annotated[bool, typer.Option("--self-signed", help="Make a certificate for localhost.")] = False,
    implicit_tls: Annotated[bool, typer.Option("--implicit-tls", help="TLS from the first octet.")] = False,
    require_tls: Annotated[bool, typer.Option("--require-tls", help="No MAIL without TLS.")] = False,
    user: Annotated[str | None, typer.Option(help="Offer AUTH to this user; the password as below.")] = None,
    password_file: Annotated[Path | None, typer.Option(help=f"Its first line; else {PASSWORD_VARIABLE}.")] = None,
    require_auth: Annotated[bool, typer.Option("--require-auth", help="No MAIL without AUTH.")] = False,
    name: Annotated[str, typer.Option(help="The host name it gives itself.")] = "sink.example",
    mutant: Annotated[str | None, typer.Option(help="Break this one protocol rule: see whether a checker notices.")] = None,
    duration: Annotated[str | None, typer.Option("--duration", "-d", help="End after so long.")] = None,
    authorized: Annotated[bool, typer.Option("--authorized", help="Listen on addresses that others reach.")] = False,
    ready_json: Annotated[bool, typer.Option("--ready-json", help="Say on stdout, as JSON, when it listens.")] = False,
) -> None:
    """Run a mail server that takes everything, or misbehaves on request.

    It prints what it took, as JSON, when it ends (Ctrl-C, SIGTERM or --duration).

    \b
    A rule is VERB=ACTION[@SHARE].
    Verbs: EHLO, MAIL, RCPT, DATA … and `connect`, `message` (the final dot).
    Actions: a reply such as 450 or '550 5.7.1 no', reject, tempfail, delay:20ms, drop, reset,
    close, 421, mute, garbage, long, drip,
    and serve:10ms/4: a queue before 4 workers of 10 ms each, so 400/s at most.

    \b
      smtpbench sink --listen 127.0.0.1:2525
      smtpbench sink --listen 127.0.0.1:2525 --delay RCPT=20ms --reject message=1%
      smtpbench sink --listen 127.0.0.1:2525 --on DATA=reset@1% --on EHLO=drip --stall 4s..5s
      smtpbench sink --listen 127.0.0.1:2525 --on message=serve:10ms/4
      smtpbench sink --listen 127.0.0.1:2465 --self-signed --implicit-tls
      smtpbench sink --listen unix:/tmp/lmtp.sock --lmtp
      smtpbench sink --listen 127.0.0.1:2525 --mutant eod-lf-crlf
    """
    setup = set_up(
        SinkOptions(
            lmtp=lmtp,
            on=on or (),
            delay=delay or (),
            reject=reject or (),
            tempfail=tempfail or (),
            drop=drop or (),
            stall=stall,
            greylist=greylist,
            behaviour=read_behaviour(config) if config else {},
            seed=seed,
            max_connections=max_connections,
            max_messages=max_messages,
            max_recipients=max_recipients,
            max_size=max_size,
            idle=idle,
            tls_cert=tls_cert,
            tls_key=tls_key,
            self_signed=self_sign,
            implicit_tls=implicit_tls,
            require_tls=require_tls,
            user=user,
            password=_password(password_file) if user else None,
            require_auth=require_auth,
            name=name,
            mutant=mutant,
        )
    )
    duration_ns = None if duration is None else parse_duration_ns(duration)
    if self_sign and tls_cert is None:
        typer.echo(f"sink: trust it with --ca {setup.certificate}", err=True)
    raise_descriptor_limit()

    def ready(addresses: list[str]) -> None:
        typer.echo(f"sink: listening on {', '.join(addresses)}; Ctrl-C ends it", err=True)
        if ready_json:
            typer.echo(json.dumps({"listening": addresses}))

    async def main() -> None:
        await serve(
            setup.service,
            listen or ["127.0.0.1:2525"],
            tls=setup.tls,
            connections=setup.connections,
            duration_ns=duration_ns,
            authorized=authorized,
            on_ready=ready,
            session=setup.session,
        )

    trio.run(main)
    typer.echo(json.dumps(setup.service.counts.to_data(), indent=None if ready_json else 2))


def _password(file: Path | None) -> str:
    if file is None:
        password = os.environ.get(PASSWORD_VARIABLE)
        if not password:
            raise UsageError(f"--user needs a password: --password-file FILE, or the variable {PASSWORD_VARIABLE}")
        return password
    try:
        return file.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        raise UsageError(f"password file {file}: its first line cannot be read") from None
