"""Replaying findings: on the server that they were found on, and on others, whose limits differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from smtpbench.check.replay import CANNOT_TELL, FIXED, STILL_THERE, read_findings, replay
from smtpbench.check.run import CheckRequest, run_check
from smtpbench.engine import api
from smtpbench.rules.register import find
from smtpbench.scenario.reader import MAX_FILE_BYTES
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.mutants import MUTANTS
from smtpbench.sink.serve import sink_running
from smtpbench.target import Access, parse_target


def access_to(port: int) -> Access:
    return Access(parse_target(f"smtp://127.0.0.1:{port}"))


def statuses(rule: str, session: type[ServerSession], folder: Path, clean_size: int = 100_000) -> list[str]:
    """Check one rule; return the status of its finding on the same server, and on a correct one with this size limit."""

    async def main() -> list[str]:
        context = ServerContext(size_bytes=100_000)
        async with (
            sink_running(context, session_class=session) as sink,
            sink_running(ServerContext(size_bytes=clean_size)) as clean,
        ):
            checked = await run_check(CheckRequest(access_to(sink.port), find([rule])))
            (finding,) = checked.findings
            (folder / "finding.yaml").write_text(finding.to_text())
            files = read_findings([folder])
            return [(await replay(files, access_to(port)))[0].status for port in (sink.port, clean.port)]

    return trio.run(main)


@pytest.mark.parametrize("rule", ["nested-mail-rcpt", "oversize-clean", "overlong-resync"])
def test_finding_is_still_there_or_fixed(rule: str, tmp_path: Path) -> None:
    assert statuses(rule, MUTANTS[rule], tmp_path) == [STILL_THERE, FIXED]


def test_finding_larger_than_a_scenario_may_be_is_replayed(tmp_path: Path) -> None:
    statuses("overlong-resync", MUTANTS["overlong-resync"], tmp_path)
    assert (tmp_path / "finding.yaml").stat().st_size > MAX_FILE_BYTES


def test_message_above_the_limit_is_fixed_where_the_limit_is_higher(tmp_path: Path) -> None:
    assert statuses("oversize-clean", MUTANTS["oversize-clean"], tmp_path, clean_size=50_000_000) == [STILL_THERE, FIXED]


class _BusySession(ServerSession):
    """Refuses its first connections after the check with 421."""

    __slots__ = ()
    refusals = 0

    def connected(self, now_ns: int) -> api.Out:
        if _BusySession.refusals:
            _BusySession.refusals -= 1
            self.pending_action = api.CLOSE
            return b"421 4.3.2 Too busy\r\n"
        return super().connected(now_ns)

    def handle_command(self, line: bytes) -> bytes:
        return b"250 2.0.0 Ok\r\n" if line.startswith(b"RCPT TO:<") else super().handle_command(line)


@pytest.mark.parametrize(("refusals", "expected"), [(2, STILL_THERE), (1_000, CANNOT_TELL)])
def test_busy_server_is_asked_again(refusals: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpbench.check.replay.REFUSAL_RETRY_DELAYS_S", (0.01, 0.01, 0.01))

    async def main() -> str:
        _BusySession.refusals = 0
        async with sink_running(session_class=_BusySession) as sink:
            checked = await run_check(CheckRequest(access_to(sink.port), find(["rcpt-first"])))
            (tmp_path / "finding.yaml").write_text(checked.findings[0].to_text())
            warm_up = await replay(read_findings([tmp_path]), access_to(sink.port))
            assert warm_up[0].status == STILL_THERE
            # what is known of the target comes first, then the session of the finding
            files = read_findings([tmp_path])
            files.append(files[0])

            def report_progress(done: int, path: Path) -> None:
                _BusySession.refusals = refusals if done else 0

            return (await replay(files, access_to(sink.port), report_progress=report_progress))[1].status

    assert trio.run(main) == expected
