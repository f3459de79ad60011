"""The fault matrix of the reliability page, rows 45-61: whole runs on a disk that fails, lies or is meddled with.

The disk is `outside.PosixFiles` with faults; the server is the sandbox and its ledger. No test waits: the writer's
pause moves the run's clock instead. Which row is shown where, in all the suite, is in MATRIX.md.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import batchgen
from batchgen import images
from batchgen.clock import SystemClock
from batchgen.files import PosixFiles
from batchgen.model import ExitCode, StorageError, UsageError
from batchgen.sandbox import SANDBOX_KEY, Sandbox, Script
from batchgen.summary import Summary
from batchgen.world import SyncFailed

if TYPE_CHECKING:
    from conftest import Place

C = 2
JOBS = ("a", "deep/b", "c", "d")
LONG = os.environ.get("BATCHGEN_SOAK") == "1"
LOG, ATTEMPTS, TMP = "log.jsonl", ".batchgen/attempts.jsonl", ".batchgen/tmp"
SYNCS = ("sync", "sync_dir")


@dataclass
class Faults:
    """Which operations fail: those for which `matches` holds, from the `first`-th on, `times` of them."""

    code: int = errno.ENOSPC
    matches: Callable[[str], bool] = lambda operation: True
    first: int = 1
    times: float = 1
    did: list[str] = field(default_factory=list)
    hits: list[str] = field(default_factory=list)
    _seen: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, operation: str) -> None:
        with self._lock:
            self.did.append(operation)
            if not self.matches(operation):
                return
            self._seen += 1
            if self._seen < self.first or len(self.hits) >= self.times:
                return
            self.hits.append(operation)
        raise OSError(self.code, os.strerror(self.code))


class FailingFiles(PosixFiles):
    """The real files; every changing operation is told to the faults as `operation path` first."""

    faults = Faults()

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._paths: dict[int, str] = {}

    def create(self, path: str) -> int:
        self.faults.check(f"create {path}")
        return self._remember(super().create(path), path)

    def append_to(self, path: str) -> int:
        self.faults.check(f"append_to {path}")
        return self._remember(super().append_to(path), path)

    def _remember(self, handle: int, path: str) -> int:
        self._paths[handle] = path
        return handle

    def write(self, handle: int, data: bytes) -> None:
        try:
            self.faults.check(f"write {self._paths[handle]}")
        except OSError:
            super().write(handle, data[: len(data) // 2])
            raise
        super().write(handle, data)

    def truncate(self, handle: int, size_bytes: int) -> None:
        self.faults.check(f"truncate {self._paths[handle]}")
        super().truncate(handle, size_bytes)

    def sync(self, handle: int) -> None:
        self._sync(f"sync {self._paths[handle]}")

    def sync_dir(self, path: str) -> None:
        self._sync(f"sync_dir {path}")
        super().sync_dir(path)

    def _sync(self, operation: str) -> None:
        try:
            self.faults.check(operation)
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror) from error

    def make_dir(self, path: str) -> None:
        self.faults.check(f"make_dir {path}")
        super().make_dir(path)

    def rename(self, old: str, new: str) -> None:
        self.faults.check(f"rename {new}")
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self.faults.check(f"remove {path}")
        super().remove(path)


@pytest.fixture(autouse=True)
def no_real_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real syncs prove nothing here and take seconds by the hundred."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class HastyClock(SystemClock):
    """The real clock, on which the writer's pauses take no time."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s

    def pause(self, seconds: float) -> None:
        self.ahead_s += seconds


