"""Plays a scenario: the real run on the simulated machine, execution after execution, then mornings until all is done.

What is looked at between and afterwards is said in `promises`; `Story` is what they look at.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from world import Hang

from batchgen.account import SharedAccount
from batchgen.flags import Flags
from batchgen.inputs import encoder
from batchgen.model import BatchgenError, ExitCode, Secret, Shard
from batchgen.pacing import Gates, Pace
from batchgen.pool import Way
from batchgen.protocol import nebula
from batchgen.runner.conduct import run
from batchgen.runner.context import Run, Voice
from batchgen.runner.online import Offer
from batchgen.runner.outside import Link, Outside
from batchgen.runner.session import Access, Session, open_session
from batchgen.runner.storage import store_of
from batchgen.shards import holds
from batchgen.stores import Store
from batchgen.summary import Summary
from batchgen.world import Files
from nights import promises
from nights.disk import Disk
from nights.files import alone, hold
from nights.machine import Killed, NightLoop, NightWriter, Process
from nights.objects import Bucket, connector
from nights.scenario import HOUR_S, Scenario, Start
from nights.server import HABITS, Server, Wire
from nights.threads import Wait, beside_each_other

EVENING = datetime(2026, 11, 22, 22, tzinfo=UTC)
KEY = "ak_canary-0123456789abcdef"
STORE = "s3://night/pictures"
ENV = {nebula.KEY_ENV: KEY, "AWS_ACCESS_KEY_ID": "night", "AWS_SECRET_ACCESS_KEY": "night"}
PRICE_USD = 0.01
MORNINGS = 8


class WallClock:
    """A process' clocks: the loop's time, and the wall's, which the story's `skew` sets wrong."""

    def __init__(self, loop: NightLoop, story: Story) -> None:
        self._loop, self._story = loop, story

    def monotonic(self) -> float:
        return self._loop.time()

    def utc(self) -> datetime:
        return EVENING + timedelta(seconds=self._loop.time()) + self._story.skew


@dataclass
class Played:
    """One execution that is over. `signalled_s` is when it was told to stop, `rivals` what became of other starts."""

    number: int
    start: Start
    flags: dict[str, Any]
    jobs: dict[str, str]
    began_s: float
    ended_s: float
    process: Process
    shard: Shard | None = None
    most_in_flight: int = 0
    summary: Summary | None = None
    error: BaseException | None = None
    signalled_s: float | None = None
    rivals: list[BaseException | Summary | None] = field(default_factory=list)
    power_cut: bool = False

    @property
    def concurrency(self) -> int:
        return int(self.flags.get("concurrency", 8))

    @property
    def killed(self) -> bool:
        return not self.process.alive

    @property
    def exit_code(self) -> ExitCode | None:
        if self.killed:
            return None
        if self.summary:
            return ExitCode(self.summary.exit_code)
        return getattr(self.error, "exit_code", ExitCode.INTERNAL)


@dataclass
class Story:
    """A scenario as it went: its world, its executions, its lines for people, and the promises that were broken."""

    scenario: Scenario
    folder: Path
    disk: Disk
    server: Server
    bucket: Bucket
    jobs: dict[str, str]
    now_s: float = 0.0
    skew: timedelta = timedelta(0)
    played: list[Played] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    earlier: dict[str, str] = field(default_factory=dict)
    cut_from: dict[str, int] = field(default_factory=dict)

    def tell(self, now_s: float, line: str) -> None:
        self.lines.append(f"{now_s:9.2f} s  {line}")


def play(scenario: Scenario, folder: Path) -> Story:
    """The whole story; `folder` is an empty real one for manifest and account."""
    chance = random.Random(scenario.seed)
    server = Server(
        EVENING,
        random.Random(scenario.seed + 1),
        list(scenario.episodes),
        (min(1.0, scenario.slowest_s), scenario.slowest_s),
        scenario.server_rpm,
        scenario.server_rpd,
    )
    refused = dict(scenario.refused)
    jobs = {f"job-{n}": f"job-{n} v0{f' [{refused[n]}]' if n in refused else ''}" for n in range(scenario.jobs)}
    bucket = Bucket(random.Random(scenario.seed + 2), list(scenario.troubles))
    story = Story(scenario, folder, Disk(scenario.capacity_bytes), server, bucket, jobs)
    for episode in scenario.episodes:
        story.tell(episode.from_s, f"the server will show: {episode}")
    for trouble in scenario.troubles:
        story.tell(trouble.from_s, f"the store will show: {trouble}")
    for start in scenario.starts:
        _edit(story, start)
        _execute(story, start, dict(scenario.flags), chance)
        if story.broken:
            return story
    _mornings(story, chance)
    return story


def _mornings(story: Story, chance: random.Random) -> None:
    """All is well again: run until nothing is left."""
    story.server.episodes, story.bucket.troubles = [], []
    story.server.requests_per_day, story.disk.capacity_bytes = None, 1 << 30
    story.now_s += 24 * HOUR_S
    flags = {"concurrency": story.scenario.flag("concurrency", 8)}
    for _ in range(MORNINGS):
        _execute(story, Start(), flags, chance)
        last = story.played[-1]
        if story.broken or (last.summary and not last.summary.pending):
            break
    story.broken += promises.at_last(story) if not story.broken else []


def _edit(story: Story, start: Start) -> None:
    for kind, number in start.edits:
        name = list(story.jobs)[number % len(story.jobs)] if story.jobs else ""
        match kind:
            case "change" if name:
                story.earlier[name] = story.jobs[name]
                head, _, version = story.jobs[name].partition(" v")
                story.jobs[name] = f"{head} v{int(version.split()[0]) + 1}"
            case "revert" if name in story.earlier:
                story.jobs[name], story.earlier[name] = story.earlier[name], story.jobs[name]
            case "add":
                new = f"new-{len(story.lines)}-{number}"
                story.jobs[new] = f"{new} v0"
            case "drop" if len(story.jobs) > 1:
                del story.jobs[name]
        story.tell(story.now_s, f"the manifest is edited: {kind} {name}")
    for path, size_bytes in start.cuts:
        node = story.disk.names[path]
        story.cut_from[path] = len(node.data)
        del node.data[size_bytes:]
        node.durable = bytes(node.data)
        story.tell(story.now_s, f"{path} is cut from {story.cut_from[path]} to {len(node.data)} bytes")


def _execute(story: Story, start: Start, flags: dict[str, Any], chance: random.Random) -> None:
    """One execution, or shards beside each other."""
    story.now_s += start.after_s
    before, starts = promises.before(story), (start, *start.beside)
    group = [_new(story, each, n, len(starts), flags) for n, each in enumerate(starts)]
    if any(each.power for each in starts):
        for played in group:
            played.process.falls_with = [other.process for other in group if other is not played]
    if len(group) == 1:
        _run(story, group[0], chance, None)
    else:
        beside_each_other([(p.began_s, partial(_run, story, p, chance)) for p in group])
    story.now_s = max(played.ended_s for played in group)
    if any(played.killed and played.start.power for played in group):
        story.disk.power_cut(chance)
        for played in group:
            played.power_cut = True
    for played in group:
        _tell_end(story, played)
    story.played += group
    story.broken += promises.after(story, group, before)


def _new(story: Story, start: Start, n: int, of: int, flags: dict[str, Any]) -> Played:
    began_s = story.now_s + (start.after_s if n else 0.0)
    shard = Shard(n + 1, of) if of > 1 else None
    waits = flags.get("on_quota") == "wait"
    loop = NightLoop(began_s, began_s + (80 if waits else 30) * HOUR_S)
    process = Process(loop, story.disk, list(start.faults), story.scenario.sync_s)
    jobs = {name: prompt for name, prompt in story.jobs.items() if shard is None or holds(shard, name)}
    who = f", shard {shard}" if shard else ""
    number = len(story.played) + 1 + n
    story.tell(began_s, f"execution {number} starts{who}: {len(jobs)} jobs, {flags}")
    return Played(number, start, flags, jobs, began_s, began_s, process, shard)


def _run(story: Story, played: Played, chance: random.Random, wait: Wait | None) -> None:
    """The process from its start to its end, whatever end; it can `wait` where others are beside it."""
    loop, process = played.process.loop, played.process
    loop.beside = wait
    clock = WallClock(loop, story)
    _arrange(story, played, loop, clock, chance)
    try:
        if process.alive:
            played.summary = _drive(loop, process, _main(story, played, loop, clock, chance))
    except Hang as error:
        story.broken.append(f"no hang: {error}")
    except Killed:
        pass
    except BatchgenError as error:
        played.error = error
    process.faults = []
    played.ended_s = loop.time()
    loop.close()


def _drive(loop: NightLoop, process: Process, main: Any) -> Any:
    """Run the process on its loop to its end, whatever end."""
    task = loop.create_task(main)
    loop.process = process
    try:
        return loop.run_until_complete(task)
    finally:
        loop.process = None
        process_alive, process.alive = process.alive, False
        left = [t for t in asyncio.all_tasks(loop) if not t.done()]
        for other in left:
            other.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=60))
        loop.crew.end()
        process.alive = process_alive
        if task.done() and not task.cancelled():
            task.exception()


async def _main(story: Story, played: Played, loop: NightLoop, clock: WallClock, chance: random.Random) -> Summary:
    outside = _outside(story, played, loop, clock, chance)
    return await run(_session(story, clock, played), Voice(quiet=True), outside)


def _session(story: Story, clock: WallClock, played: Played) -> Any:
    rows = [f"{name},{prompt}" for name, prompt in story.jobs.items()]
    manifest = story.folder / "night.csv"
    text = "\n".join(["id,prompt", *rows, ""])
    if not manifest.exists() or manifest.read_text() != text:
        manifest.write_text(text)
    flags = dict(played.flags)
    if played.shard:
        flags["shard"] = str(played.shard)
    else:
        flags.pop("shared_account", None)
    folder = story.folder / "out"
    flags |= {"output": STORE, "state": folder} if story.scenario.in_store else {"output": folder}
    said = Flags.of(manifest, defaults=["model=m"], prices=[f"m={PRICE_USD}"], api="nebula", **flags)
    return open_session(said, ENV, now=clock.utc())


def _outside(story: Story, played: Played, loop: NightLoop, clock: WallClock, chance: random.Random) -> Outside:
    @asynccontextmanager
    async def link(this: Run) -> AsyncIterator[Link]:
        encode, limits = encoder(this.session.inputs, nebula.encode_post), this.settings.limits
        pace = Pace(limits.requests_per_minute, limits.requests_per_day)
        # A folder in the place of the file is a store that cannot be used.
        store = story.folder if played.start.no_store else story.folder / "account.sqlite3"
        own_count = None if this.settings.shared_account else played.shard
        wires = [Wire(story.server, played.number, encode, endpoint) for endpoint in story.scenario.endpoints]
        accounts = [
            SharedAccount(
                *(store, f"night {name} {own_count or ''}", pace, clock),
                sent_today=this.sent_today(name),
                warn=this.warn,
            )
            for name in story.scenario.endpoints
        ]
        ways = [
            Way(wire, account, Gates.of(limits.concurrency), limits.timeout_s, limits.requests_per_minute, name)
            for wire, account, name in zip(wires, accounts, story.scenario.endpoints, strict=True)
        ]
        try:
            yield Link(ways, Secret(KEY))
        finally:
            played.most_in_flight = max(wire.most_in_flight for wire in wires)
            for account in accounts:
                account.close()

    def writer(committer: Any, _: asyncio.AbstractEventLoop) -> NightWriter:
        return NightWriter(committer, loop)

    def begun(root: Path) -> bool:
        return ".batchgen" in story.disk.names

    process = played.process

    async def ask(access: Access) -> Offer:
        return Offer()

    def keeper(session: Session, local: Files) -> Store | None:
        return store_of(session.settings, local, partial(alone, process), connector(story.bucket, process))

    held = partial(hold, process)
    return Outside(clock, chance, begun, held, link, writer, loop.pause, ask, keeper, loop.crew.start)


def _arrange(story: Story, played: Played, loop: NightLoop, clock: WallClock, chance: random.Random) -> None:
    """Put what happens from outside on the loop's timetable."""
    start, process = played.start, played.process

    def at(after_s: float, what: str, action: Callable[[], None]) -> None:
        def happen() -> None:
            if process.alive:
                story.tell(loop.time(), what)
                story.faults[what.partition(":")[0]] += 1
                action()

        loop.call_at(played.began_s + after_s, happen)

    def stop() -> None:
        played.signalled_s = loop.time() if played.signalled_s is None and loop.handlers else played.signalled_s
        loop.signal(signal.SIGTERM)

    def step(seconds: float) -> None:
        story.skew += timedelta(seconds=seconds)

    def sleep(seconds: float) -> None:
        step(seconds)
        story.server.skew += timedelta(seconds=seconds)

    def rival() -> None:
        other = replace(played, process=Process(loop, story.disk), shard=_rival_of(played), rivals=[])
        task = loop.create_task(_main(story, other, loop, clock, chance))
        task.add_done_callback(lambda done: None if done.cancelled() else played.rivals.append(done.exception()))

    if start.kill_s is not None:
        at(start.kill_s, "power cut" if start.power else "killed", process.die)
    for after_s in start.signals:
        at(after_s, "SIGTERM", stop)
    for after_s, seconds in start.steps:
        at(after_s, f"clock step: {seconds:+.0f} s", lambda seconds=seconds: step(seconds))  # type: ignore[misc]
    for after_s, seconds in start.sleeps:
        at(after_s, f"suspend: {seconds:.0f} s", lambda seconds=seconds: sleep(seconds))  # type: ignore[misc]
    if start.no_store:
        story.faults["account's store unusable"] += 1
    if start.rival_s is not None:
        at(start.rival_s, "rival start", rival)


