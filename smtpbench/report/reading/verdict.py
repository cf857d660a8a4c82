"""The verdict on a result: one word for how it ended, and one sentence for each cause.

Every report prints the lines of a verdict as they are, the gravest first, and says none of their causes a second time. A
cause is a status, a threshold, findings, a server that stopped answering, a generator that was the bottleneck, and the like.
A run without thresholds has one that says how much was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from smtpbench.measure.comparison import CANNOT_TELL, NO_DIFFERENCE
from smtpbench.measure.notes import BOTTLENECK, DIED_AGAIN, NOTHING_ACCEPTED, SERVER_DIED, STOPPED_ANSWERING, TOO_FEW
from smtpbench.measure.saved import CAPACITY, CHECK, COMPARISON, FUZZ, RUN, Saved
from smtpbench.report.reading.capacity import OBJECTIVE, OWN_LIMITS, capacity_of, server_at_the_knee
from smtpbench.report.reading.comparison import ComparedMetric, candidates_of, compared_metrics_of, compared_rules_of
from smtpbench.report.reading.exit_code import nothing_accepted
from smtpbench.report.reading.findings import SavedFinding, candidates_text, cases_of, findings_of, rules_of
from smtpbench.report.reading.formatting import format_rate, format_share
from smtpbench.report.reading.head import COMPLETED, UNKNOWN, generator_of, head_of, machine_of, target_of
from smtpbench.report.reading.lenient import duration_s, records
from smtpbench.report.reading.metrics import hostile_of, load_of, messages_of, thresholds_of, throughput_of
from smtpbench.report.reading.notes import notes_of
from smtpbench.report.reading.server import deaths_of, deaths_text, saturation_text, server_of
from smtpbench.rules.rule import INCONCLUSIVE, PASS, VIOLATED
from smtpbench.text import plural

#: Levels of a cause: what makes the command fail, what puts the figures in doubt, and what is well.
BAD, WARNING, GOOD = "bad", "warning", "good"

PASSED: Final = "PASSED"
FAILED: Final = "FAILED"
DONE: Final = "COMPLETED"
NOTHING: Final = "NOTHING ACCEPTED"
GONE: Final = "TARGET GONE"
DIED: Final = "SERVER DIED"
STALLED: Final = "STALLED"
LIMITED: Final = "GENERATOR LIMITED"
SATURATED: Final = "SERVER SATURATED"
UNCOMPLETED: Final = "NOT COMPLETED"
UNTOLD: Final = "INCONCLUSIVE"
WORSE: Final = "WORSE"
BETTER: Final = "BETTER"
SAME: Final = "NO DIFFERENCE SHOWN"
CANNOT: Final = "CANNOT TELL"
#: Statuses that are no failure of what was tested.
_PAUSED: Final = ("interrupted", "running")
_ABORTED: Final = "aborted"
_STATUS_WORDS: Final = {
    "interrupted": "INTERRUPTED",
    "running": "RUNNING",
    "killed": "KILLED",
    "incomplete": "INCOMPLETE",
    "could-not-run": "COULD NOT RUN",
    _ABORTED: "ABORTED",
}
_MAX_NAMED = 5
#: An open model fell behind if this share of its arrivals waited for a connection, or found none.
_BEHIND_SHARE = 0.05


class Cause(NamedTuple):
    """One reason for a verdict.

    Attributes:
        word: State that it puts the result into, in capitals.
        text: What happened, with its values.
        level: BAD, WARNING or GOOD.
    """

    word: str
    text: str
    level: str = BAD

    @property
    def line(self) -> str:
        """The cause as a line of text."""
        return f"{self.word}: {self.text}" if self.text else self.word


class ResultVerdict(NamedTuple):
    """The verdict on a result.

    Attributes:
        causes: Its causes, the gravest first; never empty.
    """

    causes: Sequence[Cause]

    @property
    def word(self) -> str:
        """The state of the result as one word, or a few."""
        return self.causes[0].word

    @property
    def level(self) -> str:
        """BAD, WARNING or GOOD."""
        return self.causes[0].level

    @property
    def lines(self) -> list[str]:
        """The causes as lines of text; the first is the headline."""
        return [cause.line for cause in self.causes]

    @property
    def by_word(self) -> list[tuple[str, str, list[str]]]:
        """Word, level and texts of the causes, those of one word together."""
        groups = groupby(self.causes, key=lambda cause: (cause.word, cause.level))
        return [(word, level, [cause.text for cause in group if cause.text]) for (word, level), group in groups]


def verdict_of(saved: Saved) -> ResultVerdict:
    """Return the verdict on a result of any kind."""
    status = list(_status(saved))
    causes = [*_deaths(saved), *status, *_CAUSES[saved.kind](saved)]
    if status and saved.kind != RUN:  # what ended early has not shown that all is well; a threshold of a run has its value
        causes = [Cause(UNTOLD, one.text, WARNING) if one.word == PASSED else one for one in causes]
    troubles = [cause for cause in causes if cause.level != GOOD]
    shown = sorted(troubles, key=lambda cause: cause.level != BAD) + [cause for cause in causes if cause.level == GOOD]
    return ResultVerdict(shown or [Cause(DONE, "", GOOD)])


def further_notes_of(saved: Saved) -> list[str]:
    """Return the notes of a result whose content its verdict does not have."""
    return [note for note in notes_of(saved) if not _is_in_verdict(saved, note)]


def replay_verdict(outcomes: Sequence[tuple[str, str]], still_there: str, fixed: str) -> ResultVerdict:
    """Return the verdict on replayed findings.

    Args:
        outcomes: Name and status of each finding.
        still_there: Status of a finding that was seen again.
        fixed: Status of a finding that was not.
    """
    causes = []
    named = [name for name, status in outcomes if status == still_there]
    untold = [name for name, status in outcomes if status not in (still_there, fixed)]
    done = len(outcomes) - len(named) - len(untold)
    if named:
        causes.append(Cause(FAILED, f"{_findings_are(len(named))} still there: {_names(named)}"))
    if untold:
        causes.append(Cause(UNTOLD, f"{plural(len(untold), 'finding')} could not be replayed: {_names(untold)}", WARNING))
    if done:
        causes.append(Cause(PASSED, f"{_findings_are(done)} fixed", GOOD))
    return ResultVerdict(causes or [Cause(UNTOLD, "nothing was replayed", WARNING)])


def _findings_are(count: int) -> str:
    return f"{plural(count, 'finding')} {'is' if count == 1 else 'are'}"


def _names(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    more = len(every) - _MAX_NAMED
    return ", ".join(every[:_MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _status(saved: Saved) -> Iterator[Cause]:
    head = head_of(saved)
    if head.status in _STATUS_WORDS:
        yield Cause(_STATUS_WORDS[head.status], head.reason, WARNING if head.status in _PAUSED else BAD)
    elif head.status not in (COMPLETED, UNKNOWN):  # of another version, or made up
        yield Cause(UNCOMPLETED, ": ".join(filter(None, (head.status, head.reason))))


def _deaths(saved: Saved) -> Iterator[Cause]:
    """How the server died, before what followed from it; of a check or a campaign, findings make the command fail."""
    deaths = deaths_of(saved)
    if deaths:
        fails = saved.kind == RUN or any(finding.counts for finding in findings_of(saved))
        yield Cause(DIED, deaths_text(deaths), BAD if fails else WARNING)


def _achieved(saved: Saved) -> Cause:
    """What a run says that had no thresholds: how much was done."""
    messages = messages_of(saved)
    text = f"{messages['accepted']:,} of {plural(messages['attempted'], 'message')} accepted"
    return Cause(DONE, text, WARNING if messages["failed"] else GOOD)


def _is_in_verdict(saved: Saved, note: str) -> bool:
    if saved.kind == COMPARISON:
        limited = [side.name for side in candidates_of(saved) if side.limited_runs]
        return TOO_FEW in note or any(note.startswith(f"{name}: {BOTTLENECK}") for name in limited)
    if note.startswith((SERVER_DIED, DIED_AGAIN)):
        return bool(deaths_of(saved))
    if note.startswith(STOPPED_ANSWERING):
        return bool(_silences(saved))
    return note.startswith(NOTHING_ACCEPTED) and nothing_accepted(saved)


# -- run ----------------------------------------------------------------------------------------------------------------


def _run(saved: Saved) -> Iterator[Cause]:
    head = head_of(saved)
    for threshold in thresholds_of(saved):
        # the reason of a run that a threshold ended says so already
        if not threshold.passed and not (head.status == _ABORTED and f"{threshold.text} " in head.reason):
            yield Cause(FAILED, threshold.sentence)
    if nothing_accepted(saved):
        note = next((note for note in notes_of(saved) if note.startswith(NOTHING_ACCEPTED)), "")
        count = plural(messages_of(saved)["attempted"], "message")
        yield Cause(NOTHING, f"0 of {note.removeprefix(NOTHING_ACCEPTED)}" if note else f"0 of {count}")
    hostile = hostile_of(saved)
    if hostile is not None and hostile.target_gone:
        yield Cause(GONE, "a hostile session crashed the target")
    yield from _findings(saved, "of the hostile sessions")
    silences = _silences(saved)
    if silences:
        times = [f"from {begin_s:.1f} s to {end_s:.1f} s" for begin_s, end_s in silences]
        yield Cause(STALLED, f"the server did not answer {_names(times)}", WARNING)
    yield from _limited(saved)
    yield from _saturated(saved)
    thresholds = thresholds_of(saved)
    for threshold in thresholds:
        if threshold.passed:
            yield Cause(PASSED, threshold.sentence, GOOD)
    if not thresholds and head.status == COMPLETED and not nothing_accepted(saved):
        yield _achieved(saved)


def _silences(saved: Saved) -> list[tuple[float, float]]:
    """When the server did not answer, (from, to) in seconds."""
    found = [(duration_s(one.get("from_s")), duration_s(one.get("to_s"))) for one in records(saved.result.get("silences"))]
    return [(begin_s, end_s) for begin_s, end_s in found if begin_s is not None and end_s is not None]


def _limited(saved: Saved) -> Iterator[Cause]:
    generator = generator_of(saved)
    if generator.limited:
        consequence = "the figures describe the generator, not the target"
        yield Cause(LIMITED, "; ".join([*generator.limited_reasons, consequence]), WARNING)


def _saturated(saved: Saved) -> Iterator[Cause]:
    """Whether the server's cores were used up: in an open model only where the server fell behind the arrivals."""
    server, load, generator, messages = server_of(saved), load_of(saved), generator_of(saved), messages_of(saved)
    if server is None:
        return
    behind = max(messages["dropped"] + messages["interrupted"], generator.arrivals_waited or 0)
    if load.is_open and (not behind or behind < _BEHIND_SHARE * messages["attempted"]):
        return
    used_s = [value for value in (generator.cpu_user_s, generator.cpu_system_s) if value is not None]
    # a closed model takes all that is left: that server and generator share the cores says nothing
    beside_s = sum(used_s) if used_s and load.is_open else None
    text = saturation_text(server, beside_s, machine_of(saved).cores)
    if text:
        rate = throughput_of(saved)
        at = "" if rate is None else f"at {format_rate(rate)} messages/s "
        # the load of a closed model is what the server takes, so that is no trouble
        yield Cause(SATURATED, f"{at}{text}", WARNING if load.is_open else GOOD)


