"""A cluster in one process and on one event loop of virtual time: real driver, workers, limiter and folder; machines,
network and server are scripts. Whatever runs for a worker can be ended at a chosen moment, as if its machine were gone.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pytest
from world import (
    KEY,
    MODEL,
    NOON,
    OK,
    Answer,
    Arrival,
    Hang,
    Limits,
    React,
    SimClock,
    SimServer,
    VirtualLoop,
    run_virtually,
)

from batchgen import images, joblog, summary
from batchgen.account import MemoryAccount
from batchgen.cluster import worker as worker_module
from batchgen.cluster.driver import Desk, Driver, written
from batchgen.cluster.limiter import Limiter
from batchgen.cluster.messages import Batch, Errand, Hooks, Kit, Lost, News, Noted, Spent
from batchgen.cluster.worker import Worker
from batchgen.events import Event, Left, Paced
from batchgen.failures import Allowance
from batchgen.files import PosixFiles
from batchgen.folder import Folder
from batchgen.joblog import Fold, Intent
from batchgen.layout import Books
from batchgen.model import Entry, ExitCode, Job, Outcome, Secret
from batchgen.pacing import Budget, Gates, Lease, Pace
from batchgen.pool import Pending, Policy, Pool, Way
from batchgen.protocol import nebula
from batchgen.sink import LocalSink
from batchgen.world import Result, Staged, SyncFailed
from batchgen.writer import Committer, Patience, Stager, Writer

T = TypeVar("T")
W = TypeVar("W")
WORKER: ContextVar[str] = ContextVar("worker", default="")
LATENCY_S = 0.01
MOST_TURNS = 100_000


class ClusterLoop(VirtualLoop):
    """Virtual time; what is meant for a thread is done at once; knows which tasks run for which worker."""

    def __init__(self, now_s: float = 0.0) -> None:
        super().__init__(now_s)
        self.tasks: dict[str, list[asyncio.Task[Any]]] = {}
        self.set_task_factory(self._started)  # type: ignore[arg-type]

    def _started(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **settings: Any
    ) -> asyncio.Task[T]:
        task = asyncio.Task(work, loop=loop, **settings)
        context = settings.get("context")
        self.tasks.setdefault(context.get(WORKER, "") if context else WORKER.get(), []).append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        if self.turns > MOST_TURNS:
            raise Hang("it goes round and round")
        super()._run_once()  # type: ignore[misc]

    def end(self, worker: str) -> None:
        """Whatever runs for this worker runs no more."""
        for task in self.tasks.pop(worker, []):
            task.cancel()


class InlineWriter(Writer[W]):
    """The writer without its thread: commits on the loop, whatever came in one turn of it together."""

    def __init__(self, committer: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._commit, self._salvage, self._loop = committer.commit, committer.salvage, loop
        self._failed: Exception | None = None
        self._group_: list[tuple[W, asyncio.Future[Result]]] = []

    def submit(self, work: W) -> asyncio.Future[Result]:
        if not self._group_:
            self._loop.call_soon(self._flush)
        self._group_.append((work, future := self._loop.create_future()))
        return future

    def _flush(self) -> None:
        group, self._group_ = self._group_, []
        if group:
            self._serve(group)

    def close(self, patience_s: float | None = None) -> bool:
        self._flush()
        return True


@dataclass
class Power:
    """One execution: when it is off, nothing changes any more. `count` counts changing file operations of the driver's
    process, `crash_at` is the one before which it ends, and all workers with it."""

    alive: bool = True
    count: int = 0
    crash_at: int = 0
    on_crash: Callable[[], None] = lambda: None

    def step(self) -> None:
        self.count += 1
        if self.count == self.crash_at:
            self.alive = False
            self.on_crash()
        if not self.alive:
            raise SyncFailed(5, "the process is gone")


class Disk(PosixFiles):
    """The real files, as one process sees them; operations whose names begin with `failing` fail `times` times."""

    def __init__(self, root: Path, power: Power, *, counts: bool = False) -> None:
        super().__init__(root)
        self.power, self.counts = power, counts
        self.failing, self.errno, self.times = "", 0, 0
        self._paths: dict[int, str] = {}

    def fail(self, operation: str, code: int, times: int = 1) -> None:
        """The next `times` operations that begin so (`write log`) fail with this error number."""
        self.failing, self.errno, self.times = operation, code, times

    def _do(self, operation: str) -> None:
        if self.counts or not self.power.alive:
            self.power.step()
        if self.times and operation.startswith(self.failing):
            self.times -= 1
            raise OSError(self.errno, os.strerror(self.errno))

    def create(self, path: str) -> int:
        self._do(f"create {path}")
        handle = super().create(path)
        self._paths[handle] = path
        return handle

    def append_to(self, path: str) -> int:
        handle = super().append_to(path)
        self._paths[handle] = path
        return handle

    def write(self, handle: int, data: bytes) -> None:
        self._do(f"write {self._paths[handle]}")
        super().write(handle, data)

    def sync(self, handle: int) -> None:
        self._do(f"sync {self._paths[handle]}")  # a test needs no durable bytes

    def sync_dir(self, path: str) -> None:
        self._do(f"sync_dir {path}")

    def rename(self, old: str, new: str) -> None:
        self._do(f"rename {new}")
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self._do(f"remove {path}")
        super().remove(path)


class Calls:
    """The limiter as it is called over the network."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def lease(self, lane: int, n: int) -> Lease:
        return await self._site.ask(lambda limiter: limiter.lease(lane, n))

    async def give_back(self, lane: int, n: int) -> None:
        await self._site.ask(lambda limiter: limiter.give_back(lane, n))

    async def admit(self, spent: Spent, cost_usd: float) -> str | None:
        return await self._site.ask(lambda limiter: limiter.admit(spent, cost_usd))

    async def tell(self, spent: Spent) -> None:
        await self._site.ask(lambda limiter: limiter.tell(spent))

    async def forget(self, most: Spent) -> Spent:
        return await self._site.ask(lambda limiter: limiter.forget(most))

    async def slow(self, lane: int, pause_s: float, closed_until: str | None) -> None:
        await self._site.ask(lambda limiter: limiter.slow(lane, pause_s, closed_until))

    async def news(self, seen: int) -> News:
        return await self._site.ask(lambda limiter: limiter.news(seen))


