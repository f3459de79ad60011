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
from dataclasses import dataclass, field
from itertools import count

import msgspec

from batchgen import joblog
from batchgen.cluster.leave import keep_to
from batchgen.cluster.messages import (
    Errand,
    Keep,
    LimiterCalls,
    Lost,
    Made,
    News,
    Nodes,
    Noted,
    Over,
    Peer,
    Report,
    Useless,
)
from batchgen.events import Event, Finished, Left, Paced, Tried
from batchgen.joblog import Intent, Lives, Withdrawn
from batchgen.model import Entry, ExitCode, Failure, StorageError
from batchgen.pacing import Gates
from batchgen.pool import ABORT_S, Pending, Stop
from batchgen.text import counted, duration, printable
from batchgen.world import Clock, Result, Staged
from batchgen.writer import Writer

LOOK_S = 5.0
DRAIN_S = 60.0
STARTS = 3
# What stops one worker for these reasons would stop all the others; anything else may be its machine's trouble alone.
_OF_ALL = {ExitCode.USAGE, ExitCode.ACCOUNT}
_Who = tuple[str, str]


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


@dataclass
class _Handed:
    """A job that a worker has; `n` is the number of the request that its intent tells of, `sent` whether the worker has
    said that it leaves."""

    pending: Pending
    n: int
    sent: bool = False


@dataclass
class _Crew:
    """A worker, what it has to do, and what it last said of itself."""

    peer: Peer
    node: str
    open: dict[_Who, _Handed] = field(default_factory=dict)
    ready: bool = False
    in_flight: int = 0
    waiting: int = 0
    limits: dict[str, int] = field(default_factory=dict)