def _findings(saved: Saved, whose: str = "") -> Iterator[Cause]:
    failing = [finding for finding in findings_of(saved) if finding.counts]
    if failing:
        subject = " ".join(filter(None, (plural(len(failing), "finding"), whose)))
        yield Cause(FAILED, f"{subject}: {_rule_names(failing)}")


def _rule_names(findings: Iterable[SavedFinding]) -> str:
    return _names(f"{finding.rule} ({finding.severity})" for finding in findings)


# -- check and fuzz -----------------------------------------------------------------------------------------------------


def _gone(saved: Saved) -> Iterator[Cause]:
    gone, candidates = target_of(saved).gone, candidates_text(saved)
    if candidates and not gone and deaths_of(saved):  # its deaths are a cause of their own
        yield Cause(GONE, candidates)
    elif gone or candidates:
        what = "the target no longer answers" if gone else "the target died and was started again"
        yield Cause(GONE, "; ".join(filter(None, (what, candidates))))


def _check(saved: Saved) -> Iterator[Cause]:
    yield from _gone(saved)
    rules = rules_of(saved)
    violated = [rule for rule in findings_of(saved) if rule.counts]
    names = {finding.rule for finding in violated}
    if violated:
        yield Cause(FAILED, f"{plural(len(names), 'rule')} violated: {_rule_names(violated)}")
    yield from _limited(saved)
    passed, untold = (sum(rule.verdict == verdict for rule in rules) for verdict in (PASS, INCONCLUSIVE))
    lesser = [f"{rule.name} ({rule.severity})" for rule in rules if rule.verdict == VIOLATED and rule.name not in names]
    rest = [f"violated, but no failure: {_names(lesser)}"] if lesser else []
    rest += [f"{untold:,} inconclusive"] if untold else []
    if not violated and (passed or lesser):
        yield Cause(PASSED, "; ".join([plural(passed, "rule"), *rest]), GOOD)
    elif not violated and not passed:
        yield Cause(UNTOLD, "no rule was verified", WARNING)


