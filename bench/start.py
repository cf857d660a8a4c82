"""How long `smtpbench --help` and a Tab take to start, beside `import typer`: `make startbench`.

The three alternate, round by round, so that a machine which slows down slows all; what is compared is the CPU time (user
and system) of the whole process, and the figure is the median of the rounds' ratios. Modules are compiled once before.
Exit code 1 means that the help took more than 1.5 times as long as `import typer`.
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

ROOT = Path(__file__).resolve().parent.parent
MOST_RATIO = 1.5
_CALL = "from smtpbench.cli.main import main; main()"
#: Name → program, environment. The first is what the others are held against.
PROGRAMS: dict[str, tuple[Sequence[str], dict[str, str]]] = {
    "import typer": (("-c", "import typer"), {}),
    "smtpbench --help": (("-c", _CALL, "--help"), {}),
    "completing a command": (("-c", _CALL, "smtpbench ru"), {"_SMTPBENCH_COMPLETE": "zsh"}),
    "completing an option": (("-c", _CALL, "smtpbench run relay --ta"), {"_SMTPBENCH_COMPLETE": "zsh"}),
}


def cpu_ms(arguments: Sequence[str], environment: dict[str, str]) -> float:
    """User and system time of a Python process, in milliseconds."""
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
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    compileall.compile_dir(ROOT / "smtpbench", quiet=2)
    for arguments, environment in PROGRAMS.values():  # what is read from disk is read
        cpu_ms(arguments, environment)
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for turn in range(rounds):
        names = list(PROGRAMS)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken[name].append(cpu_ms(*PROGRAMS[name]))
    base = next(iter(PROGRAMS))
    ratios = {name: [one / other for one, other in zip(taken[name], taken[base], strict=True)] for name in PROGRAMS}
    for name in PROGRAMS:
        low, middle, high = statistics.quantiles(ratios[name], n=4)
        spread = f"(quartiles {low:.2f} to {high:.2f})"
        print(f"{name:<22}{statistics.median(taken[name]):>7.0f} ms CPU   × {middle:.2f}  {spread}")
    middle = statistics.median(ratios["smtpbench --help"])
    print(f"at most × {MOST_RATIO}: {'held' if middle <= MOST_RATIO else 'FAILED'}, {rounds} rounds")
    return middle > MOST_RATIO


if __name__ == "__main__":
    sys.exit(main())
