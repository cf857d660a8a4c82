"""What a reader must know of a result: the notes it holds, and those that its figures give."""

from __future__ import annotations

from smtpbench.measure.saved import Saved
from smtpbench.report.reading.delayed_ack import delayed_ack_note
from smtpbench.report.reading.head import generator_of
from smtpbench.report.reading.lenient import texts


def notes_of(saved: Saved) -> list[str]:
    """Return what a reader must know of a result."""
    return [*texts(saved.result.get("notes")), *filter(None, [delayed_ack_note(saved)])]


def all_notes_of(saved: Saved) -> list[str]:
    """Return the notes of a result, first those on a generator that was the bottleneck."""
    limited = [f"the generator was the bottleneck: {reason}" for reason in generator_of(saved).limited_reasons]
    return limited + notes_of(saved)
