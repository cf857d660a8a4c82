"""Thresholds: parsing, and comparison with values."""

from __future__ import annotations

import pytest

from smtpbench.errors import UsageError
from smtpbench.threshold import COUNT, RATE, SHARE, SIZE, SIZE_RATE, TIME, format_value, parse_metric, parse_threshold


@pytest.mark.parametrize(
    ("text", "path", "limit", "kind"),
    [
        ("message.p99<200ms", ("message", "response", "p99"), 200.0, TIME),
        ("message.service.p99.9 <= 1.5s", ("message", "service", "p99.9"), 1500.0, TIME),
        ("RCPT.response.mean < 500us", ("RCPT", "response", "mean"), 0.5, TIME),
        ("my.step.max < 1m", ("my.step", "response", "max"), 60_000.0, TIME),
        ("tls.count > 10", ("tls", "response", "count"), 10.0, COUNT),
        ("failed < 0.1%", ("failed",), 0.001, SHARE),
        ("dropped == 0", ("dropped",), 0.0, COUNT),
        ("attempted >= 1000", ("attempted",), 1000.0, COUNT),
        ("throughput > 30/m", ("throughput",), 0.5, RATE),
        ("replies.RCPT.4xx < 5", ("replies", "RCPT", "4xx"), 5.0, COUNT),
        ("replies.RCPT.550 < 1%", ("replies", "RCPT", "550"), 0.01, SHARE),
        ("replies.NOOP > 3", ("replies", "NOOP"), 3.0, COUNT),
        ("recipients.rejected < 2%", ("recipients", "rejected"), 0.02, SHARE),
        ("errors < 3", ("errors",), 3.0, COUNT),
        ("errors.closed_421 < 3", ("errors", "closed_421"), 3.0, COUNT),
        ("generator.late_p99 < 10ms", ("generator", "late_p99"), 10.0, TIME),
        ("generator.cpu < 80%", ("generator", "cpu"), 0.8, SHARE),
    ],
)
def test_threshold_is_parsed(text: str, path: tuple[str, ...], limit: float, kind: str) -> None:
    threshold = parse_threshold(text)
    assert (threshold.path, threshold.kind) == (path, kind)
    assert threshold.limit == pytest.approx(limit)
    assert parse_threshold(threshold.text) == threshold


@pytest.mark.parametrize(
    ("text", "path", "domain"),
    [
        ("message.p99@gmail.example < 500ms", ("message", "response", "p99"), "gmail.example"),
        ("RCPT.service.p99.9@X.Example<1s", ("RCPT", "service", "p99.9"), "x.example"),
        ("rejected@slow.example < 1%", ("rejected",), "slow.example"),
        ("throughput@x.example > 10/s", ("throughput",), "x.example"),
        ("recipients.rejected@x.example < 5", ("recipients", "rejected"), "x.example"),
        ("replies.RCPT.4xx@x.example < 1%", ("replies", "RCPT", "4xx"), "x.example"),
        ("errors@x.example == 0", ("errors",), "x.example"),
        ("errors.timeout@x.example == 0", ("errors", "timeout"), "x.example"),
        ("failed@xn--bcher-kva.example < 1%", ("failed",), "bücher.example"),
        ("failed@[127.0.0.1] < 1%", ("failed",), "[127.0.0.1]"),
        ("failed@[ipv6:2001:DB8:0::1] < 1%", ("failed",), "[IPv6:2001:db8::1]"),
    ],
)
def test_threshold_of_one_domain_is_parsed(text: str, path: tuple[str, ...], domain: str) -> None:
    threshold = parse_threshold(text)
    assert (threshold.path, threshold.domain) == (path, domain)
    assert threshold.metric == f"{'.'.join(path)}@{domain}"
    assert parse_threshold(threshold.text) == threshold


