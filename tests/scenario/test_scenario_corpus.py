"""Message files are prepared once: for several steps, for all workers, and without keeping many of them in memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from fakes import full_disk

from smtpbench.errors import ScenarioError
from smtpbench.scenario import corpus
from smtpbench.scenario.compile import CompileOptions, compile_scenario
from smtpbench.scenario.corpus import VIEW_BYTES, Corpora, Corpus
from smtpbench.scenario.load import load_text
from smtpbench.scenario.message import Render

MIB = 1024 * 1024


def render_of(folder: Path, corpora: Corpora, order: str = "sequential") -> Render:
    """Return the function that renders the files `*.eml` of a folder."""
    text = f"session: [DATA, message]\nmessage: {{eml: '*.eml', order: {order}}}"
    options = CompileOptions(run_id="r1", corpora=corpora)
    render = compile_scenario(load_text(text, folder / "s.yaml"), options).steps[1].render
    assert render is not None
    return render


def octets(render: Render, n: int) -> bytes:
    wire = render(n)
    return b"".join(wire) if isinstance(wire, tuple) else bytes(wire)


def write_files(folder: Path, count: int, size: int = 100) -> None:
    for number in range(count):
        (folder / f"{number:05}.eml").write_bytes(b"Subject: %d\n\n.%s\n" % (number, b"x" * size))


@pytest.mark.parametrize("size", [100, 2 * VIEW_BYTES])
@pytest.mark.parametrize("order", ["sequential", "random"])
def test_messages_from_a_file_are_those_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, order: str
) -> None:
    write_files(tmp_path, 5, size)
    in_memory = [octets(render_of(tmp_path, Corpora(), order), n) for n in range(12)]
    monkeypatch.setattr(corpus, "_MEMORY_BYTES", 0)
    corpora = Corpora()
    assert [octets(render_of(tmp_path, corpora, order), n) for n in range(12)] == in_memory
    assert in_memory[0].startswith(b"X-Smtpbench-Run: r1\r\nSubject: ")
    assert list(corpora.descriptors) == ["*.eml"]
    shared = Corpora(corpora.descriptors)
    for file in tmp_path.glob("*.eml"):
        file.unlink()
    assert [octets(render_of(tmp_path, shared, order), n) for n in range(12)] == in_memory
    corpora.close()


def test_sessions_share_the_octets_of_a_large_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_MEMORY_BYTES", 0)
    write_files(tmp_path, 1, 4 * MIB)
    render = render_of(tmp_path, Corpora())
    tracemalloc.start()
    wires = [render(n) for n in range(20)]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {len(wire) for wire in wires} == {2}
    assert peak_bytes < MIB


def test_large_corpus_takes_little_memory() -> None:
    message = b"x" * 20_000
    tracemalloc.start()
    prepared = Corpus(bytes(message) + b"%d" % number for number in range(1000))
    assert prepared.message(999) == message + b"999"
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(prepared) == 1000
    assert peak_bytes < 6 * MIB
    prepared.close()


def test_small_corpus_needs_no_file() -> None:
    prepared = Corpus([b"one", b"two"])
    assert (prepared.descriptor, prepared.message(1)) == (-1, b"two")


def test_progress_of_preparing_is_reported(tmp_path: Path) -> None:
    write_files(tmp_path, 250)
    reports: list[tuple[int, int]] = []
    corpora = Corpora(report=lambda done, total: reports.append((done, total)))
    render_of(tmp_path, corpora)
    render_of(tmp_path, corpora)
    assert reports == [(0, 250), (100, 250), (200, 250), (250, 250)]


def test_full_disk_is_a_mistake_that_names_what_is_to_do(tmp_path: Path) -> None:
    write_files(tmp_path, 5, MIB)
    error = ""
    with full_disk(1024):
        try:
            render_of(tmp_path, Corpora())
        except ScenarioError as raised:
            error = str(raised)
    assert "the temporary file of the prepared messages" in error
    assert "TMPDIR" in error


def test_file_is_closed_after_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_MEMORY_BYTES", 0)
    write_files(tmp_path, 3)
    before = set(os.listdir("/proc/self/fd"))
    corpora = Corpora()
    render_of(tmp_path, corpora)
    corpora.close()
    assert set(os.listdir("/proc/self/fd")) == before
