"""Markdown, as GitHub shows it: in a job's summary, a pull request, a README.

Theory of operation
===================

Text that is not ours (a server's, a user's, a result's) stands in code spans, where GitHub knows no markup, HTML, mention,
issue number, emoji or address; the fence of a span is longer than any run of backticks in it. In a table a `|` has a
backslash before it, which GitHub takes away, and where one stood there already it is spelled out, for GitHub would take the
two for something else. Dialogues stand in blocks whose fence is longer than any of theirs, and texts hold no line end
(`reading.words`), so none can be closed from inside.

Sources: the GitHub Flavored Markdown Spec 0.29 and the table extension of cmark-gfm.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

from smtpbench.measure.comparison import CANNOT_TELL, NONE
from smtpbench.measure.recorder import MESSAGE_COUNTS
from smtpbench.measure.saved import CAPACITY, CHECK, COMPARISON, FUZZ, RUN, Saved
from smtpbench.report.reading import findings as judged
from smtpbench.report.reading import metrics as facts
from smtpbench.report.reading.findings import Found, SavedVerdict
from smtpbench.report.reading.metrics import COMPLETED, Head
from smtpbench.report.reading.sections import instant_text, natural, number, records, rfc_url, section, words
from smtpbench.report.terminal.comparison import change_text
from smtpbench.report.terminal.scorecard import mark
from smtpbench.report.terminal.tables import metric_order
from smtpbench.rules.rule import INCONCLUSIVE, PASS, SEVERITIES, VIOLATED
from smtpbench.threshold import format_value
from smtpbench.units import NS_PER_MS, format_duration

#: Findings whose dialogue is shown; of the others a line is.
DIALOGUES: Final = 50
#: Words that are no markup, wherever they stand.
_PLAIN = re.compile(r"[A-Za-z0-9]+(?:[ -][A-Za-z0-9]+|\.[0-9]+)*")
#: Sentences of characters that are no markup; and what GitHub reads out of such as well: addresses, emoji, commits, issues.
_SENTENCE = re.compile(r"[A-Za-z][A-Za-z0-9 ,.;:%()/'+-]*")
_MEANINGFUL = re.compile(r"://|www\.|:\S+:|(?:mailto|xmpp):|GH-|[0-9a-f]{7}")
_STATISTICS: Final = ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")
_TITLES: Final = {"run": "Run", "check": "Check", "fuzz": "Fuzz", "comparison": "Comparison", "capacity": "Capacity"}


def markdown(saved: Sequence[Saved]) -> str:
    """All results: first what several servers break, side by side, then each result."""
    return "\n\n".join(blocks(saved)) + "\n"


def blocks(saved: Sequence[Saved]) -> Iterator[str]:
    """The same in pieces, each of which stands by itself: a heading, a table, a finding."""
    pairs = facts.heads(saved)
    for kind in (CHECK, FUZZ):
        alike = [(head, one) for head, one in pairs if head.kind == kind]
        if len(alike) > 1:
            yield f"## Rules by server: {kind}"
            yield "\n".join(_servers(head for head, _ in alike))
            yield "\n".join(rule_matrix(alike))
    for head, one in pairs:
        yield from _result(head, one)


# -- text ---------------------------------------------------------------------------------------------------------------


def code(text: str) -> str:
    """A text as a code span; simple words stay words."""
    if not text or (len(text) < 60 and _PLAIN.fullmatch(text) and not _MEANINGFUL.search(text)):
        return text
    fence = _fence(text, 1)
    if text[0] == "`" or text[-1] == "`" or (text[0] == text[-1] == " "):
        text = f" {text} "
    return f"{fence}{text}{fence}"


def prose(text: str) -> str:
    """A sentence as words where nothing in it could be more than words, else as a code span."""
    return text if _SENTENCE.fullmatch(text) and not _MEANINGFUL.search(text) else code(text)


def fenced(lines: Sequence[str]) -> list[str]:
    """Lines as a fenced block."""
    fence = _fence("\n".join(lines), 3)
    return [f"{fence}text", *lines, fence]


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * (max(least, longest + 1) if longest >= least else least)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: int, aligned: str = "---:") -> list[str]:
    """right: the first of the columns that are aligned to the right, or as `aligned` says."""
    rule = ["---" if at < right else aligned for at in range(len(columns))]
    return [f"| {' | '.join(map(_unpiped, row))} |" for row in (columns, rule, *rows)]


def _unpiped(cell: str) -> str:
    """A cell that its own `|` do not end."""
    return cell.replace("\\|", "\\\\x7c").replace("|", "\\|")


def _place(text: str) -> str:
    """An RFC's section as a link."""
    url = rfc_url(text)
    return f"[{text}]({url})" if url else code(text)


