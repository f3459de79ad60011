"""The pool with several endpoints, on virtual time: which takes a job, what becomes of one that fails. See `world`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import (
    BAD_PICTURE,
    HANGS,
    MODEL,
    OK,
    REFUSED_CONNECTION,
    RESET,
    Answer,
    Night,
    React,
    SimClock,
    SimServer,
    World,
    between,
    most_in_window,
    says,
)

from batchgen.account import MemoryAccount
from batchgen.events import Paced
from batchgen.model import ExitCode, Failure, Job
from batchgen.pacing import RETRY_TOKENS, Gates, Pace
from batchgen.pool import Deadline, Way

pytestmark = pytest.mark.no_cover  # as in test_nights

MIDNIGHT_S = 12 * 3600.0
RATE = says(429, "Too many requests", retry_after="20")
QUOTA = says(429, "You have reached your daily request limit.", "quota_exceeded")
WRONG_KEY = says(401, "Invalid API key")
NO_MODEL = says(404, "no such model")
FORBIDDEN = says(403, "not for you")


def always(answer: Answer) -> React:
    return lambda arrival: answer


class Lanes(World):
    """A World with several servers, called a, b, c ...; `paces` are their limits, where they have any."""

    def __init__(self, *reacts: React | Answer, paces: dict[str, Pace] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.reacts: dict[str, React] = {}
        for name, react in zip("abcdef", reacts, strict=False):
            self.reacts[name] = always(react) if isinstance(react, Answer) else react
        self.paces = paces or {}
        self.dead: set[str] = set()
        self.servers: dict[str, SimServer] = {}

    def _ways(self, server: SimServer, clock: SimClock) -> list[Way]:
        return [self._way(name, clock) for name in self.reacts]

    def _way(self, name: str, clock: SimClock) -> Way:
        pace, limits = self.paces.get(name, Pace()), self.limits
        server = SimServer(self.reacts[name], lambda now_s: name not in self.dead, self.arrivals, name)
        self.servers[name] = server
        account, gates = MemoryAccount(pace, clock), Gates.of(limits.concurrency)
        return Way(server, account, gates, limits.timeout_s, pace.requests_per_minute, name)

    def asked(self) -> Counter[str]:
        """How many requests each server got."""
        return Counter(arrival.server for arrival in self.arrivals)

    def times(self, server: str) -> list[float]:
        return [arrival.at_s for arrival in self.arrivals if arrival.server == server]


def answered(night: Night) -> Counter[str]:
    """How many pictures each server made, by the log."""
    return Counter(str(e.attempts[-1].endpoint) for e in night.entries.values() if e.outcome == "done")


def all_done(night: Night, jobs: int) -> bool:
    return night.outcomes() == {"done": jobs} and night.exit_code is ExitCode.OK and not night.crashes


# Where a job goes


def test_jobs_go_where_there_is_room() -> None:
    """Servers that are as fast get as many jobs, one that is four times as fast gets about four times as many."""
    world = Lanes(OK, OK, jobs=80, concurrency=4)
    assert all_done(world.run(), 80)
    assert abs(world.asked()["a"] - world.asked()["b"]) <= 4
    world = Lanes(Answer(after_s=10), Answer(after_s=40), jobs=200, concurrency=4)
    night = world.run()
    assert all_done(night, 200) and 3 <= world.asked()["a"] / world.asked()["b"] <= 6
    assert [server.most_in_flight for server in world.servers.values()] == [4, 4]


def test_each_keeps_its_own_limits() -> None:
    """Pace and day are an endpoint's own; what one may not send the other does."""
    paces = {"a": Pace(30), "b": Pace(None, 20)}
    world = Lanes(Answer(after_s=1), Answer(after_s=1), jobs=120, paces=paces)
    night = world.run()
    assert all_done(night, 120)
    assert most_in_window(world.times("a"), 60) <= 30
    assert world.asked() == {"a": 100, "b": 20}