class Driver:
    """Does the jobs that `pull` hands out, on the nodes of a cluster, until there are none or something says stop.

    Has the face of a pool for who watches it.
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
        start_limiter: Callable[[set[str]], None],
    ) -> None:
        self._errand, self._policy, self._nodes = errand, errand.policy, nodes
        self._pull, self._deliver, self._desk = pull, deliver, desk
        self._clock, self._observe = clock, observe
        self._limiter, self._start_limiter = limiter, start_limiter
        self.lanes = [Shown(name, Gates.of(errand.concurrency)) for name in errand.endpoints]
        self.stops: list[Stop] = []
        self.unfinished: set[_Who] = set()
        self.in_doubt: set[_Who] = set()
        self._slice = max(1, errand.concurrency)
        self._lives = Lives(desk.last_n)
        self._crews: list[_Crew] = []
        self._names = count(1)
        self._again: deque[Pending] = deque()
        self._exhausted = False
        self._alive: frozenset[str] = frozenset()
        self._retired: dict[str, Stop] = {}
        self._failed_starts: dict[str, int] = {}
        self._noticed: set[str] = set()
        self._alone_since_s = clock.monotonic()
        self._saving: set[asyncio.Task[None]] = set()
        self._following: set[asyncio.Task[None]] = set()
        self._aborted_s = math.inf
        self._wake = asyncio.Event()

    @property
    def in_flight(self) -> int:
        return sum(crew.in_flight for crew in self._crews) + len(self._saving)

    @property
    def waiting(self) -> int:
        """How many jobs wait for another try."""
        return sum(crew.waiting for crew in self._crews) + len(self._again)

    def stop(self, exit_code: ExitCode, reason: str) -> None:
        """Hand out nothing more; what is in flight gets until its own deadline."""
        if all(stop.exit_code is not exit_code for stop in self.stops):
            self.stops.append(Stop(exit_code, reason))
        self._wake.set()

    def abort(self) -> None:
        """Let go of requests without an answer."""
        self._aborted_s = self._clock.monotonic()
        for crew in self._crews:
            self._follow(_safely(crew.peer.abort()))
        self._wake.set()

    async def run(self) -> None:
        """Until every job has ended or is left to another run. Never raises for what a worker or its machine does."""
        looked_s = -math.inf
        self._start_limiter(set())
        self._follow(self._watch_limiter())
        while not self.stops and not (self._exhausted and not self._open and not self._again):
            self._wake.clear()
            if self._clock.monotonic() - looked_s >= LOOK_S:
                looked_s = self._clock.monotonic()
                await self._staff()
            await self._hand_out()
            await self._rest(LOOK_S)
        await self._end()

    async def settle(self) -> None:
        """Count what was written after `run` had stopped waiting for it."""
        if self._saving:
            await asyncio.wait(self._saving, timeout=ABORT_S)

    @property
    def _open(self) -> bool:
        return bool(self._saving) or any(crew.open for crew in self._crews)

    async def _rest(self, at_most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._wake.wait()

    async def _watch_limiter(self) -> None:
        """Show what it tells; another takes the place of one that is lost."""
        seen = 0
        while True:
            try:
                news = await self._limiter.news(seen)
                seen = news.number
                self._hear(news)
            except Lost as error:
                self._observe(Paced(f"the limiter was lost ({printable(str(error), 200)}); another takes its place"))
                self._start_limiter({crew.peer.name for crew in self._crews if crew.ready})
                await asyncio.sleep(1.0)

    def _hear(self, news: News) -> None:
        for notice in news.notices:
            if notice not in self._noticed:
                self._noticed.add(notice)
                self._observe(Paced(notice))
        for number, lane in enumerate(self.lanes):
            keep_to(news, number, lane.gates, self._clock.monotonic())

    # Workers

    async def _staff(self) -> None:
        """Every machine that can work has a worker; a machine that lost three at their start gets no other."""
        try:
            alive = await self._nodes.alive()
        except Lost as error:
            self.stop(ExitCode.INTERNAL, f"the cluster is gone: {printable(str(error))}")
            return
        self._alive = frozenset(alive)
        staffed = {crew.node for crew in self._crews}
        for node, label in alive.items():
            if node not in staffed and node not in self._retired:
                name = f"{label}-{next(self._names)}"
                crew = _Crew(self._nodes.start(node, name, self._errand), node)
                self._crews.append(crew)
                self._follow(self._listen(crew))
        self._check_retired()
        self._check_patience()

    def _check_patience(self) -> None:
        now_s = self._clock.monotonic()
        if any(crew.ready for crew in self._crews):
            self._alone_since_s = now_s
        elif now_s - self._alone_since_s > self._policy.give_up_after_s:
            self.stop(ExitCode.WORK_LEFT, f"no machine has been at work for {duration(self._policy.give_up_after_s)}")

    def _follow(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._following.add(task)
        task.add_done_callback(self._followed)

    def _followed(self, task: asyncio.Future[None]) -> None:
        self._following.discard(task)
        self._failed(task)

    def _failed(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            code = ExitCode.STORAGE if isinstance(error, StorageError | OSError) else ExitCode.INTERNAL
            self.stop(code, printable(self._policy.key.hide(f"{type(error).__name__}: {error}")))
        self._wake.set()

    async def _listen(self, crew: _Crew) -> None:
        try:
            async for batch in crew.peer.reports():
                crew.ready = True
                for report in batch.reports:
                    try:
                        await self._take(crew, report)
                    except (StorageError, OSError) as error:  # what follows may still be saved
                        self.stop(ExitCode.STORAGE, printable(str(error)))
                crew.in_flight, crew.waiting = batch.in_flight, batch.waiting
                self._wake.set()
        except Lost as error:
            self._lose(crew, str(error))
        finally:
            self._crews.remove(crew)
            crew.peer.kill()
            self._wake.set()

    def _lose(self, crew: _Crew, why: str) -> None:
        """What the worker had may have been sent: those jobs are in doubt, and go to another."""
        told = printable(f"{crew.peer.name}: {why}", 300)
        if not crew.ready:
            self._failed_starts[crew.node] = failed = self._failed_starts.get(crew.node, 0) + 1
            self._observe(Paced(f"a worker could not be started ({told})"))
            if failed == STARTS:
                self._retire(crew, Stop(ExitCode.INTERNAL, f"no worker could be started: {why}"))
            return
        self._follow(_safely(self._limiter.forget(crew.peer.name)))
        handed, crew.open = crew.open, {}
        again = f"; {counted(len(handed), 'job')} may be paid for twice" if handed else ""
        self._observe(Paced(f"a worker is lost ({told}){again}"))
        for who, one in handed.items():
            life, earlier = self._lives.of(*who), len(one.pending.life)
            if len(life) > earlier and life[-1].failure is Failure.IN_DOUBT:
                price_usd = self._policy.prices_usd.get(one.pending.job.model)
                self._observe(Tried(one.pending.job, life[-1], price_usd, again=len(life) > earlier + 1))
            self._again.append(msgspec.structs.replace(one.pending, life=life))

    # Handing out

    async def _hand_out(self) -> None:
        """A slice for every worker that has room; two at most are with one."""
        for crew in sorted(self._crews, key=lambda crew: len(crew.open)):
            if self.stops or not crew.ready or len(crew.open) > self._slice:
                continue
            if not (jobs := await self._some()):
                return
            try:
                self._entrust(crew, jobs)
                await crew.peer.hand(jobs)
            except Lost:
                return  # whoever listens to it hears of that too
            except (StorageError, OSError) as error:
                self.stop(ExitCode.STORAGE, printable(str(error)))

    async def _some(self) -> Sequence[Pending]:
        if self._again:
            return [self._again.popleft() for _ in range(min(self._slice, len(self._again)))]
        if self._exhausted:
            return []
        try:
            jobs = await self._pull(self._slice)
        except Exception as error:  # the manifest was edited, or its file is gone: what runs is still finished
            self.stop(getattr(error, "exit_code", ExitCode.INTERNAL), printable(str(error)) or type(error).__name__)
            return []
        self._exhausted = not jobs
        return jobs

    def _entrust(self, crew: _Crew, jobs: Sequence[Pending]) -> None:
        """Write that these jobs may be sent from now on, before anybody can."""
        at, policy, intents = joblog.timestamp(self._clock.utc()), self._policy, []
        for pending in jobs:
            job, n = pending.job, (pending.life[-1].n if pending.life else pending.last_n) + 1
            intents.append(Intent(job.id, job.fingerprint, n, at, policy.run, policy.prices_usd.get(job.model)))
        self._note(b"".join(map(joblog.encode, intents)))
        for pending, intent in zip(jobs, intents, strict=True):
            who = intent.job, intent.fingerprint
            crew.open[who] = _Handed(pending, intent.n)
            self.unfinished.add(who)

    def _note(self, lines: bytes) -> None:
        self._desk.note(lines)
        for line in lines.splitlines(keepends=True):
            self._lives.add(line)

    # Taking in

    async def _take(self, crew: _Crew, report: Report) -> None:
        match report:
            case Noted(lines=lines):
                self._noted(crew, lines)
            case Made():
                self._made(crew, report)
            case Useless(job=job, n=n, body=body):
                with contextlib.suppress(OSError):  # a courtesy that must cost nobody a picture
                    self._desk.quarantine(job, n, body)
            case Keep(number=number):
                await self._desk.keep()
                with contextlib.suppress(Lost):
                    await crew.peer.kept(number)
            case Over(stops=stops, in_doubt=in_doubt):
                self._over(crew, stops, in_doubt)
            case Paced():
                self._observe(self._paced(crew, report))
            case Left(job=job):
                self._close(crew, (job.id, job.fingerprint))
                self._observe(report)
            case _:
                self._observe(report)

    def _noted(self, crew: _Crew, lines: bytes) -> None:
        self._note(lines)
        for line in lines.splitlines():
            note = joblog.decode_note(line)
            if isinstance(note, Intent) and (handed := crew.open.get((note.job, note.fingerprint))):
                handed.sent = handed.sent or note.n == handed.n

    def _made(self, crew: _Crew, made: Made) -> None:
        who = made.entry.job, made.entry.fingerprint
        if self._close(crew, who):
            task = asyncio.ensure_future(self._save(made, who))
            self._saving.add(task)
            task.add_done_callback(self._saved)

    async def _save(self, made: Made, who: _Who) -> None:
        result = await self._deliver.submit(made)
        if isinstance(result, Entry):
            self._lives.forget(*who)
            self.unfinished.discard(who)
            self._observe(Finished(result))

    def _saved(self, task: asyncio.Task[None]) -> None:
        self._saving.discard(task)
        self._failed(task)

    def _close(self, crew: _Crew, who: _Who) -> bool:
        """The worker has nothing to do with this job any more; False where it had not."""
        handed = crew.open.pop(who, None)
        if handed and not handed.sent:
            self._note(joblog.encode(Withdrawn(*who, handed.n)))
        return handed is not None

    def _over(self, crew: _Crew, stops: Sequence[Stop], in_doubt: frozenset[_Who]) -> None:
        for stop in stops:
            if stop.exit_code in _OF_ALL:
                self.stop(stop.exit_code, stop.reason)
            else:
                self._retire(crew, stop)
        for who, handed in list(crew.open.items()):
            if who in in_doubt:
                del crew.open[who]
                self.in_doubt.add(who)
            else:
                self._close(crew, who)
                self._again.append(msgspec.structs.replace(handed.pending, life=self._lives.of(*who)))

    def _retire(self, crew: _Crew, stop: Stop) -> None:
        """The machine gets no other worker in this run; the run goes on where there are others."""
        whose = f"{crew.peer.name}: " if stop.exit_code is not ExitCode.WORK_LEFT else ""
        self._retired[crew.node] = Stop(stop.exit_code, f"{whose}{stop.reason}")
        if not self.stops:
            self._observe(Paced(f"{crew.peer.name} has stopped ({stop.reason})"))
        self._check_retired()

    def _check_retired(self) -> None:
        """End the run where no machine is left, for the reasons of all of them."""
        if self._alive and all(node in self._retired for node in self._alive):
            for stop in self._retired.values():
                self.stop(stop.exit_code, stop.reason)

    def _paced(self, crew: _Crew, event: Paced) -> Paced:
        """The same, for all workers together."""
        name = event.endpoint or ""
        if event.concurrency is not None:
            crew.limits[name] = event.concurrency
        limit = sum(crew.limits.get(name, 1) for crew in self._crews)
        for lane in self.lanes:
            if lane.name == name:
                lane.gates.adaptive.limit, lane.gates.adaptive.reason = float(limit), event.message
        concurrency = None if event.concurrency is None else limit
        return msgspec.structs.replace(event, message=f"{crew.peer.name}: {event.message}", concurrency=concurrency)

    # The end

    async def _end(self) -> None:
        """Let every worker come to its end; those that do not are left after the longest time a request may take."""
        for crew in list(self._crews):
            with contextlib.suppress(Lost):
                if self.stops:
                    await crew.peer.stop(self.stops[0].exit_code, self.stops[0].reason)
                await crew.peer.end()
        give_up_s = self._clock.monotonic() + self._errand.timeout_s + DRAIN_S
        while self._crews or self._saving:
            now_s = self._clock.monotonic()
            if now_s > min(give_up_s, self._aborted_s + 2 * ABORT_S):
                break
            self._wake.clear()
            await self._rest(1.0)
        for crew in self._crews:
            self.in_doubt.update(crew.open)
            crew.peer.kill()
        for task in list(self._following):
            task.cancel()


async def _safely(call: Awaitable[None]) -> None:
    with contextlib.suppress(Lost):
        await call