class FakePeer:
    """A worker on a machine of the site: the real one, its reports on their way for a moment."""

    def __init__(self, site: Site, node: str, name: str, errand: Errand) -> None:
        self.name, self.node, self._site = name, node, site
        self.gone, self.most_open = "", 0
        self._on_the_way: asyncio.Queue[Batch | None] = asyncio.Queue()
        context = copy_context()
        context.run(WORKER.set, name)
        loop = asyncio.get_running_loop()
        self._worker: Worker = context.run(
            Worker, name, errand, Calls(site), site.clock, random.Random(sum(name.encode()))
        )
        loop.create_task(self._work(), context=context)  # noqa: RUF006 - the loop's register keeps it

    async def _work(self) -> None:
        async for batch in self._worker.reports():
            self._on_the_way.put_nowait(batch)
        self._on_the_way.put_nowait(None)

    async def reports(self) -> AsyncIterator[Batch]:
        while True:
            batch = await self._on_the_way.get()
            if not self.gone:
                await asyncio.sleep(LATENCY_S)
            if self.gone:
                raise Lost(self.gone)
            if batch is None:
                return
            yield batch
            self._site.on_report(self.name, batch)

    def die(self, why: str = "its machine is gone") -> None:
        if not self.gone:
            self.gone = why
            self._site.loop.end(self.name)
            self._on_the_way.put_nowait(None)

    async def _said(self) -> Worker:
        await asyncio.sleep(LATENCY_S)
        if self.gone:
            raise Lost(self.gone)
        return self._worker

    async def hand(self, jobs: Sequence[Pending]) -> None:
        (await self._said()).hand(jobs)

    async def kept(self, number: int, failure: str | None) -> None:
        (await self._said()).kept(number, failure)

    async def end(self) -> None:
        (await self._said()).end()

    async def stop(self, exit_code: ExitCode, reason: str) -> None:
        (await self._said()).stop(exit_code, reason)

    async def abort(self) -> None:
        (await self._said()).abort()

    def kill(self) -> None:
        self.die("it was ended")


