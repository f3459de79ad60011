"""The page without a browser: numbers, comparison, verdict, charts and data, from entries in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import attempt, entries, entry, failed, picture

from batchgen import joblog
from batchgen.joblog import PaceNote
from batchgen.model import Attempt, Billed, Entry, Failure, Outcome, Standing, Timings
from batchgen.report import Report, Scene, Stand, Thumb, charts, render
from batchgen.report.charts import Chart
from batchgen.report.charts.scale import bins, clock_ticks, interval, iso, number, ticks, whole_ticks
from batchgen.report.compare import compare, sentence
from batchgen.report.numbers import Day, Numbers, RunNumbers, Spent, began, kind, unix_s
from batchgen.report.rows import Rows
from batchgen.report.verdict import dollars, verdict
from batchgen.summary import Summary

RUN = "20261122T120000Z-aaaa"
LATER = "20261123T120000Z-bbbb"


def done(job: str = "a", run: str = RUN, inference_s: float | None = 1.5, **changes: Any) -> Entry:
    """A job that ended with a picture, five seconds into its run."""
    day = run[6:8]
    told = {
        "job": job,
        "run": run,
        "images": (picture(file=f"images/{job}.png", inference_s=inference_s),),
        "inference_s": inference_s,
        "attempts": (attempt(at=f"2026-11-{day}T12:00:03.000Z"),),
        "finished_at": f"2026-11-{day}T12:00:05.000Z",
    }
    return entry(**(told | changes))


def lost(job: str = "b", failure: Failure = Failure.REFUSED_CONTENT, **changes: Any) -> Entry:
    """A job that ended without a picture."""
    tries = (failed(failure, at="2026-11-22T12:00:03.000Z"),)
    told = {"outcome": Outcome.FAILED, "images": (), "inference_s": None, "attempts": tries, "billed": Billed.NO}
    return done(job, **(told | changes))


def numbers_of(*found: Entry) -> Numbers:
    numbers = Numbers()
    for one in found:
        numbers.add(one)
    return numbers


def scene(**stand: Any) -> Scene:
    told: dict[str, Any] = {
        "name": "fox",
        "made_at": "2026-11-23T08:00:00.000Z",
        "done": 1,
        "failed": 0,
        "uncertain": 0,
    }
    return Scene(Stand(**(told | stand)), "1.2.3")


def page_of(*found: Entry, about: Scene | None = None) -> str:
    report = Report(about or scene(), numbers_of(*found))
    for one in found:
        report.show(one, [Thumb(f"{'ab' * 12}.webp")] * len(one.images))
    return "".join(render(report))


def data_of(page: str) -> Any:
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])


# Numbers


def test_a_run_is_added_up_from_its_entries() -> None:
    """Outcomes, requests, money, inference and the time from first request to last entry."""
    paid = done(cost_usd=0.25, exposure_usd=0.5)
    run = numbers_of(paid, done("c", inference_s=3.0), lost()).runs[RUN]
    assert (run.done, run.failed, run.uncertain, run.requests) == (2, 1, 0, 3)
    assert (run.cost_usd, run.exposure_usd, run.priced) == (0.25, 0.5, True)
    assert (run.wall_s, run.all_inference_s()) == (2.0, [1.5, 3.0])
    assert len(run.finished_s) == 2
    assert list(run.failed_s) == [unix_s("2026-11-22T12:00:04.000Z")]


def test_a_line_that_stands_in_two_logs_counts_once() -> None:
    """Logs may be concatenated; the same job tried again is another line."""
    again = lost(finished_at="2026-11-22T12:00:09.000Z")
    numbers = numbers_of(lost(), lost(), again)
    assert numbers.runs[RUN].failed == 2
    assert numbers.retold == {joblog.key("b", "f1")}


def test_a_picture_that_was_brought_back_was_not_made_again() -> None:
    """Neither the run's count nor the day's grows by what came from superseded/."""
    numbers = numbers_of(done(attempts=(), run=LATER))
    assert (numbers.runs, numbers.days) == ({}, {})


def test_attempts_of_an_earlier_run_do_not_stretch_the_later_one() -> None:
    """A job takes its attempts along; the run that ends it began when its own name says."""
    before = failed(Failure.NO_ANSWER, at="2026-11-22T12:00:00.000Z")
    run = numbers_of(done(run=LATER, attempts=(before, attempt(2, at="2026-11-23T12:00:01.000Z")))).runs[LATER]
    assert (run.wall_s, len(run.failed_s), run.requests) == (4.0, 0, 2)


def test_open_attempts_count_for_the_last_run() -> None:
    """What failed for jobs that are not finished is seen on the timeline; what is in flight has not failed."""
    numbers = numbers_of(done())
    numbers.add_open(failed(Failure.SERVER_ERROR, at="2026-11-22T12:00:04.000Z"), RUN)
    numbers.add_open(failed(Failure.IN_DOUBT, at="2026-11-22T12:00:04.000Z"), RUN)
    numbers.add_open(failed(Failure.SERVER_ERROR), "another")
    assert (len(numbers.runs[RUN].failed_s), list(numbers.runs)) == (1, [RUN])


def test_where_a_jobs_time_goes() -> None:
    """The last answer's time is the server's drawing and the rest; earlier attempts are told apart."""
    spent = Spent()
    timings = Timings(1.0, 2.0, 3.0, 4.0, 0.25, 0.5, 9.0)
    spent.add(done(timings=timings, attempts=(failed(Failure.NO_ANSWER, elapsed_s=7.0), attempt(2))))
    assert spent.seconds == {
        "queued": 1.0,
        "waited": 2.0,
        "failed": 7.0,
        "inference": 1.5,
        "transfer": 2.5,
        "save": 0.75,
    }


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"prompt": "x", "width": 64, "height": 32, "num_steps": 4}, "flux (64 x 32, 4 steps)"),
        ({"prompt": "x"}, "flux (64 x 32)"),
        ({"prompt": "x", "size": "1K"}, "flux (64 x 32)"),
    ],
)
def test_pictures_are_compared_with_their_like(request_: dict[str, Any], said: str) -> None:
    """Model, size and steps decide how long a server should need; where the size was not asked for, the picture's."""
    assert str(kind(entry(request=request_))) == said


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-40T99:00:00Z", "99999999999"])
def test_a_time_that_is_none(text: str) -> None:
    """Logs of other programs may say anything; a chart leaves it out."""
    assert unix_s(text) is None
    assert numbers_of(done(finished_at=text, attempts=(attempt(at=text),))).runs[RUN].first_s is None


