"""The numbers of a run and its verdict: sums, groups, exit code, and the words for the morning."""

from __future__ import annotations

import math
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import attempt, entry, failed, job, picture

from batchgen.events import Finished, Left, Paced, Tried
from batchgen.model import Billed, ExitCode, Failure, Outcome
from batchgen.summary import (
    FailureGroup,
    Inference,
    JobCounts,
    Summary,
    Tally,
    exit_code,
    percentile,
    render,
    verdict,
)

# Tally
from batchgen.text import duration


def test_pictures_are_counted() -> None:
    """Done jobs, their pictures and the server's seconds add up; unknown seconds are left out."""
    tally = Tally()
    tally(Finished(entry(images=(picture(0, 1.0), picture(1, 3.0), picture(2, None)))))
    tally(Finished(entry(images=(picture(0, 2.0),))))
    assert (tally.done, tally.failed, tally.uncertain, tally.pictures) == (2, 0, 0, 4)
    assert sorted(tally.inference_s) == [1.0, 2.0, 3.0]
    assert tally.inference() == Inference(2.0, 3.0, 3.0)
    assert tally.groups == {}


def test_no_seconds_are_invented() -> None:
    """A run whose server told no seconds has no percentiles."""
    tally = Tally()
    tally(Finished(entry(images=(picture(0, None),))))
    assert tally.inference() is None


def test_jobs_without_a_picture_are_grouped_by_their_last_cause() -> None:
    """Jobs that ended alike but for numbers are one group; outcome, cause and words keep groups apart."""
    tally = Tally()
    refused = failed(Failure.BAD_REQUEST, message="too wide: 9999")
    also = failed(Failure.BAD_REQUEST, 2, message="too wide: 70000")
    lost = failed(Failure.NO_ANSWER, 1)
    for id, outcome, attempts in (
        ("a", Outcome.FAILED, (refused,)),
        ("b", Outcome.FAILED, (lost, also)),
        ("c", Outcome.UNCERTAIN, (refused,)),
        ("d", Outcome.UNCERTAIN, (lost,)),
        ("e", Outcome.FAILED, ()),
        ("f", Outcome.FAILED, (failed(Failure.TLS, message=None),)),
        ("g", Outcome.FAILED, (failed(Failure.BAD_REQUEST, message="no mask"),)),
    ):
        tally(Finished(entry(job=id, outcome=outcome, attempts=attempts, images=())))
    assert (tally.done, tally.failed, tally.uncertain, tally.pictures) == (0, 5, 2, 0)
    assert list(tally.groups.values()) == [
        FailureGroup("bad_request", Outcome.FAILED, 2, "too wide: 9999", ["a", "b"]),
        FailureGroup("bad_request", Outcome.UNCERTAIN, 1, "too wide: 9999", ["c"]),
        FailureGroup("no_answer", Outcome.UNCERTAIN, 1, "it was no_answer", ["d"]),
        FailureGroup("internal", Outcome.FAILED, 1, "", ["e"]),
        FailureGroup("tls", Outcome.FAILED, 1, "", ["f"]),
        FailureGroup("bad_request", Outcome.FAILED, 1, "no mask", ["g"]),
    ]


def test_failures_of_earlier_runs_are_grouped_but_not_this_runs() -> None:
    """A job that ended badly in an earlier run stands in a group and is not counted as one of this run."""
    tally = Tally()
    tally.without_picture(entry(outcome=Outcome.FAILED, attempts=(failed(Failure.BAD_REQUEST),)))
    assert [group.count for group in tally.groups.values()] == [1]
    assert tally.failed == 0


def test_groups_do_not_grow_with_the_manifest() -> None:
    """A group names its first twenty jobs and counts them all."""
    tally = Tally()
    for number in range(30):
        tally.without_picture(entry(job=str(number), outcome=Outcome.FAILED, attempts=(failed(Failure.REDIRECT),)))
    (group,) = tally.groups.values()
    assert group.count == 30
    assert group.jobs == [str(number) for number in range(20)]


