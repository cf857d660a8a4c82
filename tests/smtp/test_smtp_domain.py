"""Canonical spelling of domains and address literals."""

from __future__ import annotations

import pytest

from smtpbench.smtp.domain import canonical


@pytest.mark.parametrize(
    ("domain", "spelling"),
    [
        ("Mail.Example", "mail.example"),
        ("xn--bcher-kva.example", "bücher.example"),
        ("XN--BCHER-KVA.Example", "bücher.example"),
        ("BÜCHER.example", "bücher.example"),
        ("bu\u0308cher.example", "bücher.example"),
        ("straße.example", "straße.example"),
        ("xn--strae-oqa.example", "straße.example"),
        ("xn--abc.example", "xn--abc.example"),  # claims to be an A-label and is none
        ("xn--.example", None),
        ("[127.0.0.1]", "[127.0.0.1]"),
        ("[127.000.0.01]", "[127.0.0.1]"),
        ("[ipv6:2001:DB8:0:0::1]", "[IPv6:2001:db8::1]"),
        ("[X-Tag:Some]", "[x-tag:some]"),
        ("[300.0.0.1]", None),
        ("", None),
        ("a..b", None),
        ("-a.example", None),
        ("a b.example", None),
    ],
)
def test_canonical_spelling(domain: str, spelling: str | None) -> None:
    assert canonical(domain.encode()) == spelling
    if spelling is not None:
        assert canonical(spelling.encode()) == spelling


def test_octets_that_are_not_utf8_are_not_a_domain() -> None:
    assert canonical(b"\xff.example") is None
