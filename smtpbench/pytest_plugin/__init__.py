"""The pytest plugin: a test mail server that keeps the messages it accepts, and load runs and protocol checks as tests.

Every test run in an environment with smtpbench loads this module. It therefore imports pytest and the standard library only.
What a fixture needs is imported when a test first asks for it.

Fixtures, each for one test:

    smtpbench_sink           a sink on a free port of 127.0.0.1, with the messages that it accepted
    smtpbench_sink_factory   starts more sinks, each with options of its own
    smtpbench_target         the URL of --smtpbench-target, or of the test's smtpbench_sink where the sink was asked for
    smtpbench_run            runs a scenario against smtpbench_target; a failed threshold fails the test
    smtpbench_check          checks smtpbench_target against the protocol rules; a violation fails the test

The sink is asked for by `--smtpbench-target sink`, by the marker `smtpbench_sink`, and by a test that uses the fixture
smtpbench_sink too. Without a target, and where nobody asked for the sink, the last three fixtures skip the test: a test that
ran against the sink alone would pass whatever the server under test does.

Markers: `smtpbench_sink(**options)` sets options of `smtpbench sink` for the test's smtpbench_sink.
`smtpbench(thresholds=[…])` sets thresholds for every run of the test. Both may be set on a class or a module. Of the sink's
options the nearest one applies; thresholds add up.
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

#: Number of runs that a test has made.
RUNS = pytest.StashKey[int]()
#: URL of each sink of a test → the certificate that its clients trust, or None.
SINKS = pytest.StashKey[dict[str, Path | None]]()
#: Value of --smtpbench-target that asks for a sink of each test's own.
OWN_SINK = "sink"
_NO_TARGET = "no server to test: give --smtpbench-target URL, or --smtpbench-target sink to use smtpbench's own test server"
_MARKERS = (
    "smtpbench_sink(**options): options of `smtpbench sink` for this test's smtpbench_sink: "
    "delay='RCPT=20ms', on=['DATA=reset@1%'], self_signed=True …",
    "smtpbench(thresholds=[...]): thresholds for every run of smtpbench_run in this test, like 'message.p99 < 200ms'.",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options on the target and how it is reached."""
    group = parser.getgroup("smtpbench", "smtpbench: load and protocol tests of mail servers")
    group.addoption(
        "--smtpbench-target",
        metavar="URL|sink",
        help="Server to test; sink starts a test server of its own for each test.  [default: none, and tests that need one "
        "are skipped]",
    )
    group.addoption(
        "--smtpbench-password-file", metavar="FILE", help="File whose first line is the password of the target's user."
    )
    group.addoption("--smtpbench-ca", metavar="FILE", help="CA certificates to trust, PEM.")
    group.addoption("--smtpbench-insecure", action="store_true", help="Accept any server certificate.")
    group.addoption(
        "--smtpbench-authorized", action="store_true", help="Confirm that you may test a host other than this machine."
    )
    parser.addini("smtpbench_target", "Server to test, or sink, unless --smtpbench-target is given.", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test with thresholds that made no run, because it has shown nothing."""
    outcome = yield
    if item.get_closest_marker("smtpbench") is not None and not item.stash.get(RUNS, 0):
        pytest.fail("the test is marked with thresholds of smtpbench, but did not call smtpbench_run", pytrace=False)
    return outcome


@pytest.fixture
def smtpbench_sink_factory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., ReceivingSink]]:
    """Function that starts a sink with options of `smtpbench sink`; all sinks end with the test."""
    from smtpbench.pytest_plugin.sink import receiving_sink

    certificates = request.node.stash.setdefault(SINKS, {})
    with ExitStack() as stack:

        def start(**options: Any) -> ReceivingSink:
            sink = stack.enter_context(receiving_sink(lambda: tmp_path_factory.mktemp("smtpbench-tls"), options))
            certificates[sink.url] = sink.certificate
            return sink

        yield start


@pytest.fixture
def smtpbench_sink(request: pytest.FixtureRequest, smtpbench_sink_factory: Callable[..., ReceivingSink]) -> ReceivingSink:
    """Test mail server on a free port of 127.0.0.1 that keeps the messages it accepts; a marker sets its options."""
    options: dict[str, Any] = {}
    for marker in request.node.iter_markers("smtpbench_sink"):
        if marker.args:
            pytest.fail("@pytest.mark.smtpbench_sink takes options by name only, like delay='RCPT=20ms'", pytrace=False)
        options = {**marker.kwargs, **options}
    return smtpbench_sink_factory(**options)


@pytest.fixture
def smtpbench_target(request: pytest.FixtureRequest) -> str:
    """URL of the server to test; the test is skipped where there is none."""
    url = configured_target(request.config)
    if not url and not _asks_for_sink(request):
        pytest.skip(_NO_TARGET)
    if not url or url == OWN_SINK:
        sink: ReceivingSink = request.getfixturevalue("smtpbench_sink")
        return sink.url
    from smtpbench.pytest_plugin.commands import require_permission

    return require_permission(url, authorized=request.config.getoption("smtpbench_authorized"))


@pytest.fixture
def smtpbench_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunScenario:
    """Function that runs a scenario: `smtpbench_run("relay", rate="50/s", duration="2s")`."""
    from smtpbench.pytest_plugin.commands import RunScenario

    return RunScenario(request, tmp_path_factory)


@pytest.fixture
def smtpbench_check(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CheckTarget:
    """Function that checks rules: `smtpbench_check("eod-lf-lf", "eod-lf-crlf")`, or all without a name."""
    from smtpbench.pytest_plugin.commands import CheckTarget

    return CheckTarget(request, tmp_path_factory)


def _asks_for_sink(request: pytest.FixtureRequest) -> bool:
    """Return whether a test names the sink as the server that it is about."""
    return request.node.get_closest_marker("smtpbench_sink") is not None or "smtpbench_sink" in request.fixturenames


def configured_target(config: pytest.Config) -> str:
    """Return the target of the command line or the configuration, a URL or OWN_SINK; empty where neither has one."""
    return str(config.getoption("smtpbench_target") or config.getini("smtpbench_target"))