MONEY = [
    pytest.param(Billed.YES, 0.5, 1, 0.5, 0.0, id="paid"),
    pytest.param(Billed.YES, 0.5, 3, 1.5, 0.0, id="three pictures"),
    pytest.param(Billed.MAYBE, 0.5, 1, 0.0, 0.5, id="perhaps paid"),
    pytest.param(Billed.NO, 0.5, 1, 0.0, 0.0, id="not paid"),
]


@pytest.mark.parametrize(("billed", "price_usd", "pictures", "cost_usd", "exposure_usd"), MONEY)
def test_money_is_told_apart(
    billed: Billed, price_usd: float, pictures: int, cost_usd: float, exposure_usd: float
) -> None:
    """What was paid, what may have been, and what was not are different numbers."""
    tally = Tally()
    tally(Tried(job(), attempt(billed=billed), price_usd, pictures))
    assert (tally.requests, tally.priced, tally.cost_usd, tally.exposure_usd) == (1, True, cost_usd, exposure_usd)


def test_an_unknown_price_is_no_price() -> None:
    """A request without a known price is a request that cost is not known of."""
    tally = Tally()
    tally(Tried(job(), attempt(), None))
    assert (tally.requests, tally.priced, tally.cost_usd) == (1, False, 0.0)


def test_retries_are_requests_after_the_first() -> None:
    """Every attempt is a request, and those that repeat one of this run are retries; a later run's first is none."""
    tally = Tally()
    for n, again in ((1, False), (2, True), (3, True), (4, False)):
        tally(Tried(job(), attempt(n), None, again=again))
    assert (tally.requests, tally.retries) == (4, 2)


def test_jobs_left_over_are_counted_by_cause() -> None:
    """What stays pending is told by what stopped it; a change of pace is nobody's failure."""
    tally = Tally()
    for failure in (Failure.UNAVAILABLE, Failure.TLS, Failure.UNAVAILABLE):
        tally(Left(job(), failure, "no"))
    tally(Paced("slowly"))
    assert tally.left == {"unavailable": 2, "tls": 1}
    assert tally == Tally(left={"unavailable": 2, "tls": 1})


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(1, 100))
def test_percentiles_are_nearest_rank(values: list[float], percent: int) -> None:
    """A percentile is the least value that at least this part of the values does not exceed."""
    ordered = sorted(values)
    naive = next(v for v in ordered if sum(w <= v for w in ordered) * 100 >= percent * len(ordered))
    assert percentile(ordered, percent / 100) == naive


@pytest.mark.parametrize(
    ("count", "p50", "p95"), [(1, 1, 1), (2, 1, 2), (3, 2, 3), (19, 10, 19), (20, 10, 19), (21, 11, 20), (100, 50, 95)]
)
def test_percentiles_of_counted_values(count: int, p50: float, p95: float) -> None:
    """Of the values 1 to n the percentile is the rank itself, without rounding errors at whole ranks."""
    ordered = [float(n) for n in range(1, count + 1)]
    assert (percentile(ordered, 0.5), percentile(ordered, 0.95)) == (p50, p95)
    assert percentile(ordered, 1.0) == count
    assert percentile(ordered, 0.0) == 1


# The exit code

ORDER = [1, 7, 6, 2, 129, 130, 143, 4, 3]
SIGNALS = {129, 130, 143}
PAIRS = [(one, other) for one, other in product(ORDER, ORDER) if one == other or not {one, other} <= SIGNALS]
_ALL_DONE = JobCounts(9, 9, 0, 0, 0)


def counts_for(*codes: int) -> JobCounts:
    """Counts that make 4 and 3 hold where they are among the codes."""
    failed, pending = (2 if 3 in codes else 0), (1 if 4 in codes else 0)
    return JobCounts(9, 9 - failed - pending, failed, 0, pending)


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=str)
def test_which_of_two_codes_holds(one: int, other: int) -> None:
    """Where several codes hold the worst is told: 1, 7, 6, 2, signal, 4, 3, in whatever order they came."""
    expected = min(one, other, key=ORDER.index)
    stops = [ExitCode(code) for code in (one, other) if code not in (3, 4)]
    assert exit_code(counts_for(one, other), stops) == expected


