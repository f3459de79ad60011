"""What a run would do: which jobs it marks, what it counts, and when it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import job

from batchgen.manifest import Tally
from batchgen.model import Job, ManifestError, Outcome, Problem, Selection, Standing, UsageError
from batchgen.plan import KEPT_BYTES, Mark, Plan, check_plan, draw, make_plan, render
from batchgen.shuffle import WINDOW_JOBS
from batchgen.shuffle import shuffled as in_parts

SKIP, DO, RESTORE = Mark.SKIP, Mark.DO, Mark.RESTORE
FAILED, UNCERTAIN = Outcome.FAILED, Outcome.UNCERTAIN
STANDINGS = list(Standing)


def plan_of(standings: Iterable[Standing], selection: Selection | None = None) -> Plan:
    """The plan for jobs named 0, 1, … with these standings."""
    standings = list(standings)
    jobs = [job(str(number)) for number in range(len(standings))]
    return make_plan(jobs, lambda job: standings[int(job.id)], selection or Selection())


# What becomes of a job: by default, with --retry failed, --retry uncertain, both, and --redo.
MARKS = [
    (Standing.DONE, SKIP, SKIP, SKIP, SKIP, DO),
    (Standing.PENDING, DO, DO, DO, DO, DO),
    (Standing.CHANGED, DO, DO, DO, DO, DO),
    (Standing.MISSING, DO, DO, DO, DO, DO),
    (Standing.SUPERSEDED, RESTORE, RESTORE, RESTORE, RESTORE, DO),
    (Standing.FAILED, SKIP, DO, SKIP, DO, DO),
    (Standing.UNCERTAIN, SKIP, SKIP, DO, DO, DO),
]
SELECTIONS = [
    Selection(),
    Selection(retry=frozenset({FAILED})),
    Selection(retry=frozenset({UNCERTAIN})),
    Selection(retry=frozenset({FAILED, UNCERTAIN})),
    Selection(redo=True),
]


@pytest.mark.parametrize(("standing", "marks"), [(row[0], row[1:]) for row in MARKS], ids=[row[0] for row in MARKS])
def test_what_becomes_of_a_job(standing: Standing, marks: tuple[Mark, ...]) -> None:
    """Finished jobs are left, set-aside pictures are brought back, the rest is done; flags do more, never less."""
    assert tuple(Mark(plan_of([standing], selection).marks[0]) for selection in SELECTIONS) == marks


def test_every_standing_is_in_the_table() -> None:
    """No standing is forgotten."""
    assert [row[0] for row in MARKS] == STANDINGS


SETTLED = [
    (Standing.DONE, Outcome.DONE),
    (Standing.SUPERSEDED, Outcome.DONE),
    (Standing.FAILED, FAILED),
    (Standing.UNCERTAIN, UNCERTAIN),
]


@pytest.mark.parametrize(("standing", "outcome"), SETTLED, ids=[row[0] for row in SETTLED])
def test_what_is_settled(standing: Standing, outcome: Outcome) -> None:
    """A job that stays as it ended counts as that, unless it is done again."""
    plan = plan_of([standing, Standing.PENDING])
    assert {o: plan.settled(o) for o in Outcome} == {o: int(o is outcome) for o in Outcome}
    again = plan_of([standing, Standing.PENDING], Selection(redo=True))
    assert {again.settled(o) for o in Outcome} == {0}


@given(
    st.lists(st.sampled_from(Standing), max_size=30),
    st.sets(st.sampled_from([FAILED, UNCERTAIN])),
    st.booleans(),
    st.none() | st.integers(0, 12),
    st.sampled_from([(), ("1*",), ("[0-4]", "2?")]),
)
def test_the_numbers_add_up(
    standings: list[Standing], retry: set[Outcome], redo: bool, limit: int | None, only: tuple[str, ...]
) -> None:
    """Selected jobs are settled or to be done, marks agree with counts, and a limit is never exceeded."""
    try:
        plan = plan_of(standings, Selection(retry=frozenset(retry), redo=redo, limit=limit, only=only))
    except UsageError:
        assert only
        assert len(standings) < 2 or limit == 0
        return
    marks = Counter(map(Mark, plan.marks))
    assert plan.total == len(plan.marks) == len(standings)
    assert plan.selected == plan.standings.total() == plan.remaining + sum(plan.settled(o) for o in Outcome)
    assert plan.selected <= plan.total
    assert marks[DO] == plan.remaining
    assert marks[RESTORE] == plan.restorable <= plan.settled(Outcome.DONE)
    assert limit is None or plan.remaining <= limit
    assert plan.in_log == sum(standing is not Standing.PENDING for standing in standings)


@pytest.mark.parametrize(
    ("limit", "marks", "selected"),
    [
        pytest.param(None, [DO, SKIP, DO, SKIP, DO], 5, id="none"),
        pytest.param(3, [DO, SKIP, DO, SKIP, DO], 5, id="not reached"),
        pytest.param(2, [DO, SKIP, DO, SKIP, SKIP], 4, id="reached"),
        pytest.param(1, [DO, SKIP, SKIP, SKIP, SKIP], 3, id="one"),
        pytest.param(0, [SKIP] * 5, 2, id="zero"),
    ],
)
def test_a_limit_takes_the_first_that_are_to_be_done(limit: int | None, marks: list[Mark], selected: int) -> None:
    """`--limit` counts jobs to be done, in the manifest's order; finished ones are selected beside it."""
    standings = [Standing.PENDING, Standing.DONE, Standing.CHANGED, Standing.FAILED, Standing.MISSING]
    plan = plan_of(standings, Selection(limit=limit))
    assert [Mark(mark) for mark in plan.marks] == marks
    assert plan.selected == selected


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        pytest.param((), "cat-1 cat-2 Dog/x", id="not said"),
        pytest.param(("cat-*",), "cat-1 cat-2", id="a star"),
        pytest.param(("cat-1",), "cat-1", id="a name"),
        pytest.param(("Dog*", "*-2"), "cat-2 Dog/x", id="several"),
        pytest.param(("[!c]*",), "Dog/x", id="all but"),
    ],
)
def test_only_these(only: tuple[str, ...], chosen: str) -> None:
    """`--only` chooses by whole ids, with case, on every system alike; one of several patterns is enough."""
    jobs = [job(id) for id in ("cat-1", "cat-2", "Dog/x")]
    plan = make_plan(jobs, lambda job: Standing.PENDING, Selection(only=only))
    assert [found.id for found in plan.chosen(jobs, DO)] == chosen.split()
    assert (plan.total, plan.selected) == (3, len(chosen.split()))