class Bench:
    """A manifest of four jobs, a sandbox that counts, and a disk that can be told to fail."""

    def __init__(self, place: Place, server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.server, self._patch = place, server, monkeypatch
        self.manifest = place.jobs(*JOBS)
        self.output = place.output

    @property
    def bought(self) -> int:
        return self.server.ledger.pictures

    @property
    def requests(self) -> int:
        return self.server.ledger.requests

    def disk(self, faults: Faults | None = None, files: type[PosixFiles] = FailingFiles) -> Faults:
        """From now on runs have these faults, or none."""
        FailingFiles.faults = faults or Faults(times=0)
        self._patch.setattr("batchgen.runner.outside.PosixFiles", files)
        return FailingFiles.faults

    async def run(self, **settings: Any) -> Summary:
        found: dict[str, Any] = {
            "output": self.output,
            "api": "nebula",
            "api_url": self.server.url,
            "concurrency": C,
        } | settings
        return await batchgen.run_async(self.manifest, **found)

    async def try_to_run(self) -> int:
        """The exit code of a run; what it left is whole, whatever came of it."""
        try:
            code = (await self.run()).exit_code
        except StorageError as error:
            code = error.exit_code
        self.nothing_is_half_visible()
        return code

    def nothing_is_half_visible(self) -> None:
        """Pictures under their names are whole, and the log's whole lines tell only of those."""
        base = self.output / "images"
        there = {str(path.relative_to(self.output)) for path in base.rglob("*") if path.is_file()}
        for name in there:
            images.check((self.output / name).read_bytes())
        if (self.output / LOG).exists():
            whole = (self.output / LOG).read_bytes().split(b"\n")[:-1]
            assert {image["file"] for line in whole for image in json.loads(line)["images"]} <= there

    async def completes(self, **settings: Any) -> None:
        """With a good disk the same command finishes the work, each job exactly once in the log."""
        self.disk()
        summary = await self.run(**settings)
        assert (summary.exit_code, summary.done) == (0, len(JOBS)), summary.verdict
        self.nothing_is_half_visible()
        assert sorted(entry["job"] for entry in self.place.log) == sorted(JOBS)
        assert self.place.files() == {f"{job}.png" for job in JOBS}
        assert not list((self.output / TMP).iterdir())


@asynccontextmanager
async def bench_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with Sandbox(Script(latency_s=(0, 0))) as server:
        yield Bench(place, server, monkeypatch)


@pytest.fixture
async def bench(place: Place, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    clock = HastyClock()
    monkeypatch.setenv("NEBULA_API_KEY", SANDBOX_KEY)
    monkeypatch.setattr("batchgen.runner.outside.SystemClock", lambda: clock)
    time = SimpleNamespace(sleep=clock.pause, monotonic=clock.monotonic)
    monkeypatch.setattr("batchgen.runner.outside.time", time)
    async with bench_of(place, monkeypatch) as found:
        yield found
    FailingFiles.faults = Faults(times=0)


async def operations(bench: Bench) -> list[str]:
    """What a clean run does; its folder is gone again."""
    faults = bench.disk(Faults(times=0))
    assert (await bench.run()).exit_code == 0
    shutil.rmtree(bench.output)
    return faults.did


# Rows 45, 46: failing at each operation


@pytest.mark.parametrize("times", [1, float("inf")], ids=["row45-once", "row45-from-then-on"])
async def test_row45_a_disk_that_is_full_at_any_operation(bench: Bench, times: float) -> None:
    """Whichever operation finds no room, nothing is half visible, at most C pictures are lost, and a rerun with room
    completes; a lack that passes before a sync loses nothing at all."""
    steps = len(await operations(bench))
    chosen = range(1, steps + 1) if LONG else sorted(random.Random(45).sample(range(1, steps + 1), 16))
    for first in chosen:
        faults = bench.disk(Faults(errno.ENOSPC, first=first, times=times))
        before = bench.bought
        code = await bench.try_to_run()
        hit = faults.hits[0] if faults.hits else "nothing"
        assert code in (ExitCode.OK, ExitCode.STORAGE), hit
        await bench.completes()
        lost = 0 if times == 1 and not hit.startswith(SYNCS) else C
        assert bench.bought - before <= len(JOBS) + lost, hit
        shutil.rmtree(bench.output)


FIRST = {
    "temporary": f"create {TMP}/",
    "temporary-write": f"write {TMP}/",
    "attempts": f"write {ATTEMPTS}",
    "folder": "make_dir images/deep",
    "final-name": "rename images/",
    "log": f"write {LOG}",
}


def of_pictures(start: str) -> Callable[[str], bool]:
    """Operations that begin so, except on the small files that are written beside the pictures."""
    return lambda operation: operation.startswith(start) and ".json" not in operation.removeprefix(start)


@pytest.mark.parametrize("start", FIRST.values(), ids=[f"row45-{name}" for name in FIRST])
async def test_row45_room_that_comes_back_saves_what_was_paid(bench: Bench, start: str) -> None:
    """While there is no room feeding stops; the paid bytes are tried again and saved; exit 7 says to look."""
    faults = bench.disk(Faults(errno.ENOSPC, of_pictures(start), first=2 if "attempts" in start else 1, times=3))
    summary = await bench.run()
    assert faults.hits
    assert summary.done == bench.bought, "what was paid for is saved"
    if summary.pending:
        assert summary.exit_code == ExitCode.STORAGE
    await bench.completes()
    assert bench.bought == len(JOBS)


async def test_row45_no_room_for_an_intent_sends_nothing(bench: Bench) -> None:
    """Where the line that goes before a request cannot be written, the request does not leave."""
    bench.disk(Faults(errno.ENOSPC, lambda operation: operation == f"write {ATTEMPTS}", times=float("inf")))
    summary = await bench.run()
    assert (summary.exit_code, summary.pending, bench.requests) == (ExitCode.STORAGE, len(JOBS), 0)
    await bench.completes()


async def test_row45_too_little_room_is_told_before_anything_is_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is nearly full at the start ends with exit 7 before the first request."""
    bench.disk()
    monkeypatch.setattr(FailingFiles, "free_bytes", lambda self: 1 << 20)
    with pytest.raises(StorageError, match="make room first"):
        await bench.run()
    assert bench.requests == 0


SYNCED = {"temporary": f"sync {TMP}/", "attempts": f"sync {ATTEMPTS}", "names": "sync_dir images", "log": f"sync {LOG}"}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("start", SYNCED.values(), ids=[f"row46-{name}" for name in SYNCED])
async def test_row46_a_sync_that_fails_once_ends_the_run(bench: Bench, start: str, code: int) -> None:
    """A failed sync is never tried again: exit 7, no job is told done that is not, and a rerun loses at most C."""
    # The folder itself is synced twice while it is made.
    faults = bench.disk(Faults(code, of_pictures(start), first=3 if start == "sync_dir images" else 1))
    summary = await bench.run()
    assert len(faults.hits) == 1
    assert summary.exit_code == ExitCode.STORAGE
    bench.nothing_is_half_visible()
    assert summary.done < len(JOBS)
    await bench.completes()
    assert bench.bought <= len(JOBS) + C


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", ["create", "write", "sync", "rename"])
async def test_row45_the_end_of_a_finished_run_cannot_spoil_it(bench: Bench, step: str, code: int) -> None:
    """Where only the tidying of the attempts file fails, all pictures are there, and the summary still says so."""
    draft = f"{step} {ATTEMPTS}" if step == "rename" else f"{step} {TMP}/attempts.jsonl"
    faults = bench.disk(Faults(code, lambda operation: operation == draft))
    await bench.try_to_run()
    assert faults.hits
    assert len(bench.place.log) == len(JOBS)
    assert bench.place.summary["done"] == len(JOBS)
    await bench.completes()
    assert bench.bought == len(JOBS)


# Rows 47, 48: a disk that cannot be written to


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("new", [True, False], ids=["row47-new-folder", "row47-old-folder"])
async def test_row47_what_cannot_be_written_to_costs_nothing(bench: Bench, code: int, new: bool) -> None:
    """A folder that takes no writing ends with exit 7 before any request."""
    if not new:
        bench.manifest = bench.place.jobs("a")
        bench.disk()
        await bench.run()
        bench.manifest = bench.place.jobs(*JOBS)
    before = bench.requests
    bench.disk(Faults(code, times=float("inf")))
    assert await bench.try_to_run() == ExitCode.STORAGE
    assert bench.requests == before
    await bench.completes()


async def test_row47_a_folder_that_cannot_be_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the folder can be made, the exit code is 7 and the message names the folder."""

    def mkdir(path: str, *arguments: Any, **others: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("os.mkdir", mkdir)
        with pytest.raises(StorageError, match="Read-only file system"):
            await bench.run()
    assert bench.requests == 0


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO], ids=errno.errorcode.get)
async def test_row48_a_disk_that_turns_read_only_ends_the_run(bench: Bench, code: int) -> None:
    """From the second log line on nothing can be written: exit 7, and at most C paid pictures are lost."""
    gone: list[str] = []

    def matches(operation: str) -> bool:
        if operation == f"write {LOG}":
            gone.append(operation)
        return len(gone) > 1

    bench.manifest = bench.place.jobs(*(f"j{n}" for n in range(20)))
    bench.disk(Faults(code, matches, times=float("inf")))
    assert await bench.try_to_run() == ExitCode.STORAGE
    assert bench.requests < 20, "feeding stopped"
    bench.disk()
    assert (await bench.run()).done == 20
    assert bench.bought <= 20 + C


# Rows 49, 50: too few descriptors, short writes


async def test_row49_no_descriptor_for_a_picture_is_waited_for(bench: Bench) -> None:
    """Where too many files are open the paid picture waits, and none is lost."""
    faults = bench.disk(Faults(errno.EMFILE, of_pictures(f"create {TMP}/"), times=5))
    summary = await bench.run()
    assert len(faults.hits) == 5
    assert (summary.exit_code, summary.done, bench.bought) == (0, len(JOBS), len(JOBS))


async def test_row50_short_writes_are_completed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system takes less than it was given, log and pictures are whole all the same."""
    write = os.write
    monkeypatch.setattr("os.write", lambda handle, data: write(handle, bytes(data[: max(1, len(data) // 3)])))
    await bench.completes()
    assert bench.bought == len(JOBS)


# Row 51: the folder is taken away


def meddle(bench: Bench, with_it: Callable[[], object], after: int = 2) -> None:
    """Do this once, when the log has got `after` lines."""
    lines: list[str] = []

    def matches(operation: str) -> bool:
        if operation == f"sync {LOG}":
            lines.append(operation)
            if len(lines) == after:
                with_it()
        return False

    bench.disk(Faults(matches=matches))


async def test_row51_a_folder_that_is_removed_ends_the_run(bench: Bench) -> None:
    """When the folder is deleted during the run, feeding stops with exit 7 and nothing appears in its place."""
    bench.manifest = bench.place.jobs(*(f"j{n}" for n in range(20)))
    meddle(bench, lambda: shutil.rmtree(bench.output))
    summary = await bench.run()
    assert summary.exit_code == ExitCode.STORAGE
    assert bench.requests < 20
    assert not bench.output.exists()


async def test_row51_a_folder_replaced_by_a_link_is_not_followed(bench: Bench) -> None:
    """When a link takes the folder's place, nothing is written where it leads, and nothing that was bought is lost."""
    outside, moved = bench.place.root / "outside", bench.place.root / "moved"
    outside.mkdir()

    def replace() -> None:
        bench.output.rename(moved)
        bench.output.symlink_to(outside)

    meddle(bench, replace)
    await bench.run()
    assert list(outside.iterdir()) == []
    assert len(list((moved / "images").rglob("*.png"))) == bench.bought


async def test_row51_pictures_replaced_by_a_link_are_not_followed(bench: Bench) -> None:
    """When a link takes the place of images/, the run ends with exit 7 and nothing is written where it leads."""
    bench.manifest = bench.place.jobs(*(f"j{n}" for n in range(20)))
    outside = bench.place.root / "outside"
    outside.mkdir()

    def replace() -> None:
        (bench.output / "images").rename(bench.output / "pictures")
        (bench.output / "images").symlink_to(outside)

    meddle(bench, replace)
    summary = await bench.run()
    assert summary.exit_code == ExitCode.STORAGE
    assert bench.requests < 20
    assert list(outside.iterdir()) == []


# Row 52: something is there already


def link(path: Path) -> None:
    path.symlink_to(path.parents[3] / "target")
    (path.parents[3] / "target").write_bytes(b"somebody's own")


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "link": link,
    "dangling-link": lambda path: path.symlink_to("nowhere"),
    "pipe": os.mkfifo,
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
}


