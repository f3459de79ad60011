"""What status tells of a run at work: from its pulse to the words a tired person reads, and how it watches."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from folders import write_folder
from samples import AT, attempt, entry, failed
from world import SimClock, VirtualLoop, run_virtually

from batchgen import joblog
from batchgen.events import Finished
from batchgen.folder import Live, Pause, State
from batchgen.joblog import Ended, Intent, Prepared, moment
from batchgen.limits import Limits
from batchgen.model import Entry, ExitCode, Failure, Outcome, Shard
from batchgen.pacing import Adaptive, Breaker, Gates
from batchgen.pool import Stop
from batchgen.runner import live, process
from batchgen.runner.archive import recent_at
from batchgen.runner.context import Run
from batchgen.runner.live import Now, RunState
from batchgen.runner.look import Status
from batchgen.runner.pulse import Pulse
from batchgen.runner.watch import COST, LOOK_S, Glances, Lines, Screen, exit_code, line
from batchgen.summary import Tally

if TYPE_CHECKING:
    from conftest import Place

NOW = datetime(2026, 11, 22, 22, 30, tzinfo=UTC)
HERE = socket.gethostname()


def at(ago_s: float) -> str:
    return joblog.timestamp(NOW - timedelta(seconds=ago_s))


def done(job: str, ago_s: float, **changes: Any) -> Entry:
    return entry(job=job, finished_at=at(ago_s), **changes)


# What just happened


def test_the_rate_is_that_of_the_last_minutes() -> None:
    """Pictures a minute count what ended in the window, failed jobs as jobs without pictures."""
    entries = [done("old", 400), done("a", 100), done("b", 50), done("c", 1, images=(), outcome=Outcome.FAILED)]
    found = joblog.rate(entries, NOW - timedelta(seconds=300), NOW)
    assert found == joblog.Rate(300.0, 3, 2, 0.4)
    assert joblog.rate(entries, NOW, NOW) is None


def ended(job: str, n: int, failure: Failure, message: str, ago_s: float) -> Ended:
    return Ended(job, "f1", failed(failure, n, at=at(ago_s), message=message))


def test_troubles_are_told_newest_first_and_those_alike_once() -> None:
    """Attempts that say the same but for numbers are one trouble; one that ended its job says so; a picture is none."""
    bad = failed(Failure.BAD_REQUEST, at=at(3), message="no 4k")
    entries = [
        done("x", 3, outcome=Outcome.FAILED, attempts=(bad,), images=()),
        done("y", 2, attempts=(failed(Failure.GATEWAY, at=at(9), message="page"), attempt(2, at=at(2)))),
    ]
    notes = [ended(f"j{n}", 1, Failure.NOT_CONNECTED, f"port {n}", 60 - n) for n in range(3)]
    notes += [ended("x", 1, Failure.BAD_REQUEST, "no 4k", 3)]
    found = joblog.troubles(entries, notes)
    assert [(t.job, t.failure, t.count, t.outcome) for t in found] == [
        ("x", "bad_request", 1, Outcome.FAILED),
        ("y", "gateway", 1, None),
        ("j2", "not_connected", 3, None),
    ]


def test_in_flight_is_what_has_no_end() -> None:
    """Of a run's intents those count that did not fail, were not taken back, are not about to be saved or logged."""
    notes: list[joblog.Note] = [Intent(name, "f1", 1, AT, "r") for name in ("out", "failed", "saving", "saved")]
    notes += [Intent("other", "f1", 1, AT, "an earlier run")]
    notes += [Intent("given back", "f1", 1, AT, "r"), joblog.Withdrawn("given back", "f1", 1)]
    notes += [ended("failed", 1, Failure.GATEWAY, "", 1), Prepared("saving", "f1", msgspec.Raw(b"{}"))]
    assert joblog.in_flight([entry(job="saved")], notes, "r") == 1
    assert joblog.in_flight([], [*notes, Intent("failed", "f1", 2, AT, "r")], "r") == 3


# The pulse


class Loop(VirtualLoop):
    """Virtual time on which threads take none."""

    def run_in_executor(self, executor: Any, func: Any, *arguments: Any) -> Any:  # type: ignore[override]
        future = self.create_future()
        future.set_result(func(*arguments))
        return future