def _fuzz(saved: Saved) -> Iterator[Cause]:
    yield from _gone(saved)
    yield from _findings(saved)
    yield from _limited(saved)
    every, cases = findings_of(saved), cases_of(saved)
    if any(finding.counts for finding in every):
        return
    if not cases.run:
        yield Cause(UNTOLD, "no case was run", WARNING)
        return
    known = sum(finding.known for finding in every)
    lesser = [finding for finding in every if not finding.known]
    details = [f"{known:,} in the baseline"] if known else []
    details += [f"no failure: {_rule_names(lesser)}"] if lesser else []
    found = f"{plural(len(every), 'finding')} ({'; '.join(details)})" if every else "no finding"
    yield Cause(PASSED, f"{plural(cases.run, 'case')}, {found}", GOOD)


# -- comparison ---------------------------------------------------------------------------------------------------------


def _comparison(saved: Saved) -> Iterator[Cause]:
    yield from _candidates_worse(saved)
    notes = notes_of(saved)
    for side in candidates_of(saved):
        if side.limited_runs:
            note = next((note for note in notes if note.startswith(f"{side.name}: {BOTTLENECK}")), "")
            runs = plural(len(side.runs) or side.limited_runs, "run")
            extent = note.removeprefix(f"{side.name}: {BOTTLENECK}").removesuffix(".")
            yield Cause(LIMITED, f"{side.name} in {extent or f'{side.limited_runs:,} of {runs}'}", WARNING)
        if side.silences:
            times = [f"from {begin_s:.1f} s to {end_s:.1f} s of {run}" for run, begin_s, end_s in side.silences]
            yield Cause(STALLED, f"{side.name} did not answer {_names(times)}", WARNING)


