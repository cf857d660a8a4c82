"""CPU time and size of the HTML report of a run of 600 s: `make reportbench`."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from saved_results import run_folder  # a module of the tests; `make reportbench` adds them to the path

from smtpbench.measure.saved import load
from smtpbench.report.html.page import write_report

ROUNDS = 5


def main() -> None:
    """Write the report five times, files read each time; the first time also loads style and script."""
    with tempfile.TemporaryDirectory() as folder:
        result, page = run_folder(Path(folder), seconds=600), Path(folder) / "report.html"
        log_bytes = (result.parent / "histograms.hlog").stat().st_size
        times_s = []
        for _ in range(ROUNDS):
            started = time.process_time()
            write_report([load(result)], page)
            times_s.append(time.process_time() - started)
        size = page.stat().st_size
    print(f"a run of 600 s, {log_bytes / 1e6:.1f} MB of histograms")
    print(f"CPU s: {', '.join(f'{one:.2f}' for one in times_s)}; median {statistics.median(times_s):.2f}")
    print(f"size: {size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
