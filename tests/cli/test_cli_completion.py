"""Completion: what is offered, how each shell is told, and real shells."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import servers

from smtpbench.cli import completion, exit_codes
from smtpbench.cli.choices import ARRIVALS, PROGRESS
from smtpbench.cli.completion import CommandLine, answer_line, install, parse_line
from smtpbench.cli.completion_values import SHELLS, CompletionValue, completion_values
from smtpbench.cli.declared_options import declared_options
from smtpbench.cli.main import COMMANDS, call, load
from smtpbench.errors import CannotRun, UsageError
from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.profiles import PROFILES
from smtpbench.rules.register import BY_NAME
from smtpbench.scenario.shipped import shipped_scenarios
from smtpbench.sink.mutants import MUTANTS
from smtpbench.threshold import METRIC_NAMES, parse_metric

BREAKS = " \t\n\"'@><=;|&(:"
HEAVY = {"trio", "hypothesis", "pydantic", "yaml", "rich", "markupsafe", "hdrh"}


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_offered_once_unless_repeatable_read_from_the_source_are_those_of_typer(command: str) -> None:
    found = {(one.name, one.kind == "flag", one.repeatable, one.help): set(one.names) for one in declared_options(command)}
    wanted: dict[Any, set[str]] = {}
    for parameter in load(command).params:
        if parameter.name != "help":
            flag, repeated = bool(getattr(parameter, "is_flag", False)), parameter.type_descriptor.is_list
            names = {*parameter.opts, *parameter.secondary_opts} if parameter.param_type_name == "option" else set()
            wanted[parameter.name, flag, repeated, parameter.help] = names
    assert found == wanted


def test_command_without_a_source_has_no_options() -> None:
    assert declared_options("nonsense") == []


def texts(line: str) -> list[str] | None:
    """What may come next on this line."""
    parsed = parse_line(f"smtpbench {line}")
    found = completion_values(parsed.preceding, parsed.incomplete, COMMANDS)
    return None if found is None else [word.text for word in found]


def test_commands_rules_and_mutants_are_offered() -> None:
    assert texts("") == [*COMMANDS, "help"]
    assert texts("ru") == ["run", "rules"]
    assert texts("help ru") == ["run", "rules"]
    assert texts("help run ") == []
    assert texts("--v") == ["--version"]
    assert texts("--show-completion ") == list(SHELLS)
    assert texts("rules ") == texts("check ") == list(BY_NAME)
    assert texts("check one-rule eod-lf-c") == ["eod-lf-crlf"]
    assert texts("rules eod-lf-crlf ") == []
    assert texts("sink --mutant ") == sorted(MUTANTS)
    assert texts("schema res") == ["result"]
    assert texts("nonsense ") == []


def test_options_are_offered_once_unless_repeatable() -> None:
    everything = texts("run relay --")
    assert everything is not None
    assert {"--target", "--progress", "--help"} < set(everything)
    assert texts("run relay --targ") == texts("run --targ") == ["--target"]
    assert texts("run relay -t smtp://127.0.0.1 --targ") == []  # it is there already
    assert texts("run relay --threshold 'failed<1%' --thres") == ["--threshold"]  # which may be repeated
    assert texts("check -- --") == []
    assert texts("compare relay --no-c") == ["--no-check"]


def test_values_of_options_are_offered() -> None:
    assert texts("run relay --progress ") == list(PROGRESS)
    assert texts("run relay --progress=l") == ["--progress=live"]
    assert texts("run relay --nonsense=l") == []
    assert texts("run relay --arrivals ") == list(ARRIVALS)
    assert texts("run relay --when-busy w") == ["wait"]
    assert texts("fuzz relay --profile ") == list(PROFILES)
    assert texts("fuzz relay --only ") == list(FAMILIES)
    assert texts("fuzz relay --only end,dots,s") == ["end,dots,segment", "end,dots,sasl"]
    assert texts("fuzz relay --only end,en") == []
    assert texts("diff a b --metric thr") == ["throughput"]
    assert texts("run relay --threshold message.p99") == ["message.p99", "message.p99.9"]
    assert texts("capacity relay --slo message.p99") == ["message.p99", "message.p99.9"]
    assert texts("report x --slot me") == ["message"]
    assert texts("report x --time s") == ["service"]
    assert texts("sink --on RC") == texts("sink --delay RC") == ["RCPT="]
    assert texts("run relay -t ") == ["smtp://", "smtps://", "lmtp://", "lmtp+unix:///"]
    assert texts("run relay -t smtp") == ["smtp://", "smtps://"]
    assert texts("compare relay --target new=lmtp:") == ["new=lmtp://"]
    assert texts("run relay --rate ") == []
    assert texts("run relay --ca ") is texts("run relay --ca=x") is texts("replay x") is None
    assert texts("run -t smtp://127.0.0.1:25 -c 5 relay ") == []


def test_metric_names_are_metrics() -> None:
    assert [parse_metric(name).text for name in METRIC_NAMES] == list(METRIC_NAMES)


def test_scenarios_and_their_files_are_offered(here: Path) -> None:
    (here / "mine.yaml").touch()
    (here / "mail.txt").touch()
    (here / ".hidden.yaml").touch()
    (here / "more" / "deep").mkdir(parents=True)
    (here / "more" / "other one.yml").touch()
    shipped = list(shipped_scenarios())
    for command in ("run", "fuzz", "validate", "validate relay", "demo", "compare"):
        assert texts(f"{command} ") == [*shipped, "mine.yaml", "more/"]
    assert texts("run mi") == ["mixed-sizes", "mine.yaml"]
    assert texts("run more/") == ["more/deep/", "more/other one.yml"]
    assert texts("run .h") == [".hidden.yaml"]
    assert texts("run none/") == []
    command_output = completion_values(["run"], "relay", COMMANDS)
    assert command_output is not None
    assert "as a relay does" in command_output[0].description


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("smtpbench", CommandLine([], "", False)),
        ("smtpbench ", CommandLine([], "", False)),
        ("X=1 ./bin/smtpbench run re", CommandLine(["run"], "re", False)),
        ("smtpbench run 'a b' ", CommandLine(["run", "a b"], "", False)),
        ("smtpbench run 'a b", CommandLine(["run"], "a b", True)),
        ("smtpbench run a\\ b", CommandLine(["run"], "a b", False)),
        ("smtpbench run a\\", CommandLine(["run"], "a", True)),
        ("smtpbench run #", CommandLine(["run"], "#", False)),
        ("", CommandLine([], "", False)),
    ],
)
def test_unfinished_lines_are_parsed(line: str, parsed: CommandLine) -> None:
    assert parse_line(line) == parsed


@pytest.mark.parametrize(
    ("text", "incomplete", "finished", "bash"),
    [
        ("relay", "re", True, "relay "),
        ("more/", "m", False, "more/"),
        ("smtp://", "smtp", False, "smtp://"),
        ("smtp://", "smtp:", False, "//"),
        ("--progress=live", "--progress=l", True, "live "),
        ("new=lmtp://", "new=lmtp:", False, "//"),
        ("a b$.yaml", "a", True, "a\\ b\\$.yaml "),
    ],
)
def test_bash_gets_the_part_after_the_last_break(text: str, incomplete: str, finished: bool, bash: str) -> None:
    word = CompletionValue(text, "x\ny", finished)
    assert answer_line(word, CommandLine([], incomplete, False), "bash", BREAKS) == bash
    assert answer_line(word, CommandLine([], incomplete, True), "bash", BREAKS) == text
    assert answer_line(word, CommandLine([], incomplete, False), "zsh") == f"{text}{' ' if finished else ''}\tx y"
    assert answer_line(word, CommandLine([], incomplete, False), "fish") == f"{text}\tx y"


@pytest.mark.parametrize(
    "line", ["smtpbench ", "smtpbench run re", "smtpbench run relay --t", "smtpbench rules ", "smtpbench fuzz relay --only "]
)
def test_completion_imports_no_slow_module(line: str) -> None:
    assert imported(line, _SMTPBENCH_COMPLETE="zsh") & HEAVY == set()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), ("help",), ("--show-completion", "zsh")])
def test_help_imports_no_slow_module(arguments: tuple[str, ...]) -> None:
    modules = imported(*arguments)
    assert modules & HEAVY == set()
    assert {name for name in modules if name.startswith("smtpbench.")} <= {
        "smtpbench.cli", "smtpbench.errors", "smtpbench.text",
        *(f"smtpbench.cli.{name}" for name in ("main", "exit_codes", "completion", "completion_values", "help")),
        *(f"smtpbench.cli.{name}" for name in ("declared_options", "choices", "option_groups")),
    }  # fmt: skip


def imported(*arguments: str, **env: str) -> set[str]:
    """The modules that a call of the command line imports."""
    program = (
        "import sys\nfrom smtpbench.cli.main import main\n"
        "try: main()\nfinally: print('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )
    return set(done.stderr.splitlines()[-1].split())


def test_script_is_that_of_the_users_shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in SHELLS:
        monkeypatch.setattr(completion, "_users_shell", lambda shell=shell: shell)
        assert exit_codes.exit_code_of(lambda: call(["--show-completion"])) == 0
        assert capsys.readouterr().out == completion.SCRIPTS[shell]
    monkeypatch.setattr(completion, "_users_shell", lambda: "")
    assert exit_codes.exit_code_of(lambda: call(["--install-completion"])) == 2
    assert "allowed are bash, zsh, fish" in capsys.readouterr().err
    with pytest.raises(UsageError, match="did you mean zsh"):
        completion.script_of("zhs")


@pytest.mark.parametrize(
    ("shell", "script", "settings"),
    [
        ("bash", ".local/share/smtpbench/completion.bash", ".bashrc"),
        ("zsh", ".local/share/smtpbench/completion.zsh", ".zshrc"),
        ("fish", ".config/fish/completions/smtpbench.fish", ""),
    ],
)
def test_installing_twice_adds_one_line(
    shell: str, script: str, settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(variable, raising=False)
    if settings:
        (tmp_path / settings).write_text("alias ll='ls -l'")
    servers.need(shell)
    expected = [tmp_path / script, *([tmp_path / settings] if settings else [])]
    assert install(shell, tmp_path) == (shell, expected)
    assert install(shell, tmp_path) == (shell, expected[:1])
    assert (tmp_path / script).read_text() == completion.SCRIPTS[shell]
    if settings:
        first, line = (tmp_path / settings).read_text().splitlines()
        assert first == "alias ll='ls -l'"
        assert str(tmp_path / script) in line
        (tmp_path / script).unlink()
        assert subprocess.run([shell, "-c", line], check=True, capture_output=True).stderr == b""


def test_unwritable_home_is_reported(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(CannotRun, match=r"the completion cannot be installed: .*home"):
        install("fish", tmp_path / "home")


@pytest.fixture
def bench(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `smtpbench` that completes, and otherwise says how it was called."""
    root = Path(__file__).resolve().parents[2]
    program = here / "bin" / "smtpbench"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