@pytest.mark.parametrize("signal", sorted(SIGNALS))
def test_a_signal_is_its_own_code(signal: int) -> None:
    """Each signal has its code, and it holds although work is left and jobs failed."""
    assert exit_code(counts_for(3, 4), [ExitCode(signal), ExitCode.WORK_LEFT]) == signal
    assert exit_code(_ALL_DONE, [ExitCode(signal)]) == signal


@pytest.mark.parametrize(
    ("failed", "uncertain", "pending", "stops", "code"),
    [
        pytest.param(0, 0, 0, [], 0, id="all done"),
        pytest.param(1, 0, 0, [], 3, id="one failed"),
        pytest.param(0, 1, 0, [], 3, id="one uncertain"),
        pytest.param(0, 0, 1, [], 4, id="one pending"),
        pytest.param(1, 1, 1, [], 4, id="all kinds"),
        pytest.param(0, 0, 1, [ExitCode.WORK_LEFT], 4, id="a limit"),
        pytest.param(0, 0, 0, [ExitCode.WORK_LEFT], 0, id="a limit when nothing was left"),
        pytest.param(1, 0, 0, [ExitCode.WORK_LEFT], 3, id="a limit when only failures were left"),
    ],
)
def test_the_code_follows_the_counts(
    failed: int, uncertain: int, pending: int, stops: list[ExitCode], code: int
) -> None:
    """Without a reason to stop, the counts alone say how the run ended."""
    done = 9 - failed - uncertain - pending
    assert exit_code(JobCounts(9, done, failed, uncertain, pending), stops) == code


# Words


SOME = JobCounts(selected=10, done=4, failed=2, uncertain=1, pending=3)
VERDICTS = [
    pytest.param(ExitCode.OK, 0, "nothing to do: 4 of 10 jobs are done", id="nothing made"),
    pytest.param(ExitCode.OK, 4, "4 of 10 jobs are done", id="done"),
    pytest.param(
        ExitCode.INCOMPLETE,
        4,
        "finished, but without a picture for 3 of 10 jobs; to try them again: --retry failed --retry uncertain",
        id="incomplete",
    ),
    pytest.param(ExitCode.WORK_LEFT, 4, "3 of 10 jobs are left: why; run the same command again", id="left"),
    pytest.param(ExitCode.ACCOUNT, 4, "stopped, the account was refused: why; 3 of 10 jobs are left", id="account"),
    pytest.param(
        ExitCode.USAGE, 4, "stopped, the request or its settings are wrong: why; 3 of 10 jobs are left", id="usage"
    ),
    pytest.param(
        ExitCode.STORAGE,
        4,
        "stopped, storage failed: why; 3 of 10 jobs are left, then run the same command again",
        id="storage",
    ),
    pytest.param(ExitCode.INTERNAL, 4, "stopped by an error in batchgen: why; 3 of 10 jobs are left", id="internal"),
    pytest.param(ExitCode.SIGTERM, 4, "stopped: why; 3 of 10 jobs are left, run the same command again", id="signal"),
]


@pytest.mark.parametrize(("code", "made", "sentence"), VERDICTS)
def test_the_verdict_is_one_sentence(code: ExitCode, made: int, sentence: str) -> None:
    """The verdict says what happened, why, and what to do, with the counts of the selected jobs."""
    assert verdict(code, SOME, made, ["why", "and more"]) == sentence
    assert verdict(code, SOME, made, []) == sentence.replace(": why", "")


SUMMARY = Summary(
    run="r",
    manifest="m.yaml",
    output="outputs/m",
    exit_code=0,
    verdict="4 of 4 jobs are done",
    started_at="",
    finished_at="",
    wall_s=185.0,
    total=4,
    selected=4,
    done=4,
    failed=0,
    uncertain=0,
    pending=0,
    in_doubt=0,
    made=4,
    requests=4,
    retries=0,
    pictures_per_minute=None,
    inference_s=None,
    cost_usd=None,
    exposure_usd=None,
    failures=[],
)


