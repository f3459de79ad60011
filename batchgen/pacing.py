"""The arithmetic of when: pace, cooldown, adaptive concurrency, outage breaker, retry budget, quota day, backoff.

Each gate is a small machine fed with the time it should believe; `now_s` is monotonic seconds, `utc` the wall clock.
None of them sleeps, reads a clock, draws a random number or knows what a job is. A gate answers with a `Hold`: for how
long, and why, nothing may be sent; None is a free way.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

QUOTA_HINT_S = 3600.0
ABSURD_S = 48 * 3600.0
DEFAULT_COOLDOWN_S = 15.0
MAX_GROWN_COOLDOWN_S = 120.0
BARREN_COOLDOWNS = 5
BARREN_S = 120.0
PROBE_PAUSES_S = (5.0, 10.0, 20.0, 40.0, 60.0)
RETRY_TOKENS = 500.0
RETRY_COST = 5.0


@dataclass(frozen=True)
class Hold:
    """Nothing may be sent for `wait_s` seconds (infinite: until something ends), because of `reason`."""

    wait_s: float
    reason: str


def retry_after_s(headers: Mapping[str, str], utc: datetime) -> float | None:
    """How long the server asks to wait, in seconds; None where it does not say, or says something senseless.

    Read from `retry-after-ms` and `retry-after` (seconds, decimals allowed, or an HTTP date: RFC 9110 section 10.2.3).
    Negative, non-finite and absurdly far values (over 48 h) are senseless. A date in the past is 0.
    """
    asked = _number(headers.get("retry-after-ms"), 0.001)
    if asked is None:
        asked = _number(text := headers.get("retry-after"), 1.0)
        if asked is None and text:
            asked = _until(text, utc)
    return asked if asked is not None and math.isfinite(asked) and 0 <= asked <= ABSURD_S else None


def _number(text: str | None, scale: float) -> float | None:
    try:
        return float(text) * scale if text and text.isascii() else None
    except ValueError:
        return None


def _until(text: str, utc: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - utc).total_seconds())


def backoff_s(bound_s: float, jitter: float, least_s: float) -> float:
    """Full jitter: a random part (`jitter`, 0 to 1) of the exponential `bound_s`, but at least `least_s`, itself spread
    by a quarter so that jobs that failed together do not come back together."""
    return max(bound_s * jitter, least_s * (1 + jitter / 4))


def next_reset(utc: datetime, jitter: float) -> datetime:
    """When the next quota day begins: 00:00 UTC, and 30 to 300 s more for clocks that disagree."""
    midnight = datetime.combine(utc.date() + timedelta(days=1), datetime.min.time(), UTC)
    return midnight + timedelta(seconds=30 + 270 * jitter)


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

    def hold(self, now_s: float) -> Hold | None:
        if not self.times_s:
            return Hold(math.inf, "the account's pace")
        wait_s = self.times_s[0] - now_s
        return Hold(wait_s, "requests per minute") if wait_s > 0 else None

    def add(self, now_s: float, lease: Lease) -> None:
        self.times_s.extend(now_s + delay_s for delay_s in lease.delays_s)

    def sent(self) -> None:
        self.times_s.popleft()


@dataclass
class Cooldown:
    """A pause of everybody after the server said "too fast"; one pause an episode, however many answers say so.

    After it a single request tries the way; the others follow its success. A server that goes on refusing after the
    pause that it asked for gets a pause twice as long each time.
    """

    until_s: float = -math.inf
    began_s: float = -math.inf
    barren: int = 0
    barren_since_s: float = math.inf

    def hold(self, now_s: float, in_flight: int) -> Hold | None:
        if (wait_s := self.until_s - now_s) > 0:
            return Hold(wait_s, "cooldown after a rate limit")
        return Hold(math.inf, "one request tries the way after a cooldown") if self.barren and in_flight else None

    def begin(self, now_s: float, sent_s: float, asked_s: float | None, jitter: float) -> bool:
        """Start or prolong the pause; True where a new episode begins.

        An answer to a request that was sent (`sent_s`) before the running episode began is part of it.
        """
        new = sent_s > self.began_s
        if new:
            self.began_s, self.barren = now_s, self.barren + 1
            self.barren_since_s = min(self.barren_since_s, now_s)
        asked_s = max(DEFAULT_COOLDOWN_S if asked_s is None else asked_s, 1.0)
        pause_s = max(asked_s, min(asked_s * 2.0 ** (self.barren - 1), MAX_GROWN_COOLDOWN_S))
        self.until_s = max(self.until_s, now_s + min(pause_s, QUOTA_HINT_S) * (1 + jitter / 10))
        return new

    def succeeded(self, sent_s: float) -> None:
        if sent_s > self.began_s:
            self.barren, self.barren_since_s = 0, math.inf

    def hopeless(self, now_s: float) -> bool:
        """Whether so many pauses went by without one success that not the minute but the day must be spent."""
        return self.barren >= BARREN_COOLDOWNS and now_s - self.barren_since_s >= BARREN_S


@dataclass
class Adaptive:
    """How many requests may be in flight: one until the first success, then up to `ceiling` as answers allow.

    Additive increase, multiplicative decrease on rate limits only: doubling a round until the first cut, then 5 % a
    round; x 0.8 once an episode. Latency is no signal, because drawing times differ by nature; server errors and
    timeouts stop growth for a round.
    """

    ceiling: int
    limit: float = 1.0
    reason: str = "start"
    _slow_start: bool = True
    _to_prove: int = 0

    def hold(self, in_flight: int) -> Hold | None:
        return Hold(math.inf, "concurrency") if in_flight >= int(self.limit) else None

    def succeeded(self, in_flight: int) -> bool:
        """Count a success that came while `in_flight` requests (itself included) were out; True where the limit in
        whole requests has grown."""
        if self._to_prove > 0:
            self._to_prove -= 1
            return False
        if in_flight < 0.8 * int(self.limit) or self.limit >= self.ceiling:
            return False
        before = int(self.limit)
        self.limit = min(self.ceiling, self.limit + (1.0 if self._slow_start else 0.05))
        return self._changed(before, "answers are good")

    def slow(self) -> None:
        """A transient failure: no growth before a full round of successes."""
        self._to_prove = int(self.limit)

    def cut(self, factor: float, reason: str) -> bool:
        before, self._slow_start = int(self.limit), False
        self.limit = max(1.0, self.limit * factor)
        return self._changed(before, reason)

    def restart(self, reason: str) -> bool:
        """Begin again at one, as after an outage."""
        before, self.limit, self._slow_start, self._to_prove = int(self.limit), 1.0, True, 0
        return self._changed(before, reason)

    def _changed(self, before: int, reason: str) -> bool:
        if int(self.limit) == before:
            return False
        self.reason = reason
        return True


@dataclass
class Breaker:
    """Holds everything while nobody gets an answer, and lets one request at a time find out whether that is over.

    Opens after max(5, concurrency) failures without a success between them.
    """

    threshold: int
    failures: int = 0
    opened_s: float | None = None
    probing: bool = False
    _next_probe_s: float = 0.0
    _probes: int = 0

    def hold(self, now_s: float) -> Hold | None:
        if self.opened_s is None:
            return None
        if self.probing:
            return Hold(math.inf, "outage, a probe is out")
        return Hold(self._next_probe_s - now_s, "outage") if now_s < self._next_probe_s else None

    def failed(self, now_s: float) -> bool:
        """Count a failure that an outage may explain; True where the breaker opens."""
        self.failures += 1
        if self.opened_s is not None or self.failures < self.threshold:
            return False
        self.opened_s, self._probes = now_s, 0
        self._pause(now_s)
        return True

    def succeeded(self) -> bool:
        """True where the success closes the breaker."""
        was_open, self.failures, self.opened_s, self.probing = self.opened_s is not None, 0, None, False
        return was_open

    def probe(self) -> None:
        self.probing = True

    def probe_ended(self, now_s: float) -> None:
        """A probe that says nothing about the outage (or failed): wait for the next."""
        if self.opened_s is not None:
            self._pause(now_s)

    def _pause(self, now_s: float) -> None:
        self._next_probe_s = now_s + PROBE_PAUSES_S[min(self._probes, len(PROBE_PAUSES_S) - 1)]
        self._probes, self.probing = self._probes + 1, False

    def open_for_s(self, now_s: float) -> float:
        return 0.0 if self.opened_s is None else now_s - self.opened_s


@dataclass
class RetryBudget:
    """A run-wide bucket of tokens that repeated requests take and successes refill, so that retries stay a small part
    of all requests when failures are widespread. Time refills it slowly, so that a retry waits and is never dropped."""

    tokens: float = RETRY_TOKENS
    per_second: float = 0.5
    _at_s: float = field(default=-math.inf)

    def hold(self, now_s: float) -> Hold | None:
        self._refill(now_s)
        missing = RETRY_COST - self.tokens
        return Hold(missing / self.per_second, "retry budget") if missing > 1e-9 else None

    def sent(self, now_s: float) -> None:
        self._refill(now_s)
        self.tokens -= RETRY_COST

    def succeeded(self) -> None:
        self.tokens = min(RETRY_TOKENS, self.tokens + 1)

    def _refill(self, now_s: float) -> None:
        if self._at_s > -math.inf:
            self.tokens = min(RETRY_TOKENS, self.tokens + max(0.0, now_s - self._at_s) * self.per_second)
        self._at_s = now_s


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


@dataclass
class Day:
    """Whether the account's UTC day is spent, by our own count or by the server's word."""

    closed_until: datetime | None = None

    def hold(self, utc: datetime) -> Hold | None:
        if self.closed_until is not None and utc >= self.closed_until:
            self.closed_until = None
        if self.closed_until is None:
            return None
        return Hold((self.closed_until - utc).total_seconds(), "the day's quota is spent")

    def close(self, utc: datetime, jitter: float) -> None:
        self.closed_until = next_reset(utc, jitter)


@dataclass
class Gates:
    """All that an attempt must pass, in order: day, outage, cooldown, concurrency, minute. (Budget and retry tokens
    depend on the job and are asked apart.)"""

    breaker: Breaker
    adaptive: Adaptive
    day: Day = field(default_factory=Day)
    cooldown: Cooldown = field(default_factory=Cooldown)
    tickets: Tickets = field(default_factory=Tickets)
    budget: Budget = field(default_factory=Budget)
    retries: RetryBudget = field(default_factory=RetryBudget)

    def hold(self, now_s: float, utc: datetime, in_flight: int) -> Hold | None:
        return (
            self.day.hold(utc)
            or self.breaker.hold(now_s)
            or self.cooldown.hold(now_s, in_flight)
            or self.adaptive.hold(in_flight)
            or self.tickets.hold(now_s)
        )

    def sent(self, now_s: float, price_usd: float, *, again: bool) -> None:
        self.tickets.sent()
        self.budget.sent(price_usd)
        if again:
            self.retries.sent(now_s)
