"""The pool on virtual time: contract points 8 to 20 and the decisions of the reliability page, whole nights at once.

Nothing here waits: see `world`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from samples import failed
from world import (
    BAD_PICTURE,
    HANGS,
    KEY,
    MODEL,
    NOON,
    OK,
    PAGE,
    REFUSED_CONNECTION,
    RESET,
    Answer,
    Arrival,
    InstantDeliver,
    Night,
    React,
    SimServer,
    World,
    between,
    json,
    most_in_window,
    picture,
    says,
)

from batchgen.account import MemoryAccount
from batchgen.events import Finished, Tried
from batchgen.joblog import Ended, Intent, decode_note, encode, timestamp
from batchgen.model import Attempt, Billed, Counts, ExitCode, Failure, InputChanged, Job, Post, StorageError
from batchgen.pacing import Lease
from batchgen.pool import Deadline, Pool
from batchgen.protocol import Drawn, nebula
from batchgen.world import Result, Work

C = 8
QUOTA = says(429, "You have reached your daily request limit.", "quota_exceeded")
RATE = says(429, "Too many requests", retry_after="1")
MIDNIGHT_S = 12 * 3600.0


def only(job: str, answer: Answer, otherwise: Answer = OK) -> React:
    """`answer` for one job, always."""
    return lambda arrival: answer if arrival.job == job else otherwise


def first(n: int, answer: Answer, otherwise: Answer = OK) -> React:
    """`answer` for the first `n` requests of all."""
    return lambda arrival: answer if arrival.number <= n else otherwise


def times(night: Night) -> list[float]:
    return [arrival.at_s for arrival in night.arrivals]


def all_done(night: Night, jobs: int) -> bool:
    return night.outcomes() == {"done": jobs} and night.exit_code is ExitCode.OK and not night.crashes


# Point 8: the spending cap


@pytest.mark.parametrize("answer", [OK, RESET, BAD_PICTURE, says(503)], ids=["ok", "reset", "useless", "503"])
def test_8_requests_never_exceed_their_cap_over_all_runs(answer: Answer) -> None:
    """`--max-requests` counts every attempt, retries too, across restarts, and is asked before sending."""
    world = World(lambda arrival: answer if arrival.n == 1 else OK, jobs=20, max_requests=7)
    first_night, second_night = world.run(), world.run()
    assert (len(first_night.arrivals), len(second_night.arrivals)) == (7, 0)
    assert first_night.exit_code is second_night.exit_code is ExitCode.WORK_LEFT
    assert "--max-requests" in first_night.reason


def test_8_a_raised_cap_lets_the_rest_go_on() -> None:
    """The limit is a number to raise: the next run does exactly what is left."""
    world = World(jobs=20, max_requests=7)
    world.run()
    world.limits = replace(world.limits, max_requests=20)
    assert all_done(world.run(), 20)
    assert len(world.arrivals) == 20


def test_8_a_manifest_that_fits_the_cap_exactly_ends_well() -> None:
    """A cap that was reached but not exceeded is no reason for an exit code."""
    assert all_done(World(jobs=7, max_requests=7).run(), 7)


@pytest.mark.parametrize("unsure", [RESET, BAD_PICTURE], ids=["reset", "useless"])
def test_8_money_that_may_have_been_spent_counts(unsure: Answer) -> None:
    """An answer that never came may have been paid for, so it takes its price from the budget."""
    night = World(unsure, jobs=20, max_cost_usd=0.0125, price_usd=0.003).run()
    assert len(night.arrivals) == 4
    assert night.exit_code is ExitCode.WORK_LEFT and "--max-cost" in night.reason


def test_8_a_model_without_a_price_takes_nothing_from_the_budget() -> None:
    """What is not known to cost anything is no reason to stop."""
    assert all_done(World(jobs=5, max_cost_usd=0.5).run(), 5)


def test_8_money_that_was_surely_not_spent_comes_back() -> None:
    """A refusal costs nothing, and the budget knows."""
    night = World(lambda a: says(503) if a.n == 1 else OK, jobs=4, max_cost_usd=0.0125, price_usd=0.003).run()
    assert all_done(night, 4)
    assert len(night.arrivals) == 8


# Point 9: rates


@pytest.mark.parametrize(
    "react",
    [lambda a: OK, lambda a: says(503, after_s=0.1) if a.n == 1 else Answer(after_s=0.3), between(20, 60, RATE)],
    ids=["ok", "retries", "rate limits"],
)
def test_9_in_flight_and_per_minute_limits_hold_for_first_tries_and_retries(react: React) -> None:
    """Never more than C in flight; never more than the minute allows in any window of 60 s, wherever it begins."""
    night = World(react, jobs=150, requests_per_minute=30).run()
    assert night.server.most_in_flight <= C
    assert most_in_window(times(night), 60) <= 30


def test_9_the_day_counts_what_earlier_runs_sent() -> None:
    """Requests a UTC day are counted from the records of all runs of that day."""
    world = World(jobs=20, requests_per_day=8)
    nights = [world.run(), world.run()]
    assert [len(night.arrivals) for night in nights] == [8, 0]
    assert all(night.exit_code is ExitCode.WORK_LEFT for night in nights)
    world.now_s = 36 * 3600.0
    assert len(world.run().arrivals) == 8


def test_9_the_day_counts_refused_requests_too() -> None:
    """Whether a refused request counts against the day is not documented, so it does."""
    night = World(lambda a: says(503) if a.n == 1 else OK, jobs=20, requests_per_day=10).run()
    assert len(night.arrivals) == 10


@pytest.mark.parametrize("concurrency", [1, 8])
def test_9_leave_that_was_not_used_is_given_back(concurrency: int) -> None:
    """What was leased ahead and never sent is there for other runs of the day."""
    world = World(jobs=20, max_requests=7, requests_per_day=100, concurrency=concurrency)
    assert len(world.run().arrivals) == 7
    assert world.account and world.account.state.sent == 7


def test_9_a_fast_pace_is_used() -> None:
    """Where ten requests a second are allowed, a second is not the least that is waited."""
    night = World(Answer(after_s=0.01), jobs=200, requests_per_minute=600).run()
    assert all_done(night, 200)
    assert night.lasted_s <= 200 * 60 / 570 * 1.1


def test_9_waiting_jobs_hold_no_slot() -> None:
    """While some jobs back off for 30 s and more, others use all C slots."""
    night = World(lambda a: RESET if a.n == 1 and a.number % 10 == 0 else Answer(after_s=5), jobs=80).run()
    assert all_done(night, 80)
    assert night.server.most_in_flight == C


def test_9_a_server_that_counts_is_not_asked_for_more() -> None:
    """Where answers say that nothing is left of the minute, the rest waits for its reset and nothing is refused."""

    def counting(arrival: Arrival) -> Answer:
        left = 4 - (arrival.number - 1) % 5
        headers = {"x-ratelimit-remaining-requests": str(left), "x-ratelimit-reset-requests": "1m0s"}
        return Answer(after_s=0.5, headers=headers)

    night = World(counting, jobs=15, concurrency=1).run()
    assert all_done(night, 15)
    times_s = [arrival.at_s for arrival in night.arrivals]
    assert [round(later - earlier) for earlier, later in pairwise(times_s[4::5])] == [62, 62]
    assert max(later - earlier for earlier, later in pairwise(times_s[:5])) < 1


# Point 10: the shared pause


def test_10_one_answer_that_says_too_fast_pauses_everybody_once() -> None:
    """All answers of one burst are one episode: one pause, one cut, nothing sent meanwhile."""
    night = World(between(60, 61.5, says(429, "slow down", retry_after="20")), jobs=100).run()
    limited = [a.at_s for a, answer in night.server.answers if answer.status == 429]
    assert all_done(night, 100) and limited
    assert not [t for t in times(night) if limited[-1] + 0.2 < t < limited[0] + 20]
    assert sum("rate limited" in pace for pace in night.paces()) == 1


_DATE = format_datetime(NOON + timedelta(seconds=90), usegmt=True)
_PAUSES: dict[str, tuple[dict[str, str], float]] = {
    "zero": ({"retry-after": "0"}, 1),
    "seconds": ({"retry-after": "5"}, 5),
    "decimals": ({"retry-after": "2.5"}, 2.5),
    "milliseconds": ({"retry-after-ms": "7000"}, 7),
    "milliseconds-win": ({"retry-after-ms": "7000", "retry-after": "60"}, 7),
    "date": ({"retry-after": _DATE}, 90),
    "date-rfc850": ({"retry-after": "Sunday, 22-Nov-26 12:01:30 GMT"}, 90),
    "date-asctime": ({"retry-after": "Sun Nov 22 12:01:30 2026"}, 90),
    "date-past": ({"retry-after": "Sun, 22 Nov 2020 12:00:00 GMT"}, 1),
    "an-hour": ({"retry-after": "3600"}, 3600),
    "negative": ({"retry-after": "-1"}, 15),
    "nan": ({"retry-after": "nan"}, 15),
    "infinite": ({"retry-after": "inf"}, 15),
    "absurd": ({"retry-after": "1e12"}, 15),
    "year-9999": ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 15),
    "garbage": ({"retry-after": "soon"}, 15),
    "foreign-digits": ({"retry-after": "١٢"}, 15),
    "empty": ({"retry-after": ""}, 15),
    "none": ({}, 15),
}


@pytest.mark.parametrize(("headers", "pause_s"), _PAUSES.values(), ids=[f"row26-{name}" for name in _PAUSES])
def test_10_retry_after_in_all_its_forms(headers: dict[str, str], pause_s: float) -> None:
    """Retry-After is obeyed, clamped and jittered; what is senseless falls back to the program's own pause."""
    night = World(first(1, Answer(429, b"{}", headers, after_s=0)), jobs=3).run()
    assert all_done(night, 3)
    waited_s = times(night)[1] - times(night)[0]
    assert pause_s - 0.01 <= waited_s <= pause_s * 1.1 + 1.5


