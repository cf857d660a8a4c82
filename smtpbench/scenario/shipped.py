"""Paths of the scenarios that come with smtpbench. Shell completion uses this, so it imports nothing else."""

from __future__ import annotations

from pathlib import Path


def shipped_scenarios() -> dict[str, Path]:
    """Return the shipped scenarios: name → path."""
    package = Path(__file__).resolve().parent.parent
    folders = (package / "scenarios", package.parent / "scenarios")  # installed, and in a checkout
    return {path.stem: path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yaml"))}