def test_metric_alone_may_not_have_a_domain() -> None:
    assert parse_threshold("failed < 1%").metric == "failed"
    with pytest.raises(UsageError, match="only thresholds"):
        parse_metric("failed@x.example")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("generator.cpu@x.example < 80%", "for the whole run only"),
        ("failed@ < 1%", "'' is not a domain"),
        ("failed@-x < 1%", "is not a domain"),
        ("failed@[300.1.1.1] < 1%", "is not a domain"),
        ("@x.example < 1%", "is not a metric"),
        ("message@x.example < 1s", "'message' is not a metric"),
        ("", "is not a threshold"),
        ("message.p99", "is not a threshold"),
        ("message.p99 ~ 5ms", "is not a threshold"),
        ("message.p99 < 5", "must be a time"),
        ("message.p999 < 5ms", "is not a metric"),
        ("message.p101 < 5ms", "is not a metric"),
        ("message < 5ms", "is not a metric"),
        ("failed < 5ms", "must be a number or a percentage"),
        ("attempted < 5%", "must be a number"),
        ("throughput > 5", "must be a rate"),
        ("failed < x%", "is not a percentage"),
        ("failed < many", "is not a duration"),
        ("generator.mood < 5", "is not a metric"),
        ("replies.4xx < 5", "is not a metric"),
    ],
)
def test_text_that_is_not_a_threshold_is_refused(text: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        parse_threshold(text)


@pytest.mark.parametrize(
    ("operator", "below", "at", "above"),
    [("<", True, False, False), ("<=", True, True, False), (">", False, False, True), (">=", False, True, True),
     ("==", False, True, False)],
)  # fmt: skip
def test_value_is_compared_with_the_limit(operator: str, below: bool, at: bool, above: bool) -> None:
    threshold = parse_threshold(f"failed {operator} 10")
    assert [threshold.is_met_by(value) for value in (9.0, 10.0, 11.0)] == [below, at, above]


def test_margin_is_positive_if_the_threshold_passes() -> None:
    assert parse_threshold("message.p99 < 200ms").margin(50) == pytest.approx(0.75)
    assert parse_threshold("message.p99 < 200ms").margin(300) == pytest.approx(-0.5)
    assert parse_threshold("throughput > 100/s").margin(150) == pytest.approx(0.5)
    assert parse_threshold("failed < 0%").margin(0.5) is None


@pytest.mark.parametrize(
    ("text", "kind", "limit", "at_the_end"),
    [
        ("server.cpu_ms_per_message < 2ms", TIME, 2.0, False),
        ("server.cpu_s < 1m", TIME, 60_000.0, False),
        ("server.cpu_s > 5s", TIME, 5000.0, True),
        ("server.cpu < 90%", SHARE, 0.9, False),
        ("server.cpu > 10%", SHARE, 0.1, False),
        ("server.rss_max < 500MiB", SIZE, 500 * 2**20, False),
        ("server.rss_max > 1.5KB", SIZE, 1500.0, True),
        ("server.rss_growth < 10MiB/h", SIZE_RATE, 10 * 2**20, True),
        ("server.rss_growth < 1KiB / s", SIZE_RATE, 3600 * 2**10, True),
        ("server.rss_growth <= 60 KB/m", SIZE_RATE, 3_600_000.0, True),
        ("server.fds_max < 1000", COUNT, 1000.0, False),
        ("server.threads_max < 10", COUNT, 10.0, False),
        ("server.read_bytes < 1GiB", SIZE, 2.0**30, False),
        ("server.write_bytes < 0B", SIZE, 0.0, False),
        ("server.restarts == 0", COUNT, 0.0, True),
    ],
)
def test_limits_on_what_the_server_uses(text: str, kind: str, limit: float, at_the_end: bool) -> None:
    threshold = parse_threshold(text)
    assert threshold.kind == kind
    assert threshold.limit == pytest.approx(limit)
    assert threshold.only_at_the_end is at_the_end
    assert threshold.latency_name == ""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("server.rss_max < 500", "must be a size, like 500MiB"),
        ("server.rss_max < 5MiB/h", "must be a size, like 500MiB"),
        ("server.rss_growth < 5MiB", "must be a size per time, like 10MiB/h"),
        ("server.rss_growth < 5/h", "must be a size per time"),
        ("server.rss_growth < 5MiB/d", "is not a rate"),
        ("server.rss_growth < 5XB/h", "is not a size"),
        ("server.cpu < 5MiB", "must be a percentage"),
        ("server.none < 5", "did you mean|is not a metric"),
        ("server.cpu_s@a.example < 5s", "metrics of the server exist for the whole run only"),
        ("throughput > 5MiB/h", "must be a rate"),
    ],
)
def test_wrong_limits_on_what_the_server_uses(text: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        parse_threshold(text)


def test_lower_limits_of_counts_are_evaluated_at_the_end_only() -> None:
    assert parse_threshold("accepted > 10").only_at_the_end
    assert not parse_threshold("failed < 10").only_at_the_end
    assert not parse_threshold("throughput > 10/s").only_at_the_end


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (TIME, 12.345, "12.35 ms"),
        (TIME, 12_000, "12 s"),
        (SHARE, 0.00123, "0.123 %"),
        (RATE, 450, "450.0/s"),
        (COUNT, 17, "17"),
        (SIZE, 64 * 1024, "64.0 KiB"),
        (SIZE_RATE, 1.25 * 2**20, "1.25 MiB/h"),
        (SIZE_RATE, -(2**20), "-1.00 MiB/h"),
    ],
)
def test_values_are_formatted_with_their_units(kind: str, value: float, text: str) -> None:
    assert format_value(kind, value) == text
