"""When something may be sent: every gate by itself, fed with made-up times, and all of them in order."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.pacing import (
    ABSURD_S,
    BARREN_COOLDOWNS,
    BARREN_S,
    DEFAULT_COOLDOWN_S,
    MAX_GROWN_COOLDOWN_S,
    PROBE_PAUSES_S,
    QUOTA_HINT_S,
    RETRY_COST,
    RETRY_TOKENS,
    AccountState,
    Adaptive,
    Breaker,
    Budget,
    Cooldown,
    Day,
    Gates,
    Hold,
    Lease,
    Pace,
    RetryBudget,
    Tickets,
    Told,
    backoff_s,
    clock_skew,
    grant,
    next_reset,
    retry_after_s,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATE = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
parts = st.floats(0, 1)


# What a server asks for

ASKED = [
    pytest.param("0", 0.0, id="zero"),
    pytest.param("5", 5.0, id="whole seconds"),
    pytest.param("1.5", 1.5, id="decimals"),
    pytest.param(" 7 ", 7.0, id="blanks around"),
    pytest.param("-1", None, id="negative"),
    pytest.param("-0.001", None, id="just negative"),
    pytest.param("NaN", None, id="not a number"),
    pytest.param("inf", None, id="infinite"),
    pytest.param("-inf", None, id="minus infinite"),
    pytest.param("1e12", None, id="absurd"),
    pytest.param("172800", 172800.0, id="48 hours"),
    pytest.param("172801", None, id="over 48 hours"),
    pytest.param("9" * 5000, None, id="5000 digits"),
    pytest.param("", None, id="empty"),
    pytest.param("soon", None, id="garbage"),
    pytest.param("\x1c 5\x1f", 5.0, id="separators as blanks"),
    pytest.param("5, 5", None, id="duplicated header"),
    pytest.param("٥", None, id="digits of another script"),
    pytest.param("５", None, id="wide digits"),
    pytest.param("Sun, 22 Nov 2026 12:00:30 GMT", 30.0, id="date in the future"),
    pytest.param("Sun, 22 Nov 2026 12:00:00 GMT", 0.0, id="date now"),
    pytest.param("Sun, 22 Nov 2026 11:00:00 GMT", 0.0, id="date in the past"),
    pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", 0.0, id="date long past"),
    pytest.param("Sun, 22 Nov 2026 14:00:30 +0200", 30.0, id="date with an offset"),
    pytest.param("Sun, 22 Nov 2026 12:00:30 -0000", 30.0, id="date without a zone"),
    pytest.param("Sunday, 22-Nov-26 12:00:30 GMT", 30.0, id="obsolete RFC 850 date"),
    pytest.param("Sun Nov 22 12:00:30 2026", 30.0, id="obsolete asctime date"),
    pytest.param("Tue, 24 Nov 2026 12:00:00 GMT", 172800.0, id="date in 48 hours"),
    pytest.param("Tue, 24 Nov 2026 12:00:01 GMT", None, id="date after 48 hours"),
    pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", None, id="year 9999"),
    pytest.param("Fri, 31 Dec 9999 23:59:59 -2359", None, id="beyond year 9999"),
    pytest.param("Mon, 01 Jan 0001 00:00:00 +2359", 0.0, id="before year 1"),
    pytest.param("Sun, 32 Nov 2026 12:00:30 GMT", None, id="no such day"),
    pytest.param("Sun, 22 Nov 2026 12:00:30 +99999999999", None, id="no such offset"),
    pytest.param("2026-11-22T12:00:30Z", None, id="not an HTTP date"),
]


@pytest.mark.parametrize(("text", "asked_s"), ASKED)
def test_retry_after(text: str, asked_s: float | None) -> None:
    """Seconds and dates of all HTTP forms are understood; what is senseless counts as not said."""
    assert retry_after_s({"retry-after": text}, NOON) == asked_s


@pytest.mark.parametrize(
    ("milliseconds", "asked_s"),
    [
        pytest.param("1500", 1.5, id="wins over seconds"),
        pytest.param("0", 0.0, id="zero is an answer"),
        pytest.param("soon", 7.0, id="garbage is not"),
        pytest.param("", 7.0, id="nothing is not"),
        pytest.param("1e400", 7.0, id="absurd"),
        pytest.param("-1", 7.0, id="negative"),
    ],
)
def test_retry_after_in_milliseconds(milliseconds: str, asked_s: float | None) -> None:
    """`retry-after-ms` is the finer answer where both are given and it makes sense."""
    assert retry_after_s({"retry-after-ms": milliseconds, "retry-after": "7"}, NOON) == asked_s


def test_no_header_is_no_answer() -> None:
    """A server that says nothing asked for nothing."""
    assert retry_after_s({}, NOON) is None


@pytest.mark.parametrize(
    ("text", "ahead_s"),
    [
        pytest.param("Tue, 24 Nov 2026 12:00:00 GMT", 172800.0, id="48 hours ahead"),
        pytest.param("Tue, 24 Nov 2026 12:00:01 GMT", None, id="over 48 hours ahead"),
        pytest.param("Fri, 20 Nov 2026 12:00:00 GMT", -172800.0, id="48 hours behind"),
        pytest.param("Fri, 20 Nov 2026 11:59:59 GMT", None, id="over 48 hours behind"),
        pytest.param("Sun, 22 Nov 2026 12:00:30 GMT", 30.0, id="ahead"),
        pytest.param("Sun, 22 Nov 2026 11:59:00 GMT", -60.0, id="behind"),
        pytest.param("Sun, 22 Nov 2026 13:00:00 +0100", 0.0, id="another zone"),
        pytest.param(None, None, id="not said"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="garbage"),
        pytest.param("Sun, 32 Nov 2026 12:00:30 GMT", None, id="no such day"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 -2359", None, id="beyond year 9999"),
    ],
)
def test_clock_skew(text: str | None, ahead_s: float | None) -> None:
    """The server's clock is compared with ours as an instant; what is no date is not said."""
    skew = clock_skew(text, NOON)
    assert (None if skew is None else skew.total_seconds()) == ahead_s


