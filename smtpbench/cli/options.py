"""Options that several commands have, each declared once, and a file that completes them.

`Annotated` types are single options; the dataclasses `ConnectionOptions` and `LoginOptions` are groups of options that a
command takes as one parameter (`cli.option_groups`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from smtpbench.cli.choices import option_value
from smtpbench.errors import UsageError
from smtpbench.scenario.load import load_fixture
from smtpbench.target import Access, Target, Trust, parse_target, read_password
from smtpbench.units import parse_duration_ns

ScenarioName = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="Scenario file, or name of a shipped scenario: relay, submission …")
]
Connections = Annotated[
    int | None,
    typer.Option(
        "--connections", "-c", metavar="COUNT", min=1,
        help="Connections open at the same time, at most.  [default: 10, or 100 with --rate]",
    ),
]  # fmt: skip
Messages = Annotated[
    int | None,
    typer.Option(
        "--messages", "-n", metavar="COUNT", min=1,
        help="Arrivals to send: iterations of the scenario's repeat, or sessions where it has none.",
    ),
]  # fmt: skip
Rate = Annotated[
    str | None,
    typer.Option(
        "--rate", "-r", metavar="RATE",
        help="Arrival rate, which selects the open model: 500/s, 30/m, or a ramp 10/s..500/s.  [default: closed model]",
    ),
]  # fmt: skip
Arrivals = Annotated[
    str | None,
    typer.Option(metavar="uniform|poisson", help="Spacing of arrivals in the open model.  [default: uniform]"),
]
Workers = Annotated[
    int | None, typer.Option(metavar="COUNT", min=1, max=256, help="Processes that share the load.  [default: 1]")
]
MessageSize = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Size of generated messages: 64KiB.  [default: the scenario's]")
]
_TIMEOUT_HELP = "Time limit for each wait: to connect, for one reply, for progress while a message is sent."
LoadTimeout = Annotated[str | None, typer.Option("--timeout", metavar="DURATION", help=f"{_TIMEOUT_HELP}  [default: 30s]")]
ReplyTimeout = Annotated[str, typer.Option(metavar="DURATION", help=_TIMEOUT_HELP)]
Seed = Annotated[
    int | None,
    typer.Option(metavar="NUMBER", min=0, help="Random seed; the same seed repeats the run.  [default: drawn at random]"),
]
AllowFiles = Annotated[
    bool,
    typer.Option(
        "--allow-files",
        help="Let scenarios, findings and fixtures name files outside their own folder; for files you trust.",
    ),
]
FixtureFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="YAML file with target, recipient, sender, password-file or ca for options not given."
    ),
]
Recipient = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Recipient address that the server accepts.  [default: found by trying]")
]
Recipients = Annotated[
    list[str] | None,
    typer.Option(
        "--recipient", metavar="ADDRESS",
        help="Recipient address that the server accepts; repeat it for further ones.  [default: found by trying]",
    ),
]  # fmt: skip
UnknownRecipient = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS", help="Recipient address that the server refuses.  [default: no-such-user in the same domain]"
    ),
]
Sender = Annotated[
    str,
    typer.Option(metavar="ADDRESS", help="Envelope sender (MAIL FROM).  [default: an address at sender.example]"),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", "-m", metavar="METRIC",
        help="Metric to compare: RCPT.p95, replies.RCPT.4xx.  [default: throughput, message, transaction, rejected, failed]",
    ),
]  # fmt: skip
FailIfWorse = Annotated[
    bool, typer.Option("--fail-if-worse", help="Exit with code 1 where one is worse than the first.")
]  # fmt: skip
ResultFolder = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Folder for the result.  [default: a new folder in results/]"),
]
OptionalResultFolder = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the result.  [default: it is not saved]")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a result that the folder of --out holds.")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue what was interrupted or killed, from the finished runs in the folder of --out; the other options are "
        "those of the interrupted command.",
    ),
]
Html = Annotated[bool, typer.Option("--html/--no-html", help="Write report.html beside the result.")]
Progress = Annotated[
    str,
    typer.Option(
        metavar="auto|live|plain|none",
        help="Progress on standard error: live redraws a panel, plain prints a line every few seconds, auto is live on a "
        "terminal and plain elsewhere.",
    ),
]


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How a server is reached: certificates, and permission for hosts that are not this machine.

    Attributes:
        ca: Certificates to trust; None for the system's.
        insecure: Whether any server certificate is accepted.
        sni: Server name to request and verify; None for the target's host.
        cert: Client certificate.
        key: Its private key; None where the certificate's file holds it.
        authorized: Whether the user confirmed that hosts other than this machine may be tested.
    """

    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CA certificates to trust, PEM.  [default: the system's]")
    ] = None
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept any server certificate.")] = False
    sni: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Server name to request (SNI) and to verify.  [default: the target's host]"),
    ] = None
    cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Client certificate, PEM.")] = None
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Private key of the client certificate, PEM.  [default: in the file of --cert]"),
    ] = None
    authorized: Annotated[
        bool, typer.Option("--authorized", help="Confirm that you may test a host other than this machine.")
    ] = False

    @property
    def trust(self) -> Trust:
        """The options on certificates, as the engine takes them."""
        return Trust(self.ca, self.insecure, self.sni, self.cert, self.key)

    def access_to(self, url: str, timeout: str) -> Access:
        """Return a target with everything it takes to speak to it. Raises UsageError."""
        target, timeout_ns = parse_target(url), option_value("--timeout", parse_duration_ns, timeout)
        return Access(target, self.trust, self.password_for(target), timeout_ns, self.authorized)

    def password_for(self, target: Target) -> str | None:
        """Return None: with these options alone nobody logs in."""
        return None