@pytest.mark.parametrize("only", ["cat", "dog*", "[C]*", ""], ids=["a part of a name", "case", "range", "nothing"])
def test_only_what_is_there(only: str) -> None:
    """`--only` that fits no id is a mistake and not an empty run; of an empty manifest nothing can be asked."""
    selection = Selection(only=(only,))
    plan = make_plan([job(id) for id in ("cat-1", "cat-2", "Dog/x")], lambda job: Standing.PENDING, selection)
    with pytest.raises(UsageError, match=r"^--only .*: none of the 3 jobs has such an id$"):
        check_plan(plan, selection)
    check_plan(make_plan([], lambda job: Standing.PENDING, selection), selection)


def test_a_second_walk_finds_the_marked_jobs() -> None:
    """The jobs of a mark are found again by their place; jobs that were added meanwhile are not among them."""
    jobs = [job(str(number)) for number in range(5)]
    standings = [Standing.PENDING, Standing.SUPERSEDED, Standing.DONE, Standing.PENDING]
    plan = make_plan(jobs[:4], lambda job: standings[int(job.id)], Selection())
    assert [found.id for found in plan.chosen(iter(jobs), DO)] == ["0", "3"]
    assert [found.id for found in plan.chosen(iter(jobs), RESTORE)] == ["1"]


def test_every_selected_job_is_told() -> None:
    """Each selected job is told once, with where it stands and what becomes of it."""
    heard: list[tuple[Standing, Mark]] = []
    make_plan(
        [job(str(number)) for number in range(len(STANDINGS))],
        lambda job: STANDINGS[int(job.id)],
        Selection(retry=frozenset({UNCERTAIN})),
        lambda job, standing, mark: heard.append((standing, mark)),
    )
    assert heard == [(row[0], row[3]) for row in MARKS]


