"""What happens in a story of some nights: all of it data, made from a seed, printable, and fit to be made smaller."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from nights.machine import CHANGING, DiskFault
from nights.objects import KINDS, Trouble
from nights.server import HABITS, REFUSALS, Episode

HOUR_S = 3600.0
_CODES = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS)
_EDITS = ("change", "revert", "add", "drop", "note")


@dataclass(frozen=True)
class Start:
    """One execution of `batchgen run`, `after_s` the one before has ended; times within it count from its start.

    `kill_s` ends it (with the `power` if so), `signals` reach it, a rival tries to start beside it, the wall clock is
    stepped, the machine sleeps, the account's store cannot be used. Before it `edits` are made to the manifest, and
    `cuts` leave so many bytes of files. With others `beside` it, each is a shard, `after_s` later than this.
    """

    after_s: float = 600.0
    edits: tuple[tuple[str, int], ...] = ()
    cuts: tuple[tuple[str, int], ...] = ()
    faults: tuple[DiskFault, ...] = ()
    kill_s: float | None = None
    power: bool = False
    signals: tuple[float, ...] = ()
    rival_s: float | None = None
    steps: tuple[tuple[float, float], ...] = ()
    sleeps: tuple[tuple[float, float], ...] = ()
    no_store: bool = False
    beside: tuple[Start, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """The jobs, the limits on both sides, what the server does when, and the executions one after another.

    `in_store`: pictures are in an object store, which makes `troubles`.
    """

    seed: int
    jobs: int = 10
    refused: tuple[tuple[int, str], ...] = ()
    flags: tuple[tuple[str, Any], ...] = ()
    server_rpm: int | None = None
    server_rpd: int | None = None
    slowest_s: float = 20.0
    sync_s: float = 0.0
    capacity_bytes: int = 1 << 30
    episodes: tuple[Episode, ...] = ()
    in_store: bool = False
    troubles: tuple[Trouble, ...] = ()
    starts: tuple[Start, ...] = field(default_factory=lambda: (Start(),))
    endpoints: tuple[str, ...] = ("",)

    def flag(self, name: str, default: Any = None) -> Any:
        return dict(self.flags).get(name, default)


def scenario(seed: int) -> Scenario:
    """The story of this seed: of five one has shards in it, one a store, one of 25 both; in a quarter of those without
    shards there are several endpoints, with a misfortune more for each."""
    story, chance = _plain(seed), random.Random(f"{seed}, more of it")
    if seed % 5 == 3 or seed % 25 == 4:
        story = _sharded(story, chance)
    else:
        story = _with_endpoints(story, random.Random(f"endpoints {seed}"))
    return _in_store(story, chance) if seed % 5 == 4 else story


def _with_endpoints(story: Scenario, chance: random.Random) -> Scenario:
    if chance.random() > 0.25:
        return story
    endpoints = ("a", "b", "c")[: chance.choice((2, 2, 3))]
    episodes = (*story.episodes, *(_episode(chance) for _ in endpoints))
    places = (replace(episode, endpoint=chance.choice((*endpoints, *endpoints, None))) for episode in episodes)
    return replace(story, endpoints=endpoints, episodes=tuple(places))


def _sharded(story: Scenario, chance: random.Random) -> Scenario:
    """Some of the starts become shards beside each other; each has its own mishaps."""
    starts, flags = [], story.flags
    if chance.random() < 0.3:
        flags = (*flags, ("shared_account", True))
    last = chance.choice((2, 2, 3, 4))
    for start in story.starts:
        n = chance.choice((last, last, last, 1, 2, 3, 4))
        later = [chance.choice((0.0, 0.0, 0.2, 3.0, 40.0)) for _ in range(n - 1)]
        others = (replace(_start(chance, first=True), after_s=after_s) for after_s in later)
        # Shards that cannot see each other's count would not keep it together.
        first, *beside = (replace(each, no_store=False) for each in (start, *others))
        starts.append(replace(first, beside=tuple(beside)))
        last = n if n > 1 else last
    return replace(story, starts=tuple(starts), flags=flags)


def _in_store(story: Scenario, chance: random.Random) -> Scenario:
    """The pictures are in a store; some of the deaths come at one of its calls."""
    starts = []
    for start in story.starts:
        if chance.random() < 0.4:
            at = chance.choice((1, 2, 3, 4, 5, 6, 9, 14, 20))
            fault = DiskFault(at=at, only=chance.choice(("put", "put", "copy", "delete", "remove")), kill=True)
            start = replace(start, faults=(*start.faults, fault))
        starts.append(start)
    return replace(
        story,
        in_store=True,
        starts=tuple(starts),
        troubles=tuple(_trouble(chance) for _ in range(chance.choice((0, 1, 1, 2, 3)))),
    )


def _trouble(chance: random.Random) -> Trouble:
    from_s = chance.choice((0.0, chance.uniform(0, 30), chance.uniform(0, 300), chance.uniform(0, HOUR_S)))
    lasts_s = chance.choice((5.0, 100.0, 300.0, HOUR_S))
    only = chance.choice(("", "", "put", "put", "copy", "delete", "list", "head", "get"))
    return Trouble(chance.choice(KINDS), from_s, from_s + lasts_s, chance.choice((0.1, 0.3, 0.5, 1.0, 1.0)), only)


def _plain(seed: int) -> Scenario:
    """The story without shards and store.

    Its numbers come first, so that a seed stays the night that it was.
    """
    chance = random.Random(seed)
    jobs = chance.choice((1, 3, 6, 10, 15, 25))
    rpm = chance.choice((None, None, None, 30, 60))
    rpd = chance.choice((None, None, None, 20))
    starts = tuple(_start(chance, first=number == 0) for number in range(chance.choice((1, 2, 2, 3, 4))))
    theme = chance.random()
    if theme < 0.05:
        starts = tuple(Start(after_s=5.0, kill_s=chance.uniform(0.5, 15.0)) for _ in range(6))
    elif theme < 0.15:
        edits = tuple((chance.choice(("change", "revert")), chance.randrange(30)) for _ in range(5))
        fault = DiskFault(at=chance.randrange(1, 30), only=chance.choice(("rename", "sync", "sync_dir")), kill=True)
        starts = (Start(0.0), Start(edits=edits, faults=(fault,), power=chance.random() < 0.5))
    return Scenario(
        seed=seed,
        jobs=jobs,
        refused=tuple(
            (chance.randrange(jobs), chance.choice(tuple(REFUSALS))) for _ in range(chance.choice((0, 0, 1)))
        ),
        flags=tuple(_flags(chance, rpm, rpd)),
        server_rpm=rpm,
        server_rpd=rpd,
        slowest_s=chance.choice((2.0, 20.0, 20.0, 170.0, 400.0)),
        sync_s=chance.choice((0.0, 0.0, 0.01, 2.0)),
        capacity_bytes=chance.choice((1 << 30, 1 << 30, 1 << 30, 12_000)),
        episodes=tuple(_episode(chance) for _ in range(chance.choice((0, 1, 1, 2, 3)))),
        starts=starts,
    )


def _flags(chance: random.Random, rpm: int | None, rpd: int | None) -> Iterator[tuple[str, Any]]:
    yield "concurrency", chance.choice((1, 2, 4, 8))
    if rpm and chance.random() < 0.7:
        yield "requests_per_minute", rpm
    if rpd and chance.random() < 0.7:
        yield "requests_per_day", rpd
    if chance.random() < 0.15:
        yield "max_requests", chance.randrange(1, 30)
    if chance.random() < 0.15:
        yield "max_cost_usd", chance.randrange(1, 30) / 100
    if chance.random() < 0.2:
        yield "max_runtime_s", chance.choice((60.0, 600.0, 2 * HOUR_S))
    if chance.random() < 0.3:
        yield "on_quota", "wait"
    if chance.random() < 0.2:
        yield "uncertain_retries", chance.choice((0, 2))


def _episode(chance: random.Random) -> Episode:
    from_s = chance.choice((0.0, chance.uniform(0, 60), chance.uniform(0, HOUR_S)))
    lasts_s = chance.choice((5.0, 60.0, 600.0, 45 * 60.0, 10 * HOUR_S))
    return Episode(chance.choice(tuple(HABITS)), from_s, from_s + lasts_s, chance.choice((0.05, 0.3, 1.0, 1.0)))


def _start(chance: random.Random, *, first: bool) -> Start:
    events: list[Callable[[], dict[str, Any]]] = [
        lambda: {"faults": tuple(_fault(chance) for _ in range(chance.choice((1, 1, 2)))), "power": True},
        lambda: {"faults": (_fault(chance),)},
        lambda: {"kill_s": chance.uniform(0, 120), "power": chance.random() < 0.6},
        lambda: {"signals": tuple(sorted(chance.uniform(0, 90) for _ in range(chance.choice((1, 1, 2)))))},
        lambda: {"rival_s": chance.uniform(0, 60)},
        lambda: {"steps": ((chance.uniform(0, 120), chance.choice((-86400.0, -3600.0, -30.0, 45.0, 7200.0))),)},
        lambda: {"no_store": True},
        lambda: {"sleeps": ((chance.uniform(0, 120), chance.choice((60.0, 8 * HOUR_S))),)},
    ]
    said: dict[str, Any] = {"after_s": 0.0 if first else chance.choice((5.0, 600.0, 12 * HOUR_S))}
    if not first:
        said["edits"] = tuple((chance.choice(_EDITS), chance.randrange(30)) for _ in range(chance.choice((0, 1, 1, 3))))
    for event in chance.sample(events, chance.choice((0, 1, 1, 2, 3))):
        said |= event()
    return Start(**said)


def _fault(chance: random.Random) -> DiskFault:
    code = chance.choice(_CODES)
    only = chance.choice(("", *sorted(CHANGING)))
    at = chance.randrange(1, 30 if only else 400)
    match chance.choice(("at", "at", "kill", "kill", "while")):
        case "at":
            return DiskFault(code, at, only, lasting=chance.random() < 0.4)
        case "kill":
            return DiskFault(at=at, only=only, kill=True)
    from_s = chance.uniform(0, 60)
    return DiskFault(code, from_s=from_s, to_s=from_s + chance.choice((3.0, 60.0, 1200.0)))


def smaller(story: Scenario) -> Iterator[Scenario]:
    """The story with one thing less, the largest things first."""
    if story.jobs > 1:
        yield replace(story, jobs=story.jobs // 2)
        yield replace(story, jobs=story.jobs - 1)
    for n in range(len(story.starts)):
        if len(story.starts) > 1:
            yield replace(story, starts=_without(story.starts, n))
    for n in range(len(story.episodes)):
        yield replace(story, episodes=_without(story.episodes, n))
    for n in range(len(story.troubles)):
        yield replace(story, troubles=_without(story.troubles, n))
    if story.in_store:
        yield replace(story, in_store=False, troubles=())
    for n in range(len(story.flags)):
        yield replace(story, flags=_without(story.flags, n))
    if story.refused:
        yield replace(story, refused=())
    if len(story.endpoints) > 1:
        yield replace(story, endpoints=story.endpoints[:-1])
    plain = Scenario(story.seed)
    for name in ("server_rpm", "server_rpd", "slowest_s", "sync_s", "capacity_bytes"):
        if getattr(story, name) != getattr(plain, name):
            yield replace(story, **{name: getattr(plain, name)})
    for n, start in enumerate(story.starts):
        for calmer in _calmer(start):
            yield replace(story, starts=(*story.starts[:n], calmer, *story.starts[n + 1 :]))


def _calmer(start: Start) -> Iterator[Start]:
    for n, other in enumerate(start.beside):
        yield replace(start, beside=_without(start.beside, n))
        for calmer in _calmer(other):
            yield replace(start, beside=(*start.beside[:n], calmer, *start.beside[n + 1 :]))
    for name in ("edits", "cuts", "faults", "kill_s", "power", "signals", "rival_s", "steps", "sleeps", "no_store"):
        if getattr(start, name) != getattr(Start(), name):
            yield replace(start, **{name: getattr(Start(), name)})


def _without(many: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    return (*many[:n], *many[n + 1 :])
