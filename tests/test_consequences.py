"""What one attempt's end means for everybody: fed by hand, with a clock that stands where it is put."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from samples import job

from batchgen.events import Event, Paced
from batchgen.joblog import timestamp
from batchgen.model import ExitCode, Failure
from batchgen.pacing import Adaptive, Breaker, Gates
from batchgen.pool.consequences import Consequences
from batchgen.pool.task import Fault, Pending, Sent, Task

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass
class Desk:
    """Consequences with all gates, at a time that `at` sets; `stops` and `events` are what they said."""

    gates: Gates = field(default_factory=lambda: Gates(Breaker(5), Adaptive(8, limit=8.0)))
    now_s: float = 1000.0
    begin: datetime = NOON
    jitter: float = 0.0
    stops: list[tuple[ExitCode, str]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.effects = Consequences(
            gates=self.gates,
            clock=self,
            randomness=self,
            observe=self.events.append,
            stop=lambda code, reason: self.stops.append((code, reason)),
        )

    def monotonic(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return self.begin + timedelta(seconds=self.now_s - 1000)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("consequences do not wait")

    def random(self) -> float:
        return self.jitter

    def sent(self, ago_s: float = 1.0) -> Sent:
        return Sent(1, timestamp(self.utc() - timedelta(seconds=ago_s)), self.now_s - ago_s)

    def succeeds(self, response_s: float = 10.0, ago_s: float = 1.0, in_flight: int = 8) -> None:
        self.effects.success(self.sent(ago_s), response_s, in_flight)

    def fails(
        self,
        failure: Failure,
        message: str = "no",
        *,
        ago_s: float = 1.0,
        asked_s: float | None = None,
        probe: bool = False,
    ) -> bool:
        task = Task(Pending(job()), 0.0, 0.0, (), None, 0, probing=probe)
        fault = Fault(failure, message, asked_s=asked_s)
        return self.effects.failure(task, self.sent(ago_s), fault, self.now_s)

    def paces(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Paced)]


@pytest.fixture
def desk() -> Desk:
    return Desk()


# Successes


@pytest.mark.parametrize(
    ("durations_s", "usual_s"),
    [
        pytest.param([], 0.0, id="none yet"),
        pytest.param([7.0], 7.0, id="one"),
        pytest.param([3.0, 9.0], 9.0, id="two"),
        pytest.param([*range(19, 0, -1)], 19.0, id="19"),
        pytest.param([*range(20, 0, -1)], 19.0, id="20"),
        pytest.param([*range(1, 22)], 20.0, id="21"),
        pytest.param([*range(1, 101)], 95.0, id="100"),
        pytest.param([1000.0] * 50 + [1.0] * 200, 1.0, id="only the last 200"),
        pytest.param([1000.0] * 50 + [1.0] * 189, 1000.0, id="eleven of the last 200"),
    ],
)
def test_how_long_answers_usually_take(desk: Desk, durations_s: list[float], usual_s: float) -> None:
    """Usual is what 95 of 100 recent answers stay within, so that the slow ones count before a deadline."""
    for duration_s in durations_s:
        desk.succeeds(duration_s)
    assert desk.effects.usual_s() == usual_s


def test_a_success_helps_all_gates(desk: Desk) -> None:
    """A success counts for others, ends barren pauses and lets concurrency grow."""
    desk.gates.adaptive.limit = 4.0
    desk.gates.cooldown.barren = 3
    desk.succeeds(in_flight=4)
    assert (desk.effects.successes, desk.gates.cooldown.barren) == (1, 0)
    assert desk.gates.adaptive.limit == 5.0
    assert desk.events == [Paced("concurrency 5: answers are good", routine=True, concurrency=5)]


def test_successes_are_counted(desk: Desk) -> None:
    """Every success counts, so that a job can tell whether others succeeded since its own last attempt."""
    for _ in range(3):
        desk.succeeds()
    assert desk.effects.successes == 3


def test_growth_that_is_no_whole_request_is_not_told(desk: Desk) -> None:
    """A success that does not change how many requests may be in flight is no event."""
    desk.succeeds()
    assert (desk.gates.adaptive.limit, desk.events) == (8.0, [])


@pytest.mark.parametrize(
    ("ago_s", "limit"), [(6.0, 4.0), (5.0, 5.0), (1.0, 5.0)], ids=["before", "at its end", "after"]
)
def test_a_success_from_before_a_pause_is_no_reason_to_grow(desk: Desk, ago_s: float, limit: float) -> None:
    """Answers to requests that were sent before a pause ended say nothing about the pace after it."""
    desk.gates.adaptive.limit, desk.gates.cooldown.until_s = 4.0, desk.now_s - 5
    desk.succeeds(ago_s=ago_s, in_flight=4)
    assert desk.gates.adaptive.limit == limit


def test_the_end_of_an_outage_is_told_and_starts_slowly(desk: Desk) -> None:
    """The first success after an outage closes the breaker and begins again at one request."""
    for _ in range(5):
        desk.fails(Failure.NOT_CONNECTED, "refused")
    desk.succeeds()
    assert desk.gates.breaker.opened_s is None
    assert (desk.gates.adaptive.limit, desk.gates.adaptive.reason) == (1.0, "the server is back")
    assert desk.events == [
        Paced("nothing succeeds (not_connected: refused); asking now and then", outage=True),
        Paced("the server answers again; starting slowly", concurrency=1),
    ]


# The server's clock


@pytest.mark.parametrize(
    ("ahead_s", "told_s"),
    [(0, None), (60, None), (-60, None), (61, "+61"), (-61, "-61"), (7200, "+7200"), (172_801, None)],
)
def test_a_server_clock_far_from_ours_is_told_once(desk: Desk, ahead_s: int, told_s: str | None) -> None:
    """A difference of more than a minute is told once and moves the day; a smaller or senseless one is not."""
    date = format_datetime(NOON + timedelta(seconds=ahead_s), usegmt=True)
    for _ in range(3):
        desk.effects.answered({"date": date} if date else {}, 0.0)
    desk.effects.answered({}, 0.0)
    said = [] if told_s is None else [f"the server's clock differs from ours by {told_s} s"]
    assert desk.paces() == said
    assert desk.gates.day.skew == timedelta(seconds=ahead_s if said else 0)


# Failures


@pytest.mark.parametrize("failure", [Failure.UNCLASSIFIED, Failure.UNAVAILABLE, Failure.NO_ANSWER])
def test_what_slows_growth(desk: Desk, failure: Failure) -> None:
    """After a transient failure a whole round must succeed before more requests are in flight than before."""
    desk.gates.adaptive.limit = 2.0
    assert not desk.fails(failure)
    for _ in range(2):
        desk.succeeds(in_flight=2)
    assert desk.gates.adaptive.limit == 2.0
    desk.succeeds(in_flight=2)
    assert desk.gates.adaptive.limit == 3.0


@pytest.mark.parametrize(
    "failure", [Failure.NOT_CONNECTED, Failure.TOO_MANY_FILES, Failure.BAD_ANSWER, Failure.GATEWAY]
)
def test_what_may_be_an_outage(desk: Desk, failure: Failure) -> None:
    """Five failures that an outage may explain, and no success, hold everything; what led there is told once."""
    for _ in range(7):
        assert not desk.fails(failure, "gone")
    assert desk.gates.breaker.opened_s == desk.now_s
    assert desk.paces().count(f"nothing succeeds ({failure}: gone); asking now and then") == 1
    assert desk.stops == []


@pytest.mark.parametrize("failure", [Failure.REFUSED_CONTENT, Failure.CONFLICT, Failure.UNSENDABLE])
def test_what_is_no_outage(desk: Desk, failure: Failure) -> None:
    """Failures that are a job's own hold nobody else."""
    for _ in range(20):
        assert not desk.fails(failure)
    assert (desk.gates.breaker.opened_s, desk.stops, desk.events) == (None, [], [])


