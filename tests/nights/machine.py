"""A machine that runs processes after and beside each other: their event loop on virtual time, their writer, their end.

A process that is killed changes nothing more, and its loop ends. Of all threads only one is ever at work, in an order
that `threads` decides, so that one seed always gives the same night.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from world import Hang, VirtualLoop

from batchgen.world import Result, SyncFailed, Work
from batchgen.writer import GROUP, Committer, Writer
from nights.disk import Disk
from nights.threads import Crew, Dead, Thread, Wait

CHANGING = {"make_dir", "create", "append_to", "write", "truncate", "sync", "sync_dir", "rename", "remove"}
SYNCS = {"sync", "sync_dir"}


class Killed(BaseException):
    """The process is no more."""


class Struck(Dead):
    """The process ends in the middle of this very operation."""


@dataclass
class DiskFault:
    """What the disk does at the `at`-th operation of a process (`only`: of this name; `lasting`: and at all later
    ones), or at all changing ones between two times: an error number, or the process' end (`kill`)."""

    code: int = errno.EIO
    at: int = 0
    only: str = ""
    lasting: bool = False
    from_s: float = 0.0
    to_s: float = 0.0
    kill: bool = False

    def strikes(self, name: str, did: Counter[str], now_s: float) -> bool:
        if self.only not in ("", name):
            return False
        if self.at:
            number = did[self.only]
            return number == self.at or (self.lasting and number > self.at)
        return self.from_s <= now_s < self.to_s and name in CHANGING


@dataclass(eq=False)
class Process:
    """One execution of batchgen on the machine."""

    loop: NightLoop
    disk: Disk
    faults: list[DiskFault] = field(default_factory=list)
    sync_s: float = 0.0
    alive: bool = True
    falls_with: list[Process] = field(default_factory=list)
    last: str = ""
    did: Counter[str] = field(default_factory=Counter)
    struck: list[DiskFault] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """How many file operations there were so far."""
        return self.did[""]

    def die(self) -> None:
        self.alive = False
        self.disk.let_go(self)
        for other in self.falls_with:
            if other.alive:
                other.die()

    def step(self, name: str, path: str, *, of_disk: bool = True) -> None:
        """Count a file operation, or one of a store; raises OSError where it fails. What is no disk's only kills."""
        if not self.alive:
            raise Dead(errno.EIO, "the process is dead", path)
        self.last = f"{name} {path}"
        self.did.update((name, ""))
        for fault in self.faults:
            if (of_disk or fault.kill) and fault.strikes(name, self.did, self.loop.time()):
                self.struck.append(fault)
                if fault.kill:
                    self.die()
                    raise Struck(errno.EIO, "killed", path)
                kind = SyncFailed if name in SYNCS else OSError
                raise kind(fault.code, os.strerror(fault.code), path)
        if name in SYNCS and self.sync_s:
            self.loop.pause(self.sync_s)


class NightLoop(VirtualLoop):
    """Virtual time for one process: executors work at once, signals are calls, nothing goes on for ever.

    `beside` lets others go on first where processes are at work at the same time; `crew` are its threads.
    """

    def __init__(self, now_s: float, limit_s: float) -> None:
        super().__init__(now_s)
        self.limit_s = limit_s
        self.process: Process | None = None
        self.beside: Wait | None = None
        self.crew = Crew(self)
        self.handlers: dict[int, Callable[[], object]] = {}
        self._select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._watch  # type: ignore[attr-defined]

    def _watch(self, timeout: float | None = None) -> Any:
        if self.process:
            if not self.process.alive:
                raise Killed
            if self.time() > self.limit_s or self.turns > 300_000:
                self.process.die()
                raise Hang(f"still at work after {self.turns} turns at {self.time():.0f} s")
        ready = self._select(timeout)
        if self.process and not self.process.alive:
            raise Killed
        return ready

    def jump(self, seconds: float) -> None:
        if self.beside and self.process and self.process.alive:
            self.beside(self.time() + seconds)
        super().jump(seconds)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *arguments: Any) -> None:  # type: ignore[override]
        self.handlers[sig] = partial(callback, *arguments)

    def remove_signal_handler(self, sig: int) -> bool:
        return self.handlers.pop(sig, None) is not None

    def signal(self, number: signal.Signals) -> None:
        """What the process does when it is sent this signal; before it listens it ends at once."""
        if handler := self.handlers.get(number):
            handler()

    def pause(self, seconds: float) -> None:
        """Let a thread wait, while the loop goes on; anybody else is not kept waiting."""
        self.crew.pause(seconds)

    def wait(self, seconds: float) -> None:
        """Let a thread wait, or all of the process where the loop's own thread waits."""
        if not self.crew.pause(seconds):
            self.jump(seconds)


class NightWriter(Writer[Work]):
    """The real writer but for its thread: groups form while an earlier one is being written."""

    def __init__(self, committer: Committer[Work], loop: NightLoop) -> None:
        self._commit, self._salvage, self._loop, self._crew = committer.commit, committer.salvage, loop, loop.crew
        self._failed, self._closed = None, False
        self._queue: list[tuple[Work, asyncio.Future[Result]]] = []
        self._at_work: Thread | None = None

    def submit(self, work: Work) -> asyncio.Future[Result]:
        future = self._loop.create_future()
        self._queue.append((work, future))
        if self._at_work is None:
            self._next()
        return future

    def _next(self) -> None:
        self._at_work = self._crew.start("writer", self._work, self._done)

    def _work(self) -> None:
        group, self._queue = self._queue[:GROUP], self._queue[GROUP:]
        self._serve(group)

    def _done(self) -> None:
        self._at_work = None
        if self._queue:
            self._next()

    def close(self, patience_s: float | None = None) -> bool:
        """Write what waits while the loop stands still and time goes by; False where that takes too long."""
        end_s = self._loop.time() + (math.inf if patience_s is None else patience_s)
        while self._at_work is not None:
            at_work = self._at_work
            at_work.join(end_s - self._loop.time())
            if at_work.is_alive():
                return False
        return True