@pytest.mark.parametrize("run", ["", "r", "20261122-220000Z-x", "2026112aT220000Z-x"])
def test_a_runs_name_that_does_not_tell_when_it_began(run: str) -> None:
    """Then nothing is left out as being older."""
    assert began(run) == ""


# Comparison


def runs(now: list[float], *before: list[float], size: int = 64) -> list[RunNumbers]:
    found = []
    for n, seconds in enumerate((*before, now)):
        run = f"2026112{n}T120000Z-aaaa"
        request = {"prompt": "x", "width": 64 if n < len(before) else size, "height": 64}
        made = [done(f"{n}-{k}", run=run, inference_s=s, request=request) for k, s in enumerate(seconds)]
        found += numbers_of(*made).in_order()
    return found


def around(middle: float, count: int = 40) -> list[float]:
    return [middle * (1 + (k % 5 - 2) / 50) for k in range(count)]


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (runs(around(1.5), around(1.0)), "50% slower"),
        (runs(around(0.5), around(1.0)), "50% faster"),
        (runs(around(1.02), around(1.0)), "as fast as before"),
        (runs([0.2, 1.4] * 20, [0.1, 1.2] * 20), "as fast as before"),
    ],
    ids=["slower", "faster", "too little to matter", "too wide to tell"],
)
def test_the_server_beside_earlier_runs(found: list[RunNumbers], word: str) -> None:
    """Slower or faster is said only of a change that is large and surely none of chance, with its numbers."""
    (one,) = compare(found)
    assert word in str(one)
    assert "40 pictures" in str(one)
    assert "1 earlier run" in str(one)


