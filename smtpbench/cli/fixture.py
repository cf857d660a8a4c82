"""What `check`, `fuzz` and `replay` are told of a target: options, and a file with what the options leave out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smtpbench.errors import UsageError
from smtpbench.scenario.load import load_fixture


@dataclass(frozen=True, slots=True)
class Told:
    """The options, completed from the file."""

    targets: list[str]
    recipient: str = ""
    sender: str = ""
    password_file: Path | None = None
    ca: Path | None = None
    insecure: bool = False

    def completed(self, file: Path | None) -> Told:
        """With what the file says where the options are silent. Raises UsageError where nobody names a target."""
        told = self
        if file is not None:
            found = load_fixture(file)
            told = Told(
                targets=self.targets or ([found.target] if found.target else []),
                recipient=self.recipient or found.recipient,
                sender=self.sender or found.sender,
                password_file=self.password_file or (Path(found.password_file) if found.password_file else None),
                ca=self.ca or (Path(found.ca) if found.ca else None),
                insecure=self.insecure or found.insecure,
            )
        if not told.targets:
            raise UsageError("no target is named: say --target URL, or `target: URL` in the --fixture file")
        return told