def _candidates_worse(saved: Saved) -> Iterator[Cause]:
    metrics, rules = compared_metrics_of(saved), compared_rules_of(saved)
    too_few = next((note.removesuffix(".") for note in notes_of(saved) if TOO_FEW in note), "")
    sides = dict.fromkeys((metric.candidate, metric.baseline) for metric in metrics)
    names = [side.name for side in candidates_of(saved)]
    if not metrics:
        sides = dict.fromkeys((name, names[0]) for name in names[1:]) if rules else {}
    for candidate, baseline in sides:
        versus = f"{candidate} against {baseline}"
        own = [metric for metric in metrics if (metric.candidate, metric.baseline) == (candidate, baseline)]
        worse = [_change(metric) for metric in own if metric.worse]
        better = [
            _change(metric) for metric in own if not metric.worse and metric.verdict not in (NO_DIFFERENCE, CANNOT_TELL)
        ]
        worse += [f"violates {rule.name}" for rule in rules if rule.worse and rule.verdicts.get(candidate) == VIOLATED]
        if worse:
            yield Cause(WORSE, f"{versus}: {_list(worse)}")
        if better:
            yield Cause(BETTER, f"{versus}: {_list(better)}", GOOD)
        if not worse and not better:
            untold = sum(metric.verdict == CANNOT_TELL for metric in own)
            if own and untold == len(own):
                yield Cause(CANNOT, f"{versus}: {too_few}" if too_few else versus, WARNING)
            else:
                rest = f"; {plural(untold, 'metric')} cannot be told" if untold else ""
                yield Cause(SAME, f"{versus}{rest}", GOOD)


def _change(metric: ComparedMetric) -> str:
    return f"{metric.metric} {metric.verdict} {metric.change_text}".rstrip()


def _list(texts: Sequence[str]) -> str:
    more = len(texts) - _MAX_NAMED
    return "; ".join(texts[:_MAX_NAMED]) + (f"; and {more:,} more" if more > 0 else "")


# -- capacity -----------------------------------------------------------------------------------------------------------


def _capacity(saved: Saved) -> Iterator[Cause]:
    found = capacity_of(saved)
    own = found.limited_by in OWN_LIMITS
    if found.rate_per_s is None and head_of(saved).status not in (COMPLETED, UNKNOWN):
        yield Cause(UNTOLD, _sentence("no rate met the objectives", found.reason), WARNING)
        return
    if found.rate_per_s is None:
        yield Cause(LIMITED if own else FAILED, _sentence("no rate met the objectives", found.reason))
        return
    rate = f"{format_rate(found.rate_per_s)}/s"
    if found.limited_by != OBJECTIVE:
        sentence = f"the capacity is {_sentence(f'at least {rate}', found.reason)}"
        text = "; ".join(filter(None, (sentence, server_at_the_knee(saved))))
        yield Cause(LIMITED, text, WARNING) if own else Cause(PASSED, text, GOOD)
        return
    text = f"the capacity is {rate}"
    if found.failed_rate_per_s is not None and found.precision_share is not None:
        text += f"; {format_rate(found.failed_rate_per_s)}/s, {format_share(found.precision_share)} more, failed"
    doubts = found.reason.partition("; ")[2]
    yield Cause(PASSED, "; ".join(filter(None, (text, server_at_the_knee(saved), doubts))), GOOD)


def _sentence(beginning: str, reason: str) -> str:
    """A sentence with a reason, which may be the whole sentence."""
    return reason if reason.startswith(beginning) else f"{beginning}: {reason}" if reason else beginning


_CAUSES: Final[dict[str, Callable[[Saved], Iterator[Cause]]]] = {
    RUN: _run,
    CHECK: _check,
    FUZZ: _fuzz,
    COMPARISON: _comparison,
    CAPACITY: _capacity,
}
