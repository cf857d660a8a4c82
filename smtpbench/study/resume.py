"""Continuation of a study that was interrupted or killed, from the runs that lie in its folder.

Theory of operation
===================

A study writes the settings that decide what it measures into its result, under the key `settings`. `--resume` is given with
the command that was interrupted. It reads the result of that command from the folder, or `result.partial.json` if the
command was killed, and refuses a command with other settings. What was complete is read from the folders of the runs. What
was not complete is removed and measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from smtpbench import __version__
from smtpbench.errors import UsageError
from smtpbench.load.plan import LoadPlan
from smtpbench.measure.files import HLOG, TIMELINE
from smtpbench.measure.health import machine
from smtpbench.measure.partial import PARTIAL
from smtpbench.measure.saved import CAPACITY, COMPARISON, RESULT, RUN, load
from smtpbench.measure.server_usage import SERVER_CSV
from smtpbench.scenario.load import ScenarioFile
from smtpbench.study.progress import COMPLETED
from smtpbench.target import Access
from smtpbench.text import visible
from smtpbench.units import NS_PER_S

_NAMES: Final = {COMPARISON: "comparison", CAPACITY: "capacity search"}
_MAX_VALUE: Final = 100


def interrupted_study(folder: Path, kind: str) -> dict[str, Any] | None:
    """Return what a study has left in its folder; None if the folder holds no result.

    Args:
        folder: The folder.
        kind: COMPARISON or CAPACITY.

    Raises:
        UsageError: The study was completed, or the folder holds the result of another command.
    """
    if not any((folder / name).exists() for name in (RESULT, PARTIAL)):
        return None
    saved, name = load(folder), _NAMES[kind]
    if saved.kind != kind:
        raise UsageError(
            f"{_named(folder)}: there is no {name} to resume; the folder holds the result of a {_kind(saved.kind)}"
        )
    if saved.result["outcome"].get("status") == COMPLETED:
        raise UsageError(f"{_named(folder)}: the {name} is complete; nothing is left to resume")
    if not isinstance(saved.result.get("settings"), dict):
        raise UsageError(f"{_named(folder)}: the result does not hold the settings of the {name}, so it cannot be resumed")
    return saved.result


def continue_from(
    folder: Path, kind: str, seed: int, settings_with: Callable[[int], Mapping[str, Any]], *, keep_seed: bool
) -> tuple[dict[str, Any] | None, int]:
    """Return what `interrupted_study` does, and the seed to continue with.

    Args:
        folder: Folder of the study.
        kind: COMPARISON or CAPACITY.
        seed: Seed of the command.
        settings_with: Returns the settings of the command with a seed.
        keep_seed: Whether the user gave the seed; without that it is the one of the interrupted study.

    Raises:
        UsageError: The study is complete, has other settings, or is of another kind.
    """
    found = interrupted_study(folder, kind)
    if found is None:
        return None, seed
    if not keep_seed and isinstance(found["settings"].get("seed"), int):
        seed = found["settings"]["seed"]
    require_same_settings(found, settings_with(seed))
    return found, seed


def common_settings(file: ScenarioFile) -> dict[str, Any]:
    """Return the settings that studies of every kind have."""
    here = machine()
    return {
        "smtpbench": __version__,
        "machine": {name: here[name] for name in ("cpu", "cores")},
        "scenario": {name: value for name, value in file.to_data().items() if name in ("name", "sha256")},
    }


def target_settings(access: Access, message_bytes: int | None) -> dict[str, Any]:
    """Return the settings of a target and of the messages for it."""
    trust = access.trust
    return {
        "target": access.target.url,
        "ca": None if trust.ca is None else str(trust.ca),
        "insecure": trust.insecure,
        "sni": trust.server_name,
        "cert": None if trust.certificate is None else str(trust.certificate),
        "message_bytes": message_bytes,
    }


def load_settings(plan: LoadPlan) -> dict[str, Any]:
    """Return the settings of a load, without its seed."""
    found: dict[str, Any] = {}
    for name in (field.name for field in fields(plan) if field.name not in ("seed", "stages", "baseline_ns")):
        value = getattr(plan, name)
        found[name.replace("_ns", "_s")] = value / NS_PER_S if name.endswith("_ns") and value is not None else value
    found["stages"] = [[stage.duration_ns / NS_PER_S, stage.rate_from_per_s, stage.rate_to_per_s] for stage in plan.stages]
    return found


def require_same_settings(found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise UsageError unless an interrupted study has the settings of this command, with all that differ.

    Args:
        found: Result of the interrupted study.
        settings: Settings of this command.
    """
    before, now = dict(_flat(found["settings"])), dict(_flat(json.loads(json.dumps(settings))))
    differing = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    if differing:
        texts = [f"{visible(name)} was {_value(before.get(name))} and is {_value(now.get(name))}" for name in differing]
        raise UsageError(
            "--resume needs the options and the scenario of the interrupted command: "
            f"{'; '.join(texts)}. To measure anew, use --overwrite or another folder"
        )


def completed_run(folder: Path) -> dict[str, Any] | None:
    """Return the result of a run that was completed, or that a study ended early on purpose; None without one."""
    with suppress(UsageError, AttributeError):
        saved = load(folder)
        if saved.kind == RUN and saved.path.name == RESULT and saved.result["outcome"]["status"] in (COMPLETED, "aborted"):
            return saved.result
    return None


def remove_run(folder: Path) -> None:
    """Remove what a run has left in its folder, so that it cannot be taken for that of a later run."""
    for name in (RESULT, PARTIAL, TIMELINE, HLOG, SERVER_CSV):
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def remove_earlier_result(folder: Path) -> None:
    """Remove the result of an interrupted study once `result.partial.json` holds as much."""
    if (folder / PARTIAL).exists():
        for name in (RESULT, "report.html"):
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)


def kept_of(result: Mapping[str, Any]) -> int:
    """Return how many rounds or steps of an interrupted study a resumed one would keep."""
    return int(result["plan"]["repeats_done"]) if result["kind"] == COMPARISON else len(result["steps"])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting with its path, such as `candidates.new.connections`."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _kind(kind: str) -> str:
    return _NAMES.get(kind, kind)


def _value(value: object) -> str:
    return "not given" if value is None or value == "" else visible(json.dumps(value, ensure_ascii=False), _MAX_VALUE)


def _named(folder: Path) -> str:
    return visible(str(folder))
