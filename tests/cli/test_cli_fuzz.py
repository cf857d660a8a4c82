"""`fuzz` and `replay` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import servers
from jsonschema import Draft202012Validator
from runner import sink, smtpbench


def validate(result: object) -> None:
    schema = json.loads(smtpbench("schema", "judgement").out)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema | {"additionalProperties": False}).validate(result)


def test_finding_is_saved_and_replayed_until_it_is_fixed(tmp_path: Path) -> None:
    out = tmp_path / "fuzz"
    options = ["--only", "end", "--cases", "150", "--out", str(out)]
    with sink("--mutant", "eod-lf-crlf") as (port, _):
        url = f"smtp://127.0.0.1:{port}"
        done = smtpbench("fuzz", "relay", "-t", url, *options)
        assert done.code == 1, done.out + done.err
        assert "SECURITY eod-lf-crlf (RFC 5321 §4.1.1.4)" in done.out
        result = json.loads((out / "result.json").read_text())
        validate(result)
        assert result["rules"]["eod-lf-crlf"]["verdict"] == "violation"
        assert result["cases"]["generated"] == result["cases"]["run"] == 150
        findings = {finding["rule"]: finding for finding in result["findings"]}
        finding = findings["eod-lf-crlf"]
        assert set(finding) >= {"id", "rule", "severity", "reproducibility", "hits", "file"}
        file = out / finding["file"]
        again = smtpbench("replay", str(file), "-t", url)
        assert (again.code, again.out.split("  ")[0]) == (1, "STILL THERE")
        assert finding["repeat"] == f"smtpbench replay --target {url} {file}"
        assert smtpbench("validate", str(file)).code == 0
        known = smtpbench("fuzz", "relay", "-t", url, *options, "--overwrite", "--baseline", str(out / "findings"))
        assert known.code == 0, known.out
        assert "in the baseline" in known.out
    with sink() as (port, _):
        fixed = smtpbench("replay", str(out / "findings"), "-t", f"smtp://127.0.0.1:{port}")
    assert fixed.code == 0, fixed.out
    assert fixed.out.startswith("FIXED")


def test_finding_of_check_is_replayed_with_its_rule(tmp_path: Path) -> None:
    with sink("--mutant", "postmaster") as (port, _):
        url = f"smtp://127.0.0.1:{port}"
        assert smtpbench("check", "-t", url, "postmaster", "noop-250", "--out", str(tmp_path)).code == 1
        validate(json.loads((tmp_path / "result.json").read_text()))
        again = smtpbench("replay", str(tmp_path / "findings"), "-t", url)
        assert again.code == 1
        assert "the server replied 501 to RCPT TO:<Postmaster>" in again.out
    with sink() as (port, _):
        assert smtpbench("replay", str(tmp_path / "findings"), "-t", f"smtp://127.0.0.1:{port}").code == 0
    with sink("--on", "RCPT=450 later") as (port, _):
        unknown = smtpbench("replay", str(tmp_path / "findings"), "-t", f"smtp://127.0.0.1:{port}")
    assert unknown.code == 3
    assert unknown.out.startswith("CANNOT TELL")


def test_invalid_options_and_files_are_reported(tmp_path: Path) -> None:
    unheard = f"smtp://127.0.0.1:{servers.free_port()}"
    plain = tmp_path / "plain.yaml"
    plain.write_text("session: [NOOP]\n")
    for argv, code, expected_texts in (
        (["fuzz", "relay", "-t", unheard], 3, "no greeting (connection refused)"),
        (["fuzz", "relay", "-t", unheard, "--only", "nothing"], 2, "there is no mutation family 'nothing'"),
        (["fuzz", "relay", "-t", unheard, "--profile", "huge"], 2, "allowed are quick, ci, deep"),
        (["fuzz", "relay", "-t", unheard, "--baseline", "/no/such"], 2, "there is no such folder"),
        (["replay", str(plain), "-t", unheard], 2, "this scenario is not a finding"),
        (["replay", str(tmp_path / "none"), "-t", unheard], 2, "cannot be read"),
    ):
        done = smtpbench(*argv)
        assert done.code == code, (argv, done.err)
        assert expected_texts in done.err
