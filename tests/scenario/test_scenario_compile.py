"""Compiling: octets of the script, and where a session continues after a rejection."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpbench.errors import ScenarioError
from smtpbench.scenario import message as message_module
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import load_text
from smtpbench.scenario.values import draw, mix
from smtpbench.session import script as s
from smtpbench.session.script import Script, Step, Wire
from smtpbench.smtp.content import normalise_line_ends, stuff_dots


def compile_text(text: str, folder: Path = Path(), **options: Any) -> Script:
    return compile_scenario(load_text(text, folder / "f.yaml"), CompileOptions(run_id="r1", **options))


def wire(step: Step, n: int = 7) -> bytes:
    out = step.render(n) if step.render else step.wire
    return out if isinstance(out, bytes) else b"".join(out)


TRANSACTION = "['MAIL FROM:<{sender}>', 'RCPT TO:<{recipient}>', DATA, message]"


def test_repeat_becomes_the_loop_of_the_script() -> None:
    script = compile_text(f"session: [EHLO x, {{repeat: 5, steps: {TRANSACTION}}}, QUIT]")
    assert [step.kind for step in script.steps] == [s.COMMAND, s.MAIL, s.RCPT, s.COMMAND, s.MESSAGE, s.COMMAND]
    assert (script.loop_start, script.teardown, script.iterations, script.repeats) == (1, 5, 5, True)
    assert [step.on_unexpected for step in script.steps] == [s.ABORT_SESSION, *[s.ABORT_TRANSACTION] * 4, s.CONTINUE]
    assert [step.abort_target for step in script.steps[1:5]] == [5, 5, 5, 5]
    assert wire(script.steps[1]) == b"MAIL FROM:<sender7@sender.example>\r\n"
    assert wire(script.steps[2]) == b"RCPT TO:<recipient7@recipient.example>\r\n"
    assert script.steps[0].wire == b"EHLO x\r\n"
    assert script.messages(0) == 1


def test_session_without_repeat_is_one_arrival() -> None:
    script = compile_text(f"session: [EHLO x, {TRANSACTION[1:-1]}, {TRANSACTION[1:-1]}, QUIT]")
    assert (script.repeats, script.loop_start, script.teardown, script.messages(0)) == (False, 0, 9, 2)
    assert [step.abort_target for step in script.steps[1:9]] == [5] * 4 + [9] * 4


def test_nested_repeats_are_unrolled_and_number_their_iterations() -> None:
    script = compile_text("session: [{repeat: 2, steps: [{repeat: 3, steps: ['RCPT TO:<r{i}.{n}@x.example>']}]}]")
    assert [wire(step) for step in script.steps] == [b"RCPT TO:<r%d.7@x.example>\r\n" % i for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("raw", "octets", "replies"),
    [
        (r"'NOOP\r\n'", b"NOOP\r\n", 1),
        (r"'NO\x00\xff\\n'", b"NO\0\xff\\n", 0),
        (r'"a\r\n"', b"a\r\n", 1),
        (r'"\xe9"', b"\xe9", 0),
        (r"'\t{n}\0'", b"\t{n}\0", 0),
    ],
)
def test_raw_octets(raw: str, octets: bytes, replies: int) -> None:
    (step,) = compile_text(f"session: [{{raw: {raw}}}]").steps
    assert (step.wire, len(step.expected_replies)) == (octets, replies)


def test_raw_octets_in_segments_with_more_than_one_reply() -> None:
    (step,) = compile_text(
        r"session: [{raw: 'NOOP\r\nNOOP\r\n', replies: 2, expect: [250, 5xx], as: X, split: [2, 6]}]"
    ).steps
    assert step.split == (b"NO", b"OP\r\n", b"NOOP\r\n")
    assert [reply.verb for reply in step.expected_replies] == ["X", "X"]
    assert step.expected_replies[0].matches(250)
    assert step.expected_replies[0].matches(554)
    assert not step.expected_replies[0].matches(251)


def test_pipeline_is_sent_in_one_write() -> None:
    script = compile_text("session: [{pipeline: ['MAIL FROM:<{sender}>', 'RCPT TO:<a@b.example>', DATA]}, message]")
    group = script.steps[0]
    assert wire(group) == b"MAIL FROM:<sender7@sender.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n"
    assert [reply.verb for reply in group.expected_replies] == ["MAIL", "RCPT", "DATA"]
    assert (group.kind, group.metric, group.abort_target) == (s.GROUP, "pipeline", 2)


def test_lmtp_uses_lhlo() -> None:
    script = compile_text("session: [EHLO x, QUIT]", lmtp=True)
    assert script.steps[0].wire == b"LHLO x\r\n"
    assert script.steps[0].expected_replies[0].verb == "LHLO"
    assert script.lmtp


def test_starttls_is_added_if_the_target_asks_for_it() -> None:
    text = f"session: [EHLO x, {{repeat: 5, steps: {TRANSACTION}}}, QUIT]"
    script = compile_text(text, starttls=True)
    assert [step.metric for step in script.steps[:4]] == ["EHLO", "STARTTLS", "EHLO", "MAIL"]
    assert (script.loop_start, script.teardown, script.steps[3].abort_target) == (3, 7, 7)
    already = compile_text("session: [EHLO x, STARTTLS, EHLO x]", starttls=True)
    assert [step.metric for step in already.steps] == ["EHLO", "STARTTLS", "EHLO"]


@pytest.mark.parametrize(
    ("text", "options", "error"),
    [
        ("session: [EHLO x, STARTTLS]", {"implicit_tls": True}, "starts with TLS"),
        ("session: [EHLO x, AUTH PLAIN]", {"credentials": False}, "smtp://USER@host:port"),
        ("session: [HELO x, QUIT]", {"starttls": True}, "no EHLO"),
    ],
)
def test_scenario_that_does_not_fit_the_target_is_refused(text: str, options: dict[str, Any], error: str) -> None:
    with pytest.raises(ScenarioError, match=error):
        compile_text(text, **options)


@pytest.mark.parametrize("size", [400, 4096, 30_000, 32_768, 100_000, 1_000_003])
def test_generated_messages_have_the_exact_size_and_valid_lines(size: int) -> None:
    message = compile_text(f"session: [DATA, message]\nmessage: {{size: {size}}}").steps[1]
    for n in (0, 9, 10, 99_999, 123_456_789):
        octets = wire(message, n)
        assert octets.endswith(b"\r\n.\r\n")
        content = octets[:-3]
        assert len(content) == size
        assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r")
        assert b"\n." not in content
        assert b"X-Smtpbench-Run: r1\r\n" in content
        assert b"Message-ID: <%d.r1@client.example>\r\n" % n in content
        assert max(map(len, content.split(b"\r\n"))) <= 78


def test_every_size_of_a_range_is_exact() -> None:
    message = compile_text("session: [DATA, message]\nmessage: {size: 400..700}").steps[1]
    sizes = set()
    for n in range(3000):
        octets = wire(message, n)
        sizes.add(len(octets) - 3)
        assert octets.count(b"\n") == octets.count(b"\r\n"), n
    assert (min(sizes), max(sizes), len(sizes)) == (400, 700, 301)


def test_large_filler_is_shared() -> None:
    message = compile_text("session: [DATA, message]\nmessage: {size: 1MiB}").steps[1]
    assert message.render is not None
    first, second = message.render(1), message.render(2)
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert first[1].obj is second[1].obj  # type: ignore[attr-defined]  # views of the same octets


def test_message_files_get_crlf_and_dot_stuffing(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(b"Subject: a\n\n.dot\nend")
    (tmp_path / "b.eml").write_bytes(b"Subject: b\r\n\r\n\0\xff\r\n")
    message = compile_text("session: [DATA, message]\nmessage: {eml: '*.eml'}", tmp_path).steps[1]
    assert wire(message, 0) == b"X-Smtpbench-Run: r1\r\nSubject: a\r\n\r\n..dot\r\nend\r\n.\r\n"
    assert wire(message, 1) == b"X-Smtpbench-Run: r1\r\nSubject: b\r\n\r\n\0\xff\r\n.\r\n"
    assert wire(message, 2) == wire(message, 0)


def test_values_are_filled_into_text_and_headers() -> None:
    keys = r"""{text: "Dear {who},\n.\n", headers: {To: '{who}', X-N: '{n}'}}"""
    content = wire(compile_text(f"session: [DATA, message]\nmessage: {keys}\nvalues: {{who: Ann}}\n").steps[1])
    assert b"\r\nTo: Ann\r\nX-N: 7\r\n" in content
    assert content.endswith(b"\r\n\r\nDear Ann,\r\n..\r\n.\r\n")


def test_line_ends_in_values_are_allowed_in_the_body_of_a_message() -> None:
    text = 'session: [DATA, message]\nvalues: {a: {pick: ["1\\n2"]}, b: "{a}!"}\nmessage: {text: "{a}{b}"}'
    assert wire(compile_text(text).steps[1]).endswith(b"\r\n\r\n1\r\n21\r\n2!\r\n.\r\n")


def test_bdat_sends_a_message_in_chunks() -> None:
    script = compile_text("session: [{bdat: 1000}]\nmessage: {size: 2500}")
    octets = [wire(step) for step in script.steps]
    assert [step.kind for step in script.steps] == [s.COMMAND, s.COMMAND, s.MESSAGE]
    heads = [chunk.split(b"\r\n")[0] for chunk in octets]
    assert heads == [b"BDAT 1000", b"BDAT 1000", b"BDAT 500 LAST"]
    content = b"".join(chunk.split(b"\r\n", 1)[1] for chunk in octets)
    assert len(content) == 2500


def test_large_chunks_are_not_copied() -> None:
    size = 200_000
    message = compile_text(f"session: [DATA, message]\nmessage: {{size: {size}}}").steps[1]
    script = compile_text(f"session: [{{bdat: 60000}}]\nmessage: {{size: {size}}}")
    chunks = [wire(step).split(b"\r\n", 1)[1] for step in script.steps]
    assert list(map(len, chunks)) == [60_000] * 3 + [20_000]
    assert b"".join(chunks) == wire(message)[:-3]
    for step in script.steps:
        assert step.render is not None
        first, second = step.render(1), step.render(2)
        assert first[1].obj is second[1].obj  # type: ignore[union-attr]  # views of the same octets


LONG_TEXT = "A line of a long text.\n.A line with a dot.\n" * 4000


@pytest.fixture
def prepared_octets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many octets were prepared for sending, call by call."""
    sizes: list[int] = []

    def counted(content: bytes) -> bytes:
        sizes.append(len(content))
        return stuff_dots(content)

    monkeypatch.setattr(message_module, "stuff_dots", counted)
    return sizes