def test_too_many_open_files_halve_what_is_in_flight(desk: Desk) -> None:
    """Where the machine has no handle left, half as many requests may be open."""
    desk.fails(Failure.TOO_MANY_FILES)
    assert (desk.gates.adaptive.limit, desk.gates.adaptive.reason) == (4.0, "too many open files")


def test_a_rate_limit_pauses_and_cuts_once_an_episode(desk: Desk) -> None:
    """The first answer of an episode cuts a fifth and is told with its pause; the rest of the burst changes nothing."""
    desk.jitter = 1.0
    for _ in range(3):
        assert not desk.fails(Failure.RATE_LIMITED, asked_s=20.0)
    assert desk.gates.cooldown.until_s == pytest.approx(desk.now_s + 22)
    assert (desk.gates.adaptive.limit, desk.gates.adaptive.reason) == (6.4, "rate limited")
    assert desk.events == [
        Paced("rate limited; everything pauses 22 s, then concurrency 6", concurrency=6, pause_s=22.0)
    ]


def test_a_rate_limit_that_no_pause_ends_is_a_spent_day(desk: Desk) -> None:
    """After 15 minutes and five pauses without one success the day is taken for spent, and pauses are counted anew."""
    desk.jitter = 0.5
    for _ in range(100):
        desk.fails(Failure.RATE_LIMITED, ago_s=0.1, asked_s=100.0)
        if desk.gates.day.closed_until:
            break
        desk.now_s = desk.gates.cooldown.until_s + 1
    assert 1000 + 900 <= desk.now_s <= 1000 + 900 + 130
    assert desk.gates.day.closed_until == datetime(2026, 11, 23, 0, 2, 45, tzinfo=UTC)
    assert not desk.gates.cooldown.hopeless(1e9)
    assert desk.gates.cooldown.hold(1e9, 1) is None, "nobody waits for the success of an earlier day"


@pytest.mark.parametrize(("ago_s", "closed"), [(1.0, True), (599.0, True), (601.0, False)])
def test_a_quota_answer_from_before_midnight_is_of_yesterday(ago_s: float, closed: bool) -> None:
    """The day is spent for answers to what was sent in it, not for those to what was sent in the day before."""
    desk = Desk(begin=datetime(2026, 11, 22, 0, 10, tzinfo=UTC), jitter=1.0)
    assert not desk.fails(Failure.QUOTA_SPENT, ago_s=ago_s)
    assert desk.gates.day.closed_until == (datetime(2026, 11, 23, 0, 5, tzinfo=UTC) if closed else None)


