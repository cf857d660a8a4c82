"""What is known of a target: its extensions before and inside TLS, and what the user says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from smtpbench.smtp.reply import Reply


def keywords(reply: Reply) -> dict[str, str]:
    """Return the extensions in a reply to EHLO: keyword in upper case → its parameters (RFC 5321 §4.1.1.1)."""
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.decode("latin-1").strip().partition(" ")
        # `AUTH=LOGIN` is an obsolete form that some servers add for old clients
        keyword, equals, first = keyword.partition("=")
        if keyword and not (equals and keyword.upper() in found):
            found[keyword.upper()] = f"{first} {parameters}".strip() if equals else parameters
    return found


#: What a rule may need of a target, apart from an extension, which its keyword names.
NEEDS: Final[Mapping[str, str]] = {
    "recipient": "a recipient that the server accepts (`--recipient`)",
    "credentials": "a login (a user in the URL of the target, and a password)",
    "smtp": "SMTP; the rule does not apply to LMTP",
    "lmtp": "LMTP",
    "starttls": "`STARTTLS` offered by the server, and a connection that begins without TLS",
    "auth": "`AUTH` offered by the server, before or inside TLS",
    "clear": "a connection that begins without TLS",
}


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What is known of a target.

    Attributes:
        recipient: Recipient address that the target accepts, without brackets; empty if none is known.
        sender: Envelope sender.
        client: Argument of EHLO.
        keywords_before_tls: Keywords of EHLO before TLS → their parameters; empty with implicit TLS.
        keywords_in_tls: Keywords of EHLO inside TLS → their parameters; empty without TLS.
        credentials: User and password; None without a login.
        lmtp: Whether the target speaks LMTP.
        implicit_tls: Whether connections begin with TLS.
        tls: Whether MAIL requires TLS, so that every probe begins with STARTTLS.
        login: Whether MAIL requires a login.
        noop_code: Reply to a plain NOOP; 0 if there is none in time.
        noop_ns: How long that reply takes, nanoseconds.
    """

    recipient: str = ""
    sender: str = "probe@sender.example"
    client: str = "client.example"
    keywords_before_tls: Mapping[str, str] = field(default_factory=dict)
    keywords_in_tls: Mapping[str, str] = field(default_factory=dict)
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    lmtp: bool = False
    implicit_tls: bool = False
    tls: bool = False
    login: bool = False
    noop_code: int = 250
    noop_ns: int = 0

    @property
    def extensions(self) -> Mapping[str, str]:
        """Return the keywords that apply where a probe sends MAIL."""
        return self.keywords_in_tls if self.tls or self.implicit_tls else self.keywords_before_tls

    @property
    def login_keywords(self) -> str:
        """Return the mechanisms of AUTH, preferably those inside TLS: some servers offer AUTH only there."""
        return self.keywords_in_tls.get("AUTH", "") or self.keywords_before_tls.get("AUTH", "")

    @property
    def limit_bytes(self) -> int:
        """Return the maximum message size that the target announces (RFC 1870 §3), 0 without one."""
        text = self.extensions.get("SIZE", "").strip()
        return int(text) if text.isdecimal() else 0

    def missing(self, needs: tuple[str, ...]) -> str:
        """Return why a rule with these needs cannot be tested; empty if it can.

        A need is the keyword of an extension, or one of `NEEDS`.
        """
        for need in needs:
            reason = self._missing_reason(need)
            if reason:
                return reason
        return ""

    def _missing_reason(self, need: str) -> str:
        if need == "recipient":
            return "" if self.recipient else "no recipient is known that the server accepts; give one with --recipient"
        if need == "credentials":
            return "" if self.credentials else "no credentials were given"
        if need in ("smtp", "lmtp"):
            return "" if self.lmtp == (need == "lmtp") else f"the rule applies to {need.upper()} only"
        if need == "clear":
            return "the connection begins with TLS" if self.implicit_tls else ""
        if need == "starttls":
            if self.implicit_tls:
                return "the connection begins with TLS"
            return "" if "STARTTLS" in self.keywords_before_tls else "STARTTLS is not offered"
        if need == "auth":
            return "" if self.login_keywords else "AUTH is not offered"
        return "" if need in self.extensions else f"{need} is not offered"
