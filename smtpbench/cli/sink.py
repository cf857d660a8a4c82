"""`smtpbench sink`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import trio
import typer

from smtpbench.cli.choices import option_value
from smtpbench.cli.help import HelpSection
from smtpbench.errors import UsageError
from smtpbench.measure.health import raise_descriptor_limit
from smtpbench.scenario.sink_config import load_sink_config
from smtpbench.sink.behaviour import ACTIONS, VERBS, parse_rule
from smtpbench.sink.serve import serve
from smtpbench.sink.setup import SinkOptions, sink_setup
from smtpbench.units import parse_duration_ns

PASSWORD_VARIABLE = "SMTPBENCH_SINK_PASSWORD"  # the variable's name, not a password


HELP_SECTIONS = (
    HelpSection(
        "Verbs of a rule",
        [
            ("connect", "the greeting"),
            ("message", "the reply to the end of a message"),
            ("a command", f"the reply to it: {', '.join(verb for verb in VERBS if verb.isupper())}"),
        ],
    ),
    HelpSection("Actions of a rule", [(name, text.replace("`", "")) for name, text in ACTIONS.items()]),
)


def command(
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            "-l",
            metavar="ADDRESS",
            help="Address to listen on: HOST:PORT, [IPv6]:PORT or unix:/path; port 0 takes a free one.  "
            "[default: 127.0.0.1:2525]",
        ),
    ] = None,
    lmtp: Annotated[bool, typer.Option("--lmtp", help="Speak LMTP instead of SMTP.")] = False,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="RULE", help="Rule VERB=ACTION[@SHARE]: what to do instead of the usual reply."),
    ] = None,
    delay: Annotated[
        list[str] | None,
        typer.Option(metavar="VERB=DURATION", help="Delay of replies: RCPT=20ms, RCPT=10ms..50ms or RCPT=exp(20ms)."),
    ] = None,
    reject: Annotated[
        list[str] | None, typer.Option(metavar="VERB=SHARE", help="Share of replies that refuse with 5yz: message=5%.")
    ] = None,
    tempfail: Annotated[
        list[str] | None, typer.Option(metavar="VERB=SHARE", help="Share of replies that refuse with 4yz: message=5%.")
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="VERB=SHARE", help="Share of replies in whose place the connection is closed: DATA=1%."),
    ] = None,
    stall: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION..DURATION",
            help="Window after the first MAIL in which no reply is sent: 4s..5s.  [default: none]",
        ),
    ] = None,
    greylist: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Time for which each new pair of sender and recipient is answered 450.  [default: none]"
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML file with on, stall, greylist and seed.  [default: none]")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Random seed of shares and delays.")] = 0,
    max_connections: Annotated[
        int | None,
        typer.Option(metavar="COUNT", min=1, help="Connections at the same time; 421 for one more.  [default: no limit]"),
    ] = None,
    max_messages: Annotated[
        int | None,
        typer.Option(metavar="COUNT", min=1, help="Messages on one connection; 421 for one more.  [default: no limit]"),
    ] = None,
    max_recipients: Annotated[
        int, typer.Option(metavar="COUNT", min=1, help="Recipients of one message; 452 for one more.")
    ] = 1000,
    max_size: Annotated[str, typer.Option(metavar="SIZE", help="Size of a message; 552 for a larger one.")] = "64MiB",
    idle: Annotated[
        str, typer.Option(metavar="DURATION", help="Time without a command after which a connection is closed.")
    ] = "5m",
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate, PEM, which makes STARTTLS available.  [default: no TLS]"),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Private key of the certificate, PEM.  [default: in the file of --tls-cert]"),
    ] = None,
    self_sign: Annotated[bool, typer.Option("--self-signed", help="Make a self-signed certificate for localhost.")] = False,
    implicit_tls: Annotated[
        bool, typer.Option("--implicit-tls", help="Start TLS with the connection, before the greeting.")
    ] = False,
    require_tls: Annotated[bool, typer.Option("--require-tls", help="Refuse MAIL without TLS.")] = False,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="User who may log in, which makes AUTH available.  [default: no AUTH]")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"File whose first line is the user's password.  [default: ${PASSWORD_VARIABLE}]"),
    ] = None,
    require_auth: Annotated[bool, typer.Option("--require-auth", help="Refuse MAIL without a login.")] = False,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Host name in the greeting and in the reply to EHLO.")
    ] = "sink.example",
    mutant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Protocol rule to break, to see whether a checker notices; `smtpbench rules` lists them.  [default: none]",
        ),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option("--duration", "-d", metavar="DURATION", help="Time after which the sink ends.  [default: no limit]"),
    ] = None,
    authorized: Annotated[
        bool, typer.Option("--authorized", help="Confirm listening on an address that other machines reach.")
    ] = False,
    ready_json: Annotated[
        bool, typer.Option("--ready-json", help="Print the addresses as a line of JSON as soon as the sink listens.")
    ] = False,
) -> None:
    """Run a test mail server that accepts everything, or misbehaves on request.

    It ends with Ctrl-C, SIGTERM or --duration, and then prints what it counted, as JSON.

    A rule of --on is VERB=ACTION[@SHARE]: at replies of this verb, this action, on this share of occasions, drawn with
    --seed; without a share always. Verbs and actions are listed below the options.

    \b
    A server that accepts everything:
      smtpbench sink --listen 127.0.0.1:2525
    Slow at RCPT, and refusing one message in a hundred:
      smtpbench sink --listen 127.0.0.1:2525 --delay RCPT=20ms --reject message=1%
    With broken connections, octets that drip, and a stall:
      smtpbench sink --listen 127.0.0.1:2525 --on DATA=reset@1% --on EHLO=drip --stall 4s..5s
    With a capacity of 400 messages a second: 4 workers that take 10 ms each:
      smtpbench sink --listen 127.0.0.1:2525 --on message=serve:10ms/4
    TLS from the first octet:
      smtpbench sink --listen 127.0.0.1:2465 --self-signed --implicit-tls
    LMTP on a Unix socket:
      smtpbench sink --listen unix:/tmp/lmtp.sock --lmtp
    A server that breaks one protocol rule:
      smtpbench sink --listen 127.0.0.1:2525 --mutant eod-lf-crlf
    """
    setup = sink_setup(
        SinkOptions(
            lmtp=lmtp,
            on=on or (),
            delay=delay or (),
            reject=reject or (),
            tempfail=tempfail or (),
            drop=drop or (),
            stall=stall,
            greylist=greylist,
            behaviour=load_sink_config(config, parse_rule) if config else {},
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
    duration_ns = None if duration is None else option_value("--duration", parse_duration_ns, duration)
    if self_sign and tls_cert is None:
        typer.echo(f"sink: clients trust its certificate with --ca {setup.certificate}", err=True)
    raise_descriptor_limit()

    def ready(addresses: list[str]) -> None:
        typer.echo(f"sink: listening on {', '.join(addresses)}; Ctrl-C ends it", err=True)
        if ready_json:
            typer.echo(json.dumps({"listening": addresses}))

    async def main() -> None:
        await serve(
            setup.context,
            listen or ["127.0.0.1:2525"],
            tls=setup.tls,
            max_connections=setup.max_connections,
            duration_ns=duration_ns,
            authorized=authorized,
            on_ready=ready,
            session_class=setup.session_class,
        )

    trio.run(main)
    typer.echo(json.dumps(setup.context.counts.to_data(), indent=None if ready_json else 2))


def _password(file: Path | None) -> str:
    if file is None:
        password = os.environ.get(PASSWORD_VARIABLE)
        if not password:
            raise UsageError(f"--user needs a password; add --password-file FILE, or set the variable {PASSWORD_VARIABLE}")
        return password
    try:
        return file.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        raise UsageError(f"password file {file}: its first line, the password, cannot be read") from None
