"""Check what a page prints and nobody can run: parts of scenarios, comparison files, workflows, and options in the prose."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from docs_tools.page import Block, Page
from docs_tools.shell import ROOT

#: Inputs of the actions that the workflows of the pages use, besides smtpbench's own.
ACTIONS = {
    "actions/checkout": {"fetch-depth", "path", "ref", "repository"},
    "actions/setup-python": {"cache", "python-version"},
    "actions/upload-artifact": {"if-no-files-found", "name", "path", "retention-days"},
    "github/codeql-action/upload-sarif": {"category", "sarif_file"},
}
#: Options in the prose that belong to other programs.
OTHER_OPTIONS = {"--fork", "--junitxml", "--network", "--system-site-packages"}
_SMTPBENCH_ACTION = re.compile(r"\./|[\w-]+/smtpbench$")
_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|\b(?:src|href)=\"([^\"]+)\"")
_STEP_KEYS = {"continue-on-error", "env", "id", "if", "name", "run", "shell", "uses", "with", "working-directory"}
_SCENARIO_PARTS = {"values", "message", "load", "thresholds"}


class FragmentError(Exception):
    """What is wrong with a fragment."""


def smtpbench(*argv: str) -> str:
    """Return what a command prints.

    Raises:
        FragmentError: It fails.
    """
    done = subprocess.run([sys.executable, "-m", "smtpbench.cli.main", *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise FragmentError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


@cache
def options(command: str) -> frozenset[str]:
    """Return the options of a command, or of `smtpbench` itself where it is empty, as its help has them."""
    return frozenset(_OPTION.findall(smtpbench(*([command] if command else []), "--help")))


@cache
def commands() -> frozenset[str]:
    """Return the names of the commands."""
    listed = smtpbench("--help").partition("Commands")[2]
    return frozenset(re.findall(r"^\W*([a-z]+) {2,}", listed, re.MULTILINE)) | {"help"}


@cache
def _plugin_options() -> frozenset[str]:
    done = subprocess.run([sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=False)
    return frozenset(re.findall(r"--smtpbench-[a-z-]+", done.stdout))


def check_command_line(text: str) -> None:
    """Check that the command and the options of a `smtpbench …` line exist.

    Raises:
        FragmentError: One of them does not.
    """
    parts = [word for word in shlex.split(text.replace("…", "x"), comments=True) if not re.match(r"[A-Z_]+=", word)]
    first = parts[1] if len(parts) > 1 else "--help"
    command = "" if first.startswith("-") else first
    if command and command not in commands():
        raise FragmentError(f"`smtpbench` has no command `{command}`")
    given = {word.partition("=")[0] for word in parts[1:] if re.match(r"--?[a-z]", word)}
    if unknown := given - options("" if command == "help" else command):
        raise FragmentError(f"`smtpbench {command}` has no option {', '.join(sorted(unknown))}")


def check_block(block: Block, folder: Path) -> None:
    """Check a block that is not a console block.

    Args:
        block: The block.
        folder: Where the files of the page are.

    Raises:
        FragmentError: It is wrong, or there is nothing to check it with.
    """
    name = Path(block.title)
    if block.language == "yaml":
        _check_yaml(block, folder)
    elif block.language == "python":
        compile(block.text, block.title or "fragment", "exec")
        if not block.title:
            raise FragmentError("a Python block has a title, and a command of the page runs it")
    elif not name.name:
        raise FragmentError(f"nothing checks a block `{block.language}` without a title")


def _check_yaml(block: Block, folder: Path) -> None:
    data = yaml.safe_load(block.text)
    if isinstance(data, dict) and "jobs" in data:
        check_workflow(data)
    elif isinstance(data, list) and any(isinstance(step, dict) and {"uses", "run"} & set(step) for step in data):
        for step in data:
            _check_step(step)
    elif isinstance(data, dict) and "candidates" in data:
        jsonschema.validate(data, json.loads(smtpbench("schema", "comparison")))
    elif isinstance(data, dict) and "session" in data:
        _validate_scenario(block.text, folder)
    elif isinstance(data, list):
        _validate_scenario("session:\n" + "".join(f"  {line}\n" for line in ["- EHLO {client}", *block.lines]), folder)
    elif isinstance(data, dict) and set(data) <= _SCENARIO_PARTS:
        session = '["EHLO {client}", "MAIL FROM:<{sender}>", "RCPT TO:<{recipient}>", DATA, message]'
        _validate_scenario(f"session: {session}\n{block.text}", folder)
    elif not block.title:
        raise FragmentError("nothing checks this YAML: no scenario, comparison or workflow")


def _validate_scenario(text: str, folder: Path) -> None:
    if not re.search(r"^name:", text, re.MULTILINE):
        text = f"name: fragment\n{text}"
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="fragment-", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        smtpbench("validate", file.name)


def check_workflow(data: dict[Any, Any]) -> None:
    """Check a workflow of GitHub Actions: its jobs and steps, and the inputs of the actions it uses.

    Raises:
        FragmentError: What is wrong with it.
    """
    if not {"on", True} & set(data):  # YAML 1.1 reads the key `on` as true
        raise FragmentError("a workflow says when it runs: `on`")
    for name, job in data["jobs"].items():
        if not isinstance(job, dict) or "runs-on" not in job or not job.get("steps"):
            raise FragmentError(f"the job {name} needs `runs-on` and `steps`")
        for step in job["steps"]:
            _check_step(step)


def _check_step(step: dict[str, Any]) -> None:
    if unknown := set(step) - _STEP_KEYS:
        raise FragmentError(f"a step has no {', '.join(sorted(unknown))}")
    if len({"uses", "run"} & set(step)) != 1:
        raise FragmentError("a step has one of `uses` and `run`")
    if "run" in step:
        subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True, capture_output=True)
        return
    name, given = str(step["uses"]).partition("@")[0], dict(step.get("with", {}))
    own = bool(_SMTPBENCH_ACTION.match(name))
    allowed = _action_inputs() if own else ACTIONS.get(name)
    if allowed is None:
        raise FragmentError(f"nothing is known about the action {name}")
    if unknown := set(given) - allowed:
        raise FragmentError(f"{name} has no input {', '.join(sorted(unknown))}")
    if own:
        check_command_line(f"smtpbench {given.get('command', 'run')} {' '.join(str(given.get('args', '')).splitlines())}")


@cache
def _action_inputs() -> frozenset[str]:
    return frozenset(yaml.safe_load((ROOT / "action.yml").read_text())["inputs"])


def check_prose(page: Page) -> Iterator[str]:
    """Yield what is wrong with commands, options and links in the prose of a page."""
    for number, line in page.prose():
        for text in _INLINE.findall(line):
            try:
                if re.match(r"(\.venv/bin/)?smtpbench [a-z-]", text):
                    check_command_line(text)
                elif option := re.match(r"--[a-z][a-z-]*", text):
                    _check_option(option[0])
            except FragmentError as error:
                yield f"{page.path.name}:{number}: {error}"
        for found in _LINK.findall(line):
            link = (found[0] or found[1]).partition("#")[0]
            if link and not re.match(r"[a-z]+:", link) and not _exists(page, link):
                yield f"{page.path.name}:{number}: the link {link} leads nowhere"


def _check_option(option: str) -> None:
    known = {one for command in commands() - {"help"} for one in options(command)} | options("") | _plugin_options()
    known |= {"--no-" + one.removeprefix("--") for one in known} | OTHER_OPTIONS
    if option not in known:
        raise FragmentError(f"no command has the option {option}")


def _exists(page: Page, link: str) -> bool:
    """Whether a link leads to a file, or into the reference, which is generated with the site."""
    path = (page.path.parent / link).resolve()
    return path.exists() or (ROOT / "docs" / "reference") in path.parents