def test_the_log_says_who_was_asked() -> None:
    """Every attempt names its endpoint, and so does the note that is written before it leaves."""
    world = Lanes(says(503), OK, jobs=6)
    night = world.run()
    assert all_done(night, 6)
    for entry in night.entries.values():
        assert [attempt.endpoint for attempt in entry.attempts][-1] == "b"
    failed = [a for entry in night.entries.values() for a in entry.attempts if a.failure]
    assert failed and {attempt.endpoint for attempt in failed} == {"a"}
    assert any(b'"endpoint":"a"' in line for line in world.notes if b'"type":"intent"' in line)


# One that fails is cooled down alone


def test_a_rate_limit_pauses_only_who_says_so() -> None:
    """The others go on meanwhile, and the job that met it is done by one of them, soon."""
    world = Lanes(between(60, 61, RATE), OK, jobs=150)
    night = world.run()
    assert all_done(night, 150)
    pauses = [event for event in night.events if isinstance(event, Paced) and event.pause_s]
    assert [event.endpoint for event in pauses] == ["a"] and "a: rate limited; it pauses" in pauses[0].message
    assert not [t for t in world.times("a") if 61.2 < t < 80]
    assert len([t for t in world.times("b") if 61.2 < t < 80]) >= 8
    limited = [e for e in night.entries.values() if len(e.attempts) > 1]
    assert limited and all(e.timings.waited_s < 1 and e.attempts[-1].endpoint == "b" for e in limited)


@pytest.mark.parametrize(
    "broken",
    [RESET, REFUSED_CONNECTION, says(503), says(500, "oops", after_s=5), BAD_PICTURE, HANGS],
    ids=["reset", "refused", "503", "500", "useless", "hangs"],
)
def test_one_that_is_down_costs_nobody_a_job(broken: Answer) -> None:
    """Jobs that failed there are done elsewhere at once; it is asked now and then, and works again when it is up."""
    world = Lanes(between(30, 600, broken), OK, jobs=700)
    night = world.run()
    assert all_done(night, 700), night.outcomes()
    assert max(len(entry.attempts) for entry in night.entries.values()) <= 3
    assert len([t for t in world.times("a") if 240 < t < 600]) <= 8, "probes"
    assert [t for t in world.times("a") if t > 700], "it is back"
    assert not [event for event in night.events if isinstance(event, Paced) and event.endpoint == "b" and event.outage]


def test_a_job_does_not_return_to_who_failed_it_while_another_is_well() -> None:
    """Not even where that one has all the room and the other one hardly any."""
    world = Lanes(lambda a: says(503) if a.number % 7 == 0 else OK, Answer(after_s=20), jobs=100, paces={"b": Pace(6)})
    night = world.run()
    assert all_done(night, 100)
    for entry in night.entries.values():
        for before, after in zip(entry.attempts, entry.attempts[1:], strict=False):
            if after.endpoint == before.endpoint == "a":
                assert entry.timings.queued_s >= 30, "only after it has waited long enough for the other"


# One that refuses everything is asked no more


@pytest.mark.parametrize(
    "refusal",
    [WRONG_KEY, says(402, "Insufficient balance"), says(307, "moved"), FORBIDDEN],
    ids=["key", "balance", "redirect", "forbidden"],
)
def test_a_refusal_that_would_stop_a_run_closes_only_its_endpoint(refusal: Answer) -> None:
    """It is told by name, and its job is done by another."""
    world = Lanes(refusal, OK, jobs=30)
    night = world.run()
    assert all_done(night, 30)
    assert world.asked()["a"] == 1 and answered(night) == {"b": 30}
    [closed] = [event for event in night.events if isinstance(event, Paced) and event.notice]
    assert closed.endpoint == "a" and closed.message.startswith("a is not asked any more: ")


