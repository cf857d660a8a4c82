"""Every shipped scenario can be fuzzed, on a server that offers what the scenario needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from check_sink import USER, server_context

from smtpbench.fuzz.families import FAMILIES
from smtpbench.fuzz.plan import CampaignPlan
from smtpbench.fuzz.run import FuzzRequest, FuzzResult, fuzz_target
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.load import load_scenario, load_text
from smtpbench.scenario.shipped import shipped_scenarios
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.serve import sink_running
from smtpbench.target import Access, Trust, parse_target

_CASES = 12


def fuzz_shipped(name: str) -> FuzzResult:
    lmtp, implicit_tls = name == "lmtp", name == "implicit-tls"
    context = ServerContext(
        lmtp=lmtp, starttls=not (lmtp or implicit_tls), implicit_tls=implicit_tls, users=dict([USER]), size_bytes=100_000
    )
    scheme = "lmtp" if lmtp else "smtps" if implicit_tls else "smtp"
    plan = CampaignPlan(_CASES, None, 1, 4, tuple(FAMILIES), 20, shrink_s=1.0)

    async def main() -> FuzzResult:
        async with sink_running(context, tls=None if lmtp else server_context()) as sink:
            target = parse_target(f"{scheme}://{USER[0]}@127.0.0.1:{sink.port}")
            access = Access(target, Trust(insecure=True), USER[1])
            return await fuzz_target(FuzzRequest(load_scenario(shipped_scenarios()[name]), access, plan))

    return trio.run(main)


@pytest.mark.parametrize("name", shipped_scenarios())
def test_shipped_scenario_can_be_fuzzed(name: str) -> None:
    fuzz_result = fuzz_shipped(name)
    assert fuzz_result.result["cases"]["run"] == _CASES
    assert fuzz_result.findings == []


@pytest.mark.parametrize(("headers", "size_bytes"), [("", 300), (f"X-Long: {'h' * 900}", None)])
def test_message_whose_header_is_longer_than_its_size_is_extended(headers: str, size_bytes: int | None) -> None:
    text = (
        "session: ['EHLO {client}', 'MAIL FROM:<{sender}>', 'RCPT TO:<{recipient}>', DATA, message, QUIT]\n"
        f"message: {{size: 20KiB, headers: {{{headers}}}}}\n"
    )
    options = CompileOptions(message_bytes=300, extend_message=True)
    (step,) = [step for step in compile_scenario(load_text(text, Path("x.yaml")), options).steps if step.metric == "message"]
    assert step.render is not None
    wire = step.render(0)
    assert isinstance(wire, bytes)
    header, _, body = wire.partition(b"\r\n\r\n")
    assert body.endswith(b"x\r\n.\r\n")
    assert len(wire) - len(b".\r\n") == size_bytes if size_bytes else len(header) > 900