def text_message(text: str, values: str = "{}") -> Callable[[int], Wire]:
    step = compile_text(f"session: [DATA, message]\nmessage: {{text: {json.dumps(text)}}}\nvalues: {values}").steps[1]
    assert step.render is not None
    return step.render


def test_text_without_values_is_prepared_once_and_never_copied(prepared_octets: list[int]) -> None:
    render = text_message(LONG_TEXT)
    prepared_octets.clear()
    first, second = render(1), render(2)
    assert prepared_octets == []
    assert isinstance(first, tuple)
    assert first[1] is second[1]
    assert first[1].count(b"\r\n..A line with a dot.\r\n") == 4000


def test_text_with_values_prepares_only_the_lines_that_have_one(prepared_octets: list[int]) -> None:
    render = text_message("Dear {who},\n" + LONG_TEXT + ".{n} and\n" + LONG_TEXT, "{who: {pick: [Ann, Bob]}}")
    prepared_octets.clear()
    octets = b"".join(render(7))  # type: ignore[arg-type]  # a pair
    assert sum(prepared_octets) < 40
    assert b",\r\nA line of" in octets
    assert b"\r\n..7 and\r\nA line" in octets


PIECES = ["a", ".", "\n", "\r", "\r\n", "{v}", "{n}", "\N{LATIN SMALL LETTER E WITH ACUTE}"]


