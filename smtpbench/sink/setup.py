"""Prepares a sink from options as users give them, on the command line and to the pytest plugin."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smtpbench.errors import UsageError
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.behaviour import Behaviour, behaviour_from
from smtpbench.sink.mutants import MUTANTS
from smtpbench.sink.serve import self_signed, server_tls
from smtpbench.text import did_you_mean
from smtpbench.units import parse_duration_ns, parse_size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkOptions:
    """Options of `smtpbench sink`, under the names of the command line; times and sizes are text, like `20ms` and `1MiB`.

    Attributes:
        behaviour: Content of a --config file: `on`, `stall`, `greylist` and `seed`.
        tls_folder: Folder for a self-signed certificate; None for a new temporary one.
    """

    lmtp: bool = False
    on: Sequence[str] = ()
    delay: Sequence[str] = ()
    reject: Sequence[str] = ()
    tempfail: Sequence[str] = ()
    drop: Sequence[str] = ()
    stall: str | None = None
    greylist: str | None = None
    behaviour: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    max_connections: int | None = None
    max_messages: int | None = None
    max_recipients: int = 1000
    max_size: str = "64MiB"
    idle: str = "5m"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    self_signed: bool = False
    tls_folder: Path | None = None
    implicit_tls: bool = False
    require_tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    require_auth: bool = False
    name: str = "sink.example"
    mutant: str | None = None


@dataclass(frozen=True, slots=True)
class SinkSetup:
    """What `serve` and `sink_running` need.

    Attributes:
        context: What all sessions share.
        tls: For STARTTLS or implicit TLS; None without TLS.
        certificate: File of the certificate, for clients to trust; None without TLS.
        max_connections: Most connections at once; None for no limit.
        session_class: Class of the sessions.
    """

    context: ServerContext
    tls: ssl.SSLContext | None
    certificate: Path | None
    max_connections: int | None
    session_class: type[ServerSession]


def sink_setup(options: SinkOptions) -> SinkSetup:
    """Check the options and prepare a sink.

    Raises:
        UsageError: An option is wrong, or contradicts another.
        CannotRun: A self-signed certificate cannot be made.
    """
    if options.mutant is not None and options.mutant not in MUTANTS:
        hint = did_you_mean(options.mutant, MUTANTS) or f"; allowed: {', '.join(sorted(MUTANTS))}"
        raise UsageError(f"--mutant {options.mutant}: unknown mutant{hint}")
    if options.require_auth and not options.user:
        raise UsageError("--require-auth needs --user, the user who may log in")
    if (options.implicit_tls or options.require_tls) and not (options.self_signed or options.tls_cert):
        raise UsageError("TLS needs a certificate: add --tls-cert FILE or --self-signed")
    faults = _behaviour(options)
    size_bytes, idle_ns = parse_size_bytes(options.max_size), parse_duration_ns(options.idle)
    certificate, key = options.tls_cert, options.tls_key
    if options.self_signed and certificate is None:
        certificate, key = self_signed(options.tls_folder)
    tls = None if certificate is None else server_tls(certificate, key)
    service = ServerContext(
        name=options.name,
        lmtp=options.lmtp,
        size_bytes=size_bytes,
        recipients=options.max_recipients,
        messages=options.max_messages,
        users={options.user: options.password or ""} if options.user else {},
        starttls=tls is not None and not options.implicit_tls,
        implicit_tls=options.implicit_tls,
        require_tls=options.require_tls,
        require_auth=options.require_auth,
        idle_ns=idle_ns,
        faults=faults or None,
    )
    session = ServerSession if options.mutant is None else MUTANTS[options.mutant]
    return SinkSetup(service, tls, certificate, options.max_connections, session)


def _behaviour(options: SinkOptions) -> Behaviour:
    behaviour_from(options.behaviour)  # check the file's part before options are added to it
    rules = [*(options.behaviour.get("on") or ()), *options.on]
    rules += [_shorthand(text, "delay:") for text in options.delay]
    for action, texts in (("reject", options.reject), ("tempfail", options.tempfail), ("drop", options.drop)):
        rules += [_shorthand(text, f"{action}@") for text in texts]
    given = {"stall": options.stall, "greylist": options.greylist, "seed": options.seed or None}
    set_options = {key: value for key, value in given.items() if value is not None}
    return behaviour_from({**options.behaviour, "on": rules, **set_options})


def _shorthand(text: str, action: str) -> str:
    """Return the rule that a shorthand option such as `RCPT=20ms` stands for."""
    verb, equals, value = text.partition("=")
    if not equals or not value:
        raise UsageError(f"{text!r}: write VERB=VALUE, like RCPT=20ms or message=5%")
    return f"{verb}={action}{value}"