@pytest.mark.parametrize(
    "text", ["Sun Nov 22 12:00:30 2026", "Sun, 22 Nov 2026 12:00:30 -0000"], ids=["asctime", "-0000"]
)
def test_clock_skew_is_not_the_local_zone(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An HTTP date without a zone is UTC, wherever this machine stands."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert clock_skew(text, NOON) == timedelta(seconds=30)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("bound_s", "jitter", "least_s", "wait_s"),
    [
        pytest.param(8.0, 0.0, 1.0, 1.0, id="at least the least"),
        pytest.param(8.0, 0.5, 1.0, 4.0, id="a random part of the bound"),
        pytest.param(8.0, 1.0, 1.0, 8.0, id="at most the bound"),
        pytest.param(1.0, 1.0, 30.0, 37.5, id="the least is spread by a quarter"),
        pytest.param(1.0, 0.5, 30.0, 33.75, id="the spread follows the jitter"),
        pytest.param(0.0, 0.0, 0.0, 0.0, id="nothing"),
    ],
)
def test_backoff(bound_s: float, jitter: float, least_s: float, wait_s: float) -> None:
    """A backoff is full jitter above a least pause that is itself spread."""
    assert backoff_s(bound_s, jitter, least_s) == wait_s


@given(st.floats(0, 60), parts, st.floats(0, 3600))
def test_backoff_keeps_its_bounds(bound_s: float, jitter: float, least_s: float) -> None:
    """A backoff never falls below the least pause and never exceeds the greater of bound and least plus a quarter."""
    assert least_s <= backoff_s(bound_s, jitter, least_s) <= max(bound_s, least_s * 1.25)


# The account: requests per minute and per day


def granted(state: AccountState, pace: Pace, n: int, utc: datetime) -> tuple[AccountState, tuple[float, ...]]:
    """The state after a lease, and its delays."""
    state, lease = grant(state, pace, n, utc)
    return state, lease.delays_s


def most_in_a_minute(sent_s: list[float]) -> int:
    """The most requests that any window of 60 s, ends included, holds."""
    sent_s = sorted(sent_s)
    return max(sum(start_s <= other <= start_s + 60 for other in sent_s[i:]) for i, start_s in enumerate(sent_s))


@given(st.integers(1, 300), st.lists(st.tuples(st.floats(0, 90), st.booleans()), min_size=1, max_size=120))
def test_no_minute_of_leases_holds_one_too_many(limit: int, arrivals: list[tuple[float, bool]]) -> None:
    """However requests arrive, no window of 60 s is granted more than the limit."""
    pace, state, utc, sent_s = Pace(limit), AccountState(), NOON, list[float]()
    for pause_s, burst in arrivals:
        utc += timedelta(seconds=0 if burst else pause_s)
        state, delays_s = granted(state, pace, 1, utc)
        # As a run does: it waits for what it was granted before it asks again.
        utc += timedelta(seconds=delays_s[0])
        sent_s.append((utc - NOON).total_seconds())
    assert most_in_a_minute([round(at_s, 3) for at_s in sent_s]) <= limit


@pytest.mark.parametrize("limit", [1, 2, 10, 19, 20, 21, 60, 300, 3000])
def test_a_minute_is_used_and_not_more(limit: int) -> None:
    """Under load the pace is 95 % of the limit, evenly, without a burst at the start."""
    pace = Pace(limit)
    assert pace.interval_s == pytest.approx(60 / (0.95 * limit))
    state, first = granted(AccountState(), pace, 1, NOON)
    assert first == (0.0,)
    _, later = granted(state, pace, 3, NOON)
    assert later == pytest.approx([k * pace.interval_s for k in (1, 2, 3)], abs=1e-6)


def test_an_idle_hour_is_no_credit() -> None:
    """After a pause requests are spaced as before; nothing was saved up."""
    state, _ = granted(AccountState(), Pace(60), 1, NOON)
    _, delays_s = granted(state, Pace(60), 3, NOON + timedelta(hours=1))
    assert delays_s == pytest.approx((0.0, 60 / 57, 120 / 57))


def test_runs_share_a_minute() -> None:
    """Two runs that ask the same account at the same moment are spaced from each other."""
    state, one = granted(AccountState(), Pace(60), 1, NOON)
    _, two = granted(state, Pace(60), 1, NOON)
    assert one == (0.0,)
    assert two == pytest.approx((60 / 57,))


@pytest.mark.parametrize(("limit", "runs"), [(1, 4), (2, 5), (60, 70)])
def test_many_runs_share_a_minute(limit: int, runs: int) -> None:
    """However many runs lease one request each at the same moment, the account's minute holds for all together."""
    pace, state, sent_s = Pace(limit), AccountState(), list[float]()
    for _ in range(runs):
        state, delays_s = granted(state, pace, 1, NOON)
        sent_s += delays_s
    assert most_in_a_minute(sent_s) <= limit


