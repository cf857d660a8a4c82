"""Which findings about a server may be published: those that somebody published before, each with its source.

Verdicts on a rule of `UNPUBLISHED_RULES` whose violation nobody has published are left out for every server, whether it
keeps the rule or not. A missing entry is therefore no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from smtpbench.rules import rule as r
from smtpbench.rules.register import RULES

#: Rules whose violations can be used for attacks: end of the message, framing, injection into TLS, crashes and hangs.
UNPUBLISHED_RULES: Final = frozenset(
    [rule.name for rule in RULES if rule.severity == r.SECURITY]
    + ["close-without-421", "overlong-resync", "oversize-clean", "size-framing", "one-reply", "segmentation", "pipelining"]
    + ["bdat-octets", "bdat-reject", "bdat-mix", "tls-reset", "tls-readvertise"]
)


class PublishedBug(NamedTuple):
    """A bug that was published.

    Attributes:
        server: Server and release that have it.
        rule: Rule that finds it.
        source: Where it was published.
        fixed_in: Release or configuration without it.
    """

    server: str
    rule: str
    source: str
    fixed_in: str


_LF_DOT = "CVE-2024-27305"
_TLS = "CVE-2024-34083"
_BARE_LF = "CVE-2023-51764"
_SERVER = "smtp-server's changelog, "
_HARAKA = "Haraka's changelog, 3.3.4 (#3616)"
PUBLIC: Final = (
    PublishedBug("aiosmtpd@1.2.2", "eod-lf-crlf", _LF_DOT, "aiosmtpd@1.4.6"),
    PublishedBug("aiosmtpd@1.4.4.post2", "eod-lf-crlf", _LF_DOT, "aiosmtpd@1.4.6"),
    PublishedBug("aiosmtpd@1.4.4.post2", "tls-inject", _TLS, "aiosmtpd@1.4.6"),
    PublishedBug("aiosmtpd@1.4.4.post2", "tls-partial", _TLS, "aiosmtpd@1.4.6"),
    PublishedBug("aiosmtpd@1.4.5", "tls-inject", _TLS, "aiosmtpd@1.4.6"),
    PublishedBug("aiosmtpd@1.4.5", "tls-partial", _TLS, "aiosmtpd@1.4.6"),
    PublishedBug("smtp-server@3.18.5", "data-desync", f"{_SERVER}3.19.3", "smtp-server@3.21.6"),
    PublishedBug("smtp-server@3.18.5", "tls-partial", f"{_SERVER}3.19.3", "smtp-server@3.21.6"),
    PublishedBug("smtp-server@3.18.5", "tls-reset", f"{_SERVER}3.19.3", "smtp-server@3.21.6"),
    PublishedBug("smtp-server@3.18.5", "tls-syntax", f"{_SERVER}3.19.0", "smtp-server@3.21.6"),
    PublishedBug("smtp-server@3.18.5", "health", f"{_SERVER}3.19.3 and 3.19.15", "smtp-server@3.21.6"),
    PublishedBug("haraka@3.3.3", "eod-lf-crlf", _HARAKA, "haraka@3.3.4"),
    PublishedBug("haraka@3.3.3", "data-desync", _HARAKA, "haraka@3.3.4"),
    PublishedBug("postfix", "eod-lf-lf", _BARE_LF, "postfix-hardened"),
    PublishedBug("postfix", "eod-lf-crlf", _BARE_LF, "postfix-hardened"),
    PublishedBug("postfix", "eod-crlf-lf", _BARE_LF, "postfix-hardened"),
)  # fmt: skip


def publishable(result: Mapping[str, Any], server: str) -> dict[str, Any]:
    """Return a result of `check` without what must not be published about this server."""
    release = "postfix" if server == "postfix-plain" else server
    public = {one.rule for one in PUBLIC if one.server == release}
    fixed = {one.rule for one in PUBLIC if one.fixed_in == server}
    kept = {
        name: rule
        for name, rule in result["rules"].items()
        if name not in UNPUBLISHED_RULES or name in public or (name in fixed and rule["verdict"] != r.VIOLATED)
    }
    return {
        **result,
        "rules": kept,
        "findings": [finding for finding in result["findings"] if finding["rule"] in kept],
    }