class Ran:
    """What one run did, and what it left in the folder."""

    def __init__(self, site: Site, driver: Driver | Pool, events: list[Event], first: int) -> None:
        self.driver, self.events, self.site = driver, events, site
        self.arrivals = site.server.arrivals[first:]
        lines = (site.root / Books().log).read_bytes().splitlines(keepends=True)
        self.log = [joblog.decode(line) for line in lines]
        self.entries = {entry.job: entry for entry in self.log}
        notes = (site.root / Books().attempts).read_bytes().splitlines(keepends=True)
        self.notes = [joblog.decode_note(line) for line in notes]
        fold = Fold()
        for number, line in enumerate(lines):
            fold.add(line, number)
        n = fold.counts()
        done, failed, uncertain = (n.get(outcome, 0) for outcome in (Outcome.DONE, Outcome.FAILED, Outcome.UNCERTAIN))
        self.counts = summary.JobCounts(
            len(site.jobs), done, failed, uncertain, len(site.jobs) - done - failed - uncertain
        )
        self.exit_code = summary.exit_code(self.counts, [stop.exit_code for stop in driver.stops])
        assert len(self.entries) == len(self.log), "a job was finished twice"
        assert not site.loop.crashes, site.loop.crashes

    @property
    def reason(self) -> str:
        return "; ".join(stop.reason for stop in self.driver.stops)

    @property
    def paces(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Paced)]

    @property
    def left(self) -> list[Left]:
        return [event for event in self.events if isinstance(event, Left)]

    @property
    def extra(self) -> int:
        """How many requests the server has seen beyond one a job, in all runs."""
        requests = Counter(arrival.job for arrival in self.site.server.arrivals)
        return sum(requests.values()) - len(requests)

    def pictures(self) -> dict[str, bytes]:
        folder = self.site.root / "images"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def staged(self) -> list[str]:
        return os.listdir(self.site.root / Books().tmp)  # noqa: PTH208

    def tells(self, kind: type[T]) -> list[T]:
        return [note for note in self.notes if isinstance(note, kind)]


During = Callable[["Site"], Awaitable[None]]