def test_a_clock_that_was_set_back_does_not_stop_the_run() -> None:
    """Leases that lie hours ahead come from before the clock was set back, and do not hold requests for hours."""
    state, _ = granted(AccountState(), Pace(60), 1, NOON)
    _, delays_s = granted(state, Pace(60), 1, NOON - timedelta(hours=3))
    assert delays_s == pytest.approx((60 / 57,))


def test_no_pace_is_no_limit() -> None:
    """Without limits as much is granted as is asked for, at once, and still counted."""
    state, delays_s = granted(AccountState(), Pace(), 100, NOON)
    assert delays_s == (0.0,) * 100
    assert (state.day, state.sent) == ("2026-11-22", 100)
    assert granted(state, Pace(), 1, NOON)[1] == (0.0,)


@pytest.mark.parametrize(
    ("sent", "asked", "left"),
    [(0, 3, 3), (6, 3, 3), (7, 3, 3), (8, 3, 2), (9, 3, 1), (10, 3, 0), (11, 3, 0), (0, 99, 10)],
)
def test_a_day_holds_its_requests(sent: int, asked: int, left: int) -> None:
    """As many requests as the day has left are granted, not one more; none left is an empty lease."""
    state, delays_s = granted(AccountState("2026-11-22", sent), Pace(None, 10), asked, NOON)
    assert len(delays_s) == left
    assert state.sent == sent + left


def test_a_new_day_counts_from_nothing() -> None:
    """Requests before midnight UTC do not count after it."""
    state = AccountState("2026-11-22", 10)
    assert granted(state, Pace(None, 10), 1, LATE)[1] == ()
    state, delays_s = granted(state, Pace(None, 10), 1, LATE + timedelta(seconds=1))
    assert delays_s == (0.0,)
    assert (state.day, state.sent) == ("2026-11-23", 1)


def test_a_clock_that_steps_over_midnight_and_back_hands_nothing_back() -> None:
    """Requests that were counted for a day stay counted when the clock leaves that day and returns to it."""
    pace = Pace(None, 10)
    state, _ = granted(AccountState(), pace, 10, NOON)
    state, _ = granted(state, pace, 1, NOON + timedelta(hours=24))
    assert granted(state, pace, 1, NOON)[1] == ()


def test_a_third_day_is_forgotten() -> None:
    """Two days are remembered, whichever way the clock steps between them; a day before those counts anew."""
    state = AccountState("2026-11-22", 4).on("2026-11-23")
    assert (state.sent, state.on("2026-11-22").sent) == (0, 4)
    assert state.on("2026-11-22").on("2026-11-23").sent == 0
    assert state.on("2026-11-24").on("2026-11-22").sent == 0
    assert state.on("2026-11-23") == state


def test_a_clock_set_back_again_and_again_keeps_the_pace() -> None:
    """However often the clock is set back, requests stay an interval apart in the time that really passes."""
    pace, state, utc = Pace(60), AccountState(), NOON
    for _ in range(5):
        state, delays_s = granted(state, pace, 1, utc)
        assert delays_s[0] == pytest.approx(0.0, abs=1e-6)
        state, delays_s = granted(state, pace, 1, utc - timedelta(hours=1))
        assert delays_s == pytest.approx((60 / 57,), abs=1e-6)
        utc += timedelta(seconds=-3600 + 2 * 60 / 57)


@given(st.integers(1, 20), st.lists(st.tuples(st.floats(0, 7200), st.integers(1, 5)), min_size=1, max_size=80))
def test_no_day_holds_one_too_many(limit: int, leases: list[tuple[float, int]]) -> None:
    """However requests arrive over several days, no UTC day is granted more than its limit."""
    state, utc, by_day = AccountState(), LATE, dict[str, int]()
    for pause_s, n in leases:
        utc += timedelta(seconds=pause_s)
        state, delays_s = granted(state, Pace(None, limit), n, utc)
        day = utc.date().isoformat()
        by_day[day] = by_day.get(day, 0) + len(delays_s)
        assert len(delays_s) == n or by_day[day] == limit
    assert max(by_day.values()) <= limit


def test_tickets_are_used_in_their_order() -> None:
    """A leased request leaves when its time has come, not before, each of them once."""
    tickets = Tickets()
    assert tickets.hold(100.0) == Hold(math.inf, "the account's pace")
    tickets.add(100.0, Lease((0.0, 2.0)))
    assert tickets.hold(100.0) is None
    tickets.sent()
    assert tickets.hold(100.0) == Hold(2.0, "requests per minute")
    assert tickets.hold(102.0) is None
    tickets.sent()
    assert tickets.hold(1e9) == Hold(math.inf, "the account's pace")


def test_an_empty_lease_says_that_the_day_is_spent() -> None:
    """Tickets remember that no more could be leased, until some could."""
    tickets, spent = Tickets(), []
    for delays_s in ((0.0,), (), (0.0,)):
        tickets.add(100.0, Lease(delays_s))
        spent.append(tickets.spent)
    assert spent == [False, True, False]


