"""The help of each command: its style, its width, and its examples, which can be typed as they stand."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from smtpbench.cli import exit_codes
from smtpbench.cli.choices import ARRIVALS, PROGRESS, RESTART, TIMES, WHEN_BUSY
from smtpbench.cli.help import Command, HelpEntry, entry_of
from smtpbench.cli.main import COMMANDS, call, load
from smtpbench.cli.option_groups import with_separate_options
from smtpbench.cli.options import ConnectionOptions
from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.profiles import PROFILES
from smtpbench.load.settings import Overrides, make_plan
from smtpbench.rules.register import find
from smtpbench.scenario.comparison import REPEATS
from smtpbench.scenario.model import Load
from smtpbench.scenario.shipped import shipped_scenarios
from smtpbench.study.candidates import DURATION_NS, WARMUP_NS
from smtpbench.study.options import document_of
from smtpbench.target import parse_target
from smtpbench.threshold import parse_metric, parse_threshold
from smtpbench.units import parse_duration_ns

MOST_COLUMNS = 100


def help_of(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    assert exit_codes.exit_code_of(lambda: call([command, "--help"])) == 0
    return capsys.readouterr().out


def examples(text: str, command: str) -> list[list[str]]:
    """The arguments of each example, without the shell's own: variables before, redirections and pipes behind."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        match = re.fullmatch(rf"\s+(?:[A-Z_]+=\S+ )*smtpbench {command}\b(.*)", line)
        if match:
            lexer = shlex.shlex(match[1], posix=True, punctuation_chars="><|&;")
            lexer.whitespace_split, lexer.commenters = True, ""
            expected_texts = list(lexer)
            found.append(
                expected_texts[: next((at for at, word in enumerate(expected_texts) if word in (">", "|", "&", ";")), None)]
            )
    return found


