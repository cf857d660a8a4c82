"""Every command that reads scenarios refuses files outside its folder, and takes them with --allow-files."""

from __future__ import annotations

from pathlib import Path

from runner import run, sink, smtpbench

SCENARIO = (
    "session: [EHLO x, 'MAIL FROM:<a@x.example>', 'RCPT TO:<b@x.example>', DATA, message, QUIT]\nmessage: {eml: ../m.eml}\n"
)
FINDING = SCENARIO + "finding: {version: 1, rule: health, by: fuzz}\n"


def test_every_command_refuses_files_outside_the_folder(here: Path) -> None:
    (here / "m.eml").write_text("Subject: secret\n\nsecret\n")
    (here / "strange").mkdir()
    (here / "strange" / "s.yaml").write_text(SCENARIO)
    (here / "strange" / "f.yaml").write_text(FINDING)
    with sink() as (port, counts):
        target = f"smtp://127.0.0.1:{port}"
        for name, *argv in (
            ("s", "validate", "strange/s.yaml"),
            ("s", "run", "strange/s.yaml", "-t", target),
            ("s", "run", "strange/s.yaml", "-t", target, "--workers", "2"),
            ("s", "fuzz", "strange/s.yaml", "-t", target),
            ("s", "capacity", "strange/s.yaml", "-t", target),
            ("s", "compare", "strange/s.yaml", "-t", f"a={target}", "-t", f"b={target}"),
            ("f", "replay", "strange/f.yaml", "-t", target),
        ):
            done = smtpbench(*argv)
            assert done.code == 2, (argv, done)
            assert f"strange/{name}.yaml:2:16: '../m.eml' is outside the folder of this file; use --allow-files" in done.err
        assert smtpbench("validate", "strange/s.yaml", "--allow-files").code == 0
        done = run("strange/s.yaml", target, here / "out", "-n", "3", "--workers", "2", "--allow-files")
        assert done.messages == {"accepted": 3}
        replayed = smtpbench("replay", "strange/f.yaml", "-t", target, "--allow-files")
        assert (replayed.code, replayed.out.split()[0]) == (0, "FIXED")
    assert counts["messages"]["accepted"] == 4


def test_check_refuses_a_fixture_with_a_password_file_outside_its_folder(here: Path) -> None:
    (here / "password").write_text("secret\n")
    (here / "strange").mkdir()
    (here / "strange" / "f.yaml").write_text("target: smtp://u@127.0.0.1:1\npassword-file: ../password\n")
    done = smtpbench("check", "--fixture", "strange/f.yaml")
    assert done.code == 2
    assert "strange/f.yaml:2:16: '../password' is outside the folder of this file; use --allow-files" in done.err
    assert smtpbench("check", "--fixture", "strange/f.yaml", "--allow-files").code == 3
