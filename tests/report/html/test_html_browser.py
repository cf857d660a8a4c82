"""The page in Chromium: it loads nothing, violates no policy, fits a telephone, and hostile text stays text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import saved_results
import servers
from playwright.sync_api import Browser, Page, sync_playwright

from smtpbench.measure.saved import FUZZ, Saved, load
from smtpbench.report.html.page import write_report

CHROMIUM = "chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip
WIDE, TELEPHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
#: Text of a result that an attacker could choose.
ATTACK = (
    '"\'><img src=x onerror="window.pwned=1"><b id="attack">bold</b></title></style></textarea></script>'
    "<script>window.pwned=1</script><svg onload=window.pwned=1>]]>--><!--\x1b[31m\x00\u202e\u2066\u2028\ud800{{7*7}}\r\n"
)
HUGE = ATTACK + 100_000 * "x"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    servers.need(CHROMIUM)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a page of every kind, by its name."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [
        load(saved_results.run_folder(folder / name, seconds=40, samples=30, seed=seed)) for seed, name in enumerate("ab")
    ]
    kinds: dict[str, list[Saved]] = {
        "run": runs[:1],
        "runs": runs,
        "fuzz": [saved_results.rules_result(FUZZ)],
        "matrix": [saved_results.rules_result(path="a/result.json"), saved_results.rules_result(path="b/result.json")],
        "comparison": [saved_results.comparison()],
        "capacity": [saved_results.capacity()],
    }
    for name, saved in kinds.items():
        write_report(saved, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in kinds}


@contextmanager
def opened(browser: Browser, path: Path, **options: Any) -> Iterator[Page]:
    """Open a page in a window of its own; errors, messages and requests are failures."""
    context = browser.new_context(**({"viewport": WIDE} | options))
    page, errors, requested = context.new_page(), [], []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert errors == []
    assert requested == [path.as_uri()]
    context.close()


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.parametrize("name", ["run", "runs", "fuzz", "matrix", "comparison", "capacity"])
def test_page_of_every_kind_fits_and_has_a_dark_theme(browser: Browser, pages: dict[str, Path], name: str) -> None:
    with opened(browser, pages[name]) as page:
        assert overflow(page) <= 0
        charts = page.evaluate("document.querySelectorAll('figure[data-chart]').length")
        assert page.evaluate("document.querySelectorAll('.live canvas').length") == charts
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.set_viewport_size({"width": 360, "height": 740})
        assert overflow(page) <= 0
        page.emulate_media(color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


#: Returns the texts of the visible cells whose right edge is outside of the window, or that are cut off by a scroller.
CUT_OFF = """
heads => [...document.querySelectorAll('table.as-cards td')]
  .filter(cell => heads.includes(cell.dataset.head))
  .filter(cell => {
    const box = cell.getBoundingClientRect(), scroller = cell.closest('.scroll');
    return !box.width || box.right > innerWidth || box.left < 0 || scroller.scrollWidth > scroller.clientWidth;
  })
  .map(cell => cell.dataset.head + ': ' + cell.innerText)
