"""Text for people: numbers with their nouns, and suggestions for misspelled words."""

from __future__ import annotations

import pytest

from smtpbench.text import did_you_mean, plural, printable


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "finding", "0 findings"),
        (1, "finding", "1 finding"),
        (2, "finding", "2 findings"),
        (1, "reply", "1 reply"),
        (1000, "reply", "1,000 replies"),
        (3, "key", "3 keys"),
        (2, "match", "2 matches"),
        (2, "process", "2 processes"),
        (2, "stack trace", "2 stack traces"),
    ],
)
def test_number_and_noun_agree(count: int, noun: str, text: str) -> None:
    assert plural(count, noun) == text


def test_irregular_plural_is_given_by_the_caller() -> None:
    assert plural(1, "index", "indices") == "1 index"
    assert plural(2, "index", "indices") == "2 indices"
    assert plural(2, "octet of data", "octets of data") == "2 octets of data"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a\nb", "a\nb"),
        ("\x1b[2J\r\u202e", r"\x1b[2J\r\u202e"),
        (r"C:\\x \x1b é €", r"C:\\x \x1b é €"),
        ("x" * 5000, "x" * 5000),
    ],
)
def test_printable_text_keeps_lines_and_backslashes(text: str, printed: str) -> None:
    assert printable(text) == printed
    assert printable(printed) == printed


def test_similar_word_is_suggested_with_its_prefix() -> None:
    assert did_you_mean("targt", ["target", "seed"], "--") == "; did you mean --target?"


def test_no_suggestion_for_a_word_unlike_any_known_one() -> None:
    assert did_you_mean("zzz", ["target", "seed"]) == ""
