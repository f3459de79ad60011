"""A worker's side of the limiter: asks before anything is sent, tells what was heard. Keeps no limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from batchgen.cluster.messages import AGAIN_S, LimiterCalls, Lost, News, Spent
from batchgen.joblog import timestamp
from batchgen.model import BudgetSpent, Job, Post, Reply
from batchgen.pacing import Budget, Cooldown, Day, Gates, Lease
from batchgen.pool import Way
from batchgen.world import Clock, Transport

SAME_S = 1.0
T = TypeVar("T")


class Leave:
    """What one worker may send, as the limiter says, and what it tells the limiter.

    A limiter that is lost is asked again until another has taken its place.
    """

    def __init__(self, limiter: LimiterCalls, worker: str, clock: Clock) -> None:
        self._limiter, self._worker, self._clock = limiter, worker, clock
        self._number = self._requests = self._back_requests = 0
        self._usd = self._back_usd = 0.0
        self._telling: set[asyncio.Task[None]] = set()
        self._untold = False

    async def lease(self, lane: int, n: int) -> Lease:
        return await _until_there(lambda: self._limiter.lease(lane, n))

    async def give_back(self, lane: int, n: int) -> None:
        with contextlib.suppress(Lost):
            await self._limiter.give_back(lane, n)

    # Money and requests

    async def admit(self, cost_usd: float) -> None:
        """Count a request. Raises BudgetSpent where it would break a limit."""
        limit = await _until_there(lambda: self._limiter.admit(self._spent(), cost_usd))
        if limit is not None:
            raise BudgetSpent(limit)
        self._requests, self._usd = self._requests + 1, self._usd + cost_usd

    def back(self, requests: int, usd: float) -> None:
        """Requests that were admitted have come to nothing, or to less."""
        self._back_requests, self._back_usd = self._back_requests + requests, self._back_usd + usd
        if not self._untold:
            self._untold = True
            self._spawn(self._tell())

    def _spent(self) -> Spent:
        self._number += 1
        return Spent(self._worker, self._number, self._requests, self._usd, self._back_requests, self._back_usd)

    async def _tell(self) -> None:
        await asyncio.sleep(0)  # what comes back in the same turn is told together
        self._untold = False
        with contextlib.suppress(Lost):  # the one that takes its place is told at once
            await self._limiter.tell(self._spent())

    # What servers say

    def slow(self, lane: int, pause_s: float, closed_until: datetime | None = None) -> None:
        """All the others are to wait as this worker does."""
        end_s, until = self._clock.monotonic() + pause_s, timestamp(closed_until) if closed_until else None
        self._spawn(_until_there(lambda: self._limiter.slow(lane, max(0.0, end_s - self._clock.monotonic()), until)))

    async def hear(self, ways: Sequence[Way]) -> None:
        """Keep to what the others have heard, for ever."""
        while True:
            seen = 0
            try:
                await self._limiter.tell(self._spent())
                while True:
                    news = await self._limiter.news(seen)
                    seen = news.number
                    for lane, way in enumerate(ways):
                        keep_to(news, lane, way.gates, self._clock)
            except Lost:
                await asyncio.sleep(AGAIN_S)

    async def close(self) -> None:
        """Leave what could not be told yet."""
        telling = list(self._telling)
        for task in telling:
            task.cancel()
        await asyncio.gather(*telling, return_exceptions=True)

    def _spawn(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(call)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def keep_to(news: News, lane: int, gates: Gates, clock: Clock) -> None:
    """Pause these gates as the news say of their lane. A pause that is prolonged is one episode, as is one's own word
    that comes back."""
    now_s, cooldown = clock.monotonic(), gates.cooldown
    end_s = now_s + news.pauses_s.get(lane, 0.0)
    if end_s > max(now_s, cooldown.until_s + SAME_S):
        if cooldown.until_s <= now_s:
            cooldown.began_s, cooldown.barren = now_s, max(cooldown.barren, 1)
            gates.adaptive.cut(0.8, "rate limited")
        cooldown.until_s = end_s
    if closed_until := news.closed_until.get(lane):
        closed = datetime.fromisoformat(closed_until)
        if closed > clock.utc():
            gates.day.closed_until = max(gates.day.closed_until or closed, closed)


async def _until_there(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except Lost:
            await asyncio.sleep(AGAIN_S)


@dataclass
class _ToldCooldown(Cooldown):
    """A pause that everybody keeps to."""

    tell: Callable[[float], None] = field(default=lambda pause_s: None)

    def begin(self, now_s: float, sent_s: float, asked_s: float | None, jitter: float) -> bool:
        new = super().begin(now_s, sent_s, asked_s, jitter)
        self.tell(self.until_s - now_s)
        return new


@dataclass
class _ToldDay(Day):
    """A day that is over for everybody."""

    tell: Callable[[datetime], None] = field(default=lambda until: None)

    def close(self, utc: datetime, jitter: float) -> None:
        super().close(utc, jitter)
        assert self.closed_until is not None
        self.tell(self.closed_until)


@dataclass
class _CountedElsewhere(Budget):
    """Money that the limiter counts: it hears of what came to nothing, and was asked before."""

    back: Callable[[int, float], None] = field(default=lambda requests, usd: None)

    def refused(self, price_usd: float) -> None:
        self.back(0, price_usd)

    def correct(self, difference_usd: float) -> None:
        self.back(0, -difference_usd)

    def unsent(self, price_usd: float) -> None:
        self.back(1, price_usd)


def budget(leave: Leave) -> Budget:
    """A worker's view of the money: what is left of it is asked for with every request."""
    return _CountedElsewhere(back=leave.back)


def shared(way: Way, lane: int, leave: Leave, *, cost_usd: Callable[[Job], float] | None) -> Way:
    """A way whose pace, pauses and day are everybody's; outages and how much at once are this worker's experience.

    `cost_usd` tells what a job's next request is expected to cost, where each has to be admitted.
    """
    gates = replace(
        way.gates,
        day=_ToldDay(tell=lambda until: leave.slow(lane, 0.0, until)),
        cooldown=_ToldCooldown(tell=lambda pause_s: leave.slow(lane, pause_s)),
    )
    transport = Metered(way.transport, leave, cost_usd) if cost_usd else way.transport
    return replace(way, gates=gates, transport=transport, account=_LaneAccount(leave, lane))


@dataclass(frozen=True)
class _LaneAccount:
    """The account of a lane, as the limiter keeps it."""

    leave: Leave
    lane: int

    async def lease(self, n: int) -> Lease:
        return await self.leave.lease(self.lane, n)

    async def give_back(self, n: int) -> None:
        await self.leave.give_back(self.lane, n)


@dataclass(frozen=True)
class Metered:
    """A transport that asks for leave before it makes a request; `cost_usd` is what a job's next one is expected to
    cost."""

    inner: Transport
    leave: Leave
    cost_usd: Callable[[Job], float]

    async def prepare(self, job: Job) -> Post:
        await self.leave.admit(self.cost_usd(job))
        return await self.inner.prepare(job)

    async def send(self, post: Post, timeout_s: float) -> Reply:
        return await self.inner.send(post, timeout_s)

    async def fetch(self, reply: Reply) -> Reply:
        return await self.inner.fetch(reply)

    async def reachable(self) -> bool:
        return await self.inner.reachable()