"""


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("comparison", ["verdict", "change and interval", "min … max", "new"]),
        ("capacity", ["reason", "objectives", "margin"]),
        ("run", ["outcome", "margin", "example", "p99"]),
        ("runs", ["b"]),
        ("fuzz", ["verdict", "actual behaviour"]),
    ],
)
def test_what_matters_is_inside_the_window_of_a_telephone(
    browser: Browser, pages: dict[str, Path], name: str, heads: list[str]
) -> None:
    with opened(browser, pages[name], viewport={"width": 390, "height": 844}) as page:
        cells = page.locator("table.as-cards td")
        assert {cell.get_attribute("data-head") for cell in cells.all()} >= set(heads)
        assert page.evaluate(CUT_OFF, heads) == []
        assert overflow(page) <= 0


def test_badge_is_one_word_for_the_state_and_stays_on_one_line(browser: Browser, pages: dict[str, Path]) -> None:
    for name, badge in {"run": "FAILED", "fuzz": "TARGET GONE", "comparison": "WORSE", "capacity": "PASSED"}.items():
        with opened(browser, pages[name], viewport={"width": 390, "height": 844}) as page:
            shown = page.locator("h1 .badge")
            assert shown.inner_text() == badge
            assert page.evaluate("document.querySelector('h1 .badge').getClientRects().length") == 1
            assert page.locator(".notice strong").first.inner_text().startswith(badge)


def test_titles_name_scenario_candidates_and_target(browser: Browser, pages: dict[str, Path]) -> None:
    for name, parts in {
        "comparison": ("relay", "smtp://"),
        "capacity": ("relay", "smtp://127.0.0.1:2525"),
        "fuzz": ("relay", "smtp://127.0.0.1:2525"),
        "run": ("relay", "smtp://"),
        "runs": ("2 runs", "relay", "smtp://127.0.0.1:2525"),
        "matrix": ("2 targets", "smtp://127.0.0.1:2525"),
    }.items():
        with opened(browser, pages[name]) as page:
            assert all(part in page.title() for part in parts), page.title()


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_page_without_javascript_shows_drawings_and_tables(browser: Browser, pages: dict[str, Path], name: str) -> None:
    with opened(browser, pages[name], java_script_enabled=False, viewport=TELEPHONE) as page:
        assert overflow(page) <= 0
        assert page.locator("table").first.is_visible()
        assert not page.locator("#theme").is_visible()
        shown = page.locator("svg.chart, svg.interval")
        assert shown.count() > 3
        assert all(one.is_visible() for one in shown.all())
        assert page.locator("canvas").count() == 0


def test_print_shows_drawings_instead_of_the_canvas(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["run"], color_scheme="dark") as page:
        figure = page.locator("figure[data-chart='0']")
        assert figure.locator(".live").is_visible()
        assert not figure.locator("svg.chart").is_visible()
        page.emulate_media(media="print")
        assert not figure.locator(".live").is_visible()
        assert figure.locator("svg.chart").is_visible()


def test_keyboard_reaches_and_operates_everything(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["run"]) as page:
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate("[document.activeElement.tagName, document.activeElement.className].join(' ').trim()")
            )
        assert reached[0] == "A skip"
        assert {"BUTTON", "A", "DIV live"} <= set(reached)
        assert "DIV scroll" not in reached

        page.locator("#theme").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"

        figure = page.locator("figure[data-chart='0']")
        figure.locator(".live").focus()
        page.keyboard.press("End")
        assert figure.locator(".place").inner_text().startswith("at 99.9")
        slowest = page.evaluate(
            "JSON.parse(document.getElementById('charts').textContent)[0].s[0].p.filter((y) => y).at(-1)"
        )
        assert figure.locator(".value").first.inner_text().split() == [f"{slowest:.3g}", "ms"]
        assert not figure.locator(".reset").is_visible()
        page.keyboard.press("+")
        assert figure.locator(".reset").is_visible()
        page.keyboard.press("Escape")
        assert not figure.locator(".reset").is_visible()

        curve = figure.locator(".legend button").first
        curve.focus()
        page.keyboard.press("Space")
        assert curve.get_attribute("aria-pressed") == "false"


def test_heatmap_shows_the_values_of_its_cells(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["run"]) as page:
        figure = page.locator("figure[data-grid='0']")
        figure.focus()
        page.keyboard.press("ArrowRight")
        assert figure.locator(".place").inner_text().startswith("at 1 s, ")
        figure.locator("svg.heat").scroll_into_view_if_needed()
        box = figure.locator("svg.heat").bounding_box()
        assert box is not None
        counts = set()
        for share in range(5, 95, 2):
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + share / 100 * box["height"])
            counts.add(figure.locator(".place").inner_text().rpartition(": ")[2])
        assert "0 of 30" in counts
        assert any(text.endswith(" of 30") and text != "0 of 30" for text in counts)


def test_dragging_zooms_and_a_double_click_resets(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["capacity"]) as page:
        figure = page.locator("figure[data-chart='0']")
        box = figure.locator(".u-over").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 60, steps=4)
        page.mouse.up()
        assert figure.locator(".reset").is_visible()
        page.mouse.dblclick(box["x"] + 50, box["y"] + 50)
        assert not figure.locator(".reset").is_visible()


def with_text(value: Any, text: str) -> Any:
    """Return a result with all text replaced, and an additional entry of that name in each mapping.

    Text that the reader interprets is kept.
    """
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [with_text(one, text) for one in value]
    if not isinstance(value, dict):
        return value
    kept = ("schema", "kind", "histogram", "model", "verdict", "severity", "unit")
    found = {key: one if key in kept else with_text(one, text) for key, one in value.items()}
    return found | {text[:1000]: next(iter(found.values()))} if found else found


@pytest.mark.parametrize("name", ["run", "fuzz", "comparison", "capacity"])
def test_hostile_text_is_shown_and_never_run(browser: Browser, tmp_path: Path, name: str) -> None:
    folder = tmp_path / ATTACK.translate(dict.fromkeys(map(ord, "/\0\ud800"))).strip()[:80]
    makers = {
        "fuzz": lambda: saved_results.rules_result(FUZZ),
        "comparison": saved_results.comparison,
        "capacity": saved_results.capacity,
    }
    if name == "run":
        saved = load(saved_results.run_folder(folder, seconds=20, samples=10))
        with (folder / "timeline.csv").open("a") as timeline:
            timeline.write("nan,steady,inf,-1,1e400,x\n" + 30 * "1," + "\n" + ATTACK.encode("ascii", "replace").decode())
        with (folder / "histograms.hlog").open("a") as log:
            log.write(
                "Tag=message.response,0,1,9,AAAA\nTag=message.response,nan,inf,9,HISTFAAAAB542pNp\nTag=message.response,\n"
            )
    else:
        saved = makers[name]()
        folder.mkdir()
    (folder / "result.json").write_text(json.dumps(with_text(saved.result, HUGE)))
    page_file = tmp_path / "page.html"
    write_report([load(folder)], page_file)
    assert page_file.stat().st_size < 2_000_000
    with opened(browser, page_file, viewport=TELEPHONE) as page:
        assert overflow(page) <= 0
        assert page.evaluate("window.pwned === undefined")
        assert page.evaluate("document.querySelectorAll('img, iframe, object, #attack, [onerror], [onload]').length") == 0
        assert page.evaluate("document.querySelectorAll('script').length") == 3
        text = page.evaluate("document.body.innerText")
        assert "<img src=x" in text
        assert "{{7*7}}" in text
        assert "\\x1b" in text
        assert not set("\x1b\u202e\u2066\u2028") & set(text)
