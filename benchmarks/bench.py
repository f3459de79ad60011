"""Side by side: batchgen through its command line and the ways that others fetch the same pictures.

`bench.py [--sizes SML] [--rounds 3] [--only NAME,...]`. All contestants of a size run one after the other, round by
round, against one nginx on another core; medians of CPU seconds (user and system, of the command and its children),
less those of the same command with one job. Every file's bytes behind its head are compared. Ratios are findings,
seconds are not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import answers
import nginx

HERE = Path(__file__).parent
IN_FLIGHT = 32
_HEAD_BYTES = 64
OURS = {"batchgen": [], "no-embed": ["--no-embed"]}
NAMES = ("read", "write", "batchgen", "no-embed", "cookbook", "threads", "openai", "curl")
NEEDS = {"threads": "requests", "openai": "openai", "curl": "jq"}


@dataclass(frozen=True)
class Measured:
    """One execution of a command."""

    cpu_s: float
    wall_s: float
    peak_mb: float


@dataclass(frozen=True)
class Course:
    """What is run: which contestant, where the answers are, how many, and what must come out."""

    name: str
    url: str
    picture: bytes
    in_flight: int = IN_FLIGHT
    cores: frozenset[int] = frozenset()
    variant: str = ""

    def run(self, count: int, space: Path) -> Measured:
        """Do `count` pictures in a new folder below `space`, check them, remove them."""
        folder = Path(tempfile.mkdtemp(dir=space))
        try:
            (folder / "one").write_bytes(self.picture)
            out = folder / "out"
            out.mkdir()
            measured = execute(self._command(count, out), folder, self.cores)
            self._check(count, out)
            return measured
        finally:
            shutil.rmtree(folder)

    def _command(self, count: int, out: Path) -> list[str]:
        if self.name not in OURS:
            place = [self.url, str(count), str(out), str(self.in_flight)]
            return [sys.executable, str(HERE / "contestants.py"), self.name, *place]
        manifest = out.parent / "bench.csv"
        rows = "".join(f"{number},picture {number},black-forest-labs/FLUX.1-schnell\n" for number in range(count))
        manifest.write_text(f"id,prompt,model\n{rows}")
        flags = ["-o", str(out), "--api-url", self.url, "-c", str(self.in_flight), "--quiet"]
        flags += OURS[self.name]
        program = [str(Path(sys.executable).with_name("batchgen"))]
        if self.variant:
            program = [sys.executable, str(HERE / "variants.py"), self.variant]
        return [*program, "run", str(manifest), *flags]

    def _check(self, count: int, out: Path) -> None:
        if self.name == "read":
            return
        files = [path for path in (out / "images" if self.name in OURS else out).iterdir() if path.is_file()]
        # Before the pixels batchgen writes what the picture was made from, unless it is told not to.
        end = self.picture[_HEAD_BYTES if self.name == "batchgen" else 0 :]
        wrong = [path.name for path in files if not path.read_bytes().endswith(end)]
        if len(files) != count or wrong:
            sys.exit(f"{self.name}: {len(files)} files instead of {count}, {len(wrong)} of them wrong; no result")


def execute(command: list[str], folder: Path, cores: frozenset[int]) -> Measured:
    environment = {
        **os.environ,
        "NEBULA_API_KEY": "bench",
        "PICTURE": str(folder / "one"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    if cores:
        command = ["taskset", "-c", ",".join(map(str, sorted(cores))), *command]
    began_s = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - began_s
    if process.returncode is None:
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    return Measured(usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss / 1024)


@dataclass(frozen=True)
class Result:
    """Medians of one contestant at one size, start-up taken off: CPU seconds for 1,000 pictures."""

    name: str
    cpu_s: float
    rate: float
    peak_mb: float


def compare(size: answers.Size, courses: list[Course], rounds: int, space: Path) -> list[Result]:
    """Round by round, every contestant once; the order turns, so that none always follows the same other."""
    taken: dict[str, list[tuple[float, float, float]]] = {course.name: [] for course in courses}
    for number in range(rounds):
        for course in courses[number % len(courses) :] + courses[: number % len(courses)]:
            count = size.pictures // 20 if course.name == "curl" else size.pictures
            start, whole = course.run(1, space), course.run(count, space)
            cpu_s = (whole.cpu_s - start.cpu_s) / (count - 1) * 1000
            taken[course.name].append((cpu_s, (count - 1) / (whole.wall_s - start.wall_s), whole.peak_mb))
    return [Result(name, *map(statistics.median, zip(*rows, strict=True))) for name, rows in taken.items()]


def table(size: answers.Size, results: list[Result]) -> str:
    """Markdown: what 1,000 pictures cost each contestant, and how often the floor's and batchgen's cost that is."""
    cpu = {result.name: result.cpu_s for result in results}
    floor_s = cpu["read"] + cpu["write"]
    lines = [
        f"| {size.name}: {size.what} | CPU s / 1,000 | x floor | x batchgen | pictures/s | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for one in results:
        ratios = f"{one.cpu_s / floor_s:.2f} | {one.cpu_s / cpu['batchgen']:.2f}"
        lines.append(f"| {one.name} | {one.cpu_s:.3f} | {ratios} | {one.rate:.0f} | {one.peak_mb:.0f} |")
    return "\n".join(lines)


def _present(names: list[str]) -> list[str]:
    """The contestants that can run here; the others are named, nothing is installed."""
    found = []
    for name in names:
        need = NEEDS.get(name)
        there = not need or (shutil.which(need) if name == "curl" else _has(need))
        if there:
            found.append(name)
        else:
            print(f"{name} is left out: {need} is not installed", file=sys.stderr)
    return found


def _has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


@contextmanager
def placed(space: Path) -> Iterator[tuple[str, dict[str, bytes], frozenset[int]]]:
    """The server's address, each size's picture, and the cores for clients: all but the server's."""
    every = sorted(os.sched_getaffinity(0))
    (space / "answers").mkdir()
    pictures = answers.build(space / "answers")
    with nginx.serving(space, every[0] if len(every) > 1 else None) as url:
        yield url, pictures, frozenset(every[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="SML")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(NAMES), help="contestants; the floor and batchgen always run")
    parser.add_argument("--space", default="/dev/shm", type=Path, help="where files are written; tmpfs for CPU ratios")
    asked = parser.parse_args()
    nginx.find()
    names = _present([name for name in NAMES if name in ("read", "write", *OURS, *asked.only.split(","))])
    with tempfile.TemporaryDirectory(dir=asked.space, prefix="batchgen-bench-") as folder:
        space = Path(folder)
        space.chmod(0o755)
        with placed(space) as (url, pictures, cores):
            for size in (size for size in answers.SIZES if size.name in asked.sizes):
                courses = [Course(name, f"{url}/{size.name}", pictures[size.name], cores=cores) for name in names]
                print(table(size, compare(size, courses, asked.rounds, space)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