def test_old_tickets_are_not_used() -> None:
    """A ticket of a pace lapses three seconds after its time, is counted once, and can be given back."""
    tickets = Tickets()
    lease = grant(AccountState(), Pace(60), 3, NOON)[1]
    assert lease.keep_s == 3.0
    tickets.add(100.0, lease)
    assert tickets.hold(103.0) is None
    assert (len(tickets.times_s), tickets.stale) == (3, 0)
    assert tickets.hold(103.001) is None
    assert (len(tickets.times_s), tickets.stale) == (2, 1)
    assert tickets.hold(999.0) == Hold(math.inf, "the account's pace")
    assert tickets.take_unused() == 3
    assert tickets.take_unused() == 0


def test_tickets_without_a_pace_do_not_grow_old() -> None:
    """Where no pace holds, leave to send is kept however long nothing was sent."""
    tickets = Tickets()
    tickets.add(100.0, grant(AccountState(), Pace(None, 10), 1, NOON)[1])
    assert tickets.hold(1e9) is None
    assert tickets.take_unused() == 0


def test_a_ticket_is_waited_for_however_short() -> None:
    """Half a second too early is too early."""
    tickets = Tickets()
    tickets.add(100.0, Lease((0.5,)))
    assert tickets.hold(100.0) == Hold(0.5, "requests per minute")


def test_yesterdays_tickets_mean_nothing_today() -> None:
    """What was leased, lapsed or spent on another UTC day is counted there: it is neither used, nor given back."""
    tickets, day = Tickets(), grant(AccountState(), Pace(60), 2, NOON)[1]
    assert day.day == "2026-11-22"
    tickets.add(100.0, day)
    tickets.hold(103.5)
    tickets.turn("2026-11-22")
    tickets.turn("")
    assert (len(tickets.times_s), tickets.stale) == (1, 1)
    tickets.spent = True
    tickets.turn("2026-11-23")
    assert (len(tickets.times_s), tickets.spent, tickets.take_unused()) == (0, False, 0)


