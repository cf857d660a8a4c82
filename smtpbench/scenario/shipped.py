"""Where the scenarios are that come with smtpbench. The shell's completion asks this: nothing is imported to read them."""

from __future__ import annotations

from pathlib import Path


def shipped_scenarios() -> dict[str, Path]:
    """Name → file, of the scenarios that come with smtpbench."""
    package = Path(__file__).resolve().parent.parent
    folders = (package / "scenarios", package.parent / "scenarios")  # installed, and in a checkout
    return {path.stem: path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yaml"))}