def test_jobs_that_were_not_asked_for_are_not_told() -> None:
    """A run for some jobs hears nothing of others, nor of those beyond its limit."""
    heard: list[str] = []
    jobs = [job("a1"), job("b"), job("a2")]
    selection = Selection(only=("a*",), limit=1)
    make_plan(jobs, lambda job: Standing.PENDING, selection, lambda job, standing, mark: heard.append(job.id))
    assert heard == ["a1"]


@pytest.mark.parametrize(("large", "walks"), [(False, 0), (True, 1)])
def test_a_small_manifest_is_walked_once_and_a_large_one_is_not_remembered(large: bool, walks: int) -> None:
    """What is sent is the same in both cases; what is remembered for it is bounded by its size, not by its number."""
    jobs = [job(str(number), prompt="x" * (KEPT_BYTES // 3 if large else 10)) for number in range(4)]
    plan = make_plan(jobs, lambda job: Standing.DONE if job.id == "1" else Standing.PENDING, Selection())
    walked = []

    def walk() -> list[Job]:
        walked.append(1)
        return jobs

    assert list(plan.to_send(walk)) == [jobs[0], jobs[2], jobs[3]]
    assert len(walked) == walks


def shuffled(ids: Iterable[str], standing: Standing = Standing.PENDING, **how: Any) -> list[str]:
    """The ids of the jobs to be done, in the order of a shuffled plan."""
    jobs, selection = [job(id) for id in ids], Selection(**({"shuffle": "s"} | how))
    plan = make_plan(jobs, lambda job: standing, draw(jobs, lambda job: standing, selection))
    return [found.id for found in plan.to_send(lambda: jobs)]


IDS = st.lists(st.text("abcdef", min_size=1, max_size=4), unique=True, max_size=40)


@given(IDS, IDS, st.text(max_size=5))
def test_a_shuffle_is_an_order_of_the_ids_alone(ids: list[str], more: list[str], seed: str) -> None:
    """Nothing is lost, and whatever else the manifest holds, and in which order, two jobs come in the same order."""
    found = shuffled(ids, shuffle=seed)
    assert sorted(found) == sorted(ids)
    larger = [id for id in shuffled({*more, *ids}, shuffle=seed) if id in ids]
    assert larger == found


@given(IDS, st.integers(0, 45), st.sampled_from([(), ("a*",)]))
def test_a_limited_shuffle_is_a_sample(ids: list[str], limit: int, only: tuple[str, ...]) -> None:
    """With a limit the first of the random order are done, and no others."""
    assert shuffled(ids, limit=limit, only=only) == shuffled(ids, only=only)[:limit]


def test_a_sample_is_of_what_is_to_be_done() -> None:
    """Finished jobs take no place in a sample, and a sample again gives others."""
    ids = [str(number) for number in range(50)]
    first = shuffled(ids, limit=5)
    jobs, selection = [job(id) for id in ids], Selection(shuffle="s", limit=5)

    def standing(job: Job) -> Standing:
        return Standing.DONE if job.id in first else Standing.PENDING

    plan = make_plan(jobs, standing, draw(jobs, standing, selection))
    assert [found.id for found in plan.to_send(lambda: jobs)] == shuffled(ids)[5:10]
    assert plan.selected == 10


def test_another_seed_gives_another_order() -> None:
    """The seed decides, and the order is not the manifest's."""
    ids = [str(number) for number in range(50)]
    orders = {tuple(shuffled(ids, shuffle=seed)) for seed in "abc"}
    assert len({*orders, tuple(ids)}) == 4


def test_a_sample_of_a_seed_stays_the_same_for_ever() -> None:
    """The recipe of the order is frozen: the sample that was looked at yesterday is the one that is made today."""
    assert shuffled((f"job-{number}" for number in range(1000)), limit=3) == ["job-744", "job-666", "job-758"]


def test_many_jobs_are_shuffled_in_parts_and_none_is_lost() -> None:
    """Beyond so many jobs the manifest is walked several times, each time for the next places."""
    jobs, walks = [job(str(number)) for number in range(100)], 0

    def walk() -> list[Job]:
        nonlocal walks
        walks += 1
        return jobs

    parts = list(in_parts(walk, "s", 4 * WINDOW_JOBS + 1))
    assert walks == 5
    assert [job.id for job in parts] == [job.id for job in in_parts(walk, "s", 100)]


def problem(line: int) -> Problem:
    return Problem("m.yaml", line, 1, f"wrong in its own way {line}")


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (100, 100), (101, 100), (250, 100)])
def test_all_problems_are_counted_and_a_hundred_shown(count: int, shown: int) -> None:
    """A manifest with mistakes is refused with the first hundred of them and the number of all."""

    def walk() -> Iterator[Job | Problem]:
        for number in range(count):
            yield job(str(number))
            yield problem(number)

    with pytest.raises(ManifestError) as caught:
        make_plan(walk(), lambda job: Standing.PENDING, Selection())
    assert caught.value.count == count
    assert [p.line for p in caught.value.problems] == list(range(shown))


@pytest.mark.parametrize(
    ("missing", "done", "refused"),
    [
        pytest.param(10, 0, False, id="ten are few"),
        pytest.param(11, 0, True, id="eleven are not"),
        pytest.param(11, 208, True, id="just over 5 %"),
        pytest.param(11, 209, False, id="5 % exactly"),
        pytest.param(11, 210, False, id="just under 5 %"),
        pytest.param(50, 949, True, id="over 5 % of many"),
        pytest.param(50, 950, False, id="5 % of many"),
        pytest.param(0, 100, False, id="none"),
    ],
)
def test_many_missing_pictures_are_refused(missing: int, done: int, refused: bool) -> None:
    """More than ten and more than 5 % missing look like a folder that moved, unless the user says otherwise."""
    standings = [Standing.MISSING] * missing + [Standing.DONE] * done + [Standing.PENDING] * 9
    plan = plan_of(standings)
    check_plan(plan, Selection(redo_missing=True))
    check_plan(plan, Selection(redo=True))
    if refused:
        with pytest.raises(UsageError, match=rf"^{missing} of {missing + done} finished .*--redo-missing$"):
            check_plan(plan, Selection())
    else:
        check_plan(plan, Selection())


def test_what_it_will_cost() -> None:
    """The cost is the sum over the models of the jobs to be done; one unknown price makes it unknown."""
    jobs = [job("0", model="x"), job("1", model="y"), job("2", model="x"), job("3", model="z")]
    standings = [Standing.PENDING, Standing.CHANGED, Standing.MISSING, Standing.DONE]
    plan = make_plan(jobs, lambda job: standings[int(job.id)], Selection())
    assert plan.to_do == {"x": 2, "y": 1}
    assert plan.cost_usd({"x": 0.5, "y": 0.25}) == 1.25
    assert plan.cost_usd({"x": 0.5}) is None
    assert plan_of([Standing.DONE]).cost_usd({}) == 0


def test_jobs_that_were_only_counted_are_to_be_done() -> None:
    """What was counted by model adds to what was looked at, and the plan says how many those are."""
    jobs: list[Job | Tally] = [job("0"), Tally(Counter({"flux": 5_000, "sdxl": 1}))]
    plan = make_plan(iter(jobs), lambda job: Standing.DONE, Selection())
    assert (plan.total, plan.selected, plan.remaining, plan.to_do) == (5002, 5002, 5001, {"flux": 5000, "sdxl": 1})
    assert plan.counted == 5001


def test_the_plan_in_words() -> None:
    """The plan tells how many jobs stand where, what will be done with which model, and the cost where known."""
    plan = plan_of([*STANDINGS, Standing.PENDING, Standing.PENDING], Selection(limit=4))
    assert list(render(plan, {"flux": 0.5})) == [
        "9 jobs (8 selected): 1 done, 2 to do, 1 changed (to do again), 1 missing (to do again), 1 set aside (will be"
        " brought back), 1 failed, 1 uncertain",
        "  to do      4 x flux",
        "  cost       $2.0000",
    ]
    assert not any("cost" in line for line in render(plan, {}))
    assert list(render(plan_of([Standing.DONE]), {})) == ["1 job: 1 done", "  nothing to do"]
    assert list(render(plan_of([]), {})) == ["0 jobs: none", "  nothing to do"]