def test_an_endpoint_that_loses_its_key_in_the_night_leaves_its_jobs_to_the_others() -> None:
    """All that are in flight there are refused, and none of their jobs ends by it."""
    world = Lanes(between(100, 1e9, WRONG_KEY), OK, jobs=200)
    night = world.run()
    assert all_done(night, 200)
    assert len([t for t in world.times("a") if t >= 100]) <= 8


@pytest.mark.parametrize(
    ("refusals", "code"),
    [
        ((WRONG_KEY, WRONG_KEY), ExitCode.ACCOUNT),
        ((says(307, "moved"), says(307, "moved")), ExitCode.USAGE),
        ((says(307, "moved"), WRONG_KEY), ExitCode.ACCOUNT),
        ((says(400, "bad width"), says(400, "bad width")), ExitCode.USAGE),
        ((NO_MODEL, NO_MODEL), ExitCode.USAGE),
    ],
    ids=["keys", "redirects", "both", "bad request", "no model"],
)
def test_the_last_one_that_closes_stops_the_run(refusals: tuple[Answer, ...], code: ExitCode) -> None:
    """With the exit code that one alone would have had, and the reasons of all."""
    world = Lanes(*refusals, jobs=40)
    night = world.run()
    assert night.exit_code is code and night.pool.stops
    assert len(world.arrivals) <= 24 and night.outcomes()["done"] == 0
    if code is ExitCode.ACCOUNT:
        assert "b: " in night.reason and night.outcomes() == {}


def test_a_bad_request_is_the_jobs_own() -> None:
    """It fails when all servers have found it wrong, which costs nothing; its content, which may cost, one judges."""
    for refusal, asked in ((says(400, "bad width"), 2), (says(400, "flagged", "content_filter"), 1)):
        world = Lanes(*[lambda a, said=refusal: said if a.job == "job-3" else OK] * 2, jobs=12)
        night = world.run()
        assert night.outcomes() == {"done": 11, "failed": 1} and night.requests("job-3") == asked


@pytest.mark.parametrize("from_s", [0, 60])
@pytest.mark.parametrize(
    ("refusal", "failed"),
    [(says(400, "bad width"), 0), (says(400, "flagged", "content_filter"), 3), (FORBIDDEN, 0), (NO_MODEL, 0)],
    ids=["bad request", "content", "forbidden", "no model"],
)
def test_one_that_refuses_everything_fails_hardly_a_job(refusal: Answer, failed: int, from_s: int) -> None:
    """Though it is the quickest and has most room: others do what it refused, and it is not asked any more."""
    world = Lanes(between(from_s, 1e9, refusal), OK, jobs=300)
    night = world.run()
    assert night.outcomes()["done"] >= 300 - failed and len(night.entries) == 300
    assert len([t for t in world.times("a") if t >= from_s]) <= 100
    assert not [t for t in world.times("a") if t > from_s + 60]


@pytest.mark.parametrize("useless", [BAD_PICTURE, Answer(failure=Failure.DOWNLOAD, after_s=0.01)], ids=["bad", "link"])
def test_vain_requests_that_cost_money_end_after_a_while(useless: Answer) -> None:
    """An endpoint that takes money for nothing is asked now and then for half an hour, not all night."""
    world = Lanes(useless, Answer(after_s=60), jobs=400)
    night = world.run()
    assert night.lasted_s > 2500 and len(night.entries) == 400
    assert len(world.times("a")) <= 45 and max(world.times("a")) < 1950
    assert [pace for pace in night.paces() if "a is not asked any more: nothing has succeeded for 30 min" in pace]


def test_repeats_elsewhere_need_no_patience() -> None:
    """What one endpoint refuses is no repetition at another: it takes nothing of what is there for retries."""
    world = Lanes(lambda a: says(503) if a.number % 2 else OK, Answer(after_s=1), jobs=1200)
    night = world.run()
    assert all_done(night, 1200)
    assert night.pool._retries.tokens >= RETRY_TOKENS - 50


