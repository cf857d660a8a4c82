"""What may be published of a server's security: findings that somebody published before, each with its source.

A rule of `UNTOLD` whose breach nobody has published is told of no server, broken or kept: an empty place is no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from smtpbench.rules import rule as r
from smtpbench.rules.register import RULES

#: Rules of the classes that attacks are made of: the end of a message, framing, injection into TLS, crashes and hangs.
UNTOLD: Final = frozenset(
    [rule.name for rule in RULES if rule.severity == r.SECURITY]
    + ["close-without-421", "overlong-resync", "oversize-clean", "size-framing", "one-reply", "segmentation", "pipelining"]
    + ["bdat-octets", "bdat-reject", "bdat-mix", "tls-reset", "tls-readvertise"]
)


class Public(NamedTuple):
    """A finding that is public. mended: a release that no longer has it."""

    server: str
    rule: str
    source: str
    mended: str


_LF_DOT = "CVE-2024-27305"
_TLS = "CVE-2024-34083"
_BARE_LF = "CVE-2023-51764"
_SERVER = "smtp-server's changelog, "
_HARAKA = "Haraka's changelog, 3.3.4 (#3616)"
PUBLIC: Final = (
    Public("aiosmtpd@1.2.2", "eod-lf-crlf", _LF_DOT, "aiosmtpd@1.4.6"),
    Public("aiosmtpd@1.4.4.post2", "eod-lf-crlf", _LF_DOT, "aiosmtpd@1.4.6"),
    Public("aiosmtpd@1.4.4.post2", "tls-inject", _TLS, "aiosmtpd@1.4.6"),
    Public("aiosmtpd@1.4.4.post2", "tls-partial", _TLS, "aiosmtpd@1.4.6"),
    Public("aiosmtpd@1.4.5", "tls-inject", _TLS, "aiosmtpd@1.4.6"),
    Public("aiosmtpd@1.4.5", "tls-partial", _TLS, "aiosmtpd@1.4.6"),
    Public("smtp-server@3.18.5", "data-desync", f"{_SERVER}3.19.3", "smtp-server@3.21.6"),
    Public("smtp-server@3.18.5", "tls-partial", f"{_SERVER}3.19.3", "smtp-server@3.21.6"),
    Public("smtp-server@3.18.5", "tls-reset", f"{_SERVER}3.19.3", "smtp-server@3.21.6"),
    Public("smtp-server@3.18.5", "tls-syntax", f"{_SERVER}3.19.0", "smtp-server@3.21.6"),
    Public("smtp-server@3.18.5", "health", f"{_SERVER}3.19.3 and 3.19.15", "smtp-server@3.21.6"),
    Public("haraka@3.3.3", "eod-lf-crlf", _HARAKA, "haraka@3.3.4"),
    Public("haraka@3.3.3", "data-desync", _HARAKA, "haraka@3.3.4"),
    Public("postfix", "eod-lf-lf", _BARE_LF, "postfix-hardened"),
    Public("postfix", "eod-lf-crlf", _BARE_LF, "postfix-hardened"),
    Public("postfix", "eod-crlf-lf", _BARE_LF, "postfix-hardened"),
)  # fmt: skip


def told(result: Mapping[str, Any], server: str) -> dict[str, Any]:
    """A result of `check` without what is not public of this server."""
    release = "postfix" if server == "postfix-plain" else server
    public = {one.rule for one in PUBLIC if one.server == release}
    mended = {one.rule for one in PUBLIC if one.mended == server}
    kept = {
        name: rule
        for name, rule in result["rules"].items()
        if name not in UNTOLD or name in public or (name in mended and rule["verdict"] != r.VIOLATED)
    }
    return {
        **result,
        "rules": kept,
        "findings": [finding for finding in result["findings"] if finding["rule"] in kept],
    }