def test_10_a_rate_limited_job_spends_nothing_of_its_own() -> None:
    """A 429 is nobody's fault: the job may meet any number of them and is still done."""
    night = World(lambda a: RATE if a.job == "job-5" and a.n <= 9 else OK, jobs=200).run()
    assert all_done(night, 200)
    assert night.failures("job-5") == ["rate_limited"] * 9


@pytest.mark.parametrize("headers", [{"retry_after": "1"}, {}], ids=["retry-after-1", "no-header"])
def test_27_a_rate_limit_of_20_s_costs_no_job_and_no_night(headers: dict[str, Any]) -> None:
    """429s for 20 s: every job is done in this very run, and the day is not taken for spent."""
    night = World(between(30, 50, says(429, "Too many requests", **headers)), jobs=100).run()
    assert all_done(night, 100), night.reason


def test_27_a_rate_limit_wastes_at_most_two_requests_a_pause() -> None:
    """After a pause not everybody tries at once: at most two wasted requests a pause over 20 s of refusals."""
    night = World(between(30, 50, RATE), jobs=100).run()
    pauses = sum("rate limited" in pace for pace in night.paces())
    refused = sum(answer.status == 429 for _, answer in night.server.answers)
    first_burst = C
    assert refused <= first_burst + 2 * (pauses - 1)


@pytest.mark.parametrize("headers", [{"retry_after": "1"}, {}], ids=["retry-after-1", "no-header"])
def test_27_a_storm_of_ten_minutes_is_survived(headers: dict[str, Any]) -> None:
    """429s for 10 min: the rate of requests falls, one cut an episode, and all is done when it is over."""
    night = World(between(60, 660, says(429, "Too many requests", **headers)), jobs=200).run()
    assert all_done(night, 200), night.reason
    in_storm = [t for t in times(night) if 60 <= t < 660]
    assert len([t for t in in_storm if t >= 360]) <= len([t for t in in_storm if t < 360])


# Point 11: the day's quota


_QUOTA_WORDS = {
    "code": says(429, "Limit reached", "daily_limit_exceeded"),
    "message": says(429, "You may send 200 requests per day"),
    "403": says(403, "daily quota exceeded"),
    "http-200": Answer(200, json({"status": "failed", "message": "Daily limit reached"}), after_s=0.1),
    "long-retry-after": says(429, "Too many requests", retry_after="7200"),
    "date-retry-after": says(429, "no", retry_after=format_datetime(NOON + timedelta(hours=12), usegmt=True)),
}


@pytest.mark.parametrize("quota", _QUOTA_WORDS.values(), ids=[f"row28-{name}" for name in _QUOTA_WORDS])
def test_11_a_spent_day_stops_the_run_and_says_when_it_opens_again(quota: Answer) -> None:
    """At most C requests more, all jobs stay pending, exit 4 with the time; the next start sends one probe at most."""
    world = World(lambda a: OK if a.number < 50 else quota, jobs=100)
    night = world.run()
    assert night.exit_code is ExitCode.WORK_LEFT
    assert len(night.arrivals) < 50 + C
    assert night.outcomes() == {"done": 49}
    assert "opens again at 2026-11-23T00:0" in night.reason
    again = world.run()
    assert again.exit_code is ExitCode.WORK_LEFT and len(again.arrivals) <= 1


def test_11_waiting_for_the_next_day_takes_up_the_work_after_midnight() -> None:
    """With `--on-quota wait` nothing leaves until 00:00:30 UTC, and then all jobs are done."""
    night = World(between(100, MIDNIGHT_S, QUOTA), jobs=60, wait_for_quota=True).run()
    assert all_done(night, 60)
    refused = [a.at_s for a, answer in night.server.answers if answer is QUOTA]
    assert len(refused) <= C
    assert min(t for t in times(night) if t > refused[-1]) >= MIDNIGHT_S + 30
    assert night.turns < 12 * 3600 / 5, "waiting is not spinning"
    assert sum("everything pauses until 2026-11-23T00:0" in pace for pace in night.paces()) == 1


def test_11_our_own_count_of_the_day_waits_as_well() -> None:
    """The limit of requests a day that was stated holds on both sides of midnight."""
    night = World(jobs=25, requests_per_day=10, wait_for_quota=True).run()
    assert all_done(night, 25)
    assert [sum(d * 86400 <= t + MIDNIGHT_S < (d + 1) * 86400 for t in times(night)) for d in range(3)] == [10, 10, 5]
    assert sum("the day's quota is spent" in pace for pace in night.paces()) == 2, "told once a day"


def test_11_the_server_says_when_its_day_begins() -> None:
    """Answers carry the server's clock; where it is far from ours the day that is spent ends by the server's."""
    date = format_datetime(NOON + timedelta(hours=2), usegmt=True)
    night = World(lambda a: replace(OK, headers={"date": date}) if a.number < 9 else QUOTA, jobs=30).run()
    assert any("clock differs from ours" in pace for pace in night.paces())
    assert "opens again at 2026-11-22T22:0" in night.reason