@pytest.mark.parametrize("make", IN_THE_WAY.values(), ids=[f"row52-{name}" for name in IN_THE_WAY])
async def test_row52_what_is_no_file_is_not_replaced(bench: Bench, make: Callable[[Path], object]) -> None:
    """A folder, link, pipe or device in a picture's place is neither opened nor replaced; the paid picture waits."""
    bench.disk()
    bench.manifest = bench.place.jobs("d")
    await bench.run()
    bench.manifest = bench.place.jobs(*JOBS)
    in_the_way = bench.output / "images/a.png"
    try:
        make(in_the_way)
    except PermissionError:
        pytest.skip("only root makes devices")
    before = in_the_way.lstat()
    summary = await bench.run()
    assert summary.exit_code == ExitCode.STORAGE
    assert (in_the_way.lstat().st_ino, in_the_way.lstat().st_mode) == (before.st_ino, before.st_mode)
    target = bench.place.root / "target"
    assert not target.exists() or target.read_bytes() == b"somebody's own"
    in_the_way.rmdir() if in_the_way.is_dir() else in_the_way.unlink()
    await bench.completes()
    assert bench.bought <= len(JOBS) + C


# Row 55: power loss


class Volatile(PosixFiles):
    """The real files, with a notion of what would be left if the power failed now.

    A file keeps the bytes that were synced, a name what was synced of its folder. `lost` and `kept` are the two ends
    of what may be left: no change of a name that was not synced, or every one.
    """

    states: list[tuple[str, int, dict[str, bytes | None], dict[str, bytes | None]]]
    count: Callable[[], int]

    def __init__(self, root: Path) -> None:
        self._changing = threading.RLock()
        self.now: dict[str, list[bytes] | None] = {".batchgen": None}
        self.durable: dict[str, list[bytes] | None] = {}
        self._files: dict[int, tuple[str, list[bytes]]] = {}
        super().__init__(root)

    def _record(self, operation: str) -> None:
        lost = {path: file[1] if file else None for path, file in self.durable.items() if self._reached(path)}
        kept = {path: file[1] if file else None for path, file in self.now.items()}
        Volatile.states.append((operation, Volatile.count(), lost, kept))

    def _reached(self, path: str) -> bool:
        return all(str(parent) in (".", *self.durable) for parent in Path(path).parents)

    def _open_one(self, handle: int, path: str) -> int:
        # A file is a list of two: its bytes, and those that were synced.
        file = self.now.get(path) or [b"", b""]
        self.now[path], self._files[handle] = file, (path, file)
        return handle

    def create(self, path: str) -> int:
        with self._changing:
            self._record(f"create {path}")
            return self._open_one(super().create(path), path)

    def append_to(self, path: str) -> int:
        with self._changing:
            self._record(f"append_to {path}")
            return self._open_one(super().append_to(path), path)

    def write(self, handle: int, data: bytes) -> None:
        with self._changing:
            path, file = self._files[handle]
            self._record(f"write {path}")
            super().write(handle, data)
            file[0] += data

    def truncate(self, handle: int, size_bytes: int) -> None:
        with self._changing:
            super().truncate(handle, size_bytes)
            file = self._files[handle][1]
            file[0] = file[0][:size_bytes]

    def sync(self, handle: int) -> None:
        with self._changing:
            path, file = self._files[handle]
            self._record(f"sync {path}")
            file[1] = file[0]

    def sync_dir(self, path: str) -> None:
        with self._changing:
            self._record(f"sync_dir {path}")
            for names in (self.durable, self.now):
                inside = {name for name in names if str(Path(name).parent) == path}
                if names is self.durable:
                    for name in inside:
                        del names[name]
                else:
                    self.durable |= {name: names[name] for name in inside}

    def make_dir(self, path: str) -> None:
        with self._changing:
            for part in (path, *map(str, Path(path).parents)):
                if part != ".":
                    self.now.setdefault(part, None)
            super().make_dir(path)

    def rename(self, old: str, new: str) -> None:
        with self._changing:
            self._record(f"rename {new}")
            super().rename(old, new)
            self.now[new] = self.now.pop(old)

    def remove(self, path: str) -> None:
        with self._changing:
            super().remove(path)
            del self.now[path]


