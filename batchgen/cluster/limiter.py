"""One for all workers: each account's pace and day, the folder's money, and what a server has said to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from batchgen.cluster.messages import News, Spent
from batchgen.pacing import Budget, Lease
from batchgen.world import Account, Clock


@dataclass
class _Told:
    """One worker's requests and money: what it was admitted to, less what it has told since to have come to nothing."""

    number: int
    requests: int
    usd: float
    back_requests: int = 0
    back_usd: float = 0.0


@dataclass
class Limiter:
    """Grants what the accounts (one a lane) allow; `budget` tells what was spent before this run began.

    Workers tell their sums each time, so that a limiter that takes the place of a lost one knows the same as soon as
    each of them (`awaited`, by name) has spoken; `gone` is what those had spent who will not speak any more.
    """

    accounts: Sequence[Account]
    clock: Clock
    budget: Budget
    awaited: set[str] = field(default_factory=set)
    gone: Sequence[Spent] = ()
    _workers: dict[str, _Told] = field(default_factory=dict)
    _news: News = field(default_factory=lambda: News(0))
    _ends_s: dict[int, float] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _complete: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        for spent in self.gone:
            self._take(spent)

    async def lease(self, lane: int, n: int) -> Lease:
        return await self.accounts[lane].lease(n)

    async def give_back(self, lane: int, n: int) -> None:
        await self.accounts[lane].give_back(n)

    async def admit(self, spent: Spent, cost_usd: float) -> str | None:
        """Whether a request at this cost may leave: None, and then it counts; else which limit it would break."""
        worker = self._take(spent)
        if self.awaited:
            await self._complete.wait()
        usd = sum(one.usd - one.back_usd for one in self._workers.values())
        requests = sum(one.requests - one.back_requests for one in self._workers.values())
        before = self.budget
        now = Budget(before.max_cost_usd, before.max_requests, before.spent_usd + usd, before.requests + requests)
        if (limit := now.spent(cost_usd)) is None:
            worker.requests, worker.usd = worker.requests + 1, worker.usd + cost_usd
        return limit

    async def tell(self, spent: Spent) -> None:
        """Take in what a worker's requests have turned out to cost."""
        self._take(spent)

    def _take(self, spent: Spent) -> _Told:
        known = self._workers.setdefault(spent.worker, _Told(-1, spent.requests, spent.usd))
        if spent.number > known.number:
            known.number, known.back_requests, known.back_usd = spent.number, spent.back_requests, spent.back_usd
        self._heard_from(spent.worker)
        return known

    async def forget(self, most: Spent) -> Spent:
        """A worker is gone, and nobody waits for its word any more: what it has spent, which is `most` where nothing
        better is known."""
        known = self._workers.setdefault(most.worker, _Told(0, most.requests, most.usd))
        self._heard_from(most.worker)
        return Spent(most.worker, known.number, known.requests, known.usd, known.back_requests, known.back_usd)

    def _heard_from(self, worker: str) -> None:
        self.awaited.discard(worker)
        if not self.awaited:
            self._complete.set()

    async def slow(self, lane: int, pause_s: float, closed_until: str | None) -> None:
        """A worker was told to wait by a lane's server; all the others are to do the same."""
        closed = dict(self._news.closed_until)
        if closed_until:
            closed[lane] = max(closed.get(lane, ""), closed_until)
        self._ends_s[lane] = max(self._ends_s.get(lane, 0.0), self.clock.monotonic() + pause_s)
        self._tell_all(closed_until=closed)

    def warn(self, notice: str) -> None:
        """Something the user should know."""
        self._tell_all(notices=(*self._news.notices, notice))

    def _tell_all(self, **changes: object) -> None:
        self._news = msgspec.structs.replace(self._news, number=self._news.number + 1, **changes)
        self._changed.set()
        self._changed = asyncio.Event()

    async def news(self, seen: int) -> News:
        """Waits for news other than those of this number; 0 where none have been heard from this limiter."""
        while self._news.number in (0, seen):
            await self._changed.wait()
        now_s = self.clock.monotonic()
        pauses_s = {lane: end_s - now_s for lane, end_s in self._ends_s.items() if end_s > now_s}
        return msgspec.structs.replace(self._news, pauses_s=pauses_s)