@pytest.mark.parametrize(
    "found",
    [
        [],
        runs(around(1.0)),
        runs(around(1.0, 19), around(2.0)),
        runs(around(1.0), around(2.0, 19)),
        runs(around(1.0), around(2.0), size=128),
    ],
    ids=["no run", "first run", "few now", "few before", "another size"],
)
def test_where_nothing_can_be_compared_nothing_is_said(found: list[RunNumbers]) -> None:
    """Below 20 pictures of one kind on either side there is no comparison."""
    assert compare(found) == []
    assert sentence(compare(found)) is None


def test_earlier_runs_are_taken_together() -> None:
    """Two runs of ten pictures are twenty."""
    (one,) = compare(runs(around(2.0), around(1.0, 10), around(1.0, 10)))
    assert (one.before_count, one.before_runs) == (20, 2)
    assert sentence([one]) == "The server was 100% slower than in earlier runs: p50 2.00 s, before 1.00 s."


# Verdict


HEADLINES = [
    ({"done": 12, "total": 12}, "All 12 jobs are done."),
    ({"done": 1, "total": 1}, "The one job is done."),
    ({"done": 1400, "failed": 100, "total": 1500}, "1,400 of 1,500 jobs are done."),
    ({"done": 1, "total": 3, "pending": 2, "running": True, "doing": "working"}, "1 of 3 jobs is done so far."),
    ({"done": 5, "failed": 2, "uncertain": 1}, "5 of 8 jobs are done."),
]


@pytest.mark.parametrize(("stand", "headline"), HEADLINES)
def test_the_headline(stand: dict[str, Any], headline: str) -> None:
    """How many of how many, first of all; without a manifest, of those that the log knows."""
    assert verdict(scene(**stand), Numbers(), [], []).headline == headline


def test_what_a_night_leaves_to_do_is_said_in_its_own_words() -> None:
    """Pending jobs come with the last run's reason; a run that is at work has said nothing yet."""
    told = msgspec.json.decode(msgspec.json.encode(SUMMARY), type=Summary)
    stand = scene(total=9, pending=8).stand
    still = verdict(Scene(stand, "1", told), Numbers(), [], []).lines
    assert still == ("8 jobs still to do. The last run said: 8 of 9 jobs are left: the day is spent.",)
    at_work = msgspec.structs.replace(stand, running=True, doing="working", heartbeat_at="2026-11-23T07:59:00.000Z")
    assert verdict(Scene(at_work, "1", told), Numbers(), [], []).lines == (
        "A run is at work: working, last heard of at 2026-11-23 07:59 UTC.",
        "8 jobs still to do.",
    )


SUMMARY: dict[str, Any] = {
    **dict.fromkeys(("manifest", "output", "started_at", "finished_at"), ""),
    **dict.fromkeys(("exit_code", "total", "selected", "done", "failed", "uncertain", "in_doubt", "made"), 1),
    "run": RUN,
    "verdict": "8 of 9 jobs are left: the day is spent",
    "wall_s": 1.0,
    "pending": 8,
    "requests": 0,
    "retries": 0,
    "pictures_per_minute": None,
    "inference_s": None,
    "cost_usd": None,
    "exposure_usd": None,
    "failures": [],
}


def test_the_facts_name_money_time_and_what_is_missing() -> None:
    """Each number under the verdict says what it counts."""
    stand = scene(failed=2, pending=1, total=4, cost_usd=0.0031, exposure_usd=1.0, requests=7)
    found = {f.name: (f.value, f.more) for f in verdict(stand, numbers_of(done()), [], []).facts}
    assert found["Missing"] == ("3", "2 failed, 1 pending")
    assert found["Cost"] == ("$0.0031", "and $1.00 may have been paid without a picture")
    assert found["Last run"] == ("2.0 s", "1 done, 30 a minute; 2026-11-22 12:00 UTC")
    assert found["Inference"] == ("1.50 s", "median of all; p95 1.50 s, p99 1.50 s")