[ -z "$_SMTPBENCH_COMPLETE" ] || PYTHONPATH={root} exec {sys.executable} -m smtpbench.cli.main "$@"
printf 'called:'; printf '<%s>' "$@"; echo
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("TERM", "dumb")
    (here / "my scenario.yaml").touch()
    (here / "cert file.pem").touch()
    for shell in SHELLS:
        (here / f"completion.{shell}").write_text(completion.SCRIPTS[shell])
    return here


class Terminal:
    """A shell on a pseudo-terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = ""

    def line(self, text: str) -> str:
        """Type a line, and give back what is printed until the next prompt."""
        os.write(self._descriptor, text.encode() + b"\n")
        return self.until("READY>")

    def until(self, text: str) -> str:
        """What is printed up to this text."""
        while text not in self._seen:
            ready, _, _ = select.select([self._descriptor], [], [], 60)
            assert ready, f"{text!r} does not come after {self._seen!r}"
            self._seen += os.read(self._descriptor, 65536).decode(errors="replace")
        before, _, self._seen = self._seen.partition(text)
        return before


@contextmanager
def terminal(*command: str) -> Iterator[Terminal]:
    """Start a shell; its prompt is `READY>`."""
    executable = shutil.which(command[0])
    assert executable is not None
    process, descriptor = pty.fork()
    if not process:
        os.execv(executable, command)
    shell = Terminal(descriptor)
    try:
        shell.line("PS1='REA''DY>'")
        yield shell
    finally:
        os.close(descriptor)  # it hangs up
        os.waitpid(process, 0)


TYPED = [
    ("smtpbench run rela\t--progress=l\t", "<run><relay><--progress=live>"),
    ("smtpbench rul\teod-lf-c\t", "<rules><eod-lf-crlf>"),
    ("smtpbench run relay --targ\tlmtp+\tx", "<run><relay><--target><lmtp+unix:///x>"),
    ("smtpbench run relay --target=lmtp:\tx", "<run><relay><--target=lmtp://x>"),
    ("smtpbench validate my\t", "<validate><my scenario.yaml>"),
    ("smtpbench run relay --ca cert\t-n 1", "<run><relay><--ca><cert file.pem><-n><1>"),
    ("true; X=1 smtpbench fuzz relay --only end,do\t", "<fuzz><relay><--only><end,dots>"),
]


def test_bash_completes(bench: Path) -> None:
    with terminal("bash", "--norc", "--noprofile", "-i") as shell:
        shell.line("bind 'set enable-bracketed-paste off'; . ./completion.bash")
        for typed, called in TYPED:
            assert f"called:{called}" in shell.line(typed)


def test_zsh_completes(bench: Path) -> None:
    servers.need("zsh")
    with terminal("zsh", "-f", "-i") as shell:
        shell.line("unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -d ./dump; . ./completion.zsh")
        for typed, called in TYPED:
            assert f"called:{called}" in shell.line(typed)


def test_fish_completes(bench: Path) -> None:
    servers.need("fish")

    def offered(line: str) -> list[str]:
        asked = "source completion.fish; complete -C $argv[1]"
        done = subprocess.run(["fish", "--no-config", "-c", asked, line], capture_output=True, text=True, check=True)
        return [one.partition("\t")[0] for one in done.stdout.splitlines()]

    assert offered("smtpbench run rela") == ["relay"]
    assert sorted(offered("smtpbench ru")) == ["rules", "run"]
    assert offered("smtpbench run relay --progress=l") == ["--progress=live"]
    assert offered("smtpbench run relay --target lmtp+") == ["lmtp+unix:///"]
    assert offered("smtpbench run relay --ca cert") == ["cert file.pem"]
    assert offered("X=1 smtpbench fuzz relay --only end,do") == ["end,dots"]
    assert offered("smtpbench validate my") == ["my scenario.yaml"]
