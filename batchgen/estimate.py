"""What the jobs of a plan will cost and take: arithmetic over what is known and, where nothing is, what is assumed.

Asks nobody and reads nothing: what earlier pictures took, prices and balances arrive as arguments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from batchgen.joblog import Earlier
from batchgen.limits import Limits
from batchgen.pacing import Pace
from batchgen.plan import Plan
from batchgen.summary import percentile
from batchgen.text import counted, duration, size

ASSUMED_RESPONSE_S = 13.4  # the example in the service's documentation
ASSUMED_BYTES_PER_PIXEL = 1.5  # a photograph as PNG
SPARE_BYTES = 64 << 20
DAY_S = 86400
_FAR = 2


class Source(StrEnum):
    """Where a number comes from: earlier pictures of this output, the manifest or a flag, the API, nowhere."""

    LOG = "log"
    SAID = "said"
    API = "api"
    ASSUMED = "assumed"


class ModelEstimate(msgspec.Struct, frozen=True):
    """What one model has to do, and what one of its pictures takes; medians and means of `earlier_pictures`."""

    requests: int
    response_s: float
    response_source: Source
    picture_bytes: int
    picture_source: Source
    earlier_pictures: int
    price_usd: float | None
    price_source: Source | None


class MoneyEstimate(msgspec.Struct, frozen=True):
    """US dollars: what the plan costs (None where a price is unknown), what there is for it."""

    cost_usd: float | None
    unpriced: tuple[str, ...]
    spent_usd: float
    exposure_usd: float
    max_cost_usd: float | None
    budget_left_usd: float | None
    balance_usd: float | None


class TimeEstimate(msgspec.Struct, frozen=True):
    """How long the requests take without retries, over how many quota days (None without a daily limit), and how long
    a run may work until `--until` or `--max-runtime` ends it (None without them)."""

    duration_s: float
    bound_by: str
    nights: int | None
    requests_per_day: int | None
    sent_today: int | None
    runtime_s: float | None = None


class DiskEstimate(msgspec.Struct, frozen=True):
    needed_bytes: int
    free_bytes: int | None


class ConcurrencyEstimate(msgspec.Struct, frozen=True):
    """Requests in flight: as set, and as many as the limit per minute keeps busy (None without one)."""

    set: int
    useful: float | None
    requests_per_minute: float | None


class Estimate(msgspec.Struct, frozen=True):
    """All of it."""

    models: dict[str, ModelEstimate]
    money: MoneyEstimate
    time: TimeEstimate
    disk: DiskEstimate
    concurrency: ConcurrencyEstimate


@dataclass(frozen=True)
class Facts:
    """What is known beside the plan. None and empty: not known."""

    earlier: Mapping[str, Earlier] = field(default_factory=dict)
    prices_usd: Mapping[str, float] = field(default_factory=dict)
    api_prices_usd: Mapping[str, float] = field(default_factory=dict)
    spent_usd: float = 0.0
    exposure_usd: float = 0.0
    requests: int = 0
    sent_today: int | None = None
    balance_usd: float | None = None
    free_bytes: int | None = None
    runtime_s: float | None = None


def estimate(plan: Plan, limits: Limits, facts: Facts) -> Estimate:
    """What the plan will cost and take under these limits."""
    models = {model: _model(model, plan, facts) for model in sorted(plan.to_do)}
    money = _money(models, limits, facts)
    time = _time(models, limits, facts)
    disk = DiskEstimate(sum(each.requests * each.picture_bytes for each in models.values()), facts.free_bytes)
    concurrency = _concurrency(models, limits)
    return Estimate(models, money, time, disk, concurrency)


def _model(model: str, plan: Plan, facts: Facts) -> ModelEstimate:
    requests, earlier = plan.to_do[model], facts.earlier.get(model, Earlier())
    seconds, sizes = sorted(earlier.response_s), earlier.size_bytes
    assumed_bytes = plan.pixels[model] / requests * ASSUMED_BYTES_PER_PIXEL
    price, source = facts.prices_usd.get(model), Source.SAID
    if price is None:
        price, source = facts.api_prices_usd.get(model), Source.API
    return ModelEstimate(
        requests=requests,
        response_s=round(percentile(seconds, 0.5), 3) if seconds else ASSUMED_RESPONSE_S,
        response_source=Source.LOG if seconds else Source.ASSUMED,
        picture_bytes=round(sum(sizes) / len(sizes) if sizes else assumed_bytes),
        picture_source=Source.LOG if sizes else Source.ASSUMED,
        earlier_pictures=len(sizes),
        price_usd=price,
        price_source=None if price is None else source,
    )


def _money(models: Mapping[str, ModelEstimate], limits: Limits, facts: Facts) -> MoneyEstimate:
    unpriced = tuple(model for model, each in models.items() if each.price_usd is None)
    cost = None if unpriced else sum(each.requests * (each.price_usd or 0.0) for each in models.values())
    spent = facts.spent_usd + facts.exposure_usd
    left = None if limits.max_cost_usd is None else round(max(0.0, limits.max_cost_usd - spent), 6)
    return MoneyEstimate(
        cost_usd=None if cost is None else round(cost, 6),
        unpriced=unpriced,
        spent_usd=round(facts.spent_usd, 6),
        exposure_usd=round(facts.exposure_usd, 6),
        max_cost_usd=limits.max_cost_usd,
        budget_left_usd=left,
        balance_usd=facts.balance_usd,
    )


def _time(models: Mapping[str, ModelEstimate], limits: Limits, facts: Facts) -> TimeEstimate:
    requests = sum(each.requests for each in models.values())
    interval_s = Pace(limits.requests_per_minute).interval_s
    by_answers_s, by_pace_s = working_s(requests, _mean_s(models), limits.concurrency, interval_s)
    duration_s = max(by_answers_s, by_pace_s)
    nights = None
    if limits.requests_per_day is not None:
        # What does not fit into 24 hours does not fit into a quota day either.
        per_day = min(limits.requests_per_day, max(1, int(DAY_S * requests / duration_s)) if duration_s else requests)
        left_today = min(per_day, limits.requests_per_day - (facts.sent_today or 0))
        nights = quota_days(requests, max(1, per_day), max(0, left_today))
    return TimeEstimate(
        duration_s=round(duration_s, 1),
        bound_by="requests_per_minute" if by_pace_s > by_answers_s else "concurrency",
        nights=nights,
        requests_per_day=limits.requests_per_day,
        sent_today=facts.sent_today,
        runtime_s=facts.runtime_s,
    )


def _concurrency(models: Mapping[str, ModelEstimate], limits: Limits) -> ConcurrencyEstimate:
    useful = useful_concurrency(limits.requests_per_minute, _mean_s(models))
    return ConcurrencyEstimate(
        limits.concurrency, None if useful is None else round(useful, 1), limits.requests_per_minute
    )


def _mean_s(models: Mapping[str, ModelEstimate]) -> float:
    requests = sum(each.requests for each in models.values())
    return sum(each.requests * each.response_s for each in models.values()) / requests if requests else 0.0


def working_s(requests: int, response_s: float, concurrency: int, interval_s: float) -> tuple[float, float]:
    """Seconds for so many requests, as far as the slots decide, and as far as the pace between them does.

    >>> working_s(100, 10.0, 5, 0.0), working_s(100, 10.0, 1000, 1.0)
    ((200.0, 10.0), (10.0, 109.0))
    """
    if not requests:
        return 0.0, 0.0
    return math.ceil(requests / concurrency) * response_s, (requests - 1) * interval_s + response_s


def quota_days(requests: int, per_day: int, left_today: int) -> int:
    """On how many UTC days something is sent until so many requests are.

    >>> quota_days(1000, 1000, 1000), quota_days(1001, 1000, 1000), quota_days(1000, 1000, 0), quota_days(1000, 1000, 1)
    (1, 2, 1, 2)
    """
    today = min(requests, left_today)
    return (today > 0) + -(-(requests - today) // per_day)


def useful_concurrency(requests_per_minute: float | None, response_s: float) -> float | None:
    """As many requests as are in flight when the pace is used up (Little's law); None without a limit.

    >>> useful_concurrency(60, 10), useful_concurrency(3000, 10)
    (10.0, 500.0)
    """
    return None if requests_per_minute is None else requests_per_minute / 60 * response_s


def obstacles(found: Estimate, limits: Limits, facts: Facts) -> Iterator[str]:
    """What stands in the way of the plan, and what to do about it."""
    requests = sum(each.requests for each in found.models.values())
    if requests:
        yield from _money_notes(found.money, requests)
        if limits.max_requests is not None and (left := max(0, limits.max_requests - facts.requests)) < requests:
            yield f"max_requests leaves {left} of {counted(requests, 'request')}; raise it with --max-requests"
        yield from _runtime_note(found.time, requests)
        yield from _disk_note(found.disk)
        yield from _concurrency_note(found.concurrency, requests)


def _money_notes(money: MoneyEstimate, requests: int) -> Iterator[str]:
    if money.cost_usd is None:
        if money.max_cost_usd is not None:
            yield (
                f"max_cost_usd needs prices, none is known for {', '.join(money.unpriced)}; a run is refused until"
                " prices_usd or --price MODEL=USD gives them"
            )
        return
    for left, what in (
        (money.budget_left_usd, "the budget (max_cost_usd less what was spent); raise it with --max-cost"),
        (money.balance_usd, "the account's balance; top it up first"),
    ):
        if left is not None and left < money.cost_usd:
            enough = int(left / (money.cost_usd / requests) + 1e-9)
            yield f"${left:.4f} is left, enough for about {enough} of {counted(requests, 'request')}, by {what}"


def _runtime_note(time: TimeEstimate, requests: int) -> Iterator[str]:
    if time.runtime_s is not None and time.runtime_s < time.duration_s:
        enough = int(requests * time.runtime_s / time.duration_s)
        yield (
            f"a run ends after {duration(time.runtime_s)}, enough for about {enough} of {counted(requests, 'request')};"
            " the next run goes on"
        )


def _disk_note(disk: DiskEstimate) -> Iterator[str]:
    if disk.free_bytes is not None and disk.needed_bytes + SPARE_BYTES > disk.free_bytes:
        yield f"the disk has {size(disk.free_bytes)} free, the pictures need about {size(disk.needed_bytes)}"


def _concurrency_note(concurrency: ConcurrencyEstimate, requests: int) -> Iterator[str]:
    if concurrency.useful is None:
        return
    useful, in_flight = max(1, math.ceil(concurrency.useful)), concurrency.set
    pace = f"{concurrency.requests_per_minute:g} requests a minute"
    if in_flight > _FAR * useful and requests > useful:
        yield (
            f"{pace} keep about {useful} in flight; with concurrency {in_flight} nothing is faster, and a crash puts"
            f" more in doubt: -c {useful}"
        )
    elif useful > _FAR * in_flight and requests > in_flight:
        yield f"{pace} could keep {useful} in flight, {in_flight} are set: -c {useful} is faster"
