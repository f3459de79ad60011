"""A small world for the pool: an event loop on virtual time, a scripted server behind Transport, an instant Deliver.

Whole nights pass in milliseconds and the same seed gives the same night. A World keeps its log and attempts between
runs, so that restarts can be told as well. Real are pool, gates, classification, protocol and picture check.
"""

from __future__ import annotations

import asyncio
import io
import math
import random
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

import msgspec
from PIL import Image

from batchgen import images, joblog, summary
from batchgen.account import MemoryAccount
from batchgen.events import Event, Finished, Left, Paced
from batchgen.failures import Allowance
from batchgen.joblog import Fold, Lives, Saved
from batchgen.limits import Limits as RunLimits
from batchgen.model import (
    AttemptFailed,
    BadAnswer,
    Entry,
    ExitCode,
    Failure,
    Job,
    Outcome,
    Picture,
    Post,
    Reply,
    Secret,
    ServerError,
)
from batchgen.pacing import Budget, Gates, Pace
from batchgen.pool import Deadline, Pending, Policy, Pool, Way
from batchgen.protocol import Drawn, nebula
from batchgen.world import Delivery, Result, Work

T = TypeVar("T")
MODEL = "black-forest-labs/FLUX.1-schnell"
KEY = "ak_canary-0123456789abcdef"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def picture(colour: int = 0) -> bytes:
    """A small real PNG."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


PICTURE = nebula.encode_answer(MODEL, [Drawn(picture(), 0, 1.25)])


class Hang(Exception):
    """Everybody waits, and nothing is left that could ever happen."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """When nothing is ready, time jumps to the next timer; `turns` counts how often the loop went round."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s, self.turns = now_s, 0
        self.crashes: list[str] = []
        super().__init__(_Jump(self))
        self.set_exception_handler(lambda loop, context: self.crashes.append(str(context)))

    def time(self) -> float:
        return self._now_s

    def jump(self, seconds: float) -> None:
        self._now_s += seconds


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.turns += 1
        ready = super().select(0)
        if not ready and timeout is None:
            raise Hang
        if not ready:
            self._loop.jump(timeout or 0.0)
        return ready