@pytest.mark.parametrize(("amount", "said"), [(0, "$0.00"), (0.0031, "$0.0031"), (0.1, "$0.10"), (1234.5, "$1,234.50")])
def test_money(amount: float, said: str) -> None:
    """Small amounts keep the digits that matter."""
    assert dollars(amount) == said


# Scales


@pytest.mark.parametrize(
    ("high", "count", "expected"),
    [(23, 4, [0, 10, 20, 30]), (1, 4, [0, 0.25, 0.5, 0.75, 1]), (0, 4, [0, 1]), (0.003, 3, [0, 0.001, 0.002, 0.003])],
)
def test_ticks_are_round(high: float, count: int, expected: list[float]) -> None:
    """The last tick is never below what is drawn."""
    assert ticks(high, count) == pytest.approx(expected)


@given(st.floats(1e-6, 1e12), st.integers(2, 12))
def test_ticks_cover_what_is_drawn(high: float, count: int) -> None:
    """From zero, evenly, up to at least the highest value, and not many more than asked for."""
    found = ticks(high, count)
    assert found[0] == 0
    assert found[-1] >= high * (1 - 1e-9)
    assert len(found) <= count + 2


@given(st.floats(0.1, 1e9), st.integers(1, 100))
def test_an_interval_cuts_a_run_into_few_parts(span_s: float, most: int) -> None:
    """However long a run took, its timeline has a bounded number of bars."""
    assert span_s / interval(span_s, most) <= most + 1e-6


@given(st.lists(st.floats(-1e6, 1e6), max_size=50), st.integers(1, 20))
def test_every_value_falls_into_a_bin(values: list[float], count: int) -> None:
    """What lies outside is counted at the ends, so that a histogram adds up."""
    assert sum(bins(values, 0.0, 3.0, count)) == len(values)


def test_times_of_day_on_an_axis() -> None:
    """Seconds, minutes and days are written as far as they tell something."""
    noon = unix_s("2026-11-22T12:00:00Z") or 0.0
    assert next(said for _, said in clock_ticks(noon, noon + 40, 4)) == "12:00:00"
    assert [said for _, said in clock_ticks(noon, noon + 7200, 4)][:2] == ["12:00", "12:30"]
    assert next(said for _, said in clock_ticks(noon, noon + 86400 * 4, 4)) == "11-23"
    assert iso(noon) == "2026-11-22T12:00:00Z"
    assert [number(x) for x in (0, 0.25, 1500.0)] == ["0", "0.25", "1,500"]
    assert whole_ticks(1, 3) == [0.0, 1.0]


# Charts

drawn = settings(max_examples=20)  # drawing is slow beside what decides how
SECONDS = st.lists(st.floats(0, 1e5), min_size=1, max_size=30).map(sorted)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


def check(chart: Chart | None) -> Chart:
    """Both drawings are well-formed, tell what they show, and have the numbers beside them."""
    assert chart is not None
    assert chart.table.rows
    assert all(len(row) == len(chart.table.head) for row in chart.table.rows)
    for drawing in (chart.wide, chart.narrow):
        root = ElementTree.fromstring(drawing)
        assert root.attrib["aria-label"]
        sizes = [float(e.attrib[side]) for e in root.iter("rect") for side in ("width", "height")]
        assert all(0 <= one < 2000 for one in sizes)
        assert "nan" not in drawing
    return chart


