"""The thresholds of a run, during the run and at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smtpbench.engine.api import NEVER
from smtpbench.errors import UsageError
from smtpbench.load.meter import Collector
from smtpbench.load.plan import LoadPlan
from smtpbench.measure.health import Health
from smtpbench.measure.result import generator_section
from smtpbench.measure.thresholds import Figures, describe, evaluate, failed_during_run
from smtpbench.session.script import MESSAGE, Script
from smtpbench.session.transfer import METRIC as TRANSFER
from smtpbench.supervisor.server_record import ServerRecord
from smtpbench.text import did_you_mean
from smtpbench.threshold import Threshold
from smtpbench.units import NS_PER_S

#: Latency metrics of every script.
_COMMON_METRICS = ("connect", "tls", "banner", "transaction", "session")
#: Most domains that an error text names.
_MAX_DOMAINS_NAMED = 10


def metrics_of(script: Script) -> list[str]:
    """Return the latency metrics of a script."""
    metrics = dict.fromkeys(step.metric for step in script.steps if step.metric)
    transfer = [TRANSFER] if any(step.kind == MESSAGE for step in script.steps) else []
    return [*_COMMON_METRICS, *transfer, *metrics]


@dataclass(frozen=True, slots=True)
class ThresholdMonitor:
    """The thresholds of a run.

    Attributes:
        thresholds: Conditions that the run must meet.
        grace_ns: Time after the warm-up from which on a failed threshold ends the run; None if it never does.
    """

    thresholds: Sequence[Threshold] = ()
    grace_ns: int | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        """Recipient domains that the thresholds name."""
        return tuple(dict.fromkeys(one.domain for one in self.thresholds if one.domain))

    def check_metrics(self, script: Script) -> None:
        """Raise UsageError for a latency metric that the script does not have."""
        metrics = metrics_of(script)
        for threshold in self.thresholds:
            if threshold.latency_name and threshold.latency_name not in metrics:
                hint = did_you_mean(threshold.latency_name, metrics) or f"; latencies of the scenario: {', '.join(metrics)}"
                raise UsageError(
                    f"threshold {threshold.text!r}: this scenario has no latency {threshold.latency_name!r}{hint}"
                )

    def check_domains(self, possible: frozenset[str] | None) -> None:
        """Raise UsageError for a recipient domain that no arrival can have.

        Args:
            possible: All domains that an arrival can have; None if they are not known.
        """
        for one in self.thresholds:
            if possible is not None and one.domain and one.domain not in possible:
                ordered = sorted(possible)
                named = ", ".join(ordered[:_MAX_DOMAINS_NAMED]) + (" …" if len(ordered) > _MAX_DOMAINS_NAMED else "")
                raise UsageError(
                    f"threshold {one.text!r}: no message has its first recipient at {one.domain}; "
                    + (f"the recipient domains are {named}" if named else "the scenario names no recipient")
                )

    def abort_reason(self, collector: Collector, plan: LoadPlan, end_s: float, server: ServerRecord | None = None) -> str:
        """Return why a run in progress must end now; empty if it may go on.

        Args:
            collector: Totals so far.
            plan: Load of the run.
            end_s: Age of the run, seconds.
            server: What the server under test has used; None if nothing is known of it.
        """
        window_s = end_s - plan.warmup_ns / NS_PER_S
        sending_s = window_s if plan.sending_ns == NEVER else min(window_s, plan.sending_ns / NS_PER_S)
        if self.grace_ns is None or not self.thresholds or window_s < self.grace_ns / NS_PER_S:
            return ""
        so_far: Mapping[str, Any] | None = None
        if server is not None and server.begun and any(one.path[0] == "server" for one in self.thresholds):
            so_far = server.section(collector.totals.messages["accepted"], growth=False)
        health = health_beside(collector.health, server, plan)
        figures = _figures(collector, plan, window_s, sending_s, health, so_far)
        figures = replace(figures, totals=collector.with_pending())
        return "; ".join(describe(one.to_data()) for one in failed_during_run(self.thresholds, figures))

    def results(
        self,
        collector: Collector,
        plan: LoadPlan,
        window_s: float,
        sending_s: float,
        health: Health | None = None,
        server: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Return `thresholds` of the result.

        Args:
            collector: Totals of the run.
            plan: Load of the run.
            window_s: Length of the measured window, seconds.
            sending_s: Length of the sending window, seconds.
            health: What the generator used, with what others used; None for what the collector knows.
            server: `server` of the result; None without it.
        """
        figures = _figures(collector, plan, window_s, sending_s, health or collector.health, server)
        return [one.to_data() for one in evaluate(self.thresholds, figures)]


def health_beside(health: Health, server: ServerRecord | None, plan: LoadPlan) -> Health:
    """Return what the generator used, with what the server and others used in the same time."""
    if server is None:
        return health
    server_cores, other_cores = server.core_use(health.cpu_user_s + health.cpu_system_s, plan.workers)
    return replace(health, server_cores=server_cores, other_cores=other_cores)


def _figures(
    collector: Collector,
    plan: LoadPlan,
    window_s: float,
    sending_s: float,
    health: Health,
    server: Mapping[str, Any] | None,
) -> Figures:
    closed_model = not plan.open_model
    return Figures(
        collector.totals,
        window_s,
        generator_section(health, collector.totals, window_s, closed_model=closed_model),
        collector.domains,
        closed_model=closed_model,
        sending_s=sending_s,
        server=server,
    )
