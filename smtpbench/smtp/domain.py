"""Domains: one spelling for all that are the same."""

from __future__ import annotations

import ipaddress
import unicodedata

from smtpbench.smtp.command import is_domain, is_literal

_A_LABEL = "xn--"


def canonical(domain: bytes) -> str | None:
    """Return one spelling for all that name the same domain or address; None for what is neither.

    Domains come in lower case (RFC 5321 §2.4) and as U-labels, so `xn--bcher-kva.example` becomes `bücher.example`
    (RFC 5890 §2.3.2.1). Address literals (RFC 5321 §4.1.3) come in their shortest form.
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
    """Return the U-label; an invalid A-label stays as it is."""
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
