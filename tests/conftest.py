"""Fixtures that many tests share, and the rule that in CI nothing may be skipped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> servers.Tls:
    """Certificates of the tests' own CA."""
    return servers.make_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def postfix(tmp_path_factory: pytest.TempPathFactory, tls: servers.Tls) -> Iterator[servers.Server]:
    """A Postfix that takes everything and discards it."""
    with servers.postfix(tmp_path_factory.mktemp("postfix"), tls) as server:
        yield server


@pytest.fixture(scope="session")
def smtp_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """Postfix's smtp-sink."""
    with servers.smtp_sink(tmp_path_factory.mktemp("smtp-sink")) as server:
        yield server


@pytest.fixture(scope="session")
def lmtp_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """Postfix's smtp-sink speaking LMTP."""
    with servers.smtp_sink(tmp_path_factory.mktemp("lmtp-sink"), "-L") as server:
        yield server


@pytest.fixture(scope="session")
def dovecot_lmtp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """Dovecot's LMTP."""
    with servers.dovecot_lmtp(tmp_path_factory.mktemp("dovecot")) as server:
        yield server


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_configure() -> None:
    """Give child processes the default reaction to SIGINT.

    A shell without job control starts background commands (`nohup make test &`) with SIGINT ignored, and children inherit
    that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where real servers are required, a skip is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if servers.REQUIRED and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
