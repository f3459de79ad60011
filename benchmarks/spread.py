"""A run on a Ray cluster of three nodes, all on this machine: does it make what one process makes, does it grow?

    python benchmarks/spread.py equal [--jobs N]     1,632 jobs on one process and on the cluster, where a node is lost
    python benchmarks/spread.py memory [--jobs N]    100,000 jobs on the cluster: memory of the command

Prints what it found; the exit code is 1 where the pictures differ, or memory has grown by more than a tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from raycluster import RayCluster, ray_cluster

from batchgen.sandbox import SANDBOX_KEY, Sandbox, Script

GROWTH = 0.10
LOOK_S = 1.0
DEFAULT_JOBS = {"equal": 1632, "memory": 100_000}


@contextlib.contextmanager
def sandbox(latency_s: float) -> Iterator[Sandbox]:
    """A running sandbox on a thread of its own."""
    loop, server = asyncio.new_event_loop(), Sandbox(Script(latency_s=(0.0, latency_s), balance_usd=1e9))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)


def started(manifest: Path, output: Path, server: Sandbox, *arguments: str) -> subprocess.Popen[bytes]:
    """The command on this manifest."""
    model = "model=black-forest-labs/FLUX.1-schnell"
    settings = ["-D", model, "-D", "width=16", "-D", "height=16", "--no-embed", "--quiet", "--api-url", server.url]
    command = [sys.executable, "-m", "batchgen.cli", "run", str(manifest), "-o", str(output), *settings, *arguments]
    return subprocess.Popen(command, env={**os.environ, "NEBULA_API_KEY": SANDBOX_KEY})


def on(cluster: RayCluster) -> list[str]:
    return ["--engine", "ray", "--ray-address", cluster.address]


def equal(folder: Path, manifest: Path, jobs: int, cluster: RayCluster) -> bool:
    """Whether one process and the cluster, of which a node is lost, make the same pictures."""
    with sandbox(0.2) as server:
        run = started(manifest, folder / "ray", server, *on(cluster))
        while server.ledger.requests < jobs // 2 and run.poll() is None:
            time.sleep(0.1)
        cluster.do("kill")
        codes = [run.wait()]
        extra = server.ledger.requests - jobs
        codes.append(started(manifest, folder / "one", server).wait())
    made = [{p.name: p.read_bytes() for p in (folder / name / "images").iterdir()} for name in ("ray", "one")]
    print(f"exit codes {codes}, {len(made[0])} and {len(made[1])} pictures, {extra} requests extra")
    return made[0] == made[1] and codes == [0, 0]


def memory(folder: Path, manifest: Path, jobs: int, cluster: RayCluster) -> bool:
    """Whether the command's memory stays what it was."""
    rss_mb = []
    with sandbox(0.0) as server:
        run = started(manifest, folder / "ray", server, *on(cluster), "-c", "64")
        while run.poll() is None:
            time.sleep(LOOK_S)
            with contextlib.suppress(OSError, StopIteration):
                status = Path(f"/proc/{run.pid}/status").read_text().splitlines()
                rss_mb.append(int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024)
        done = server.ledger.requests
    steady = rss_mb[len(rss_mb) // 10 :]
    first, second = median(steady[: len(steady) // 4]), median(steady[len(steady) // 2 :])
    print(f"{done} of {jobs} requests; RSS {first:.1f} MB in the first quarter, {second:.1f} MB in the second half")
    return run.returncode == 0 and second <= first * (1 + GROWTH)


def main() -> int:
    """Run what is asked for; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(DEFAULT_JOBS))
    parser.add_argument("--jobs", type=int)
    asked = parser.parse_args()
    jobs = asked.jobs or DEFAULT_JOBS[asked.what]
    with tempfile.TemporaryDirectory() as place, ray_cluster() as cluster:
        folder = Path(place)
        manifest = folder / "m.csv"
        manifest.write_text("id,prompt\n" + "".join(f"job-{n},a fox {n}\n" for n in range(jobs)))
        act = {"equal": equal, "memory": memory}[asked.what]
        return 0 if act(folder, manifest, jobs, cluster) else 1


if __name__ == "__main__":
    sys.exit(main())
