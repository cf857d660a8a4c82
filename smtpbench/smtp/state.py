"""The protocol's state machine: one table, `(state, verb, reply class) → state`.

Its rules:

- The greeting opens the session. After a 5yz greeting only QUIT is in order (RFC 5321 §3.1).
- EHLO (HELO, and LHLO in LMTP) is in order at any time after the greeting; it clears the mail transaction (§4.1.4).
- RSET clears it too. NOOP, HELP, VRFY and EXPN change nothing. All of them are in order before EHLO (§4.1.4).
- MAIL, then RCPT, then DATA: one transaction at a time (§3.3). DATA needs an accepted recipient.
- The reply to the end of the data ends the transaction, whatever its code (§4.1.1.4). That event is named `message` here.
- A refused command leaves the state as it was (§4.1.4). The exception is BDAT: a refused chunk ends the transaction
  (RFC 3030 §2; a client must send RSET then). The reply to `BDAT … LAST` is a `message` reply.
- STARTTLS goes back to the state after the greeting: even EHLO is forgotten (RFC 3207 §4.2).
- AUTH is in order after EHLO and outside a mail transaction (RFC 4954 §4). Whether the client is authenticated or inside
  TLS is not part of the state: a second AUTH or STARTTLS is refused without an entry in the table.
- 421 closes the session, whatever it replies to (RFC 5321 §3.8).
"""

from __future__ import annotations

from typing import Final, TypeAlias

# Plain strings and not an enum: they are looked up and compared in the server's loop.
State: TypeAlias = str

CONNECTED: Final = "connected"  #: the greeting has not been sent
REFUSED: Final = "refused"  #: greeted with 5yz
GREETED: Final = "greeted"  #: no EHLO yet
READY: Final = "ready"  #: EHLO done, no mail transaction
MAIL: Final = "mail"  #: a transaction without a recipient
RCPT: Final = "rcpt"  #: a transaction with at least one recipient
DATA: Final = "data"  #: after 354: text follows
BDAT: Final = "bdat"  #: a chunk was accepted, the last one is yet to come
CLOSED: Final = "closed"

STATES: Final = (CONNECTED, REFUSED, GREETED, READY, MAIL, RCPT, DATA, BDAT, CLOSED)
#: The states of an open mail transaction.
TRANSACTION: Final = frozenset((MAIL, RCPT, DATA, BDAT))

# Two events that get replies like commands.
BANNER: Final = "banner"  #: the connection itself; its reply is the greeting
MESSAGE: Final = "message"  #: the end of the data: the final dot, or BDAT LAST

_SAME = ""
_COMMANDS = (GREETED, READY, MAIL, RCPT, BDAT)
_AFTER_EHLO = (READY, MAIL, RCPT, BDAT)

_TRANSITION_TABLE: tuple[tuple[tuple[State, ...], tuple[str, ...], tuple[int, ...], State], ...] = (
    # states, verbs, reply classes, state that follows (_SAME: no change)
    ((CONNECTED,), (BANNER,), (2,), GREETED),
    ((CONNECTED,), (BANNER,), (4, 5), REFUSED),
    (_COMMANDS, ("EHLO", "HELO", "LHLO"), (2,), READY),
    (_COMMANDS, ("NOOP", "HELP", "VRFY", "EXPN"), (2,), _SAME),
    ((GREETED,), ("RSET",), (2,), GREETED),
    (_AFTER_EHLO, ("RSET",), (2,), READY),
    (_AFTER_EHLO, ("STARTTLS",), (2,), GREETED),
    ((READY,), ("AUTH",), (2, 3), READY),
    ((READY,), ("ETRN",), (2,), READY),
    ((READY,), ("MAIL",), (2,), MAIL),
    ((MAIL, RCPT), ("RCPT",), (2,), RCPT),
    ((RCPT,), ("DATA",), (3,), DATA),
    ((DATA,), (MESSAGE,), (2, 4, 5), READY),
    ((RCPT, BDAT), ("BDAT",), (2,), BDAT),
    ((RCPT, BDAT), ("BDAT",), (4, 5), READY),
    ((RCPT, BDAT), (MESSAGE,), (2, 4, 5), READY),
    ((REFUSED, *_COMMANDS), ("QUIT",), (2,), CLOSED),
)

TRANSITIONS: Final[dict[tuple[State, str, int], State]] = {
    (state, verb, reply_class): target or state
    for states, verbs, classes, target in _TRANSITION_TABLE
    for state in states
    for verb in verbs
    for reply_class in classes
}

#: The verbs (and events) that are in order in a state: those that a reply of class 2 or 3 may answer.
IN_ORDER: Final[dict[State, frozenset[str]]] = {
    state: frozenset(verb for at, verb, reply_class in TRANSITIONS if at == state and reply_class in (2, 3))
    for state in STATES
}


def after(state: State, verb: str, code: int) -> State:
    """Return the state of a server after it replied to `verb` with `code`.

    A reply that is not in the table changes nothing: a refusal, or a success that was out of order.
    """
    if code == 421:
        return CLOSED
    return TRANSITIONS.get((state, verb, code // 100), state)
