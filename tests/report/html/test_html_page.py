"""The page as text: one file with a policy, escaped everywhere, and written completely or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import saved_results
from figures import busy_recorder, result_of

from smtpbench.measure.result import save
from smtpbench.measure.saved import RUN, Saved, load
from smtpbench.report.html.page import REPORT, embedded, html_report, report_beside, write_report
from smtpbench.report.html.render import fill


def run_of(path: Path = Path("a/result.json"), **changes: Any) -> Saved:
    return Saved(RUN, result_of(busy_recorder().drain(), **changes), path)


def test_policy_allows_the_content_of_the_page_and_nothing_else() -> None:
    page = html_report([run_of()])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    found = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    assert found["default-src"] == "'none'"
    for directive, element in (("script-src", "script"), ("style-src", "style")):
        text = re.search(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
        assert text is not None
        assert found[directive] == f"'sha256-{base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()}'"
    assert " style=" not in page.partition("<script>")[0]
    assert "Copyright (c) 2022 Leon Sorokin" in page


def test_figures_are_in_the_text_and_curves_in_the_data() -> None:
    run = run_of()
    page = html_report([run])
    assert f"{run.result['messages']['accepted']:,}" in page
    data = json.loads(page.partition('id="charts">')[2].partition("</script>")[0])
    assert data[0]["t"] == "message"
    assert page.count("<figure") == page.count("data-chart=") == len(data)


def test_embedded_json_cannot_end_its_element() -> None:
    hostile = "</script><!--&\u2028\u2029\ud800]]>"
    text = embedded([hostile])
    assert json.loads(text) == [hostile]
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_page_of_ten_minutes_with_every_metric_is_small(tmp_path: Path) -> None:
    page = html_report([load(saved_results.run_folder(tmp_path))])
    assert len(page.encode()) < 300_000


def test_report_is_written_beside_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(run_of().result, tmp_path)
    assert report_beside(path) == REPORT
    assert (tmp_path / REPORT).read_text() == html_report([load(path)])
    assert sorted(one.name for one in tmp_path.iterdir()) == [REPORT, "result.json"]
    assert capsys.readouterr().err == ""


def test_failed_write_is_one_warning_and_leaves_no_partial_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(run_of().result, tmp_path)
    (tmp_path / REPORT).mkdir()
    (tmp_path / REPORT / "in the way").touch()
    assert report_beside(path) == ""
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == [REPORT, "result.json"]


def test_device_is_written_and_kept(tmp_path: Path) -> None:
    link = tmp_path / "nowhere"
    link.symlink_to("/dev/null")
    write_report([run_of()], link)
    assert link.is_char_device()


def test_every_value_is_escaped_unless_it_is_html_already() -> None:
    inner = fill("<b>%s</b>", "<i title='x'>&")
    assert inner == "<b>&lt;i title=&#39;x&#39;&gt;&amp;</b>"
    assert fill('<p class="%s">%s, %s</p>', 'a"b', inner, 3) == f'<p class="a&#34;b">{inner}, 3</p>'
    assert fill("<td>100 %%</td>") == "<td>100 %</td>"
    with pytest.raises(TypeError):
        fill("<td>%s</td>")


def test_page_needs_no_template_engine() -> None:
    """Importing one and compiling a template took half of the CPU time of the page."""
    code = "import sys, smtpbench.report.html.page; print(*{'jinja2', 'importlib.readers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
