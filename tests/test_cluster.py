"""A run on many machines, without Ray: what driver, workers and limiter promise when any of them is lost."""

from __future__ import annotations

import asyncio
import errno
import math
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from folders import write_folder
from hypothesis import given
from hypothesis import strategies as st
from peers import Disk, Ran, Site, intents_of
from world import (
    BAD_PICTURE,
    HANGS,
    MODEL,
    NOON,
    OK,
    RESET,
    Answer,
    Arrival,
    Limits,
    SimClock,
    VirtualLoop,
    most_in_window,
    picture,
    run_virtually,
    says,
)

from batchgen.account import MemoryAccount
from batchgen.cluster.driver import Desk
from batchgen.cluster.leave import Leave, keep_to
from batchgen.cluster.limiter import Limiter
from batchgen.cluster.messages import Batch, Keep, Lost, Made, News, Spent
from batchgen.events import Finished
from batchgen.joblog import Ended, Intent, Withdrawn
from batchgen.layout import Books
from batchgen.model import BudgetSpent, Entry, ExitCode, Failure, Outcome, StorageError, UsageError
from batchgen.pacing import Budget, Gates, Pace
from batchgen.protocol import Drawn, nebula
from batchgen.runner import spread
from batchgen.writer import Patience

C = 2


def limits(**changes: Any) -> Limits:
    return Limits(**({"concurrency": C} | changes))


def assert_all_done(ran: Ran, extra: int = 0) -> None:
    """Every job is done, once, with its picture; at most so many requests more than jobs were made."""
    assert (ran.counts.done, ran.exit_code) == (len(ran.site.jobs), ExitCode.OK), ran.reason
    assert len(ran.pictures()) == len(ran.site.jobs)
    assert ran.extra <= extra
    assert not ran.notes and not ran.staged()


# The same as in one process


def same(entry: Entry) -> Entry:
    """An entry without what differs from run to run."""
    attempts = tuple(msgspec.structs.replace(a, at="", elapsed_s=0.0, counts=None) for a in entry.attempts)
    none = msgspec.structs.replace(entry.timings, queued_s=0, waited_s=0, total_s=0, save_s=0, decode_s=0)
    return msgspec.structs.replace(entry, run="", finished_at="", timings=none, attempts=attempts)


def troubled(arrival: Arrival) -> Answer:
    """Jobs that succeed, that need two tries, that fail and that are useless, each by its name."""
    number = int(arrival.job.partition("-")[2])
    if number % 7 == 3 and arrival.n == 1:
        return says(500, "try again")
    if number % 7 == 5:
        return says(400, "no such thing", "content_policy_violation")
    if number % 7 == 6:
        return BAD_PICTURE
    return OK


def test_workers_do_what_one_pool_does(tmp_path: Path) -> None:
    """Three machines write the entries and pictures that one process writes, whatever became of the jobs."""
    ran = {}
    for name, local in (("pool", True), ("cluster", False)):
        ran[name] = Site(tmp_path / name, troubled, n=28, limits=limits(price_usd=0.01)).run(local=local)
    assert {job: same(entry) for job, entry in ran["cluster"].entries.items()} == {
        job: same(entry) for job, entry in ran["pool"].entries.items()
    }
    assert ran["cluster"].pictures() == ran["pool"].pictures()
    assert ran["cluster"].exit_code == ran["pool"].exit_code == ExitCode.INCOMPLETE
    assert ran["cluster"].counts == ran["pool"].counts
    assert not ran["cluster"].notes and not ran["cluster"].staged()
    bodies = {name: sorted(p.name for p in (tmp_path / name / ".batchgen/quarantine").iterdir()) for name in ran}
    assert bodies["cluster"] == bodies["pool"] != []


def test_all_machines_work_and_none_has_more_than_two_slices(tmp_path: Path) -> None:
    """Work goes to every machine; what a worker has is never more than two slices, so that a loss costs no more."""
    most: Counter[str] = Counter()
    site = Site(tmp_path, n=40)

    def look(name: str, batch: Batch) -> None:
        for crew in site.driver._staff.crews:  # type: ignore[union-attr]
            most[crew.peer.name] = max(most[crew.peer.name], len(crew.open))

    site.on_report = look
    assert_all_done(site.run())
    assert set(site.answered_by) == {"m1-1", "m2-2", "m3-3"}
    assert max(most.values()) == 2 * C


def test_a_finished_job_is_told_when_the_log_has_it(tmp_path: Path) -> None:
    """Observers hear of each job once, from the driver, and in the number of the log's lines."""
    ran = Site(tmp_path).run()
    told = [event.entry.job for event in ran.events if isinstance(event, Finished)]
    assert told == [entry.job for entry in ran.log]


# A worker is lost


