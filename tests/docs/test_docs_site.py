"""The documentation site: built strictly, opened from the file system, and nothing in it asks a network for anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from servers import need

ROOT = Path(__file__).resolve().parent.parent.parent
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip
WIDE, TELEPHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
#: Pages that are opened in each width and colour scheme; all others are opened once, at a telephone's width.
KEY_PAGES = (
    "index.html",
    "tutorial/first-run.html",
    "explanation/architecture.html",
    "reference/index.html",
    "reference/command-line/index.html",
    "reference/command-line/run.html",
    "reference/scenario-file.html",
    "reference/comparison-file.html",
    "reference/shipped-scenarios.html",
    "reference/metrics.html",
    "reference/results/run.html",
    "reference/rules/index.html",
    "reference/rules/eod-odd.html",
    "reference/sink.html",
    "reference/exit-codes.html",
)
#: What fetches as soon as a page is shown, by element and attribute; `a` waits for a click.
FETCHING = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src")}


def built(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout as `make docs` does. `--quiet` would silence the warnings that strictness counts."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=source, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site."""
    folder = tmp_path_factory.mktemp("site")
    done = built(ROOT, folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith("INFO")] == []
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need("chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield started
        started.close()


@contextmanager
def window(browser: Browser, **options: Any) -> Iterator[Page]:
    """A window of its own; what pages in it complain of, or ask anything but the file system for, is a failure."""
    context = browser.new_context(**({"viewport": WIDE} | options))
    page, complaints, requests = context.new_page(), list[str](), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    yield page
    context.close()
    assert [url for url in requests if urlsplit(url).scheme not in ("file", "data", "blob", "about")] == []
    assert complaints == []


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


class References(HTMLParser):
    """What a page refers to, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.anchors: set[str] = {""}
        self.repeated: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        name = values.get("id") or (values.get("name") if tag == "a" else "")
        if name:
            self.repeated |= {name} & self.anchors
            self.anchors.add(name)
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        self.fetched |= {value for name, value in values.items() if (tag, name) in FETCHING}


def broken_links(folder: Path) -> list[str]:
    """Links and anchors of all pages in a folder that lead nowhere, or to two places."""
    paths = [path for path in folder.rglob("*.html") if path.name != "404.html"]  # its links begin at the root of a server
    pages = {path: References(path.read_text(encoding="utf-8")) for path in paths}
    found = []
    for path, references in pages.items():
        found += [f"{path.relative_to(folder)}: two places are #{name}" for name in references.repeated]
        for link in references.links | references.fetched:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {""}
            if not target.is_file() or unquote(parts.fragment) not in anchors:
                found.append(f"{path.relative_to(folder)}: {link}")
    return sorted(found)


def fetches(folder: Path) -> list[str]:
    """What pages and style sheets of a folder would fetch from a network."""
    found = []
    for path in folder.rglob("*.html"):
        references = References(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(folder)}: {url}" for url in references.fetched if urlsplit(url).netloc]
    for path in folder.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        found += [
            f"{path.relative_to(folder)}: {url}"
            for url in re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", text)
        ]
    return found


def test_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    assert broken_links(site) == []


def test_no_page_and_no_style_sheet_names_a_network(site: Path) -> None:
    assert fetches(site) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, TELEPHONE], ids=["wide", "telephone"])
def test_key_pages_open_from_the_file_system(browser: Browser, site: Path, viewport: dict[str, int], scheme: str) -> None:
    backgrounds = set()
    with window(browser, viewport=viewport, color_scheme=scheme) as page:
        for name in KEY_PAGES:
            page.goto((site / name).as_uri())
            assert page.locator("h1").first.is_visible(), name
            assert overflow(page) <= 0, name
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 1
    assert (backgrounds == {"rgb(255, 255, 255)"}) == (scheme == "light")


def test_every_page_fits_a_telephone_and_every_table_its_column(browser: Browser, site: Path) -> None:
    too_wide = []
    with window(browser) as page:
        for path in sorted(site.rglob("*.html")):
            if path.name == "404.html":
                continue
            page.set_viewport_size({"width": WIDE["width"], "height": WIDE["height"]})
            page.goto(path.as_uri(), wait_until="domcontentloaded")
            tables = page.evaluate(
                """[...document.querySelectorAll(".reference")].some((one) => one.scrollWidth > one.clientWidth + 1)"""
            )
            page.set_viewport_size({"width": TELEPHONE["width"], "height": TELEPHONE["height"]})
            if tables or overflow(page) > 0:
                too_wide.append(str(path.relative_to(site)))
    assert too_wide == []


def test_console_tables_scroll_on_a_telephone_and_commands_wrap(browser: Browser, site: Path) -> None:
    with window(browser, viewport=TELEPHONE) as page:
        page.goto((site / "tutorial" / "first-run.html").as_uri())
        lines = """selector => [...document.querySelectorAll(".language-console pre > code " + selector)].map(one => {
            const range = document.createRange();
            range.selectNodeContents(one);
            return [one.innerText.trim(), new Set([...range.getClientRects()].map(box => Math.round(box.top))).size];
        })"""
        output = [(text, line_count) for text, line_count in page.evaluate(lines, ".go") if text]
        assert any(text.startswith("service time") and len(text) > 60 for text, _ in output)
        assert [text for text, line_count in output if line_count > 1 and "\n" not in text] == []
        scrolled = """[...document.querySelectorAll(".language-console pre > code")].some(
            one => one.scrollWidth > one.clientWidth && getComputedStyle(one).overflowX === "auto")"""
        assert page.evaluate(scrolled)
        assert overflow(page) <= 0


def test_search_finds_a_rule(browser: Browser, site: Path) -> None:
    with window(browser) as page:
        page.goto((site / "index.html").as_uri())
        # key by key: the theme listens to keys, not to a changed value
        page.locator(".md-search__input").press_sequentially("eod-lf-lf")
        found = page.locator(".md-search-result__link").first
        found.wait_for()
        assert found.locator("h1").inner_text() == "eod-lf-lf"
        found.click()
        page.wait_for_url("**/reference/rules/eod-lf-lf.html*")
        assert page.locator("h1").inner_text().startswith("eod-lf-lf")


def test_navigation_leads_from_the_first_page_to_a_command(browser: Browser, site: Path) -> None:
    with window(browser) as page:
        page.goto((site / "index.html").as_uri())
        page.locator(".md-tabs__link", has_text="Reference").click()
        page.wait_for_url("**/reference/index.html")
        page.locator(".md-sidebar--primary .md-nav__link", has_text="Command line").first.click()
        page.wait_for_url("**/reference/command-line/index.html")
        page.locator(".md-sidebar--primary .md-nav__link", has_text="smtpbench fuzz").click()
        page.wait_for_url("**/reference/command-line/fuzz.html")


def test_the_menu_of_a_telephone_leads_to_a_page(browser: Browser, site: Path) -> None:
    with window(browser, viewport=TELEPHONE) as page:
        page.goto((site / "index.html").as_uri())
        page.locator(".md-header label[for='__drawer']").click()
        page.locator(".md-sidebar--primary .md-nav__link", has_text="FAQ").click()
        page.wait_for_url("**/faq.html")


def test_the_switch_of_the_colour_scheme_works(browser: Browser, site: Path) -> None:
    with window(browser, color_scheme="light") as page:
        page.goto((site / "index.html").as_uri())
        page.locator("label[title='Switch to the dark theme']").click()
        page.wait_for_function("document.body.dataset.mdColorScheme === 'slate'")


def test_an_option_can_be_linked_to(browser: Browser, site: Path) -> None:
    with window(browser) as page:
        page.goto((site / "reference/command-line/run.html").as_uri() + "#--seed")
        assert page.locator("tr:has(a:target)").inner_text().startswith("--seed")


def test_an_option_in_a_command_is_not_broken_after_its_hyphens(browser: Browser, site: Path) -> None:
    with window(browser, viewport=TELEPHONE) as page:
        page.goto((site / "reference/command-line/sink.html").as_uri())
        table_rows = page.evaluate("[...document.querySelectorAll('pre .option')].map((one) => one.getClientRects().length)")
        assert len(table_rows) > 10
        assert set(table_rows) == {1}
        command = page.locator("pre > code", has_text="--stall").inner_text()
        assert "smtpbench sink --listen 127.0.0.1:2525 --on DATA=reset@1% --on EHLO=drip --stall 4s..5s\n" in command


def test_the_words_of_the_picture_of_the_layers_fit_their_boxes(browser: Browser, site: Path) -> None:
    with window(browser) as page:
        page.goto((site / "explanation/architecture.html").as_uri())
        widths = page.evaluate(
            """[...document.querySelectorAll(".layers rect")].map((box) => {
                 const [name, about] = [box.nextElementSibling, box.nextElementSibling.nextElementSibling];
                 return [name.textContent, box.getBBox().width, name.getBBox().width, about.getBBox().width];
               })"""
        )
        assert len(widths) > 10
        assert [name for name, box, *texts in widths if max(texts) > box - 8] == []


# -- controls ----------------------------------------------------------------------------------------------------


def test_make_docs_fails_for_an_anchor_that_is_not_there(tmp_path: Path) -> None:
    for name in ("docs", "docs_build"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs/index.md").open("a") as page:
        page.write("\n[seed](reference/command-line/run.md#--sed)\n")
    done = built(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "does not contain an anchor '#--sed'" in done.stderr


def test_make_docs_is_strict() -> None:
    (command,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "mkdocs build" in line]
    assert command.endswith("mkdocs build --strict")


@pytest.mark.parametrize(
    "html",
    ["<img src='http://127.0.0.1:9/x.png'>", "<script>fetch('http://127.0.0.1:9/').catch(() => 0)</script>"],
)
def test_a_page_that_asks_a_network_is_seen(browser: Browser, tmp_path: Path, html: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><h1>page</h1>{html}")
    with pytest.raises(AssertionError, match=r"127\.0\.0\.1:9"), window(browser) as page:
        page.goto(path.as_uri())


def test_a_page_that_is_too_wide_is_seen(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><meta name=viewport content='width=device-width'><p style='width: 500px'>wide")
    with window(browser, viewport=TELEPHONE) as page:
        page.goto(path.as_uri())
        assert overflow(page) > 0


def test_links_that_lead_nowhere_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        "<a href='b.html#here'>x</a><a href='b.html#gone'>x</a><a href='c.html'>x</a><a href='#'>x</a>"
    )
    (tmp_path / "b.html").write_text("<p id=here><p id=twice><p id=twice>")
    assert broken_links(tmp_path) == ["a.html: b.html#gone", "a.html: c.html", "b.html: two places are #twice"]


def test_addresses_in_pages_and_style_sheets_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<a href='https://example.org'>x</a><link href='//fonts.example/x.css'>")
    (tmp_path / "a.css").write_text("@import 'https://fonts.example/y.css'; p {background: url(x.png)}")
    assert fetches(tmp_path) == ["a.html: //fonts.example/x.css", "a.css: https://fonts.example/y.css"]
