"""AUTH: RFC 4954. When it may be said, what is no exchange, and that nobody gets in who may not."""

from __future__ import annotations

from collections.abc import Sequence

from smtpbench.rules import rule as r
from smtpbench.rules.lines import accepted, hello, line, login, mail, mechanism_of, opening, raw, said_of, script, starttls
from smtpbench.rules.offer import Offer
from smtpbench.rules.rule import Judgement, Rule
from smtpbench.session.dialogue import Dialogue, Turn
from smtpbench.session.script import Script, Step
from smtpbench.smtp.sasl import encode_line


def _where_offered(offer: Offer) -> tuple[Step, ...]:
    """EHLO where AUTH is offered: inside TLS if it is offered only there."""
    if offer.implicit_tls or (not offer.tls and "AUTH" in offer.clear):
        return (hello(offer),)
    return (hello(offer), starttls(), hello(offer))


def _logged_in(offer: Offer) -> tuple[Step, ...]:
    return (*_where_offered(offer), login(mechanism_of(offer)))


def _auths(dialogue: Dialogue) -> list[Turn]:
    return [turn for turn in dialogue.turns if turn.said.startswith(b"AUTH")]


_TEMPORARY = (421, 430, 432, 450, 451, 454)


def _out_of_order(offer: Offer) -> Sequence[Script]:
    text = f"AUTH {mechanism_of(offer)}"
    in_mail = (*_where_offered(offer), mail(offer)) if not offer.login else (*opening(offer), mail(offer))
    scripts = [script(offer, *in_mail, line(text), listen=False)]
    if offer.credentials:
        scripts.append(script(offer, *_logged_in(offer), line(text), listen=False))
    return scripts


