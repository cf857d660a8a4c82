"""The GitHub action: its steps, run by bash as a runner runs them, against a sink."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from junitparser import JUnitXml
from runner import sink

ROOT = Path(__file__).resolve().parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
_EXPRESSION = re.compile(r"\$\{\{ ([^}]+) \}\}")
#: How a runner calls `shell: bash`. Source: "Workflow syntax for GitHub Actions", on jobs.<job_id>.steps[*].shell.
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")


@dataclass
class Job:
    """A job that runs steps of the action, with its log, exit code and outputs."""

    temp: Path
    folder: Path
    log: str = ""
    code: int = 0
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        file = self.folder / "summary.md"
        return file.read_text() if file.exists() else ""

    def run(self, steps: list[dict[str, Any]], **inputs: str) -> Job:
        """Run steps like a runner; input names have underscores here."""
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert set(given) <= set(ACTION["inputs"])
        values = {f"inputs.{name}": given.get(name, one["default"]) for name, one in ACTION["inputs"].items()}
        values["github.action_path"] = str(ROOT)
        for step in steps:
            if self.code and step.get("if") != "always()":
                continue
            self._step(step, values)
        for name, one in ACTION["outputs"].items():
            self.outputs[name] = self._fill(one["value"], values)
        return self

    def _step(self, step: dict[str, Any], values: dict[str, str]) -> None:
        output = self.folder / "output.txt"
        output.write_text("")
        script = self.folder / "step.sh"
        script.write_text(step["run"])
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md")}
        env = os.environ | files | {"RUNNER_TEMP": str(self.temp), "GITHUB_ACTIONS": "true"}
        env |= {name: self._fill(value, values) for name, value in step["env"].items()}
        done = subprocess.run(
            [*BASH, str(script)], cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        self.log += done.stdout
        self.code = self.code or done.returncode
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            values[f"steps.{step['id']}.outputs.{name}"] = value

    @staticmethod
    def _fill(text: str, values: dict[str, str]) -> str:
        return _EXPRESSION.sub(lambda found: values.get(found[1], "" if found[1].startswith("steps.") else "?"), text)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUNNER_TEMP after the action's own installation."""
    job = Job(tmp_path_factory.mktemp("runner"), tmp_path_factory.mktemp("install"))
    job.run(STEPS[:1], python=sys.executable)
    assert job.code == 0, job.log
    assert re.search(r"^smtpbench \d", job.log, re.MULTILINE)
    return job.temp


@pytest.fixture
def job(installed: Path, tmp_path: Path) -> Job:
    return Job(installed, tmp_path)


def test_inputs_are_not_part_of_a_script() -> None:
    assert all("${{" not in step["run"] for step in STEPS)
    assert all(step["shell"] == "bash" for step in STEPS)
    used = {name for step in STEPS for value in step["env"].values() for name in _EXPRESSION.findall(value)}
    assert {name.removeprefix("inputs.") for name in used if name.startswith("inputs.")} == set(ACTION["inputs"])


def test_action_has_the_form_that_github_reads() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert {"name", "description", "inputs", "outputs", "runs"} <= set(ACTION)
    for one in ACTION["inputs"].values():
        assert isinstance(one["description"], str)
        assert isinstance(one["default"], str)
    ids = {step.get("id") for step in STEPS}
    assert {found[1] for one in ACTION["outputs"].values() for found in re.finditer(r"steps\.(\w+)\.", one["value"])} <= ids


def test_result_of_an_earlier_step_is_replaced(job: Job) -> None:
    with sink() as (port, _):
        for count in ("3", "4"):
            job.run(
                STEPS, scenario="relay", target=f"smtp://127.0.0.1:{port}", args=f"-n {count} --no-html", summary="false"
            )
            assert job.code == 0, job.log
    result = json.loads((job.folder / "smtpbench-results" / "result.json").read_text())
    assert result["messages"]["accepted"] == 4


def test_run_writes_its_reports(job: Job) -> None:
    with sink() as (port, counts):
        job.run(
            STEPS, scenario="relay", target=f"smtp://127.0.0.1:{port}",
            args="-c 2 --messages 20  # not many\n--warmup '0s'", thresholds="accepted == 20\n\n  message.p99 < 30s\n",
            junit="reports/junit.xml", sarif="smtpbench.sarif", markdown="run report.md",
            html="run.html",
        )  # fmt: skip
    assert job.code == 0, job.log
    assert job.outputs == {"exit-code": "0", "out": "smtpbench-results"}
    assert counts["messages"]["accepted"] == 20
    assert "could not be written" not in job.log
    suites = JUnitXml.fromfile(str(job.folder / "reports/junit.xml"))
    assert (suites.failures, suites.errors) == (0, 0)
    for name in ("smtpbench-results/result.json", "smtpbench.sarif", "run report.md", "run.html"):
        assert (job.folder / name).stat().st_size
    assert "20" in job.summary