def _ms(value: float | None) -> str:
    return format_duration(value * NS_PER_MS) if value is not None and value >= 0 else "–"


# -- rules by server ----------------------------------------------------------------------------------------------------


def _servers(heads: Iterable[Head]) -> list[str]:
    rows = [(code(head.label), code(head.banner), code(head.target), instant_text(head.started)) for head in heads]
    return _table(("server", "greeting", "target", "tried"), rows, right=4)


def rule_matrix(alike: Sequence[tuple[Head, Saved]]) -> list[str]:
    """A table: a column a result, by its label; a row a rule that anybody breaks, the gravest first; then the counts."""
    verdicts = [{ruling.name: ruling for ruling in judged.verdicts(one)} for _, one in alike]
    names: dict[str, SavedVerdict] = {}
    for by_name in verdicts:
        for ruling in by_name.values():
            if ruling.verdict == VIOLATED:
                names.setdefault(ruling.name, ruling)
    rows = []
    for ruling in sorted(names.values(), key=lambda one: (one.grave, one.name)):
        cells = [_cell(by_name.get(ruling.name)) for by_name in verdicts]
        rows.append((code(ruling.name), _place(ruling.section), *cells))
    tallies = [Counter(_tally(ruling) for ruling in by_name.values()) for by_name in verdicts]
    rows += [
        (f"*{word}*", "", *(f"*{tally[word]}*" for tally in tallies))
        for word in (*SEVERITIES, "kept", "cannot tell") if any(tally[word] for tally in tallies)
    ]  # fmt: skip
    lines = _table(("rule", "section", *(code(head.label) for head, _ in alike)), rows, right=2, aligned=":---:")
    if not names:
        return ["Nobody breaks a rule that could be tried.", "", *lines]
    return [*lines, "", "✓ kept · ? cannot tell (the rule needs what this server does not offer) · – not tried"]


def _cell(ruling: SavedVerdict | None) -> str:
    if ruling is None:
        return "–"
    word = mark({"verdict": ruling.verdict, "severity": ruling.severity})
    return {PASS: "✓", INCONCLUSIVE: "?"}.get(ruling.verdict) or f"**{word.lower()}**"


def _tally(ruling: SavedVerdict) -> str:
    return {PASS: "kept", INCONCLUSIVE: "cannot tell"}.get(ruling.verdict) or ruling.severity


# -- a result -----------------------------------------------------------------------------------------------------------


def _result(head: Head, saved: Saved) -> Iterator[str]:
    ending = "" if head.status == COMPLETED else f" — **{code(head.status)}**"
    yield f"## {_TITLES[head.kind]} {code(head.label)}{ending}"
    about = [code(text) for text in (head.scenario, head.target, head.banner) if text]
    about += [instant_text(head.started)] if head.started is not None else []
    if about:
        yield " · ".join(about)
    if head.reason:
        yield f"Ended: {prose(head.reason)}"
    for part in (_thresholds(saved), _figures(saved), _latency(saved)):
        if part:
            yield "\n".join(part)
    yield from _beside(saved)
    yield from _comparison(saved)
    yield from _capacity(saved)
    for note in facts.notes(saved):
        yield f"> {prose(note)}"
    yield from _rules(saved)


def _thresholds(saved: Saved) -> list[str]:
    limits = sorted(facts.limits(saved), key=lambda limit: limit.passed)
    rows = [
        ("held" if limit.passed else "**FAILED**", code(limit.text), _value(limit.unit, limit.value), _margin(limit))
        for limit in limits
    ]  # fmt: skip
    return _table(("", "threshold", "measured", "to spare"), rows, right=2) if rows else []