def test_examples_are_parsed_as_a_shell_does() -> None:
    text = "  smtpbench x a > b\n  V=1 smtpbench x --t 'c<5' | d\n  smtpbench x \\\n     e\n  smtpbench y\n `smtpbench x`"
    assert examples(text, "x") == [["a"], ["--t", "c<5"], ["e"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_screen_and_its_examples_parse(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of(command, capsys, monkeypatch)
    assert max(map(len, text.splitlines())) <= MOST_COLUMNS
    found = examples(text, command)
    assert found, "there is no example"
    for arguments in found:
        with load(command).make_context(command, arguments) as context:  # raises for what typer does not take
            check_values(command, context.params)


def check_values(command: str, values: dict[str, Any]) -> None:
    """Parse the values that typer takes as text."""
    scenarios = [values.get("scenario"), *(_list(values.get("files")) if command == "validate" else ())]
    if command == "compare":
        candidates = {name: values[key] for name, key in (("target", "target"), ("with", "with_"), ("start", "start"))}
        if not Path(values["scenario"]).suffix:
            document_of(values["scenario"], {**candidates, "stop": None}, {}, "")
    for scenario in scenarios:
        assert scenario is None or scenario in shipped_scenarios() or str(scenario).endswith(".yaml"), scenario
    for target in _list(values.get("target")) if command != "compare" else ():
        parse_target(str(target))
    for threshold in [*_list(values.get("threshold")), *_list(values.get("slo"))]:
        parse_threshold(str(threshold))
    for metric in _list(values.get("metric")):
        parse_metric(str(metric))
    find(map(str, _list(values.get("rules"))))
    if command == "rules":
        find(map(str, _list(values.get("name"))))


#: What the value of an option may be called; a text in lower case lists the values themselves.
PLACEHOLDERS = {
    "ADDRESS", "COUNT", "DIR", "DURATION", "EXPRESSION", "FILE", "METRIC", "NAME", "NUMBER", "PORT", "RATE", "RULE", "SHARE",
    "SIZE", "URL", "FAMILY,...", "DURATION..DURATION", "NAME=COMMAND", "NAME=OPTIONS", "NAME=URL", "VERB=DURATION",
    "VERB=SHARE", "COMMAND", "REGEX",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_described_in_one_style(command: str) -> None:
    for parameter in load(command).params:
        entry = entry_of(parameter)
        assert re.fullmatch(r"[A-Z].*[.…]", entry.text), entry
        if parameter.param_type_name == "argument":
            assert entry.names[0].removesuffix("...").isupper(), entry
        elif entry.placeholder:
            assert entry.placeholder in PLACEHOLDERS or CHOICES.fullmatch(entry.placeholder), entry
            assert entry.default or entry.required or entry.repeatable or entry.names[-1] in WITHOUT_DEFAULT, entry


#: Values as a placeholder shows them; what follows a colon is the user's.
CHOICES = re.compile(r"[a-z]+(:[A-Z]+)?(\|[a-z]+(:[A-Z]+)?)+")
#: Options that change nothing when they are not given, and whose text says so.
WITHOUT_DEFAULT = {
    "--messages", "--metrics", "--cert", "--fixture", "--html", "--junit", "--sarif", "--markdown", "--csv", "--jsonl",
    "--hgrm", "--openmetrics",
}  # fmt: skip


def test_choices_of_an_option_are_its_placeholder() -> None:
    for command, option, values in (
        ("run", "--arrivals", ARRIVALS), ("run", "--when-busy", WHEN_BUSY), ("run", "--progress", PROGRESS),
        ("report", "--time", TIMES), ("run", "--restart", RESTART), ("fuzz", "--profile", PROFILES),
    ):  # fmt: skip
        placeholders = {entry.names[-1]: entry.placeholder for entry in map(entry_of, load(command).params)}
        assert placeholders[option] == "|".join(values)


def test_documented_defaults_are_those_of_the_code() -> None:
    defaults = {entry.names[-1]: entry.default for entry in map(entry_of, load("run").params)}
    load_of_scenario = Load.model_validate({})
    plan = make_plan(load_of_scenario, Overrides())
    assert (
        defaults["--connections"]
        == f"{plan.connections}, or {make_plan(load_of_scenario, Overrides(rate='1/s')).connections} with --rate"
    )
    for option, ns in (("--drain", plan.drain_ns), ("--timeout", plan.timeout_ns), ("--warmup", plan.warmup_ns)):
        assert parse_duration_ns(defaults[option]) == ns
    assert defaults["--workers"] == str(plan.workers)
    compared = {entry.names[-1]: entry.default for entry in map(entry_of, load("compare").params)}
    assert compared["--repeats"] == str(REPEATS)
    assert (parse_duration_ns(compared["--duration"]), parse_duration_ns(compared["--warmup"])) == (DURATION_NS, WARMUP_NS)


def test_help_of_fuzz_names_families_and_profiles(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(help_of("fuzz", capsys, monkeypatch).split())
    for name, description in FAMILIES.items():
        assert f"{name} {description}" in text
    for name, profile in PROFILES.items():
        assert f"{name} {profile.description} {profile.cases:,} cases" in text
        assert f"{profile.connections} connections" in text


def test_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_codes.exit_code_of(lambda: call(["--help"])) == 0
    text = capsys.readouterr().out
    for one in exit_codes.EXIT_CODES:
        assert re.search(rf"^  {one.code} +{re.escape(one.name)}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "default", "bounds", "description"),
    [
        ("Grace period.  [default: 5s]", "5s", "", "Grace period.  [default: 5s]"),
        ("Gap.  [default: 5%; 0.5%..100%]", "5%", "0.5%..100%", "Gap.  [default: 5%; 0.5%..100%]"),
        ("Rule VERB=ACTION[@SHARE]: what.", "", "", "Rule VERB=ACTION[@SHARE]: what."),
    ],
)
def test_remarks_at_the_end_of_a_text_are_parsed(text: str, default: str, bounds: str, description: str) -> None:
    entry = entry_with(typer.Option(metavar="X", help=text), None)
    assert (entry.default, entry.bounds, entry.description) == (default, bounds, description)


@pytest.mark.parametrize(
    ("low", "high", "bounds"), [(1, 256, "1..256"), (0, None, "at least 0"), (None, 5, "at most 5"), (None, None, "")]
)
def test_bounds_have_one_style(low: int | None, high: int | None, bounds: str) -> None:
    entry = entry_with(typer.Option(metavar="COUNT", min=low, max=high, help="So many."), 2)
    assert entry.bounds == bounds
    assert entry.description == f"So many.  [default: 2{'; ' if bounds else ''}{bounds}]"


@dataclass(frozen=True)
class Group:
    """Two options."""

    name: Annotated[str, typer.Option(metavar="NAME", help="A name.")] = "a"
    flag: Annotated[bool, typer.Option("--flag", help="A flag.")] = False


def test_fields_of_a_group_are_options_and_arrive_as_one_object() -> None:
    received: list[tuple[int, Group]] = []

    def command(
        count: Annotated[int, typer.Option(metavar="COUNT", help="A count.")] = 1,
        group: Group = Group("b"),
    ) -> None:
        """Do it."""
        received.append((count, group))

    built = command_of(with_separate_options(command))
    assert [one.name for one in built.params] == ["count", "name", "flag"]
    assert built.help == "Do it."
    for arguments in ([], ["--name", "c", "--count", "5"], ["--flag"]):
        with built.make_context("x", arguments) as context:
            built.invoke(context)
    assert received == [(1, Group("b")), (5, Group("c")), (1, Group("b", True))]


def test_access_options_of_all_commands_are_the_same() -> None:
    names = {field.name for field in fields(ConnectionOptions)}
    shown = {
        command: {one.name: entry_of(one).description for one in load(command).params if one.name in names}
        for command in ("run", "check", "fuzz", "compare", "capacity", "doctor", "replay")
    }
    assert all(one == shown["run"] and set(one) == names for one in shown.values())


def entry_with(option: Any, default: int | None) -> HelpEntry:
    """What the help shows of an option."""

    def command(option: int | None = default) -> None: ...

    command.__annotations__["option"] = Annotated[int | None, option]
    return entry_of(command_of(command).params[0])


def command_of(function: Any) -> Any:
    """The command that typer makes of a function."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=Command)(function)
    return typer.main.get_command(app)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
