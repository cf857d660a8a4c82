"""`smtpbench run` and `smtpbench check` in a test, each as a process of its own.

A separate process measures as the command line does: apart from this interpreter, from the test's event loop, and from a
sink in a thread of this process. Options have the names of the command line, with underscores: `rate="50/s"` is
`--rate 50/s`, `abort_on_fail=True` is `--abort-on-fail`, `no_html=True` is `--no-html`. A list gives an option several
times.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from smtpbench.errors import CannotRun, SmtpbenchError, UsageError
from smtpbench.measure.saved import Saved, load, totals_of
from smtpbench.measure.thresholds import Figures, describe, value_of
from smtpbench.pytest_plugin import RUNS, SINKS, configured_target
from smtpbench.report.reading.findings import counts_against
from smtpbench.target import PASSWORD_VARIABLE, Trust, parse_target, resolve
from smtpbench.threshold import parse_metric, parse_threshold

#: Options of the command line that have another name in pytest.
_RENAMED_OPTIONS = re.compile(r"--(authorized|insecure|ca|password-file)\b")


def require_permission(url: str, *, authorized: bool) -> str:
    """Return the URL of a target; fail the test where it cannot be used, or must not be."""
    try:
        resolve(parse_target(url), None, Trust(), authorized=authorized)
    except SmtpbenchError as error:
        pytest.fail(_with_pytest_options(str(error)), pytrace=False)
    return url


def _with_pytest_options(text: str) -> str:
    """Return a message of the command line with the names that its options have in pytest."""
    return _RENAMED_OPTIONS.sub(r"--smtpbench-\1", text)


class _Command:
    """A command of smtpbench that is run against a target and leaves a result."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._request = request
        self._config = request.config
        self._folders = tmp_path_factory

    def _run(self, command: str, arguments: Sequence[str], options: Mapping[str, Any], password: str | None) -> Saved:
        """Run the command to its end and return its result; fail the test where there is none."""
        folder = Path(options.get("out") or self._folders.mktemp(f"smtpbench-{command}"))
        given = {"progress": "none", "overwrite": True, **self._access(options), **options, "out": folder}
        argv = [sys.executable, "-m", "smtpbench.cli.main", command, *argv_of(given), "--", *arguments]
        environment = {**os.environ, **({} if password is None else {PASSWORD_VARIABLE: password})}
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environment, check=False
        )
        if done.returncode in (UsageError.exit_code, CannotRun.exit_code) or done.returncode < 0:
            message = done.stderr.strip().removeprefix("smtpbench: ") or f"exit code {done.returncode}"
            pytest.fail(f"smtpbench {command}: {_with_pytest_options(message)}", pytrace=False)
        try:
            return load(folder)
        except UsageError as error:
            pytest.fail(f"smtpbench {command} left no result: {error}\n{done.stderr.strip()}", pytrace=False)

    def _access(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the target and how it is reached: by pytest's options for their target, else by the sink's certificate."""
        config = self._config
        target = options.get("target") or self._request.getfixturevalue("smtpbench_target")
        access: dict[str, Any] = {"target": target, "authorized": config.getoption("smtpbench_authorized")}
        if target == configured_target(config):
            names = ("password_file", "ca", "insecure")
            return access | {name: config.getoption(f"smtpbench_{name}") for name in names}
        return access | {"ca": self._request.node.stash.get(SINKS, {}).get(target)}


def argv_of(options: Mapping[str, Any]) -> list[str]:
    """Return options as the command line takes them; None and False leave one out."""
    argv = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            argv.append(option)
        elif value is not None and value is not False:
            argv += [f"{option}={one}" for one in (value if isinstance(value, list | tuple) else [value])]
    return argv


class Measured:
    """Result of a run.

    Attributes:
        result: Content of `result.json`.
        folder: Folder with it and the other files of the run.
    """

    def __init__(self, saved: Saved) -> None:
        self.result = saved.result
        self.folder = saved.folder

    def __repr__(self) -> str:
        return f"<smtpbench run {self.messages} in {self.folder}>"

    @property
    def messages(self) -> dict[str, int]:
        """Number of messages that were attempted, accepted, rejected, failed, dropped and interrupted."""
        counts: dict[str, int] = self.result["messages"]
        return counts

    def value(self, metric: str) -> float | None:
        """Return the value of a metric of thresholds; None where nothing was measured.

        Times such as `message.p99` are in milliseconds, `throughput` is per second, and shares such as `failed` are parts
        of 1. Raises UsageError for an unknown metric.
        """
        load = self.result["load"]
        figures = Figures(
            totals_of(self.result), load["window_s"], self.result["generator"], sending_s=load.get("sending_s"),
            closed_model=load.get("model") == "closed", server=self.result.get("server"),
        )  # fmt: skip
        return value_of(parse_metric(metric), figures)


class RunScenario(_Command):
    """Value of the fixture `smtpbench_run`."""

    def __call__(
        self, scenario: str | os.PathLike[str], *, thresholds: Sequence[str] = (), password: str | None = None,
        **options: Any,
    ) -> Measured:  # fmt: skip
        """Run a scenario and return its result; fail the test where a threshold fails.

        Args:
            scenario: Scenario file, or name of a shipped scenario.
            thresholds: Thresholds besides those of the test's markers and of the scenario.
            password: Password of the target's user.
            options: Options of `smtpbench run`; the target is smtpbench_target by default.
        """
        item = self._request.node
        item.stash[RUNS] = item.stash.get(RUNS, 0) + 1
        conditions = [*self._marker_thresholds(), *thresholds]
        for text in conditions:
            try:
                parse_threshold(text)
            except UsageError as error:
                pytest.fail(str(error), pytrace=False)
        saved = self._run("run", [os.fspath(scenario)], {**options, "threshold": conditions}, password)
        failed = [f"threshold failed: {describe(one)}" for one in saved.result["thresholds"] if not one["passed"]]
        if failed:
            limited = saved.result["generator"]["limited_reasons"]
            notes = [f"the generator was the limit: {reason}" for reason in limited]
            pytest.fail("\n".join([*failed, *notes, f"the run is in {saved.folder}"]), pytrace=False)
        return Measured(saved)

    def _marker_thresholds(self) -> list[str]:
        """Return the thresholds of the test's markers, the outermost first."""
        found: list[str] = []
        for marker in self._request.node.iter_markers("smtpbench"):
            thresholds = marker.kwargs.get("thresholds")
            if marker.args or set(marker.kwargs) != {"thresholds"} or not isinstance(thresholds, list | tuple):
                pytest.fail(
                    "@pytest.mark.smtpbench takes thresholds=['message.p99 < 200ms', …] and nothing else", pytrace=False
                )
            found = [*thresholds, *found]
        return found


class CheckTarget(_Command):
    """Value of the fixture `smtpbench_check`."""

    def __call__(
        self, *rules: str, known: Sequence[str] = (), password: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Check rules and return the result of `smtpbench check`; fail the test where one is violated.

        Args:
            rules: Names of rules; none for all.
            known: Rules that the server is known to break, which do not fail the test.
            password: Password of the target's user.
            options: Options of `smtpbench check`; the target is smtpbench_target by default.
        """
        saved = self._run("check", rules, options, password)
        result = saved.result
        violated = {
            name: rule for name, rule in result["rules"].items()
            if name not in known and counts_against(rule["verdict"], rule["severity"], result["strict"])
        }  # fmt: skip
        if violated:
            repeats = {one["rule"]: one["repeat"] for one in result["findings"]}
            lines = [f"violation of {name} ({one['section']}): {one['actual']}" for name, one in violated.items()]
            lines += [f"to repeat: {repeats[name]}" for name in violated if name in repeats]
            pytest.fail("\n".join(lines), pytrace=False)
        return result
