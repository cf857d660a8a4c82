"""The container image without a container: the commands of its build, in a folder with the files that it copies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTRUCTIONS = [
    line.partition(" ")[::2]
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    if line and not line.startswith("#")
]
#: The stages, each a list of (instruction, arguments).
BUILD, FINAL = (
    [(word, rest.strip()) for word, rest in part]
    for part in (
        INSTRUCTIONS[: [word for word, _ in INSTRUCTIONS].index("FROM", 2)],
        INSTRUCTIONS[[word for word, _ in INSTRUCTIONS].index("FROM", 2) :],
    )
)


def ignored(path: str) -> bool:
    """Return whether .dockerignore excludes a top-level name; the last line that matches decides."""
    excluded = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.removeprefix("!") in ("*", path):
            excluded = not line.startswith("!")
    return excluded


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what the first stage copies."""
    folder = tmp_path_factory.mktemp("src")
    for word, rest in BUILD:
        if word == "COPY":
            *sources, to = rest.split()
            for source in sources:
                assert not ignored(source), source
                place = folder / (to if to != "./" else source)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, place)
    return folder


@pytest.fixture(scope="module")
def image(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in the place of /opt/smtpbench, filled by RUN of the first stage."""
    place = tmp_path_factory.mktemp("opt") / "smtpbench"
    commands = [rest for word, rest in BUILD if word == "RUN"]
    assert len(commands) == 1
    command = commands[0].replace("/opt/smtpbench", str(place)).replace("python -m venv", f"{sys.executable} -m venv", 1)
    done = subprocess.run(["sh", "-c", command], cwd=context, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return place


def inside(image: Path, *argv: str, cwd: Path) -> str:
    """Return the output of a program of the image."""
    return subprocess.run(
        [image / "bin" / argv[0], *argv[1:]], cwd=cwd, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_first_stage_installs_a_working_command(image: Path, tmp_path: Path) -> None:
    version = re.search(r'__version__ = "(.*)"', (ROOT / "smtpbench/__init__.py").read_text())
    assert version
    assert inside(image, "smtpbench", "--version", cwd=tmp_path) == f"smtpbench {version[1]}\n"
    assert "relay" in inside(image, "smtpbench", "validate", "relay", cwd=tmp_path)
    assert inside(image, "python", "-c", "import smtpbench.report.formats.prometheus, smtpbench; print(smtpbench.__file__)",
                  cwd=tmp_path).startswith(str(image))  # fmt: skip


def test_run_in_the_image_writes_into_results(image: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    output = inside(image, "smtpbench", "demo", "-d", "1s", "-r", "20/s", cwd=tmp_path)
    assert "the sink accepted 20 messages" in output
    assert len(list((tmp_path / "results").glob("*/result.json"))) == 1


def test_wheel_holds_all_data_files(context: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(context)]
    subprocess.run(argv, check=True, capture_output=True, timeout=300)
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    scenarios = {f"smtpbench/scenarios/{path.name}" for path in (ROOT / "scenarios").glob("*.yaml")}
    files = [path for path in (ROOT / "smtpbench").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert scenarios | {str(path.relative_to(ROOT)) for path in files} <= names
    [entry] = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    text = zipfile.ZipFile(wheel).read(entry).decode()
    assert "[pytest11]\nsmtpbench = smtpbench.pytest_plugin" in text
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]


def test_image_runs_without_root_in_the_parent_of_results() -> None:
    instructions = [instruction for instruction, _ in FINAL]
    assert FINAL[instructions.index("USER")][1] == "smtpbench"
    assert instructions.index("USER") > max(at for at, one in enumerate(instructions) if one == "RUN")
    settings = dict(FINAL)
    assert settings["WORKDIR"] == "/"  # so that results/<run> is /results/<run>
    assert settings["VOLUME"] == "/results"
    assert settings["ENTRYPOINT"] == '["smtpbench"]'
    copies = [rest for word, rest in FINAL if word == "COPY"]
    assert copies == ["--from=build /opt/smtpbench /opt/smtpbench"]


def test_build_context_holds_what_the_build_needs() -> None:
    sent = {path.name for path in ROOT.iterdir() if not ignored(path.name)}
    assert sent == {"pyproject.toml", "README.md", "LICENSE", "scenarios", "smtpbench"}
