"""What the pool needs ahead of time: jobs from the manifest, and leave from the account to send them.

Both are fetched beside the event loop's other work, a little before they are needed, and never more than that.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from batchgen.model import ExitCode
from batchgen.pacing import Gates
from batchgen.pool.task import Pending, Policy, Task
from batchgen.text import printable
from batchgen.world import Account, Clock, Randomness

MOST_LEASED = 1024


class Feed:
    """Jobs that are ready, as `prepare` makes them of what was pulled; `spawn` runs a fetch, `stop` ends the run."""

    def __init__(
        self,
        policy: Policy,
        *,
        pull: Callable[[int], Awaitable[Sequence[Pending]]],
        account: Account,
        gates: Gates,
        clock: Clock,
        randomness: Randomness,
        prepare: Callable[[Pending, float], Task],
        spawn: Callable[[Coroutine[None, None, None]], None],
        stop: Callable[[ExitCode, str], None],
    ) -> None:
        self._policy, self._pull, self._account, self._gates = policy, pull, account, gates
        self._clock, self._random, self._prepare = clock, randomness, prepare
        self._spawn, self._stop = spawn, stop
        self.ready: deque[Task] = deque()
        self._batch = max(1, int((policy.requests_per_minute or 60) / 60))
        self._leased_s = -math.inf
        self._pulling = self._exhausted = self._leasing = False

    @property
    def empty(self) -> bool:
        """Whether no job is left and none is on its way."""
        return self._exhausted and not self._pulling and not self.ready

    def pull_ahead(self, waiting: int) -> None:
        """Fetch jobs where there is room, with `waiting` ones already backing off."""
        room = len(self.ready) < self._policy.concurrency and waiting < 4 * self._policy.concurrency
        if room and not (self._pulling or self._exhausted):
            self._pulling = True
            self._spawn(self._pull_some())

    async def _pull_some(self) -> None:
        found: Sequence[Pending] = []
        try:
            found = await self._pull(self._policy.concurrency)
        except Exception as error:  # the manifest was edited, or its file is gone: what runs is still finished
            self._stop(getattr(error, "exit_code", ExitCode.INTERNAL), printable(str(error)) or type(error).__name__)
        self._pulling, self._exhausted = False, not found
        now_s = self._clock.monotonic()
        self.ready.extend(self._prepare(pending, now_s) for pending in found)

    def lease_ahead(self) -> bool:
        """Fetch leave for the next requests; True where the day has just turned out to be spent."""
        tickets, day = self._gates.tickets, self._gates.day
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
        if unused := self._gates.tickets.take_unused():
            await self._account.give_back(unused)
        lease = await self._account.lease(self._batch_size())
        self._leasing = False
        self._gates.tickets.add(self._clock.monotonic(), lease)

    def _batch_size(self) -> int:
        """Up to one second's requests. Without a pace that would tell, twice the last lease where that was used up
        within a second."""
        limit = int(self._gates.adaptive.limit)
        if self._policy.requests_per_minute:
            return min(self._batch, limit)
        now_s, last_s = self._clock.monotonic(), self._leased_s
        self._leased_s = now_s
        self._batch = min(2 * self._batch, MOST_LEASED) if now_s - last_s < 1.0 else min(self._batch, limit)
        return self._batch

    async def give_back(self) -> None:
        """Return the leave that was not used."""
        tickets = self._gates.tickets
        with contextlib.suppress(OSError):
            await self._account.give_back(len(tickets.times_s) + tickets.take_unused())
