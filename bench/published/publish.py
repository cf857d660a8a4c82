"""Generator of `results/published/` and `results/known-bugs.md`: `make published`, as root on an idle two-core machine.

The generator runs on core 0 and the servers on core 1, so that neither takes CPU time from the other. The output is that of
smtpbench itself: its verdicts, its Markdown and its results. `--only NAME` makes one part again, `--index` only the pages.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.bench import free_port, wait_until_listening
from bench.published.public import PUBLIC, UNPUBLISHED_RULES, publishable
from bench.published.serve import HERE, KINDS, certificates, prepare
from smtpbench.text import plural

ROOT = HERE.parent.parent
RESULTS = ROOT / "results"
PUBLISHED = RESULTS / "published"
SMTPBENCH = Path(sys.executable).with_name("smtpbench")
GENERATOR_CORE, SERVER_CORE = "0", "1"
COMPARISONS = ("postfix-closed", "postfix-open", "servers-1KiB", "servers-64KiB")
RULE_SERVERS = tuple(KINDS)
RULES, BUGS = "rules", "known-bugs"
RECIPIENT = "b@recipient.example"
SEED = 20261125
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def smtpbench(*arguments: str, allowed: Sequence[int] = (0,), core: str = GENERATOR_CORE) -> str:
    """Run a command of smtpbench and return its output; end the program on an exit code that is not allowed."""
    argv = ["taskset", "-c", core, str(SMTPBENCH), *arguments]
    print("$", shlex.join(["smtpbench", *arguments]), file=sys.stderr, flush=True)
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(f"exit code {done.returncode}")
    return done.stdout


@contextmanager
def server_running(server: str) -> Iterator[str]:
    """Run a server on a free port while the context lasts; yield its host and port."""
    port = free_port()
    argv = ["taskset", "-c", SERVER_CORE, sys.executable, str(HERE / "serve.py"), server, "--port", str(port)]
    process = subprocess.Popen(argv, stdout=sys.stderr, start_new_session=True)
    try:
        wait_until_listening(port)
        yield f"127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def compare(name: str, repeats: int | None) -> None:
    """Make one comparison and save its result and its report."""
    folder = Path(tempfile.mkdtemp(prefix="smtpbench-published-"))
    options = [] if repeats is None else ["--repeats", str(repeats)]
    smtpbench("compare", _file(name), "--seed", str(SEED), "--out", str(folder), *options)
    published = PUBLISHED / name
    published.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "result.json", published)
    smtpbench("report", str(published), "--html", str(published / "report.html"))
    shutil.rmtree(folder)


def check(server: str, *rules: str) -> dict[str, Any]:
    """Return the result of `check` for a server. It contains everything, so it must not be published as it is."""
    with tempfile.TemporaryDirectory() as folder, server_running(server) as address:
        trust = f"--ca={certificates()[0].with_name('ca.pem').relative_to(ROOT)}"
        smtpbench("check", *rules, "--target", f"smtp://{address}", "--recipient", RECIPIENT, trust, "--out", folder,
                  "--no-html", allowed=(0, 1))  # fmt: skip
        result: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
    return result


def rules() -> None:
    """Check all servers and save the results, without what must not be published."""
    published = PUBLISHED / RULES
    published.mkdir(parents=True, exist_ok=True)
    for server in RULE_SERVERS:
        kind = KINDS[server]
        version = f"@{kind.version}" if kind.version else ""
        result = publishable(check(server), f"{server}{version}")
        (published / f"{server}.json").write_text(json.dumps(result, indent=2) + "\n")


def bugs() -> None:
    """Check for published bugs, in the release that has them and in one that does not.

    Each check starts the server anew, because some bugs end it.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in PUBLIC:
        for server in (one.server, one.fixed_in):
            if one.rule not in found.setdefault(server, {}):
                result = publishable(check(server, one.rule), server)
                found[server][one.rule] = {
                    **result["rules"].get(one.rule, {"verdict": "", "actual": ""}),
                    "banner": result["target"]["banner"],
                    "dialogues": [finding["dialogue"] for finding in result["findings"]],
                }
    (PUBLISHED / f"{BUGS}.json").write_text(json.dumps(found, indent=2) + "\n")


