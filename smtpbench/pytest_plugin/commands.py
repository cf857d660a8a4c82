"""`smtpbench run` and `smtpbench check` from within a test, each as a process of its own.

So what is measured is measured as on the command line: apart from this interpreter, from whatever loop the test runs in
and from a sink in a thread of this process. The options are the command's, with underscores: `rate="50/s"` is `--rate 50/s`,
`abort_on_fail=True` is `--abort-on-fail`, `no_html=True` is `--no-html`, and a list gives an option several times.
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
from smtpbench.measure.thresholds import Figures, sentence, value_of
from smtpbench.pytest_plugin import RUNS, SINKS, named_target
from smtpbench.report.reading.findings import counts_against
from smtpbench.target import PASSWORD_VARIABLE, Trust, parse_target, resolve
from smtpbench.threshold import parse_metric, parse_threshold

#: Options of the command line that have another name here.
_TOLD = re.compile(r"--(authorized|insecure|ca|password-file)\b")


def allowed(url: str, *, authorized: bool) -> str:
    """A target's URL; the test fails where it cannot be used, or may not be."""
    try:
        resolve(parse_target(url), None, Trust(), authorized=authorized)
    except SmtpbenchError as error:
        pytest.fail(_in_our_words(str(error)), pytrace=False)
    return url


def _in_our_words(text: str) -> str:
    return _TOLD.sub(r"--smtpbench-\1", text)


class _Command:
    """What `run` and `check` have in common: a target, and a process that ends with a result."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._request = request
        self._config = request.config
        self._folders = tmp_path_factory

    def _perform(self, command: str, arguments: Sequence[str], options: Mapping[str, Any], password: str | None) -> Saved:
        """Run it to its end; the test fails where there is no result."""
        folder = Path(options.get("out") or self._folders.mktemp(f"smtpbench-{command}"))
        told = {**self._access(options), **options, "out": folder}
        argv = [sys.executable, "-m", "smtpbench.cli.main", command, *argv_of(told), "--", *arguments]
        environment = {**os.environ, **({} if password is None else {PASSWORD_VARIABLE: password})}
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environment, check=False
        )
        if done.returncode in (UsageError.exit_code, CannotRun.exit_code) or done.returncode < 0:
            said = done.stderr.strip().removeprefix("smtpbench: ") or f"it ended with {done.returncode}"
            pytest.fail(f"smtpbench {command}: {_in_our_words(said)}", pytrace=False)
        try:
            return load(folder)
        except UsageError as error:
            pytest.fail(f"smtpbench {command} left no result: {error}\n{done.stderr.strip()}", pytrace=False)

    def _access(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The target and how to get in: pytest's options for the target that they are about, else the sink's certificate."""
        config = self._config
        target = options.get("target") or self._request.getfixturevalue("smtpbench_target")
        access: dict[str, Any] = {"target": target, "authorized": config.getoption("smtpbench_authorized")}
        if target == named_target(config):
            names = ("password_file", "ca", "insecure")
            return access | {name: config.getoption(f"smtpbench_{name}") for name in names}
        return access | {"ca": self._request.node.stash.get(SINKS, {}).get(target)}


def argv_of(options: Mapping[str, Any]) -> list[str]:
    """Options as the command line has them; None and False leave one out."""
    argv = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            argv.append(option)
        elif value is not None and value is not False:
            argv += [f"{option}={one}" for one in (value if isinstance(value, list | tuple) else [value])]
    return argv


class Measured:
    """A run's result.

    result: as `result.json` has it. folder: where that and the run's other files are.
    """

    def __init__(self, saved: Saved) -> None:
        self.result = saved.result
        self.folder = saved.folder

    def __repr__(self) -> str:
        return f"<smtpbench run {self.messages} in {self.folder}>"

    @property
    def messages(self) -> dict[str, int]:
        """How many were attempted, accepted, rejected, failed, dropped, interrupted."""
        counts: dict[str, int] = self.result["messages"]
        return counts

    def value(self, metric: str) -> float | None:
        """What was measured of a threshold's metric: `message.p99` in milliseconds, `throughput` a second, counts, and
        shares of 1 (`failed`). None where nothing was. Raises UsageError for what is no metric.
        """
        figures = Figures(totals_of(self.result), self.result["load"]["window_s"], self.result["generator"])
        return value_of(parse_metric(metric), figures)


class RunScenario(_Command):
    """The fixture `smtpbench_run`."""

    def __call__(
        self, scenario: str | os.PathLike[str], *, thresholds: Sequence[str] = (), password: str | None = None,
        **options: Any,
    ) -> Measured:  # fmt: skip
        """Run a scenario, a file's or a shipped one's name, and return what was measured.

        thresholds: what must hold, beside what the test's marker and the scenario say; where one does not, the test fails.
        password: of the target's user. options: of `smtpbench run`, by default against smtpbench_target.
        """
        item = self._request.node
        item.stash[RUNS] = item.stash.get(RUNS, 0) + 1
        wanted = [*self._marked(), *thresholds]
        for text in wanted:
            try:
                parse_threshold(text)
            except UsageError as error:
                pytest.fail(str(error), pytrace=False)
        told = {"progress": "none", **options, "threshold": wanted}
        saved = self._perform("run", [os.fspath(scenario)], told, password)
        failed = [f"did not hold: {sentence(one)}" for one in saved.result["thresholds"] if not one["passed"]]
        if failed:
            limited = saved.result["generator"]["limited_reasons"]
            notes = [f"the generator was the limit: {reason}" for reason in limited]
            pytest.fail("\n".join([*failed, *notes, f"the run is in {saved.folder}"]), pytrace=False)
        return Measured(saved)

    def _marked(self) -> list[str]:
        """The thresholds of the test's markers, the outermost first."""
        found: list[str] = []
        for marker in self._request.node.iter_markers("smtpbench"):
            thresholds = marker.kwargs.get("thresholds")
            if marker.args or set(marker.kwargs) != {"thresholds"} or not isinstance(thresholds, list | tuple):
                pytest.fail("@pytest.mark.smtpbench is written with thresholds=['message.p99 < 200ms', …]", pytrace=False)
            found = [*thresholds, *found]
        return found


class CheckTarget(_Command):
    """The fixture `smtpbench_check`."""

    def __call__(
        self, *rules: str, known: Sequence[str] = (), password: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Try rules, by default all, and return the result of `smtpbench check`; the test fails for violations.

        known: rules that the server is known to break, which do not fail the test. options: of `smtpbench check`.
        """
        saved = self._perform("check", rules, options, password)
        result = saved.result
        broken = {
            name: rule for name, rule in result["rules"].items()
            if name not in known and counts_against(rule["verdict"], rule["severity"], result["strict"])
        }  # fmt: skip
        if broken:
            repeats = {one["rule"]: one["repeat"] for one in result["findings"]}
            lines = [f"it breaks {name} ({one['section']}): {one['actual']}" for name, one in broken.items()]
            lines += [f"to repeat: {repeats[name]}" for name in broken if name in repeats]
            pytest.fail("\n".join(lines), pytrace=False)
        return result
