"""The tools that run the pages notice what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs_tools import __main__ as rewrite
from docs_tools import fragments, output, page, runner


def made_page(tmp_path: Path, text: str) -> page.Page:
    """A page of a test."""
    path = tmp_path / "page.md"
    path.write_text(text)
    return page.read(path)


def problems(tmp_path: Path, text: str) -> str:
    """What is wrong with a page of a test."""
    return "\n".join(runner.run(made_page(tmp_path, text)).problems)


def test_failing_command_is_reported_with_its_line(tmp_path: Path) -> None:
    found = problems(tmp_path, "text\n\n```console\n$ true\n$ sh -c 'echo why; exit 3'\n$ touch never\n```\n")
    assert "page.md:5: `sh -c 'echo why; exit 3'` ended with 3, the page says 0" in found
    assert "why" in found


def test_expected_exit_code_is_required(tmp_path: Path) -> None:
    assert not problems(tmp_path, "```console\n$ sh -c 'exit 99'   # exit code 99: a threshold failed\n```\n")
    assert not problems(tmp_path, "<!-- docs: exit-codes 0 3 -->\n```console\n$ true\n$ sh -c 'exit 3'\n```\n")
    assert "ended with 0, the page says 1" in problems(tmp_path, "```console\n$ true   # exit code 1\n```\n")


def test_stale_output_is_reported(tmp_path: Path) -> None:
    found = problems(tmp_path, "```console\n$ echo 12.5 ms of new words\n7 us of old words\n```\n")
    assert "page.md:2: the output of `echo 12.5 ms of new words` is out of date" in found
    assert "-# of old words\n+# of new words" in found


def test_output_that_differs_only_in_figures_is_not_stale(tmp_path: Path) -> None:
    assert not problems(
        tmp_path,
        "```console\n$ echo 'p99   12.5 ms,  1,000 messages (+3.1%) in results/20260101-000000-relay'\n"
        "p99 900 us, 1 message (-12%) in results/20261231-235959-relay\n```\n",
    )


@pytest.mark.parametrize("shown", ["one\n…", "…\nthree", "one\n…\nthree", "…\ntwo\n…", "one\ntwo\nthree"])
def test_ellipsis_stands_for_any_lines(tmp_path: Path, shown: str) -> None:
    assert not problems(tmp_path, f"```console\n$ printf 'one\\ntwo\\nthree\\n'\n{shown}\n```\n")


@pytest.mark.parametrize("shown", ["one\n…\ntwo", "…\nother\n…", "two\n…", "one\nthree", "…\nthree\n…\ntwo\n…"])
def test_lines_beside_an_ellipsis_must_match(tmp_path: Path, shown: str) -> None:
    assert "out of date" in problems(tmp_path, f"```console\n$ printf 'one\\ntwo\\nthree\\n'\n{shown}\n```\n")


def test_numbers_of_a_dialogue_are_compared_as_they_are() -> None:
    assert output.line_difference(["    S: 250 2.1.0 Ok\\r\\n"], ["    S: 550 5.1.0 Ok\\r\\n"])
    assert not output.line_difference(["RFC 5321 §4.1.1.4   12 us"], ["RFC 5321 §4.1.1.4 1.5 ms"])
    assert output.line_difference(["RFC 5321 §4.1.1.4"], ["RFC 5321 §4.1.1.5"])
    assert output.line_difference(["RFC 5321 §4"], ["RFC 3207 §4"])


def test_lines_that_vary_need_not_be_there(tmp_path: Path) -> None:
    text = "<!-- docs: varies ^note -->\n```console\n$ echo result\nnote: 1\nresult\n```\n"
    assert not problems(tmp_path, text)
    assert not problems(tmp_path, text.replace("echo result", "printf 'result\\nnote: other words\\n'"))


def test_state_is_kept_between_commands(tmp_path: Path) -> None:
    assert not problems(
        tmp_path,
        "```console\n$ mkdir sub && cd sub\n$ export WORD='a b'\n```\n\n```text title=\"file.txt\"\nhello\n```\n\n"
        '```console\n$ echo "$WORD $(basename $PWD)" && cat \\\n> file.txt\na b sub\nhello\n```\n',
    )


def test_server_is_kept_until_the_end_on_another_port(tmp_path: Path) -> None:
    text = (
        "```console\n$ smtpbench sink --listen 127.0.0.1:2525 &\n"
        "$ smtpbench check --target smtp://127.0.0.1:2525 noop-250\nsmtp://127.0.0.1:2525  220 sink.example\n…\n```\n"
    )
    read = made_page(tmp_path, text)
    report = runner.run(read)
    assert "220 sink.example" in report.ran[1].output[0]
    assert report.ran[1].output[0].startswith("smtp://127.0.0.1:2525 ")
    lines, unwritten = rewrite.rewritten(read, report.ran)
    assert not unwritten
    assert lines[3] == report.ran[1].output[0]
    assert lines[:3] == read.lines[:3]


def test_server_that_does_not_start_is_reported(tmp_path: Path) -> None:
    found = problems(tmp_path, "```console\n$ sh -c 'echo no such thing >&2; exit 1' 127.0.0.1:2525 &\n```\n")
    assert "does not listen\nno such thing" in found


def test_rewriting_keeps_what_was_left_out() -> None:
    printed = ["head now", "count 5", "noise", "noise 2", "tail of the new run", "end"]
    shown = ["head then", "count 4", "…", "tail of the old run", "end"]
    assert output.renewed(shown, printed) == ["head now", "count 5", "…", "tail of the new run", "end"]
    assert output.renewed(["…", "count 4", "…"], printed) == ["…", "count 5", "…"]
    assert output.renewed(["anything"], printed) == printed
    with pytest.raises(ValueError, match="nothing like this"):
        output.renewed(["…", "completely different", "…"], ["1", "2"])


@pytest.mark.parametrize(
    ("block", "mistaken"),
    [
        ("```yaml\nsession: [EHLO x, QUIT]\n```", ""),
        ("```yaml\nsession: [EHLO x, {paws: 1s}]\n```", "unknown kind of step"),
        ("```yaml\n- {pause: 1s}\n```", ""),
        ("```yaml\nload: {connections: 0}\n```", "0 is too small"),
        ("```yaml\ncandidates: {a: {target: 'smtp://127.0.0.1:25'}}\n```", "scenario"),
        ("```yaml\nother: 1\n```", "nothing checks"),
        ("```python\nx = 1\n```", "a title"),
        ("```text\nx\n```", "nothing checks"),
        ("<!-- docs: not-run a drawing -->\n```text\nx\n```", ""),
        ("```yaml\non: push\njobs: {a: {runs-on: x, steps: [{uses: ./, with: {scenario: relay}}]}}\n```", ""),
        ("```yaml\non: push\njobs: {a: {runs-on: x, steps: [{uses: ./, with: {scene: relay}}]}}\n```", "no input scene"),
        ("```yaml\n- {uses: ./, with: {args: --rats 5/s}}\n```", "no option --rats"),
        ("```yaml\n- {uses: me/unknown@v1}\n```", "nothing is known"),
    ],
)
def test_fragments_are_checked(tmp_path: Path, block: str, mistaken: str) -> None:
    found = problems(tmp_path, f"{block}\n")
    assert mistaken in found if mistaken else not found, found


@pytest.mark.parametrize(
    ("text", "mistaken"),
    [
        ("`smtpbench run relay --rate 5/s`", ""),
        ("`smtpbench run relay --rats 5/s`", "no option --rats"),
        ("`smtpbench walk`", "no command `walk`"),
        ("`--hostile 5%`", ""),
        ("`--no-such`", "no command has the option"),
        ("[a](page.md) [b](https://example.org) [c](#there)", ""),
        ("[a](gone.md#there)", "the link gone.md leads nowhere"),
    ],
)
def test_prose_is_checked(tmp_path: Path, text: str, mistaken: str) -> None:
    found = "\n".join(fragments.check_prose(made_page(tmp_path, f"{text}\n")))
    assert mistaken in found if mistaken else not found, found


def test_programs_that_are_missing_skip_the_page(tmp_path: Path) -> None:
    report = runner.run(made_page(tmp_path, "<!-- docs: page-needs no-such-program -->\n```console\n$ false\n```\n"))
    assert report.skipped == ["no-such-program not found: apt-get install no-such-program"]
    assert not report.ran


@pytest.mark.parametrize(
    "text",
    ["```console\noutput\n```\n", "```console\n$ true\n", "<!-- docs: unknown -->\n", "<!-- docs: needs x -->\ntext\n"],
)
def test_page_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(page.PageError):
        made_page(tmp_path, text)