class Body:
    """A run as its pulse sees it: on virtual time, with a folder that keeps the states it is given."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.clock = SimClock(loop, NOW)
        self.folder = self
        self.states: list[tuple[float, State]] = []
        self.state = State("m.yaml", run="r", started_at=at(0))
        self.settings = SimpleNamespace(
            limits=Limits(concurrency=8), give_up_after_s=1800.0, max_runtime_s=3600.0, until=NOW + timedelta(hours=8)
        )
        self.tally, self.hear, self.copies = Tally(), None, None
        self.warnings: list[str] = []
        self.warn = self.warnings.append
        self.gates = Gates(Breaker(5), Adaptive(8))
        self.pool = SimpleNamespace(
            stops=[], waiting=2, in_flight=3, lanes=[SimpleNamespace(name="", closed=None, gates=self.gates)]
        )
        self.changed = asyncio.Event()

    @property
    def ends_at(self) -> datetime | None:
        return Run.ends_at.fget(self)  # type: ignore[attr-defined, no-any-return]

    def write_state(self, state: State) -> None:
        self.states.append((self.clock.monotonic(), state))

    def sync_attempts(self) -> None:
        pass

    async def live(self, script: Any) -> None:
        pulse = Pulse(self, SimpleNamespace(remaining=40), self.pool, self.changed)  # type: ignore[arg-type]
        await pulse.around(script(self), lambda: None)

    @property
    def last(self) -> State:
        return self.states[-1][1]


def pulse(script: Any) -> Body:
    loop = Loop()

    async def main() -> Body:
        body = Body(loop)
        await body.live(script)
        return body

    return run_virtually(main(), loop)


def test_a_run_says_every_half_minute_what_it_does() -> None:
    """The state tells numbers, limits and when the run will end, as cheaply as every 30 s."""

    async def script(body: Body) -> None:
        await asyncio.sleep(5)
        body.tally(Finished(entry()))
        await asyncio.sleep(90)

    body = pulse(script)
    assert [round(now_s) for now_s, _ in body.states] == [0, 30, 60, 90]
    assert body.last.doing == "working" and body.last.heartbeat_at == joblog.timestamp(NOW + timedelta(seconds=90))
    assert body.last.live == Live(
        began_at=at(0), to_do=40, concurrency=8, limit=1, limit_reason="start", ended=1, waiting=2, ends_at=at(-3600)
    )


def test_a_change_is_told_at_once_and_many_changes_are_told_once() -> None:
    """A cooldown, its end and an outage stand in the state within two seconds, however many words there are of it."""

    async def script(body: Body) -> None:
        await asyncio.sleep(10)
        for _ in range(100):
            body.gates.cooldown.begin(body.clock.monotonic(), body.clock.monotonic(), 20.0, 0.0)
            body.changed.set()
            await asyncio.sleep(0.01)
        await asyncio.sleep(4)
        for _ in range(5):
            body.gates.breaker.failed(body.clock.monotonic())
        body.changed.set()
        await asyncio.sleep(3)

    body = pulse(script)
    told = [state.doing for _, state in body.states]
    assert told[0] == "working" and told[1] == "cooldown after a rate limit"
    assert told[-1] == "nothing succeeds, asking now and then" and len(told) <= 4
    pause = body.last.live and body.last.live.pause
    assert pause and pause.gives_up_at == joblog.timestamp(moment(pause.since or "") + timedelta(minutes=30))


PAUSES = {
    "a spent day": (lambda g: g.day.close(NOW, 0.5), "the day's quota is spent", True),
    "a cooldown": (lambda g: g.cooldown.begin(0.0, 0.0, 30.0, 0.0), "cooldown after a rate limit", True),
}


@pytest.mark.parametrize(("close", "why", "known"), PAUSES.values(), ids=PAUSES.keys())
def test_a_pause_says_why_and_until_when(close: Any, why: str, known: bool) -> None:
    """Whoever looks knows what the run waits for."""

    async def script(body: Body) -> None:
        close(body.gates)
        body.changed.set()
        await asyncio.sleep(3)

    found = pulse(script).last
    assert found.live and found.live.pause and found.live.pause.why == why == found.doing
    assert (found.live.pause.until is not None) is known


def test_of_several_endpoints_those_that_rest_are_told() -> None:
    """While one of them works the run does; when all rest, it pauses until the first of them is back."""
    others = [SimpleNamespace(name=name, closed=None, gates=Gates.of(8)) for name in "ab"]

    async def script(body: Body) -> None:
        body.pool.lanes = others
        others[0].gates.cooldown.begin(0.0, 0.0, 30.0, 0.0)
        body.changed.set()
        await asyncio.sleep(5)
        others[1].gates.cooldown.begin(5.0, 5.0, 60.0, 0.0)
        body.changed.set()
        await asyncio.sleep(5)

    states = [state for _, state in pulse(script).states]
    assert states[-2].doing == "working, without a" and states[-2].live and states[-2].live.pause is None
    assert states[-2].live.resting["a"].why == "cooldown after a rate limit" and states[-2].live.limit == 2
    assert states[-1].doing == "cooldown after a rate limit" and states[-1].live and len(states[-1].live.resting) == 2
    assert states[-1].live.pause and states[-1].live.pause.until == at(-30)


def test_a_heart_that_stops_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the heartbeat ends not the run, and is not kept from whoever would take it for dead."""

    def fail(body: Body, state: State) -> None:
        raise ValueError("a number too many")

    monkeypatch.setattr(Body, "write_state", fail)
    assert pulse(lambda body: asyncio.sleep(5)).warnings == [
        "the heartbeat has stopped (ValueError: a number too many); the run goes on, though it looks dead"
    ]