@dataclass(frozen=True, slots=True)
class LoginOptions(ConnectionOptions):
    """How a server is reached by a client that may log in.

    Attributes:
        password_file: File with the password of the target's user; None for the environment variable.
    """

    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File whose first line is the password of the target's user.  [default: $SMTPBENCH_PASSWORD]",
        ),
    ] = None

    def password_for(self, target: Target) -> str | None:
        """Return the password for a target with a user, and None for one without. Raises UsageError."""
        return read_password(self.password_file) if target.user else None


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """The targets of `check`, `fuzz` and `replay`.

    Attributes:
        urls: URL of each target.
        access: How they are reached.
        timeout: Time limit for each wait, such as `3s`.
        recipient: Recipient address that the server accepts; empty to try some.
        sender: Envelope sender; empty for the default.
        aliases: Further recipients that the server accepts.
        unknown_recipient: Recipient address that the server refuses; empty for the default.
    """

    urls: list[str]
    access: LoginOptions
    timeout: str
    recipient: str = ""
    sender: str = ""
    aliases: tuple[str, ...] = ()
    unknown_recipient: str = ""

    def completed(self, file: Path | None, *, allow_files: bool = False) -> TargetOptions:
        """Return these options, completed from a fixture file.

        Args:
            file: The fixture file; None for none.
            allow_files: Whether it may name files outside its folder.

        Raises:
            UsageError: Neither the options nor the file name a target.
        """
        options = self
        if file is not None:
            found = load_fixture(file, allow_files=allow_files)
            access = replace(
                self.access,
                ca=self.access.ca or (Path(found.ca) if found.ca else None),
                insecure=self.access.insecure or found.insecure,
                password_file=self.access.password_file or (Path(found.password_file) if found.password_file else None),
            )
            options = replace(
                self,
                urls=self.urls or ([found.target] if found.target else []),
                access=access,
                recipient=self.recipient or found.recipient,
                sender=self.sender or found.sender,
                aliases=self.aliases or tuple(found.aliases),
                unknown_recipient=self.unknown_recipient or found.unknown_recipient,
            )
        if not options.urls:
            raise UsageError("no target is given; add --target URL, or `target: URL` in the file of --fixture")
        return options

    def accesses(self, most: int | None = None) -> list[Access]:
        """Return how each target is reached. Raises UsageError, also for more targets than `most`."""
        if most is not None and len(self.urls) > most:
            raise UsageError(f"{len(self.urls)} targets are given; this command takes 1, or {most} to compare")
        return [self.access.access_to(url, self.timeout) for url in self.urls]
