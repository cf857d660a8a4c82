"""Make `results/published/` and `results/known-bugs.md`: `make published`, alone on a machine of two cores, as root.

The generator has core 0 and the servers core 1, so that neither takes the other's time. Only what the tool says is written:
its verdicts, its Markdown, its results. `--only NAME` makes one part anew, `--index` the pages of what is there.
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

from bench.bench import free_port, wait_for
from bench.published.public import PUBLIC, UNTOLD, told
from bench.published.serve import HERE, KINDS, certificates, prepare

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


def smtpbench(*arguments: str, fine: Sequence[int] = (0,), core: str = GENERATOR_CORE) -> str:
    """What a command of ours prints; where its exit code is none of these, that is the end."""
    argv = ["taskset", "-c", core, str(SMTPBENCH), *arguments]
    print("$", shlex.join(["smtpbench", *arguments]), file=sys.stderr, flush=True)
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in fine:
        raise SystemExit(f"exit code {done.returncode}")
    return done.stdout


@contextmanager
def running(server: str) -> Iterator[str]:
    """A server on a port of its own; its host and port. It may have died before it is ended."""
    port = free_port()
    argv = ["taskset", "-c", SERVER_CORE, sys.executable, str(HERE / "serve.py"), server, "--port", str(port)]
    process = subprocess.Popen(argv, stdout=sys.stderr, start_new_session=True)
    try:
        wait_for(port)
        yield f"127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def compare(name: str, repeats: int | None) -> None:
    """One comparison: its result and its page."""
    folder = Path(tempfile.mkdtemp(prefix="smtpbench-published-"))
    more = [] if repeats is None else ["--repeats", str(repeats)]
    smtpbench("compare", _file(name), "--seed", str(SEED), "--out", str(folder), *more)
    place = PUBLISHED / name
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "result.json", place)
    smtpbench("report", str(place), "--html", str(place / "report.html"))
    shutil.rmtree(folder)


def check(server: str, *rules: str) -> dict[str, Any]:
    """What `check` finds in a server, all of it; not to be published as it is."""
    with tempfile.TemporaryDirectory() as folder, running(server) as address:
        trust = f"--ca={certificates()[0].with_name('ca.pem').relative_to(ROOT)}"
        smtpbench("check", *rules, "--target", f"smtp://{address}", "--recipient", RECIPIENT, trust, "--out", folder,
                  "--no-html", fine=(0, 1))  # fmt: skip
        result: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
    return result


def rules() -> None:
    """The rules by servers, as far as they may be told."""
    place = PUBLISHED / RULES
    place.mkdir(parents=True, exist_ok=True)
    for server in RULE_SERVERS:
        kind = KINDS[server]
        version = f"@{kind.version}" if kind.version else ""
        (place / f"{server}.json").write_text(json.dumps(told(check(server), f"{server}{version}"), indent=2) + "\n")


def bugs() -> None:
    """Bugs that are public: whether they are seen in the release that has them, and in one that has not.

    Each is tried on a server of its own start, since some end it.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in PUBLIC:
        for server in (one.server, one.mended):
            if one.rule not in found.setdefault(server, {}):
                result = told(check(server, one.rule), server)
                found[server][one.rule] = {
                    **result["rules"].get(one.rule, {"verdict": "", "actual": ""}),
                    "banner": result["target"]["banner"],
                    "dialogues": [finding["dialogue"] for finding in result["findings"]],
                }
    (PUBLISHED / f"{BUGS}.json").write_text(json.dumps(found, indent=2) + "\n")


def bugs_page(found: dict[str, Any]) -> str:
    """`known-bugs.md`."""
    seen = sum(found[one.server][one.rule]["verdict"] == "violation" for one in PUBLIC)
    lines = [
        "# Public bugs, seen by `smtpbench check`",
        "",
        "Releases of mail servers with bugs that were published, what `check` says of each, and what it says of a release",
        f"(or a configuration) that no longer has it. {seen} of {len(PUBLIC)} are seen. Made by `make published`;",
        f"the dialogues are in [published/{BUGS}.json](published/{BUGS}.json).",
        "",
        "| server | rule | what was seen | published in | the same rule elsewhere |",
        "|---|---|---|---|---|",
    ]
    for one in PUBLIC:
        rule, mended = (found[server][one.rule] for server in (one.server, one.mended))
        words = _cell(rule["actual"]) if rule["verdict"] == "violation" else f"**not seen** ({rule['verdict']})"
        lines.append(f"| {one.server} | `{one.rule}` | {words} | {one.source} | {one.mended}: {mended['verdict']} |")
    lines += ["", "To see one yourself:", "", "```console"]
    lines += [
        "$ .venv/bin/python -m bench.published.serve aiosmtpd@1.2.2 --port 2525 &",
        "$ smtpbench check --target smtp://127.0.0.1:2525 --recipient b@recipient.example eod-lf-crlf",
        "```",
        "",
    ]
    return "\n".join(lines)


