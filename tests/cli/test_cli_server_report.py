"""What a command shows of the server that it started: figures, a death, and the exit code of a run whose server died."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import servers
from runner import smtpbench
from small_server import SERVER

NOOP = "session:\n- EHLO client.example\n- NOOP\n- QUIT\n"
DIES = 'seen = globals().get("seen", 0) + 1; seen < 3 or (print("last words", file=sys.stderr), os.abort())'


@pytest.mark.parametrize(("body", "dies"), [(DIES, True), ("pass", False)], ids=["dies", "lives"])
def test_run_whose_server_dies_has_exit_code_1_and_says_so_first(here: Path, body: str, dies: bool) -> None:
    port = servers.free_port()
    (here / "noop.yaml").write_text(NOOP)
    (here / "server.py").write_text(SERVER.replace("exec(line)", body))
    target = ("-t", f"smtp://127.0.0.1:{port}", "--start", f"{sys.executable} server.py {port}")
    done = smtpbench("run", "noop.yaml", *target, "-n", "9", "-c", "1", "--out", "out", "--progress", "none")
    assert done.code == int(dies), done.out + done.err
    lines = done.out.splitlines()
    verdict = lines[next(at for at, line in enumerate(lines) if line.startswith("saved: ")) + 1]
    assert verdict.startswith("SERVER DIED: signal 6 (SIGABRT), after ") is dies
    assert any(line.startswith("server: ") for line in lines)
    assert ("  | last words" in lines) is dies
    assert smtpbench("report", "out", "--fail").code == int(dies)
    assert "the server does not die" in smtpbench("report", "out", "--junit", "-").out