def test_a_run_that_ends_says_so() -> None:
    """While answers are awaited the state tells why nothing new is sent."""

    async def script(body: Body) -> None:
        body.pool.stops.append(Stop(ExitCode.SIGTERM, "ended by SIGTERM"))
        body.changed.set()
        await asyncio.sleep(3)

    assert pulse(script).last.doing == "ending (ended by SIGTERM)"


# Who is at work


def state(**changes: Any) -> State:
    whole = State(
        "../../m.yaml",
        run="r",
        pid=os.getpid(),
        host=HERE,
        process=process.mark(os.getpid()),
        started_at=at(600),
        heartbeat_at=at(20),
        doing="working",
        live=Live(began_at=at(590), to_do=50, concurrency=8, limit=8, limit_reason="answers are good", ended=20),
    )
    return msgspec.structs.replace(whole, **changes)


WHO = {
    "at work": ({}, RunState.RUNNING, True),
    "its process is gone": ({"pid": 4_000_000}, RunState.KILLED, False),
    "another process has its number": ({"process": "an earlier boot/17"}, RunState.KILLED, False),
    "no mark is known": ({"process": ""}, RunState.RUNNING, True),
    "stopped": ({"heartbeat_at": at(600)}, RunState.SILENT, True),
    "planning for long": ({"heartbeat_at": at(600), "live": None, "doing": "planning"}, RunState.RUNNING, True),
    "elsewhere": ({"host": "moon", "pid": 4_000_000}, RunState.RUNNING, True),
    "elsewhere, not heard of": ({"host": "moon", "heartbeat_at": at(600)}, RunState.SILENT, False),
    "ended": ({"pid": 0, "doing": "ended", "live": None}, RunState.ENDED, False),
}


def folder(place: Place, found: State, *entries: Entry, notes: tuple[joblog.Note, ...] = ()) -> Any:
    place.write("o/.batchgen/state.json", msgspec.json.encode(found))
    place.write("o/log.jsonl", b"".join(map(joblog.encode, entries)))
    place.write("o/.batchgen/attempts.jsonl", b"".join(map(joblog.encode, notes)))
    return place.root / "o"


def look(root: Any) -> Now:
    with recent_at(root) as recent:
        return live.now(recent, NOW)


def test_what_shards_left_is_told_whichever_ended_last(place: Place) -> None:
    """The last shard may have made all of its own; a job that another one made since is no trouble any more."""
    bad, root = (failed(Failure.BAD_REQUEST),), place.root / "o"
    lost = [
        entry(job=job, outcome=Outcome.FAILED, images=(), attempts=bad, finished_at=at(90)) for job in ("left", "made")
    ]
    write_folder(root, [entry(job="made", finished_at=at(50))], Shard(2, 2), started_at=at(60))
    write_folder(root, lost, Shard(1, 2), started_at=at(100))
    assert [trouble.job for trouble in look(root).troubles] == ["left"]


