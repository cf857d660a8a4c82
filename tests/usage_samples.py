"""Samples of what the processes of a server use, for tests."""

from __future__ import annotations

import trio

from smtpbench.measure.server_usage import UsageSample
from smtpbench.supervisor.usage import UsageSampler


def measured(sampler: UsageSampler) -> UsageSample:
    sample = sampler.measure()
    assert sample is not None
    return sample


async def first_samples(sampler: UsageSampler, count: int) -> list[UsageSample]:
    """Run a sampler until it has taken so many samples; return them."""
    samples: list[UsageSample] = []
    with trio.CancelScope() as scope:

        def add(sample: UsageSample) -> None:
            samples.append(sample)
            if len(samples) == count:
                scope.cancel()

        await sampler.run(add)
    return samples
