"""What logs tell to have been spent, as a value that can be added, taken away and shared out."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from batchgen.joblog import Fold


@dataclass(frozen=True)
class Spending:
    """Requests, also by UTC day (`2026-11-22`), and by day and endpoint where there were several; US dollars that were
    paid, and that may have been without a picture.
    """

    requests: int = 0
    spent_usd: float = 0.0
    exposure_usd: float = 0.0
    by_day: Counter[str] = field(default_factory=Counter)

    def at_risk_usd(self) -> float:
        """What was paid, and what may have been without a picture."""
        return self.spent_usd + self.exposure_usd

    def less(self, other: Spending) -> Spending:
        return Spending(
            self.requests - other.requests,
            self.spent_usd - other.spent_usd,
            self.exposure_usd - other.exposure_usd,
            self.by_day - other.by_day,
        )

    def plus(self, other: Spending) -> Spending:
        return Spending(
            self.requests + other.requests,
            self.spent_usd + other.spent_usd,
            self.exposure_usd + other.exposure_usd,
            self.by_day + other.by_day,
        )

    def part(self, n: int) -> Spending:
        """An n-th of it, requests rounded up: what each of n must answer for, so that together they answer for all."""
        days = Counter({day: math.ceil(count / n) for day, count in self.by_day.items()})
        return Spending(math.ceil(self.requests / n), self.spent_usd / n, self.exposure_usd / n, days)


def spending(fold: Fold) -> Spending:
    """What all the logs of `fold` tell."""
    return Spending(fold.requests, fold.spent_usd, fold.exposure_usd, Counter(fold.requests_by_day))