@pytest.mark.parametrize(("changes", "run_state", "running"), WHO.values(), ids=WHO.keys())
def test_whether_a_run_is_at_work(place: Place, changes: dict[str, Any], run_state: RunState, running: bool) -> None:
    """A killed run, a number that another process has got, another machine: each is told as what it is."""
    found = look(folder(place, state(**changes)))
    assert (found.run_state, found.running) == (run_state, running)
    assert (found.work is not None) is (run_state in (RunState.RUNNING, RunState.SILENT) and "live" not in changes)
    assert "\n".join(live.render(found, NOW)) or run_state is RunState.ENDED


def test_a_process_is_told_from_another() -> None:
    """The mark of this process is its own; where the system tells none, a number alone must do."""
    assert process.is_there(os.getpid(), process.mark(os.getpid()))
    assert process.mark(1) != process.mark(os.getpid()) and process.mark(4_000_000) == ""
    assert not process.is_there(4_000_000, "")


def test_the_log_counts_on_since_the_last_heartbeat(place: Place) -> None:
    """What ended after the state was written is counted, and rate and time left follow."""
    entries = [done(f"j{n}", 295 - 12 * n) for n in range(25)]
    found = look(folder(place, state(), done("early", 999, run="earlier"), *entries)).work
    assert found and (found.ended, found.to_do) == (22, 50)
    assert found.pictures_per_minute == 5.0 and found.window_s == 300
    assert found.eta_s == (50 - 22) * 12.0 and found.eta_at == at(-336)


def test_a_pause_has_no_end_of_work_and_ends_by_the_clock(place: Place) -> None:
    """While everything waits nobody knows when it will be ready; a pause that is over is not told."""
    for ago_s, paused in ((-30, True), (5, False)):
        pause = Pause("cooldown after a rate limit", until=at(ago_s))
        now = state(live=msgspec.structs.replace(state().live, pause=pause))  # type: ignore[type-var]
        found = look(folder(place, now, done("a", 10), done("b", 5))).work
        assert found and (found.pause is not None, found.eta_s is None) == (paused, paused)


def test_what_will_be_left_at_the_end(place: Place) -> None:
    """A night that is too short is told beforehand."""
    now = state(live=msgspec.structs.replace(state().live, ends_at=at(-60)))  # type: ignore[type-var]
    found = look(folder(place, now, *(done(f"j{n}", 295 - 12 * n) for n in range(25))))
    assert found.work and found.work.left_at_end == 28 - 5
    assert "about 23 jobs will be left then" in "\n".join(live.render(found, NOW))
    longer = msgspec.structs.replace(now.live, pause=Pause("the day's quota is spent", until=at(-90)))  # type: ignore[type-var]
    found = look(folder(place, state(live=longer), done("a", 10)))
    assert found.work and found.work.left_at_end == found.work.to_do - found.work.ended


def test_old_troubles_are_forgotten(place: Place) -> None:
    """A run at work tells its own failures; afterwards only jobs without a picture are trouble."""
    bad = failed(Failure.BAD_REQUEST, at=at(5000), message="no")
    old = [done("x", 5000, run="old", outcome=Outcome.FAILED, attempts=(bad,), images=())]
    fresh = ended("y", 1, Failure.GATEWAY, "page", 30)
    stale = ended("z", 1, Failure.GATEWAY, "an older page", 3000)
    at_work = look(folder(place, state(), *old, notes=(stale, fresh)))
    assert [trouble.job for trouble in at_work.troubles] == ["y"]
    over = state(pid=0, doing="ended")
    assert [t.job for t in look(folder(place, over, *old, done("y", 1), notes=(fresh,))).troubles] == ["x"]
    assert look(folder(place, over, *old, done("x", 1), notes=())).troubles == []


LATER = Live(began_at="later", to_do=1, concurrency=1, limit=1, limit_reason="")


@pytest.mark.parametrize(
    "damage", [{"heartbeat_at": "soon"}, {"heartbeat_at": "2026-11-22"}, {"live": LATER}, {"doing": "\x1b[2J"}]
)
def test_a_state_that_makes_no_sense_ends_no_look(place: Place, damage: dict[str, Any]) -> None:
    """Whatever stands in the state, nothing is raised and nothing drives the terminal."""
    found = look(folder(place, state(**damage)))
    assert "\x1b" not in "\n".join(live.render(found, NOW))