def test_11_a_quota_that_lasts_is_met_with_one_probe_a_day() -> None:
    """A day that is still spent after midnight costs one more request and another day of patience, not a storm."""
    night = World(between(100, MIDNIGHT_S + 86400, QUOTA), jobs=40, wait_for_quota=True).run()
    assert all_done(night, 40)
    assert sum(MIDNIGHT_S <= t < MIDNIGHT_S + 86400 for t in times(night)) <= C


# Point 12: the ration after unknown and useless answers


UNSURE = {
    "reset": RESET,
    "hang": HANGS,
    "useless": BAD_PICTURE,
    "502": Answer(502, PAGE, after_s=8),
    "504": Answer(504, b"", after_s=60),
    "520": Answer(520, b"", after_s=8),
    "500-page": Answer(500, PAGE, after_s=8),
    "page-200": Answer(200, PAGE, after_s=8),
    "418": says(418, after_s=8),
    "empty": Answer(200, b""),
}


@pytest.mark.parametrize("answer", UNSURE.values(), ids=UNSURE)
@pytest.mark.parametrize("ration", [0, 1, 3])
def test_12_a_job_is_sent_again_only_as_often_as_its_ration_allows(answer: Answer, ration: int) -> None:
    """After an answer that may have been paid for a job is sent `uncertain_retries` times more, then it is parked."""
    world = World(only("job-12", answer), jobs=150, uncertain_retries=ration)
    night = world.run()
    assert night.requests("job-12") == ration + 1
    assert night.outcomes() == {"done": 149, "uncertain": 1}
    assert night.exit_code is ExitCode.INCOMPLETE
    assert night.entries["job-12"].billed in (Billed.MAYBE, Billed.YES)
    assert len(world.run().arrivals) == 0, "parked is parked, in every later run"


def test_12_the_ration_holds_over_all_runs() -> None:
    """A run that ends between the first answer and the second try does not hand out a new ration."""
    world = World(only("job-3", RESET), jobs=40, max_requests=20)
    world.run()
    world.limits = replace(world.limits, max_requests=None)
    world.run()
    assert sum(a.job == "job-3" for a in world.arrivals) == 2


def test_12_unknown_answers_are_told_by_exposure() -> None:
    """The entry of a parked job says what it may have cost, apart from what it surely cost."""
    night = World(only("job-1", RESET), jobs=30, price_usd=0.003).run()
    assert night.entries["job-1"].exposure_usd == pytest.approx(0.006)
    assert night.entries["job-1"].cost_usd == 0


@pytest.mark.parametrize(
    "jobs",
    [3, 30],
    ids=["few", "many"],
)
def test_12_a_server_that_only_answers_uselessly_is_paid_at_most_twice_a_job(jobs: int) -> None:
    """Useless answers are surely paid for: one extra request a job at most, however many jobs they hit."""
    night = World(BAD_PICTURE, jobs=jobs).run()
    assert max(night.paid(job) for job in {a.job for a in night.arrivals}) <= 2
    assert "done" not in night.outcomes()


@pytest.mark.parametrize(("doubts", "sends"), [(1, 1), (2, 1), (3, 0)])
def test_12_a_job_in_doubt_is_sent_at_most_twice_more(doubts: int, sends: int) -> None:
    """An intent without an end leaves the job pending; the third time it is parked: it may be what kills the run."""
    world = World(jobs=5)
    job = world.jobs[2]
    world.notes += [
        encode(Intent(job.id, job.fingerprint, n, "2026-11-22T11:00:00.000Z", "r")) for n in range(1, 1 + doubts)
    ]
    world.arrivals += [Arrival(job.id, n, n, -60.0) for n in range(1, 1 + doubts)]
    night = world.run()
    assert sum(a.job == job.id for a in night.arrivals) == sends
    assert night.entries[job.id].outcome.value == ("done" if sends else "uncertain")


def test_15_a_last_job_that_always_fails_is_left_for_another_run() -> None:
    """Where no other job can succeed nothing counts against the last one, and still it is not tried all night."""
    night = World(only("job-11", says(503, after_s=1)), jobs=12).run()
    assert len(night.arrivals) <= 11 + 12
    assert night.outcomes() == {"done": 11}
    assert night.exit_code is ExitCode.WORK_LEFT
    assert night.lasted_s < 900


@pytest.mark.parametrize(("answer", "kept"), [(RESET, 1), (BAD_PICTURE, 1), (says(503), 0)])
def test_12_what_was_paid_in_vain_is_durable_before_the_job_is_repeated(answer: Answer, kept: int) -> None:
    """A power cut between two requests for a job makes no ration forgotten; what cost nothing is not waited for."""
    world = World(lambda a: answer if (a.job, a.n) == ("job-3", 1) else OK, jobs=6)
    night = world.run()
    assert all_done(night, 6)
    again = next(a.number for a in world.arrivals if (a.job, a.n) == ("job-3", 2))
    assert sum(number < again for number in world.kept) == len(world.kept) == kept