def test_failed_threshold_fails_the_job_and_is_reported(job: Job) -> None:
    with sink() as (port, _):
        job.run(STEPS, scenario="relay", target=f"smtp://127.0.0.1:{port}", args="-n 5", thresholds="accepted > 5",
                junit="junit.xml")  # fmt: skip
    assert (job.code, job.outputs["exit-code"]) == (99, "99"), job.log
    assert JUnitXml.fromfile(str(job.folder / "junit.xml")).failures == 1
    assert re.search(r"^::error", job.log, re.MULTILINE)
    assert "accepted > 5" in job.summary


def test_check_takes_rules_from_args(job: Job) -> None:
    with sink("--mutant", "eod-lf-lf") as (port, _):
        target = f"smtp://127.0.0.1:{port}"
        job.run(STEPS, command="check", target=target, args="eod-lf-lf", summary="false", sarif="x.sarif")
    assert job.code == 1, job.log
    assert "eod-lf-lf" in (job.folder / "x.sarif").read_text()
    assert job.summary == ""


def test_thresholds_are_the_objectives_of_capacity(job: Job) -> None:
    args = "--from 50/s --max-rate 50/s --step 400ms --warmup 100ms --precision 50%"
    with sink() as (port, _):
        target = f"smtp://127.0.0.1:{port}"
        job.run(STEPS, command="capacity", scenario="relay", target=target, args=args, thresholds="message.p99 < 30s")
    assert job.code == 0, job.log
    assert "message.p99 < 30s" in (job.folder / "smtpbench-results/result.json").read_text()
    assert "could not be written" not in job.log


def test_server_text_is_not_a_workflow_command(job: Job) -> None:
    with sink("--name", "\n::set-output name=x::y") as (port, _):
        job.run(STEPS[1:], scenario="relay", target=f"smtp://127.0.0.1:{port}", args="-n 1 -d 5s", summary="false")
    begin = re.search(r"^::stop-commands::([0-9a-f]{32})$", job.log, re.MULTILINE)
    assert begin
    before, _, rest = job.log.partition(begin[0])
    printed, _, after = rest.partition(f"\n::{begin[1]}::\n")
    assert "attempted" in printed
    assert "\n::" not in before + after


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("command", "scenario", "target", "args", "thresholds", "out", "junit", "summary")
        for value in ("$(touch pwned)`touch pwned`", "\"; touch pwned; '; touch pwned; #\ntouch pwned\n")
    ],
)
def test_inputs_are_not_executed(job: Job, name: str, value: str) -> None:
    inputs = {"scenario": "relay", "target": "smtp://127.0.0.1:1", "args": "-n 1", "summary": "false"} | {name: value}
    job.run(STEPS[1:], **inputs)
    assert not list(job.folder.rglob("pwned"))
    assert job.code in (2, 3)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"command": "sink"}, "input command: allowed are run, check, fuzz, compare, capacity"),
        ({"args": "--rate '5/s"}, "a quotation mark is not closed"),
        ({"out": ""}, "input out: the name of a folder"),
    ],
)
def test_invalid_input_is_exit_code_2(job: Job, inputs: dict[str, str], message: str) -> None:
    job.run(STEPS[1:], **({"scenario": "relay", "target": "smtp://127.0.0.1:1"} | inputs))
    assert (job.code, job.outputs["exit-code"]) == (2, "2")
    assert re.search(f"^::error title=smtpbench::.*{message}", job.log, re.MULTILINE)


def test_result_of_an_earlier_run_is_not_reported(job: Job) -> None:
    with sink() as (port, _):
        job.run(STEPS[1:], scenario="relay", target=f"smtp://127.0.0.1:{port}", args="-n 2", summary="false")
    assert job.code == 0
    job.run(STEPS[1:], scenario="nowhere", target="smtp://127.0.0.1:1", junit="junit.xml")
    assert job.code == 2
    assert not (job.folder / "junit.xml").exists()
    assert "no result to report" in job.log


def test_too_old_python_is_reported(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    job = Job(tmp_path / "temp", tmp_path).run(STEPS, python=str(old))
    assert job.code == 2
    assert "::error title=smtpbench::Python 3.11 or newer" in job.log


LOGIN = """\
session:
  - EHLO {client}
  - AUTH PLAIN
  - MAIL FROM:<{sender}>
  - RCPT TO:<{recipient}>
  - DATA
  - message
  - QUIT
"""


def test_password_is_used_for_the_login_alone(job: Job) -> None:
    with sink("--user", "u", "--require-auth", SMTPBENCH_SINK_PASSWORD="s3cret word") as (port, counts):
        (job.folder / "login.yaml").write_text(LOGIN)
        target = f"smtp://u@127.0.0.1:{port}"
        job.run(STEPS[1:], scenario="login.yaml", target=target, args="-n 3 -c 1", password="s3cret word", summary="false")
    assert job.code == 0, job.log
    assert counts["auth"]["ok"] >= 3
    assert "s3cret" not in job.log