def _value(unit: str, value: float | None) -> str:
    return "–" if value is None else format_value(unit, value)


def _margin(limit: facts.Limit) -> str:
    return "–" if limit.margin_share is None else f"{limit.margin_share:.0%}"


def _figures(saved: Saved) -> list[str]:
    """The key figures in a sentence."""
    found = {one.name: one.value for one in facts.figures(saved)}

    def shown(name: str, unit: str = "count") -> str:
        value = found.get(name)
        return _value(unit, value if isinstance(value, int | float) else None)

    if saved.kind == RUN:
        counts = [f"{shown(f'messages.{name}')} {name}" for name in MESSAGE_COUNTS
                  if found.get(f"messages.{name}") or name in ("accepted", "rejected", "failed")]  # fmt: skip
        rate = f"**{shown('throughput.messages_per_s', 'per_s')}** accepted over {shown('load.window_s', 'count')} s"
        model = code(str(found.get("load.model", "")))
        return [f"{rate}; {shown('messages.attempted')} messages = {' + '.join(counts)}; {model} model"]
    if saved.kind == FUZZ:
        seed = code(str(found.get("seed", "–")))
        return [f"{shown('cases.run')} cases run, {shown('cases.confirmed')} findings confirmed, seed {seed}"]
    if saved.kind == CAPACITY:
        limited = str(found.get("capacity.limited_by", ""))
        least = "" if limited == "objective" else "at least "
        told = f"Capacity: {least}**{shown('capacity.rate_per_s', 'per_s')}**"
        failed = f"{shown('capacity.failed_rate_per_s', 'per_s')} did not hold"
        return [f"{told}; {failed}; limited by {code(limited) or 'nothing'}"]
    return []


def _latency(saved: Saved) -> list[str]:
    if saved.kind in (CHECK, FUZZ):
        return []
    times = [one for one in facts.times(saved) if one.ok]
    if section(saved.result, "load").get("model") == "closed":  # there the two are the same
        times = [one for one in times if one.time == "service"]
    rows = [
        (code(one.slot), one.time, f"{one.samples:,}", *(_ms(one.ms[name]) for name in _STATISTICS))
        for one in sorted(times, key=lambda one: metric_order(one.slot))
    ]  # fmt: skip
    heads = (name.removesuffix("_ms").replace("_", ".") for name in _STATISTICS)
    return _table(("slot", "time", "count", *heads), rows, right=2) if rows else []


def _beside(saved: Saved) -> Iterator[str]:
    """What hostile sessions did to honest ones."""
    found = facts.phases(saved)
    if found:
        hostile = section(saved.result, "hostile")
        cases, share = natural(section(hostile, "cases").get("run")), number(hostile.get("share")) or 0.0
        gone = "; **the target died of one of them**" if hostile.get("target_gone") is True else ""
        yield f"{cases:,} hostile sessions, {share:.1%} of all in the second half{gone}. Honest ones before and beside them:"
        rows = [(one.name, _value("per_s", one.rate_per_s), *map(_ms, one.message_ms)) for one in found]
        yield "\n".join(_table(("", "messages", "message p50", "p99", "max"), rows, right=1))


def _comparison(saved: Saved) -> Iterator[str]:
    if saved.kind != COMPARISON:
        return
    sides = []
    for side in records(saved.result.get("candidates")):
        target = section(side, "target")
        told = [code(words(text)) for text in (target.get("url"), target.get("banner"), side.get("options")) if words(text)]
        about = words(side.get("about"))
        sides.append(f"- {code(words(side.get('name')))}: {', '.join(told)}" + (f" ({prose(about)})" if about else ""))
    if sides:
        yield "\n".join(sides)
    plan, shifts = section(saved.result, "plan"), facts.shifts(saved)
    confidence = number(plan.get("confidence"))
    if confidence is not None and shifts:
        how = "rounds in turns" if plan.get("paired") is True else "values a side"
        yield f"{natural(plan.get('repeats_done')):,} {how}; all intervals together hold with {confidence:.0%}."
    for (baseline, candidate), group in groupby(shifts, key=lambda shift: (shift.baseline, shift.candidate)):
        yield f"### {code(candidate)} against {code(baseline)}"
        heads = ("median of", code(baseline), code(candidate), "change", "verdict")
        yield "\n".join(_table(heads, map(_shift, group), right=1))
    if any(shift.verdict not in (NONE, CANNOT_TELL) for shift in shifts):
        yield "▲ better, ▼ worse than the first."
    yield from _broken_differently(saved)


