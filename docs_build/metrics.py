"""Metrics and thresholds, from the tables that thresholds are parsed with."""

from __future__ import annotations

import re

from docs_build.markup import Page, anchored, block, code, escape_markdown, sentence, table
from smtpbench.threshold import LATENCIES, LIMITS, METRICS, STATISTICS, MetricFamily, limits_of

#: A metric that each placeholder of a family's name may stand for.
_PLACEHOLDERS = {"<verb>": "RCPT", "<code>": "4xx", "<kind>": "timeout", "<latency>": "message", "<statistic>": "p99"}


def pages() -> list[Page]:
    """Return the page."""
    metrics = [(anchored(_anchor(one.name), code(one.name)), _limits(one), sentence(one.meaning)) for one in METRICS]
    latencies = [(anchored(f"latency.{name}", code(name)), sentence(text)) for name, text in LATENCIES.items()]
    latencies.append(("a verb, such as `RCPT`", "From the command to its reply."))
    latencies.append(("a name of the scenario's own", "The key [`as`](scenario-file.md#step.send.as) of a step gives it."))
    statistics = [(anchored(f"statistic.{name}", code(name)), sentence(text)) for name, text in STATISTICS.items()]
    kinds = [(escape_markdown(_kind_words(kind)), escape_markdown(text)) for kind, text in LIMITS.items()]
    parts = [
        "A threshold is a metric, one of `<` `<=` `>` `>=` `==`, and a limit. It stands in the list `thresholds` of a "
        "scenario, in the option `--threshold` of `run` or `--slo` of `capacity`. A metric alone is compared by "
        "`compare` and `diff`.\n",
        block("yaml", "thresholds:\n  - message.p99 < 200ms\n  - failed < 0.1%\n  - throughput > 450/s\n"
                      "  - replies.RCPT.4xx < 5\n  - generator.late_p99 < 10ms\n  - failed@gmail.example < 1%"),
        "## Metrics { #metrics }\n",
        table("keys", ("Metric", "Limit", "Meaning"), metrics),
        "Where a metric has two kinds of limit, the limit decides: `failed < 5` counts messages, `failed < 1%` is their "
        "share of all messages attempted.\n",
        "### Latencies { #latencies }\n",
        table("pairs", ("Latency", "What it measures"), latencies),
        "### Statistics { #statistics }\n",
        table("pairs", ("Statistic", "Meaning"), statistics),
        "## Thresholds { #thresholds }\n",
        table("pairs", ("Limit", "How it is written"), kinds),
        "- A threshold without data fails.\n"
        "- A threshold of one recipient domain has `@` and the domain after the metric: "
        "`message.p99@gmail.example < 500ms`. The metrics of `generator` are those of the whole run only.\n"
        "- With `--abort-on-fail` a run ends when a threshold fails, after the warm-up and the time of `--abort-grace`. "
        "Lower limits of counts are judged at the end only, because more may come.\n"
        "- If a threshold fails, the exit code is [99](exit-codes.md#exit-99).\n",
    ]  # fmt: skip
    return [Page("reference/metrics.md", "Metrics and thresholds", "\n".join(parts))]


def _limits(family: MetricFamily) -> str:
    example = family.name
    for placeholder, word in _PLACEHOLDERS.items():
        example = example.replace(placeholder, word)
    return " or ".join(_kind_words(kind) for kind in limits_of(example))


def _kind_words(kind: str) -> str:
    """`a time, like 200ms` → `time`."""
    return LIMITS[kind].partition(",")[0].removeprefix("a ")


def _anchor(name: str) -> str:
    return re.sub("[<>]", "", name)