@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=12), st.sampled_from(["", ".", "\n", "\r", "x", ".\r.", "\n."])
)
def test_text_prepared_in_pieces_is_the_text_prepared_as_a_whole(pieces: list[str], value: str) -> None:
    text = "".join(pieces)
    out = text_message(text, json.dumps({"v": {"pick": [value, value]}}))(7)
    octets = out if isinstance(out, bytes) else b"".join(out)
    filled = text.replace("{v}", value).replace("{n}", "7").encode()
    assert octets.partition(b"\r\n\r\n")[2] == stuff_dots(normalise_line_ends(filled)) + b".\r\n"


class TestValues:
    @staticmethod
    def values_of(values: str, count: int = 50, folder: Path = Path(), seed: int = 1) -> list[str]:
        script = compile_text(f"session: ['NOOP {{v}}']\nvalues: {{v: {values}}}\n", folder, seed=seed)
        return [wire(script.steps[0], n)[5:-2].decode() for n in range(count)]

    def test_values_in_sequential_order(self, tmp_path: Path) -> None:
        (tmp_path / "r.csv").write_text("name,address\nA,a@x.example\nB,b@x.example\n")
        (tmp_path / "l.txt").write_text("one\n\ntwo\n")
        assert self.values_of("{csv: r.csv, column: address}", 3, tmp_path) == ["a@x.example", "b@x.example", "a@x.example"]
        assert self.values_of("{lines: l.txt}", 3, tmp_path) == ["one", "two", "one"]
        assert self.values_of("{pick: [x, y, 3], order: sequential}", 4) == ["x", "y", "3", "x"]
        assert self.values_of("{range: 5..6, order: sequential}", 3) == ["5", "6", "5"]
        assert self.values_of("'{n}-{w}', w: 'z{n}'", 2) == ["0-z0", "1-z1"]

    def test_random_values_are_repeated_by_the_same_seed(self) -> None:
        for spec in ("{pick: [a, b, c]}", "{range: 1..1000000}", "{random: 12, alphabet: hex}"):
            assert self.values_of(spec) == self.values_of(spec) != self.values_of(spec, seed=2)
            assert len(set(self.values_of(spec))) > 2
        counts = self.values_of("{pick: [a, b], weights: [9, 1]}", 2000)
        assert 1700 < counts.count("a") < 1900

    @pytest.mark.parametrize("content", ['x\n"a\r\nRCPT TO:<evil@x.example>"\n', "x\n\n"])
    def test_file_with_line_ends_in_its_values_is_refused(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "r.csv").write_text(content, newline="")
        with pytest.raises(ScenarioError, match=r"r.csv.*(line end|contains no values)"):
            self.values_of("{csv: r.csv}", 1, tmp_path)


def test_draws_are_even_and_independent() -> None:
    draws = [draw(1, "x", n) for n in range(20_000)]
    assert abs(sum(draws) / len(draws) - 0.5) < 0.01
    for bit in range(64):
        ones = sum(mix(1, "x", n) >> bit & 1 for n in range(2000))
        assert 850 < ones < 1150
    assert len({mix(seed, name, n, i) for seed in (0, 1) for name in "ab" for n in range(50) for i in range(50)}) == 10_000
