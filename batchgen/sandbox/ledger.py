"""What a sandbox has seen and sold, and what it still allows. Times are arguments; nothing here knows HTTP."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

from batchgen.sandbox.script import Script

WINDOW_S = 60.0


def digest(body: bytes) -> str:
    """The name of a request in the ledger: equal bodies are the same picture bought again."""
    return hashlib.sha256(body).hexdigest()


@dataclass
class Ledger:
    """The books, open to tests: every POST that came in, what befell it, and the pictures that were paid for.

    `refusals` counts by HTTP status (of every endpoint), `faults` by kind, `paid` by the digest of the body.
    """

    balance_usd: float
    requests: int = 0
    in_flight: int = 0
    highest_in_flight: int = 0
    refusals: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    paid_prompts: Counter[str] = field(default_factory=Counter)

    @property
    def pictures(self) -> int:
        return self.paid.total()

    @property
    def bought_again(self) -> int:
        """How many pictures were paid for although the same request had been paid for before."""
        return self.pictures - len(self.paid)

    @contextmanager
    def request(self) -> Iterator[None]:
        self.requests += 1
        self.in_flight += 1
        self.highest_in_flight = max(self.highest_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1

    def sell(self, body: bytes, prompt: str, price_usd: float) -> None:
        self.paid[digest(body)] += 1
        self.paid_prompts[prompt] += 1
        self.balance_usd -= price_usd


class Limits:
    """Requests per minute, as a sliding window, and per UTC day; a refused request does not count."""

    def __init__(self, script: Script) -> None:
        self._per_minute, self._per_day = script.requests_per_minute, script.requests_per_day
        self._recent: deque[float] = deque()
        self._day: date | None = None
        self._today = 0

    def day_is_spent(self, today: date) -> bool:
        if today != self._day:
            self._day, self._today = today, 0
        return self._per_day is not None and self._today >= self._per_day

    def wait_s(self, now: float) -> int:
        """Whole seconds until the minute has room again; 0 is now."""
        while self._recent and self._recent[0] <= now - WINDOW_S:
            self._recent.popleft()
        if self._per_minute is None or len(self._recent) < self._per_minute:
            return 0
        return max(1, math.ceil(self._recent[0] + WINDOW_S - now)) if self._recent else int(WINDOW_S)

    def told(self, now: float) -> dict[str, str]:
        """The headers that tell a client of the minute; none where it has no limit."""
        if self._per_minute is None:
            return {}
        left = max(0, self._per_minute - len(self._recent))
        reset_s = math.ceil(self._recent[0] + WINDOW_S - now) if self._recent else 0
        return {
            "x-ratelimit-limit-requests": str(self._per_minute),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{max(0, reset_s)}s",
        }

    def count(self, now: float) -> None:
        self._today += 1
        if self._per_minute is not None:
            self._recent.append(now)