def sent_by_a_run(limit: int, arrivals_s: list[float]) -> list[float]:
    """When requests that arrive at these times leave a run that leases ahead as the pool does."""
    pace, state, tickets, now_s, sent_s = Pace(limit), AccountState(), Tickets(), 0.0, list[float]()
    batch = max(1, limit // 60)
    for arrival_s in arrivals_s:
        now_s = max(now_s, arrival_s)
        while hold := tickets.hold(now_s):
            now_s += hold.wait_s if math.isfinite(hold.wait_s) else 0.0
            if len(tickets.times_s) < batch / 2:
                state, lease = grant(state, pace, batch, NOON + timedelta(seconds=now_s))
                tickets.add(now_s, lease)
        tickets.sent()
        sent_s.append(now_s)
        if len(tickets.times_s) < batch / 2:
            state, lease = grant(state, pace, batch, NOON + timedelta(seconds=now_s))
            tickets.add(now_s, lease)
    return sent_s


@pytest.mark.parametrize("limit", [40, 60, 120, 300])
def test_a_run_keeps_its_minute_after_a_pause(limit: int) -> None:
    """Leases that grew old during a pause do not let more than the limit into the minute after it."""
    assert most_in_a_minute(sent_by_a_run(limit, [0.0] * limit + [500.0] * 2 * limit)) <= limit


@pytest.mark.parametrize("limit", [1, 2, 5, 10, 15])
def test_a_slow_run_keeps_its_minute_after_a_pause(limit: int) -> None:
    """The same where a minute is only a few requests and one more is too many."""
    assert most_in_a_minute(sent_by_a_run(limit, [0.0] * limit + [500.0] * 2 * limit)) <= limit


# Cooldown


@pytest.mark.parametrize(
    ("asked_s", "jitter", "pause_s"),
    [
        pytest.param(None, 0.0, DEFAULT_COOLDOWN_S, id="not said"),
        pytest.param(None, 1.0, DEFAULT_COOLDOWN_S * 1.1, id="a tenth of jitter"),
        pytest.param(40.0, 0.0, 40.0, id="said"),
        pytest.param(0.0, 0.0, 1.0, id="at least a second"),
        pytest.param(QUOTA_HINT_S, 0.0, QUOTA_HINT_S, id="an hour"),
        pytest.param(ABSURD_S, 0.0, QUOTA_HINT_S, id="at most an hour"),
    ],
)
def test_how_long_everybody_pauses(asked_s: float | None, jitter: float, pause_s: float) -> None:
    """A rate limit pauses everybody as long as was asked, within bounds, and never less than asked."""
    cooldown = Cooldown()
    assert cooldown.hold(100.0, 0) is None
    assert cooldown.begin(100.0, 99.0, asked_s, jitter)
    hold = cooldown.hold(100.0, 0)
    assert hold is not None
    assert hold.wait_s == pytest.approx(pause_s)
    assert hold.reason == "cooldown after a rate limit"
    assert cooldown.hold(100.0 + pause_s - 0.01, 0) is not None
    assert cooldown.hold(100.0 + pause_s + 0.01, 0) is None


def test_many_refusals_are_one_episode() -> None:
    """Answers to requests that were under way when the pause began belong to it; a later request begins a new one."""
    cooldown = Cooldown()
    assert cooldown.begin(100.0, 90.0, 20.0, 0.0)
    assert not cooldown.begin(101.0, 95.0, 20.0, 0.0)
    assert not cooldown.begin(102.0, 100.0, 20.0, 0.0)
    assert cooldown.barren == 1
    assert cooldown.begin(103.0, 100.001, 20.0, 0.0)
    assert cooldown.barren == 2


def test_a_pause_is_never_shortened() -> None:
    """A later answer may prolong the pause, never cut it short."""
    cooldown = Cooldown()
    cooldown.begin(100.0, 90.0, 60.0, 0.0)
    cooldown.begin(101.0, 91.0, 5.0, 0.0)
    assert cooldown.until_s == 160.0
    cooldown.begin(102.0, 92.0, 100.0, 0.0)
    assert cooldown.until_s == 202.0


def test_one_request_tries_the_way() -> None:
    """After the pause a single request leaves, and the others follow its success, not that of an older one."""
    cooldown = Cooldown()
    cooldown.begin(100.0, 90.0, 5.0, 0.0)
    assert cooldown.hold(106.0, 0) is None
    assert cooldown.hold(106.0, 1) == Hold(math.inf, "one request tries the way after a cooldown")
    assert cooldown.hold(105.0, 0) is None
    for sent_s in (99.0, 100.0):
        cooldown.succeeded(sent_s)
        assert cooldown.hold(106.0, 1) is not None
    cooldown.succeeded(106.0)
    assert cooldown.hold(106.0, 1) is None


def pauses_of(asked_s: float | None, episodes: int) -> list[float]:
    """The pauses of episodes that follow one another without a success."""
    cooldown, now_s, pauses_s = Cooldown(), 100.0, list[float]()
    for _ in range(episodes):
        assert cooldown.begin(now_s + 1, now_s + 0.5, asked_s, 0.0)
        pauses_s.append(cooldown.until_s - now_s - 1)
        now_s = cooldown.until_s
    return pauses_s


@pytest.mark.parametrize(
    ("asked_s", "pauses_s"),
    [
        pytest.param(None, [15, 30, 60, 120, 120, 120], id="not said"),
        pytest.param(1.0, [1, 2, 4, 8, 16, 32], id="a second"),
        pytest.param(100.0, [100, 120, 120, 120, 120, 120], id="grown pauses have a top"),
        pytest.param(600.0, [600] * 6, id="never less than asked"),
    ],
)
def test_pauses_grow_while_they_do_not_help(asked_s: float | None, pauses_s: list[float]) -> None:
    """A server that goes on refusing after the pause it asked for gets a pause twice as long, up to two minutes."""
    assert pauses_of(asked_s, 6) == pauses_s


def test_a_success_makes_pauses_short_again() -> None:
    """After a success the next rate limit is a first one."""
    cooldown = Cooldown()
    cooldown.begin(100.0, 90.0, None, 0.0)
    cooldown.begin(120.0, 119.0, None, 0.0)
    cooldown.succeeded(155.0)
    assert (cooldown.barren, cooldown.barren_since_s) == (0, math.inf)
    cooldown.begin(200.0, 190.0, None, 0.0)
    assert cooldown.until_s == 215.0


def test_when_pauses_are_hopeless() -> None:
    """Five pauses over at least fifteen minutes without a success mean the day, fewer or quicker ones the minute."""
    cooldown = Cooldown()
    for number in range(BARREN_COOLDOWNS):
        assert not cooldown.hopeless(1e9)
        cooldown.begin(100.0 + number, 99.5 + number + 0.1 * (number == 0), 1.0, 0.0)
    assert cooldown.barren == BARREN_COOLDOWNS
    assert not cooldown.hopeless(100.0 + BARREN_S - 0.01)
    assert cooldown.hopeless(100.0 + BARREN_S)
    cooldown.succeeded(1000.0)
    assert not cooldown.hopeless(1e9)


# Concurrency


def good_round(adaptive: Adaptive) -> float:
    """One success for every request that may be in flight, with all slots taken; the limit after it."""
    for _ in range(int(adaptive.limit)):
        adaptive.succeeded(int(adaptive.limit))
    return adaptive.limit


def test_one_until_the_first_success() -> None:
    """A run begins with a single request, so a bad key costs one."""
    adaptive = Adaptive(8)
    assert adaptive.hold(0) is None
    assert adaptive.hold(1) == Hold(math.inf, "concurrency")
    assert adaptive.succeeded(1)
    assert adaptive.hold(1) is None
    assert adaptive.hold(2) is not None


def test_doubling_every_round() -> None:
    """Before the first cut every round of successes doubles the limit, up to the ceiling."""
    adaptive = Adaptive(20)
    assert [good_round(adaptive) for _ in range(6)] == [2, 4, 8, 16, 20, 20]


def test_five_percent_a_round_after_a_cut() -> None:
    """A cut takes a fifth, and from then on a round adds a twentieth."""
    adaptive = Adaptive(100, limit=40)
    assert adaptive.cut(0.8, "rate limited")
    assert (adaptive.limit, adaptive.reason) == (32, "rate limited")
    assert good_round(adaptive) == pytest.approx(32 * 1.05)
    assert good_round(adaptive) == pytest.approx(32 * 1.05 + 33 * 0.05)


def test_growth_needs_use() -> None:
    """Successes at a small part of the limit prove nothing about the rest of it."""
    adaptive = Adaptive(100, limit=10)
    assert not adaptive.succeeded(7)
    assert adaptive.limit == 10
    assert adaptive.succeeded(8)
    assert adaptive.limit == 11


def test_a_transient_failure_stops_growth_for_a_round() -> None:
    """After a server error as many successes as the limit must come before it grows again; it is not cut."""
    adaptive = Adaptive(100, limit=4)
    adaptive.slow()
    assert adaptive.limit == 4
    for _ in range(4):
        assert not adaptive.succeeded(4)
    assert adaptive.limit == 4
    assert adaptive.succeeded(4)
    assert adaptive.limit == 5


def test_a_restart_begins_at_one_and_doubles() -> None:
    """After an outage the limit is found anew, quickly."""
    adaptive = Adaptive(8, limit=6)
    adaptive.cut(0.8, "rate limited")
    adaptive.slow()
    assert adaptive.restart("back")
    assert (adaptive.limit, adaptive.reason) == (1, "back")
    assert [good_round(adaptive) for _ in range(3)] == [2, 4, 8]


def test_only_changes_are_told() -> None:
    """Growth that does not reach the next whole request, and a cut at one, are no news."""
    adaptive = Adaptive(100, limit=10)
    adaptive.cut(0.9, "rate limited")
    assert not adaptive.succeeded(9)
    assert adaptive.reason == "rate limited"
    floor = Adaptive(8)
    assert not floor.cut(0.8, "rate limited")
    assert floor.reason == "start"
    assert not floor.restart("back")


@given(
    st.integers(1, 64),
    st.lists(st.sampled_from(["good", "idle", "cut", "halve", "slow", "restart"]), max_size=200),
)
def test_concurrency_keeps_its_bounds(ceiling: int, events: list[str]) -> None:
    """Whatever happens, the limit stays between one and the ceiling, and one request may always be sent."""
    adaptive = Adaptive(ceiling)
    for event in events:
        before = int(adaptive.limit)
        changed = {
            "good": lambda: adaptive.succeeded(int(adaptive.limit)),
            "idle": lambda: adaptive.succeeded(1),
            "cut": lambda: adaptive.cut(0.8, "c"),
            "halve": lambda: adaptive.cut(0.5, "h"),
            "slow": lambda: bool(adaptive.slow()),  # type: ignore[func-returns-value]
            "restart": lambda: adaptive.restart("r"),
        }[event]()
        assert 1 <= adaptive.limit <= ceiling
        assert changed == (int(adaptive.limit) != before)
        assert adaptive.hold(0) is None
        assert adaptive.hold(ceiling) is not None


# Outages


def opened(threshold: int = 5, now_s: float = 100.0) -> Breaker:
    breaker = Breaker(threshold)
    assert [breaker.failed(now_s) for _ in range(threshold)] == [False] * (threshold - 1) + [True]
    return breaker


def test_the_breaker_opens_at_its_threshold() -> None:
    """So many failures in a row hold everything; not one fewer, and it is told once."""
    breaker = Breaker(5)
    for _ in range(4):
        assert not breaker.failed(100.0)
    assert breaker.hold(100.0) is None
    assert breaker.open_for_s(200.0) == 0.0
    assert breaker.failed(100.0)
    assert breaker.hold(100.0) == Hold(PROBE_PAUSES_S[0], "outage")
    assert not breaker.failed(101.0)
    assert breaker.open_for_s(160.0) == 60.0


def test_a_success_resets_the_count() -> None:
    """Failures count only while nothing succeeds."""
    breaker = Breaker(5)
    for _ in range(4):
        breaker.failed(100.0)
    assert not breaker.succeeded()
    for _ in range(4):
        assert not breaker.failed(101.0)
    assert breaker.failed(102.0)


def test_one_probe_at_a_time() -> None:
    """While the breaker is open one request finds out whether the outage is over; no second one leaves with it."""
    breaker = opened()
    assert breaker.hold(104.99) is not None
    assert breaker.hold(105.0) is None
    breaker.probe()
    assert breaker.hold(1e9) == Hold(math.inf, "outage, a probe is out")


def test_pauses_between_probes_grow_to_a_minute() -> None:
    """Each probe that fails makes the pause longer, up to the last of the list, and the outage keeps its beginning."""
    breaker, now_s, pauses_s = opened(), 100.0, []
    for _ in range(7):
        hold = breaker.hold(now_s)
        assert hold is not None
        pauses_s.append(hold.wait_s)
        now_s += hold.wait_s
        breaker.probe()
        breaker.failed(now_s)
        breaker.probe_ended(now_s)
    assert pauses_s == [5, 10, 20, 40, 60, 60, 60]
    assert breaker.open_for_s(now_s) == sum(pauses_s)


def test_a_success_closes_the_breaker() -> None:
    """One success ends the outage, once; the next outage starts with the short pause again."""
    breaker = opened()
    breaker.probe()
    breaker.probe_ended(110.0)
    breaker.probe()
    assert breaker.succeeded()
    assert not breaker.succeeded()
    assert not breaker.probing
    breaker.probe_ended(130.0)
    assert breaker.hold(130.0) is None
    assert breaker.open_for_s(999.0) == 0.0
    again = [breaker.failed(200.0) for _ in range(5)]
    assert again[-1]
    assert breaker.hold(200.0) == Hold(PROBE_PAUSES_S[0], "outage")


# The retry budget


def test_retries_cost_and_successes_repay() -> None:
    """A full bucket pays for a hundred retries; then one more waits for time or for five successes."""
    budget = RetryBudget()
    for _ in range(int(RETRY_TOKENS / RETRY_COST)):
        assert budget.hold(50.0) is None
        budget.sent(50.0)
    assert budget.tokens == 0
    assert budget.hold(50.0) == Hold(RETRY_COST / budget.per_second, "retry budget")
    for _ in range(4):
        budget.succeeded()
    assert budget.hold(50.0) == Hold(1 / budget.per_second, "retry budget")
    budget.succeeded()
    assert budget.hold(50.0) is None


def test_a_retry_waits_ten_seconds_for_its_tokens() -> None:
    """An empty bucket lets one retry through every ten seconds, and tells how long is left."""
    budget = RetryBudget(tokens=0)
    assert budget.hold(100.0) == Hold(10.0, "retry budget")
    assert budget.hold(104.0) == Hold(6.0, "retry budget")
    assert budget.hold(109.99) is not None
    assert budget.hold(110.0) is None


def test_the_bucket_has_a_top() -> None:
    """Neither successes nor a quiet hour save up more than a full bucket."""
    budget = RetryBudget()
    budget.succeeded()
    assert budget.tokens == RETRY_TOKENS
    budget.hold(0.0)
    budget.hold(3600.0)
    assert budget.tokens == RETRY_TOKENS


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["sent", "succeeded"])), max_size=150))
def test_no_retry_is_lost_for_ever(events: list[tuple[float, str]]) -> None:
    """Whatever was spent before, the wait is finite, and after it the retry may go."""
    budget, now_s = RetryBudget(tokens=20), 1000.0
    for pause_s, event in events:
        now_s += pause_s
        if event == "sent":
            budget.sent(now_s)
        else:
            budget.succeeded()
        assert budget.tokens <= RETRY_TOKENS
    if hold := budget.hold(now_s):
        assert 0 < hold.wait_s < math.inf
        assert budget.hold(now_s + hold.wait_s / 2) is not None
        assert budget.hold(now_s + hold.wait_s) is None


