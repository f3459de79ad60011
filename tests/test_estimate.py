"""What a plan costs and takes: the arithmetic, where its numbers come from, and what stands in the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import entry, job, picture

from batchgen import joblog
from batchgen.estimate import (
    ASSUMED_RESPONSE_S,
    Estimate,
    Facts,
    Source,
    estimate,
    obstacles,
    quota_days,
    useful_concurrency,
    working_s,
)
from batchgen.joblog import Earlier, History
from batchgen.limits import Limits
from batchgen.model import Job, Outcome, Selection, Standing
from batchgen.plan import Plan, make_plan
from batchgen.text import size


def plan_of(*jobs: Job) -> Plan:
    return make_plan(jobs, lambda job: Standing.PENDING, Selection())


def jobs(count: int, model: str = "flux", **request: Any) -> list[Job]:
    return [job(f"{model}-{number}", model=model, **request) for number in range(count)]


def earlier(*seconds: float, size_bytes: int = 1000) -> Earlier:
    found = Earlier()
    found.response_s.extend(seconds)
    found.size_bytes.extend([size_bytes] * len(seconds))
    return found


def of(count: int, limits: Limits | None = None, **facts: Any) -> tuple[Estimate, list[str]]:
    """The estimate for so many jobs of one model, and what stands in their way."""
    limits, known = limits or Limits(), Facts(**facts)
    found = estimate(plan_of(*jobs(count)), limits, known)
    return found, list(obstacles(found, limits, known))


@pytest.mark.parametrize(
    ("requests", "response_s", "concurrency", "interval_s", "expected"),
    [
        pytest.param(0, 10.0, 5, 1.0, (0.0, 0.0), id="nothing"),
        pytest.param(1, 10.0, 5, 1.0, (10.0, 10.0), id="one"),
        pytest.param(100, 10.0, 5, 0.0, (200.0, 10.0), id="slots decide"),
        pytest.param(101, 10.0, 5, 0.0, (210.0, 10.0), id="a last one alone"),
        pytest.param(100, 10.0, 1000, 1.0, (10.0, 109.0), id="pace decides"),
    ],
)
def test_how_long_requests_take(
    requests: int, response_s: float, concurrency: int, interval_s: float, expected: tuple[float, float]
) -> None:
    """Slots are filled round by round; the pace spaces the requests, and the last one takes its time."""
    assert working_s(requests, response_s, concurrency, interval_s) == expected


@given(st.integers(0, 5000), st.integers(1, 700), st.integers(0, 700))
def test_quota_days_are_just_enough(requests: int, per_day: int, left_today: int) -> None:
    """On so many days, today with what is left of it, all requests can be sent; on one day less they cannot."""
    today = min(left_today, per_day)
    days = quota_days(requests, per_day, today)
    used_today = min(1, days) if today else 0
    assert requests <= today * used_today + per_day * (days - used_today)
    if days > 1:
        assert requests > today + per_day * (days - 1 - used_today)


def test_littles_law() -> None:
    """60 a minute at ten seconds each keep ten in flight; without a pace nothing is known."""
    assert useful_concurrency(60, 10) == 10
    assert useful_concurrency(3000, 10) == 500
    assert useful_concurrency(None, 10) is None


def test_without_earlier_pictures_numbers_are_assumed_and_say_so() -> None:
    """The documented example's 13.4 s and bytes by the pixels that were asked for stand in, marked as assumed."""
    plan = plan_of(*jobs(2, width=100, height=100), *jobs(1, "other"))
    found = estimate(plan, Limits(), Facts()).models
    assert found["flux"].response_s == ASSUMED_RESPONSE_S
    assert (found["flux"].response_source, found["flux"].picture_source) == (Source.ASSUMED, Source.ASSUMED)
    assert (found["flux"].picture_bytes, found["other"].picture_bytes) == (15_000, 1_572_864)


def test_earlier_pictures_of_the_model_count() -> None:
    """Seconds are the median and bytes the mean of what this output's pictures took, model by model."""
    plan = plan_of(*jobs(4), *jobs(1, "other"))
    found = estimate(plan, Limits(concurrency=1), Facts(earlier={"flux": earlier(1.0, 9.0, 2.0, size_bytes=500)}))
    flux = found.models["flux"]
    assert (flux.response_s, flux.response_source, flux.earlier_pictures) == (2.0, Source.LOG, 3)
    assert found.models["other"].response_source is Source.ASSUMED
    assert found.disk.needed_bytes == 4 * 500 + 1_572_864
    assert found.time.duration_s == pytest.approx(4 * 2.0 + 13.4, abs=0.1)


def test_prices_that_were_said_beat_those_of_the_api() -> None:
    """Each price says where it comes from, and one unknown price makes the cost unknown."""
    plan = plan_of(*jobs(2), *jobs(1, "other"))
    said, asked = {"flux": 0.5}, {"flux": 9.0, "other": 0.25}
    found = estimate(plan, Limits(), Facts(prices_usd=said, api_prices_usd=asked))
    assert [(each.price_usd, each.price_source) for each in found.models.values()] == [
        (0.5, Source.SAID),
        (0.25, Source.API),
    ]
    assert (found.money.cost_usd, found.money.unpriced) == (1.25, ())
    unknown = estimate(plan, Limits(), Facts(prices_usd=said)).money
    assert (unknown.cost_usd, unknown.unpriced) == (None, ("other",))


def test_what_the_folder_has_spent_is_off_the_budget() -> None:
    """Money that is spent, or may be, is not there any more."""
    money = of(1, Limits(max_cost_usd=5), spent_usd=1.5, exposure_usd=0.25)[0].money
    assert (money.budget_left_usd, money.spent_usd, money.exposure_usd) == (3.25, 1.5, 0.25)
    assert of(1, Limits(max_cost_usd=1), spent_usd=1.5)[0].money.budget_left_usd == 0