def bugs_page(found: dict[str, Any]) -> str:
    """Return the text of `known-bugs.md`."""
    seen = sum(found[one.server][one.rule]["verdict"] == "violation" for one in PUBLIC)
    lines = [
        "# Published bugs that `smtpbench check` finds",
        "",
        "The table lists releases of mail servers with bugs that were published, what `check` finds in each of them,",
        "and the verdict on a release (or a configuration) without the bug. `check` finds",
        f"{seen} of {plural(len(PUBLIC), 'bug')}. This page is made by `make published`; the dialogues are in",
        f"[published/{BUGS}.json](published/{BUGS}.json).",
        "",
        "| Server | Rule | Finding | Published in | Same rule in another release |",
        "|---|---|---|---|---|",
    ]
    for one in PUBLIC:
        rule, fixed = (found[server][one.rule] for server in (one.server, one.fixed_in))
        finding = _cell(rule["actual"]) if rule["verdict"] == "violation" else f"**not found** ({rule['verdict']})"
        lines.append(f"| {one.server} | `{one.rule}` | {finding} | {one.source} | {one.fixed_in}: {fixed['verdict']} |")
    lines += ["", "To reproduce one of them:", "", "```console"]
    lines += [
        "$ .venv/bin/python -m bench.published.serve aiosmtpd@1.2.2 --port 2525 &",
        "$ smtpbench check --target smtp://127.0.0.1:2525 --recipient b@recipient.example eod-lf-crlf",
        "```",
        "",
    ]
    return "\n".join(lines)


def index() -> None:
    """Write the pages from the results that exist."""
    results = {name: json.loads((PUBLISHED / name / "result.json").read_text()) for name in COMPARISONS}
    any_result = results[COMPARISONS[0]]
    machine = any_result["machine"]
    machine = f"{machine['cpu']}, {machine['memory_bytes'] / 2**30:.1f} GiB, {machine['kernel']}, {os.cpu_count()} cores"
    versions = ", ".join(f"{name} {value}" for name, value in any_result["versions"].items())
    text = (HERE / "page.md").read_text()
    text = text.replace("{machine}", _cell(machine)).replace("{versions}", _cell(versions))
    text = text.replace("{date}", any_result["started"][:10])
    text = text.replace("{servers}", "\n".join(_server_row(name) for name in KINDS))
    text = text.replace("{unpublished}", ", ".join(f"`{name}`" for name in sorted(UNPUBLISHED_RULES)))
    for name in COMPARISONS:
        text = text.replace(f"{{{name}}}", _markdown(PUBLISHED / name))
    files = [PUBLISHED / RULES / f"{server}.json" for server in RULE_SERVERS]
    text = text.replace("{rules}", _matrix(_markdown(*files)))
    smtpbench("report", *map(str, files), "--html", str(PUBLISHED / RULES / "report.html"))
    (PUBLISHED / "README.md").write_text(text)
    (RESULTS / f"{BUGS}.md").write_text(bugs_page(json.loads((PUBLISHED / f"{BUGS}.json").read_text())))


def _markdown(*results: Path) -> str:
    """Return the Markdown report of results, with headings one level lower."""
    return (
        smtpbench("report", *map(str, results), "--markdown", "-").strip().replace("\n##", "\n###").replace("## ", "### ", 1)
    )


def _matrix(text: str) -> str:
    """Return the table of rules only; the counts of the report would include unpublished rules."""
    lines = text.split("\n### Check ")[0].strip().splitlines()
    return "\n".join(line for line in lines if not line.startswith("| *")).replace("– not tested", "– not published here")


def _server_row(name: str) -> str:
    result = json.loads((PUBLISHED / RULES / f"{name}.json").read_text())
    return f"| {name} | {_version(name)} | {_cell(result['target']['banner'])} | {KINDS[name].durability} |"


def _version(name: str) -> str:
    """Return the version of a server; of a Debian package, the version of the package."""
    kind = KINDS[name]
    if kind.version:
        return kind.version
    if name.startswith("postfix"):
        return _output_of("dpkg-query", "-W", "-f", "${Version}", "postfix")
    (package,) = prepare(name)[2].glob({"exim": "exim4-daemon*.deb", "opensmtpd": "opensmtpd_*.deb"}[name])
    return _output_of("dpkg-deb", "-f", str(package), "Version")


def _output_of(*argv: str) -> str:
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.strip() + " (Debian 12)"


def _cell(text: str) -> str:
    """Return text escaped for a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _file(name: str) -> str:
    return str((HERE / f"{name}.yaml").relative_to(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*COMPARISONS, RULES, BUGS], help="Part to make again.")
    parser.add_argument("--repeats", type=int, help="Runs of each candidate, instead of the default.")
    parser.add_argument("--index", action="store_true", help="Only write the pages.")
    options = parser.parse_args()
    certificates()
    parts = [] if options.index else options.only or [*COMPARISONS, RULES, BUGS]
    for name in parts:
        if name in COMPARISONS:
            compare(name, options.repeats)
        elif name == RULES:
            rules()
        else:
            bugs()
    index()


if __name__ == "__main__":
    main()
