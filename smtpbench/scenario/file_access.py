"""Which files a scenario, a fixture or a comparison may name.

Scenarios and findings come from strangers too. One that names `/etc/shadow` as a message would mail it, and a fixture could
send its first line as a password. A file therefore must lie in the folder of the file that names it, or below, symbolic
links followed, unless the user allows all files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class OutsideFolder(Exception):  # noqa: N818  (named after what it says; its text becomes a mistake in a file)
    """A file lies outside the folder of the file that names it. The text says what to do."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is outside the folder of this file; use --allow-files if you trust it with all files")


@dataclass(frozen=True, slots=True)
class FileAccess:
    """Files that may be read.

    Attributes:
        folder: Folder to which names are relative, symbolic links followed.
        anywhere: Whether files outside of it may be read too.
    """

    folder: Path
    anywhere: bool = False

    def path(self, name: str) -> Path:
        """Return the path of a file. Raises OutsideFolder."""
        path = self.folder / name
        self.check(path, name)
        return path

    def matches(self, pattern: str, limit: int) -> list[Path]:
        """Return the files that a pattern matches, in the order of their names, at most `limit` of them.

        Raises:
            OutsideFolder: One of them, or the folder in which the pattern begins, lies outside.
            ValueError: The text is not a pattern.
            NotImplementedError: Likewise.
        """
        fixed = self.check_pattern(pattern)
        base, relative = (Path("/"), pattern.lstrip("/")) if pattern.startswith("/") else (self.folder, pattern)
        files = sorted(file for file in base.glob(relative) if file.is_file())[:limit]
        for file in files:
            self.check(file, pattern if file == fixed else f"{pattern}: {file.name}")
        return files

    def check_pattern(self, pattern: str) -> Path:
        """Return the path in which a pattern begins, so that nothing outside is searched. Raises OutsideFolder."""
        fixed = self.folder
        for part in Path(pattern).parts:
            if any(character in part for character in "*?["):
                break
            fixed /= part
        self.check(fixed, pattern)
        return fixed

    def check(self, path: Path, name: str) -> None:
        """Raise OutsideFolder if a path, symbolic links followed, lies outside and must not."""
        try:
            inside = self.anywhere or path.resolve().is_relative_to(self.folder)
        except (OSError, RuntimeError, ValueError):  # a loop of symbolic links, or a NUL in the name
            inside = True  # opening it says what is wrong
        if not inside:
            raise OutsideFolder(name)