def test_a_plain_summary() -> None:
    """A run in which all went well is told in four lines, the verdict first, without zeros."""
    assert list(render(SUMMARY)) == [
        "4 of 4 jobs are done",
        "  jobs       4: 4 done",
        "  this run   4 made, 4 requests, 3 min 05 s",
        "  output     outputs/m",
    ]


def test_a_full_summary() -> None:
    """Everything that a person may have to act upon has its line, with names to look for."""
    full = msgspec.structs.replace(
        SUMMARY,
        total=20,
        selected=10,
        done=0,
        failed=5,
        uncertain=1,
        pending=4,
        in_doubt=2,
        retries=3,
        pictures_per_minute=12.34,
        inference_s=Inference(1.0, 2.5, 3.0),
        cost_usd=1.5,
        exposure_usd=0.25,
        failures=[
            FailureGroup("bad_request", Outcome.FAILED, 5, "too wide", list("abcde")),
            FailureGroup("no_answer", Outcome.UNCERTAIN, 1, "gone", ["f"]),
        ],
        left={"unavailable": 3, "tls": 1},
        notices=["look here"],
    )
    assert list(render(full)) == [
        "4 of 4 jobs are done",
        "  jobs       20 (10 selected): 0 done, 5 failed, 1 uncertain, 4 pending (2 in doubt)",
        "  this run   4 made, 4 requests (3 retries), 3 min 05 s, 12.3 pictures a minute",
        "  inference  p50 1.00 s, p95 2.50 s, max 3.00 s",
        "  cost       $1.5000, and $0.2500 may have been paid without a picture",
        "  failed     5 x bad_request: too wide",
        "             a, b, c and 2 more",
        "  uncertain  1 x no_answer: gone",
        "             f",
        "  left over  1 x tls",
        "  left over  3 x unavailable",
        "  note       look here",
        "  output     outputs/m",
    ]


@pytest.mark.parametrize(
    ("count", "line"), [(3, "             a, b, c"), (4, "             a, b, c and 1 more")], ids=["three", "four"]
)
def test_three_jobs_are_named(count: int, line: str) -> None:
    """A group names three jobs and counts the rest."""
    group = FailureGroup("tls", Outcome.FAILED, count, "m", list("abcd")[:count])
    assert list(render(msgspec.structs.replace(SUMMARY, failures=[group])))[4] == line


def test_money_that_cost_nothing_is_told() -> None:
    """A run that is known to have cost nothing says so."""
    free = msgspec.structs.replace(SUMMARY, cost_usd=0.0, exposure_usd=0.0)
    assert "  cost       $0.0000" in render(free)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.0 s"),
        (0.84, "0.8 s"),
        (9.94, "9.9 s"),
        (10.0, "10 s"),
        (42.4, "42 s"),
        (59.4, "59 s"),
        (60.0, "1 min 00 s"),
        (185.0, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (3600.0, "1 h 00 min"),
        (25320.0, "7 h 02 min"),
        (90061.0, "25 h 01 min"),
    ],
    ids=str,
)
def test_durations(seconds: float, shown: str) -> None:
    """Seconds are shown as people say them."""
    assert duration(seconds) == shown


def test_sixty_seconds_are_a_minute() -> None:
    """No duration is shown as 60 seconds."""
    assert duration(59.7) == "1 min 00 s"


@given(st.floats(0, 1e6))
def test_durations_are_near(seconds: float) -> None:
    """What is shown is the duration, to within half of its last unit."""
    shown = duration(seconds).split()
    units = {"s": 1.0, "min": 60.0, "h": 3600.0}
    told = sum(float(number) * units[unit] for number, unit in zip(shown[::2], shown[1::2], strict=True))
    assert math.isclose(told, seconds, abs_tol=60.5 if "h" in shown else 0.51)
