"""What the answers so far allow: cooldown, concurrency, outage breaker, retry budget; and all gates in order."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from batchgen.pacing.allowance import Day, Tickets
from batchgen.pacing.waits import QUOTA_HINT_S, Hold, Told

DEFAULT_COOLDOWN_S = 15.0
MAX_GROWN_COOLDOWN_S = 120.0
BARREN_COOLDOWNS = 5
BARREN_S = 900.0
PROBE_PAUSES_S = (5.0, 10.0, 20.0, 40.0, 60.0)
RETRY_TOKENS = 500.0
RETRY_COST = 5.0


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

    def forget(self) -> None:
        """The pauses so far mean nothing for what comes after the next day has begun."""
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
        if in_flight < 0.8 * int(self.limit):
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
class Allotment:
    """How many requests the server says it will take before its limit is reset; the answer to the latest request
    counts, less what was sent after it."""

    told: Told | None = None
    until_s: float = -math.inf
    _of_s: float = -math.inf
    _since: deque[float] = field(default_factory=deque)

    def hold(self, now_s: float) -> Hold | None:
        if self.told is None:
            return None
        if now_s >= self.until_s:
            self.told = None
            self._since.clear()
        elif len(self._since) >= self.told.remaining:
            return Hold(self.until_s - now_s, "the server's own limit")
        return None

    def sent(self, now_s: float) -> None:
        if self.told:
            self._since.append(now_s)

    def hear(self, told: Told, sent_s: float, now_s: float) -> None:
        """Take in what the answer says to a request that was sent at `sent_s`."""
        if sent_s < self._of_s:
            return
        self.told, self._of_s, self.until_s = told, sent_s, now_s + told.reset_s
        while self._since and self._since[0] <= sent_s:
            self._since.popleft()


@dataclass
class Gates:
    """All that an attempt at one endpoint must pass, in order: day, outage, cooldown, the server's word, concurrency,
    minute. (Budget and retry tokens are the run's, and are asked apart.)
    """

    breaker: Breaker
    adaptive: Adaptive
    day: Day = field(default_factory=Day)
    cooldown: Cooldown = field(default_factory=Cooldown)
    allotment: Allotment = field(default_factory=Allotment)
    tickets: Tickets = field(default_factory=Tickets)

    @classmethod
    def of(cls, concurrency: int) -> Gates:
        """The gates of an endpoint that may be asked for so many pictures at once."""
        return cls(Breaker(max(5, concurrency)), Adaptive(concurrency))

    def hold(self, now_s: float, utc: datetime, in_flight: int) -> Hold | None:
        self.tickets.turn(utc.date().isoformat())
        return (
            self.day.hold(utc)
            or self.breaker.hold(now_s)
            or self.cooldown.hold(now_s, in_flight)
            or self.allotment.hold(now_s)
            or self.adaptive.hold(in_flight)
            or self.tickets.hold(now_s)
        )

    def sent(self, now_s: float) -> None:
        self.tickets.sent()
        self.allotment.sent(now_s)
