"""Crash promises, shown by killing real processes: what the server was paid for, and what is there in the end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from held import HeldSandbox

from batchgen.sandbox import SANDBOX_KEY, Sandbox, Script

pytestmark = pytest.mark.no_cover  # most of these processes are killed before they could tell
CRASHING = Path(__file__).with_name("crashing.py")
CONCURRENCY = 4
LONG = os.environ.get("BATCHGEN_SOAK") == "1"


@dataclass
class Scene:
    """A manifest, an output folder and a server that counts what is paid."""

    folder: Path
    sandbox: Sandbox
    jobs: int

    async def start(self, crash_at: int = 0, *, doubts: int | None = None) -> asyncio.subprocess.Process:
        arguments = [str(self.folder / "jobs.csv"), "-o", str(self.folder / "out"), "--api", "nebula"]
        arguments += ["--api-url", self.sandbox.url, "-c", str(CONCURRENCY), "--quiet"]
        env = {
            **os.environ,
            "NEBULA_API_KEY": SANDBOX_KEY,
            "XDG_STATE_HOME": str(self.folder / "state"),
            **({"TEST_LIFETIME_DOUBTS": str(doubts)} if doubts is not None else {}),
        }
        return await asyncio.create_subprocess_exec(
            *(sys.executable, str(CRASHING), str(crash_at), "run", *arguments),
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def finish(self, crash_at: int = 0, *, doubts: int | None = None) -> tuple[int, str, str]:
        process = await self.start(crash_at, doubts=doubts)
        out, error = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), error.decode()

    async def requested(self, n: int, process: asyncio.subprocess.Process) -> None:
        """Wait until the server has had `n` requests, or the process has ended."""
        while process.returncode is None and self.sandbox.ledger.requests < n:  # noqa: ASYNC110 - another process's work
            await asyncio.sleep(0.005)

    def check(self) -> None:
        """Every job has exactly one whole picture, the log says so, and nothing else lies about."""
        out = self.folder / "out"
        entries = [msgspec.json.decode(line) for line in (out / "log.jsonl").read_bytes().splitlines()]
        done = Counter(entry["job"] for entry in entries if entry["outcome"] == "done")
        assert len(done) == self.jobs
        assert set(done.values()) == {1}
        pictures = {picture["file"]: picture for entry in entries for picture in entry["images"]}
        there = {str(path.relative_to(out)) for path in (out / "images").rglob("*") if path.is_file()}
        assert there == set(pictures)
        for name, picture in pictures.items():
            assert hashlib.sha256((out / name).read_bytes()).hexdigest() == picture["sha256"]
        assert not list((out / ".batchgen" / "tmp").iterdir())


@pytest.fixture
async def scene(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """A scene with as many small jobs as the test asks for."""
    jobs: int = request.param
    rows = [f"job-{n},prompt number {n},black-forest-labs/FLUX.1-schnell,64,64" for n in range(jobs)]
    (tmp_path / "jobs.csv").write_text("\n".join(["id,prompt,model,width,height", *rows]) + "\n")
    async with Sandbox(Script(latency_s=(0.01, 0.05))) as sandbox:
        yield Scene(tmp_path, sandbox, jobs)


@pytest.mark.parametrize("scene", [6], indirect=True)
async def test_killed_at_any_file_operation(scene: Scene, tmp_path: Path) -> None:
    """Whatever file operation is the last one, the next run completes the work and at most C requests are lost."""
    code, out, error = await scene.finish()
    assert code == 0, error
    operations = int(out)
    chosen = range(1, operations + 1) if LONG else random.Random(7).sample(range(1, operations + 1), 4)
    for crash_at in sorted(chosen):
        again = Scene(tmp_path / str(crash_at), scene.sandbox, scene.jobs)
        again.folder.mkdir()
        (again.folder / "jobs.csv").write_bytes((tmp_path / "jobs.csv").read_bytes())
        before = scene.sandbox.ledger.requests
        code, _, _ = await again.finish(crash_at)
        assert code == -9, f"operation {crash_at} of {operations} was never reached"
        code, _, error = await again.finish()
        assert code == 0, f"after operation {crash_at}: {error}"
        assert scene.sandbox.ledger.requests - before <= again.jobs + CONCURRENCY
        again.check()


@pytest.mark.parametrize("scene", [400 if LONG else 60], indirect=True)
async def test_killed_at_random_instants(scene: Scene) -> None:
    """Kills cost at most C requests each, lose no job, and leave no double or partial picture."""
    dice, kills = random.Random(11), 0
    for _ in range(200 if LONG else 10):
        process = await scene.start(doubts=1000)
        await scene.requested(scene.sandbox.ledger.requests + dice.randrange(6), process)
        await asyncio.sleep(dice.random() * 0.1)
        if process.returncode is None:
            process.kill()
            kills += 1
        await process.communicate()
    code, _, error = await scene.finish(doubts=1000)
    assert code == 0, error
    assert kills
    assert scene.sandbox.ledger.requests <= scene.jobs + CONCURRENCY * kills
    scene.check()


@pytest.mark.parametrize("scene", [1], indirect=True)
async def test_a_job_that_kills_the_process_is_parked(scene: Scene) -> None:
    """A job whose request was three times in doubt is not bought a fourth time."""
    async with Sandbox(Script(latency_s=(30, 30))) as slow:
        hanging = Scene(scene.folder, slow, 1)
        for attempt in range(1, 4):
            process = await hanging.start()
            await hanging.requested(attempt, process)
            process.kill()
            await process.communicate()
        code, _, _ = await hanging.finish()
        assert code == 3
        assert slow.ledger.requests == 3
    [entry] = map(msgspec.json.decode, (scene.folder / "out" / "log.jsonl").read_bytes().splitlines())
    assert entry["outcome"] == "uncertain"
    assert [attempt["failure"] for attempt in entry["attempts"]] == ["in_doubt"] * 3


@pytest.mark.parametrize("scene", [6], indirect=True)
async def test_two_starts(scene: Scene) -> None:
    """Of two starts on one folder the second ends with exit code 5, names the first, and sends nothing."""
    async with HeldSandbox(Script(latency_s=(0.0, 0.0))) as slow:
        two = Scene(scene.folder, slow, scene.jobs)
        first = await two.start()
        await two.requested(1, first)
        code, _, error = await two.finish()
        assert code == 5
        assert f"process {first.pid}" in error
        slow.let_go()
        await first.communicate()
        assert first.returncode == 0
        assert slow.ledger.requests == scene.jobs
        two.check()
