"""Take docs/assets/report.png: the HTML report of a real run against a sink that stalls, in headless Chromium."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from docs_tools.shell import ROOT

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
IMAGE = ROOT / "docs" / "assets" / "report.png"
#: Largest size of the image, bytes.
LIMIT_BYTES = 200_000
SINK = ["--listen", "127.0.0.1:0", "--delay", "message=exp(4ms)", "--stall", "9s..9500ms"]
RUN = ["relay", "--rate", "400/s", "--duration", "20s", "--connections", "50", "--progress", "none"]


def measure(folder: Path) -> None:
    """Run a scenario against a sink, into a folder."""
    command = [sys.executable, "-m", "smtpbench.cli.main"]
    sink = subprocess.Popen([*command, "sink", *SINK, "--ready-json"], stdout=subprocess.PIPE, text=True)
    try:
        assert sink.stdout is not None
        port = sink.stdout.readline().partition("127.0.0.1:")[2].partition('"')[0]
        target = f"smtp://127.0.0.1:{port}"
        subprocess.run([*command, "run", *RUN, "--target", target, "--out", str(folder)], check=True)
    finally:
        sink.terminate()
        sink.communicate()


def take_screenshot(page: Path, image: Path) -> None:
    """Take the first screen of a page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.screenshot(path=image)
        browser.close()


def main() -> int:
    """Write the image and return the exit code: 1 if it is too large."""
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder))
        take_screenshot(Path(folder, "report.html"), IMAGE)
    size = IMAGE.stat().st_size
    print(f"{IMAGE.relative_to(ROOT)}: {size:,} bytes")
    return int(size > LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
