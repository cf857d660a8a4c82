"""Watching a run: which view is taken, how often plain lines come, and what the sparks show."""

from __future__ import annotations

import io

import pytest
from figures import busy_recorder, tick

from smtpbench.measure.recorder import Interval
from smtpbench.report.terminal.live import AUTO, LIVE, NONE, PLAIN, sparks, view


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("how", "err", "term", "kind"),
    [
        (AUTO, Terminal(), "xterm", "_Live"),
        (AUTO, Terminal(), "dumb", "_Plain"),
        (AUTO, io.StringIO(), "xterm", "_Plain"),
        (PLAIN, Terminal(), "xterm", "_Plain"),
        (NONE, Terminal(), "xterm", "_Plain"),
        (LIVE, io.StringIO(), "xterm", "_Live"),
    ],
)
def test_the_view_fits_the_stream(how: str, err: io.StringIO, term: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    assert type(view(how, err)).__name__ == kind


def test_plain_lines_come_every_few_seconds_and_hold_no_escapes() -> None:
    err = io.StringIO()
    interval, total = busy_recorder().drain(), Interval()
    total.add(interval)
    with view(PLAIN, err) as shown:
        for second in range(1, 21):
            shown.tick(tick(interval, end_s=second + 0.01), total)
    lines = err.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["1s", "6s", "11s", "16s"]
    assert err.getvalue().replace("\n", "").isprintable()


def test_without_progress_only_what_matters_is_said() -> None:
    err = io.StringIO()
    with view(NONE, err) as shown:
        shown.tick(tick(busy_recorder().drain()), Interval())
        shown.notify("ending")
    assert err.getvalue() == "smtpbench: ending\n"


@pytest.mark.parametrize(
    ("values", "shown"),
    [([], ""), ([0.0, 0.0], "▁▁"), ([5.0], "█"), ([0.0, 1.0, 2.0, 4.0, 8.0], "▁▂▃▅█"), ([1e-9, 1e9], "▁█")],
)
def test_sparks_are_shares_of_the_greatest(values: list[float], shown: str) -> None:
    assert sparks(values) == shown


def test_the_live_view_shows_what_it_is_given_word_for_word(capsys: pytest.CaptureFixture[str]) -> None:
    interval = busy_recorder().drain()
    with view(LIVE) as shown:
        for second in range(3):
            shown.tick(tick(interval, end_s=float(second)), interval)
        shown.notify("[bold]no markup[/bold] :smile:")
    err = capsys.readouterr().err
    assert "smtpbench: [bold]no markup[/bold]" in err
