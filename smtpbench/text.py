"""Text for people: server text made safe to print, suggestions for misspelled words, and numbers with their nouns."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

#: Unicode categories of characters that move, hide or reorder the characters around them, or that are not assigned.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Longest line of text that is printed.
_MAX_LINE = 100_000
_SHORT = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", "\t": "\\t"}


def visible(text: str | bytes, limit: int = 200) -> str:
    """Return text with every control, format and unassigned character escaped (`\\x1b`), cut to `limit` characters.

    Server text is hostile: printed as it is, it could move the cursor or hide what follows. Octets are decoded as UTF-8;
    octets that are not UTF-8 are escaped as well.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    escaped = "".join(map(_visible_character, text[: limit + 1]))
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


def printable(text: str) -> str:
    """Return text of smtpbench's own, which may quote a scenario, with every line safe to print.

    What `visible` escapes is escaped, except that line ends and backslashes stay as they are, so that text which is visible
    already is not changed.
    """
    return "\n".join(visible(line, _MAX_LINE).replace("\\\\", "\\") for line in text.split("\n"))


def plural(count: int, noun: str, plural_noun: str = "") -> str:
    """Return a number with its noun: `1 finding`, `0 findings`, `1,000 replies`.

    Args:
        count: The number; it is written with thousands separators.
        noun: The noun in the singular.
        plural_noun: The noun in the plural. Without it, English spelling applies: `reply` becomes `replies`, `match` becomes
            `matches`, and any other noun takes an `s`.
    """
    return f"{count:,} {noun if count == 1 else plural_noun or _plural_noun(noun)}"


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean relay?`, or an empty string where no known word is similar.

    Args:
        word: What the user wrote.
        known: Words that are allowed.
        prefix: Text to put before each suggestion, such as `--`.
    """
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), folded, 1)
    inside = [name for name in folded if len(word) > 2 and word.lower() in name]
    found = [folded[name] for name in near or inside[:3]]
    return f"; did you mean {', '.join(prefix + name for name in found)}?" if found else ""


def _plural_noun(noun: str) -> str:
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and not noun.endswith(("ay", "ey", "oy", "uy")):
        return noun[:-1] + "ies"
    return noun + "s"


def _visible_character(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if unicodedata.category(character) not in _UNSAFE:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an octet that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