def lose_before_ready(site: Site) -> None:
    async def never(name: str) -> None:
        site.opening = lambda name: None
        site.lose(name)
        await asyncio.sleep(0)

    site.opening = never


def lose_between_intent_and_answer(site: Site) -> None:
    def react(arrival: Arrival) -> Answer:
        if arrival.number == 9:
            site.loop.call_later(1, site.lose, site.answered_by[-1])
        return OK

    site.react = react


def lose_when_staged(site: Site) -> None:
    count = iter(range(100))

    def carried(name: str) -> None:
        if next(count) == 5:
            site.lose(name)

    site.on_carried = carried


def lose_when_reported(site: Site) -> None:
    count = iter(range(100))

    def reported(name: str, batch: Batch) -> None:
        if any(isinstance(report, Made) for report in batch.reports) and next(count) == 5:
            site.lose(name, machine=True)

    site.on_report = reported


@pytest.mark.parametrize(
    "lose", [lose_before_ready, lose_between_intent_and_answer, lose_when_staged, lose_when_reported]
)
def test_a_lost_worker_costs_its_open_requests(tmp_path: Path, lose: Callable[[Site], None]) -> None:
    """Whenever a worker is lost, all jobs are done, each once, with at most C requests more; another takes its place
    where its machine is still there."""
    site = Site(tmp_path, n=30)
    lose(site)
    ran = site.run()
    assert ran.counts.done == 30 and ran.exit_code is ExitCode.OK
    assert ran.extra <= C
    assert not ran.notes
    assert sum("a worker" in pace for pace in ran.paces) == 1
    assert len(site.peers) == (3 if lose is lose_when_reported else 4)


def test_pictures_that_were_reported_survive_their_worker(tmp_path: Path) -> None:
    """What the driver has heard of is logged, though whoever made it is gone."""
    site, kept = Site(tmp_path, n=12), list[str]()

    def reported(name: str, batch: Batch) -> None:
        made = [report.entry.job for report in batch.reports if isinstance(report, Made)]
        if made and not kept:
            kept.extend(made)
            site.lose(name)

    site.on_report = reported
    ran = site.run()
    assert kept and all(sum(a.job == job for a in ran.arrivals) == 1 for job in kept)
    assert ran.counts.done == 12


def test_a_job_that_kills_its_workers_is_not_sent_for_ever(tmp_path: Path) -> None:
    """A job whose request was in doubt three times is uncertain; the others are done."""

    def react(arrival: Arrival) -> Answer:
        if arrival.job == "job-4":
            site.lose(site.answered_by[-1])
        return OK

    site = Site(tmp_path, react, n=12, limits=limits(concurrency=1))
    ran = site.run()
    assert ran.entries["job-4"].outcome is Outcome.UNCERTAIN
    assert [attempt.failure for attempt in ran.entries["job-4"].attempts] == [Failure.IN_DOUBT] * 3
    assert (ran.counts.done, ran.counts.uncertain, ran.exit_code) == (11, 1, ExitCode.INCOMPLETE)
    assert sum(arrival.job == "job-4" for arrival in ran.arrivals) <= 3
    assert not ran.notes


def test_doubts_of_earlier_runs_count_when_a_worker_is_lost(tmp_path: Path) -> None:
    """The attempts of earlier runs are not forgotten over a loss in this one: they stand in the job's entry."""

    def react(arrival: Arrival) -> Answer:
        if arrival.job == "job-0" and arrival.n == 2:
            site.lose(site.answered_by[-1])
        return HANGS if arrival.job == "job-0" and arrival.n == 1 else OK

    site = Site(tmp_path, react, n=3, machines=2)

    async def abort(site: Site) -> None:
        await asyncio.sleep(100)
        site.driver.stop(ExitCode.SIGTERM, "ended")
        site.driver.abort()

    assert "job-0" not in site.run(abort).entries
    ran = site.run()
    assert [attempt.n for attempt in ran.entries["job-0"].attempts] == [1, 2, 3]
    assert ran.counts.done == 3


def test_a_worker_lost_while_the_manifest_is_read_takes_no_job_with_it(tmp_path: Path) -> None:
    """Jobs that were read for a worker that is gone meanwhile go to another, and are in no doubt."""
    site = Site(tmp_path, n=20)

    async def lose(site: Site) -> None:
        driver = site.driver
        pull = driver._pull  # type: ignore[union-attr]

        async def slow(n: int) -> Any:
            jobs = await pull(n)
            if len(site.peers) == 3:
                for name in list(site.peers):
                    site.lose(name)
                await asyncio.sleep(1)
            return jobs

        driver._pull = slow  # type: ignore[union-attr]

    assert_all_done(site.run(lose))


