"""Does a long run leak, and do its numbers add up? The real command, watched from outside, and a server beside it.

    python benchmarks/soak.py jobs [--jobs N]            100,000 tiny pictures at full speed
    python benchmarks/soak.py hour [--duration SECONDS]  one request a second, one in twenty goes wrong

Prints a table of memory, descriptors, threads and asyncio tasks and a verdict; where a bound is broken or a count is
wrong the exit code is 1, and the folder is left to be looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from batchgen.sandbox import SANDBOX_KEY

HERE = Path(__file__).parent
MODEL = "black-forest-labs/FLUX.1-schnell"
SAMPLE_S = 2.0
ROWS = 12
ROOM_BYTES = 2 << 30
STEADY = (0.1, 0.98)  # judged between these parts of the jobs: before, concurrency grows; after, the last ones wait
GROWTH = 0.10  # RSS of the second half against the first quarter
UNCERTAIN = 0.01  # of the jobs may meet two rationed faults
COLUMNS = ("rss_mb", "descriptors", "threads", "tasks")
# 5 % together: refusals, no answers, half answers, answers that are none.
FAULTS = (
    *("429:0.003", "500:0.008", "502:0.005", "503:0.005"),
    *("hang:0.004", "reset:0.005", "disconnect:0.005", "slow:0.002"),
    *("truncate:0.003", "badjson:0.002", "badbase64:0.002", "notimage:0.002", "cutimage:0.002"),
    *("html:0.001", "empty:0.001"),
)


@dataclass(frozen=True)
class Scenario:
    """What is run: how many jobs of which size, the run's flags, the server's latency and faults."""

    jobs: int
    pixels: int
    concurrency: int
    flags: tuple[str, ...]
    latency_s: tuple[float, float]
    faults: tuple[str, ...] = ()

    @property
    def bounds(self) -> dict[str, int]:
        # A request in flight is one task, and another while it connects to a host of several addresses.
        return {"descriptors": 2 * self.concurrency + 64, "threads": 24, "tasks": 2 * self.concurrency + 16}


def full_speed(jobs: int) -> Scenario:
    """As fast as it goes, to see what a job leaves behind."""
    return Scenario(jobs, 16, 32, (), (0.0, 0.02))


def hour(duration_s: float) -> Scenario:
    """A night in small: a pace, real latencies, and all the ways in which an answer goes wrong.

    The pace keeps 5 % clear of the limit, so 63 a minute are one a second. A tenth of the time is for what is sent
    again, and for the pauses after the 429s.
    """
    return Scenario(int(0.9 * duration_s), 256, 16, ("--rpm", "63", "--timeout", "60"), (1.0, 5.0), FAULTS)


@dataclass(frozen=True)
class Sample:
    """The process at one moment, `at_s` after its start; `done` counts the lines of its log."""

    at_s: float
    done: int
    rss_mb: float
    descriptors: int
    threads: int
    tasks: int


class Watch:
    """Reads what /proc, the tasks' file and the job log tell about a process."""

    def __init__(self, pid: int, tasks: Path, log: Path) -> None:
        self._proc, self._tasks, self._log = Path(f"/proc/{pid}"), tasks, log
        self._began_s, self._read_bytes, self._done = time.monotonic(), 0, 0

    def sample(self) -> Sample | None:
        """None where the process has not begun to work, or has just ended."""
        with contextlib.suppress(OSError, StopIteration):
            status = dict(line.split(":", 1) for line in (self._proc / "status").read_text().splitlines())
            return Sample(
                at_s=time.monotonic() - self._began_s,
                done=self._count_done(),
                rss_mb=int(status["VmRSS"].split()[0]) / 1024,
                descriptors=sum(1 for _ in (self._proc / "fd").iterdir()),
                threads=int(status["Threads"]),
                tasks=int(self._tasks.read_text()),
            )
        return None

    def _count_done(self) -> int:
        with self._log.open("rb") as log:
            log.seek(self._read_bytes)
            while chunk := log.read(1 << 20):
                self._done += chunk.count(b"\n")
                self._read_bytes += len(chunk)
        return self._done


def write_manifest(path: Path, scenario: Scenario) -> None:
    """As many different jobs as the scenario asks for."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "prompt", "model", "width", "height", "seed"])
        for n in range(scenario.jobs):
            rows.writerow([f"{n // 1000:03}/{n:06}", f"picture {n}", MODEL, scenario.pixels, scenario.pixels, n])


@contextlib.contextmanager
def process(arguments: Iterable[object], **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """A child that does not outlive this program."""
    with subprocess.Popen([sys.executable, *map(str, arguments)], text=True, **settings) as child:
        try:
            yield child
        finally:
            child.kill()


def soak(scenario: Scenario, folder: Path) -> tuple[list[Sample], int, dict[str, Any]]:
    """Run the scenario in this folder: samples, the exit code, and the server's books."""
    write_manifest(folder / "soak.csv", scenario)
    with process([HERE / "server.py", *scenario.latency_s, *scenario.faults], stdout=subprocess.PIPE) as server:
        assert server.stdout
        # By name, as with the real API, so that look-ups are part of what is watched.
        url = server.stdout.readline().strip().replace("127.0.0.1", "localhost")
        samples, code = watch_run(scenario, folder, url)
        server.send_signal(signal.SIGTERM)
        return samples, code, json.loads(server.stdout.readline())


