"""Scenario files with mistakes: all mistakes are reported with their positions, and the error is always a ScenarioError."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpbench.errors import ScenarioError, UsageError
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import find_scenario, load_scenario, load_text
from smtpbench.scenario.shipped import shipped_scenarios

HERE = Path("f.yaml")


FINDING = "version: 1, rule: health, by: fuzz"


def problems(text: str, options: CompileOptions | None = None) -> list[str]:
    """Return the mistakes in a scenario, as they are printed."""
    try:
        compile_scenario(load_text(text, HERE), options or CompileOptions())
    except ScenarioError as error:
        return [str(problem) for problem in error.problems]
    return []


MAIL = "  - MAIL FROM:<{sender}>\n  - RCPT TO:<{recipient}>\n  - DATA\n  - message\n"


@pytest.mark.parametrize(
    ("text", "position", "error"),
    [
        ("", "f.yaml", "is empty"),
        ("session: []", "f.yaml:1:10", "at least 1"),
        ("- a", "f.yaml:1:1", "mapping"),
        ("sesion: [NOOP]", "f.yaml:1:1", "did you mean 'session'"),
        ("session: [noop]", "f.yaml:1:11", "not an SMTP command"),
        ("session:\n  - {pauze: 1s}", "f.yaml:2:5", "with one of the keys"),
        ("session:\n  - {pause: 1 parsec}", "f.yaml:2:13", "not a duration"),
        ("session:\n  - RCPT TO: <a>", "f.yaml:2:5", "put it in quotes"),
        ("session: [NOOP]\nsession: [NOOP]", "f.yaml:2:1", "duplicate key"),
        ("session: [NOOP]\nload: {rate: 500}", "f.yaml:2:14", "not a rate"),
        ("session: [NOOP]\nload: {connections: many}", "f.yaml:2:21", "whole number"),
        ("session: [NOOP]\nload: {connections: 0}", "f.yaml:2:21", "too small"),
        ("session: [NOOP]\nload: {when-busy: panic}", "f.yaml:2:19", "allowed: 'wait' or 'drop'"),
        ("session: [NOOP]\nvalues: {a: {pick: []}}", "f.yaml:2:20", "at least 1"),
        ("session: [NOOP]\nmessage: {size: 4 Kilo}", "f.yaml:2:17", "not a size"),
        ("session: ['NOOP {x}']", "f.yaml:1:11", "unknown value 'x'"),
        ("session: ['NOOP {x']", "f.yaml:1:11", "single '{'"),
        ("session: ['NOOP {a}']\nvalues: {a: 'x{b}', b: 'y{a}'}", "f.yaml:2:24", "refers to itself"),
        ("session: [NOOP]\nvalues: {a: {csv: none.csv}}", "", ""),  # a value without a use is not read
        ("session: ['NOOP {a}']\nvalues: {a: {csv: none.csv}}", "f.yaml:2:19", "no such file"),
        ("session: ['NOOP {a}']\nvalues: {a: {pick: [x], weights: [0]}}", "f.yaml:2:34", "not all of them 0"),
        (f"session:\n{MAIL}message: {{size: 100}}", "f.yaml:6:17", "the header alone takes"),
        (f"session:\n{MAIL}message: {{eml: 'none/*.eml'}}", "f.yaml:6:16", "matches no file"),
        (f"session:\n{MAIL}message: {{size: 9KiB, text: x}}", "f.yaml:6:10", "only one of `size`, `eml` and `text`"),
        (f"session:\n{MAIL}message: {{headers: {{'X Y': z}}}}", "f.yaml:6:28", "not the name of a header"),
        ("session: [message]", "f.yaml:1:11", "no DATA before this message"),
        ("session: [AUTH]", "f.yaml:1:11", "needs one mechanism"),
        ('session: ["RCPT TO:<{a}>"]\nvalues: {a: "x>\\r\\nNOOP"}', "f.yaml:2:13", "'a' contains a line end.*{raw: …}"),
        ('session: ["RCPT TO:<{a}>"]\nvalues: {a: "{b}", b: "x\\ny"}', "f.yaml:2:23", "'a' contains a line end"),
        ('session: [{send: "X {a}"}]\nvalues: {a: {pick: [x, "x\\ry"]}}', "f.yaml:2:24", "'a' contains a line end"),
        ('session: [{pipeline: [NOOP, "X {a}"]}]\nvalues: {a: "x\\n"}', "f.yaml:2:13", "'a' contains a line end"),
        ('session: [DATA, message]\nvalues: {a: "x\\ny"}\nmessage: {subject: "{a}"}', "f.yaml:2:13", "a header field"),
        ('session: [DATA, message]\nvalues: {a: "x\\ny"}\nmessage: {headers: {X: "{a}"}}', "f.yaml:2:13", "a header"),
        (f'session: [NOOP]\nfinding: {{{FINDING}, recipient: "a\\r\\nb"}}', "f.yaml:2:58", "must not contain a line end"),
        ("session: [{repeat: 0, steps: [NOOP]}]", "f.yaml:1:20", "1 or more, or `forever`"),
        ("session: [{repeat: 2, steps: [NOOP]}, {repeat: 2, steps: [NOOP]}]", "f.yaml:1:39", "second `repeat`"),
        ("session: [{repeat: 9, steps: [{repeat: 90000, steps: [NOOP]}]}]", "", ""),
        ("session: [{repeat: 9, steps: [{repeat: 900000, steps: [NOOP]}]}]", "f.yaml:1:40", "more than 100,000 steps"),
        ("session: [{pipeline: [DATA, NOOP]}]", "f.yaml:1:23", "last command of a pipeline"),
        ("session: [{pipeline: [MAIL, noop]}]", "f.yaml:1:29", "not an SMTP command"),
        ("session: [{raw: 'a\\q'}]", "f.yaml:1:17", "unknown escape"),
        ("session: [{raw: 'a€'}]", "f.yaml:1:17", r"write \\xe2\\x82\\xac"),
        ("session: [{raw: 'ab', split: [2]}]", "f.yaml:1:30", "use offsets from 1 to 1"),
        ("session: [{send: VRFY, expect: 600}]", "f.yaml:1:32", "not a reply code"),
        ("session: [{choose: [{weight: 0, steps: [NOOP]}]}]", "f.yaml:1:20", "at least one must be greater"),
        ("session: &a [NOOP, *a]", "f.yaml:1:20", "no anchor before it, or contains itself"),
        ("session: !!python/object:os.system [NOOP]", "f.yaml:1:10", ""),
        ("session: !secret [NOOP]", "f.yaml:1:10", ""),
        ("session: [NOOP]\n---\nsession: [NOOP]", "f.yaml:2:1", "second document"),
        ("session: {NOOP", "f.yaml:2:1", "not YAML"),
        ("\tsession", "f.yaml:1:1", "not YAML"),
    ],
)
def test_mistake_is_reported_at_its_position(text: str, position: str, error: str) -> None:
    import re

    found = problems(text)
    if not position:
        assert found == []
        return
    if error:
        assert any(problem.startswith(f"{position}: ") and re.search(error, problem) for problem in found), found
    for problem in found:
        assert "pydantic" not in problem
        assert "Input should" not in problem
        assert "\n" not in problem


def test_all_mistakes_are_reported_at_once() -> None:
    found = problems("session: [noop, {pause: x}]\nload: {rate: 1, foo: 2}\nbar: 1\n")
    assert [problem.split(": ")[0] for problem in found] == [
        "f.yaml:1:11", "f.yaml:1:25", "f.yaml:2:14", "f.yaml:2:17", "f.yaml:3:1",
    ]  # fmt: skip


def test_plain_scalars_of_yaml_stay_text() -> None:
    text = "session: ['NOOP {a} {b} {c} {d} {e}']\nvalues: {a: no, b: 1:30, c: 010, d: 2026-01-01, e: 0x1f}\n"
    script = compile_scenario(load_text(text, HERE), CompileOptions())
    assert script.steps[0].wire == b"NOOP no 1:30 010 2026-01-01 0x1f\r\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xff\xfes\0e\0", "UTF-16"),
        (b"session: [NOOP]\n\xff", ":2:1: is not UTF-8"),
        (b"session: \0", "binary"),
        (b"a" * (10 * 1024 * 1024), "larger than"),
        (b"[" * 100_000, "nested deeper"),
        (b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)
        ), "aliases"),
    ],
    ids=["utf-16", "latin-1", "nul", "10 MB", "deep", "bomb"],
)  # fmt: skip
def test_files_that_cannot_be_scenarios_are_refused(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    before_s = time.process_time()
    with pytest.raises(ScenarioError) as error:
        load_scenario(file)
    assert text in str(error.value)
    assert len(error.value.problems) == 1
    assert time.process_time() - before_s < 30  # a bound against endless work, not a measurement


@pytest.mark.parametrize("path", [".", "none.yaml"])
def test_unreadable_paths_are_reported(path: str) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(Path(path))


def test_misspelled_name_of_a_shipped_scenario_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean relay"):
        find_scenario("rellay")


@settings(deadline=None, max_examples=150)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from(["NOOP", "message", "{n}", "1s"]),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["session", "repeat", "steps", "raw", "send", "values", "load", "message", "choose", "x"]),
            inner, max_size=4,
        ),
        max_leaves=20,
    )
)  # fmt: skip
def test_any_data_is_a_scenario_or_a_scenario_error(data: object) -> None:
    import json

    problems(json.dumps({"session": data}))
    problems(json.dumps(data))


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"\n\t #,?%@`\\{n}", max_size=60))
def test_any_text_is_a_scenario_or_a_scenario_error(text: str) -> None:
    problems(text)


@pytest.mark.parametrize("name", shipped_scenarios())
def test_shipped_scenarios_compile(name: str) -> None:
    file = load_scenario(find_scenario(name))
    assert file.scenario.about
    script = compile_scenario(file, CompileOptions(lmtp=name == "lmtp"))
    assert script.steps[-1].metric == "QUIT"