STOPS = [
    (Failure.UNAUTHORIZED, ExitCode.ACCOUNT, "unauthorized: no (look at the API key)"),
    (Failure.BILLING, ExitCode.ACCOUNT, "billing: no (look at the account's balance)"),
    (Failure.REDIRECT, ExitCode.USAGE, "redirect: no (look at the API address)"),
    (Failure.TLS, ExitCode.USAGE, "tls: no (look at the API address)"),
    (Failure.STORAGE, ExitCode.STORAGE, "storage: no"),
]


@pytest.mark.parametrize(("failure", "exit_code", "reason"), STOPS)
def test_what_stops_a_run_at_once(desk: Desk, failure: Failure, exit_code: ExitCode, reason: str) -> None:
    """What a person has to mend ends the run with its exit code, what was said, and where to look."""
    desk.succeeds()
    assert not desk.fails(failure, "no. ")
    assert desk.stops == [(exit_code, reason)]


@pytest.mark.parametrize(
    ("failure", "exit_code", "reason"),
    [
        (Failure.FORBIDDEN, ExitCode.ACCOUNT, "forbidden: no (look at what the key may do)"),
        (Failure.NOT_FOUND, ExitCode.USAGE, "not_found: no (look at the model's name and the API address)"),
    ],
)
def test_what_stops_a_run_before_its_first_success(
    desk: Desk, failure: Failure, exit_code: ExitCode, reason: str
) -> None:
    """A refusal of the very first request is not its job's fault; after a success it is."""
    assert desk.fails(failure)
    assert desk.stops == [(exit_code, reason)]
    other = Desk()
    other.succeeds()
    assert not other.fails(failure)
    assert other.stops == []


def test_the_third_403_in_a_row_is_the_accounts(desk: Desk) -> None:
    """Two 403s are their jobs' own, the third is not; a success between them begins the count anew."""
    desk.succeeds()
    assert [desk.fails(Failure.FORBIDDEN) for _ in range(2)] == [False, False]
    assert not desk.fails(Failure.NOT_FOUND)
    desk.succeeds()
    assert [desk.fails(Failure.FORBIDDEN) for _ in range(3)] == [False, False, True]
    assert [code for code, _ in desk.stops] == [ExitCode.ACCOUNT]


def test_ten_refusals_before_a_success_are_the_manifests(desk: Desk) -> None:
    """The tenth bad request of a run without a success stops it; its jobs' failures stay theirs."""
    for _ in range(9):
        assert not desk.fails(Failure.BAD_REQUEST, "bad steps")
    assert desk.stops == []
    assert not desk.fails(Failure.BAD_REQUEST, "bad steps")
    assert desk.stops == [(ExitCode.USAGE, "the first 10 requests were all refused: bad steps")]


def test_refusals_after_a_success_are_the_jobs(desk: Desk) -> None:
    """Once something succeeded, any number of bad requests are their jobs' own."""
    desk.succeeds()
    for _ in range(50):
        desk.fails(Failure.BAD_REQUEST)
    assert desk.stops == []


def test_the_fifth_unexpected_error_ends_the_run(desk: Desk) -> None:
    """Four unexpected errors are their jobs' own, the fifth is the program's; other failures are not counted."""
    desk.fails(Failure.REFUSED_CONTENT)
    for _ in range(4):
        assert not desk.fails(Failure.INTERNAL, "KeyError: 'x'")
    assert desk.stops == []
    assert not desk.fails(Failure.INTERNAL, "KeyError: 'x'")
    assert desk.stops == [(ExitCode.INTERNAL, "5 unexpected errors, the last: KeyError: 'x'")]


@pytest.mark.parametrize(
    ("failure", "probe", "closes"),
    [
        pytest.param(Failure.REFUSED_CONTENT, True, True, id="a refusal is an answer"),
        pytest.param(Failure.RATE_LIMITED, True, True, id="a rate limit is an answer"),
        pytest.param(Failure.UNAVAILABLE, True, False, id="503 is the outage itself"),
        pytest.param(Failure.NO_ANSWER, True, False, id="no answer is the outage itself"),
        pytest.param(Failure.UNCLASSIFIED, True, False, id="an unknown answer proves nothing"),
        pytest.param(Failure.REFUSED_CONTENT, False, False, id="an older request's answer proves nothing"),
    ],
)
def test_which_refusal_of_a_probe_ends_an_outage(desk: Desk, failure: Failure, probe: bool, closes: bool) -> None:
    """A probe that the API itself refuses shows that the API is back, and the run starts slowly again."""
    for _ in range(5):
        desk.fails(Failure.NOT_CONNECTED)
    desk.fails(failure, probe=probe)
    assert (desk.gates.breaker.opened_s is None) is closes
    assert (desk.gates.adaptive.reason == "the server is back") is closes
    assert (desk.gates.adaptive.limit == 1.0) is closes