def test_a_clock_that_stands_still_takes_nothing() -> None:
    """Time that goes backwards takes no tokens away."""
    budget = RetryBudget(tokens=3)
    budget.hold(100.0)
    budget.hold(50.0)
    assert budget.tokens == 3


# Money and requests


def test_the_request_limit_is_exact() -> None:
    """As many requests as allowed are sent, not one more, and the message names the flag."""
    budget = Budget(max_requests=2)
    budget.sent(0.0)
    assert budget.spent(0.0) is None
    budget.sent(0.0)
    assert "--max-requests" in (budget.spent(0.0) or "")


def test_the_cost_limit_is_exact() -> None:
    """A picture that just fits is bought, cents that binary numbers cannot say included; the next one is not."""
    budget = Budget(max_cost_usd=0.3)
    for _ in range(3):
        assert budget.spent(0.1) is None
        budget.sent(0.1)
    assert "--max-cost" in (budget.spent(0.1) or "")
    assert budget.spent(0.0) is None


def test_the_dearer_picture_is_refused() -> None:
    """What is asked is whether this picture fits, not whether something is left."""
    budget = Budget(max_cost_usd=1.0, spent_usd=0.9)
    assert budget.spent(0.1) is None
    assert budget.spent(0.11) is not None


def test_refused_requests_give_their_money_back() -> None:
    """A request that surely cost nothing frees its money, but it was a request."""
    budget = Budget(max_cost_usd=0.1, max_requests=2)
    budget.sent(0.1)
    budget.refused(0.1)
    assert budget.spent(0.1) is None
    budget.sent(0.1)
    budget.refused(0.1)
    assert "--max-requests" in (budget.spent(0.1) or "")


