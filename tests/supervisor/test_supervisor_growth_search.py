"""What makes a server grow or spin, on real servers that leak or spin, and on one that does neither."""

from __future__ import annotations

import trio
from leaking_server import CLEAN, DESCRIPTORS, MEMORY, SPIN, THREADS, LeakingServer, leaking_server

from smtpbench.measure.server_usage import UsageSample
from smtpbench.rules.discover import Fixture, discover, reach
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.runner import SessionRunner, session_runner
from smtpbench.supervisor.busy_loop import busy_share, core_share, find_busy_case
from smtpbench.supervisor.case_kinds import control_kind, example_line, kinds_of
from smtpbench.supervisor.growth import DESCRIPTORS as DESCRIPTORS_RESOURCE
from smtpbench.supervisor.growth import MEMORY as MEMORY_RESOURCE
from smtpbench.supervisor.growth import RESOURCE_OF
from smtpbench.supervisor.growth_search import Growth, GrowthSearch, growth_again
from smtpbench.target import Access, parse_target
from smtpbench.units import NS_PER_S

LINES = {
    "RSET": b"RSET", "EHLO": b"EHLO client.example", "MAIL": b"MAIL FROM:<a@sender.example>", "VRFY": b"VRFY user",
    "RCPT": b"RCPT TO:<user@recipient.example>", "DATA": b"DATA", "QUIT": b"QUIT", "": b"XYZZY",
}  # fmt: skip


async def access_and_info(server: LeakingServer, runner: SessionRunner) -> TargetInfo:
    return (await discover(runner, Fixture.of(access(server))))[0]


def access(server: LeakingServer) -> Access:
    return Access(parse_target(f"smtp://127.0.0.1:{server.port}"))


async def find(fault: str) -> list[Growth]:
    with leaking_server(fault) as server:
        async with session_runner(await reach(access(server)), NS_PER_S) as runner:
            info = await access_and_info(server, runner)
            search = GrowthSearch(runner, server, trio.current_time() + 120)
            return await search.find(kinds_of(info, LINES), control_kind(info))


def test_clean_server_does_not_grow() -> None:
    assert trio.run(find, CLEAN) == []


def test_memory_leak_of_a_command_is_one_finding_with_its_size() -> None:
    (growth,) = trio.run(find, MEMORY)
    assert growth.kind.name == "RSET"
    assert list(growth.slopes) == [MEMORY_RESOURCE]
    assert 99_000 < growth.slopes[MEMORY_RESOURCE].each < 110_000
    assert growth.actual.startswith("memory grows by 9")
    assert "KiB for each RSET (1,000 of them: " in growth.actual
    assert "; 1,000 NOOP: " in growth.actual
    assert (growth.seen, growth.tried) == (3, 3)


def test_leak_of_a_descriptor_for_each_connection_is_one_finding() -> None:
    (growth,) = trio.run(find, DESCRIPTORS)
    assert growth.kind.name == "connection without a command"
    assert growth.resource is DESCRIPTORS_RESOURCE
    assert growth.slopes[DESCRIPTORS_RESOURCE].each == 1


def test_leak_of_threads_and_of_their_memory_is_one_finding() -> None:
    (growth,) = trio.run(find, THREADS)
    assert growth.cause == "threads grow for each VRFY"
    assert {resource.name for resource in growth.slopes} == {"threads", "memory"}


def test_finding_shows_again_where_the_fault_is_and_only_there() -> None:
    (growth,) = trio.run(find, MEMORY)

    async def again(fault: str) -> bool | None:
        with leaking_server(fault) as server:
            async with session_runner(await reach(access(server)), NS_PER_S) as runner:
                info = await access_and_info(server, runner)
                search = GrowthSearch(runner, server, trio.current_time() + 120)
                measured, control = await search.measure(growth.kind), await search.measure(control_kind(info))
                assert measured is not None
                assert control is not None
                resource = RESOURCE_OF["memory"]
                return growth_again(measured, control, resource, growth.slopes[resource].each)

    assert trio.run(again, MEMORY) is True
    assert trio.run(again, CLEAN) is False


def test_measurement_across_a_restart_says_nothing() -> None:
    async def main() -> None:
        with leaking_server(MEMORY) as server:
            async with session_runner(await reach(access(server)), NS_PER_S) as runner:
                info = await access_and_info(server, runner)
                measure = server.measure
                calls = 0

                def measure_and_restart() -> UsageSample | None:
                    nonlocal calls
                    calls += 1
                    server.restarts += calls == 8
                    return measure()

                server.measure = measure_and_restart  # type: ignore[method-assign]  # a restart in the middle
                assert await GrowthSearch(runner, server, trio.current_time() + 60).measure(control_kind(info)) is None

    trio.run(main)


async def busy_verbs(fault: str) -> tuple[float, list[str]]:
    """The share of a core before any case, and what the guilty session sent, without EHLO."""
    with leaking_server(fault) as server:
        async with session_runner(await reach(access(server)), NS_PER_S) as runner:
            info = await access_and_info(server, runner)
            before = await busy_share(server)
            found = await find_busy_case(server, runner, [kind.scripts[0] for kind in kinds_of(info, LINES)])
            assert await busy_share(server) == 0  # it was started again
    if found is None:
        return before, []
    return before, sorted({step.wire[:4].decode() for step in found.session_result.script.steps} - {"EHLO", "QUIT"})


def test_busy_loop_after_a_command_is_found() -> None:
    assert trio.run(busy_verbs, SPIN) == (0, ["VRFY"])


def test_clean_server_is_not_busy() -> None:
    assert trio.run(busy_verbs, CLEAN) == (0, [])


def sample(at_s: float, cpu_s: float, waits: int | None = 0, restarts: int = 0) -> UsageSample:
    return UsageSample(round(at_s * NS_PER_S), cpu_s, 0.0, voluntary_switches=waits, restarts=restarts)


def test_work_on_a_queue_and_restarts_are_no_busy_loop() -> None:
    assert core_share(sample(0, 0), sample(1, 0.9)) == 0.9
    assert core_share(sample(0, 0, None), sample(1, 0.9, None)) == 0.9
    assert core_share(sample(0, 0), sample(1, 0.9, waits=5_000)) == 0
    assert core_share(sample(0, 0), sample(1, 0.9, restarts=1)) == 0
    assert core_share(sample(1, 0), sample(1, 0.9)) == 0


def test_line_of_an_example_has_its_verb() -> None:
    assert example_line(b"RSET\r\n") == ("RSET", b"RSET")
    assert example_line(b"xyzzy 1\r\nRSET\r\n") == ("", b"xyzzy 1")
    assert example_line(b"NOOP " + b"x" * 600 + b"\r\n") == ("", b"")
