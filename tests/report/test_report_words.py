"""One word for one state: what failed has the same name in every report."""

from __future__ import annotations

import re

import pytest
import saved_results

from smtpbench.measure.saved import load
from smtpbench.report.formats.registry import render


@pytest.mark.parametrize("name", ["console", "markdown", "html"])
def test_step_that_failed_is_called_failed_in_every_report(name: str) -> None:
    text = render(name, [saved_results.capacity()])
    assert "FAILED" in text
    assert not re.search(r'\*\*failed\*\*|"bad">failed<|NOT HELD', text)


@pytest.mark.parametrize("name", ["markdown", "html"])
def test_threshold_that_failed_is_called_failed_in_every_report(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = render(name, [load(saved_results.run_folder(tmp_path_factory.mktemp("run"), seconds=2, samples=5))])
    assert "FAILED" in text
    assert not re.search(r"\*\*failed\*\*|NOT HELD", text)