def test_requests_that_never_left_cost_nothing() -> None:
    """A request that was counted and did not leave gives back its money and itself."""
    budget = Budget(max_cost_usd=0.5, max_requests=1)
    budget.sent(0.5)
    budget.unsent(0.5)
    assert (budget.requests, budget.spent_usd) == (0, 0.0)
    assert budget.spent(0.5) is None


@pytest.mark.parametrize("limit", [{"max_cost_usd": 0.0}, {"max_requests": 0}], ids=["money", "requests"])
def test_zero_is_a_limit(limit: dict[str, float]) -> None:
    """A limit of nothing lets nothing through; no limit lets everything through."""
    assert Budget(**limit).spent(0.01) is not None  # type: ignore[arg-type]
    assert Budget(spent_usd=1e9, requests=10**9).spent(1e9) is None


# The quota day


@pytest.mark.parametrize(
    ("utc", "jitter", "reset"),
    [
        pytest.param(NOON, 0.0, datetime(2026, 11, 23, 0, 0, 30, tzinfo=UTC), id="at least half a minute after"),
        pytest.param(NOON, 1.0, datetime(2026, 11, 23, 0, 5, 0, tzinfo=UTC), id="at most five minutes after"),
        pytest.param(LATE, 0.5, datetime(2026, 11, 23, 0, 2, 45, tzinfo=UTC), id="a second before"),
        pytest.param(datetime(2026, 11, 23, tzinfo=UTC), 0.0, datetime(2026, 11, 24, 0, 0, 30, tzinfo=UTC), id="at"),
        pytest.param(
            datetime(2028, 2, 28, 1, tzinfo=UTC), 0.0, datetime(2028, 2, 29, 0, 0, 30, tzinfo=UTC), id="leap day"
        ),
        pytest.param(
            datetime(2026, 12, 31, 1, tzinfo=UTC), 0.0, datetime(2027, 1, 1, 0, 0, 30, tzinfo=UTC), id="new year"
        ),
    ],
)
def test_the_next_reset(utc: datetime, jitter: float, reset: datetime) -> None:
    """A quota day ends at 00:00 UTC, and a little later for clocks that disagree."""
    assert next_reset(utc, jitter) == reset