def _shift(shift: facts.ComparedMetric) -> tuple[str, ...]:
    values = (_value(shift.unit, value) for value in (shift.baseline_value, shift.candidate_value))
    shown = shift.verdict not in (NONE, CANNOT_TELL)
    verdict = f"**{code(shift.verdict)}** {'▼' if shift.worse else '▲'}" if shown else code(shift.verdict)
    return code(shift.metric), *values, change_text(shift.to_data()) or "–", verdict


def _broken_differently(saved: Saved) -> Iterator[str]:
    entries = facts.broken_differently(saved)
    if not entries:
        if section(saved.result, "rules"):
            yield "They break the same rules."
        return
    names = list(dict.fromkeys(name for entry in entries for name in entry.verdicts))
    rows = []
    for entry in entries:
        marks = [mark({"verdict": entry.verdicts.get(name, "not-run"), "severity": entry.severity}) for name in names]
        rows.append((code(entry.name), *(f"**{word.lower()}**" if word.isupper() else code(word) for word in marks)))
    yield "### Rules that they break differently"
    yield "\n".join(_table(("rule", *map(code, names)), rows, right=1, aligned=":---:"))


def _capacity(saved: Saved) -> Iterator[str]:
    if saved.kind != CAPACITY:
        return
    reason = words(section(saved.result, "capacity").get("reason"))
    rows = []
    for step in sorted(facts.steps(saved), key=lambda step: step.rate_per_s or 0):
        objectives = [limit.said for limit in step.limits if not limit.passed]
        doubtful = step.limited_by in ("generator", "connections")
        held = "held" if step.held else "cannot tell" if doubtful else "**did not hold**"
        why = step.why or "; ".join(objectives)
        rows.append((
            _value("per_s", step.rate_per_s), _value("per_s", step.throughput_per_s), held,
            _ms(step.p50_ms), _ms(step.p99_ms), _ms(step.max_ms), prose(why),
        ))  # fmt: skip
    if reason:
        yield prose(reason)
    heads = ("rate", "throughput", "", "message p50", "p99", "max", "why")
    if rows:
        yield "\n".join(_table(heads, rows, right=7))


# -- rules and findings -------------------------------------------------------------------------------------------------


def _rules(saved: Saved) -> Iterator[str]:
    tally = Counter(_tally(ruling) for ruling in judged.verdicts(saved))
    if tally:
        yield "Rules: " + ", ".join(f"{count} {word}" for word, count in tally.most_common()) + "."
    for at, one in enumerate(judged.findings(saved)):
        yield "\n".join(_finding(one, with_dialogue=at < DIALOGUES))


def _finding(one: Found, *, with_dialogue: bool) -> list[str]:
    known = " (in the baseline)" if one.known else ""
    lines = [f"**{one.severity}** {code(one.rule)} {_place(one.section)}{known}: {prose(one.actual)}"]
    if not with_dialogue:
        return lines
    told = [f"- Required: {prose(one.requirement)}"] if one.requirement else []
    seen = [code(one.reproducibility)] if one.reproducibility else []
    seen += [f"met {one.hits:,} times"] if one.hits > 1 else []
    told += [f"- Seen: {', '.join(seen)}"] if seen else []
    told += [f"- Again: {code(one.repeat)}"] if one.repeat else []
    lines += ["", *told] if told else []
    if one.dialogue:
        summary = f"<details><summary>Dialogue of <code>{html.escape(one.id)}</code></summary>"
        lines += ["", summary, "", *fenced(one.dialogue), "", "</details>"]
    return lines
