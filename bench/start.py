"""Start time of `smtpbench --help` and of shell completion, compared with `import typer`: `make startbench`.

The programs alternate from round to round, so that a machine that slows down slows down all of them. The CPU time (user and
system) of the whole process is compared; the result is the median of the ratios of all rounds. Modules are compiled before
the first round. The exit code is 1 if the help takes more than 1.5 times as long as `import typer`.
"""

from __future__ import annotations

import argparse
import compileall
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from smtpbench.text import plural

ROOT = Path(__file__).resolve().parent.parent
MAX_RATIO = 1.5
_CALL = "from smtpbench.cli.main import main; main()"
#: Name → arguments of Python, environment. The others are compared with the first.
PROGRAMS: dict[str, tuple[Sequence[str], dict[str, str]]] = {
    "import typer": (("-c", "import typer"), {}),
    "smtpbench --help": (("-c", _CALL, "--help"), {}),
    "completing a command": (("-c", _CALL, "smtpbench ru"), {"_SMTPBENCH_COMPLETE": "zsh"}),
    "completing an option": (("-c", _CALL, "smtpbench run relay --ta"), {"_SMTPBENCH_COMPLETE": "zsh"}),
}


def cpu_ms(arguments: Sequence[str], environment: dict[str, str]) -> float:
    """Return user and system time of a Python process, milliseconds."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, **environment}
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return 1000 * (usage.ru_utime + usage.ru_stime)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="Number of rounds. [default: %(default)s]")
    rounds = parser.parse_args().rounds
    compileall.compile_dir(ROOT / "smtpbench", quiet=2)
    for arguments, environment in PROGRAMS.values():  # reads all files once, so that they are cached
        cpu_ms(arguments, environment)
    times_ms: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for number in range(rounds):
        names = list(PROGRAMS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times_ms[name].append(cpu_ms(*PROGRAMS[name]))
    base = next(iter(PROGRAMS))
    ratios = {name: [one / other for one, other in zip(times_ms[name], times_ms[base], strict=True)] for name in PROGRAMS}
    for name in PROGRAMS:
        low, median, high = statistics.quantiles(ratios[name], n=4)
        spread = f"(quartiles {low:.2f} to {high:.2f})"
        print(f"{name:<22}{statistics.median(times_ms[name]):>7.0f} ms CPU   × {median:.2f}  {spread}")
    median = statistics.median(ratios["smtpbench --help"])
    print(f"limit × {MAX_RATIO}: {'passed' if median <= MAX_RATIO else 'FAILED'}, {plural(rounds, 'round')}")
    return median > MAX_RATIO


if __name__ == "__main__":
    sys.exit(main())
