"""One endpoint as the pool sees it: when it may be asked, what its answers mean for that, and how its account is asked.

Knows nothing of other endpoints: which of them a job goes to is the scheduler's business.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Coroutine
from datetime import datetime

from batchgen.pacing import Hold
from batchgen.pool.consequences import Consequences
from batchgen.pool.sender import Sender
from batchgen.pool.task import Stop, Way
from batchgen.world import Clock, Randomness

MOST_LEASED = 1024
_PROBE_IS_OUT = Hold(math.inf, "outage, a probe is out")


class Lane:
    """An endpoint at work; `spawn` runs something beside the jobs.

    `closed` says why it is asked no more, `probe_cleared` that one job may find out whether an outage is over, `turn`
    when (counted in requests of the run) it was last chosen, `last_success` which of the run's successes was its last,
    `lacks` are models that it does not have, `too_late` that its answers would come after the run's deadline.
    """

    def __init__(
        self,
        way: Way,
        sender: Sender,
        effects: Consequences,
        *,
        clock: Clock,
        randomness: Randomness,
        spawn: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        self.way, self.name, self.gates = way, way.name, way.gates
        self.sender, self.effects = sender, effects
        self._clock, self._random, self._spawn = clock, randomness, spawn
        self.in_flight = self.turn = self.last_success = 0
        self.closed: Stop | None = None
        self.lacks: set[str] = set()
        self.probe_cleared = self.too_late = False
        self._batch = max(1, int((way.requests_per_minute or 60) / 60))
        self._leased_s = -math.inf
        self._leasing = False

    @property
    def load(self) -> float:
        """How much of the room that it has now is taken."""
        return self.in_flight / self.gates.adaptive.limit

    @property
    def in_trouble(self) -> bool:
        """Whether it is asked no more, spent for the day, or in an outage."""
        return bool(self.closed or self.gates.day.closed_until or self.gates.breaker.opened_s is not None)

    def is_well(self, now_s: float) -> bool:
        """Whether it takes requests, were it only for room and pace, and the last that it answered was good."""
        gates = self.gates
        return not (self.closed or gates.day.closed_until or gates.breaker.failures or gates.cooldown.until_s > now_s)

    def hold(self, now_s: float, utc: datetime) -> Hold | None:
        """Why nothing may be sent this way now. Sees to it that leave and probes are there when they are needed."""
        held = self.gates.hold(now_s, utc, self.in_flight)
        while self._lease_ahead():
            held = self.gates.hold(now_s, utc, self.in_flight)
        if held:
            return held
        if self.gates.breaker.opened_s is None:
            self.probe_cleared = False
        elif not self.probe_cleared:
            self.gates.breaker.probe()
            self._spawn(self._ask_whether_reachable())
            return _PROBE_IS_OUT
        return None

    async def _ask_whether_reachable(self) -> None:
        if await self.way.transport.reachable():
            self.probe_cleared, self.gates.breaker.probing = True, False
        else:
            self.gates.breaker.probe_ended(self._clock.monotonic())

    def _lease_ahead(self) -> bool:
        """Fetch leave for the next requests; True where the day has just turned out to be spent."""
        tickets, day = self.gates.tickets, self.gates.day
        closed = tickets.spent and not tickets.times_s
        if closed:
            tickets.spent = False
            if not tickets.stale:
                day.close_by_count(self._clock.utc(), self._random.random())
        if not (self._leasing or tickets.spent or day.closed_until) and len(tickets.times_s) < self._batch / 2:
            self._leasing = True
            self._spawn(self._lease())
        return closed

    async def _lease(self) -> None:
        if unused := self.gates.tickets.take_unused():
            await self.way.account.give_back(unused)
        lease = await self.way.account.lease(self._batch_size())
        self._leasing = False
        self.gates.tickets.add(self._clock.monotonic(), lease)

    def _batch_size(self) -> int:
        """Up to one second's requests. Without a pace that would tell, twice the last lease where that was used up
        within a second."""
        limit = int(self.gates.adaptive.limit)
        if self.way.requests_per_minute:
            return min(self._batch, limit)
        now_s, last_s = self._clock.monotonic(), self._leased_s
        self._leased_s = now_s
        self._batch = min(2 * self._batch, MOST_LEASED) if now_s - last_s < 1.0 else min(self._batch, limit)
        return self._batch

    async def give_back(self) -> None:
        """Return the leave that was not used."""
        tickets = self.gates.tickets
        with contextlib.suppress(OSError):
            await self.way.account.give_back(len(tickets.times_s) + tickets.take_unused())