def _refused_with_503(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    in_mail = _auths(dialogues[0])[-1:]
    trouble = ""
    if not accepted(dialogues[0].after(b"MAIL")) or not in_mail:
        trouble = f"MAIL was not taken: {said_of(dialogues[0].after(b'MAIL'))}"
    elif in_mail[0].code != 503 and in_mail[0].code not in _TEMPORARY:
        return r.broken(f"AUTH in a mail transaction was {said_of(in_mail[0])}")
    for take, dialogue in enumerate(dialogues[1:], 1):
        codes = [one.reply.code for one in dialogue.replies()]
        again = _auths(dialogue)[-1]
        if 235 not in codes:
            trouble = "the login was refused"
        elif again.code != 503 and again.code not in _TEMPORARY:
            return r.broken(f"AUTH after a login was {said_of(again)}", take)
    return r.unclear(trouble) if trouble else r.HELD


def _odd_responses(offer: Offer) -> Sequence[Script]:
    mechanism = mechanism_of(offer)
    begin = _where_offered(offer)
    scripts = [
        script(offer, *begin, line(f"AUTH {mechanism}"), raw(octets))
        for octets in (b"*\r\n", b"!no base64!\r\n", b"YQ=Y\r\n")
    ]
    if mechanism == "PLAIN":
        scripts.append(script(offer, *begin, line("AUTH PLAIN !no-base64!")))
    return scripts


_RESPONSES = ("*", "what is no base64", "base64 with = inside it", "an initial response that is no base64")


def _refused_with_501(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        at = next(at for at, turn in enumerate(dialogue.turns) if turn.said.startswith(b"AUTH"))
        turn = dialogue.turns[at]
        if take < 3:
            if turn.code != 334 or at + 1 >= len(dialogue.turns):
                return r.unclear(f"AUTH was {said_of(turn)}", take)
            turn = dialogue.turns[at + 1]
        if turn.code != 501 and turn.code not in _TEMPORARY and turn.codes:
            return r.broken(f"{_RESPONSES[take]} was {said_of(turn)}", take)
    return r.HELD


def _mechanisms(offer: Offer) -> Sequence[Script]:
    scripts = [script(offer, *_where_offered(offer), line("AUTH X-NO-SUCH"))]
    if "PLAIN" in offer.login_keywords.upper().split():
        scripts.append(script(offer, *_where_offered(offer), line("AUTH PLAIN"), line("*")))
    return scripts


def _mechanism_told(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    turn = _auths(dialogues[0])[-1]
    if turn.codes and turn.code not in (504, *_TEMPORARY):
        return r.broken(f"AUTH with an unknown mechanism was {said_of(turn)}")
    for take, dialogue in enumerate(dialogues[1:], 1):
        challenge = _auths(dialogue)[-1].first
        if challenge is not None and challenge.raw == b"334\r\n":
            return r.broken("an empty challenge was written as 334 without the space", take)
    return r.HELD


# -- who gets in ------------------------------------------------------------------------------------------------------

#: Users that nobody made, and passwords that careless code takes for theirs: names that every object of a language has, with
#: what such an object looks like as text; nothing at all; words for nothing.
_STRANGERS = (
    ("nobody-here", "wrong"), ("nobody-here", ""), ("", ""), ("nobody-here", "undefined"), ("nobody-here", "null"),
    ("constructor", "function Object() { [native code] }"), ("toString", "function toString() { [native code] }"),
    ("hasOwnProperty", "function hasOwnProperty() { [native code] }"), ("__proto__", "[object Object]"),
    ("constructor", ""), ("__proto__", "undefined"), ("' OR '1'='1", "' OR '1'='1"), ("*", "*"), ("x" * 2000, "x" * 2000),
)  # fmt: skip
_SPEAKABLE = ("PLAIN", "LOGIN", "CRAM-MD5")
#: Responses of PLAIN that are not three parts.
_SHAPES = (b"", b"\0", b"\0\0", b"\0\0\0", b"\0nobody-here", b"nobody-here\0\0", b"\0nobody-here\0\0wrong")


def _strangers(offer: Offer) -> Sequence[Script]:
    begin = _where_offered(offer)
    offered = offer.login_keywords.upper().split()
    scripts = [
        script(offer, *begin, login(mechanism, stranger), mail(offer))
        for mechanism in _SPEAKABLE if mechanism in offered for stranger in _STRANGERS
    ]  # fmt: skip
    if "PLAIN" in offered:
        scripts += [
            script(offer, *begin, line(b"AUTH PLAIN " + (encode_line(octets) or b"=")), mail(offer)) for octets in _SHAPES
        ]
    return scripts


def _nobody_gets_in(offer: Offer, dialogues: Sequence[Dialogue]) -> Judgement:
    for take, dialogue in enumerate(dialogues):
        if any(one.reply.code == 235 for one in dialogue.replies()):
            mechanism = _auths(dialogue)[0].said.split()[1].decode("latin-1")
            at = take % len(_STRANGERS) if take < len(dialogues) - len(_SHAPES) else -1
            who = f"{_STRANGERS[at][0][:20]!r}, whom nobody made," if at >= 0 else "a response without a user"
            return r.broken(f"{who} was logged in with {mechanism}", take)
    tried = any(_auths(dialogue) and _auths(dialogue)[0].codes for dialogue in dialogues)
    return r.HELD if tried else r.unclear("no mechanism is offered that can be spoken here")


RULES = (
    Rule(
        "R75", "auth-order", "RFC 4954 §4", r.VIOLATION,
        "AUTH is refused in a mail transaction, and once somebody is logged in.",
        "503", needs=("auth",), probe=_out_of_order, judge=_refused_with_503,
    ),
    Rule(
        "R76", "auth-input", "RFC 4954 §4", r.VIOLATION,
        "An exchange that is cancelled with *, or goes on with what is no base64, ends.",
        "501", needs=("auth",), probe=_odd_responses, judge=_refused_with_501,
    ),
    Rule(
        "R77", "auth-mechanism", "RFC 4954 §4", r.VIOLATION,
        "A mechanism that is not known is refused as such; an empty challenge is 334, a space and nothing.",
        "504; 334 and a space", needs=("auth",), probe=_mechanisms, judge=_mechanism_told,
    ),
    Rule(
        "R83", "auth-bypass", "RFC 4954 §6", r.SECURITY, "Nobody is logged in who is not known or has the wrong password.",
        "535 to strangers", needs=("auth",), probe=_strangers, judge=_nobody_gets_in,
    ),
)  # fmt: skip
