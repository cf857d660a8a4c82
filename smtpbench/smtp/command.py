"""Commands: the verbs, their expected replies, and a parser of their arguments (RFC 5321 §4.1).

The parser reads what a peer sent, so it never raises. It returns what it parsed, or a `Refusal`: the reply that a server
gives. It is as strict as the grammar; each function documents what it tolerates beyond it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

# Sizes that every server must accept (RFC 5321 §4.5.3.1), line ends included.
LOCAL_PART_BYTES: Final = 64
DOMAIN_BYTES: Final = 255
PATH_BYTES: Final = 256
COMMAND_LINE_BYTES: Final = 512
REPLY_LINE_BYTES: Final = 512
TEXT_LINE_BYTES: Final = 1000
MESSAGE_BYTES: Final = 64 * 1024
RECIPIENTS: Final = 100
#: A label of a domain name (RFC 1035 §2.3.4).
LABEL_BYTES: Final = 63

#: The reply classes and codes that mean success, by verb. The name of a verb is also the name of its latency metric.
EXPECTED: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "EHLO": (2,),
        "HELO": (2,),
        "LHLO": (2,),
        "MAIL": (2,),
        "RCPT": (2,),
        "DATA": (3,),
        "BDAT": (2,),
        "RSET": (2,),
        "NOOP": (2,),
        "QUIT": (221,),
        "VRFY": (250, 251, 252),
        "EXPN": (250, 252),
        "HELP": (2,),
        "STARTTLS": (220,),
        "AUTH": (2,),
        "ETRN": (2,),
    }
)


def expected(verb: str) -> tuple[int, ...]:
    """Return the expected classes and codes of a verb, in any case; class 2 for an unknown verb."""
    return EXPECTED.get(verb.upper(), (2,))


def verb_of(octets: bytes) -> str:
    """Return the word that octets begin with, in upper case, known verb or not; empty if they begin otherwise."""
    word = octets[:9].split(None, 1)[:1]
    return word[0].decode("latin-1").upper() if word and word[0].isalpha() else ""


#: Verbs without an argument: one is refused with 501 (RFC 5321 §4.3.2).
WITHOUT_ARGUMENT: Final = frozenset({"DATA", "RSET", "QUIT", "STARTTLS"})
#: Verbs that need an argument.
WITH_ARGUMENT: Final = frozenset({"EHLO", "HELO", "LHLO", "MAIL", "RCPT", "BDAT", "VRFY", "EXPN", "AUTH", "ETRN"})

_ARGUMENTS: Final = {
    "EHLO": "domain",
    "HELO": "domain",
    "LHLO": "domain",
    "MAIL": "FROM:<address>",
    "RCPT": "TO:<address>",
    "BDAT": "octets [LAST]",
    "VRFY": "string",
    "EXPN": "string",
    "AUTH": "mechanism [initial-response]",
    "ETRN": "domain",
}


class Refusal(NamedTuple):
    """A negative reply. Its text echoes nothing that the peer sent.

    Attributes:
        code: Reply code.
        enhanced: Enhanced status code (RFC 3463).
        text: ASCII text.
    """

    code: int
    enhanced: str
    text: str

    @property
    def wire(self) -> bytes:
        """The reply as it is sent, CRLF included."""
        return f"{self.code} {self.enhanced} {self.text}\r\n".encode("ascii")


class Path(NamedTuple):
    """A reverse-path or forward-path.

    Attributes:
        local, domain: Local part and domain as they came, quotes and brackets included. Both are empty for the null sender
            `<>`; the domain is empty for `<Postmaster>`.
        route: A source route such as `@a,@b`, which is parsed and ignored (RFC 5321 appendix C).
        utf8: The path contains other characters than ASCII (RFC 6531 §3.3).
    """

    local: bytes = b""
    domain: bytes = b""
    route: bytes = b""
    utf8: bool = False

    @property
    def mailbox(self) -> bytes:
        """`local@domain`, or `Postmaster`; empty for the null sender."""
        return self.local + b"@" + self.domain if self.domain else self.local


class MailCommand(NamedTuple):
    """The arguments of MAIL.

    Attributes:
        path: Reverse-path.
        parameters: Values by upper-case keyword; None for a parameter without a value.
    """

    path: Path
    parameters: Mapping[str, bytes | None]

    @property
    def size_bytes(self) -> int:
        """The declared size (RFC 1870 §6.1), 0 if none was declared."""
        return int(self.parameters.get("SIZE") or 0)

    @property
    def utf8(self) -> bool:
        """Whether SMTPUTF8 was requested (RFC 6531 §3.4)."""
        return "SMTPUTF8" in self.parameters


class RcptCommand(NamedTuple):
    """The arguments of RCPT.

    Attributes:
        path: Forward-path.
        parameters: Values by upper-case keyword; None for a parameter without a value.
    """

    path: Path
    parameters: Mapping[str, bytes | None]


# -- lines --------------------------------------------------------------------------------------------------------

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_VERB = re.compile(rb"[A-Za-z]+")

NOT_CRLF: Final = Refusal(500, "5.5.2", "A command line ends in CRLF, not in a bare LF")
TOO_LONG: Final = Refusal(500, "5.5.2", "Command line too long")
UNKNOWN: Final = Refusal(500, "5.5.2", "Command not recognised")
CONTROL: Final = Refusal(501, "5.5.2", "Control characters in a command")


def parse_line(line: bytes) -> tuple[str, bytes] | Refusal:
    """Parse a command line with its line end; return the verb in upper case, known or not, and its argument.

    Spaces at the end of the line are tolerated (RFC 5321 §4.1.1). A missing argument is refused, and so is one too many.
    """
    if not line.endswith(b"\r\n"):
        return NOT_CRLF
    name, _, argument = line[:-2].partition(b" ")
    if not _VERB.fullmatch(name):
        return UNKNOWN
    verb = name.decode("ascii").upper()
    if argument:
        if _CONTROL.search(argument):
            return CONTROL
        argument = argument.rstrip(b" ")
    if argument and verb in WITHOUT_ARGUMENT:
        return Refusal(501, "5.5.4", f"{verb} takes no argument")
    if not argument and verb in WITH_ARGUMENT:
        return syntax(verb)
    return verb, argument


def syntax(verb: str) -> Refusal:
    """Return the 501 reply that shows how the command is written."""
    return Refusal(501, "5.5.4", f"Syntax: {verb} {_ARGUMENTS[verb]}")


# -- domains ------------------------------------------------------------------------------------------------------

_LABEL = re.compile(rb"[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]*[A-Za-z0-9\x80-\xff])?")
_HOST_LABEL = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")
_GENERAL_LITERAL = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?:[\x21-\x5a\x5e-\x7e]+")
_SNUM = re.compile(rb"[0-9]{1,3}")


def is_domain(text: bytes, label: re.Pattern[bytes] = _LABEL) -> bool:
    """Whether this is a domain name (RFC 5321 §4.1.2, RFC 6531 §3.3), well-formed UTF-8 where it is not ASCII."""
    if len(text) > DOMAIN_BYTES or not _is_utf8(text):
        return False
    return all(len(part) <= LABEL_BYTES and label.fullmatch(part) for part in text.split(b"."))


def is_literal(text: bytes) -> bool:
    """Whether this is an address literal: `[192.0.2.1]`, `[IPv6:2001:db8::1]`, `[tag:content]` (RFC 5321 §4.1.3)."""
    if not (text.startswith(b"[") and text.endswith(b"]")):
        return False
    content = text[1:-1]
    if content[:5].upper() == b"IPV6:":
        try:
            ipaddress.IPv6Address(content[5:].decode("ascii"))
        except ValueError:
            return False
        return b"%" not in content
    if b":" in content:
        return _GENERAL_LITERAL.fullmatch(content) is not None
    numbers = content.split(b".")
    return len(numbers) == 4 and all(_SNUM.fullmatch(number) and int(number) <= 255 for number in numbers)


def parse_hello(verb: str, argument: bytes) -> bytes | Refusal:
    """Parse the argument of EHLO, HELO or LHLO. Underscores are tolerated, because names of hosts contain them."""
    if is_domain(argument, _HOST_LABEL) or is_literal(argument):
        return argument
    return syntax(verb)


# -- paths --------------------------------------------------------------------------------------------------------

_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+"
_QTEXT = rb"[\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]"
_PATH = re.compile(
    rb"<(?:(?P<route>@[^<>:,@\[\]\" ]+(?:,@[^<>:,@\[\]\" ]+)*):)?"
    rb"(?P<local>" + _ATEXT + rb"(?:\." + _ATEXT + rb")*|\"(?:" + _QTEXT + rb"|\\[\x20-\x7e])*\")"
    rb"@(?P<domain>[A-Za-z0-9.\x80-\xff-]+|\[[^\[\]\\<> ]+\])>"
)
_POSTMASTER = re.compile(rb"<postmaster>", re.IGNORECASE)


def parse_path(text: bytes, *, reverse: bool) -> tuple[Path, bytes] | str:
    """Parse the path that a text begins with; return it and what follows it, or what is wrong with it.

    Args:
        text: The text.
        reverse: A reverse-path, which may be null. A forward-path may be `<Postmaster>` (RFC 5321 §4.1.1.2, §4.1.1.3).
    """
    if reverse and text.startswith(b"<>"):
        return Path(), text[2:]
    if not reverse and (postmaster := _POSTMASTER.match(text)):
        return Path(local=text[1 : postmaster.end() - 1]), text[postmaster.end() :]
    match = _PATH.match(text)
    if match is None:
        return "not <local-part@domain>"
    route, local, domain = match["route"] or b"", match["local"], match["domain"]
    if len(local) > LOCAL_PART_BYTES:
        return f"local part longer than {LOCAL_PART_BYTES} octets"
    if not (is_literal(domain) if domain.startswith(b"[") else is_domain(domain)):
        return "not a domain or address literal"
    if route and not all(is_domain(hop.removeprefix(b"@")) for hop in route.split(b",")):
        return "not a source route"
    utf8 = not match[0].isascii()
    if utf8 and not _is_utf8(match[0]):
        return "not UTF-8"
    return Path(local, domain, route, utf8), text[match.end() :]


# -- MAIL and RCPT ------------------------------------------------------------------------------------------------

MAIL_PARAMETERS: Final = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"})
RCPT_PARAMETERS: Final = frozenset({"NOTIFY", "ORCPT"})


def parse_mail(argument: bytes, offered: frozenset[str]) -> MailCommand | Refusal:
    """Parse `FROM:<reverse-path> [parameters]`. Parameters that are not `offered` get 555."""
    if argument[:5].upper() != b"FROM:":
        return syntax("MAIL")
    parsed = parse_path(argument[5:], reverse=True)
    if isinstance(parsed, str):
        return Refusal(501, "5.1.7", f"Bad sender address: {parsed}")
    path, rest = parsed
    parameters = _parse_parameters(rest, offered & MAIL_PARAMETERS, utf8=True)
    if isinstance(parameters, Refusal):
        return parameters
    if path.utf8 and "SMTPUTF8" not in parameters:
        return Refusal(550, "5.6.7", "This address needs SMTPUTF8")
    if "SMTPUTF8" not in parameters and not argument.isascii():
        return Refusal(501, "5.5.4", "A parameter contains octets that need SMTPUTF8")
    return MailCommand(path, parameters)


def parse_rcpt(argument: bytes, offered: frozenset[str], *, utf8: bool) -> RcptCommand | Refusal:
    """Parse `TO:<forward-path> [parameters]`.

    Args:
        argument: The argument of RCPT.
        offered: The parameters that the server accepts; others get 555.
        utf8: MAIL requested SMTPUTF8.
    """
    if argument[:3].upper() != b"TO:":
        return syntax("RCPT")
    parsed = parse_path(argument[3:], reverse=False)
    if isinstance(parsed, str):
        return Refusal(501, "5.1.3", f"Bad recipient address: {parsed}")
    path, rest = parsed
    if path.utf8 and not utf8:
        return Refusal(553, "5.6.7", "This address needs SMTPUTF8")
    parameters = _parse_parameters(rest, offered & RCPT_PARAMETERS, utf8=utf8)
    if isinstance(parameters, Refusal):
        return parameters
    return RcptCommand(path, parameters)


_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\x80-\xff]+))?")
_SIZE = re.compile(rb"[0-9]{1,20}")
_XTEXT = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_UTF8_XTEXT = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e\x80-\xff]|\+[0-9A-F]{2})*")
_ADDRESS_TYPE = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")
_HEX_PAIR = re.compile(rb"\+([0-9A-F]{2})")


def decode_xtext(value: bytes) -> bytes | None:
    """Return the octets that an xtext stands for (RFC 3461 §4); None if it is not xtext."""
    if not _XTEXT.fullmatch(value):
        return None
    return _HEX_PAIR.sub(lambda match: bytes((int(match[1], 16),)), value)


def _parse_parameters(rest: bytes, offered: frozenset[str], *, utf8: bool) -> dict[str, bytes | None] | Refusal:
    if rest and not rest.startswith(b" "):
        return Refusal(501, "5.5.4", "A space must separate the address from its parameters")
    parameters: dict[str, bytes | None] = {}
    for parameter in rest.split():
        match = _PARAMETER.fullmatch(parameter)
        if match is None:
            return Refusal(501, "5.5.4", "Malformed parameter")
        keyword, value = match[1].decode("ascii").upper(), match[2]
        if keyword not in offered:
            return Refusal(555, "5.5.4", "Unknown parameter")
        if keyword in parameters:
            return Refusal(501, "5.5.4", f"{keyword} is given twice")
        if not _PARAMETER_CHECKS[keyword](value, utf8):
            return Refusal(501, "5.5.4", f"Bad value of {keyword}")
        parameters[keyword] = value
    return parameters


def _is_size(value: bytes | None, utf8: bool) -> bool:
    return value is not None and _SIZE.fullmatch(value) is not None  # RFC 1870 §6.1


def _is_body(value: bytes | None, utf8: bool) -> bool:
    return value is not None and value.upper() in (b"7BIT", b"8BITMIME")  # RFC 6152 §2


def _is_absent(value: bytes | None, utf8: bool) -> bool:
    return value is None  # RFC 6531 §3.4


def _is_ret(value: bytes | None, utf8: bool) -> bool:
    return value is not None and value.upper() in (b"FULL", b"HDRS")  # RFC 3461 §4.3


def _is_envid(value: bytes | None, utf8: bool) -> bool:
    return value is not None and len(value) <= 100 and decode_xtext(value) is not None  # RFC 3461 §4.4


def _is_notify(value: bytes | None, utf8: bool) -> bool:
    """NEVER alone, or a list of the other values (RFC 3461 §4.1)."""
    keywords = (value or b"").upper().split(b",")
    return keywords == [b"NEVER"] or set(keywords) <= {b"SUCCESS", b"FAILURE", b"DELAY"}


def _is_orcpt(value: bytes | None, utf8: bool) -> bool:
    """`type;xtext` of at most 500 octets (RFC 3461 §4.2); the type utf-8 may contain UTF-8 (RFC 6533 §3)."""
    if value is None or len(value) > 500:
        return False
    kind, semicolon, address = value.partition(b";")
    text = _UTF8_XTEXT if utf8 and kind.upper() == b"UTF-8" else _XTEXT
    if not (semicolon and address and _ADDRESS_TYPE.fullmatch(kind)):
        return False
    return text.fullmatch(address) is not None and _is_utf8(address)


def _is_auth(value: bytes | None, utf8: bool) -> bool:
    """`<>` or a mailbox in xtext (RFC 4954 §5)."""
    if value is None or value == b"<>":
        return value is not None
    mailbox = decode_xtext(value)
    if mailbox is None:
        return False
    parsed = parse_path(b"<" + mailbox + b">", reverse=True)
    return not isinstance(parsed, str) and parsed[1] == b""


_PARAMETER_CHECKS: Final[dict[str, Callable[[bytes | None, bool], bool]]] = {
    "SIZE": _is_size,
    "BODY": _is_body,
    "SMTPUTF8": _is_absent,
    "RET": _is_ret,
    "ENVID": _is_envid,
    "NOTIFY": _is_notify,
    "ORCPT": _is_orcpt,
    "AUTH": _is_auth,
}


# -- BDAT and AUTH ------------------------------------------------------------------------------------------------

_BDAT = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)
_AUTH = re.compile(rb"([A-Za-z0-9_-]{1,20})(?: +([^ ]+))?")


def parse_bdat(argument: bytes) -> tuple[int, bool] | Refusal:
    """Parse `octets [LAST]`; return how many octets follow, and whether they end the message (RFC 3030 §2)."""
    match = _BDAT.fullmatch(argument)
    return (int(match[1]), match[2] is not None) if match else syntax("BDAT")


def parse_auth(argument: bytes) -> tuple[str, bytes | None] | Refusal:
    """Parse the argument of AUTH; return the mechanism in upper case and the initial response.

    The response is base64 as it came, or None if there is none. An empty response, written `=` (RFC 4954 §4), is returned
    as empty octets.
    """
    match = _AUTH.fullmatch(argument)
    if match is None:
        return syntax("AUTH")
    initial: bytes | None = match[2]
    return match[1].decode("ascii").upper(), b"" if initial == b"=" else initial


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