def test_12_a_repetition_that_is_not_durable_yet_is_not_sent_after_an_abort() -> None:
    """A run that ends while the disk is asked to remember sends nothing more."""
    world = World(first(1, RESET), jobs=1)
    world.keep_s = 100.0

    async def abort(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        await asyncio.sleep(90)
        pool.stop(ExitCode.SIGINT, "ended by SIGINT")
        pool.abort()

    night = world.run(during=abort)
    assert (len(night.arrivals), night.outcomes(), night.pool.in_doubt) == (1, {}, set())


def test_12_an_answer_with_more_pictures_than_asked_for_is_paid_from_the_budget() -> None:
    """What was billed counts, not what was expected: the budget knows of every picture that came."""
    two = nebula.encode_answer(MODEL, [Drawn(picture(n), n, 1.0) for n in range(2)])
    night = World(Answer(body=two), jobs=10, price_usd=1.0, max_cost_usd=5.0, concurrency=1).run()
    assert (len(night.arrivals), night.exit_code.value) == (3, 4)


def test_12_backoff_after_an_unknown_answer_is_at_least_30_s() -> None:
    """A generation that lost its answer may still be running."""
    night = World(lambda a: RESET if a.number == 1 else OK, jobs=2).run()
    at = [a.at_s for a in night.arrivals if a.job == "job-0"]
    assert at[1] - at[0] >= 30
    assert all_done(night, 2)


# Points 13 to 15, and table (b): what each answer costs its job

_CONTENT = says(400, "Your request was rejected by our safety system", "content_policy_violation")
_FAILED_200 = Answer(200, json({"status": "failed", "message": "generation did not work", "data": None}), after_s=5)
TABLE: dict[str, tuple[Answer, str, int, ExitCode]] = {
    # answer, how the job ends, its requests in one run, exit code
    "400": (says(400), "failed", 1, ExitCode.INCOMPLETE),
    "413": (says(413), "failed", 1, ExitCode.INCOMPLETE),
    "422": (says(422), "failed", 1, ExitCode.INCOMPLETE),
    "422-html": (Answer(422, PAGE), "failed", 1, ExitCode.INCOMPLETE),
    "content": (_CONTENT, "failed", 1, ExitCode.INCOMPLETE),
    "content-200": (replace(_CONTENT, status=200), "failed", 1, ExitCode.INCOMPLETE),
    "401": (says(401), "pending", 1, ExitCode.ACCOUNT),
    "402": (says(402), "pending", 1, ExitCode.ACCOUNT),
    "429-insufficient-quota": (says(429, "no", "insufficient_quota"), "pending", 1, ExitCode.ACCOUNT),
    "403-balance": (says(403, "Your balance is too low"), "pending", 1, ExitCode.ACCOUNT),
    "200-balance": (says(200, "insufficient balance"), "pending", 1, ExitCode.ACCOUNT),
    "403": (says(403), "failed", 1, ExitCode.INCOMPLETE),
    "404": (says(404), "failed", 1, ExitCode.INCOMPLETE),
    "408": (says(408), "pending", 4, ExitCode.WORK_LEFT),
    "425": (says(425), "pending", 4, ExitCode.WORK_LEFT),
    "409": (says(409), "failed", 1, ExitCode.INCOMPLETE),
    "500-slow": (says(500, after_s=5), "pending", 3, ExitCode.WORK_LEFT),
    "500-fast": (says(500, after_s=0.1), "pending", 4, ExitCode.WORK_LEFT),
    "503": (says(503, after_s=5), "pending", 4, ExitCode.WORK_LEFT),
    "502-fast": (Answer(502, PAGE, after_s=0.1), "pending", 4, ExitCode.WORK_LEFT),
    "502-faster-than-a-picture": (Answer(502, PAGE, after_s=1.9), "pending", 4, ExitCode.WORK_LEFT),
    "200-page-fast": (Answer(200, PAGE, after_s=0.1), "pending", 4, ExitCode.WORK_LEFT),
    "200-failed": (_FAILED_200, "pending", 2, ExitCode.WORK_LEFT),
    "307": (Answer(307, b"", {"location": "http://127.0.0.1:1/"}), "pending", 1, ExitCode.USAGE),
    "tls": (Answer(failure=Failure.TLS), "pending", 1, ExitCode.USAGE),
    "emfile": (Answer(failure=Failure.TOO_MANY_FILES), "pending", 4, ExitCode.WORK_LEFT),
}


@pytest.mark.parametrize(("answer", "ends", "requests", "exit_code"), TABLE.values(), ids=TABLE)
def test_13_what_each_answer_costs_its_job(answer: Answer, ends: str, requests: int, exit_code: ExitCode) -> None:
    """Table (b): exact number of requests, how the job ends, and the exit code, while all others succeed."""
    world = World(only("job-12", answer), jobs=150)
    night = world.run()
    entry = night.entries.get("job-12")
    assert (entry.outcome.value if entry else "pending") == ends
    assert night.requests("job-12") == requests
    assert night.exit_code is exit_code
    if ends == "failed":
        assert len(world.run().arrivals) == 0, "a permanent error is not sent again by a later run"
    if exit_code not in (ExitCode.ACCOUNT, ExitCode.USAGE):
        assert night.outcomes()["done"] == 149


_BODIES: dict[str, bytes] = {
    "short": json({"status": "failed", "message": "computer says no"}),
    "long": json({"status": "error", "error": {"code": "E_NO", "message": "computer says no", "details": {}}}),
    "page": PAGE,
    "empty": b"",
    "code-int": json({"error": {"code": 17, "message": "computer says no"}}),
    "code-null": json({"error": {"code": None, "message": "computer says no"}}),
    "code-list": json({"error": {"code": [1], "message": {"why": "no"}}}),
    "huge": json({"message": "no" * 500_000}),
}
_REFUSED_ALIKE = [400, 403, 404, 409, 413, 422]


@pytest.mark.parametrize("status", _REFUSED_ALIKE)
@pytest.mark.parametrize("body", _BODIES.values(), ids=_BODIES)
def test_13_a_permanent_refusal_is_one_by_its_status_whatever_its_text(status: int, body: bytes) -> None:
    """Rows 23 and 24: sent once, failed, told in at most 500 characters."""
    night = World(only("job-12", Answer(status, body, after_s=0.2)), jobs=20).run()
    assert night.requests("job-12") == 1
    assert night.outcomes() == {"done": 19, "failed": 1}
    assert len(night.entries["job-12"].attempts[-1].message or "") <= 500


def test_14_one_request_until_the_first_success() -> None:
    """The canary: concurrency starts at one and grows only with successes."""
    night = World(jobs=80).run()
    assert [t for t in times(night) if t < 10] == [0.0]
    assert night.server.most_in_flight == C


@pytest.mark.parametrize(
    ("answer", "exit_code"),
    [
        (says(401), 6),
        (says(402), 6),
        (says(403), 6),
        (says(404), 2),
        (Answer(301, b""), 2),
        (Answer(failure=Failure.TLS), 2),
    ],
    ids=["401", "402", "403", "404", "301", "tls"],
)
def test_14_what_is_wrong_for_every_job_costs_one_request_at_the_start(answer: Answer, exit_code: int) -> None:
    """A bad key, an empty account, a bad model or endpoint: one request, nothing recorded as failed."""
    night = World(answer, jobs=30).run()
    assert (len(night.arrivals), night.exit_code, night.outcomes()) == (1, exit_code, {})


def test_14_a_key_that_dies_in_the_night_costs_at_most_c_requests() -> None:
    """Row 25: 401 from the 50th request on: at most C more, exit 6, the rest pending."""
    night = World(lambda a: OK if a.number < 50 else says(401), jobs=100).run()
    assert night.exit_code is ExitCode.ACCOUNT
    assert len(night.arrivals) < 50 + C
    assert night.outcomes() == {"done": 49}


def test_14_three_403_in_a_row_stop_the_run() -> None:
    """One 403 may be the job's; three in a row are the account's."""
    night = World(lambda a: OK if a.number <= 20 else says(403), jobs=100).run()
    assert night.exit_code is ExitCode.ACCOUNT
    assert len(night.arrivals) <= 20 + 2 + C
    assert night.outcomes()["failed"] <= 2 + C


def test_14_ten_first_jobs_refused_stop_the_run() -> None:
    """A manifest with a wrong parameter costs ten requests, not all of them."""
    night = World(says(400, "num_steps must be below 5"), jobs=100).run()
    assert (len(night.arrivals), night.exit_code) == (10, ExitCode.USAGE)


def test_15_transient_failures_leave_the_job_to_another_run_and_end_it_after_twelve() -> None:
    """A job that used up its attempts stays pending; after 12 counted attempts in its life it is failed."""
    world = World(lambda a: says(503) if a.job == "job-12" else Answer(after_s=1), jobs=400)
    ends = []
    for _ in range(3):
        night = world.run()
        ends.append((night.exit_code.value, night.requests("job-12")))
        world.add_jobs(400)
    assert [code for code, _ in ends] == [4, 4, 3]
    entry = night.entries["job-12"]
    assert entry.outcome.value == "failed"
    assert sum(attempt.counts is Counts.RETRY for attempt in entry.attempts) == 12
    assert len(entry.attempts) <= 12 + 3, "the first request of a run, before any success, is not counted"


def test_15_fewer_attempts_are_honoured() -> None:
    """`--attempts 1` means one counted attempt a run."""
    night = World(only("job-12", says(503)), jobs=100, attempts=1).run()
    assert night.requests("job-12") == 1


def test_15_the_retry_budget_keeps_retries_a_small_part_when_failures_are_widespread() -> None:
    """Row 36: with every other request failing for hours, retries are bounded by tokens, and no job is lost."""
    night = World(lambda a: says(500, after_s=5) if a.n % 2 else OK, jobs=400).run()
    assert all_done(night, 400)


def test_15_repetitions_alone_are_paid_with_tokens() -> None:
    """Of 300 repetitions 500 tokens pay for a hundred; the others wait for successes and for the clock."""
    third = {f"job-{n}" for n in range(1, 900, 3)}
    quick = Answer(after_s=0.1)
    night = World(lambda a: says(418, after_s=0.1) if a.n == 1 and a.job in third else quick, jobs=900).run()
    assert all_done(night, 900)
    assert 150 <= night.lasted_s <= 300


def test_15_an_empty_retry_budget_is_waited_for_without_spinning() -> None:
    """A retry without a token waits; the loop sleeps meanwhile instead of going round 1000 times a second."""
    night = World(lambda a: OK if a.number % 3 == 0 else says(503, after_s=0.2), jobs=500).run()
    assert night.turns < 20 * len(night.arrivals)


# Point 16: outages

OUTAGES: dict[str, Answer] = {
    "refused": REFUSED_CONNECTION,
    "reset": RESET,
    "hang": HANGS,
    "502-page": Answer(502, PAGE, after_s=0.05),
    "502-slow": Answer(502, PAGE, after_s=5),
    "503": says(503, after_s=0.05),
    "500": says(500, after_s=0.05),
}


@pytest.mark.parametrize("ping", ["ping fails", "ping answers"])
@pytest.mark.parametrize("lasts_s", [10, 60])
@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_16_a_short_outage_costs_no_job(outage: Answer, lasts_s: float, ping: str) -> None:
    """0 jobs lost and exit 0 after 10 s and after 60 s, whatever the outage looks like."""
    alive = ping == "ping answers"
    night = World(
        between(60, 60 + lasts_s, outage), jobs=200, alive=lambda now_s: alive or not 60 <= now_s < 60 + lasts_s
    ).run()
    assert all_done(night, 200), (night.outcomes(), night.reason)


@pytest.mark.parametrize("ping", ["ping fails", "ping answers"])
@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_37_an_outage_of_45_minutes(outage: Answer, ping: str) -> None:
    """Exit 4 after 30 min with at most C jobs uncertain and none failed; the next run finishes all the others."""
    alive = ping == "ping answers"
    world = World(between(60, 2760, outage), jobs=200, alive=lambda now_s: alive or not 60 <= now_s < 2760)
    night = world.run()
    assert night.exit_code is ExitCode.WORK_LEFT and "30 min" in night.reason
    assert 1800 <= night.lasted_s <= 60 + 2 * 180 + 1800 + 60 + 2 * 180
    assert night.outcomes()["failed"] == 0
    world.now_s = 2760.0
    night = world.run()
    assert night.outcomes()["failed"] == 0
    assert night.outcomes()["uncertain"] <= C
    assert night.outcomes().total() == 200


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_16_who_is_patient_enough_needs_no_second_run(outage: Answer) -> None:
    """With a longer `--give-up-after` the same outage is sat out, and the whole manifest is done."""
    night = World(between(60, 2760, outage), jobs=100, give_up_after_s=7200).run()
    assert night.outcomes()["failed"] == 0
    assert night.outcomes()["done"] >= 100 - C


def test_16_the_free_address_is_asked_before_anything_is_paid() -> None:
    """While the free address does not answer, no generation request leaves."""
    night = World(between(60, 660, RESET), jobs=200, alive=lambda now_s: not 60 <= now_s < 660).run()
    assert all_done(night, 200)
    sent_in_outage = [t for t in times(night) if 60 <= t < 660]
    assert len(sent_in_outage) <= 2 * C and max(sent_in_outage) < 120
    assert len([t for t in night.server.pings if t < 660]) <= 15


def test_16_probes_come_one_at_a_time_with_growing_pauses() -> None:
    """While the breaker is open there is one request in flight at most, at pauses that grow to a minute."""
    night = World(between(60, 1260, says(503, after_s=0.05)), jobs=200).run()
    probes = [t for t in times(night) if 120 <= t < 1260]
    gaps = [b - a for a, b in pairwise(probes)]
    assert all(later >= earlier * 0.99 for earlier, later in pairwise(gaps))
    assert max(gaps) <= 65


def test_16_a_probe_is_a_new_job_where_there_is_one() -> None:
    """While repetitions back off, new jobs find out whether an outage is over; without any, one of them does."""
    night = World(between(60, 200, RESET), jobs=400).run()
    begun_s = [t for t in times(night) if t >= 60][C - 1]
    assert {a.n for a in night.arrivals if begun_s < a.at_s < begun_s + 25} == {1}
    nothing_new = World(first(C, RESET), jobs=C).run()
    assert nothing_new.arrivals[C].at_s < 10
    assert all_done(nothing_new, C)


def test_16_after_an_outage_the_pool_starts_slowly() -> None:
    """The first request after an outage is alone; the others follow as answers come."""
    night = World(between(60, 360, says(503, after_s=0.05)), jobs=200, alive=lambda now_s: not 60 <= now_s < 360).run()
    after = [t for t in times(night) if t >= 360]
    assert len([t for t in after if t < after[0] + 10]) == 1
    assert all_done(night, 200)


def test_16_an_outage_burns_no_attempts() -> None:
    """No attempt that failed in an outage, when nobody succeeded, counts against its job."""
    night = World(between(60, 1260, says(503, after_s=0.05)), jobs=200).run()
    counted = [sum(bool(a.counts) for a in entry.attempts) for entry in night.entries.values()]
    assert sum(counted) <= 2 * C and max(counted) <= 1, "only of jobs that were ready before the last success"
    assert all_done(night, 200)


def test_16_an_outage_does_not_hold_a_run_that_has_nothing_left_to_send() -> None:
    """When every job has ended, the run ends too, and its exit code tells of jobs, not of the outage."""
    night = World(RESET, jobs=5, concurrency=1, uncertain_retries=0, alive=lambda now_s: False).run()
    assert night.outcomes() == {"uncertain": 5}
    assert night.exit_code is ExitCode.INCOMPLETE
    assert night.lasted_s < 60


def test_38_latency_alone_is_no_reason_to_slow_down() -> None:
    """Pictures that suddenly take 29 s instead of 1 s neither time out nor cost concurrency."""
    night = World(lambda a: Answer(after_s=1 if a.at_s < 60 else 29), jobs=600).run()
    assert all_done(night, 600)
    after = [pace for pace in night.paces() if "rate limited" in pace or "no answers" in pace]
    assert not after
    assert night.server.most_in_flight == C
    last = [t for t in times(night) if 120 <= t < 149]
    assert len(last) >= C


# Points 18 to 20: draining, aborting, and faults that are nobody's job


def test_18_a_stop_drains(seconds: float = 33.0) -> None:
    """After stop() nothing is sent, and every answer in flight is still recorded."""

    async def stop(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        await asyncio.sleep(seconds)
        pool.stop(ExitCode.SIGTERM, "ended by SIGTERM")

    night = World(jobs=100).run(during=stop)
    assert night.exit_code is ExitCode.SIGTERM
    assert max(times(night)) <= seconds
    assert night.outcomes() == {"done": len(night.arrivals)}


@pytest.mark.parametrize(
    "react",
    [lambda a: RATE if a.number > 5 else OK, lambda a: REFUSED_CONNECTION if a.number > 5 else OK, lambda a: QUOTA],
    ids=["cooldown", "outage", "quota wait"],
)
def test_18_a_stop_is_heard_while_everybody_waits(react: React) -> None:
    """A signal during a cooldown, an outage or the wait for the next day ends the run within seconds."""

    async def stop(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        await asyncio.sleep(45)
        pool.stop(ExitCode.SIGINT, "ended by SIGINT")

    night = World(react, jobs=100, wait_for_quota=True).run(during=stop)
    assert night.exit_code is ExitCode.SIGINT
    assert night.ended_s < 45 + 15


def test_18_an_abort_ends_at_once_and_leaves_its_requests_in_doubt() -> None:
    """What was in flight at a second signal has an intent without an end: pending, in doubt, sent again next time."""

    async def twice(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        await asyncio.sleep(33)
        pool.stop(ExitCode.SIGINT, "ended by SIGINT")
        await asyncio.sleep(3)
        pool.abort()

    world = World(lambda a: Answer(after_s=10) if a.number < 4 else HANGS, jobs=30)
    night = world.run(during=twice)
    assert night.ended_s < 36 + 6
    assert len(night.pool.in_doubt) == len(night.arrivals) - night.outcomes()["done"] > 0
    assert world.folded()[1].doubtful() == night.pool.in_doubt
    world.react = lambda a: OK
    assert all_done(world.run(), 30)


def test_19_an_attempt_ends_at_its_deadline_and_frees_its_slot() -> None:
    """Row 4: a server that never answers costs its own job alone."""
    night = World(only("job-3", HANGS), jobs=200, timeout_s=60).run()
    assert night.outcomes() == {"done": 199, "uncertain": 1}
    assert night.lasted_s < 400


@pytest.mark.parametrize(("saving_s", "ended_s"), [(5.0, 15.0), (1e6, 17.0)], ids=["saved in time", "never saved"])
def test_18_an_abort_waits_five_seconds_for_answers_that_are_being_saved(saving_s: float, ended_s: float) -> None:
    """A picture that has come is still saved after a second signal, unless the disk takes more than five seconds."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def abort(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        loop, at_once = asyncio.get_running_loop(), deliver.submit
        loops.append(loop)

        def slowly(work: Work) -> asyncio.Future[Result]:
            future: asyncio.Future[Result] = loop.create_future()
            loop.call_later(saving_s, lambda: future.set_result(at_once(work).result()))
            return future

        deliver.submit = slowly  # type: ignore[method-assign]
        await asyncio.sleep(12)
        pool.stop(ExitCode.SIGINT, "ended by SIGINT")
        pool.abort()

    world = World(OK, jobs=1)
    if saving_s < 100:
        assert world.run(during=abort).outcomes() == {"done": 1}
    else:
        with pytest.raises(AssertionError, match="left tasks behind"):
            world.run(during=abort)
    assert ended_s <= loops[0].time() <= ended_s + 0.6


@pytest.mark.parametrize(
    ("saved_at_s", "counted"), [(20.0, True), (1e6, False)], ids=["saved a little later", "never saved"]
)
def test_18_what_is_saved_after_the_run_stopped_waiting_is_counted(saved_at_s: float, counted: bool) -> None:
    """A picture that the writer still saves while it is closed is told and finished; it gets five seconds more."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def abort(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        loop, at_once = asyncio.get_running_loop(), deliver.submit

        def slowly(work: Work) -> asyncio.Future[Result]:
            future: asyncio.Future[Result] = loop.create_future()
            loop.call_at(saved_at_s, lambda: future.set_result(at_once(work).result()))
            return future

        deliver.submit = slowly  # type: ignore[method-assign]
        loops.append(loop)
        await asyncio.sleep(12)
        pool.stop(ExitCode.SIGINT, "ended by SIGINT")
        pool.abort()

    world = World(OK, jobs=1)
    if counted:
        night = world.run(during=abort, settle=True)
        assert night.outcomes() == {"done": 1}
        assert [type(event) for event in night.events[-2:]] == [Tried, Finished]
        assert (night.pool.in_flight, night.pool.unfinished, night.ended_s) == (0, set(), saved_at_s)
    else:
        with pytest.raises(AssertionError, match="left tasks behind"):
            world.run(during=abort, settle=True)
        assert 12 + 5 + 5 <= loops[0].time() <= 12 + 5 + 0.6 + 5


_ENDS = {
    "max-runtime": Deadline("the time is over", end_s=200.0),
    "until": Deadline("the time is over", utc=NOON + timedelta(seconds=200)),
}


@pytest.mark.parametrize("deadline", _ENDS.values(), ids=_ENDS)
@pytest.mark.parametrize("slow_s", [10, 40])
def test_19_nothing_is_sent_that_would_end_after_the_deadline(deadline: Deadline, slow_s: float) -> None:
    """Requests leave as long as one that takes as long as usual, slow ones counted, ends in time; then exit 4."""
    world = World(lambda a: Answer(after_s=slow_s if a.number % 8 == 0 else 10), jobs=500)
    world.deadline = deadline
    night = world.run()
    assert (night.exit_code, night.reason) == (ExitCode.WORK_LEFT, "the time is over")
    assert 200 - slow_s - 15 < max(times(night)) < 200 - slow_s
    assert night.outcomes() == {"done": len(night.arrivals)}
    assert night.ended_s <= 200


@pytest.mark.parametrize("deadline", _ENDS.values(), ids=_ENDS)
@pytest.mark.parametrize(
    "react",
    [lambda a: says(429, retry_after="3000"), lambda a: REFUSED_CONNECTION, lambda a: QUOTA],
    ids=["cooldown", "outage", "quota wait"],
)
def test_19_a_deadline_is_kept_while_everybody_waits(deadline: Deadline, react: React) -> None:
    """A run that only waits ends at its deadline too, within half a minute."""
    world = World(react, jobs=50, wait_for_quota=True)
    world.deadline = deadline
    night = world.run()
    assert (night.exit_code, night.reason) == (ExitCode.WORK_LEFT, "the time is over")
    assert 200 <= night.ended_s <= 230


class _SilentAccount(MemoryAccount):
    """Answers nothing from the fourth request on, and takes nothing back."""

    asked, stubborn_s = 0, 0.0

    async def lease(self, n: int) -> Lease:
        self.asked += 1
        if self.asked > 3:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1e6)
            await asyncio.sleep(self.stubborn_s)
        return await super().lease(n)

    async def give_back(self, n: int) -> None:
        await asyncio.sleep(1e6)


class _StubbornAccount(_SilentAccount):
    """Does not even let itself be interrupted."""

    stubborn_s = 1e6


@pytest.mark.parametrize("account", [_SilentAccount, _StubbornAccount])
def test_18_an_account_that_does_not_answer_holds_no_run_that_ends(
    monkeypatch: pytest.MonkeyPatch, account: type[MemoryAccount]
) -> None:
    """Neither a lease under way nor one to be given back is waited for longer than five seconds."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def stop(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(300)
        pool.stop(ExitCode.SIGTERM, "ended by SIGTERM")

    monkeypatch.setattr("world.MemoryAccount", account)
    world = World(jobs=100)
    if account is _SilentAccount:
        assert world.run(during=stop).exit_code is ExitCode.SIGTERM
    else:
        with pytest.raises(AssertionError, match="left tasks behind"):
            world.run(during=stop)
    assert 305 <= loops[0].time() <= 311


class _Stumbling(SimServer):
    """Cannot prepare one of the jobs."""

    async def prepare(self, job: Job) -> Post:
        if job.id == "job-3":
            raise RuntimeError("this job cannot be encoded")
        return await super().prepare(job)


def test_20_an_exception_before_sending_becomes_the_jobs_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with one job is recorded for that job, and the others are done."""
    monkeypatch.setattr("world.SimServer", _Stumbling)
    night = World(jobs=20).run()
    assert not night.crashes
    assert night.outcomes() == {"done": 19, "failed": 1}
    assert night.entries["job-3"].attempts[-1].message == "RuntimeError: this job cannot be encoded"


class _Slipping(SimServer):
    """Lets an exception of its own slip for one of the jobs, after it was sent."""

    async def send(self, post: Post, timeout_s: float) -> Any:
        reply = await super().send(post, timeout_s)
        if post.body == b"job-3":
            raise RuntimeError("a bug in the transport")
        return reply


def test_20_an_exception_after_sending_becomes_the_jobs_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error fails its own job as `internal`, and the others are done."""
    monkeypatch.setattr("world.SimServer", _Slipping)
    night = World(jobs=20).run()
    assert night.outcomes() == {"done": 19, "failed": 1}
    assert night.failures("job-3") == ["internal"]


def _full(work: Work) -> Exception | None:
    return StorageError("no space left on device")


def test_20_storage_that_fails_stops_the_feeding() -> None:
    """When a paid picture cannot be kept nothing more is bought: exit 7, at most C requests in all."""

    async def fill_disk(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        await asyncio.sleep(55)
        deliver.failing = _full

    night = World(jobs=100).run(during=fill_disk)
    assert (night.exit_code, night.reason) == (ExitCode.STORAGE, "no space left on device")
    assert max(times(night)) <= 61
    assert not night.crashes


@pytest.mark.parametrize(
    ("error", "exit_code", "reason"),
    [
        (StorageError("no space left on device"), ExitCode.STORAGE, "StorageError: no space left on device"),
        (OSError("no such device"), ExitCode.STORAGE, "OSError: no such device"),
        (RuntimeError(f"a bug that tells {KEY}"), ExitCode.INTERNAL, "RuntimeError: a bug that tells ***"),
    ],
    ids=["full", "gone", "bug"],
)
def test_20_a_verdict_that_cannot_be_recorded_stops_the_run_too(
    error: Exception, exit_code: ExitCode, reason: str
) -> None:
    """A job that is parked at the start of a run needs the disk like any other."""
    world = World(jobs=1)
    job = world.jobs[0]
    world.notes += [encode(Intent(job.id, job.fingerprint, n, "2026-11-22T11:00:00.000Z", "r")) for n in (1, 2, 3)]
    world.arrivals += [Arrival(job.id, n, n, -60.0) for n in (1, 2, 3)]

    async def break_it(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        deliver.failing = lambda work: error
        await asyncio.sleep(1)

    night = world.run(during=break_it)
    assert (night.exit_code, night.reason) == (exit_code, reason)
    assert not night.crashes


def test_20_five_unexpected_errors_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that hits everybody is not paid for by everybody."""

    async def broken(self: SimServer, post: Post, timeout_s: float) -> Any:
        self.arrivals.append(Arrival(post.body.decode(), 1, len(self.arrivals) + 1, 0.0))
        raise RuntimeError("a bug")

    monkeypatch.setattr(SimServer, "send", broken)
    night = World(jobs=100).run()
    assert night.exit_code is ExitCode.INTERNAL
    assert len(night.arrivals) <= 5 + C


# Secrets in what the pool tells

_ECHOES = {
    "message": json({"status": "failed", "message": f"no balance left for {KEY}: insufficient balance"}),
    "code": json({"status": "error", "error": {"code": f"insufficient_balance {KEY}", "message": "no balance"}}),
    "escaped": json({"status": "failed", "message": f"insufficient balance of {KEY}"}).replace(b"ak_", b"\\u0061k_"),
    "straddling": json({"status": "failed", "message": "insufficient balance " + "x" * 455 + KEY}),
}


@pytest.mark.parametrize(
    ("name", "status"),
    [(name, status) for name in _ECHOES for status in (402, 200) if (name, status) != ("straddling", 200)],
)
def test_32_a_key_that_the_server_echoes_reaches_nobody(name: str, status: int) -> None:
    """Neither reasons, nor attempts, nor events, nor log lines hold the key or a good part of it."""
    world = World(lambda a: OK if a.number < 3 else Answer(status, _ECHOES[name], after_s=0.1), jobs=20)
    night = world.run()
    told = night.reason + repr(night.events) + repr(world.log) + repr(world.notes)
    assert KEY[:12] not in told


# What the pool tells and writes down


def test_a_failed_attempt_is_recorded_as_it_was() -> None:
    """An attempt's record says when it was sent, how long it took, what was answered, and what it cost."""
    world = World(first(2, says(503, "busy", "overloaded", after_s=2.12345678)), jobs=1, price_usd=0.25)
    night = world.run()
    job, told = world.jobs[0], [event for event in night.events if isinstance(event, Tried)]
    for n, (tried, sent) in enumerate(zip(told[:2], night.arrivals, strict=False), 1):
        assert tried == Tried(job, tried.attempt, 0.25, again=n > 1)
        assert tried.attempt == Attempt(
            *(n, timestamp(NOON + timedelta(seconds=sent.at_s)), 2.123457, Billed.NO, 503),
            *(Failure.UNAVAILABLE, "overloaded", "busy", None),
        )
    assert told[2] == Tried(job, night.entries["job-0"].attempts[2], 0.25, 1, again=True)
    assert night.entries["job-0"].attempts[:2] == tuple(event.attempt for event in told[:2])
    assert [line for line in map(decode_note, world.notes) if isinstance(line, Ended)] == [
        Ended("job-0", job.fingerprint, event.attempt, 0.25) for event in told[:2]
    ]


def test_queueing_and_backing_off_are_timed_apart() -> None:
    """An entry tells how long its job waited for its turn and how long after a failure, and both fit its whole time."""
    night = World(first(1, RESET, Answer(after_s=100)), jobs=2, concurrency=1).run()
    alone, behind = (night.entries[job].timings for job in ("job-1", "job-0"))
    assert alone.queued_s == pytest.approx(0.2, abs=0.05)
    assert alone.waited_s == 0.0
    assert 30 <= behind.waited_s <= 60
    assert behind.queued_s == pytest.approx(100 - behind.waited_s, abs=0.1)
    assert behind.total_s == pytest.approx(0.2 + behind.queued_s + behind.waited_s + 100, abs=0.1)
    for entry in World(first(2, RESET, Answer(after_s=100)), jobs=2, concurrency=1).run().entries.values():
        spent_s = entry.timings.queued_s + entry.timings.waited_s + 0.2 + 100
        assert entry.timings.total_s == pytest.approx(spent_s, abs=0.05)


def test_a_stop_is_told_once_for_each_exit_code() -> None:
    """Of several reasons with the same exit code the first is the run's; one with another code stands beside it."""

    async def stop(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        await asyncio.sleep(33)
        pool.stop(ExitCode.SIGTERM, "ended by SIGTERM")
        pool.stop(ExitCode.SIGTERM, "ended by SIGTERM again")
        pool.stop(ExitCode.STORAGE, "the disk is full")

    assert World(jobs=100).run(during=stop).reason == "ended by SIGTERM; the disk is full"


def test_an_aborted_request_is_told_as_a_doubt() -> None:
    """What was in flight at an abort is told with the number of its attempt, as perhaps paid."""

    async def abort(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        await asyncio.sleep(5)
        pool.stop(ExitCode.SIGINT, "ended by SIGINT")
        pool.abort()

    at = "2026-11-22T12:00:05.000Z"
    for answer, n in ((HANGS, 1), (says(503), 2)):
        world = World(first(1, answer, HANGS), jobs=1, price_usd=0.25)
        told = [event for event in world.run(during=abort).events if isinstance(event, Tried)]
        doubt = Attempt(n, at, 0.0, Billed.MAYBE, failure=Failure.IN_DOUBT)
        assert told[-1] == Tried(world.jobs[0], doubt, 0.25, again=n > 1)
        assert len(told) == n


def test_a_long_night_holds_no_more_memory_than_a_short_one() -> None:
    """Work that has ended, of jobs and beside them, is let go of."""
    held: list[int] = []

    async def count(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        while True:
            await asyncio.sleep(100)
            held.append(sum(isinstance(thing, asyncio.Task) for thing in gc.get_objects()))

    assert all_done(World(jobs=400).run(during=count), 400)
    assert len(held) >= 4 and max(held) - held[0] < C


def test_what_was_sent_and_has_not_ended_is_unfinished() -> None:
    """A run knows which jobs it began and did not end, so that what was noted of them is kept."""
    world = World(only("job-3", says(503)), jobs=10)
    night = world.run()
    assert night.outcomes() == {"done": 9}
    assert night.pool.unfinished == {("job-3", world.jobs[3].fingerprint)}
    assert World(jobs=10).run().pool.unfinished == set()


# Backoff


@pytest.mark.parametrize(
    ("answer", "least_s", "most_s"),
    [
        pytest.param(says(503), 1, 2, id="a second"),
        pytest.param(says(503, retry_after="40"), 40, 50, id="as asked"),
        pytest.param(says(503, retry_after="0.2"), 1, 2, id="at least a second"),
        pytest.param(says(503, retry_after="9000"), 3600, 4500, id="at most an hour"),
        pytest.param(Answer(200, PAGE, after_s=8), 60, 75, id="a captive portal"),
        pytest.param(Answer(failure=Failure.TOO_MANY_FILES, after_s=0.1), 5, 6.25, id="no handles left"),
        pytest.param(RATE, 1.5, 2.7, id="the common pause and a little more"),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_how_long_a_job_waits_after_its_first_failure(answer: Answer, least_s: float, most_s: float, seed: int) -> None:
    """A repetition waits as long as its failure needs and the server asked, and a little more by chance."""
    night = World(first(1, answer), jobs=1, seed=seed, wait_for_quota=True).run()
    begun_s, again_s = times(night)
    assert least_s <= again_s - begun_s - answer.after_s <= most_s
    assert all_done(night, 1)


def test_backoff_grows_with_the_attempts_of_the_run() -> None:
    """The time before a repetition is drawn from a span that doubles with every attempt of this run, up to a minute."""
    gaps_s = [
        [
            later_s - earlier_s
            for earlier_s, later_s in pairwise(times(World(_until_the_eighth, jobs=1, seed=seed).run()))
        ]
        for seed in range(20)
    ]
    for number, drawn_s in enumerate(zip(*gaps_s, strict=True)):
        span_s = min(2.0**number, 60)
        assert min(drawn_s) >= 0.999 and max(drawn_s) <= max(1.25, span_s) + 0.01
        assert max(drawn_s) > 0.7 * span_s


def test_backoff_begins_anew_with_every_run() -> None:
    """What a job met in earlier runs does not make it wait longer in this one."""
    for seed in range(10):
        world = World(first(1, REFUSED_CONNECTION), jobs=1, seed=seed)
        job = world.jobs[0]
        world.notes += [encode(Ended(job.id, job.fingerprint, failed(Failure.NOT_CONNECTED, n))) for n in range(1, 9)]
        begun_s, again_s = times(world.run())
        assert 1 <= again_s - begun_s <= 1.26


def _until_the_eighth(arrival: Arrival) -> Answer:
    return OK if arrival.n == 8 else REFUSED_CONNECTION


def test_after_a_rate_limit_another_job_tries_the_way() -> None:
    """The refused job may be the reason for the refusal, so the first request after the pause is another's."""
    night = World(first(1, RATE), jobs=3).run()
    assert [a.job for a in night.arrivals][:2] == ["job-0", "job-1"]


# Jobs that cannot be sent, storage that does not answer, and what an answer really cost


class _Changed(SimServer):
    """Finds that the picture a job starts from is not what it was."""

    async def prepare(self, job: Job) -> Post:
        if job.id == "job-3":
            raise InputChanged("cat.png was changed")
        return await super().prepare(job)


def test_a_job_whose_input_changed_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that cannot be sent any more stays pending, with the reason, and takes nothing from the limits."""
    monkeypatch.setattr("world.SimServer", _Changed)
    night = World(jobs=6, concurrency=1, max_requests=5, max_cost_usd=1.25, price_usd=0.25).run()
    assert night.outcomes() == {"done": 5}
    assert [(left.job.id, left.failure, left.message) for left in night.left()] == [
        ("job-3", Failure.INPUT_CHANGED, "cat.png was changed")
    ]
    assert night.exit_code is ExitCode.WORK_LEFT and not night.reason


def test_storage_that_never_answers_ends_the_run() -> None:
    """When no answer could be saved for the time of a request and twelve minutes more, the run ends with exit 7."""

    pools: list[Pool] = []

    async def freeze(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        pools.append(pool)
        await asyncio.sleep(55)
        never = asyncio.get_running_loop().create_future()
        deliver.submit = lambda work: never  # type: ignore[method-assign]

    with pytest.raises(AssertionError, match="left tasks behind"):
        World(jobs=100, timeout_s=180).run(during=freeze)
    (stop,) = pools[0].stops
    assert stop.exit_code is ExitCode.STORAGE
    waited_s = int(re.fullmatch(r"nothing could be saved for (\d+) s", stop.reason)[1])  # type: ignore[index]
    assert 180 + 720 <= waited_s <= 180 + 720 + 31


@pytest.mark.parametrize(("limit_usd", "requests"), [(1.0, 3), (0.99, 2), (0.5, 1), (0.49, 0)])
def test_a_request_for_two_pictures_is_counted_as_two_until_it_is_answered(limit_usd: float, requests: int) -> None:
    """A request must fit the budget with all the pictures that it asks for; what came instead corrects it."""
    world = World(jobs=5, max_cost_usd=limit_usd, price_usd=0.25, concurrency=1)
    world.jobs = [msgspec.structs.replace(job, request={"prompt": "x", "n": 2}) for job in world.jobs]
    assert len(world.run().arrivals) == requests


def test_events_add_up() -> None:
    """Every request that was sent is told once, with what it may have cost."""
    night = World(lambda a: RESET if a.number % 7 == 0 and a.n == 1 else OK, jobs=50).run()
    tried = [event for event in night.events if isinstance(event, Tried)]
    assert len(tried) == len(night.arrivals)
    assert sum(event.attempt.billed is Billed.YES for event in tried) == 50


def test_a_night_can_be_told_twice() -> None:
    """The same seed gives the same night, request for request."""

    def night() -> list[Arrival]:
        return World(between(30, 90, RESET), jobs=60, begin=datetime(2026, 2, 28, 23, 59, tzinfo=UTC)).run().arrivals

    assert night() == night()
