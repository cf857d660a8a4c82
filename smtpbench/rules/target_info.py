"""What a target offers: its extensions in the clear and inside TLS, and what the user says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from smtpbench.smtp.reply import Reply


def keywords(reply: Reply) -> dict[str, str]:
    """The extensions of a reply to EHLO: upper-case keyword → its parameters, as they stand (RFC 5321 §4.1.1.1)."""
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.decode("latin-1").strip().partition(" ")
        # `AUTH=LOGIN`: an old way to write it, which some servers add for old clients
        keyword, equals, first = keyword.partition("=")
        if keyword and not (equals and keyword.upper() in found):
            found[keyword.upper()] = f"{first} {parameters}".strip() if equals else parameters
    return found


#: What a rule may need of a target, apart from an extension, which its keyword names.
NEEDS: Final[Mapping[str, str]] = {
    "recipient": "a recipient that the server accepts (`--recipient`)",
    "credentials": "a login (a user in the URL of the target, and a password)",
    "smtp": "SMTP; the rule does not hold for LMTP",
    "lmtp": "LMTP",
    "starttls": "`STARTTLS` offered by the server, and a connection that begins without TLS",
    "auth": "`AUTH` offered by the server, before or inside TLS",
    "clear": "a connection that begins without TLS",
}


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What is known of a target before it is tried.

    recipient: a mailbox that it takes mail for, without brackets; empty where none was found. sender: whom mail comes from.
    client: what EHLO says. clear, inside: the keywords of EHLO in the clear and inside TLS (empty where there is none).
    credentials: (user, password), or None. lmtp: LMTP is spoken. tls: the connection begins with TLS, or TLS is demanded
    before MAIL, so that every probe begins with STARTTLS. login: AUTH is demanded before MAIL.
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

    @property
    def extensions(self) -> Mapping[str, str]:
        """The keywords that hold where probes are spoken."""
        return self.keywords_in_tls if self.tls or self.implicit_tls else self.keywords_before_tls

    @property
    def login_keywords(self) -> str:
        """The mechanisms of AUTH, where it is offered: inside TLS first, for some offer it only there."""
        return self.keywords_in_tls.get("AUTH", "") or self.keywords_before_tls.get("AUTH", "")

    @property
    def limit_bytes(self) -> int:
        """The largest message it says it takes (RFC 1870 §3), 0 where it names no limit."""
        text = self.extensions.get("SIZE", "").strip()
        return int(text) if text.isdecimal() else 0

    def missing(self, needs: tuple[str, ...]) -> str:
        """Why a rule with these needs cannot be tried; nothing where it can.

        A need is the keyword of an extension, or one of `NEEDS`.
        """
        for need in needs:
            reason = self._lacks(need)
            if reason:
                return reason
        return ""

    def _lacks(self, need: str) -> str:
        if need == "recipient":
            return "" if self.recipient else "no recipient is known that it takes mail for; name one with --recipient"
        if need == "credentials":
            return "" if self.credentials else "no login was given"
        if need in ("smtp", "lmtp"):
            return "" if self.lmtp == (need == "lmtp") else f"for {need.upper()} only"
        if need == "clear":
            return "the connection begins with TLS" if self.implicit_tls else ""
        if need == "starttls":
            if self.implicit_tls:
                return "the connection begins with TLS"
            return "" if "STARTTLS" in self.keywords_before_tls else "STARTTLS is not offered"
        if need == "auth":
            return "" if self.login_keywords else "AUTH is not offered"
        return "" if need in self.extensions else f"{need} is not offered"