@pytest.mark.no_cover
async def test_row55_power_loss_at_any_operation(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whenever the power fails, and whatever was not synced is gone, a rerun completes and at most C pictures are
    bought again."""
    Volatile.states, Volatile.count = [], lambda: bench.bought
    bench.disk(files=Volatile)
    assert (await bench.run()).exit_code == 0
    states = Volatile.states
    after = (("the end", bench.bought, *states[-1][2:]),)
    chosen = [*states, *after] if LONG else [*random.Random(55).sample(states, 14), *after]
    for operation, bought, lost, kept in chosen:
        for name, left in (("lost", lost), ("kept", kept)):
            bench.output = tmp_path_factory.mktemp(name) / "out"
            bench.output.mkdir()
            for path, data in sorted(left.items()):
                if data is None:
                    (bench.output / path).mkdir(parents=True, exist_ok=True)
                else:
                    (bench.output / path).write_bytes(data)
            before = bench.bought
            bench.disk()
            summary = await bench.run()
            assert (summary.exit_code, summary.done) == (0, len(JOBS)), f"{operation}, names {name}: {summary.verdict}"
            assert bought + bench.bought - before <= len(JOBS) + C, f"{operation}, names {name}"


# Row 58, 59: the log is deleted, restored, rotated


async def test_row58_a_log_that_was_deleted_is_not_bought_again_unasked(bench: Bench) -> None:
    """Pictures without their log (adoption needs a prepared entry) are exit 2 and no request; asked for, they are made
    again, and the old ones move to superseded/."""
    bench.disk()
    await bench.run()
    old = {path.read_bytes() for path in (bench.output / "images").rglob("*.png")}
    (bench.output / LOG).unlink()
    with pytest.raises(UsageError, match="log"):
        await bench.run()
    assert bench.bought == len(JOBS)
    await bench.completes(redo_missing=True)
    assert {path.read_bytes() for path in (bench.output / "superseded").rglob("*.png")} == old
    assert bench.bought == 2 * len(JOBS)


async def test_row58_an_older_copy_of_the_log_buys_only_what_it_does_not_know(bench: Bench) -> None:
    """After a restore of yesterday's log nothing is bought unasked; asked for, its jobs are not, and newer pictures are
    kept."""
    bench.disk()
    bench.manifest = bench.place.jobs("a", "deep/b")
    await bench.run()
    copy = (bench.output / LOG).read_bytes()
    bench.manifest = bench.place.jobs(*JOBS)
    await bench.run()
    (bench.output / LOG).write_bytes(copy)
    with pytest.raises(UsageError, match=f"knows 2 jobs of {len(JOBS)}"):
        await bench.run()
    assert bench.bought == len(JOBS)
    await bench.completes(redo_missing=True)
    assert bench.bought == len(JOBS) + 2
    assert len(bench.place.files("superseded")) == 2


async def test_row58_a_log_lost_with_its_run_is_written_again(bench: Bench) -> None:
    """After a run that did not end well the prepared entries are still there: what was saved is not bought again."""
    bench.disk(Faults(errno.EIO, lambda operation: operation == f"sync {LOG}", first=3))
    assert (await bench.run()).exit_code == ExitCode.STORAGE
    saved = [entry["job"] for entry in bench.place.log]
    (bench.output / LOG).unlink()
    await bench.completes()
    assert saved
    assert {bench.server.ledger.paid_prompts[job] for job in saved} == {1}
    assert bench.bought <= len(JOBS) + C


def copytruncate(log: Path) -> None:
    shutil.copy(log, log.with_suffix(".1"))
    os.truncate(log, 0)


def rotate(log: Path) -> None:
    log.rename(log.with_suffix(".1"))
    log.touch()


@pytest.mark.parametrize("meddling", [copytruncate, rotate, Path.unlink], ids=lambda f: f"row59-{f.__name__}")
async def test_row59_a_log_that_is_rotated_ends_the_run(bench: Bench, meddling: Callable[[Path], object]) -> None:
    """A log that shrinks or moves is noticed at the next line: exit 7; the rerun adopts what had got its line and
    buys at most C pictures again."""
    bench.manifest = bench.place.jobs(*(f"j{n}" for n in range(20)))
    saved: list[str] = []

    def read_and_meddle() -> None:
        saved.extend(entry["job"] for entry in bench.place.log)
        meddling(bench.output / LOG)

    meddle(bench, read_and_meddle)
    summary = await bench.run()
    assert summary.exit_code == ExitCode.STORAGE
    assert "log.jsonl" in summary.verdict
    assert bench.requests < 20
    bench.disk()
    assert (await bench.run()).done == 20
    assert saved
    assert {bench.server.ledger.paid_prompts[job] for job in saved} == {1}
    assert bench.bought <= 20 + C


# Row 61: no locks


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
async def test_row61_a_file_system_without_flock_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where the kernel cannot lock, no pid file takes the lock's place: exit 2 before any request."""

    def flock(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UsageError, match="no locks"):
        await bench.run()
    assert bench.requests == 0
