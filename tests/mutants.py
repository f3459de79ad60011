"""Compares the mutants that nothing killed with those that `MUTANTS.md` explains; `make mutants` runs it after mutmut.

A mutant is known by the lines that it changes, because mutmut numbers its mutants anew with every change of the code.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LIST = Path(__file__).with_name("MUTANTS.md")
DEAD = ("killed", "timeout", "caught by type check")
DIFF = re.compile(r"```diff\n(.*?)```", re.DOTALL)


def mutmut(*args: str) -> str:
    return subprocess.run([Path(sys.executable).with_name("mutmut"), *args], capture_output=True, text=True).stdout


def changed(diff: str) -> str:
    """The lines that a diff takes away and adds, with blanks and line ends made equal."""
    sides: dict[str, list[str]] = {"-": [], "+": []}
    for line in diff.splitlines():
        if re.match(r"[-+](?![-+]{2} )", line):
            sides[line[0]].append(line[1:])
    return "\n".join(f"{sign} {' '.join(' '.join(lines).split())}" for sign, lines in sides.items())


def main() -> int:
    known = {changed(block) for block in DIFF.findall(LIST.read_text())}
    results = dict(line.strip().split(": ", 1) for line in mutmut("results").splitlines() if ": " in line)
    alive = {name: changed(mutmut("show", name)) for name, status in results.items() if status not in DEAD}
    for name, lines in alive.items():
        if lines not in known:
            print(f"{name}: {results[name]}\n{lines}\n")
    for lines in known.difference(alive.values()):
        print(f"explained in {LIST.name}, but dead or gone:\n{lines}\n")
    unexplained = sum(lines not in known for lines in alive.values())
    print(f"{len(alive)} mutants live, {unexplained} of them unexplained")
    return unexplained > 0


if __name__ == "__main__":
    sys.exit(main())