def test_each_is_asked_as_long_as_it_is_in_time() -> None:
    """Before a deadline a slow one is asked no more, and a fast one goes on."""
    world = Lanes(Answer(after_s=5), Answer(after_s=150), jobs=2000)
    world.deadline = Deadline("the time is up", end_s=600.0)
    night = world.run()
    assert night.reason == "the time is up"
    assert 580 < max(world.times("a")) <= 595 and max(world.times("b")) <= 450


# Models that not every server has


def mixed(world: Lanes, other: str) -> None:
    """Half of the jobs are for another model."""
    world.jobs = [
        Job(job.id, job.fingerprint, other if n % 4 in (1, 2) else MODEL, job.request, {}, n)
        for n, job in enumerate(world.jobs)
    ]


def lacks(world: Lanes, model: str) -> React:
    """A server that does not have this model."""
    return lambda arrival: (
        says(404, "no such model") if {job.id: job.model for job in world.jobs}[arrival.job] == model else OK
    )


def test_a_server_without_the_model_fails_no_job() -> None:
    """It is asked once for a model that it lacks, told by name, and goes on with those that it has."""
    world = Lanes(OK, OK, jobs=60)
    mixed(world, "other")
    world.reacts["a"], world.reacts["b"] = lacks(world, "other"), lacks(world, MODEL)
    night = world.run()
    assert all_done(night, 60)
    by_model = Counter((entry.model, entry.attempts[-1].endpoint) for entry in night.entries.values())
    assert by_model == {(MODEL, "a"): 30, ("other", "b"): 30}
    assert len(world.arrivals) <= 64
    assert len([pace for pace in night.paces() if "does not have the model" in pace]) == 2


def test_a_model_that_nobody_has_fails_its_jobs() -> None:
    """Where other models are drawn, the jobs of one that no server has fail, as with a single server."""
    world = Lanes(OK, OK, jobs=20)
    mixed(world, "typo")
    world.reacts["a"] = world.reacts["b"] = lacks(world, "typo")
    night = world.run()
    assert night.outcomes() == {"done": 10, "failed": 10}
    assert len(world.arrivals) <= 22


def test_a_job_that_one_key_may_not_do_is_tried_with_the_other() -> None:
    """It fails only where no key may."""
    allowed = Lanes(lambda a: FORBIDDEN if a.job == "job-5" else OK, OK, jobs=20)
    assert all_done(allowed.run(), 20)
    nobody = Lanes(*[lambda a: FORBIDDEN if a.job == "job-5" else OK] * 2, jobs=20)
    night = nobody.run()
    assert night.outcomes() == {"done": 19, "failed": 1} and night.requests("job-5") == 2


def test_a_job_that_only_a_dead_server_could_do_is_left_in_the_end() -> None:
    """The run gives up on it after a while, as it would with that server alone, and all others are done."""
    world = Lanes(OK, REFUSED_CONNECTION, jobs=20)
    mixed(world, "other")
    world.dead = {"b"}
    world.reacts["a"] = lacks(world, "other")
    night = world.run()
    assert night.outcomes() == {"done": 10} and night.exit_code is ExitCode.WORK_LEFT
    assert "not answered for 30 min" in night.reason and 1800 < night.lasted_s < 2400


@pytest.mark.parametrize("other", [REFUSED_CONNECTION, QUOTA, WRONG_KEY], ids=["dead", "spent", "closed"])
def test_jobs_that_nobody_else_could_do_do_not_hold_up_those_behind(other: Answer) -> None:
    """They are left to another run, none of them fails, and all that the others can do is done."""
    world = Lanes(OK, other, jobs=300, concurrency=2)
    world.jobs = [msgspec.structs.replace(job, model="other" if n < 90 else MODEL) for n, job in enumerate(world.jobs)]
    world.dead = {"b"}
    world.reacts["a"] = lacks(world, "other")
    night = world.run()
    assert night.outcomes() == {"done": 210}
    assert night.exit_code is (ExitCode.ACCOUNT if other is WRONG_KEY else ExitCode.WORK_LEFT)
    assert world.asked()["a"] <= 211 and len(night.left()) >= 80
    assert [pace for pace in night.paces() if pace.startswith("jobs that no other endpoint could do are left: ")]