def test_a_worker_that_ends_without_a_word_is_lost(tmp_path: Path) -> None:
    """A stream of reports that just ends is no end of the work: its jobs go to another."""
    site = Site(tmp_path, n=20)

    def reported(name: str, batch: Batch) -> None:
        if name == "m2-2" and intents_of(batch):
            site.loop.end(name)
            site.peers[name]._on_the_way.put_nowait(None)

    site.on_report = reported
    ran = site.run()
    assert ran.counts.done == 20 and ran.extra <= C
    assert any("it ended without a word" in pace for pace in ran.paces)


def test_a_worker_that_cannot_be_told_its_jobs_is_let_go(tmp_path: Path) -> None:
    """Where nobody knows whether a slice has arrived, the worker is ended and the jobs go to another."""
    site = Site(tmp_path, n=20)

    async def cut(site: Site) -> None:
        await asyncio.sleep(0.015)  # the machines are known, and nobody is ready yet

        async def hand(jobs: Any) -> None:
            raise Lost("no answer")

        site.peers["m1-1"].hand = hand  # type: ignore[method-assign]

    assert_all_done(site.run(cut))


def test_a_machine_whose_workers_never_start_is_left_alone(tmp_path: Path) -> None:
    """After three workers that died at their start it gets no other; the others do the jobs."""

    async def dies(name: str) -> None:
        if name.startswith("m1"):
            site.lose(name)
            await asyncio.sleep(0)

    site = Site(tmp_path, n=40, opening=dies)
    ran = site.run()
    assert_all_done(ran)
    assert sum(name.startswith("m1") for name in site.peers) == 3
    assert sum("could not be started" in pace for pace in ran.paces) == 3


def test_a_machine_that_loses_every_worker_at_work_is_left_alone(tmp_path: Path) -> None:
    """A machine that loses three workers without one result would only bring jobs in doubt."""

    def reported(name: str, batch: Batch) -> None:
        if name.startswith("m1") and intents_of(batch):
            site.lose(name)

    site = Site(tmp_path, n=40, on_report=reported)
    ran = site.run()
    assert (ran.counts.done + ran.counts.uncertain, ran.counts.pending) == (40, 0)
    assert sum(name.startswith("m1") for name in site.peers) == 3


def test_where_no_worker_can_be_kept_the_run_ends(tmp_path: Path) -> None:
    """Machines that all lose their workers end the run with the last words of one."""

    async def dies(name: str) -> None:
        site.lose(name)
        await asyncio.sleep(0)

    site = Site(tmp_path, opening=dies)
    ran = site.run()
    assert (ran.exit_code, ran.counts.pending, ran.arrivals) == (ExitCode.INTERNAL, 20, [])
    assert "no worker can be kept at work: its machine is gone" in ran.reason


def test_without_a_machine_the_run_ends_when_patience_does(tmp_path: Path) -> None:
    """A cluster without a machine to work on is waited for as long as a server that is mute, and no longer."""
    site = Site(tmp_path, machines=0, limits=limits(give_up_after_s=600))
    ran = site.run()
    assert (ran.exit_code, ran.reason) == (ExitCode.WORK_LEFT, "no machine has been at work for 10 min 00 s")
    assert 600 <= site.now_s < 620


def test_a_machine_that_comes_later_gets_work(tmp_path: Path) -> None:
    """Machines may join while the run goes on."""
    site = Site(tmp_path, machines=1, n=40)

    async def join(site: Site) -> None:
        await asyncio.sleep(20)
        site.alive["node-9"] = "late"

    assert_all_done(site.run(join))
    assert "late-2" in site.answered_by


# A kit that cannot be opened


def test_a_machine_that_cannot_work_ends_the_run_before_anything_is_sent(tmp_path: Path) -> None:
    """One that does not see the output folder is a mistake of the setup: exit 2, with its words, and no request."""

    async def elsewhere(name: str) -> None:
        await asyncio.sleep(5)
        if name.startswith("m2"):
            raise UsageError("/out is not on m2")

    ran = Site(tmp_path, opening=elsewhere).run()
    assert (ran.exit_code, ran.reason) == (ExitCode.USAGE, "/out is not on m2")
    assert not ran.arrivals and not ran.notes


def test_a_machine_that_joins_and_cannot_work_ends_nothing(tmp_path: Path) -> None:
    """When others are at work, one that comes without the folder is left out, and that is told."""

    async def elsewhere(name: str) -> None:
        if name.startswith("late"):
            raise UsageError("/out is not on late")

    site = Site(tmp_path, machines=2, n=60, opening=elsewhere)

    async def join(site: Site) -> None:
        await asyncio.sleep(15)
        site.alive["node-9"] = "late"

    ran = site.run(join)
    assert_all_done(ran)
    assert [pace for pace in ran.paces if "late" in pace] == ["late-3 has stopped (/out is not on late)"]


