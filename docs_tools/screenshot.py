"""Take docs/assets/report.png: the HTML report of a real run against a sink that stalls, in headless Chromium.

A report that says that the generator was the limit is no example: then the run is repeated, and after some tries the image
stays as it was.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from docs_tools.shell import ROOT

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
IMAGE = ROOT / "docs" / "assets" / "report.png"
#: Runs until the machine must have been idle enough.
TRIES = 5
#: Largest size of the image, bytes.
LIMIT_BYTES = 200_000
SINK = ["--listen", "127.0.0.1:0", "--delay", "message=exp(4ms)", "--stall", "9s..9500ms"]
RUN = ["relay", "--rate", "200/s", "--duration", "20s", "--connections", "50", "--progress", "none"]


def measure(folder: Path) -> bool:
    """Run a scenario against a sink, into a folder, and return whether its figures are about the sink."""
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
    return not json.loads((folder / "result.json").read_text())["generator"]["limited"]


def take_screenshot(page: Path, image: Path) -> None:
    """Take the first screen of a page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1200, "height": 1100}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.screenshot(path=image)
        browser.close()


def main() -> int:
    """Write the image and return the exit code: 1 if the machine is too busy or the image too large."""
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folders = (Path(temporary, str(number)) for number in range(TRIES))
        folder = next((folder for folder in folders if measure(folder)), None)
        if folder is None:
            print("the machine was busy; run it again", file=sys.stderr)
            return 1
        take_screenshot(folder / "report.html", IMAGE)
    size = IMAGE.stat().st_size
    print(f"{IMAGE.relative_to(ROOT)}: {size:,} bytes")
    return int(size > LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
