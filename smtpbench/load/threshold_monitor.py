"""A run's thresholds while it goes on, and when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smtpbench.errors import UsageError
from smtpbench.load.meter import Collector
from smtpbench.load.plan import LoadPlan
from smtpbench.measure.result import generator_section
from smtpbench.measure.thresholds import Figures, evaluate, failed_for_good, sentence
from smtpbench.session.script import Script
from smtpbench.text import did_you_mean
from smtpbench.threshold import Threshold
from smtpbench.units import NS_PER_S

#: What is timed in every script.
_LATENCY_METRICS = ("connect", "tls", "banner", "transaction", "session")
#: How many domains a message names.
_SHOWN = 10


def metrics_of(script: Script) -> list[str]:
    """Everything that is timed when this script is run."""
    return [*_LATENCY_METRICS, *dict.fromkeys(step.metric for step in script.steps if step.metric)]


@dataclass(frozen=True, slots=True)
class ThresholdMonitor:
    """thresholds: what must hold. grace_ns: after the warm-up, from when on a run that breaks one is ended; None: never."""

    thresholds: Sequence[Threshold] = ()
    grace_ns: int | None = None

    def check(self, script: Script) -> None:
        """Raises UsageError for a slot that the script has not."""
        slots = metrics_of(script)
        for threshold in self.thresholds:
            if threshold.latency_name and threshold.latency_name not in slots:
                hint = did_you_mean(threshold.latency_name, slots) or f"; there are {', '.join(slots)}"
                raise UsageError(f"{threshold.text!r}: nothing is timed as {threshold.latency_name!r}{hint}")

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that they name."""
        return tuple(dict.fromkeys(one.domain for one in self.thresholds if one.domain))

    def check_domains(self, possible: frozenset[str] | None) -> None:
        """Raises UsageError for a domain that is none of the possible ones, where those are known."""
        for one in self.thresholds:
            if possible is not None and one.domain and one.domain not in possible:
                some = sorted(possible)
                known = ", ".join(some[:_SHOWN]) + (" …" if len(some) > _SHOWN else "")
                raise UsageError(
                    f"{one.text!r}: no arrival's first recipient is at {one.domain}; "
                    + (f"there are {known}" if known else "the scenario names no recipient")
                )

    def failed(self, collector: Collector, plan: LoadPlan, end_s: float) -> str:
        """Why the run, end_s seconds old, should go no further; empty where it may."""
        window_s = end_s - plan.warmup_ns / NS_PER_S
        if self.grace_ns is None or not self.thresholds or window_s < self.grace_ns / NS_PER_S:
            return ""
        return "; ".join(
            sentence(one.to_data()) for one in failed_for_good(self.thresholds, _figures(collector, plan, window_s))
        )

    def verdicts(self, collector: Collector, plan: LoadPlan, window_s: float) -> list[dict[str, Any]]:
        """The result's `thresholds`."""
        return [one.to_data() for one in evaluate(self.thresholds, _figures(collector, plan, window_s))]


def _figures(collector: Collector, plan: LoadPlan, window_s: float) -> Figures:
    generator = generator_section(collector.health, collector.totals, window_s, closed_model=not plan.open_model)
    return Figures(collector.totals, window_s, generator, collector.domains)
