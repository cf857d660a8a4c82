"""How a target is reached: the options that several commands have, and a file with what the options leave out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from smtpbench.errors import UsageError
from smtpbench.scenario.load import load_fixture
from smtpbench.target import Access, Trust, parse_target, read_password
from smtpbench.units import parse_duration_ns

FixtureFile = Annotated[Path | None, typer.Option(help="A file with target, recipient, sender, password-file, ca.")]
Recipient = Annotated[str, typer.Option(help="A mailbox it takes mail for.  [default: found out]")]
ReplyTimeout = Annotated[str, typer.Option(help="How long one reply may take.")]
PasswordFile = Annotated[
    Path | None, typer.Option(help="Its first line is the password; else SMTPBENCH_PASSWORD is.")
]  # fmt: skip
Ca = Annotated[Path | None, typer.Option(help="PEM file of the certificate authorities to trust.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Trust any certificate.")]
Sni = Annotated[str | None, typer.Option(help="The server name to ask for and verify.")]
Cert = Annotated[Path | None, typer.Option(help="PEM file of the client's certificate.")]
Key = Annotated[Path | None, typer.Option(help="PEM file of its key, if that is elsewhere.")]
Html = Annotated[bool, typer.Option("--html/--no-html", help="Write report.html beside the result.")]
Authorized = Annotated[bool, typer.Option("--authorized", help="You may test this host, although it is not this machine.")]


def saved_words(where: Path, html: bool) -> str:
    """What is said behind `saved:` of a result that was just written, with the report that is written beside it here."""
    if not html:
        return str(where)
    # the page's template language is imported when the measuring is over: no command that only needs options pays for it
    from smtpbench.report.html.page import report_beside

    return ", ".join(name for name in (str(where), report_beside(where)) if name)


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What `check`, `fuzz` and `replay` are told of their targets.

    trust: but for `ca` and `insecure`, which a file may say as well.
    """

    targets: list[str]
    trust: Trust
    timeout: str
    authorized: bool
    password_file: Path | None = None
    recipient: str = ""
    sender: str = ""

    def completed(self, file: Path | None) -> TargetOptions:
        """With what the file says where the options are silent. Raises UsageError where nobody names a target."""
        told = self
        if file is not None:
            found = load_fixture(file)
            trust = replace(
                self.trust,
                ca=self.trust.ca or (Path(found.ca) if found.ca else None),
                insecure=self.trust.insecure or found.insecure,
            )
            told = replace(
                self,
                targets=self.targets or ([found.target] if found.target else []),
                trust=trust,
                password_file=self.password_file or (Path(found.password_file) if found.password_file else None),
                recipient=self.recipient or found.recipient,
                sender=self.sender or found.sender,
            )
        if not told.targets:
            raise UsageError("no target is named: say --target URL, or `target: URL` in the --fixture file")
        return told

    def accesses(self, most: int | None = None) -> list[Access]:
        """How each target is reached. Raises UsageError, also for more than `most`."""
        if most is not None and len(self.targets) > most:
            raise UsageError(f"{len(self.targets)} targets are named; one is enough here, and {most} are compared")
        timeout_ns = parse_duration_ns(self.timeout)
        targets = [parse_target(url) for url in self.targets]
        return [
            Access(
                target, self.trust, read_password(self.password_file) if target.user else None, timeout_ns, self.authorized
            )
            for target in targets
        ]
