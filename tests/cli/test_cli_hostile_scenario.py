"""Names and texts of a scenario are escaped wherever they are shown, as a server's are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from runner import run, sink, smtpbench

TEXT = r"\e[2J\u202e<script>alert(1)</script>|`*"
SCENARIO = f"""\
name: "{TEXT}"
about: "{TEXT}"
session: [EHLO x, {{send: "NOOP", as: "{TEXT}"}}, {{send: "XYZZY", as: "2{TEXT}"}}, QUIT]
"""
UNSAFE = "\x1b\u202e"


def is_safe(text: str) -> bool:
    return not any(character in text for character in UNSAFE)


def test_names_of_a_scenario_are_escaped_in_every_report(here: Path) -> None:
    (here / "s.yaml").write_text(SCENARIO)
    described = smtpbench("validate", "s.yaml")
    assert described.code == 0
    assert described.out.count(r"\x1b[2J\u202e<script>") == 2
    assert is_safe(described.out + described.err)
    with sink() as (port, _):
        target = f"smtp://127.0.0.1:{port}"
        done = run("s.yaml", target, here / "out", "-n", "20")
        assert done.code == 0
        fuzzed = smtpbench("fuzz", "s.yaml", "-t", target, "--cases", "5", "--out", "fuzz")
        sides = ("-t", f"a={target}", "-t", f"b={target}", "-n", "5", "--repeats", "1", "--warmup", "0s")
        compared = smtpbench("compare", "s.yaml", *sides, "--progress", "plain", "--out", "compared")
    shown = smtpbench("report", "out", "compared", "--markdown", "r.md", "--junit", "r.xml", "--html", "r.html")
    for text in (done.out, done.err, fuzzed.out, fuzzed.err, compared.out, compared.err, shown.out, shown.err):
        assert is_safe(text)
    for name in ("r.md", "r.xml", "r.html", "out/report.html", "out/histograms.hlog"):
        assert is_safe((here / name).read_text()), name
    for name in ("r.html", "out/report.html"):  # Markdown shows it in a code span
        assert "<script>alert" not in (here / name).read_text(), name
    ElementTree.parse(here / "r.xml")


def test_errors_about_a_scenario_are_escaped(here: Path) -> None:
    (here / "s.yaml").write_text('session: ["NOOP {a}"]\nvalues: {"\\e[2J\\u202e": x}\n')
    (here / "t.yaml").write_text('session: [{send: NOOP, as: "\\e[2J\\n"}]\nthresholds: ["NOOP.p99<1s"]\n')
    for name, *argv in (("s", "validate"), ("s", "run"), ("t", "run")):
        options = ["-t", "smtp://127.0.0.1:1"] if argv == ["run"] else []
        done = smtpbench(*argv, f"{name}.yaml", *options)
        assert done.code == 2
        assert r"\x1b[2J" in done.err
        assert is_safe(done.err)
