"""A sink's behaviour from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from smtpbench.errors import UsageError


def read_behaviour(path: Path) -> dict[str, Any]:
    """The mapping a file holds; `behaviour_of` checks it. Raises UsageError."""
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: a behaviour is a mapping of on, stall, greylist and seed")
    # YAML 1.1 reads the key `on` as true
    return {"on" if key is True else str(key): value for key, value in found.items()}
