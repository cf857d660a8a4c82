"""The recipient domain of an arrival: the domain of its first recipient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smtpbench.errors import UsageError
from smtpbench.load.domains import domain_of
from smtpbench.load.threshold_monitor import ThresholdMonitor
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.domains import possible_domains
from smtpbench.scenario.load import load_text
from smtpbench.threshold import parse_threshold

CSV = {"recipient": "{csv: to.csv, column: to}"}
CSV_DOMAINS = {"one.example", "bücher.example", "[127.0.0.1]"}
PICK = {"recipient": "u{n}@{where}", "where": "{pick: [a.example, b.example, never.example], weights: [1, 1, 0]}"}


def read(folder: Path, steps: list[str], **values: str) -> tuple[Any, frozenset[str] | None]:
    """Return `domain_of` of a script, and the possible domains."""
    (folder / "to.csv").write_text("to\nx@one.example\nö@Bücher.example\ny@xn--bcher-kva.example\nz@[127.0.0.1]\n")
    lines = ["session:", *(f"  - {step}" for step in steps), "values:", "  sender: a@b.example"]
    text = "\n".join([*lines, *(f"  {name}: {value}" for name, value in values.items())]) + "\n"
    file = load_text(text, folder / "scenario.yaml")
    script = compile_scenario(file, CompileOptions(run_id="r1", seed=3))
    return domain_of(script), possible_domains(file, "r1")


def mail(*to: str) -> list[str]:
    """Return the steps of a session with these recipients."""
    return ["EHLO c.example", "MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in to), "DATA", "message", "QUIT"]


@pytest.mark.parametrize(
    ("steps", "values", "domains", "possible"),
    [
        (mail("u{n}@One.example"), {}, {"one.example"}, {"one.example"}),
        (mail("{recipient}"), {}, {"recipient.example"}, {"recipient.example"}),
        (mail("{recipient}", "b@other.example"), CSV, CSV_DOMAINS, CSV_DOMAINS),
        (mail("{recipient}"), CSV, CSV_DOMAINS, CSV_DOMAINS),
        (mail("{recipient}"), PICK, {"a.example", "b.example"}, {"a.example", "b.example"}),
        (mail("u@d{n}.example"), {}, {f"d{n}.example" for n in range(20)}, None),
        (mail("u@{run}.example"), {}, {"r1.example"}, {"r1.example"}),
        (mail("<@relay.example:u{n}@one.example".removeprefix("<")), {}, {"one.example"}, {"one.example"}),
        (mail("\"a@b>c\"@one.example".replace('"', '\\"')), {}, {""}, None),
        (mail("postmaster"), {}, {""}, set()),
        (mail("u{n}@[192.0.2.001]"), {}, {"[192.0.2.1]"}, {"[192.0.2.1]"}),
        (mail("no one@bad domain"), {}, {""}, set()),
        (["MAIL FROM:<{sender}>", "RCPT TO:postmaster", "RCPT TO:<u@one.example>"], {}, {""}, set()),
        (["EHLO c.example", "NOOP", "QUIT"], {}, {""}, set()),
        ([r"{raw: 'RCPT TO:<u@raw.example>\r\n'}", *mail("u@one.example")], {}, {"raw.example"}, None),
        (
            ['{pipeline: ["MAIL FROM:<{sender}>", "RCPT TO:<u{n}@group.example>", "RCPT TO:<v@b.example>"]}', "QUIT"],
            {}, {"group.example"}, {"group.example"},
        ),
        (
            ["MAIL FROM:<{sender}>", '{send: "rcpt to:<u@sent.example>", as: TO}', "QUIT"],
            {}, {"sent.example"}, {"sent.example"},
        ),
        (
            ["MAIL FROM:<{sender}>", "{choose: [{steps: ['RCPT TO:<u@a.example>']}, {steps: []}]}", "RCPT TO:<u@b.example>"],
            {}, {"a.example", "b.example"}, {"a.example", "b.example"},
        ),
        (
            ["MAIL FROM:<{sender}>", "{choose: [{steps: ['RCPT TO:<u@a.example>']}]}", "RCPT TO:<u@b.example>"],
            {}, {"a.example"}, {"a.example"},
        ),
        (
            ["EHLO c.example", "{repeat: 3, steps: ['MAIL FROM:<a@b>', {repeat: 2, steps: ['RCPT TO:<u{i}@r.example>']}]}"],
            {}, {"r.example"}, {"r.example"},
        ),
    ],
)  # fmt: skip
def test_domain_of_the_first_recipient(
    tmp_path: Path, steps: list[str], values: dict[str, str], domains: set[str], possible: set[str] | None
) -> None:
    of, found = read(tmp_path, steps, **values)
    assert {of(n) for n in range(20)} == domains
    assert found == possible


def test_domain_depends_on_the_arrival_number_only(tmp_path: Path) -> None:
    of, _ = read(tmp_path, mail("{recipient}"), recipient="{csv: to.csv, column: to, order: random}")
    assert [of(n) for n in range(30)] == [of(n) for n in range(30)]


def test_domain_that_no_arrival_can_have_is_refused() -> None:
    monitor = ThresholdMonitor(
        [parse_threshold(text) for text in ("failed < 1%", "failed@a.example < 1%", "accepted@B.example > 1")]
    )
    assert monitor.domains == ("a.example", "b.example")
    monitor.check_domains(None)
    monitor.check_domains(frozenset({"a.example", "b.example", "c.example"}))
    with pytest.raises(UsageError, match=r"accepted@B.example > 1.*at b.example; the recipient domains are a.example"):
        monitor.check_domains(frozenset({"a.example"}))
    with pytest.raises(UsageError, match="names no recipient"):
        monitor.check_domains(frozenset())