def run_virtually(work: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """What `work` returns, run on virtual time."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(work)


class SimClock:
    """The loop's time, and a wall clock that `skew` can step."""

    def __init__(self, loop: VirtualLoop, begin: datetime) -> None:
        self._loop, self._begin = loop, begin
        self.skew = timedelta(0)

    def monotonic(self) -> float:
        return self._loop.time()

    def utc(self) -> datetime:
        return self._begin + timedelta(seconds=self._loop.time()) + self.skew


@dataclass(frozen=True)
class Arrival:
    """A request as a server sees it: the `n`-th for its job there, the `number`-th of all, both from 1."""

    job: str
    n: int
    number: int
    at_s: float
    server: str = ""


@dataclass(frozen=True)
class Answer:
    """What the server does with a request: an answer after a while, or (`failure`) none."""

    status: int = 200
    body: bytes = PICTURE
    headers: Mapping[str, str] = field(default_factory=dict)
    after_s: float = 10.0
    failure: Failure | None = None

    @property
    def paid(self) -> bool:
        return self.status == 200 and self.failure is None


OK = Answer()
HANGS = Answer(after_s=math.inf)
REFUSED_CONNECTION = Answer(failure=Failure.NOT_CONNECTED, after_s=0.001)
RESET = Answer(failure=Failure.NO_ANSWER, after_s=0.2)
BAD_PICTURE = Answer(body=b'{"data": [{"b64_json": "bm8="}], "status": "success"}')
PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


def says(status: int, message: str = "no", code: str | None = None, after_s: float = 0.1, **headers: str) -> Answer:
    """A refusal in the API's own shape; `retry_after="1"` becomes a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, nebula.encode_error(message, code), named, after_s)


React = Callable[[Arrival], Answer]


def between(from_s: float, to_s: float, answer: Answer, otherwise: Answer = OK) -> React:
    """`answer` from one second to another, `otherwise` at other times."""
    return lambda arrival: answer if from_s <= arrival.at_s < to_s else otherwise


class SimServer:
    """A Transport whose other end is a script; `arrivals` is its ledger."""

    def __init__(self, react: React, alive: Callable[[float], bool], arrivals: list[Arrival], name: str = "") -> None:
        self.react, self.alive, self.arrivals, self.name = react, alive, arrivals, name
        self.answers: list[tuple[Arrival, Answer]] = []
        self.pings: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self._counts: Counter[str] = Counter(a.job for a in arrivals if a.server == name)

    async def prepare(self, job: Job) -> Post:
        return Post("/", "text/plain", job.id.encode())

    async def fetch(self, reply: Reply) -> Reply:
        raise AttemptFailed(Failure.DOWNLOAD, "no links here")

    async def send(self, post: Post, timeout_s: float) -> Reply:
        job, now_s = post.body.decode(), asyncio.get_running_loop().time()
        self._counts[job] += 1
        arrival = Arrival(job, self._counts[job], len(self.arrivals) + 1, now_s, self.name)
        self.arrivals.append(arrival)
        answer = self.react(arrival)
        self.answers.append((arrival, answer))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(min(answer.after_s, timeout_s))
        finally:
            self.in_flight -= 1
        if answer.after_s > timeout_s:
            raise AttemptFailed(Failure.NO_ANSWER, f"no whole answer within {timeout_s:g} s")
        if answer.failure:
            raise AttemptFailed(answer.failure, "as scripted")
        return Reply(answer.status, dict(answer.headers), answer.body, answer.after_s, answer.after_s)

    async def reachable(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        self.pings.append(now_s)
        await asyncio.sleep(0.01)
        return self.alive(now_s)


class InstantDeliver:
    """A Deliver that decodes and checks for real and keeps log lines in a list; `failing` raises instead."""

    def __init__(self, clock: SimClock, log: list[bytes]) -> None:
        self._clock, self._log = clock, log
        self.failing: Callable[[Work], Exception | None] = lambda work: None

    def submit(self, work: Work) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if error := self.failing(work):
            future.set_exception(error)
        else:
            future.set_result(self._result(work))
        return future

    def _result(self, work: Work) -> Result:
        if not isinstance(work, Delivery):
            return self._logged(
                work.draft.entry(work.outcome, Saved(), self._clock.monotonic(), joblog.timestamp(self._clock.utc()))
            )
        try:
            answer = nebula.decode_answer(work.body)
            if isinstance(answer, ServerError):
                return answer
            pictures = tuple(self._saved(work.draft.job.id, drawn) for drawn in answer.pictures)
        except BadAnswer as error:
            return error
        entry = work.draft.entry(
            Outcome.DONE, Saved(pictures), self._clock.monotonic(), joblog.timestamp(self._clock.utc())
        )
        return self._logged(entry)

    def _saved(self, job: str, drawn: Drawn) -> Picture:
        facts = images.check(drawn.data)
        file = f"images/{job}.{facts.extension}"
        return Picture(file, 0, facts.format, facts.width, facts.height, len(drawn.data), "0" * 64, drawn.inference_s)

    def _logged(self, entry: Entry) -> Entry:
        self._log.append(joblog.encode(entry))
        return entry


@dataclass(frozen=True)
class Limits(RunLimits):
    """What a run of the World may use, and how patient it is."""

    give_up_after_s: float = 1800.0
    wait_for_quota: bool = False
    price_usd: float | None = None


@dataclass
class Night:
    """One run of the World, ended."""

    pool: Pool
    server: SimServer
    events: list[Event]
    entries: dict[str, Entry]
    exit_code: ExitCode
    began_s: float
    ended_s: float
    turns: int
    crashes: list[str]
    first_arrival: int

    @property
    def arrivals(self) -> list[Arrival]:
        """The requests of this run."""
        return self.server.arrivals[self.first_arrival :]

    @property
    def lasted_s(self) -> float:
        return self.ended_s - self.began_s

    @property
    def reason(self) -> str:
        return "; ".join(stop.reason for stop in self.pool.stops)

    def requests(self, job: str) -> int:
        """How many requests the server has ever seen for a job."""
        return sum(a.job == job for a in self.server.arrivals)

    def paid(self, job: str) -> int:
        """How many pictures this run has surely paid for a job, whether they were usable or not."""
        return sum(a.job == job and answer.paid for a, answer in self.server.answers)

    def outcomes(self) -> Counter[str]:
        return Counter(entry.outcome.value for entry in self.entries.values())

    def failures(self, job: str) -> list[str]:
        """How a job's attempts failed, by its entry."""
        return [str(attempt.failure) for attempt in self.entries[job].attempts if attempt.failure]

    def paces(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Paced)]

    def left(self) -> list[Left]:
        return [event for event in self.events if isinstance(event, Left)]