def test_a_torn_tail_is_left_out(place: Place) -> None:
    """A log that is being written to may end in half a line; a long one is read from its end only."""
    root = folder(place, state(), *(done(f"j{n}", 1, meta={"long": "x" * 5000}) for n in range(300)))
    with (root / "log.jsonl").open("ab") as file:
        file.write(b'{"job": "ha')
    with recent_at(root) as [recent]:
        assert 100 < len(recent.entries()) < 300 and recent.entries()[-1].job == "j299"


# Watching


class Watched:
    """A folder that changes while it is watched: `story` holds what each look finds, counting takes `cost_s`."""

    def __init__(self, *story: RunState, cost_s: float = 0.0) -> None:
        self.story, self.cost_s, self.now_s, self.counted = list(story), cost_s, 0.0, 0

    def monotonic(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return NOW

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.story.pop(0)

    def now(self) -> Now:
        return Now(run="r", run_state=self.story[0], doing=f"at {self.now_s:g}", last_exit_code=3)

    def count(self) -> Status:
        self.counted += 1
        self.now_s += self.cost_s
        numbers = dict.fromkeys(
            ("done", "failed", "uncertain", "missing", "in_doubt", "orphans", "requests"), self.counted
        )
        whole = Status(output="o", manifest=None, total=9, pending=1, cost_usd=0.0, exposure_usd=0.0, **numbers)  # type: ignore[arg-type]
        return whole.at(self.now())

    def glances(self) -> list[Status]:
        return list(Glances(self.count, self.now, self.wait, self))


def test_watching_ends_with_the_run() -> None:
    """A look every two seconds until nobody is at work; the exit code is the run's, the last counts are fresh."""
    watched = Watched(RunState.RUNNING, RunState.SILENT, RunState.ENDED)
    found = watched.glances()
    assert [status.run_state for status in found] == [RunState.RUNNING, RunState.SILENT, RunState.ENDED]
    assert watched.now_s == 2 * LOOK_S and exit_code(found[-1]) == 3


def test_a_run_that_was_killed_left_work() -> None:
    """Who watches learns that the same command has to be run again."""
    [found] = Watched(RunState.KILLED).glances()
    assert exit_code(found) == ExitCode.WORK_LEFT


def test_a_large_folder_is_counted_seldom() -> None:
    """Counting that takes a second is done about every twenty seconds; what goes on is looked at every time."""
    watched = Watched(*[RunState.RUNNING] * 40, RunState.ENDED, cost_s=1.0)
    found = watched.glances()
    assert len(found) == 41 and len({status.doing for status in found}) == 41
    assert watched.counted <= 2 + watched.now_s / COST


def test_a_screen_is_drawn_over_and_never_scrolls() -> None:
    """Lines are cut to the terminal, and the next picture begins where this one did."""
    said: list[str] = []
    screen = Screen(said.append, lambda: (10, 4))
    screen.draw(["x" * 30, "b", "c", "d", "e"])
    screen.draw(["only"])
    assert said == ["\x1b[J" + "x" * 9 + "\nb\nc\n", "\x1b[3F\x1b[Jonly\n"]


def test_without_a_terminal_a_line_a_minute_and_one_a_change() -> None:
    """A log of the watching stays short, and a change is told when it is seen."""
    watched, said = Watched(RunState.RUNNING), []
    lines = Lines(lambda status: said.append((watched.now_s, status.doing)), watched)
    for second in range(0, 150, 2):
        watched.now_s = second
        lines.draw(msgspec.structs.replace(watched.count(), doing="working" if second < 90 else "cooldown"))
    assert said == [(0, "working"), (60, "working"), (90, "cooldown")]


def test_a_line_tells_how_far_it_is(place: Place) -> None:
    """One line has ended and left, failed, in flight, rate, time and what it does."""
    now = look(folder(place, state(), *(done(f"j{n}", 295 - 12 * n) for n in range(25))))
    said = line(Watched(RunState.RUNNING).count().at(now))
    assert said == "22 of 50 ended, 1 failed, 0 in flight, 5.0 a minute, about 5 min 36 s left; working"