def test_a_machine_that_takes_very_long_to_start_is_not_waited_for(tmp_path: Path) -> None:
    """The others begin after a minute."""

    async def slow(name: str) -> None:
        await asyncio.sleep(90 if name.startswith("m2") else 0)

    site = Site(tmp_path, n=6, opening=slow)
    ran = site.run()
    assert ran.counts.done == 6
    assert 60 <= ran.arrivals[0].at_s <= 70


def test_a_worker_sees_the_output_folder_or_says_what_is_wrong(tmp_path: Path) -> None:
    """A machine without the folder, or with another one in its place, is told in words; the run's own folder is
    where pictures are staged."""
    own, here, clock = Books(), tmp_path / "out", gates_at()[1]
    settings: Any = SimpleNamespace(store=None)
    place = spread._Workplace(settings, tmp_path, here, own, "run-1")
    patience = Patience(clock, lambda seconds: None)

    def look() -> str:
        with spread._desk(place, "m1-", patience) as (sink, _):
            return sink.stage(b"picture", "ab" * 32).path

    with pytest.raises(UsageError, match=f"{here} is not on .* an output folder that all machines share"):
        look()
    write_folder(here, [], run="run-0")
    with pytest.raises(UsageError, match=f"{here} is another folder on .* or an object store"):
        look()
    write_folder(here, [], run="run-1")
    (here / own.tmp).mkdir()
    assert look() == f"{own.tmp}/{'ab' * 16}-m1-0"


# The driver dies


