"""What batchgen costs as things grow: `scale.py [start flat flight durability log plan resume]`; all by default.

start: how long commands take until they say something. flat: CPU and memory a job from 1,000 to 100,000 jobs. flight:
1,000 requests in flight that take 2 s each, beside the bare read of the same answers. durability: what group commit
costs on a real disk. log: reading a log of a million lines. plan: a job of a manifest of 1,000 to 1,000,000 rows.
resume: looking at, and starting again, a run of a million jobs that are all done. `--jobs` for fewer than a million.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import nginx
from bench import Course, Measured, execute, placed

import batchgen

BATCHGEN = str(Path(sys.executable).with_name("batchgen"))
MILLION = 1_000_000
JOBS = MILLION


def start(space: Path) -> None:
    """The best of nine: an empty Python, one with aiohttp, commands, and the first request of a run of 1,000 jobs."""
    print("| command | s | x Python |\n|---|---|---|")
    folder = _folder(space)
    _run_sandbox(folder)
    commands = {
        "python, nothing": [sys.executable, "-c", "pass"],
        "python, import aiohttp": [sys.executable, "-c", "import aiohttp"],
        "--help": [BATCHGEN, "--help"],
        "--version": [BATCHGEN, "--version"],
        "status": [BATCHGEN, "status", str(folder / "out")],
    }
    ways: dict[str, Callable[[], float]] = {
        name: lambda command=command: _timed(command, folder).wall_s  # type: ignore[misc]
        for name, command in commands.items()
    }
    ways["run of 1,000 jobs, to its first request"] = lambda: _first_request(space)
    # Interleaved, so that what else the machine does falls on all of them.
    rounds = [{name: way() for name, way in ways.items()} for _ in range(9)]
    best_s = {name: min(one[name] for one in rounds) for name in ways}
    for name, took_s in best_s.items():
        print(f"| {name} | {took_s:.3f} | {took_s / best_s['python, nothing']:.1f} |")
    print(flush=True)


def _timed(command: list[str], folder: Path) -> Measured:
    return execute(command, folder, frozenset())


def _run_sandbox(folder: Path) -> None:
    (folder / "few.csv").write_text("id,prompt,model,width,height\na,a cat,black-forest-labs/FLUX.1-schnell,64,64\n")
    _timed([BATCHGEN, "run", str(folder / "few.csv"), "--api", "sandbox", "-o", str(folder / "out"), "--quiet"], folder)


def _first_request(space: Path) -> float:
    folder = _folder(space)
    manifest = _manifest(folder, 1000)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        flags = ["-o", str(folder / "out"), "--api-url", url, "--quiet"]
        environment = {**os.environ, "NEBULA_API_KEY": "bench", "XDG_STATE_HOME": str(folder / "state")}
        began_s = time.monotonic()
        process = subprocess.Popen([BATCHGEN, "run", str(manifest), *flags], env=environment)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1)
            took_s = time.monotonic() - began_s
            process.send_signal(signal.SIGKILL)
            process.wait()
    return took_s


def flat(space: Path) -> None:
    """CPU for 1,000 of 1,000, 10,000 and 100,000 small pictures, the fixed cost of a start taken off."""
    print("| jobs | CPU s / 1,000 | x the first | peak MB |\n|---|---|---|---|")
    first = None
    with placed(space) as (url, pictures, cores):
        course = Course("batchgen", f"{url}/S", pictures["S"], cores=cores)
        begin_s = statistics.median(course.run(1, space).cpu_s for _ in range(3))
        for count, rounds in ((1000, 5), (10_000, 2), (100_000, 1)):
            runs = [course.run(count, space) for _ in range(rounds)]
            cpu_s = statistics.median(run.cpu_s - begin_s for run in runs) / count * 1000
            first = first or cpu_s
            peak_mb = max(run.peak_mb for run in runs)
            print(f"| {count:,} | {cpu_s:.3f} | {cpu_s / first:.2f} | {peak_mb:.0f} |", flush=True)
    print()


def flight(space: Path) -> None:
    """1,000 in flight; the rate is that after the first half of all answers, when both have found their pace."""
    if not nginx.ECHO.exists():
        print("flight is left out: nginx has no echo module (apt-get install nginx-light)", file=sys.stderr)
        return
    count = 16_000
    print("| 1,000 in flight, 2 s, M | pictures/s | CPU s / 1,000 | peak MB |\n|---|---|---|---|")
    with placed(space) as (url, pictures, cores):
        for name in ("read", "batchgen"):
            (space / "slow.log").write_bytes(b"")
            course = Course(name, f"{url}/slow/M", pictures["M"], 1000, cores)
            run = course.run(count, space)
            time.sleep(2)
            times_s = sorted(map(float, (space / "slow.log").read_text().split()))
            middle = times_s[len(times_s) // 2 : len(times_s) * 9 // 10]
            rate = len(middle) / (middle[-1] - middle[0])
            print(f"| {name} | {rate:.0f} | {run.cpu_s / count * 1000:.3f} | {run.peak_mb:.0f} |", flush=True)
    print()


def durability(space: Path) -> None:
    """The default beside nothing durable and beside one commit a picture, on the disk of the current folder."""
    print("| M on a disk | pictures/s | CPU s / 1,000 | x the rate of the default |\n|---|---|---|---|")
    count, default = 600, None
    with placed(space) as (url, pictures, cores), tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as disk:
        for name, variant in (("group commit", ""), ("durability off", "off"), ("one commit a picture", "each")):
            course = Course("batchgen", f"{url}/M", pictures["M"], cores=cores, variant=variant)
            os.sync()
            one, whole = course.run(1, Path(disk)), course.run(count, Path(disk))
            cpu_s = (whole.cpu_s - one.cpu_s) / count * 1000
            rate = count / (whole.wall_s - one.wall_s)
            default = default or rate
            print(f"| {name} | {rate:.0f} | {cpu_s:.3f} | {rate / default:.2f} |", flush=True)
    print()


def log(space: Path) -> None:
    """`status` over a log of a million lines, whose jobs no manifest lists any more."""
    folder = _folder(space)
    _run_sandbox(folder)
    (folder / "few.csv").unlink()
    line = msgspec.json.decode((folder / "out/log.jsonl").read_bytes())
    with (folder / "out/log.jsonl").open("ab") as file:
        for number in range(JOBS):
            file.write(msgspec.json.encode(line | {"job": f"job-{number}", "fingerprint": f"{number:032x}"}) + b"\n")
    size_mb = (folder / "out/log.jsonl").stat().st_size / 1e6
    found = _timed([BATCHGEN, "status", str(folder / "out")], folder)
    print("| log | s | CPU s | peak MB |\n|---|---|---|---|")
    print(f"| {JOBS:,} lines, {size_mb:.0f} MB | {found.wall_s:.1f} | {found.cpu_s:.1f} | {found.peak_mb:.0f} |\n")


def plan(space: Path) -> None:
    """`check` of 1,000 to a million pending rows of a table, the fixed cost of a start taken off."""
    print("| rows | CPU us / row | x the first | bytes / row |\n|---|---|---|---|")
    folder = _folder(space)
    first, begin = None, _checked(folder, 1)
    for count in sorted({1000, 10_000, 100_000, JOBS}):
        found = _checked(folder, count)
        row_us = (found.cpu_s - begin.cpu_s) / count * 1e6
        first = first or row_us
        bytes_a_row = (found.peak_mb - begin.peak_mb) * 1e6 / count
        print(f"| {count:,} | {row_us:.1f} | {row_us / first:.2f} | {bytes_a_row:.0f} |", flush=True)
    print()


def _checked(folder: Path, count: int) -> Measured:
    return _timed([BATCHGEN, "check", str(_manifest(folder, count)), "-o", str(folder / "out")], folder)


def resume(space: Path) -> None:
    """`status` and `run` over a manifest of a million jobs that are all done, with their pictures in their places."""
    folder = _folder(space)
    manifest, out = _manifest(folder, 1), folder / "out"
    tiny = ["-D", "width=64", "-D", "height=64"]
    run = [BATCHGEN, "run", str(manifest), "--api", "sandbox", *tiny, "-o", str(out), "--quiet"]
    _timed(run, folder)
    _manifest(folder, JOBS)
    entry = msgspec.json.decode((out / "log.jsonl").read_bytes())
    [picture] = entry["images"]
    first = out / picture["file"]
    with (out / "log.jsonl").open("wb") as file:
        for job in batchgen.read(manifest, api="sandbox", output=out, defaults=tuple(tiny[1::2])):
            image = first.with_stem(job.id)
            told = {"images": [picture | {"file": f"images/{image.name}"}], "request": job.request}
            line = entry | told | {"job": job.id, "fingerprint": job.fingerprint}
            file.write(msgspec.json.encode(line) + b"\n")
            if image != first:
                image.hardlink_to(first)
    print(f"| {JOBS:,} jobs, all done | s | CPU s | peak MB |\n|---|---|---|---|")
    for name, command in (("status", [BATCHGEN, "status", str(out)]), ("run", run)):
        found = _timed(command, folder)
        print(f"| {name} | {found.wall_s:.1f} | {found.cpu_s:.1f} | {found.peak_mb:.0f} |", flush=True)
    print()


def _folder(space: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=space))


def _manifest(folder: Path, count: int) -> Path:
    rows = "".join(f"{number},picture {number},black-forest-labs/FLUX.1-schnell\n" for number in range(count))
    (folder / "bench.csv").write_text(f"id,prompt,model\n{rows}")
    return folder / "bench.csv"


PARTS: dict[str, Callable[[Path], None]] = {
    one.__name__: one for one in (start, flat, flight, durability, log, plan, resume)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--space", default="/dev/shm", type=Path, help="where files are written; tmpfs by default")
    parser.add_argument("--jobs", default=MILLION, type=int, help="how many for `log`, `plan` and `resume` (a million)")
    asked = parser.parse_args()
    global JOBS
    JOBS = asked.jobs
    if set(asked.parts) & {"flat", "flight", "durability"}:
        nginx.find()
    for part in asked.parts:
        with tempfile.TemporaryDirectory(dir=asked.space, prefix="batchgen-bench-") as folder:
            Path(folder).chmod(0o755)
            print(f"{part}: {(PARTS[part].__doc__ or '').splitlines()[0]}\n", flush=True)
            PARTS[part](Path(folder))


if __name__ == "__main__":
    main()