def index() -> None:
    """The pages of what is there."""
    results = {name: json.loads((PUBLISHED / name / "result.json").read_text()) for name in COMPARISONS}
    any_result = results[COMPARISONS[0]]
    machine = any_result["machine"]
    machine = f"{machine['cpu']}, {machine['memory_bytes'] / 2**30:.1f} GiB, {machine['kernel']}, {os.cpu_count()} cores"
    versions = ", ".join(f"{name} {value}" for name, value in any_result["versions"].items())
    text = (HERE / "page.md").read_text()
    text = text.replace("{machine}", _cell(machine)).replace("{versions}", _cell(versions))
    text = text.replace("{date}", any_result["started"][:10])
    text = text.replace("{servers}", "\n".join(_server_row(name) for name in KINDS))
    text = text.replace("{untold}", ", ".join(f"`{name}`" for name in sorted(UNTOLD)))
    for name in COMPARISONS:
        text = text.replace(f"{{{name}}}", _markdown(PUBLISHED / name))
    files = [PUBLISHED / RULES / f"{server}.json" for server in RULE_SERVERS]
    text = text.replace("{rules}", _matrix(_markdown(*files)))
    smtpbench("report", *map(str, files), "--html", str(PUBLISHED / RULES / "report.html"))
    (PUBLISHED / "README.md").write_text(text)
    (RESULTS / f"{BUGS}.md").write_text(bugs_page(json.loads((PUBLISHED / f"{BUGS}.json").read_text())))


def _markdown(*results: Path) -> str:
    """Of results, a heading lower than it comes."""
    return (
        smtpbench("report", *map(str, results), "--markdown", "-").strip().replace("\n##", "\n###").replace("## ", "### ", 1)
    )


def _matrix(text: str) -> str:
    """The table of rules alone: findings have a file of their own, and counts would count what is not told."""
    lines = text.split("\n### Check ")[0].strip().splitlines()
    return "\n".join(line for line in lines if not line.startswith("| *")).replace("– not tested", "– not published")


def _server_row(name: str) -> str:
    result = json.loads((PUBLISHED / RULES / f"{name}.json").read_text())
    return f"| {name} | {_version(name)} | {_cell(result['target']['banner'])} | {KINDS[name].keeps} |"


def _version(name: str) -> str:
    """The release: of Debian's packages, by their own words."""
    kind = KINDS[name]
    if kind.version:
        return kind.version
    if name.startswith("postfix"):
        return _said("dpkg-query", "-W", "-f", "${Version}", "postfix")
    (package,) = prepare(name)[2].glob({"exim": "exim4-daemon*.deb", "opensmtpd": "opensmtpd_*.deb"}[name])
    return _said("dpkg-deb", "-f", str(package), "Version")


def _said(*argv: str) -> str:
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.strip() + " (Debian 12)"


def _cell(text: str) -> str:
    """Text for a cell of a table of Markdown."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _file(name: str) -> str:
    return str((HERE / f"{name}.yaml").relative_to(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*COMPARISONS, RULES, BUGS])
    parser.add_argument("--repeats", type=int, help="runs of each candidate, where the default is not what is wanted")
    parser.add_argument("--index", action="store_true", help="only write the pages")
    options = parser.parse_args()
    certificates()
    wanted = [] if options.index else options.only or [*COMPARISONS, RULES, BUGS]
    for name in wanted:
        if name in COMPARISONS:
            compare(name, options.repeats)
        elif name == RULES:
            rules()
        else:
            bugs()
    index()


if __name__ == "__main__":
    main()
