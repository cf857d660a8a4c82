"""Notes of a result on what its other sections say too, so that a report says each of them once."""

from __future__ import annotations

from typing import Final

from smtpbench.text import plural

#: Beginning of the note for each time in which the server did not answer (`silences` of the result).
STOPPED_ANSWERING: Final = "The server stopped answering: "
#: Beginning of the note where the server accepted no message.
NOTHING_ACCEPTED: Final = "Nothing was accepted, 0 of "
#: Beginnings of the notes on deaths of the server (`server.deaths` of the result).
SERVER_DIED: Final = "The server died ("
DIED_AGAIN: Final = "It died "
#: Beginning of the note where the server used the cores that the generator waited for.
SHARED_CORES: Final = "Server and generator share "
#: Part of the note of a comparison on a generator that was the bottleneck (`limited_runs` of a candidate).
BOTTLENECK: Final = "the generator was the bottleneck in "
#: End of the note of a comparison on too few rounds, before the number that is needed.
TOO_FEW: Final = "too few for an interval"


def silence_note(begin_s: float, end_s: float) -> str:
    """Return the note for a time in which no reply came."""
    return f"{STOPPED_ANSWERING}no reply came from {begin_s:.1f} s to {end_s:.1f} s, although replies were due."


def nothing_accepted_note(messages: int, reason: str) -> str:
    """Return the note for a run of whose messages none was accepted.

    Args:
        messages: Number of messages.
        reason: The most frequent refusal or error; empty if there is none.
    """
    sentence = f"{NOTHING_ACCEPTED}{plural(messages, 'message')}"
    return f"{sentence}; most often: {reason}" if reason else f"{sentence}; no reply and no error says why."


def bottleneck_note(candidate: str, limited: int, runs: int, reasons: str) -> str:
    """Return the note for a candidate in whose runs the generator was the bottleneck."""
    return f"{candidate}: {BOTTLENECK}{limited:,} of {plural(runs, 'run')} ({reasons})."
