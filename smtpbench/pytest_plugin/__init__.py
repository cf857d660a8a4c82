"""The pytest plugin: a mail server that keeps what it is sent, and load runs and protocol checks as tests.

Every test of every project in whose environment smtpbench is installed loads this file, so it imports pytest and the
standard library and nothing else; what the fixtures need is imported when one is first asked for.

Fixtures, each of them for one test:

    smtpbench_sink           a sink on a free port of the loopback, with the mail that it took
    smtpbench_sink_factory   more of them, each with options of its own
    smtpbench_target         the URL that --smtpbench-target names; without one this test's smtpbench_sink
    smtpbench_run            runs a scenario against smtpbench_target; a threshold that fails, fails the test
    smtpbench_check          tries the protocol's rules against it; a violation fails the test

Markers: `smtpbench_sink(**options)` says how this test's smtpbench_sink behaves, in the words of `smtpbench sink`;
`smtpbench(thresholds=[…])` says what every run of the test must hold. Both may stand on a class or a module; the nearest
sink option wins, and thresholds add up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from smtpbench.pytest_plugin.commands import CheckTarget, RunScenario
    from smtpbench.pytest_plugin.sink import ReceivingSink

#: How many runs a test has made.
RUNS = pytest.StashKey[int]()
#: The sinks of a test: URL → the certificate to trust, or None.
SINKS = pytest.StashKey[dict[str, Path | None]]()
_MARKERS = (
    "smtpbench_sink(**options): how this test's smtpbench_sink behaves, in the words of `smtpbench sink`: "
    "delay='RCPT=20ms', on=['DATA=reset@1%'], self_signed=True …",
    "smtpbench(thresholds=[...]): what every run of smtpbench_run in this test must hold, like 'message.p99 < 200ms'.",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the target is, and how to get in."""
    group = parser.getgroup("smtpbench", "smtpbench: load and protocol tests of mail servers")
    group.addoption("--smtpbench-target", metavar="URL", help="The server to test; without one a sink of each test's own.")
    group.addoption("--smtpbench-password-file", metavar="FILE", help="Its first line is the target's password.")
    group.addoption("--smtpbench-ca", metavar="FILE", help="PEM file of the certificate authorities to trust.")
    group.addoption("--smtpbench-insecure", action="store_true", help="Trust any certificate.")
    group.addoption(
        "--smtpbench-authorized", action="store_true", help="You may test this host, although it is not this machine."
    )
    parser.addini("smtpbench_target", "The server to test, where --smtpbench-target names none.", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test with thresholds that made no run has shown nothing."""
    answer = yield
    if item.get_closest_marker("smtpbench") is not None and not item.stash.get(RUNS, 0):
        pytest.fail("marked with thresholds of smtpbench, but smtpbench_run was not called", pytrace=False)
    return answer


@pytest.fixture
def smtpbench_sink_factory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., ReceivingSink]]:
    """Starts sinks: call it with the options of `smtpbench sink`; they end with the test."""
    from smtpbench.pytest_plugin.sink import receiving_sink

    certificates = request.node.stash.setdefault(SINKS, {})
    with ExitStack() as running:

        def start(**options: Any) -> ReceivingSink:
            sink = running.enter_context(receiving_sink(lambda: tmp_path_factory.mktemp("smtpbench-tls"), options))
            certificates[sink.url] = sink.certificate
            return sink

        yield start


@pytest.fixture
def smtpbench_sink(request: pytest.FixtureRequest, smtpbench_sink_factory: Callable[..., ReceivingSink]) -> ReceivingSink:
    """A mail server on a free port of the loopback that keeps what it took; the marker says how it behaves."""
    options: dict[str, Any] = {}
    for marker in request.node.iter_markers("smtpbench_sink"):
        if marker.args:
            pytest.fail("@pytest.mark.smtpbench_sink takes options by name only, like delay='RCPT=20ms'", pytrace=False)
        options = {**marker.kwargs, **options}
    return smtpbench_sink_factory(**options)


@pytest.fixture
def smtpbench_target(request: pytest.FixtureRequest) -> str:
    """The URL of the server to test."""
    named = named_target(request.config)
    if not named:
        sink: ReceivingSink = request.getfixturevalue("smtpbench_sink")
        return sink.url
    from smtpbench.pytest_plugin.commands import allowed

    return allowed(named, authorized=request.config.getoption("smtpbench_authorized"))


@pytest.fixture
def smtpbench_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunScenario:
    """Runs a scenario: `smtpbench_run("relay", rate="50/s", duration="2s")`."""
    from smtpbench.pytest_plugin.commands import RunScenario

    return RunScenario(request, tmp_path_factory)


@pytest.fixture
def smtpbench_check(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CheckTarget:
    """Tries rules: `smtpbench_check("eod-lf-lf", "eod-lf-crlf")`, or all of them."""
    from smtpbench.pytest_plugin.commands import CheckTarget

    return CheckTarget(request, tmp_path_factory)


def named_target(config: pytest.Config) -> str:
    """The target that the command line or the configuration names; empty where neither does."""
    return str(config.getoption("smtpbench_target") or config.getini("smtpbench_target"))