@pytest.mark.parametrize(
    ("runtime_s", "notes"),
    [
        pytest.param(None, [], id="no end"),
        pytest.param(1340.0, [], id="fits"),
        pytest.param(
            670.0,
            ["a run ends after 11 min 10 s, enough for about 50 of 100 requests; the next run goes on"],
            id="half of it",
        ),
    ],
)
def test_a_night_that_is_too_short(runtime_s: float | None, notes: list[str]) -> None:
    """Work that outlasts the run's own end is told, with how much of it gets done."""
    found, said = of(100, Limits(concurrency=1), runtime_s=runtime_s)
    assert said == notes
    assert found.time.runtime_s == runtime_s


@pytest.mark.parametrize(
    ("limits", "sent_today", "nights"),
    [
        pytest.param(Limits(), None, None, id="no limit"),
        pytest.param(Limits(requests_per_day=1000), None, 1, id="fits"),
        pytest.param(Limits(requests_per_day=1000), 1, 2, id="one too many"),
        pytest.param(Limits(requests_per_day=200), 200, 5, id="today is spent"),
        pytest.param(Limits(requests_per_day=200), 250, 5, id="more was sent than the limit"),
        pytest.param(Limits(requests_per_day=100_000, requests_per_minute=0.5), None, 2, id="a day is too short"),
    ],
)
def test_how_many_nights(limits: Limits, sent_today: int | None, nights: int | None) -> None:
    """1000 requests over the days that the quota, what is used of today, and 24 hours allow."""
    assert of(1000, limits, sent_today=sent_today)[0].time.nights == nights


def test_what_bounds_the_time() -> None:
    """Either the slots or the pace decide, and the estimate says which."""
    assert of(100, Limits(concurrency=2))[0].time.bound_by == "concurrency"
    assert of(100, Limits(concurrency=100, requests_per_minute=6))[0].time.bound_by == "requests_per_minute"


PRICED: dict[str, Any] = {"prices_usd": {"flux": 0.5}}
OBSTACLES: list[Any] = [
    pytest.param(Limits(), {}, [], id="nothing"),
    pytest.param(Limits(max_cost_usd=50), PRICED, [], id="money enough"),
    pytest.param(Limits(max_cost_usd=10), PRICED, ["$10.0000 is left, enough for about 20 of 100"], id="budget"),
    pytest.param(Limits(), PRICED | {"balance_usd": 1.0}, ["about 2 of 100 requests, by the account's"], id="balance"),
    pytest.param(Limits(max_cost_usd=10), {}, ["max_cost_usd needs prices, none is known for flux"], id="no price"),
    pytest.param(Limits(max_requests=120), {"requests": 50}, ["leaves 70 of 100 requests"], id="requests"),
    pytest.param(Limits(max_requests=150), {"requests": 50}, [], id="requests enough"),
    pytest.param(Limits(), {"free_bytes": 100 << 20}, ["100.0 MiB free, the pictures need about 150.0 MiB"], id="disk"),
    pytest.param(Limits(), {"free_bytes": 250 << 20}, [], id="disk enough"),
    pytest.param(Limits(concurrency=64, requests_per_minute=60), {}, [": -c 14"], id="far too many"),
    pytest.param(Limits(concurrency=28, requests_per_minute=60), {}, [], id="not far too many"),
    pytest.param(Limits(concurrency=2, requests_per_minute=60), {}, ["-c 14 is faster"], id="far too few"),
    pytest.param(Limits(concurrency=7, requests_per_minute=60), {}, [], id="not far too few"),
    pytest.param(Limits(concurrency=8, requests_per_minute=1), {}, [": -c 1"], id="never less than one"),
]


@pytest.mark.parametrize(("limits", "facts", "told"), OBSTACLES)
def test_what_stands_in_the_way(limits: Limits, facts: dict[str, Any], told: list[str]) -> None:
    """Too little money, leave or room, and a concurrency far from what the pace can use, are told with what to do."""
    notes = of(100, limits, **facts)[1]
    assert len(notes) == len(told)
    assert all(part in note for part, note in zip(told, notes, strict=True))


@given(st.integers(0, 50), st.integers(1, 9), st.sampled_from([None, 0.1, 60.0]), st.sampled_from([None, 1, 7]))
def test_estimates_are_sane(count: int, concurrency: int, rpm: float | None, rpd: int | None) -> None:
    """No plan, however small, breaks the arithmetic; nothing to do takes and costs nothing."""
    limits = Limits(concurrency=concurrency, requests_per_minute=rpm, requests_per_day=rpd)
    found, notes = of(count, limits)
    assert found.time.duration_s >= 0
    assert (found.time.duration_s == 0) == (count == 0)
    assert (found.time.nights == 0) == (count == 0 and rpd is not None)
    assert count or not notes


def test_history_keeps_the_last_pictures_of_what_is_asked() -> None:
    """Only finished pictures of the same style and of the models to be used count, and only the last of many."""
    history = History("nebula", {"flux"})
    others = [
        entry(model="other"),
        entry(api="sandbox"),
        entry(outcome=Outcome.FAILED, images=()),
    ]
    for each in [*others, *(entry(images=(picture(), picture(1))) for _ in range(1500))]:
        history.add(joblog.encode(each))
    [(model, seen)] = history.by_model.items()
    assert model == "flux"
    assert (len(seen.response_s), len(seen.size_bytes)) == (1000, 1000)
    assert set(seen.response_s) == {1.25}


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1536 << 10, "1.5 MiB"), (5 << 40, "5.0 TiB")],
)
def test_bytes_for_people(size_bytes: int, said: str) -> None:
    """Sizes are told in the unit that people would choose."""
    assert size(size_bytes) == said