def _rival_of(played: Played) -> Shard | None:
    """What would go with nothing that is at work: the same, everything, or a part of another number."""
    n = played.shard.n if played.shard else 1
    return (played.shard, None, Shard(1, n + 1))[played.number % 3]


def _tell_end(story: Story, played: Played) -> None:
    requests = [r for r in story.server.ledger if r.start == played.number]
    for request in requests:
        kind = (f"{request.endpoint}: " if request.endpoint else "") + (request.habit or "picture")
        paid = ", paid" if request.paid else ""
        story.tell(request.at_s, f"  {request.prompt}: {kind}{paid}, known at {request.ended_s:.2f} s")
        story.faults[request.habit] += bool(request.habit in HABITS)
    for fault in played.process.struck:
        kind = "killed in a file operation" if fault.kill else f"disk error {fault.code}"
        story.faults[kind] += 1
        story.tell(played.ended_s, f"  {kind} ({fault})")
    story.faults["a shard"] += played.shard is not None
    if played.killed:
        end = f"dies after {played.process.operations} file operations" + (", power cut" if played.power_cut else "")
        end += f"; the last: {played.process.last}"
    elif played.summary:
        s = played.summary
        end = f"ends with {s.exit_code}: {s.done} done, {s.failed} failed, {s.uncertain} uncertain, {s.pending} pending"
        end += f" ({s.verdict})"
    else:
        end = f"ends with {played.exit_code}: {played.error}"
    story.tell(played.ended_s, f"execution {played.number} {end}")
