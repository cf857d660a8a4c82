"""Domains: which of them are the same, however they are written."""

from __future__ import annotations

import ipaddress
import unicodedata

from smtpbench.smtp.command import is_domain, is_literal

_A_LABEL = "xn--"


def canonical(domain: bytes) -> str | None:
    """One spelling for all that name the same domain or address; None for what is neither.

    Domains do not mind their case (RFC 5321 §2.4) and are given as U-labels, so that `xn--bcher-kva.example` is
    `bücher.example` (RFC 5890 §2.3.2.1); address literals (RFC 5321 §4.1.3) as short as they can be.
    """
    if is_literal(domain):
        return _literal(domain[1:-1].decode("ascii"))
    if not is_domain(domain):
        return None
    return ".".join(map(_label, domain.decode().split(".")))


def _literal(content: str) -> str:
    tag, colon, rest = content.partition(":")
    if not colon:
        return f"[{'.'.join(str(int(number)) for number in content.split('.'))}]"
    if tag.lower() == "ipv6":
        return f"[IPv6:{ipaddress.IPv6Address(rest)}]"
    return f"[{content.lower()}]"


def _label(label: str) -> str:
    """The U-label; what claims to be an A-label and is none stays as it is."""
    lower = unicodedata.normalize("NFC", label.lower())
    if not lower.startswith(_A_LABEL):
        return lower
    coded = lower.removeprefix(_A_LABEL)
    try:
        decoded = coded.encode("ascii").decode("punycode")
        genuine = decoded.encode("punycode").decode("ascii") == coded and not decoded.isascii()
    except UnicodeError:
        return lower
    readable = all(character == "-" or unicodedata.category(character)[0] in "LMN" for character in decoded)
    return unicodedata.normalize("NFC", decoded.lower()) if genuine and readable else lower
