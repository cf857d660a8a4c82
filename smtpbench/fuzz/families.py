"""Mutation families: what a fuzzing case can change in a session.

Help texts and shell completion import this module, so it imports nothing that takes time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Name, as `--only` and `--skip` take it → what the mutations of the family do.
FAMILIES: Final[Mapping[str, str]] = {
    "order": "Drop, repeat, swap or insert commands.",
    "argument": "Replace the argument of a command, or append a parameter to it.",
    "line": "End a command line with something other than CRLF.",
    "end": "End the message text with something other than CRLF.CRLF, with commands after it.",
    "dots": "Put dot lines, very long lines or binary octets into the message text.",
    "chunk": "Send the message with BDAT, with a wrong size or a malformed argument.",
    "pipeline": "Send several commands in one write, whether or not PIPELINING is offered.",
    "segment": "Split one write into several TCP segments.",
    "pause": "Pause between two commands, for 1 to 30 ms.",
    "close": "Close, half-close or reset the connection in the middle of the session.",
    "tls": "Send octets directly after STARTTLS, before the TLS handshake.",
    "sasl": "Send malformed, cancelled or oversized AUTH exchanges.",
}
