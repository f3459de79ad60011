"""The real command on a real Ray cluster of three nodes on this machine; all that needs no Ray is in test_cluster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from raycluster import RayCluster, ray_cluster

import batchgen
from batchgen import joblog
from batchgen.cluster.messages import Over
from batchgen.joblog import Fold
from batchgen.model import ExitCode, UsageError
from batchgen.pacing import Budget
from batchgen.runner.archive import open_archive
from batchgen.sandbox import SANDBOX_KEY

if TYPE_CHECKING:
    from conftest import Beside, Place

    from batchgen.sandbox import Sandbox

if find_spec("ray") is None:
    assert os.environ.get("CI") != "true", "CI needs Ray: pip install 'batchgen[dev]'"
    pytest.skip("Ray cannot be imported (it has no wheel for this Python or system)", allow_module_level=True)

# The processes that do the work are measured by test_cluster; to measure them here too takes twice as long.
pytestmark = [pytest.mark.no_cover, pytest.mark.xdist_group("ray")]
KEY = SANDBOX_KEY
JOBS = 40
C = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """One cluster for all tests here, since it takes longer than any of them."""
    with ray_cluster() as found:
        yield found


class Requests:
    """When requests came in at a server, and a word when so many have."""

    def __init__(self, server: Sandbox) -> None:
        self.times_s: list[float] = []
        self._awaited: list[tuple[int, threading.Event]] = []
        server.ledger.on_request = self._came  # type: ignore[attr-defined]

    def _came(self, number: int) -> None:
        self.times_s.append(time.monotonic())
        for awaited, event in self._awaited:
            if number >= awaited:
                event.set()

    def wait_for(self, number: int) -> None:
        event = threading.Event()
        self._awaited.append((number, event))
        assert len(self.times_s) >= number or event.wait(40)


def started(place: Place, cluster: RayCluster, server: Sandbox, *arguments: str) -> subprocess.Popen[str]:
    """`batchgen run` on the cluster, in a process of its own."""
    settings = ["--engine", "ray", "--ray-address", cluster.address, "--api-url", server.url, "-c", str(C), "--json"]
    env = {**os.environ, "RAY_TMPDIR": str(cluster.folder), "NEBULA_API_KEY": KEY}
    # Whoever tells the makers of Ray of this run has been told to by Ray's own default.
    env.pop("RAY_USAGE_STATS_ENABLED", None)
    command = [sys.executable, "-m", "batchgen.cli", "run", str(place.root / "m.yaml"), *settings, *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(run: subprocess.Popen[str]) -> dict[str, Any]:
    """The run's summary, which is all that may come on standard output; what people read is no dump of Ray's."""
    out, said = run.communicate(timeout=90)
    assert out.count("\n") == 1, out
    assert not [word for word in ("Traceback", "ray::", "pid=", " I ", " W ", " E ", "gcs") if word in said], said
    found: dict[str, Any] = json.loads(out)
    assert found.get("exit_code") == run.returncode, said
    return found


def folded(output: Path) -> tuple[set[str], dict[str, bytes], tuple[int, float]]:
    """What an output folder holds: the jobs that are done, their pictures, requests and money."""
    with open_archive(output) as archive:
        done = {entry.job for entry in archive.entries() if entry.images}
        fold: Fold = archive.records.fold
    pictures = {str(path.relative_to(output)): path.read_bytes() for path in (output / "images").rglob("*.*")}
    return done, pictures, (fold.requests, round(fold.spent_usd, 6))


async def test_another_version_refuses_to_work() -> None:
    """A machine with another batchgen says so in plain words, before it reads what that could not understand."""
    from batchgen.cluster.nodes import LimiterCalls, _WorkerActor

    actor = _WorkerActor("0.0.7", "m1-1", b"not for this version", LimiterCalls("limiter"))
    [batch] = [batch async for batch in actor.reports()]
    [over] = batch.reports
    assert isinstance(over, Over)
    [stop] = over.stops
    assert stop.exit_code is ExitCode.USAGE
    assert f"has batchgen {batchgen.__version__}, the run was started with 0.0.7; install the same" in stop.reason


def test_a_limiter_tells_what_it_finds_at_its_start() -> None:
    """An account that cannot be shared is told through the limiter's news, though it is found before it works."""
    from batchgen.cluster.nodes import _LimiterActor

    def open_accounts(warn: Callable[[str], None]) -> list[Any]:
        warn("there is no HOME")
        return []

    limiter = _LimiterActor(open_accounts, Budget(), set(), [])
    assert asyncio.run(limiter.news(0)).notices == ("there is no HOME",)