@pytest.mark.parametrize("share", [0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
def test_a_run_whose_driver_died_is_finished_by_the_next(tmp_path: Path, share: float) -> None:
    """Wherever the driver's process ends, the same command goes on: every job done once, and no more requests extra
    than workers had in flight; what was in doubt is at most two slices a worker."""
    whole = Site(tmp_path / "whole", n=24)
    whole.run()
    site = Site(tmp_path / "cut", n=24)
    cut = site.run(crash_at=int(whole.power.count * share))
    in_doubt = {note.job for note in cut.tells(Intent)} - {entry.job for entry in cut.log}
    assert len(in_doubt) <= 2 * C * 3 + C * 3  # the second: reported, and on its way into the log
    ran = site.run()
    assert_all_done(ran, extra=2 * C * 3)


def test_pictures_whose_entries_were_prepared_are_adopted(tmp_path: Path) -> None:
    """A picture that was staged by a worker and told to the driver is not bought again when the driver dies before it
    gets its name."""
    site = Site(tmp_path, n=6)

    async def cut(site: Site) -> None:
        rename = site.disk.rename

        def dies(old: str, new: str) -> None:
            site.power.alive = False
            site.power.on_crash()
            rename(old, new)

        site.disk.rename = dies  # type: ignore[method-assign]

    cut_off = site.run(cut)
    assert not cut_off.log and cut_off.staged()
    ran = site.run()
    adopted = [notice for notice in site.folder.notices if "was adopted" in notice]
    assert ran.counts.done == 6 and adopted
    bought_twice = {a.job for a in ran.site.arrivals if a.n > 1}
    assert not bought_twice & {notice.split("'")[1] for notice in adopted}


# The limiter


def test_pace_holds_over_all_machines_and_over_the_loss_of_the_limiter(tmp_path: Path) -> None:
    """Requests of three machines stay within the minute's limit, whoever keeps it."""
    site = Site(tmp_path, Answer(after_s=0.5), n=60, limits=limits(requests_per_minute=30, concurrency=4))

    async def lose(site: Site) -> None:
        for _ in range(3):
            await asyncio.sleep(25)
            site.lose_limiter()

    ran = site.run(lose)
    assert_all_done(ran)
    times_s = [arrival.at_s for arrival in ran.arrivals]
    assert most_in_window(times_s, 60) <= 30
    assert site.limiters == 4 and sum("the limiter was lost" in pace for pace in ran.paces) == 3
    assert times_s[-1] - times_s[0] < 135, "the pace was not used"


def test_a_run_without_a_limiter_ends(tmp_path: Path) -> None:
    """Where every new limiter is lost at once nothing may be sent, and the run does not wait for ever."""
    site = Site(tmp_path, n=6)

    async def lose(site: Site) -> None:
        for _ in range(200):
            await asyncio.sleep(0.5)
            site.lose_limiter()

    site.limits = limits(max_requests=100)
    ran = site.run(lose)
    assert ran.exit_code is ExitCode.INTERNAL and ran.reason == "no limiter can be kept: it is gone"
    assert site.now_s < 200


def test_the_day_is_counted_for_all_machines_together(tmp_path: Path) -> None:
    """Not one request more than the day allows leaves; the run ends when one machine finds it spent, and what others
    had leased and not used is given back."""
    site = Site(tmp_path, n=40, limits=limits(requests_per_day=25))

    async def lose(site: Site) -> None:
        await asyncio.sleep(15)
        site.lose_limiter()

    ran = site.run(lose)
    assert ran.counts.done == len(ran.arrivals) and 25 - 3 * C <= len(ran.arrivals) <= 25
    assert ran.exit_code is ExitCode.WORK_LEFT and "quota is spent" in ran.reason
    assert not ran.notes and site.account and len(ran.arrivals) <= site.account.state.sent <= 25


def test_a_day_that_a_server_closes_is_closed_for_all(tmp_path: Path) -> None:
    """When one machine is told that the quota is spent, the others ask no more."""

    def react(arrival: Arrival) -> Answer:
        return says(429, "Daily quota exceeded", after_s=0.1) if arrival.number > 9 else Answer(after_s=5.0)

    site = Site(tmp_path, react, n=60)
    ran = site.run()
    assert ran.exit_code is ExitCode.WORK_LEFT and "quota is spent" in ran.reason
    assert len(ran.arrivals) <= 9 + 3 * C


def test_a_rate_limit_at_one_machine_pauses_all(tmp_path: Path) -> None:
    """A 429 that one machine hears is a pause for the others, who are cut once for it; so is the one who told it."""

    def react(arrival: Arrival) -> Answer:
        return says(429, "slow down", retry_after="30") if arrival.number == 10 else Answer(after_s=3.0)

    cut = Counter[str]()

    def reported(name: str, batch: Batch) -> None:
        cut[name] += sum("rate limited" in str(getattr(report, "message", "")) for report in batch.reports)

    site = Site(tmp_path, react, n=60, limits=limits(concurrency=4), on_report=reported)
    ran = site.run()
    assert ran.counts.done == 60
    at_s = next(a.at_s for a in ran.arrivals if a.number == 10)
    quiet = [a for a in ran.arrivals if at_s + 0.2 < a.at_s < at_s + 30]
    assert not quiet
    assert cut.total() == 1


def gates_at(now_s: float = 0.0) -> tuple[Gates, SimClock]:
    loop = VirtualLoop(now_s)
    clock = SimClock(loop, NOON)
    loop.close()
    return Gates.of(10), clock


@pytest.mark.parametrize(
    ("until_s", "told_s", "expected_s", "limit"),
    [
        (-math.inf, 30.0, 30.0, 8.0),
        (30.0, 30.4, 30.0, 10.0),
        (30.0, 60.0, 60.0, 10.0),
        (60.0, 30.0, 60.0, 10.0),
        (-math.inf, 0.0, -math.inf, 10.0),
    ],
    ids=["news", "one's own word", "the same episode, longer", "shorter", "nothing"],
)
def test_what_others_heard_counts_once(until_s: float, told_s: float, expected_s: float, limit: float) -> None:
    """A pause is an episode: who pauses already is not cut again for it, and one's own word that comes back is none."""
    gates, clock = gates_at()
    gates.adaptive.limit, gates.cooldown.until_s = 10.0, until_s
    keep_to(News(1, {0: told_s}), 0, gates, clock)
    assert (gates.cooldown.until_s, gates.adaptive.limit) == (expected_s, limit)


def test_an_old_day_does_not_close_a_new_one() -> None:
    """News that are told again after midnight close nothing."""
    gates, clock = gates_at()
    for hours, closed in ((-1, None), (1, NOON + timedelta(hours=1))):
        until = (NOON + timedelta(hours=hours)).isoformat()
        keep_to(News(1, {}, {0: until}), 0, gates, clock)
        assert gates.day.closed_until == closed


def test_news_of_a_new_limiter_are_heard() -> None:
    """A limiter in the place of a lost one counts its news from the beginning, and none of them is missed."""
    loop = VirtualLoop()
    clock, gates = SimClock(loop, NOON), Gates.of(4)

    async def main() -> list[float]:
        line, heard = _Line([Limiter([], clock, Budget()), Limiter([], clock, Budget())]), list[float]()
        way: Any = type("AWay", (), {"gates": gates})
        hearing = asyncio.create_task(Leave(line, "a", clock).hear([way]))  # type: ignore[arg-type]
        for pause_s in (20.0, 50.0):
            await asyncio.sleep(5)
            await line.limiter.slow(0, pause_s, None)
            await asyncio.sleep(1)
            heard.append(gates.cooldown.until_s)
            line.break_off()
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        return heard

    assert run_virtually(main(), loop) == [25.0, 61.0]


class _Line:
    """Limiters one after another; each `break_off` ends the first of them."""

    def __init__(self, limiters: list[Limiter]) -> None:
        self._limiters, self._waiting = limiters, set[asyncio.Task[Any]]()

    @property
    def limiter(self) -> Limiter:
        return self._limiters[0]

    async def tell(self, spent: Spent) -> None:
        await self.limiter.tell(spent)

    async def news(self, seen: int) -> News:
        task = asyncio.ensure_future(self.limiter.news(seen))
        self._waiting.add(task)
        await asyncio.wait([task])
        if task.cancelled():
            raise Lost("gone")
        return task.result()

    def break_off(self) -> None:
        if len(self._limiters) > 1:
            del self._limiters[0]
        for task in self._waiting:
            task.cancel()


# Money


def mixed(arrival: Arrival) -> Answer:
    """Answers that cost, refusals that cost nothing, and useless answers that cost."""
    number = int(arrival.job.partition("-")[2])
    if number % 4 == 1:
        return says(400, "no", "content_policy_violation")
    return BAD_PICTURE if number % 4 == 2 else Answer(after_s=5.0 + number % 3)


@pytest.mark.parametrize("losses", [0, 2], ids=["one limiter", "limiters and workers are lost"])
def test_the_limit_of_requests_is_exact(tmp_path: Path, losses: int) -> None:
    """Three machines together send as many requests as are allowed, not one more, whoever counts them."""
    site = Site(tmp_path, mixed, n=60, limits=limits(max_requests=31, price_usd=0.01))

    async def lose(site: Site) -> None:
        for _ in range(losses):
            await asyncio.sleep(12)
            site.lose(next(name for name, peer in site.peers.items() if not peer.gone))
            await asyncio.sleep(3)
            site.lose_limiter()

    ran = site.run(lose)
    assert ran.exit_code is ExitCode.WORK_LEFT and "--max-requests" in ran.reason
    assert len(ran.arrivals) == 31 if not losses else 31 - 2 * C * losses <= len(ran.arrivals) <= 31


@pytest.mark.parametrize("pictures", [1, 3])
def test_the_limit_of_money_is_exact(tmp_path: Path, pictures: int) -> None:
    """What the server sells, or may have, comes to the limit, also where a request asks for several pictures."""
    several = nebula.encode_answer(MODEL, [Drawn(picture(k), k, 1.0) for k in range(pictures)])

    def react(arrival: Arrival) -> Answer:
        answer = mixed(arrival)
        return Answer(body=several, after_s=answer.after_s) if answer.paid and answer is not BAD_PICTURE else answer

    money = limits(max_cost_usd=0.3, price_usd=0.01)
    site = Site(tmp_path, react, n=80, limits=money, request={"n": pictures} if pictures > 1 else {})
    ran = site.run()
    sold = len(site.server.answers) * pictures  # a refusal of contents may be billed too
    assert ran.exit_code is ExitCode.WORK_LEFT and "--max-cost" in ran.reason
    assert 30 - pictures < sold <= 30
    assert {note.attempt.failure for note in ran.tells(Ended)} <= {Failure.BAD_ANSWER}


class _Counted:
    """A limiter that may be replaced at any time, and workers that ask it, message by message."""

    def __init__(self, limit: int) -> None:
        loop = VirtualLoop()
        self.clock, self.limit = SimClock(loop, NOON), limit
        loop.close()
        self.out = 0
        self.leaves = [Leave(self, name, self.clock) for name in "abc"]  # type: ignore[arg-type]
        self.limiter = self._new(set(), [])

    def _new(self, awaited: set[str], gone: list[Spent]) -> Limiter:
        return Limiter([MemoryAccount(Pace(), self.clock)], self.clock, Budget(max_requests=self.limit), awaited, gone)

    async def admit(self, spent: Spent, cost_usd: float) -> str | None:
        return await self.limiter.admit(spent, cost_usd)

    async def tell(self, spent: Spent) -> None:
        await self.limiter.tell(spent)

    async def lose(self) -> None:
        """Another limiter; every worker tells it its sums, as it does when it finds it."""
        self.limiter = self._new(set("abc"), [])
        for leave in self.leaves:
            await self.limiter.tell(leave._spent())

    async def ask(self, number: int) -> bool:
        try:
            await self.leaves[number].admit(0.0)
        except BudgetSpent:
            return False
        self.out += 1
        return True

    async def back(self, number: int) -> None:
        if self.leaves[number]._requests > self.leaves[number]._back_requests:
            self.leaves[number].back(1, 0.0)
            self.out -= 1
            await asyncio.gather(*self.leaves[number]._telling)


@given(st.integers(0, 12), st.lists(st.tuples(st.sampled_from(["ask", "ask", "back", "lose"]), st.integers(0, 2))))
def test_no_order_of_events_lets_too_much_out_or_too_little(limit: int, events: list[tuple[str, int]]) -> None:
    """Whatever workers ask and give back, and however often the limiter is replaced: a request leaves exactly while
    fewer than the limit are out."""

    async def main() -> None:
        line = _Counted(limit)
        for event, number in events:
            if event == "ask":
                expected = line.out < limit
                assert await line.ask(number) is expected
            elif event == "back":
                await line.back(number)
            else:
                await line.lose()
            assert line.out <= limit

    asyncio.run(main())


def limiter_of(max_requests: int, *gone: Spent, awaited: set[str] | None = None) -> Limiter:
    clock = gates_at()[1]
    return Limiter([], clock, Budget(max_requests=max_requests), awaited or set(), gone)


async def test_what_lost_workers_had_spent_counts_for_every_later_limiter() -> None:
    """A worker that is gone is remembered by the limiter that knew it, and told to the one that takes its place; where
    nobody knew, what it may have spent at most counts."""
    first = limiter_of(5)
    for number in range(3):
        assert await first.admit(Spent("a", number, number, 0.0, 0, 0.0), 0.0) is None
    known = await first.forget(Spent("a", 0, 9, 0.0, 0, 0.0))
    assert known.requests == 3
    second = limiter_of(5, known)
    assert [await second.admit(Spent("b", n, n, 0.0, 0, 0.0), 0.0) is None for n in range(3)] == [True, True, False]
    unknown = await limiter_of(5).forget(Spent("c", 0, 4, 0.0, 0, 0.0))
    assert unknown.requests == 4


async def test_a_new_limiter_waits_for_the_word_of_all(tmp_path: Path) -> None:
    """Nothing is let out before every worker has told what it has spent, or is known to be gone."""
    limiter = limiter_of(5, awaited={"a", "b"})
    asking = asyncio.create_task(limiter.admit(Spent("a", 0, 3, 0.0, 0, 0.0), 0.0))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not asking.done()
    await limiter.forget(Spent("b", 0, 2, 0.0, 0, 0.0))
    assert "5 requests were sent" in str(await asking)


# Stop, abort, keep


def test_a_stop_drains(tmp_path: Path) -> None:
    """What is in flight is finished; what was handed over and not sent is withdrawn: nothing is in doubt, and the
    attempts file tells of nothing."""
    site = Site(tmp_path, n=60)

    async def stop(site: Site) -> None:
        await asyncio.sleep(15)
        site.driver.stop(ExitCode.SIGTERM, "ended by SIGTERM")

    ran = site.run(stop)
    assert (ran.exit_code, ran.reason) == (ExitCode.SIGTERM, "ended by SIGTERM")
    assert ran.counts.done == len(ran.arrivals) and ran.extra == 0
    assert not ran.notes and not ran.driver.in_doubt
    assert site.base.requests == 0 and site.run().counts.done == 60
    assert site.base.requests == ran.counts.done, "what was withdrawn was counted"


def test_an_abort_leaves_in_doubt_only_what_was_in_flight(tmp_path: Path) -> None:
    """The second signal ends at once: the requests that were out are in doubt, and no other job."""
    site = Site(tmp_path, n=60)

    async def abort(site: Site) -> None:
        await asyncio.sleep(15)
        site.driver.stop(ExitCode.SIGTERM, "ended by SIGTERM")
        site.driver.abort()

    ran = site.run(abort)
    answered = {entry.job for entry in ran.log}
    out = {arrival.job for arrival in ran.arrivals} - answered
    assert {job for job, _ in ran.driver.in_doubt} == out and 0 < len(out) <= 3 * C
    assert {note.job for note in ran.tells(Ended)} == out
    assert site.now_s < 30


def test_a_lost_worker_in_the_drain_leaves_its_requests_in_doubt(tmp_path: Path) -> None:
    """Jobs that a worker had when it was lost, and that nobody does any more because the run ends, are counted."""
    site = Site(tmp_path, n=60)

    async def stop(site: Site) -> None:
        await asyncio.sleep(15)
        site.driver.stop(ExitCode.SIGTERM, "ended by SIGTERM")
        site.lose("m1-1")

    ran = site.run(stop)
    assert ran.driver.in_doubt == {(note.job, note.fingerprint) for note in ran.tells(Ended)} != set()


def uncertain_once(arrival: Arrival) -> Answer:
    return RESET if arrival.n == 1 and arrival.job == "job-1" else OK


def test_a_rationed_repeat_waits_until_the_driver_has_made_it_durable(tmp_path: Path) -> None:
    """Before a job is sent again that may have been paid for, its first attempt is on the driver's disk."""
    site, kept = Site(tmp_path, uncertain_once, n=4), list[tuple[int, bytes]]()
    attempts = tmp_path / ".batchgen/attempts.jsonl"

    async def watch(site: Site) -> None:
        sync = site.folder.sync_attempts

        def synced() -> None:
            sync()
            kept.append((sum(a.job == "job-1" for a in site.arrivals), attempts.read_bytes()))

        site.folder.sync_attempts = synced  # type: ignore[method-assign]

    ran = site.run(watch)
    assert ran.counts.done == 4 and ran.extra == 1
    assert any(sent == 1 and b'"failure":"no_answer"' in data for sent, data in kept)


def test_a_repeat_that_cannot_be_made_durable_is_not_sent(tmp_path: Path) -> None:
    """Where the driver's disk fails then, the run ends with exit 7, and the worker does not wait for ever."""
    site = Site(tmp_path, uncertain_once, n=4)
    asked = list[Keep]()

    def reported(name: str, batch: Batch) -> None:
        asked.extend(report for report in batch.reports if isinstance(report, Keep))

    async def watch(site: Site) -> None:
        async def keep() -> None:
            raise StorageError("the disk is gone")

        desk = site.driver._desk  # type: ignore[union-attr]
        site.driver._desk = Desk(desk.note, keep, desk.quarantine, desk.last_n)  # type: ignore[union-attr]

    site.on_report = reported
    ran = site.run(watch)
    assert asked and ran.exit_code is ExitCode.STORAGE and "the disk is gone" in ran.reason
    assert sum(a.job == "job-1" for a in ran.arrivals) == 1
    assert site.now_s < 100


def test_a_worker_that_is_refused_ends_the_run_everywhere(tmp_path: Path) -> None:
    """A wrong key is wrong on all machines: its exit code is the run's, and no machine goes on."""

    def react(arrival: Arrival) -> Answer:
        return says(401, "Invalid API key") if arrival.number > 6 else OK

    ran = Site(tmp_path, react, n=60).run()
    assert ran.exit_code is ExitCode.ACCOUNT and "Invalid API key" in ran.reason
    assert len(ran.arrivals) <= 6 + 3 * C
    assert ran.counts.done == 6
    assert {note.attempt.failure for note in ran.tells(Ended)} == {Failure.UNAUTHORIZED}


# Full disks


def test_a_full_disk_where_the_log_is_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    """When intents cannot be written any more, nothing more is handed out: exit 7, and pictures that were on their way
    are saved as soon as there is room."""
    site = Site(tmp_path, n=30)

    async def fill(site: Site) -> None:
        await asyncio.sleep(15)
        site.disk.fail("write", errno.ENOSPC, 8)

    ran = site.run(fill)
    assert ran.exit_code is ExitCode.STORAGE and "No space left" in ran.reason
    assert {arrival.job for arrival in ran.arrivals} == {entry.job for entry in ran.log}
    again = site.run()
    assert again.counts.done == 30 and again.extra == 0


def test_an_error_of_the_drivers_own_does_not_end_what_workers_have_to_report(tmp_path: Path) -> None:
    """Whatever fails while one report is taken in, the following ones are still saved."""
    site = Site(tmp_path, n=12)

    async def fail(site: Site) -> None:
        def broken(*arguments: Any) -> None:
            raise RuntimeError("a mistake")

        await asyncio.sleep(5)
        site.driver._handouts.noted = broken  # type: ignore[union-attr, method-assign]

    ran = site.run(fail)
    assert ran.exit_code is ExitCode.INTERNAL and "RuntimeError: a mistake" in ran.reason
    assert {arrival.job for arrival in ran.arrivals} == {entry.job for entry in ran.log}


def test_a_full_disk_where_pictures_are_made_is_told_and_tried_again(tmp_path: Path) -> None:
    """A worker that cannot write its pictures says so and tries again: nothing is bought twice."""

    def full(name: str, disk: Disk) -> None:
        if name == "m1-1":
            disk.fail("create", errno.ENOSPC, 3)

    ran = Site(tmp_path, n=12, kits=full).run()
    assert_all_done(ran)
    assert any("No space left" in pace for pace in ran.paces)


def test_requests_of_withdrawn_intents_are_not_counted(tmp_path: Path) -> None:
    """An attempts file that was not tidied up tells which intents came to nothing."""
    site = Site(tmp_path, n=60)

    async def stop(site: Site) -> None:
        await asyncio.sleep(15)
        site.folder.compact = lambda unfinished: None  # type: ignore[method-assign]
        site.driver.stop(ExitCode.SIGTERM, "ended")

    ran = site.run(stop)
    assert ran.tells(Withdrawn)
    site.run()
    assert site.base.requests == len(ran.arrivals)
