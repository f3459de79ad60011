"""Stands in the pool's place where the log is: hands slices of jobs to workers, takes in what comes back.

A job that is handed over has its intent in the attempts file. When its worker is lost, it is in doubt, as after a
crash, and is handed to another, once more at most. The driver alone writes log and attempts file.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from batchgen.cluster.handouts import Handouts
from batchgen.cluster.keeper import Keeper
from batchgen.cluster.leave import keep_to
from batchgen.cluster.messages import (
    AGAIN_S,
    Errand,
    Keep,
    LimiterCalls,
    Lost,
    Made,
    News,
    Nodes,
    Noted,
    Over,
    Report,
    Spent,
    Useless,
)
from batchgen.cluster.staff import Crew, Handed, Staff, Who
from batchgen.events import Event, Finished, Left, Paced, Tried
from batchgen.model import Entry, ExitCode, Failure, StorageError
from batchgen.pacing import Gates
from batchgen.pool import ABORT_S, Pending, Stop
from batchgen.text import counted, printable
from batchgen.world import Clock, Result, Staged
from batchgen.writer import HOPE_S, Writer

LOOK_S = 5.0
# Longer than a worker, or the writer here, tries to save what was paid for.
DRAIN_S = HOPE_S + 120.0
# What stops one worker for these reasons would stop all the others; anything else may be its machine's trouble alone.
_OF_ALL = {ExitCode.USAGE, ExitCode.ACCOUNT}


@dataclass(frozen=True)
class Desk:
    """What the driver needs of the folder: its attempts file, making it durable, the quarantine, what the log knows."""

    note: Callable[[bytes], None]
    keep: Callable[[], Awaitable[None]]
    quarantine: Callable[[str, int, bytes], None]
    last_n: Callable[[str, str], int]


def written(group: Iterable[Made], moves: dict[str, Staged]) -> list[Result]:
    """What a committer takes in of jobs that were made elsewhere: the entries, and where their pictures lie."""
    taken: list[Result] = []
    for made in group:
        moves |= {p.file: Staged(draft, -1) for p, draft in zip(made.entry.images, made.drafts, strict=True)}
        taken.append(made.entry)
    return taken


@dataclass
class Shown:
    """An endpoint as the workers together see it, for who watches the run."""

    name: str
    gates: Gates
    closed: Stop | None = None


class Driver:
    """Does the jobs that `pull` hands out, on the nodes of a cluster, until there are none or something says stop.

    Has the face of a pool for who watches it. `start_limiter`: see `Keeper`.
    """

    def __init__(
        self,
        errand: Errand,
        nodes: Nodes,
        *,
        pull: Callable[[int], Awaitable[Sequence[Pending]]],
        deliver: Writer[Made],
        desk: Desk,
        clock: Clock,
        observe: Callable[[Event], None],
        limiter: LimiterCalls,
        start_limiter: Callable[[set[str], Sequence[Spent]], None],
    ) -> None:
        self._errand, self._policy = errand, errand.policy
        self._pull, self._deliver, self._desk = pull, deliver, desk
        self._clock, self._observe = clock, observe
        self.lanes = [Shown(name, Gates.of(errand.concurrency)) for name in errand.endpoints]
        self.stops: list[Stop] = []
        self.in_doubt: set[Who] = set()
        self._handouts = Handouts(errand.policy, clock, desk.note, desk.last_n)
        self._staff = Staff(nodes, errand, clock, listen=self._hear_of, stop=self.stop, observe=observe)
        self._keeper = Keeper(limiter, start_limiter, clock, hear=self._hear, stop=self.stop, observe=observe)
        self._again: deque[Pending] = deque()
        self._exhausted = False
        self._saving: set[asyncio.Task[None]] = set()
        self._following: set[asyncio.Task[None]] = set()
        self._aborted_s = math.inf
        self._wake = asyncio.Event()

    @property
    def unfinished(self) -> set[Who]:
        return self._handouts.unfinished

    @property
    def in_flight(self) -> int:
        return sum(crew.in_flight for crew in self._staff.crews) + len(self._saving)

    @property
    def waiting(self) -> int:
        """How many jobs wait for another try."""
        return sum(crew.waiting for crew in self._staff.crews) + len(self._again)

    def stop(self, exit_code: ExitCode, reason: str) -> None:
        """Hand out nothing more; what is in flight gets until its own deadline."""
        if all(stop.exit_code is not exit_code for stop in self.stops):
            self.stops.append(Stop(exit_code, reason))
        self._wake.set()

    def abort(self) -> None:
        """Let go of requests without an answer."""
        self._aborted_s = self._clock.monotonic()
        for crew in self._staff.crews:
            self._follow(_safely(crew.peer.abort()))
        self._wake.set()

    async def run(self) -> None:
        """Until every job has ended or is left to another run. Never raises for what a worker or its machine does; may
        be called again after it was cancelled."""
        looked_s = -math.inf
        if not self._following:
            self._follow(self._keeper.keep(self._staff.at_work))
        while not self._closing and not (self._exhausted and not self._open and not self._again):
            self._wake.clear()
            if self._clock.monotonic() - looked_s >= LOOK_S:
                looked_s = self._clock.monotonic()
                await self._staff.look()
            await self._hand_out()
            await self._rest(LOOK_S)
        await self._end()

    async def settle(self) -> None:
        """Count what was written after `run` had stopped waiting for it."""
        if self._saving:
            await asyncio.wait(self._saving, timeout=ABORT_S)

    @property
    def _closing(self) -> bool:
        return bool(self.stops) or self._aborted_s < math.inf

    @property
    def _open(self) -> bool:
        return bool(self._saving) or any(crew.open for crew in self._staff.crews)

    async def _rest(self, at_most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._wake.wait()

    def _follow(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._following.add(task)
        task.add_done_callback(self._followed)

    def _followed(self, task: asyncio.Future[None]) -> None:
        self._following.discard(task)
        self._ended(task)

    def _ended(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._wrong(error)
        self._wake.set()

    def _wrong(self, error: BaseException) -> None:
        if isinstance(error, StorageError | OSError):
            self.stop(ExitCode.STORAGE, printable(str(error)))
        else:
            self.stop(ExitCode.INTERNAL, printable(self._policy.key.hide(f"{type(error).__name__}: {error}")))

    def _hear(self, news: News) -> None:
        for number, lane in enumerate(self.lanes):
            keep_to(news, number, lane.gates, self._clock)

    # Workers

    def _hear_of(self, crew: Crew) -> None:
        self._follow(self._listen(crew))

    async def _listen(self, crew: Crew) -> None:
        why = "it ended without a word"
        try:
            async for batch in crew.peer.reports():
                for report in batch.reports:
                    try:
                        await self._take(crew, report)
                    except Exception as error:  # what follows may still be saved
                        self._wrong(error)
                crew.ready = crew.ready or not crew.over
                crew.in_flight, crew.waiting = batch.in_flight, batch.waiting
                self._wake.set()
        except Lost as error:
            why = str(error)
        finally:
            self._staff.crews.remove(crew)
            crew.peer.kill()
            self._wake.set()
        if crew.ready:
            self._follow(self._keeper.gone(crew.most_spent()))
        if not crew.over:
            self._lose(crew, why)

    def _lose(self, crew: Crew, why: str) -> None:
        """What the worker had may have been sent: those jobs are in doubt, and go to another."""
        words = self._staff.lost(crew, why)
        if not crew.ready:
            return
        again = f"; {counted(len(crew.open), 'job')} may be paid for twice" if crew.open else ""
        self._observe(Paced(f"a worker is lost ({words}){again}"))
        for who, one in crew.open.items():
            self._doubt(who, one)
        crew.open = {}

    def _doubt(self, who: Who, handed: Handed) -> None:
        pending, earlier = self._handouts.again(who, handed.pending), len(handed.pending.life)
        if len(pending.life) > earlier and pending.life[-1].failure is Failure.IN_DOUBT:
            price_usd = self._policy.prices_usd.get(pending.job.model)
            self._observe(Tried(pending.job, pending.life[-1], price_usd, again=len(pending.life) > earlier + 1))
        self._again.append(pending)

    # Handing out

    async def _hand_out(self) -> None:
        """A slice for every worker that has room; two at most are with one."""
        if not self._staff.complete:
            return
        for crew in sorted(self._staff.crews, key=lambda crew: len(crew.open)):
            if not self._has_room(crew):
                continue
            if not (jobs := await self._some(crew.slice)):
                return
            if not self._has_room(crew):  # lost, while the manifest was read
                self._again.extendleft(reversed(jobs))
                continue
            try:
                self._handouts.entrust(crew, jobs)
            except (StorageError, OSError) as error:
                self._wrong(error)
                return
            self._follow(_hand(crew, jobs))

    def _has_room(self, crew: Crew) -> bool:
        at_work = crew.ready and not crew.over and crew in self._staff.crews
        return at_work and not self._closing and len(crew.open) <= crew.slice

    async def _some(self, n: int) -> Sequence[Pending]:
        if self._again:
            return [self._again.popleft() for _ in range(min(n, len(self._again)))]
        if self._exhausted:
            return []
        try:
            jobs = await self._pull(n)
        except Exception as error:  # the manifest was edited, or its file is gone: what runs is still finished
            self.stop(getattr(error, "exit_code", ExitCode.INTERNAL), printable(str(error)) or type(error).__name__)
            return []
        self._exhausted = not jobs
        return jobs

    # Taking in

    async def _take(self, crew: Crew, report: Report) -> None:
        match report:
            case Noted(lines=lines):
                self._handouts.noted(crew, lines)
            case Made():
                self._made(crew, report)
            case Useless(job=job, n=n, body=body):
                with contextlib.suppress(OSError):  # a courtesy that must cost nobody a picture
                    self._desk.quarantine(job, n, body)
            case Keep(number=number):
                await self._keep(crew, number)
            case Over():
                self._over(crew, report)
            case Paced():
                self._observe(self._paced(crew, report))
            case Left(job=job):
                if handed := crew.open.pop(who := (job.id, job.fingerprint), None):
                    self._handouts.close(who, handed)
                self._observe(report)
            case _:
                self._observe(report)

    async def _keep(self, crew: Crew, number: int) -> None:
        failure = None
        try:
            await self._desk.keep()
        except (StorageError, OSError) as error:
            self._wrong(error)
            failure = str(error)
        self._follow(_safely(crew.peer.kept(number, failure)))

    def _made(self, crew: Crew, made: Made) -> None:
        who = made.entry.job, made.entry.fingerprint
        if handed := crew.open.pop(who, None):
            self._staff.made(crew)
            task = asyncio.ensure_future(self._save(made, who))
            self._saving.add(task)
            task.add_done_callback(self._saved)
            self._handouts.close(who, handed)

    async def _save(self, made: Made, who: Who) -> None:
        result = await self._deliver.submit(made)
        if isinstance(result, Entry):
            self._handouts.finished(who)
            self._observe(Finished(result))

    def _saved(self, task: asyncio.Task[None]) -> None:
        self._saving.discard(task)
        self._ended(task)

    def _over(self, crew: Crew, over: Over) -> None:
        crew.over = True
        if not crew.ready and self._staff.complete:
            # A machine that came later and cannot work is no reason to end the work of the others.
            for stop in over.stops:
                self._staff.retire(crew.node, crew.peer.name, stop)
            return
        for stop in over.stops:
            if stop.exit_code in _OF_ALL:
                self.stop(stop.exit_code, stop.reason)
            else:
                self._staff.retire(crew.node, crew.peer.name, stop)
        self.in_doubt |= over.in_doubt
        for who, handed in crew.open.items():
            if who not in over.in_doubt:
                self._handouts.close(who, handed)
                self._again.append(self._handouts.again(who, handed.pending))
        crew.open = {}

    def _paced(self, crew: Crew, event: Paced) -> Paced:
        """The same, for all workers together."""
        name = event.endpoint or ""
        if event.concurrency is not None:
            crew.limits[name] = event.concurrency
        limit = sum(crew.limits.get(name, 1) for crew in self._staff.crews)
        for lane in self.lanes:
            if lane.name == name:
                lane.gates.adaptive.limit, lane.gates.adaptive.reason = float(limit), event.message
        concurrency = None if event.concurrency is None else limit
        return msgspec.structs.replace(event, message=f"{crew.peer.name}: {event.message}", concurrency=concurrency)

    # The end

    async def _end(self) -> None:
        """Let every worker come to its end; those that do not are left after the longest time a request may take."""
        for crew in self._staff.crews:
            self._follow(self._dismiss(crew))
        give_up_s = self._clock.monotonic() + self._errand.timeout_s + DRAIN_S
        while self._staff.crews or self._saving:
            if self._clock.monotonic() > min(give_up_s, self._aborted_s + 2 * ABORT_S):
                break
            self._wake.clear()
            await self._rest(1.0)
        for crew in self._staff.crews:
            self.in_doubt.update(crew.open)
        for pending in self._again:
            if pending.life and pending.life[-1].failure is Failure.IN_DOUBT:
                self.in_doubt.add((pending.job.id, pending.job.fingerprint))
        left = list(self._following)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _dismiss(self, crew: Crew) -> None:
        """Tell a worker that nothing more comes, until it has heard it or is gone."""
        why = next(iter(self.stops), Stop(ExitCode.WORK_LEFT, "the run was ended"))
        while crew in self._staff.crews:
            try:
                if self._closing:
                    await crew.peer.stop(why.exit_code, why.reason)
                await crew.peer.end()
            except Lost:
                await asyncio.sleep(AGAIN_S)
            else:
                break


async def _hand(crew: Crew, jobs: Sequence[Pending]) -> None:
    try:
        await crew.peer.hand(jobs)
    except Lost:
        crew.peer.kill()  # whether it has them nobody knows; who listens to it hears that it is gone


async def _safely(call: Awaitable[None]) -> None:
    with contextlib.suppress(Lost):
        await call
