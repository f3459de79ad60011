"""A machine's part of a run: the pool as everywhere else, with jobs from the driver and results on their way to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from batchgen.cluster.leave import Leave, budget, shared
from batchgen.cluster.messages import Batch, Errand, Hooks, Keep, Kit, LimiterCalls, Made, Noted, Over, Report, Useless
from batchgen.events import Event, Finished, Paced
from batchgen.model import Entry, ExitCode, Job, StorageError
from batchgen.pool import ABORT_S, Pending, Pool, Stop, Way, cost_usd
from batchgen.text import printable
from batchgen.world import Clock, Randomness, Result, Staged, Work
from batchgen.writer import Writer


class Outbox:
    """Reports on their way, in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Report] = []
        self._some = asyncio.Event()

    def put(self, report: Report) -> None:
        self._waiting.append(report)
        self._some.set()

    def put_from_thread(self, report: Report) -> None:
        self._loop.call_soon_threadsafe(self.put, report)

    async def wait(self) -> None:
        await self._some.wait()

    def take(self) -> list[Report]:
        self._some.clear()
        taken, self._waiting = self._waiting, []
        return taken


@dataclass(frozen=True)
class Handover:
    """What the writer's thread does here: pictures are written and carried to where the driver finds them."""

    kit: Kit
    send: Callable[[Report], None]

    def commit(self, group: Iterable[Work]) -> list[Result]:
        moves: dict[str, Staged] = {}
        results = self.kit.stager.written(group, moves)
        drafts = self.kit.carry(moves)
        for result in results:
            if isinstance(result, Entry):
                self.send(Made(result, tuple(drafts[picture.file] for picture in result.images)))
        return results

    def salvage(self, group: Iterable[Work]) -> None:
        with contextlib.suppress(OSError, StorageError):
            self.commit(group)


class Worker:
    """Does what it is handed until it is told that nothing more comes, or to stop."""

    def __init__(self, name: str, errand: Errand, limiter: LimiterCalls, clock: Clock, randomness: Randomness) -> None:
        self._errand, self._clock, self._random = errand, clock, randomness
        self._leave = Leave(limiter, name, clock)
        self._name = name
        self._jobs: deque[Pending] = deque()
        self._arrived = asyncio.Event()
        self._all_here = False
        self._keeps: dict[int, asyncio.Future[None]] = {}
        self._numbers = count(1)
        self._stop: Stop | None = None
        self._pool: Pool | None = None

    # What the driver says

    def hand(self, jobs: Sequence[Pending]) -> None:
        self._jobs.extend(jobs)
        self._arrived.set()

    def end(self) -> None:
        """Nothing more will be handed over."""
        self._all_here = True
        self._arrived.set()

    def kept(self, number: int, failure: str | None) -> None:
        if not (future := self._keeps.pop(number, None)) or future.done():
            return
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(StorageError(failure))

    def stop(self, exit_code: ExitCode, reason: str) -> None:
        self._stop = Stop(exit_code, reason)
        if self._pool:
            self._pool.stop(exit_code, reason)

    def abort(self) -> None:
        if self._pool:
            self._pool.abort()

    # What it does

    async def reports(self) -> AsyncIterator[Batch]:
        """Work, and report; the first batch, which is empty, says that the worker is ready."""
        outbox = Outbox()
        hooks = Hooks(
            useless=lambda job, n, body: outbox.put_from_thread(Useless(job, n, body)),
            warn=lambda message: outbox.put_from_thread(Paced(message)),
        )
        try:
            async with self._errand.open_kit(self._name, hooks) as kit:
                async for batch in self._work(kit, outbox):
                    yield batch
        except Exception as error:  # whatever it is: the driver must hear of it, and of what was under way
            code = getattr(error, "exit_code", ExitCode.INTERNAL)
            yield Batch(
                [*outbox.take(), Over((Stop(code, printable(str(error) or type(error).__name__)),), frozenset())]
            )

    async def _work(self, kit: Kit, outbox: Outbox) -> AsyncIterator[Batch]:
        writer: Writer[Work] = Writer(Handover(kit, outbox.put_from_thread), asyncio.get_running_loop())
        ways = [self._shared(way, lane) for lane, way in enumerate(kit.ways)]
        pool = self._pool = self._made_pool(ways, outbox, writer)
        if self._stop:
            pool.stop(self._stop.exit_code, self._stop.reason)
        yield Batch([])
        hearing = asyncio.create_task(self._leave.hear(ways))
        running = asyncio.create_task(pool.run())
        try:
            while not running.done():
                waiting = asyncio.create_task(outbox.wait())
                await asyncio.wait([waiting, running], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if reports := outbox.take():
                    yield Batch(reports, pool.in_flight, pool.waiting)
            await running
            if await asyncio.to_thread(writer.close, ABORT_S if pool.in_flight else None):
                await pool.settle()
            await asyncio.sleep(0)  # what the thread has sent last arrives
            stops = tuple(stop for stop in pool.stops if stop != self._stop)
            yield Batch([*outbox.take(), Over(stops, frozenset(pool.in_doubt))])
        finally:
            hearing.cancel()
            running.cancel()
            await self._leave.close()

    def _made_pool(self, ways: Sequence[Way], outbox: Outbox, writer: Writer[Work]) -> Pool:
        policy = self._errand.policy

        async def keep() -> None:
            future = self._keeps[number := next(self._numbers)] = asyncio.get_running_loop().create_future()
            outbox.put(Keep(number))
            await future

        def observe(event: Event) -> None:
            if not isinstance(event, Finished):  # that is for the driver to say, when the log has it
                outbox.put(event)

        return Pool(
            policy,
            ways,
            pull=self._pull,
            budget=budget(self._leave),
            deliver=writer,
            note=lambda lines: outbox.put(Noted(lines)),
            keep=keep,
            clock=self._clock,
            randomness=self._random,
            observe=observe,
        )

    def _shared(self, way: Way, lane: int) -> Way:
        prices_usd = self._errand.policy.prices_usd

        def cost(job: Job) -> float:
            return cost_usd(job, prices_usd.get(job.model))

        return shared(way, lane, self._leave, cost_usd=cost if self._errand.metered else None)

    async def _pull(self, n: int) -> Sequence[Pending]:
        while not self._jobs and not self._all_here:
            self._arrived.clear()
            await self._arrived.wait()
        return [self._jobs.popleft() for _ in range(min(n, len(self._jobs)))]