class World:
    """A manifest of `jobs`, what the log and the attempts file say of them, and a server that reacts as told."""

    def __init__(
        self,
        react: React | Answer = OK,
        *,
        jobs: int = 20,
        limits: Limits | None = None,
        alive: Callable[[float], bool] = lambda now_s: True,
        begin: datetime = NOON,
        seed: int = 1,
        **changes: Any,
    ) -> None:
        self.react: React = (lambda arrival: react) if isinstance(react, Answer) else react
        self.limits = replace(limits or Limits(), **changes)
        self.alive, self.begin, self.seed = alive, begin, seed
        self.jobs: list[Job] = []
        self.add_jobs(jobs)
        self.log: list[bytes] = []
        self.notes: list[bytes] = []
        self.arrivals: list[Arrival] = []
        self.kept: list[int] = []
        self.keep_s = 0.0
        self.now_s = 0.0
        self.deadline: Deadline | None = None
        self.account: MemoryAccount | None = None

    def add_jobs(self, n: int) -> None:
        """So many jobs more at the end of the manifest."""
        for number in range(len(self.jobs), len(self.jobs) + n):
            job = Job(f"job-{number}", f"{number:032x}", MODEL, {"prompt": f"picture {number}"}, {}, number + 1)
            self.jobs.append(job)

    def run(
        self,
        *,
        during: Callable[[Pool, SimServer, InstantDeliver], Coroutine[Any, Any, None]] | None = None,
        settle: bool = False,
    ) -> Night:
        """One run until it ends; `during` runs beside it, and what it left to the writer is waited for to `settle`."""
        loop = VirtualLoop(self.now_s)
        clock = SimClock(loop, self.begin)
        server = SimServer(self.react, self.alive, self.arrivals)
        deliver, events, first = InstantDeliver(clock, self.log), list[Event](), len(self.arrivals)
        pool = self._pool(clock, server, deliver, events)

        async def main() -> None:
            beside = asyncio.create_task(during(pool, server, deliver)) if during else None
            await pool.run()
            if beside:
                beside.cancel()
                await asyncio.wait([beside])
            if settle:
                await pool.settle()
            assert asyncio.all_tasks() == {asyncio.current_task()}, "the pool left tasks behind"

        began_s = loop.time()
        run_virtually(main(), loop)
        self.now_s, self.seed = loop.time(), self.seed + 1
        entries = {entry.job: entry for entry in map(joblog.decode, self.log)}
        self._check(events, entries)
        code = summary.exit_code(self._counts(entries), [stop.exit_code for stop in pool.stops])
        return Night(pool, server, events, entries, code, began_s, self.now_s, loop.turns, loop.crashes, first)

    def _check(self, events: Sequence[Event], entries: Mapping[str, Entry]) -> None:
        """What holds for every run: one entry a job, its attempts counted without a gap, every request on record."""
        assert len(entries) == len(self.log), "a job was finished twice"
        for entry in entries.values():
            assert [attempt.n for attempt in entry.attempts] == list(range(1, len(entry.attempts) + 1))
        finished = [event.entry.job for event in events if isinstance(event, Finished)]
        assert len(set(finished)) == len(finished)
        intents = sum(isinstance(joblog.decode_note(line), joblog.Intent) for line in self.notes)
        assert intents == len(self.arrivals), "a request left without an intent"

    def _counts(self, entries: Mapping[str, Entry]) -> summary.JobCounts:
        n = Counter(entry.outcome for entry in entries.values())
        done, failed, uncertain = (n[outcome] for outcome in (Outcome.DONE, Outcome.FAILED, Outcome.UNCERTAIN))
        return summary.JobCounts(len(self.jobs), done, failed, uncertain, len(self.jobs) - done - failed - uncertain)

    def folded(self) -> tuple[Fold, Lives]:
        """What the log and the attempts say, read as a run reads them."""
        fold = Fold()
        for number, line in enumerate(self.log):
            fold.add(line, number)

        def last_n(job: str, fingerprint: str) -> int:
            row = fold.row(job, fingerprint)
            return row.last_n if row else 0

        lives = Lives(last_n)
        for line in self.notes:
            lives.add(line)
        return fold, lives

    def _pool(self, clock: SimClock, server: SimServer, deliver: InstantDeliver, events: list[Event]) -> Pool:
        limits, (fold, lives) = self.limits, self.folded()
        self.account = self._account(clock, fold, lives)
        to_do = iter(
            [
                Pending(job, lives.of(job.id, job.fingerprint))
                for job in self.jobs
                if not fold.row(job.id, job.fingerprint)
            ]
        )

        async def pull(n: int) -> list[Pending]:
            await asyncio.sleep(0)
            return list(islice(to_do, n))

        async def keep() -> None:
            await asyncio.sleep(self.keep_s)
            self.kept.append(len(self.arrivals))

        policy = Policy(
            run="night",
            manifest="world.yaml",
            api="nebula",
            key=Secret(KEY),
            allowance=Allowance(limits.attempts, limits.uncertain_retries),
            give_up_after_s=limits.give_up_after_s,
            wait_for_quota=limits.wait_for_quota,
            deadline=self.deadline,
            prices_usd={} if limits.price_usd is None else {MODEL: limits.price_usd},
        )
        return Pool(
            policy,
            self._ways(server, clock),
            pull=pull,
            budget=self._budget(fold, lives),
            deliver=deliver,
            note=lambda lines: self.notes.extend(lines.splitlines(keepends=True)),
            keep=keep,
            clock=clock,
            randomness=random.Random(self.seed),
            observe=events.append,
        )

    def _ways(self, server: SimServer, clock: SimClock) -> list[Way]:
        limits, gates = self.limits, Gates.of(self.limits.concurrency)
        assert self.account
        return [Way(server, self.account, gates, limits.timeout_s, limits.requests_per_minute)]

    def _account(self, clock: SimClock, fold: Fold, lives: Lives) -> MemoryAccount:
        today = clock.utc().date().isoformat()
        sent_today = fold.requests_by_day.get(today, 0) + sum(e.attempt.at.startswith(today) for e in lives.ended())
        return MemoryAccount(Pace(self.limits.requests_per_minute, self.limits.requests_per_day), clock, sent_today)

    def _budget(self, fold: Fold, lives: Lives) -> Budget:
        limits, spent_usd = self.limits, fold.spent_usd + fold.exposure_usd + lives.exposure_usd()
        return Budget(limits.max_cost_usd, limits.max_requests, spent_usd, fold.requests + len(lives.ended()))


def most_in_window(times_s: Sequence[float], window_s: float) -> int:
    """The most of `times_s` that any window of this length holds."""
    return max((sum(start <= t < start + window_s for t in times_s) for start in times_s), default=0)


def json(value: Any) -> bytes:
    return msgspec.json.encode(value)