@drawn
@given(st.dictionaries(NAMES, SECONDS, min_size=1, max_size=10))
def test_any_inference_times_can_be_drawn(seconds: dict[str, list[float]]) -> None:
    """Zero, huge and equal times, model names of any characters, more models than are drawn."""
    chart = check(charts.distribution(seconds))
    assert [row[0] for row in chart.table.rows] == list(seconds)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), min_size=1, max_size=40),
    st.lists(st.integers(0, 90), max_size=3),
)
def test_any_run_can_be_drawn_over_its_time(events: list[tuple[float, bool]], pauses: list[int]) -> None:
    """From a moment to weeks, with failures alone or pictures alone, pauses and limits."""
    run = RunNumbers(RUN)
    for at_s, good in events:
        run.saw(1e9 + at_s)
        (run.finished_s if good else run.failed_s).append(1e9 + at_s)
    notes = [PaceNote(iso(1e9 + s), RUN, f"paused <{s}>", concurrency=s, pause_s=float(s)) for s in pauses]
    chart = check(charts.timeline(run, notes))
    assert sum(int(row[1].replace(",", "")) for row in chart.table.rows) == len(run.finished_s)
    assert sum(int(row[2].replace(",", "")) for row in chart.table.rows) == len(run.failed_s)


def test_a_pause_and_the_limits_stand_on_the_timeline() -> None:
    """What another run's pace was is not drawn here."""
    run = numbers_of(done(), lost()).runs[RUN]
    at = "2026-11-22T12:00:04.000Z"
    notes = [PaceNote(at, RUN, "rate limited", 6, 22.0), PaceNote(at, LATER, "elsewhere", 9, 1.0)]
    chart = check(charts.timeline(run, notes))
    assert "1 pause" in chart.about
    assert chart.wide.count('class="pause"') == 1
    assert ("limit", "requests at once, at most") in chart.legend
    assert any("rate limited" in row[3] for row in chart.table.rows)
    assert not any("elsewhere" in row[3] for row in chart.table.rows)


def test_an_outage_stands_on_the_timeline_until_the_server_answers_or_the_run_ends() -> None:
    """A gap without a word would be a riddle in the morning."""
    run = RunNumbers(RUN)
    for at_s in (1e9, 1e9 + 100):
        run.saw(at_s)
        run.finished_s.append(at_s)
    outage, routine = PaceNote(iso(1e9 + 20), RUN, "gone", outage=True), PaceNote(iso(1e9 + 30), RUN, "clock differs")
    whole = check(charts.timeline(run, [outage, routine]))
    half = check(charts.timeline(run, [outage, routine, PaceNote(iso(1e9 + 60), RUN, "back", concurrency=1)]))
    assert "1 pause" in whole.about and ("pause", "pause") in whole.legend
    wide = [float(re.findall(r'width="([\d.]+)"[^>]*class="pause"', chart.wide)[0]) for chart in (whole, half)]
    assert wide[1] == pytest.approx(wide[0] / 2, rel=0.05)


@drawn
@given(st.dictionaries(NAMES, st.lists(st.floats(0, 1e6), min_size=6, max_size=6), min_size=1, max_size=10))
def test_any_times_spent_can_be_drawn(seconds: dict[str, list[float]]) -> None:
    """The shares add up to the whole, whatever they are."""
    spent = {name: Spent(3, dict(zip(Spent().seconds, found, strict=True))) for name, found in seconds.items()}
    chart = charts.where_time_went(spent)
    if chart is None:
        assert not any(map(any, seconds.values()))
    else:
        assert sum(float(row[1].rstrip("%")) for row in check(chart).table.rows) == pytest.approx(100, abs=0.5)


DAYS = st.dictionaries(
    st.dates().map(str),
    st.builds(Day, st.integers(0, 9999), st.floats(0, 1e5), st.floats(0, 99)),
    min_size=1,
    max_size=60,
)


@drawn
@given(DAYS, st.booleans())
def test_any_days_can_be_drawn(days: dict[str, Day], priced: bool) -> None:
    """Years apart or side by side, free or dear; the table has every day, the last first."""
    chart = check(charts.per_day(days, priced=priced))
    assert [row[0] for row in chart.table.rows] == sorted(days, reverse=True)