def test_the_server_is_believed_over_the_count() -> None:
    """After a quota answer nothing leaves before the next day, and then it does."""
    day = Day()
    assert day.hold(NOON) is None
    day.close(NOON, 0.5)
    assert day.hold(NOON) == Hold(12 * 3600 + 165, "the day's quota is spent")
    assert day.hold(datetime(2026, 11, 23, 0, 2, 44, 999999, tzinfo=UTC)) is not None
    assert day.hold(datetime(2026, 11, 23, 0, 2, 45, tzinfo=UTC)) is None
    assert day.closed_until is None


def test_a_clock_that_steps_back_does_not_open_the_day() -> None:
    """A clock that is set back does not make the pause end early."""
    day = Day()
    day.close(NOON, 0.0)
    assert day.hold(NOON - timedelta(hours=24)) is not None
    assert day.hold(NOON + timedelta(seconds=1)) == Hold(12 * 3600 + 29, "the day's quota is spent")


@pytest.mark.parametrize(
    ("utc", "skew_s", "closed_until"),
    [
        pytest.param("2026-11-22T12:00:00", 0, "2026-11-23T00:00:30", id="clocks agree"),
        pytest.param("2026-11-22T12:00:00", 3600, "2026-11-22T23:00:30", id="the server is ahead"),
        pytest.param("2026-11-22T12:00:00", -3600, "2026-11-23T01:00:30", id="the server is behind"),
        pytest.param("2026-11-22T23:59:00", 120, "2026-11-23T23:58:30", id="the server's day has begun"),
        pytest.param("2026-11-23T00:01:00", -120, "2026-11-23T00:02:30", id="the server's day is yesterday"),
    ],
)
def test_the_day_is_the_servers(utc: str, skew_s: float, closed_until: str) -> None:
    """The quota day ends at midnight by the server's clock, told in the time of ours."""
    day = Day(skew=timedelta(seconds=skew_s))
    day.close(datetime.fromisoformat(utc).replace(tzinfo=UTC), 0.0)
    assert day.closed_until == datetime.fromisoformat(closed_until).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("skew_s", "closed_until"),
    [
        pytest.param(0, "2026-11-23T00:00:30", id="clocks agree"),
        pytest.param(3600, "2026-11-23T00:00:30", id="the server is ahead"),
        pytest.param(-3600, "2026-11-23T01:00:30", id="the server is behind"),
    ],
)
def test_a_day_that_our_own_count_closes_opens_by_both_clocks(skew_s: float, closed_until: str) -> None:
    """Our count begins anew at our midnight, the server's at its own: the later of the two holds."""
    day = Day(skew=timedelta(seconds=skew_s))
    day.close_by_count(NOON, 0.0)
    assert day.closed_until == datetime.fromisoformat(closed_until).replace(tzinfo=UTC)


def test_the_numbers_that_are_promised() -> None:
    """Thresholds that the documentation names are what it says."""
    assert (BARREN_COOLDOWNS, BARREN_S, DEFAULT_COOLDOWN_S, MAX_GROWN_COOLDOWN_S) == (5, 900.0, 15.0, 120.0)
    assert (RETRY_TOKENS, RETRY_COST, RetryBudget().per_second) == (500.0, 5.0, 0.5)
    assert (QUOTA_HINT_S, ABSURD_S) == (3600.0, 48 * 3600.0)


# All gates


def test_the_order_of_the_gates() -> None:
    """Day, outage, cooldown, concurrency, minute: the first that is closed is the reason."""
    shut, reasons = Gates(Breaker(1), Adaptive(1)), []
    shut.day.close(NOON, 0.0)
    shut.breaker.failed(100.0)
    shut.cooldown.begin(100.0, 99.0, None, 0.0)
    for open_next in (
        lambda: setattr(shut, "day", Day()),
        lambda: shut.breaker.succeeded(),
        lambda: setattr(shut, "cooldown", Cooldown()),
        lambda: setattr(shut, "adaptive", Adaptive(2, limit=2)),
        lambda: shut.tickets.add(100.0, Lease((0.0,))),
    ):
        hold = shut.hold(101.0, NOON, 1)
        assert hold is not None
        reasons.append(hold.reason)
        open_next()
    assert shut.hold(101.0, NOON, 1) is None
    assert reasons == [
        "the day's quota is spent",
        "outage",
        "cooldown after a rate limit",
        "concurrency",
        "the account's pace",
    ]


def test_what_a_request_takes() -> None:
    """Every request takes a ticket, and one of those that the server says remain."""
    free = Gates.of(5)
    free.adaptive.limit = 2.0
    free.tickets.add(100.0, Lease((0.0, 1.5, 1.5)))
    free.allotment.hear(Told(2, 60.0), 99.0, 100.0)
    free.sent(100.0)
    assert free.hold(100.0, NOON, 1) == Hold(1.5, "requests per minute")
    free.sent(100.0)
    assert free.hold(102.0, NOON, 1) == Hold(58.0, "the server's own limit")


def test_a_local_time_is_not_utc() -> None:
    """Dates with an offset are compared as instants, not as digits."""
    tokyo = datetime(2026, 11, 22, 21, tzinfo=timezone(timedelta(hours=9)))
    assert retry_after_s({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, tokyo) == 30.0
