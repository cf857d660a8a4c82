"""CPU seconds that the HTML report of a run of 600 s takes, and how large it is: `make reportbench`."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from saved_results import run_folder  # of the tests, which `make reportbench` puts on the path

from smtpbench.measure.saved import load
from smtpbench.report.html.page import write_report

ROUNDS = 5


def main() -> None:
    """Five rounds, each with the reading of the files; the first one loads the template too."""
    with tempfile.TemporaryDirectory() as folder:
        result, page = run_folder(Path(folder), seconds=600), Path(folder) / "report.html"
        log_bytes = (result.parent / "histograms.hlog").stat().st_size
        spent = []
        for _ in range(ROUNDS):
            began = time.process_time()
            write_report([load(result)], page)
            spent.append(time.process_time() - began)
        size = page.stat().st_size
    print(f"a run of 600 s, {log_bytes / 1e6:.1f} MB of histograms")
    print(f"CPU s: {', '.join(f'{one:.2f}' for one in spent)}; median {statistics.median(spent):.2f}")
    print(f"size: {size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
