"""What driver, workers and limiter say to each other. Values, and who can be asked; no acts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from batchgen.events import Event
from batchgen.model import Entry, ExitCode
from batchgen.pacing import Lease
from batchgen.pool import Pending, Policy, Stop, Way
from batchgen.world import Staged
from batchgen.writer import Stager

AGAIN_S = 1.0
"""How soon whoever is lost is asked again."""


class Lost(Exception):
    """Whoever was asked is not there any more, or cannot be reached."""


class Noted(msgspec.Struct, frozen=True):
    """Lines for the attempts file: requests that are about to leave, and how attempts ended."""

    lines: bytes


class Made(msgspec.Struct, frozen=True):
    """A job that has ended: its entry, and where its pictures lie, durably, until they get their final names."""

    entry: Entry
    drafts: tuple[str, ...] = ()


class Useless(msgspec.Struct, frozen=True):
    """An answer that was paid for and is of no use; for the quarantine."""

    job: str
    n: int
    body: bytes


class Keep(msgspec.Struct, frozen=True):
    """The worker waits until what it noted so far is durable, and is then to be told `number`."""

    number: int


class Over(msgspec.Struct, frozen=True):
    """The worker has ended: what stopped it, and the jobs (ids and fingerprints) whose last request may have been paid
    for without an answer."""

    stops: tuple[Stop, ...]
    in_doubt: frozenset[tuple[str, str]]


Report = Noted | Made | Useless | Keep | Over | Event


class Batch(msgspec.Struct, frozen=True):
    """What a worker has to report, in order, and how much it has to do at the moment."""

    reports: Sequence[Report]
    in_flight: int = 0
    waiting: int = 0


class Spent(msgspec.Struct, frozen=True):
    """A worker's requests and money so far: what it was admitted to, and how much of that came to nothing (`back_`),
    or cost more where negative. `number` grows with each telling."""

    worker: str
    number: int
    requests: int
    usd: float
    back_requests: int
    back_usd: float


class News(msgspec.Struct, frozen=True):
    """What all must keep to because of what one has heard, by the number of the lane: pauses of so many seconds from
    now, and until when (ISO 8601, UTC) its day is closed. `number` tells news from earlier ones, `notices` are for the
    user."""

    number: int
    pauses_s: dict[int, float] = {}
    closed_until: dict[int, str] = {}
    notices: tuple[str, ...] = ()


class LimiterCalls(Protocol):
    """The limiter as it is called, from wherever; every call raises Lost where it is not there."""

    async def lease(self, lane: int, n: int) -> Lease: ...
    async def give_back(self, lane: int, n: int) -> None: ...

    async def admit(self, spent: Spent, cost_usd: float) -> str | None:
        """Whether a request at this cost may leave: None, and then it counts; else which limit it would break."""
        ...

    async def tell(self, spent: Spent) -> None: ...

    async def forget(self, most: Spent) -> Spent:
        """A worker is gone, and nobody waits for its word any more: what it has spent, which is `most` where nothing
        better is known."""
        ...

    async def slow(self, lane: int, pause_s: float, closed_until: str | None) -> None: ...

    async def news(self, seen: int) -> News:
        """Waits for news other than those of this number."""
        ...


class Kit(msgspec.Struct, frozen=True):
    """What a worker works with on its machine: ways to the endpoints, and what makes pictures of answers. `carry`
    brings written pictures (by their final names) where the driver finds them, and says where that is."""

    ways: Sequence[Way]
    stager: Stager
    carry: Callable[[Mapping[str, Staged]], Mapping[str, str]]


@dataclass(frozen=True)
class Hooks:
    """What a worker's kit calls, from whatever thread: with an answer that is of no use (the job's id, the number of
    the attempt, the body), and with what the user should know."""

    useless: Callable[[str, int, bytes], None]
    warn: Callable[[str], None]


@dataclass(frozen=True)
class Errand:
    """What a worker is sent to do: the pool's policy, and `open_kit`, which is called on the worker's machine with its
    name.

    `concurrency` is what one worker may have in flight over all its ways, `endpoints` are their names. `metered`:
    there are limits of money or requests, so that each request must be admitted.
    """

    policy: Policy
    open_kit: Callable[[str, Hooks], AbstractAsyncContextManager[Kit]]
    concurrency: int
    endpoints: Sequence[str]
    timeout_s: float
    metered: bool


class Peer(Protocol):
    """A worker as the driver sees it; every call raises Lost where it is gone."""

    name: str

    def reports(self) -> AsyncIterator[Batch]: ...
    async def hand(self, jobs: Sequence[Pending]) -> None: ...

    async def kept(self, number: int, failure: str | None) -> None:
        """What it waits for is durable, or (`failure`) cannot be made so."""
        ...

    async def end(self) -> None:
        """Nothing more will be handed over."""
        ...

    async def stop(self, exit_code: ExitCode, reason: str) -> None: ...
    async def abort(self) -> None: ...

    def kill(self) -> None:
        """See to it that it does nothing more, whether it can be reached or not."""
        ...


class Nodes(Protocol):
    """The machines of a cluster."""

    async def alive(self) -> Mapping[str, str]:
        """The machines that can work: their ids, and what people call them."""
        ...

    def start(self, node: str, name: str, errand: Errand) -> Peer:
        """Start a worker on a machine; whether that has succeeded is seen when it is asked for reports."""
        ...
