"""What the account and the folder's budget allow: pace, quota day, leases, money."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from batchgen.pacing.waits import Hold, next_reset

STALE_S = 3.0


@dataclass(frozen=True)
class Pace:
    """What an account may be asked: requests a minute and a UTC day; None is no limit."""

    requests_per_minute: float | None = None
    requests_per_day: int | None = None

    @property
    def interval_s(self) -> float:
        """Seconds between two requests: 5 % more than the limit asks, so that no 60 s window of the server's, however
        its clock drifts, holds one too many."""
        return 60 / (0.95 * self.requests_per_minute) if self.requests_per_minute else 0.0


@dataclass(frozen=True)
class AccountState:
    """What an account has sent: how many requests on `day`, and from when (Unix seconds) the next may follow.

    `granted_s` is when it was last asked, and `other_day` the day before the present one by order of use: clocks step.
    """

    day: str = ""
    sent: int = 0
    next_s: float = 0.0
    granted_s: float = 0.0
    other_day: str = ""
    other_sent: int = 0

    def on(self, day: str) -> AccountState:
        """The same state, seen from this day."""
        if day == self.day:
            return self
        sent = self.other_sent if day == self.other_day else 0
        return replace(self, day=day, sent=sent, other_day=self.day, other_sent=self.sent)


@dataclass(frozen=True)
class Lease:
    """Leave to send: one request after each of `delays_s` (from now), within `keep_s` of it.

    No delays mean that the day is spent. What was leased must be used soon where a pace holds: a ticket that grew old
    beside a fresh one would make one request too many in a minute. 3 s is the slack that the pace leaves.
    """

    delays_s: tuple[float, ...]
    keep_s: float = math.inf
    day: str = ""


def grant(state: AccountState, pace: Pace, n: int, utc: datetime) -> tuple[AccountState, Lease]:
    """Lease up to `n` requests, evenly spaced: the generic cell rate algorithm (ITU-T I.371) without burst."""
    state, now_s = state.on(utc.date().isoformat()), utc.timestamp()
    if pace.requests_per_day is not None:
        n = max(0, min(n, pace.requests_per_day - state.sent))
    # A clock that was set back must not make everybody wait for the time that it lost.
    set_back_s = max(0.0, state.granted_s - now_s)
    first_s = max(now_s, state.next_s - set_back_s)
    delays_s = tuple(first_s - now_s + k * pace.interval_s for k in range(n))
    after = replace(state, sent=state.sent + n, next_s=first_s + n * pace.interval_s, granted_s=now_s)
    return after, Lease(delays_s, STALE_S if pace.requests_per_minute else math.inf, state.day)


@dataclass
class Tickets:
    """Leased times (monotonic seconds) at which requests may leave; `stale` counts those that were not used in time."""

    times_s: deque[float] = field(default_factory=deque)
    spent: bool = False
    stale: int = 0
    _keep_s: float = math.inf
    _day: str = ""

    def hold(self, now_s: float) -> Hold | None:
        while self.times_s and self.times_s[0] < now_s - self._keep_s:
            self.times_s.popleft()
            self.stale += 1
        if not self.times_s:
            return Hold(math.inf, "the account's pace")
        wait_s = self.times_s[0] - now_s
        return Hold(wait_s, "requests per minute") if wait_s > 0 else None

    def add(self, now_s: float, lease: Lease) -> None:
        self.turn(lease.day)
        self.spent, self._keep_s = not lease.delays_s, lease.keep_s
        self.times_s.extend(now_s + delay_s for delay_s in lease.delays_s)

    def turn(self, day: str) -> None:
        """A new UTC day: what was leased yesterday is counted there and cannot be used or given back."""
        if day and self._day and day != self._day:
            self.stale, self.spent = 0, False
            self.times_s.clear()
        self._day = day or self._day

    def sent(self) -> None:
        self.times_s.popleft()

    def take_unused(self) -> int:
        """How many stale ones there were since this was last asked."""
        unused, self.stale = self.stale, 0
        return unused


@dataclass
class Day:
    """Whether the account's UTC day is spent, by our own count or by the server's word."""

    closed_until: datetime | None = None
    skew: timedelta = timedelta(0)

    def hold(self, utc: datetime) -> Hold | None:
        if self.closed_until is not None and utc >= self.closed_until:
            self.closed_until = None
        if self.closed_until is None:
            return None
        return Hold((self.closed_until - utc).total_seconds(), "the day's quota is spent")

    def close_by_count(self, utc: datetime, jitter: float) -> None:
        """Until our own count and the server's clock have both reached another day."""
        self.close(utc, jitter)
        assert self.closed_until is not None
        self.closed_until = max(self.closed_until, next_reset(utc, jitter))

    def close(self, utc: datetime, jitter: float) -> None:
        """Until the next day begins by the server's clock, which is `skew` ahead of ours."""
        self.closed_until = next_reset(utc + self.skew, jitter) - self.skew


@dataclass
class Budget:
    """Money and requests over the folder's whole life; every request that may be billed counts when it is sent."""

    max_cost_usd: float | None = None
    max_requests: int | None = None
    spent_usd: float = 0.0
    requests: int = 0

    def spent(self, price_usd: float) -> str | None:
        """Which limit another request at this price would break, with the flag that raises it; None where none."""
        if self.max_requests is not None and self.requests >= self.max_requests:
            return f"{self.requests} requests were sent, the limit is {self.max_requests}; raise it with --max-requests"
        if self.max_cost_usd is not None and self.spent_usd + price_usd > self.max_cost_usd + 1e-9:
            return (
                f"${self.spent_usd:.4f} is spent or may be, the next picture costs ${price_usd:.4f} and the limit is "
                f"${self.max_cost_usd:g}; raise it with --max-cost"
            )
        return None

    def sent(self, price_usd: float) -> None:
        self.requests, self.spent_usd = self.requests + 1, self.spent_usd + price_usd

    def refused(self, price_usd: float) -> None:
        """The request turned out to cost nothing."""
        self.spent_usd -= price_usd

    def correct(self, difference_usd: float) -> None:
        """An answer cost more, or less, than was expected of it."""
        self.spent_usd += difference_usd

    def unsent(self, price_usd: float) -> None:
        """The request never left."""
        self.requests, self.spent_usd = self.requests - 1, self.spent_usd - price_usd
