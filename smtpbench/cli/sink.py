"""`smtpbench sink`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from smtpbench.errors import UsageError
from smtpbench.measure.health import raise_descriptor_limit
from smtpbench.session.server import ServerSession
from smtpbench.session.service import Service
from smtpbench.sink.behaviour import behaviour_of
from smtpbench.sink.config import read_behaviour
from smtpbench.sink.mutants import MUTANTS
from smtpbench.sink.serve import self_signed, serve, server_tls
from smtpbench.units import parse_duration_ns, parse_size_bytes

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
    A rule is VERB=ACTION[@SHARE]. Verbs: EHLO, MAIL, RCPT, DATA … and `connect`, `message` (the final dot).
    Actions: a reply such as 450 or '550 5.7.1 no', reject, tempfail, delay:20ms, drop, reset, close, 421,
    mute, garbage, long, drip.

    \b
      smtpbench sink --listen 127.0.0.1:2525
      smtpbench sink --listen 127.0.0.1:2525 --delay RCPT=20ms --reject message=1%
      smtpbench sink --listen 127.0.0.1:2525 --on DATA=reset@1% --on EHLO=drip --stall 4s..5s
      smtpbench sink --listen 127.0.0.1:2465 --self-signed --implicit-tls
      smtpbench sink --listen unix:/tmp/lmtp.sock --lmtp
      smtpbench sink --listen 127.0.0.1:2525 --mutant eod-lf-crlf
    """
    behaviour: dict[str, Any] = read_behaviour(config) if config else {}
    rules = list(behaviour.get("on") or []) + list(on or [])
    rules += [_shorthand(text, "delay:") for text in delay or []]
    for action, texts in (("reject", reject), ("tempfail", tempfail), ("drop", drop)):
        rules += [_shorthand(text, f"{action}@") for text in texts or []]
    given = {"stall": stall, "greylist": greylist, "seed": seed or None}
    behaviour |= {"on": rules} | {key: value for key, value in given.items() if value is not None}
    if self_sign and tls_cert is None:
        tls_cert, tls_key = self_signed()
        typer.echo(f"sink: trust it with --ca {tls_cert}", err=True)
    tls = None if tls_cert is None else server_tls(tls_cert, tls_key)
    if (implicit_tls or require_tls) and tls is None:
        raise UsageError("TLS needs a certificate: give --tls-cert FILE, or --self-signed")
    users = {user: _password(password_file)} if user else {}
    if require_auth and not users:
        raise UsageError("--require-auth needs somebody who may log in: give --user")
    if mutant is not None and mutant not in MUTANTS:
        raise UsageError(f"--mutant {mutant}: there are {', '.join(sorted(MUTANTS))}")
    manners = behaviour_of(behaviour)
    service = Service(
        name=name,
        lmtp=lmtp,
        size_bytes=parse_size_bytes(max_size),
        recipients=max_recipients,
        messages=max_messages,
        users=users,
        starttls=tls is not None and not implicit_tls,
        implicit_tls=implicit_tls,
        require_tls=require_tls,
        require_auth=require_auth,
        idle_ns=parse_duration_ns(idle),
        manners=manners or None,
    )
    raise_descriptor_limit()

    def ready(addresses: list[str]) -> None:
        typer.echo(f"sink: listening on {', '.join(addresses)}; Ctrl-C ends it", err=True)
        if ready_json:
            typer.echo(json.dumps({"listening": addresses}))

    async def main() -> None:
        await serve(
            service,
            listen or ["127.0.0.1:2525"],
            tls=tls,
            connections=max_connections,
            duration_ns=None if duration is None else parse_duration_ns(duration),
            authorized=authorized,
            on_ready=ready,
            session=ServerSession if mutant is None else MUTANTS[mutant],
        )

    trio.run(main)
    typer.echo(json.dumps(service.counts.to_data(), indent=None if ready_json else 2))


def _shorthand(text: str, action: str) -> str:
    """`RCPT=20ms` as the rule that it stands for."""
    verb, equals, value = text.partition("=")
    if not equals or not value:
        raise UsageError(f"{text!r}: write VERB=VALUE, like RCPT=20ms or message=5%")
    return f"{verb}={action}{value}"


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
