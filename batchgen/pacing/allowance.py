"""What the account and the folder's budget allow: pace, quota day, leases, money."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from batchgen.pacing.waits import Hold, next_reset


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
    """What an account has sent: how many requests on `day`, and from when (Unix seconds) the next may follow."""

    day: str = ""
    sent: int = 0
    next_s: float = -math.inf


@dataclass(frozen=True)
class Lease:
    """Leave to send: one request after each of `delays_s` (from now). None left means that the day is spent."""

    delays_s: tuple[float, ...]


def grant(state: AccountState, pace: Pace, n: int, utc: datetime) -> tuple[AccountState, Lease]:
    """Lease up to `n` requests, evenly spaced: the generic cell rate algorithm (ITU-T I.371) without burst."""
    day, now_s = utc.date().isoformat(), utc.timestamp()
    sent = state.sent if state.day == day else 0
    if pace.requests_per_day is not None:
        n = max(0, min(n, pace.requests_per_day - sent))
    # A next request minutes away was leased before the clock was set back.
    behind = state.next_s > now_s + 60 + pace.interval_s
    first_s = now_s if behind else max(now_s, state.next_s)
    delays_s = tuple(first_s - now_s + k * pace.interval_s for k in range(n))
    return AccountState(day, sent + n, first_s + n * pace.interval_s), Lease(delays_s)


@dataclass
class Tickets:
    """Leased times (monotonic seconds) at which requests may leave."""

    times_s: deque[float] = field(default_factory=deque)
    spent: bool = False

    def hold(self, now_s: float) -> Hold | None:
        if not self.times_s:
            return Hold(math.inf, "the account's pace")
        wait_s = self.times_s[0] - now_s
        return Hold(wait_s, "requests per minute") if wait_s > 0 else None

    def add(self, now_s: float, lease: Lease) -> None:
        self.spent = not lease.delays_s
        self.times_s.extend(now_s + delay_s for delay_s in lease.delays_s)

    def sent(self) -> None:
        self.times_s.popleft()


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

    def unsent(self, price_usd: float) -> None:
        """The request never left."""
        self.requests, self.spent_usd = self.requests - 1, self.spent_usd - price_usd