def test_runs_are_drawn_beside_each_other() -> None:
    """From two runs with pictures on; one alone has nothing to be compared with."""
    found = runs(around(2.0), around(1.0))
    assert "p50 was 2.00 s in the last run and 1.00 s in the one before" in check(charts.trend(found)).wide
    assert charts.trend(found[:1]) is None


@pytest.mark.parametrize(
    "chart",
    [
        charts.distribution({}),
        charts.timeline(RunNumbers(RUN), []),
        charts.where_time_went({}),
        charts.per_day({}, priced=True),
    ],
)
def test_nothing_is_no_chart(chart: Chart | None) -> None:
    """An empty frame would only ask what is wrong."""
    assert chart is None


# Data for the script


@drawn
@given(st.lists(entries, max_size=3))
def test_any_entry_reaches_the_script_whole(found: list[Entry]) -> None:
    """The data is JSON without a character that could end its element, and says what the entry says."""
    rows = Rows()
    for one in found:
        rows.add(one, [Thumb(None, "gone")] * len(one.images))
    text = "".join(rows.data({"v": 1}))
    assert not set("<\u2028\u2029") & set(text)
    data = json.loads(text)
    tables = data["tables"]
    for one, row in zip(found, data["jobs"], strict=True):
        assert (row["i"], data["outcomes"][row.get("o", 0)], tables["models"][row["m"]]) == (
            one.job,
            one.outcome,
            one.model,
        )
        asked = (tables["requests"][row["q"]] if "q" in row else {}) | row.get("w", {})
        asked |= {"prompt": row["p"]} if row.get("p") is not None else {}
        assert {k: v for k, v in asked.items() if v is not None} == {
            k: v for k, v in plain_numbers(one.request).items() if v is not None
        }
        assert (tables["metas"][row["e"]] if "e" in row else {}) == plain_numbers(one.meta)
        assert [told[0] for told in row["z"]] == [a.n for a in one.attempts]


def plain_numbers(value: Any) -> Any:
    """What the script is given: whole numbers that it would round are texts of their own kind."""
    return json.loads(
        json.dumps(value), parse_int=lambda said: int(said) if abs(int(said)) <= 2**53 else {"$int": said}
    )


def test_what_repeats_is_kept_once() -> None:
    """Ten thousand jobs of one model and size do not say so ten thousand times."""
    rows = Rows()
    for n in range(100):
        rows.add(
            done(f"job-{n}", request={"prompt": f"p{n}", "width": 512, "negative_prompt": "blur"}), [Thumb("x.webp")]
        )
    text = "".join(rows.data({}))
    assert text.count("blur") == 1
    assert len(text) < 100 * 320


def test_attempts_of_every_run_are_told() -> None:
    """A job that failed one night and was done the next shows both, in order; only the last entry is a tile."""
    first = lost("a", attempts=(failed(Failure.SERVER_ERROR, 1), failed(Failure.SERVER_ERROR, 2)))
    last = done("a", run=LATER, attempts=(attempt(3),))
    report = Report(scene(), numbers_of(first, last))
    assert report.has_earlier
    for one in (first, last):
        report.remember(one)
    report.show(last, [Thumb("x.webp")])
    (row,) = data_of("".join(render(report)))["jobs"]
    assert [told[0] for told in row["z"]] == [1, 2, 3]


STANDINGS = [
    (Standing.DONE, None),
    (Standing.FAILED, None),
    (Standing.CHANGED, "changed"),
    (Standing.MISSING, "missing"),
    (Standing.SUPERSEDED, "superseded"),
    (None, "orphan"),
]


@pytest.mark.parametrize(("standing", "state"), STANDINGS)
def test_a_picture_that_the_manifest_no_longer_asks_for_says_so(standing: Standing | None, state: str | None) -> None:
    """What stands in the log may be of an older version of its job, or of none."""
    known = {} if standing is None else {joblog.key("b"): standing}
    about = msgspec.structs.replace(scene(), standings=known)
    data = data_of(page_of(lost(), about=about))
    (row,) = data["jobs"]
    assert (data["tables"]["states"][row["s"]] if "s" in row else None) == state
    assert ("k" in row) == (state is None)  # only what is still asked for is told among the failures


