"""`report.html` beside what `run`, `check`, `fuzz`, `compare` and `diff` save, unless it is not wanted."""

from __future__ import annotations

import signal
from pathlib import Path

from runner import finish, run, sink, smtpbench, start


def test_commands_write_the_page_beside_the_result(tmp_path: Path) -> None:
    with sink() as (port, _):
        url = f"smtp://127.0.0.1:{port}"
        many = ("-n", "40", "-c", "2")
        done = {
            "run": run("relay", url, tmp_path / "run", *many),
            "again": run("relay", url, tmp_path / "again", *many, "--no-html"),
            "check": smtpbench("check", "--target", url, "--out", str(tmp_path / "check"), "rcpt-first"),
            "fuzz": smtpbench("fuzz", "relay", "--target", url, "--cases", "5", "--out", str(tmp_path / "fuzz")),
            "compare": smtpbench(
                "compare", "relay", "--target", f"a={url}", "--target", f"b={url}", "--repeats", "2", *many,
                "--warmup", "0s", "--out", str(tmp_path / "compare"),
            ),
            "diff": smtpbench("diff", str(tmp_path / "run"), str(tmp_path / "again"), "--out", str(tmp_path / "diff")),
        }  # fmt: skip
    for name, one in done.items():
        folder = tmp_path / name
        expected_texts = f"saved: {folder}/result.json" + (", report.html" if name != "again" else "")
        assert f"\n{expected_texts}\n" in one.out, (name, one.out, one.err)
        assert (folder / "report.html").exists() is (name != "again")
    for name in ("run", "check", "fuzz", "compare", "diff"):
        assert f"127.0.0.1:{port}" in (tmp_path / name / "report.html").read_text()


def test_interrupted_run_has_a_page(tmp_path: Path) -> None:
    with sink() as (port, _):
        process = start(
            "run", "relay", "-t", f"smtp://127.0.0.1:{port}", "-d", "60s", "-o", str(tmp_path), "--progress", "plain"
        )
        assert process.stderr is not None
        process.stderr.readline()  # a second is over
        process.send_signal(signal.SIGINT)
        done = finish(process, tmp_path)
    assert (done.code, done.result["outcome"]["status"]) == (130, "interrupted")
    assert "<strong>INTERRUPTED: by a signal" in (tmp_path / "report.html").read_text()