def test_jobs_of_a_closed_endpoint_are_left_with_its_exit_code() -> None:
    """At the end they are pending, and not asked of those that cannot do them."""
    world = Lanes(OK, between(5, 1e9, WRONG_KEY), jobs=20)
    mixed(world, "other")
    world.reacts["a"] = lacks(world, "other")
    night = world.run()
    assert night.outcomes()["done"] >= 10 and night.outcomes()["failed"] == 0
    assert night.exit_code is ExitCode.ACCOUNT and night.reason.startswith("b: unauthorized")
    assert world.asked()["a"] <= 12


# Patience and quota


def test_the_run_gives_up_when_nobody_answers() -> None:
    """Not when one of them has been down for that long."""
    world = Lanes(REFUSED_CONNECTION, between(4000, 1e9, REFUSED_CONNECTION), jobs=3300)
    world.dead = {"a", "b"}
    night = world.run()
    assert night.exit_code is ExitCode.WORK_LEFT and "a, b have not answered for 30 min" in night.reason
    assert 5800 < night.lasted_s < 6000


def test_one_that_is_spent_for_the_day_rests_alone() -> None:
    """The others do the work; that it rests is told."""
    world = Lanes(lambda a: QUOTA if a.number > 10 else OK, OK, jobs=60)
    night = world.run()
    assert all_done(night, 60)
    assert [
        pace for pace in night.paces() if pace.startswith("a: the day's quota is spent; it pauses until 2026-11-23")
    ]


def test_the_run_ends_when_all_are_spent_or_closed() -> None:
    """With the time at which the first of them opens again."""
    world = Lanes(QUOTA, lambda a: QUOTA if a.number > 20 else OK, WRONG_KEY, jobs=60)
    night = world.run()
    assert night.exit_code is ExitCode.WORK_LEFT and "opens again at 2026-11-23T00:0" in night.reason
    assert night.lasted_s < 600


def test_the_run_waits_when_all_are_spent() -> None:
    """With `--on-quota wait`, until the next day begins for them."""
    paces = {"a": Pace(None, 10), "b": Pace(None, 5)}
    world = Lanes(OK, OK, jobs=30, paces=paces, wait_for_quota=True)
    night = world.run()
    assert all_done(night, 30)
    assert [len([t for t in world.times(name) if t < MIDNIGHT_S]) for name in "ab"] == [10, 5]


# Whatever happens

_ANSWERS = (OK, RATE, QUOTA, RESET, REFUSED_CONNECTION, WRONG_KEY, NO_MODEL, FORBIDDEN, says(503), says(500, "oops"))


@given(st.lists(st.tuples(st.sampled_from(_ANSWERS), st.integers(0, 120), st.integers(1, 600)), min_size=2, max_size=3))
def test_one_that_is_well_does_all_the_jobs(troubles: list[tuple[Answer, int, int]]) -> None:
    """However the others misbehave and when: every job is done in this run, is asked of nobody after that, and is given
    up as uncertain only where two servers left it without an answer."""
    bad = [between(from_s, from_s + lasts_s, answer) for answer, from_s, lasts_s in troubles]
    world = Lanes(*bad, Answer(after_s=5), jobs=40, concurrency=3)
    night = world.run()
    assert not night.pool.stops and len(night.entries) == 40 and not night.crashes
    for entry in night.entries.values():
        asked = [(attempt.endpoint, attempt.failure) for attempt in entry.attempts]
        unknown = {endpoint for endpoint, failure in asked if failure == "no_answer"}
        assert entry.outcome == "done" or (entry.outcome == "uncertain" and len(unknown) >= 2), asked
    assert max(Counter(a.job for s in world.servers.values() for a, said in s.answers if said.paid).values()) == 1
    assert all(server.most_in_flight <= 3 for server in world.servers.values())