def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    """Nobody listens at the address: a mistake that is told before anything is waited for."""
    from batchgen.cluster.nodes import connected

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(UsageError, match=r"the Ray cluster at 127.0.0.1:[0-9]+ cannot be reached: .*refused"),
            connected(address),
        ):
            pass


async def test_a_cluster_makes_what_one_process_and_shards_make(
    place: Place, beside: Beside, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same manifest on one process, as four shards and on three nodes: the same jobs done, the same pictures, logs
    that fold to the same numbers. Ray is told nothing that it would keep or pass on."""
    server = beside()
    manifest = place.jobs(*(f"job-{n}" for n in range(JOBS)), prices_usd={"black-forest-labs/FLUX.1-schnell": 0.5})
    run = started(place, cluster, server, "-o", str(place.root / "ray"), "--no-embed")
    settings: dict[str, Any] = {"api_url": server.url, "embed": False}
    monkeypatch.setenv("NEBULA_API_KEY", KEY)
    await batchgen.run_async(manifest, output=place.root / "one", **settings)
    for i in range(1, 5):
        await batchgen.run_async(manifest, output=place.root / "four", shard=f"{i}/4", **settings)
    found = await asyncio.to_thread(ended, run)
    assert (found["exit_code"], found["done"], found["requests"]) == (0, JOBS, JOBS)
    assert folded(place.root / "ray") == folded(place.root / "one") == folded(place.root / "four")
    written = [path for path in cluster.folder.rglob("*") if path.is_file()]
    assert written and not [path for path in written if KEY.encode() in path.read_bytes()]
    assert not [path for path in written if "usage_stats" in path.name]


def test_a_run_survives_signals_and_the_loss_of_nodes(place: Place, beside: Beside, cluster: RayCluster) -> None:
    """SIGTERM drains the cluster, and the same command goes on; it does so though the limiter's process is killed, and
    a whole node: all jobs are done, none twice, no more requests extra than were in flight, and none too fast."""
    server = beside(latency_s=0.3)
    place.jobs(*(f"job-{n}" for n in range(JOBS)))
    came = Requests(server)
    run = started(place, cluster, server, "--rpm", "480")
    came.wait_for(6)
    run.send_signal(signal.SIGTERM)
    found = ended(run)
    assert run.returncode == 143 and 0 < found["done"] == server.ledger.requests < JOBS
    assert found["in_doubt"] == 0

    before = server.ledger.requests
    run = started(place, cluster, server, "--rpm", "480")
    came.wait_for(before + 5)
    cluster.do("limiter")
    came.wait_for(before + 12)
    cluster.do("kill")
    found = ended(run)
    assert (run.returncode, found["done"]) == (0, JOBS)
    jobs = [entry["job"] for entry in place.log]
    assert len(jobs) == len(set(jobs)) == JOBS
    assert server.ledger.requests <= JOBS + C and server.ledger.refusals.total() == 0
    lines = (place.output / ".batchgen/attempts.jsonl").read_bytes().splitlines()
    assert not [joblog.decode_note(line) for line in lines]
    # Leases may be used up to 3 s late; otherwise eight requests a second.
    for times_s in (came.times_s[:before], came.times_s[before:]):
        assert times_s[-1] - times_s[0] >= (len(times_s) - 1) / 8 - 3
