"""Who does the jobs of a run: a pool in this process, or (in `spread`) workers on the machines of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from batchgen import images
from batchgen.events import Event
from batchgen.model import ExitCode, Secret
from batchgen.pacing import Gates
from batchgen.pool import Pool, Stop
from batchgen.protocol.answers import decode_answer
from batchgen.runner.context import Run
from batchgen.runner.finish import finisher
from batchgen.runner.orders import Pull, budget_of, policy_of
from batchgen.settings import Settings
from batchgen.sink import LocalSink
from batchgen.world import Clock, Sink
from batchgen.writer import Committer, Patience, Stager, Writer

UPLOADS = 8


class Shown(Protocol):
    """An endpoint, as who watches the run sees it: see `Lane`."""

    @property
    def name(self) -> str: ...
    @property
    def gates(self) -> Gates: ...
    @property
    def closed(self) -> Stop | None: ...


class Sends(Protocol):
    """Whoever does the jobs, as the run sees it: see `Pool`."""

    @property
    def stops(self) -> Sequence[Stop]: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def unfinished(self) -> Set[tuple[str, str]]: ...
    @property
    def in_doubt(self) -> Set[tuple[str, str]]: ...
    @property
    def lanes(self) -> Sequence[Shown]: ...

    def stop(self, exit_code: ExitCode, reason: str) -> None: ...
    def abort(self) -> None: ...
    async def run(self) -> None: ...
    async def settle(self) -> None: ...


@dataclass(frozen=True)
class Engine:
    """Whoever does the jobs, the thread that writes what becomes of them, and what is done when the disk is full."""

    sends: Sends
    writer: Writer[Any]
    patience: Patience


@asynccontextmanager
async def in_process(this: Run, pull: Pull, observe: Callable[[Event], None]) -> AsyncIterator[Engine]:
    """One pool, on this machine."""
    outside, folder, patience = this.outside, this.folder, Patience(this.clock, this.outside.pause)
    async with outside.link(this) as link:
        sink = sink_of(this)
        stager = stager_of(
            this.settings, sink=sink, clock=this.clock, patience=patience, key=link.key, quarantine=folder.quarantine
        )
        committer = Committer(stager.written, sink, folder, patience)
        writer = outside.writer(committer, asyncio.get_running_loop())
        pool = Pool(
            policy_of(this, link.key),
            link.ways,
            pull=pull,
            budget=budget_of(this),
            deliver=writer,
            note=folder.append_attempts,
            keep=partial(asyncio.to_thread, folder.sync_attempts),
            clock=this.clock,
            randomness=outside.randomness,
            observe=observe,
        )
        yield Engine(pool, writer, patience)


def sink_of(this: Run) -> LocalSink:
    return LocalSink(this.folder.files, this.folder.own.tmp, UPLOADS if this.store else 1, start=this.outside.start)


def stager_of(
    settings: Settings,
    *,
    sink: Sink,
    clock: Clock,
    patience: Patience,
    key: Secret,
    quarantine: Callable[[str, int, bytes], None],
) -> Stager:
    return Stager(
        decode=decode_answer,
        check=images.decode if settings.check_pixels else images.check,
        sink=sink,
        clock=clock,
        patience=patience,
        key=key,
        quarantine=quarantine,
        finish=finisher(settings),
    )
