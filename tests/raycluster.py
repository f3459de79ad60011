"""A Ray cluster of three nodes on this machine, in a process of its own, until its standard input is closed.

    python tests/raycluster.py

Prints its address, then answers each line: `kill` ends a node at once, `add` brings one, `limiter` ends the limiter's
process. Its files are below RAY_TMPDIR, whose path must be short: sockets have at most 107 bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
LOOK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


def _process_of(actor: str) -> int:
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if place.read_bytes().startswith(b"ray::" + actor.encode()) and _is_ours(int(place.parent.name)):
                return int(place.parent.name)
    return 0


def _is_ours(pid: int) -> bool:
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return f"RAY_TMPDIR={os.environ['RAY_TMPDIR']}".encode() in environment


def main() -> None:
    """Serve commands until nobody is there to give them."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray's own words are not ours
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": LOOK})
    try:
        nodes: list[Any] = [cluster.add_node(wait=False, **NODE) for _ in range(2)]
        cluster.wait_for_nodes()
        answers.write(f"{cluster.address}\n")
        for line in sys.stdin:
            match line.strip():
                case "kill":
                    cluster.remove_node(nodes.pop(0), allow_graceful=False)
                case "add":
                    nodes.append(cluster.add_node(**NODE))
                case "limiter" if pid := _process_of("_LimiterActor"):
                    os.kill(pid, signal.SIGKILL)
            answers.write("done\n")
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


class RayCluster:
    """The cluster as tests use it; `folder` holds all that Ray writes."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        assert process.stdin and process.stdout
        self._say: IO[str] = process.stdin
        self._hear: IO[str] = process.stdout
        self.folder = folder
        self.address = self._hear.readline().strip()

    def do(self, command: str) -> None:
        self._say.write(f"{command}\n")
        self._say.flush()
        assert self._hear.readline() == "done\n"


@contextlib.contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster until the block ends; it ends too when this process does, however that comes."""
    folder = Path(tempfile.mkdtemp(prefix="bg"))
    env = {**os.environ, "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    said = (folder / "said").open("wb")
    process = subprocess.Popen(
        [sys.executable, __file__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
    )
    try:
        cluster = RayCluster(process, folder)
        assert cluster.address, (folder / "said").read_text()
        yield cluster
    finally:
        process.communicate(timeout=30)
        said.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