@dataclass
class Site:
    """A manifest, an output folder, a server, and the machines that do the jobs. `on_carried` is called on a worker
    when its pictures are staged, `on_report` when a batch of its reports has been taken in."""

    root: Path
    react: React | Answer = OK
    n: int = 20
    machines: int = 3
    limits: Limits = field(default_factory=lambda: Limits(concurrency=2))
    request: Mapping[str, Any] = field(default_factory=dict)
    on_carried: Callable[[str], None] = lambda name: None
    on_report: Callable[[str, Batch], None] = lambda name, batch: None
    opening: Callable[[str], Awaitable[None] | None] = lambda name: None
    kits: Callable[[str, Disk], None] = lambda name, disk: None
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.jobs = [
            Job(f"job-{k}", f"{k:032x}", MODEL, {"prompt": f"picture {k}", **self.request}, {}, k + 1)
            for k in range(self.n)
        ]
        self.alive = {f"node-{k}": f"m{k}" for k in range(1, self.machines + 1)}
        self.arrivals: list[Arrival] = []
        self.answered_by: list[str] = []
        self.peers: dict[str, FakePeer] = {}
        self.limiter: Limiter | None = None
        self.limiters = 0
        self._calls: set[asyncio.Future[Any]] = set()
        self.account: MemoryAccount | None = None

    # What happens to the cluster

    def lose(self, name: str, *, machine: bool = False) -> None:
        """A worker is gone, with its machine or without it."""
        peer = self.peers[name]
        if machine:
            self.alive.pop(peer.node, None)
        peer.die()

    def lose_limiter(self) -> None:
        self.limiter = None
        for call in list(self._calls):
            call.cancel()

    async def ask(self, question: Callable[[Limiter], Coroutine[Any, Any, T]]) -> T:
        await asyncio.sleep(LATENCY_S)
        if (limiter := self.limiter) is None:
            raise Lost("it is gone")
        call = asyncio.ensure_future(question(limiter))
        self._calls.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if limiter is not self.limiter and this and not this.cancelling():
                raise Lost("it is gone") from None
            raise
        finally:
            self._calls.discard(call)

    # The machines

    async def nodes_alive(self) -> Mapping[str, str]:
        await asyncio.sleep(LATENCY_S)
        return dict(self.alive)

    def start(self, node: str, name: str, errand: Errand) -> FakePeer:
        self.peers[name] = peer = FakePeer(self, node, name, errand)
        return peer

    @asynccontextmanager
    async def _open_kit(self, name: str, hooks: Hooks) -> AsyncIterator[Kit]:
        if opening := self.opening(name):
            await opening
        disk = Disk(self.root, self.power)
        self.kits(name, disk)
        try:
            yield self._kit(name, disk, hooks)
        finally:
            disk.close_root()

    def _kit(self, name: str, disk: Disk, hooks: Hooks) -> Kit:
        patience = Patience(self.clock, self.loop.jump, on_full=hooks.warn, on_wait=hooks.warn)
        sink = LocalSink(disk, Books().tmp, mark=f"{name}-")

        def carry(moves: Mapping[str, Staged]) -> Mapping[str, str]:
            self.on_carried(name)
            return {file: staged.path for file, staged in moves.items()}

        elsewhere = MemoryAccount(Pace(), self.clock)
        return Kit([self._way(elsewhere)], self._stager(sink, patience, hooks.useless), carry)

    def _way(self, account: MemoryAccount) -> Way:
        limits = self.limits
        return Way(self.server, account, Gates.of(limits.concurrency), limits.timeout_s, limits.requests_per_minute)

    def _stager(self, sink: LocalSink, patience: Patience, quarantine: Callable[[str, int, bytes], None]) -> Stager:
        return Stager(
            decode=nebula.decode_answer,
            check=images.check,
            sink=sink,
            clock=self.clock,
            patience=patience,
            key=Secret(KEY),
            quarantine=quarantine,
        )

    # Runs

    def run(self, during: During | None = None, *, crash_at: int = 0, local: bool = False) -> Ran:
        """One run to its end, on the cluster or (`local`) in one pool; `during` runs beside it."""
        self.loop = ClusterLoop(self.now_s)
        self.clock, self.power = SimClock(self.loop, NOON), Power(crash_at=crash_at)
        react = self.react
        self.server = SimServer(self._reacting(react), lambda now_s: True, self.arrivals)
        self.peers, self.limiter = {}, None
        events, first = list[Event](), len(self.arrivals)
        with self._writers_without_threads():
            sent = run_virtually(self._main(events, during, local), self.loop)
        self.now_s = self.loop.time()
        return Ran(self, sent, events, first)

    def _reacting(self, react: React | Answer) -> React:
        def answer(arrival: Arrival) -> Answer:
            self.answered_by.append(WORKER.get())
            return react if isinstance(react, Answer) else react(arrival)

        return answer

    @contextmanager
    def _writers_without_threads(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker_module, "Writer", InlineWriter)
            yield

    async def _main(self, events: list[Event], during: During | None, local: bool) -> Driver | Pool:
        self.disk = Disk(self.root, self.power, counts=True)
        self.folder = folder = Folder(self.disk)
        folder.load()
        self.base = self._budget(folder)
        today = sum(arrival.at_s >= 0 for arrival in self.arrivals)
        self.account = MemoryAccount(
            Pace(self.limits.requests_per_minute, self.limits.requests_per_day), self.clock, today
        )
        self.driver = sends = self._pool(folder, events) if local else self._driver(folder, events)
        running = asyncio.ensure_future(sends.run())
        self.power.on_crash = lambda: (running.cancel(), None)[1]
        beside = asyncio.ensure_future(during(self)) if during else None
        try:
            await running
        except asyncio.CancelledError:
            if self.power.alive:
                raise
        if beside:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
        self.writer.close()
        if self.power.alive:
            await sends.settle()
            if not {stop.exit_code for stop in sends.stops} & {ExitCode.INTERNAL, ExitCode.STORAGE}:
                folder.compact(sends.unfinished | folder.lives.unfinished())
        self.lose_limiter()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return sends

    def _budget(self, folder: Folder) -> Budget:
        spent, lives, limits = folder.spent, folder.lives, self.limits
        usd = spent.spent_usd + spent.exposure_usd + lives.exposure_usd()
        return Budget(limits.max_cost_usd, limits.max_requests, usd, spent.requests + len(lives.ended()))

    def _policy(self) -> Policy:
        limits = self.limits
        return Policy(
            run=f"night-{self.now_s:g}",
            manifest="site.yaml",
            api="nebula",
            key=Secret(KEY),
            allowance=Allowance(limits.attempts, limits.uncertain_retries),
            give_up_after_s=limits.give_up_after_s,
            prices_usd={} if limits.price_usd is None else {MODEL: limits.price_usd},
        )

    def _puller(self, folder: Folder) -> Callable[[int], Awaitable[Sequence[Pending]]]:
        to_do = iter(
            [
                Pending(job, folder.lives.of(job.id, job.fingerprint), folder.last_n(job.id, job.fingerprint))
                for job in self.jobs
                if not folder.fold.row(job.id, job.fingerprint)
            ]
        )

        async def pull(n: int) -> list[Pending]:
            await asyncio.sleep(LATENCY_S)
            return list(islice(to_do, n))

        return pull

    def _patience(self) -> Patience:
        return Patience(self.clock, self.loop.jump, on_full=lambda message: self.driver.stop(ExitCode.STORAGE, message))

    def _observer(self, events: list[Event]) -> Callable[[Event], None]:
        def observe(event: Event) -> None:
            events.append(event)
            if isinstance(entry := getattr(event, "entry", None), Entry):
                self.folder.lives.forget(entry.job, entry.fingerprint)

        return observe

    async def _keep(self) -> None:
        self.folder.sync_attempts()

    def _driver(self, folder: Folder, events: list[Event]) -> Driver:
        limits, patience = self.limits, self._patience()
        self.writer: InlineWriter[Any] = InlineWriter(
            Committer(written, LocalSink(self.disk, Books().tmp), folder, patience), asyncio.get_running_loop()
        )
        errand = Errand(
            policy=self._policy(),
            open_kit=self._open_kit,
            concurrency=limits.concurrency,
            endpoints=[""],
            timeout_s=limits.timeout_s,
            metered=limits.max_cost_usd is not None or limits.max_requests is not None,
        )
        return Driver(
            errand,
            _Nodes(self),
            pull=self._puller(folder),
            deliver=self.writer,
            desk=Desk(folder.append_attempts, self._keep, folder.quarantine, folder.last_n),
            clock=self.clock,
            observe=self._observer(events),
            limiter=Calls(self),
            start_limiter=self._start_limiter,
        )

    def _start_limiter(self, awaited: set[str], gone: Sequence[Spent]) -> None:
        assert self.account is not None
        self.limiters += 1
        base = Budget(self.base.max_cost_usd, self.base.max_requests, self.base.spent_usd, self.base.requests)
        self.limiter = Limiter([self.account], self.clock, base, set(awaited), list(gone))

    def _pool(self, folder: Folder, events: list[Event]) -> Pool:
        assert self.account is not None
        patience, sink = self._patience(), LocalSink(self.disk, Books().tmp)
        stager = self._stager(sink, patience, folder.quarantine)
        self.writer = writer = InlineWriter[Any](
            Committer(stager.written, sink, folder, patience), asyncio.get_running_loop()
        )
        return Pool(
            self._policy(),
            [self._way(self.account)],
            pull=self._puller(folder),
            budget=self.base,
            deliver=writer,
            note=folder.append_attempts,
            keep=self._keep,
            clock=self.clock,
            randomness=random.Random(1),
            observe=self._observer(events),
        )


@dataclass(frozen=True)
class _Nodes:
    site: Site

    async def alive(self) -> Mapping[str, str]:
        return await self.site.nodes_alive()

    def start(self, node: str, name: str, errand: Errand) -> FakePeer:
        return self.site.start(node, name, errand)


def intents_of(batch: Batch) -> list[Intent]:
    """The requests that a batch of reports says to leave."""
    notes = [joblog.decode_note(line) for r in batch.reports if isinstance(r, Noted) for line in r.lines.splitlines()]
    return [note for note in notes if isinstance(note, Intent)]