def watch_run(scenario: Scenario, folder: Path, url: str) -> tuple[list[Sample], int]:
    """The command itself, in an environment that says nothing else."""
    flags = ("--api", "nebula", "--api-url", url, "-c", str(scenario.concurrency), *scenario.flags)
    environment = {"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(folder), "NEBULA_API_KEY": SANDBOX_KEY}
    watched = (HERE / "watched.py", folder / "tasks", "run", folder / "soak.csv", "-o", folder / "out", *flags)
    samples: list[Sample] = []
    with (folder / "said.txt").open("w") as said, process(watched, env=environment, stderr=said) as run:
        watch = Watch(run.pid, folder / "tasks", folder / "out/log.jsonl")
        while run.poll() is None:
            if sample := watch.sample():
                samples.append(sample)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(SAMPLE_S)
    return samples, run.returncode


def judge_counts(scenario: Scenario, folder: Path, code: int, books: dict[str, Any]) -> Iterator[str]:
    """What does not add up between summary, log, pictures and the server's books."""
    summary = json.loads((folder / "out/summary.json").read_text())
    outcomes = {line["job"]: line["outcome"] for line in map(json.loads, (folder / "out/log.jsonl").open())}
    pictures = sum(path.is_file() for path in (folder / "out/images").rglob("*"))
    done, uncertain = summary["done"], summary["uncertain"]
    ends = done + summary["failed"] + uncertain + summary["pending"]
    sent = f"{summary['requests']} requests, {summary['retries']} of them retries"
    print(f"summary: {ends} jobs, {done} done, {summary['failed']} failed, {uncertain} uncertain; {sent}")
    print(f"server:  {json.dumps(books)}")
    if code != (3 if uncertain else 0) or code != summary["exit_code"]:
        yield f"exit code {code}"
    if ends != scenario.jobs or summary["failed"] or summary["pending"] or uncertain > UNCERTAIN * scenario.jobs:
        yield f"{scenario.jobs} jobs were given, and at most {UNCERTAIN:.0%} may be uncertain"
    if len(outcomes) != scenario.jobs or pictures != done or list(outcomes.values()).count("done") != done:
        yield f"the log knows {len(outcomes)} jobs, the folder {pictures} pictures"
    if not scenario.jobs + summary["retries"] == summary["requests"] == books["requests"]:
        yield "jobs + retries, the run's requests and the server's requests differ"


def judge_samples(scenario: Scenario, samples: Sequence[Sample], axis: str) -> Iterator[str]:
    """What grew or went out of bounds; prints the slopes between warm-up and wind-down."""
    judged = [s for s in samples if STEADY[0] <= s.done / scenario.jobs <= STEADY[1]]
    if len(judged) < ROWS:
        yield f"only {len(judged)} samples, too few to judge"
        return
    x = [s.at_s / 3600 if axis == "hour" else s.done / 10_000 for s in judged]
    for name in COLUMNS:
        values = [getattr(s, name) for s in judged]
        most, bound = max(getattr(s, name) for s in samples), scenario.bounds.get(name)
        limit = f"most {most}, bound {bound}" if bound else f"most {most:.1f}"
        print(f"slope of {name:12}{linear_regression(x, values).slope:+9.3f} per {axis:12}{limit}")
        if bound and most > bound:
            yield f"{most} {name}, bound {bound}"
    early = median(s.rss_mb for s in judged[: len(judged) // 4])
    late = median(s.rss_mb for s in judged[len(judged) // 2 :])
    print(f"RSS: {early:.1f} MB in the first quarter, {late:.1f} MB in the second half: {late / early - 1:+.1%}")
    if late > early * (1 + GROWTH):
        yield f"RSS grew by more than {GROWTH:.0%}"


def print_table(samples: Sequence[Sample]) -> None:
    """A dozen moments, evenly spaced."""
    print(f"{'minute':>8}{'done':>9}{'RSS MB':>9}{'descriptors':>13}{'threads':>9}{'tasks':>7}")
    for s in dict.fromkeys(samples[n * (len(samples) - 1) // ROWS] for n in range(ROWS + 1) if samples):
        print(f"{s.at_s / 60:8.1f}{s.done:9}{s.rss_mb:9.1f}{s.descriptors:13}{s.threads:9}{s.tasks:7}")


def roomy() -> str | None:
    """The folder that lives in memory, so that no disk sets the pace; None (the usual one) where it is small."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > ROOM_BYTES else None


def main() -> int:
    """Run one scenario; 0 where nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=["jobs", "hour"])
    parser.add_argument("--jobs", type=int, default=100_000, help="of the scenario `jobs` (default 100,000)")
    parser.add_argument("--duration", type=float, default=3600, help="seconds of the scenario `hour` (default 3600)")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended too
    scenario = full_speed(asked.jobs) if asked.scenario == "jobs" else hour(asked.duration)
    folder = Path(tempfile.mkdtemp(prefix="batchgen-soak-", dir=roomy()))
    try:
        samples, code, books = soak(scenario, folder)
    except BaseException:  # what was interrupted must not stay in memory
        shutil.rmtree(folder)
        raise
    print((folder / "said.txt").read_text())
    print_table(samples)
    axis = "hour" if asked.scenario == "hour" else "10,000 jobs"
    problems = [*judge_samples(scenario, samples, axis), *judge_counts(scenario, folder, code, books)]
    print("\n".join(f"WRONG: {problem}" for problem in problems) or "nothing is wrong")
    if not problems:
        shutil.rmtree(folder)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
