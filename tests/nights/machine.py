"""A machine that runs one process after another: their event loop on virtual time, their writer, their end.

A process that is killed changes nothing more, and its loop ends. Work of the writer's thread runs on a real thread,
but only while the loop waits for it, so that one seed always gives the same night.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from world import Hang, VirtualLoop

from batchgen.world import Result, SyncFailed, Work
from batchgen.writer import GROUP, Committer, Writer
from nights.disk import Disk

CHANGING = {"make_dir", "create", "append_to", "write", "truncate", "sync", "sync_dir", "rename", "remove"}
SYNCS = {"sync", "sync_dir"}


class Killed(BaseException):
    """The process is no more."""


class Dead(SyncFailed):
    """What a process that is no more would do: nothing."""


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


@dataclass
class Process:
    """One execution of batchgen on the machine."""

    loop: NightLoop
    disk: Disk
    faults: list[DiskFault] = field(default_factory=list)
    sync_s: float = 0.0
    alive: bool = True
    last: str = ""
    did: Counter[str] = field(default_factory=Counter)
    struck: list[DiskFault] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """How many file operations there were so far."""
        return self.did[""]

    def die(self) -> None:
        self.alive = False
        if self.disk.holder is self:
            self.disk.holder = None

    def step(self, name: str, path: str) -> None:
        """Count a file operation; raises OSError where it fails."""
        if not self.alive:
            raise Dead(errno.EIO, "the process is dead", path)
        self.last = f"{name} {path}"
        self.did.update((name, ""))
        for fault in self.faults:
            if fault.strikes(name, self.did, self.loop.time()):
                self.struck.append(fault)
                if fault.kill:
                    self.die()
                    raise Struck(errno.EIO, "killed", path)
                kind = SyncFailed if name in SYNCS else OSError
                raise kind(fault.code, os.strerror(fault.code), path)
        if name in SYNCS and self.sync_s:
            self.loop.pause(self.sync_s)


class NightLoop(VirtualLoop):
    """Virtual time for one process: executors work at once, signals are calls, nothing goes on for ever."""

    def __init__(self, now_s: float, limit_s: float) -> None:
        super().__init__(now_s)
        self.limit_s = limit_s
        self.process: Process | None = None
        self.handlers: dict[int, Callable[[], object]] = {}
        self.aside: Aside | None = None
        self._select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._watch  # type: ignore[attr-defined]

    def _watch(self, timeout: float | None = None) -> Any:
        if self.process:
            if not self.process.alive:
                raise Killed
            if self.time() > self.limit_s or self.turns > 300_000:
                self.process.die()
                raise Hang(f"still at work after {self.turns} turns at {self.time():.0f} s")
        return self._select(timeout)

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
        """Let the writer's thread wait, while the loop goes on; anybody else is not kept waiting."""
        if self.aside and threading.current_thread() is self.aside.thread:
            self.aside.pause(seconds)


class Aside:
    """A thread that works only while its owner waits in `resume`."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._asked: float | None = None
        self._ends = self._done = False
        self.thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self.thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        self._turn.acquire()
        work()
        self._asked, self._done = None, True
        self._back.release()

    def resume(self) -> float | None:
        """Let it work until it pauses (for so many seconds) or has ended (None)."""
        if self._done:
            return None
        self._turn.release()
        self._back.acquire()
        return self._asked

    def pause(self, seconds: float) -> None:
        if not self._ends:
            self._asked = seconds
            self._back.release()
            self._turn.acquire()
        if self._ends:
            raise Dead(errno.EIO, "the process is dead")

    def end(self) -> None:
        """Let it go wherever it is; its process is dead."""
        self._ends = True
        while self.resume() is not None:
            pass
        self.thread.join()


class NightWriter(Writer[Work]):
    """The real writer but for its thread: groups form while an earlier one is being written."""

    def __init__(self, committer: Committer[Work], loop: NightLoop) -> None:
        self._commit, self._salvage, self._loop, self._night = committer.commit, committer.salvage, loop, loop
        self._failed, self._closed = None, False
        self._queue: list[tuple[Work, asyncio.Future[Result]]] = []
        self._busy = False

    def submit(self, work: Work) -> asyncio.Future[Result]:
        future = self._loop.create_future()
        self._queue.append((work, future))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._begin)
        return future

    def _begin(self) -> None:
        self._next()
        self._go_on()

    def _next(self) -> None:
        group, self._queue = self._queue[:GROUP], self._queue[GROUP:]
        self._night.aside = Aside(lambda: self._serve(group))

    def _go_on(self) -> None:
        aside = self._night.aside
        assert aside is not None
        if (wait_s := aside.resume()) is not None:
            self._loop.call_later(wait_s, self._go_on)
        elif self._queue:
            self._begin()
        else:
            self._busy = False

    def close(self, patience_s: float | None = None) -> bool:
        """Write what waits while the loop stands still and time goes by; False where that takes too long."""
        end_s = self._loop.time() + (math.inf if patience_s is None else patience_s)
        while self._busy:
            aside = self._night.aside
            assert aside is not None
            while (wait_s := aside.resume()) is not None:
                self._night.jump(wait_s)
                if self._loop.time() > end_s:
                    return False
            self._busy = bool(self._queue)
            if self._busy:
                self._next()
        return True
