"""The container image without a container: what its build runs, run here, in a folder with what it would copy."""

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
    """Whether .dockerignore leaves a top-level name out of the build: the last line that matches decides."""
    left_out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.removeprefix("!") in ("*", path):
            left_out = not line.startswith("!")
    return left_out


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first stage copies."""
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
    """The folder that stands for /opt/smtpbench, filled by the first stage's RUN."""
    place = tmp_path_factory.mktemp("opt") / "smtpbench"
    commands = [rest for word, rest in BUILD if word == "RUN"]
    assert len(commands) == 1
    command = commands[0].replace("/opt/smtpbench", str(place)).replace("python -m venv", f"{sys.executable} -m venv", 1)
    done = subprocess.run(["sh", "-c", command], cwd=context, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return place


def inside(image: Path, *argv: str, cwd: Path) -> str:
    """What a program of the image says."""
    return subprocess.run(
        [image / "bin" / argv[0], *argv[1:]], cwd=cwd, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_the_first_stage_makes_a_command_that_works(image: Path, tmp_path: Path) -> None:
    version = re.search(r'__version__ = "(.*)"', (ROOT / "smtpbench/__init__.py").read_text())
    assert version
    assert inside(image, "smtpbench", "--version", cwd=tmp_path) == f"smtpbench {version[1]}\n"
    assert "relay" in inside(image, "smtpbench", "validate", "relay", cwd=tmp_path)
    assert inside(image, "python", "-c", "import smtpbench.report.formats.prometheus, smtpbench; print(smtpbench.__file__)",
                  cwd=tmp_path).startswith(str(image))  # fmt: skip


def test_a_run_of_the_image_leaves_its_folder_in_results(image: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    said = inside(image, "smtpbench", "demo", "-d", "1s", "-r", "20/s", cwd=tmp_path)
    assert "20 messages accepted" in said
    assert len(list((tmp_path / "results").glob("*/result.json"))) == 1


def test_everything_that_is_no_code_is_in_the_wheel(context: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(context)]
    subprocess.run(argv, check=True, capture_output=True, timeout=300)
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"smtpbench/scenarios/{path.name}" for path in (ROOT / "scenarios").glob("*.yaml")}
    files = [path for path in (ROOT / "smtpbench").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert wanted | {str(path.relative_to(ROOT)) for path in files} <= names
    [entry] = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    text = zipfile.ZipFile(wheel).read(entry).decode()
    assert "[pytest11]\nsmtpbench = smtpbench.pytest_plugin" in text
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]


def test_the_image_is_not_roots_and_begins_where_results_are_found() -> None:
    words = [word for word, _ in FINAL]
    assert FINAL[words.index("USER")][1] == "smtpbench"
    assert words.index("USER") > max(at for at, word in enumerate(words) if word == "RUN")
    settings = dict(FINAL)
    assert settings["WORKDIR"] == "/"  # results/<run> is /results/<run>
    assert settings["VOLUME"] == "/results"
    assert settings["ENTRYPOINT"] == '["smtpbench"]'
    copies = [rest for word, rest in FINAL if word == "COPY"]
    assert copies == ["--from=build /opt/smtpbench /opt/smtpbench"]


def test_nothing_else_of_the_checkout_is_sent_to_the_build() -> None:
    sent = {path.name for path in ROOT.iterdir() if not ignored(path.name)}
    assert sent == {"pyproject.toml", "README.md", "LICENSE", "scenarios", "smtpbench"}
