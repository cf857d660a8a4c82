"""Markdown, as GitHub shows it: in the summary of a job, a pull request, a README.

Theory of operation
===================

Text from elsewhere (a server, a user, a result) is put into code spans, in which GitHub interprets no markup, HTML, mention,
issue number, emoji or address. The fence of a span is longer than any run of backticks inside it. In a table, a `|` gets a
backslash, which GitHub removes. Where the text has a backslash before the `|` already, the `|` is spelled out, because
GitHub would misread the two together. Dialogues are put into blocks whose fence is longer than any of theirs. Text that was
read by `report.reading` holds no line end, so no block can be closed from inside.

Sources: the GitHub Flavored Markdown Spec 0.29 and the table extension of cmark-gfm.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

from smtpbench.measure.comparison import CANNOT_TELL, NO_DIFFERENCE
from smtpbench.measure.recorder import MESSAGE_COUNTS
from smtpbench.measure.saved import CAPACITY, CHECK, COMPARISON, FUZZ, RUN, Saved
from smtpbench.report.reading.capacity import OBJECTIVE, OWN_LIMITS, capacity_steps_of, has_server_figures
from smtpbench.report.reading.comparison import (
    ComparedMetric,
    candidates_of,
    compared_metrics_of,
    compared_rules_of,
    has_compared_rules,
    schedule_of,
)
from smtpbench.report.reading.findings import SavedFinding, SavedVerdict, cases_of, findings_of, verdicts_of
from smtpbench.report.reading.formatting import MISSING, format_instant, format_ms, format_share, rfc_url
from smtpbench.report.reading.head import Head, heads_of
from smtpbench.report.reading.metrics import (
    RESPONSE,
    SERVICE,
    SavedThreshold,
    hostile_of,
    key_figures_of,
    latencies_of,
    load_of,
    metric_order,
    thresholds_of,
)
from smtpbench.report.reading.server import deaths_by_cause, log_lines_by_text, server_of, summary_of_server
from smtpbench.report.reading.verdict import further_notes_of, verdict_of
from smtpbench.rules.rule import CRASH, HANG, INCONCLUSIVE, PASS, SECURITY, SEVERITIES, VIOLATED, VIOLATION, WARNING
from smtpbench.text import plural
from smtpbench.threshold import format_value

#: Findings that are shown with their dialogue; each of the others takes one line.
MAX_DIALOGUES: Final = 50
#: Words that are no markup anywhere in a text.
_PLAIN = re.compile(r"[A-Za-z0-9]+(?:[ -][A-Za-z0-9]+|\.[0-9]+)*")
#: Sentences of characters that are no markup; and what GitHub recognizes in them nevertheless: addresses, emoji, commits and
#: issues.
_SENTENCE = re.compile(r"[A-Za-z][A-Za-z0-9 ,.;:%()/'+-]*")
_RECOGNIZED = re.compile(r"://|www\.|:\S+:|(?:mailto|xmpp):|GH-|[0-9a-f]{7}")
_STATISTICS: Final = ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")
_TITLES: Final = {"run": "Run", "check": "Check", "fuzz": "Fuzz", "comparison": "Comparison", "capacity": "Capacity"}
#: Nouns of the severities that can be counted.
_GROUP_NOUNS: Final = {
    CRASH: "crash",
    HANG: "hang",
    SECURITY: "security violation",
    VIOLATION: "violation",
    WARNING: "warning",
}
#: Groups of verdicts on rules, the gravest first.
_GROUPS: Final = (*SEVERITIES, "passed", "inconclusive")
_MAX_PLAIN = 60
_PASSED_MARK, _INCONCLUSIVE_MARK = "✓", "?"


def markdown(several: Sequence[Saved]) -> str:
    """Return all results: first the rules that servers violate, side by side, then each result."""
    return "\n\n".join(blocks(several)) + "\n"


def blocks(several: Sequence[Saved]) -> Iterator[str]:
    """Yield the same in independent pieces: a heading, a table, a finding."""
    pairs = heads_of(several)
    for kind in (CHECK, FUZZ):
        servers = [(head, saved) for head, saved in pairs if head.kind == kind]
        if len(servers) > 1:
            yield f"## Rules by server: {kind}"
            yield "\n".join(_servers(head for head, _ in servers))
            yield "\n".join(rule_matrix(servers))
    for head, saved in pairs:
        yield from _result(head, saved)


# -- text ---------------------------------------------------------------------------------------------------------------


def code(text: str) -> str:
    """Return text as a code span; simple words stay as they are."""
    if not text or (len(text) < _MAX_PLAIN and _PLAIN.fullmatch(text) and not _RECOGNIZED.search(text)):
        return text
    fence = _fence(text, 1)
    if text[0] == "`" or text[-1] == "`" or (text[0] == text[-1] == " "):
        text = f" {text} "
    return f"{fence}{text}{fence}"


def prose(text: str) -> str:
    """Return a sentence as it is if nothing in it can be markup, else as a code span."""
    return text if _SENTENCE.fullmatch(text) and not _RECOGNIZED.search(text) else code(text)


def fenced(lines: Sequence[str]) -> list[str]:
    """Return lines as a fenced block."""
    fence = _fence("\n".join(lines), 3)
    return [f"{fence}text", *lines, fence]


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * (max(least, longest + 1) if longest >= least else least)


def _table(columns: Sequence[str], table_rows: Iterable[Sequence[str]], right: int, aligned: str = "---:") -> list[str]:
    """A table whose columns from `right` on are aligned to the right, or as `aligned` has it."""
    rule = ["---" if at < right else aligned for at in range(len(columns))]
    return [f"| {' | '.join(map(_escaped_cell, row))} |" for row in (columns, rule, *table_rows)]


def _escaped_cell(cell: str) -> str:
    return cell.replace("\\|", "\\\\x7c").replace("|", "\\|")


def _section_link(section: str) -> str:
    url = rfc_url(section)
    return f"[{section}]({url})" if url else code(section)


def _value(unit: str, value: float | None) -> str:
    return MISSING if value is None else format_value(unit, value)


# -- rules by server ----------------------------------------------------------------------------------------------------


def _servers(heads: Iterable[Head]) -> list[str]:
    table_rows = [(code(head.label), code(head.banner), code(head.target), format_instant(head.started)) for head in heads]
    return _table(("server", "greeting", "target", "tested"), table_rows, right=4)


def rule_matrix(servers: Sequence[tuple[Head, Saved]]) -> list[str]:
    """Return a table with a column for each result, a row for each rule that any server violates, and the counts.

    The rules of the highest severity come first.
    """
    verdicts = [{verdict.name: verdict for verdict in verdicts_of(saved)} for _, saved in servers]
    violated: dict[str, SavedVerdict] = {}
    for by_name in verdicts:
        for verdict in by_name.values():
            if verdict.verdict == VIOLATED:
                violated.setdefault(verdict.name, verdict)
    table_rows = []
    for verdict in sorted(violated.values(), key=lambda one: (one.rank, one.name)):
        cells = [_cell(by_name.get(verdict.name)) for by_name in verdicts]
        table_rows.append((code(verdict.name), _section_link(verdict.section), *cells))
    counts = [Counter(_group(verdict) for verdict in by_name.values()) for by_name in verdicts]
    table_rows += [
        (f"*{group}*", "", *(f"*{count[group]}*" for count in counts))
        for group in _GROUPS
        if any(count[group] for count in counts)
    ]
    labels = (code(head.label) for head, _ in servers)
    lines = _table(("rule", "section", *labels), table_rows, right=2, aligned=":---:")
    if not violated:
        return ["No server violates a rule that was tested.", "", *lines]
    legend = (
        f"{_PASSED_MARK} passed · {_INCONCLUSIVE_MARK} inconclusive (the server does not offer what the rule needs) · "
        f"{MISSING} not tested"
    )
    return [*lines, "", legend]


def _cell(verdict: SavedVerdict | None) -> str:
    if verdict is None:
        return MISSING
    return {PASS: _PASSED_MARK, INCONCLUSIVE: _INCONCLUSIVE_MARK}.get(verdict.verdict) or f"**{verdict.mark.lower()}**"


def _group(verdict: SavedVerdict) -> str:
    return {PASS: "passed", INCONCLUSIVE: "inconclusive"}.get(verdict.verdict) or verdict.severity


# -- a result -----------------------------------------------------------------------------------------------------------


def _result(head: Head, saved: Saved) -> Iterator[str]:
    verdict = verdict_of(saved)
    yield f"## {_TITLES[head.kind]} {code(head.label)} — **{verdict.word}**"
    about = [code(text) for text in (head.scenario, head.target, head.banner) if text]
    about += [format_instant(head.started)] if head.started is not None else []
    if about:
        yield " · ".join(about)
    yield "\n".join(f"- **{one.word}**: {prose(one.text)}" if one.text else f"- **{one.word}**" for one in verdict.causes)
    for part in (_thresholds(saved), _key_figures(saved), _latency(saved), _server(saved)):
        if part:
            yield "\n".join(part)
    yield from _deaths(saved)
    yield from _hostile(saved)
    yield from _comparison(saved)
    yield from _capacity(saved)
    for note in further_notes_of(saved):
        yield f"> {prose(note)}"
    yield from _rules(saved)


def _thresholds(saved: Saved) -> list[str]:
    thresholds = sorted(thresholds_of(saved), key=lambda threshold: threshold.passed)
    table_rows = [
        (
            "passed" if threshold.passed else "**FAILED**",
            code(threshold.text),
            _value(threshold.unit, threshold.value),
            _margin(threshold),
        )
        for threshold in thresholds
    ]
    return _table(("", "threshold", "measured", "margin"), table_rows, right=2) if table_rows else []


def _margin(threshold: SavedThreshold) -> str:
    return MISSING if threshold.margin_share is None else f"{threshold.margin_share:.0%}"


def _key_figures(saved: Saved) -> list[str]:
    """The key figures as a sentence."""
    found = {figure.name: figure.value for figure in key_figures_of(saved)}

    def number_of(name: str) -> float | int | None:
        value = found.get(name)
        return value if isinstance(value, int | float) else None

    def shown(name: str, unit: str = "count") -> str:
        return _value(unit, number_of(name))

    def counted(name: str, noun: str) -> str:
        value = number_of(name)
        return f"{MISSING} {plural(2, noun).partition(' ')[2]}" if value is None else plural(int(value), noun)

    if saved.kind == RUN:
        counts = [
            f"{shown(f'messages.{name}')} {name}"
            for name in MESSAGE_COUNTS
            if found.get(f"messages.{name}") or name in ("accepted", "rejected", "failed")
        ]
        rate = f"**{shown('throughput.messages_per_s', 'per_s')}** accepted over {shown('load.sending_s')} s"
        model = code(str(found.get("load.model", "")))
        return [f"{rate}; {counted('messages.attempted', 'message')} = {' + '.join(counts)}; {model} model"]
    if saved.kind == FUZZ:
        seed = code(str(found.get("seed", MISSING)))
        ran = f"{counted('cases.run', 'case')} run, {counted('cases.confirmed', 'finding')} confirmed, seed {seed}"
        return [ran, *(f"{note}." for note in cases_of(saved).notes)]
    if saved.kind == CAPACITY:
        limited_by = str(found.get("capacity.limited_by", ""))
        bound = "" if limited_by == OBJECTIVE else "at least "
        capacity = f"Capacity: {bound}**{shown('capacity.rate_per_s', 'per_s')}**"
        failed = f"{shown('capacity.failed_rate_per_s', 'per_s')} failed"
        return [f"{capacity}; {failed}; limited by {code(limited_by) or 'nothing'}"]
    return []


def _latency(saved: Saved) -> list[str]:
    if saved.kind in (CHECK, FUZZ):
        return []
    latencies = [latency for latency in latencies_of(saved) if latency.expected]
    if load_of(saved).model == "closed":  # the closed model has no schedule, so response time is service time
        latencies = [latency for latency in latencies if latency.time == SERVICE]
    table_rows = [
        (code(one.metric), one.time, f"{one.samples:,}", *(format_ms(one.ms[name]) for name in _STATISTICS))
        for one in sorted(latencies, key=lambda one: metric_order(one.metric))
    ]
    heads = (name.removesuffix("_ms").replace("_", ".") for name in _STATISTICS)
    return _table(("metric", "time", "count", *heads), table_rows, right=2) if table_rows else []


def _server(saved: Saved) -> list[str]:
    """What the server under test used, as a sentence."""
    server = server_of(saved)
    phrases = summary_of_server(server) if server is not None else []
    return [f"Server: {'; '.join(phrases)}"] if phrases else []


def _deaths(saved: Saved) -> Iterator[str]:
    """How the server died, with its output, and the lines of its log."""
    server = server_of(saved)
    if server is None:
        return
    groups = deaths_by_cause(server.deaths)
    for deaths in groups[:MAX_DIALOGUES]:
        headline = f"**Server died**{deaths.when}: {code(deaths.first.text)}"
        yield "\n".join([headline, *_death_details(deaths.details, deaths.first.output)])
    more = len(groups) - MAX_DIALOGUES
    if more > 0:
        yield f"and {plural(more, 'more cause')} of death."
    if server.log_lines:
        count = len(server.log_lines) + server.log_lines_dropped
        by_text = log_lines_by_text(server.log_lines)
        lines = [line.quoted + (f"  ({number:,} ×)" if number > 1 else "") for line, number in by_text]
        summary = f"<details><summary>{plural(count, 'line')} on errors in the server's log</summary>"
        yield "\n".join([summary, "", *fenced(lines), "", "</details>"])


def _death_details(details: Sequence[tuple[str, str]], output: Sequence[str]) -> list[str]:
    """What is known of a death, as the lines below its headline."""
    lines = ["", *(f"- {name}: {code(value)}" for name, value in details)] if details else []
    if output:
        lines += ["", "<details><summary>Output of the server</summary>", "", *fenced(output), "", "</details>"]
    return lines


def _hostile(saved: Saved) -> Iterator[str]:
    """How hostile sessions affected regular ones."""
    hostile = hostile_of(saved)
    if hostile is None or not hostile.phases:
        return
    crashed = "; **one of them crashed the target**" if hostile.target_gone else ""
    share = f"{hostile.share or 0.0:.1%} of all sessions in the second half"
    yield f"{plural(hostile.sessions, 'hostile session')}, {share}{crashed}. Regular sessions before and beside them:"
    table_rows = [
        (
            phase.name,
            _value("per_s", phase.rate_per_s),
            *(format_ms(phase.ms("message", RESPONSE)[statistic]) for statistic in ("p50_ms", "p99_ms", "max_ms")),
        )
        for phase in hostile.phases
    ]
    yield "\n".join(_table(("", "messages", "message p50", "p99", "max"), table_rows, right=1))


def _comparison(saved: Saved) -> Iterator[str]:
    if saved.kind != COMPARISON:
        return
    sides = []
    for side in candidates_of(saved):
        details = [code(text) for text in (side.target.url, side.target.banner, side.options) if text]
        sides.append(f"- {code(side.name)}: {', '.join(details)}" + (f" ({prose(side.about)})" if side.about else ""))
    if sides:
        yield "\n".join(sides)
    schedule, metrics = schedule_of(saved), compared_metrics_of(saved)
    if schedule.confidence is not None and metrics:
        repeats = plural(schedule.repeats_done, "interleaved round" if schedule.paired else "value")
        yield f"{repeats}{'' if schedule.paired else ' a side'}; simultaneous confidence level {schedule.confidence:.0%}."
    for (baseline, candidate), group in groupby(metrics, key=lambda metric: (metric.baseline, metric.candidate)):
        yield f"### {code(candidate)} compared with {code(baseline)}"
        heads = ("median of", code(baseline), code(candidate), "change", "verdict")
        yield "\n".join(_table(heads, map(_compared_metric, group), right=1))
    if any(metric.verdict not in (NO_DIFFERENCE, CANNOT_TELL) for metric in metrics):
        yield "▲ better than the baseline, ▼ worse than the baseline."
    yield from _compared_rules(saved)


def _compared_metric(metric: ComparedMetric) -> tuple[str, ...]:
    values = (_value(metric.unit, value) for value in (metric.baseline_value, metric.candidate_value))
    differs = metric.verdict not in (NO_DIFFERENCE, CANNOT_TELL)
    verdict = f"**{code(metric.verdict)}** {'▼' if metric.worse else '▲'}" if differs else code(metric.verdict)
    return code(metric.metric), *values, metric.change_text or MISSING, verdict


def _compared_rules(saved: Saved) -> Iterator[str]:
    rules = compared_rules_of(saved)
    if not rules:
        if has_compared_rules(saved):
            yield "All candidates violate the same rules."
        return
    names = list(dict.fromkeys(name for rule in rules for name in rule.verdicts))
    table_rows = []
    for rule in rules:
        marks = [rule.mark(name) for name in names]
        table_rows.append((code(rule.name), *(f"**{mark.lower()}**" if mark.isupper() else code(mark) for mark in marks)))
    yield "### Rules with different verdicts"
    yield "\n".join(_table(("rule", *map(code, names)), table_rows, right=1, aligned=":---:"))


def _capacity(saved: Saved) -> Iterator[str]:
    if saved.kind != CAPACITY:
        return
    table_rows = []
    steps = capacity_steps_of(saved)
    with_server = has_server_figures(steps)
    for step in sorted(steps, key=lambda step: step.rate_per_s or 0):
        failed = [objective.sentence for objective in step.objectives if not objective.passed]
        outcome = "passed" if step.held else "inconclusive" if step.limited_by in OWN_LIMITS else "**FAILED**"
        used = (format_share(step.server_cores_share, 0), format_ms(step.server_cpu_ms_per_message))
        table_rows.append((
            _value("per_s", step.rate_per_s), _value("per_s", step.throughput_per_s), outcome,
            format_ms(step.p50_ms), format_ms(step.p99_ms), format_ms(step.max_ms), *(used if with_server else ()),
            prose(step.why or "; ".join(failed)),
        ))  # fmt: skip
    of_server = ("server, cores", "CPU a message") if with_server else ()
    heads = ("rate", "throughput", "objectives", "message p50", "p99", "max", *of_server, "reason")
    if table_rows:
        yield "\n".join(_table(heads, table_rows, right=len(heads)))


# -- rules and findings -------------------------------------------------------------------------------------------------


def _rules(saved: Saved) -> Iterator[str]:
    counts = Counter(_group(verdict) for verdict in verdicts_of(saved))
    if counts:
        yield "Rules: " + ", ".join(_counted(group, counts[group]) for group in _GROUPS if counts[group]) + "."
    for at, finding in enumerate(findings_of(saved)):
        yield "\n".join(_finding(finding, with_dialogue=at < MAX_DIALOGUES))


def _counted(group: str, count: int) -> str:
    noun = _GROUP_NOUNS.get(group)
    return plural(count, noun) if noun else f"{count} {group}"


def _finding(finding: SavedFinding, *, with_dialogue: bool) -> list[str]:
    known = " (in the baseline)" if finding.known else ""
    section = _section_link(finding.section)
    lines = [f"**{finding.severity}** {code(finding.rule)} {section}{known}: {prose(finding.actual)}"]
    if not with_dialogue:
        return lines
    details = [f"- Required: {prose(finding.requirement)}"] if finding.requirement else []
    seen = [code(finding.reproducibility)] if finding.reproducibility else []
    seen += [f"seen in {plural(finding.hits, 'case')}"] if finding.hits > 1 else []
    details += [f"- Reproduced: {', '.join(seen)}"] if seen else []
    details += [f"- Replay: {code(finding.repeat)}"] if finding.repeat else []
    lines += ["", *details] if details else []
    if finding.death is not None:
        lines += ["", f"Death: {code(finding.death.text)}", *_death_details(finding.death.details, finding.death.output)]
    if finding.log_lines:
        lines += ["", "Log of the server:", "", *fenced([line.quoted for line in finding.log_lines])]
    if finding.dialogue:
        summary = f"<details><summary>Dialogue of <code>{html.escape(finding.id)}</code></summary>"
        lines += ["", summary, "", *fenced(finding.dialogue), "", "</details>"]
    return lines