# The page

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} & \u2028"


def test_text_of_the_users_stays_text() -> None:
    """Prompts, ids, messages, meta, names and notices cannot become markup."""
    found = [
        done("a", request={"prompt": EVIL}, meta={EVIL: EVIL}, model=EVIL, notes=(EVIL,)),
        lost("b", attempts=(failed(Failure.REFUSED_CONTENT, message=EVIL),)),
    ]
    about = msgspec.structs.replace(scene(name=EVIL, command=f"batchgen run {EVIL}"), notices=(EVIL,))
    page = page_of(*found, about=about)
    assert len(re.findall("<script", page)) == 2
    assert "<img" not in page.partition("<script")[0]
    assert "49" not in page.partition("<style>")[0]
    assert data_of(page)["jobs"][0]["p"] == EVIL


def test_the_policy_names_the_style_and_the_script_and_nothing_else() -> None:
    """Only what stands in the page runs, nothing is loaded from elsewhere, nothing is allowed inline by name."""
    page = page_of(done())
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0].replace("&#39;", "'")
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        text = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert not re.findall(r"<[^>]+ (?:on\w+|style)=", page.partition("<script")[0])


def test_few_failures_are_tried_again_by_name_and_many_together() -> None:
    """The command is ready for a shell; more than three ids are not written out."""
    few = page_of(lost("x y"), about=scene(command="batchgen run m.yaml"))
    assert "batchgen run m.yaml --retry failed --only &#39;x y&#39;" in few
    many = page_of(*(lost(f"j{n}") for n in range(4)), about=scene(command="batchgen run m.yaml"))
    assert ">batchgen run m.yaml --retry failed<" in many
    assert "--retry" not in page_of(lost())  # without a manifest there is no command to give


def test_causes_are_told_apart_the_most_frequent_first() -> None:
    """Each with its count, its first message and its jobs."""
    outage = [lost(f"s{n}", Failure.SERVER_ERROR, outcome=Outcome.UNCERTAIN) for n in range(2)]
    page = page_of(lost("r"), *outage)
    assert re.findall(r'<span class="n">(\d)</span> ([a-z ]+) <em', page) == [
        ("2", "server error"),
        ("1", "refused content"),
    ]
    assert "it was server_error" in page
    data = data_of(page)
    assert [row["k"] for row in data["jobs"]] == [0, 1, 1]
    assert data["groups"][1].startswith("server error")


def test_the_page_of_a_folder_without_jobs() -> None:
    """A run that was ended before its first picture has a page as well."""
    page = page_of(about=scene(done=0, total=5, pending=5))
    assert "0 of 5 jobs are done." in page
    assert data_of(page)["jobs"] == []


def test_a_browser_without_scripts_has_a_plain_list() -> None:
    """The first jobs with links to their pictures, whatever their ids hold."""
    page = page_of(done("fox/é"), lost("b"))
    assert '<a href="./images/fox/%C3%A9.png">fox/é</a>' in page
    assert "b: failed" in page


def test_an_attempt_in_full() -> None:
    """Number, time, seconds, whether it was paid for, HTTP status and cause."""
    rows = Rows()
    tried = Attempt(1, "2026-11-22T12:00:03.000Z", 0.21, Billed.NO, 429, Failure.RATE_LIMITED, "r1", "slowly")
    rows.add(done(attempts=(tried,)), [Thumb("x.webp")])
    data = json.loads("".join(rows.data({})))
    n, at_ms, elapsed_s, billed, http, cause = data["jobs"][0]["z"][0]
    assert (n, at_ms, elapsed_s, data["billed"][billed], http) == (1, 1795348803000, 0.21, "no", 429)
    assert data["tables"]["causes"][cause] == ["rate_limited", "slowly", "r1"]
