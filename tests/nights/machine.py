"""A machine that runs one process after another: their event loop on virtual time, their files, their end.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from world import Hang, VirtualLoop

from batchgen.model import FolderBusy
from batchgen.world import Result, SyncFailed, Work
from batchgen.writer import GROUP, Committer, Writer
from nights.disk import Disk, Node, parent

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


class NightWriter(Writer):
    """The real writer but for its thread: groups form while an earlier one is being written."""

    def __init__(self, committer: Committer, loop: NightLoop) -> None:
        self._commit, self._loop, self._night = committer.commit, loop, loop
        self._failed = None
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


@dataclass(frozen=True)
class Handle:
    """An open file."""

    node: Node
    path: str


class NightFiles:
    """`world.Files` on the simulated disk, for one process."""

    def __init__(self, process: Process) -> None:
        self._process, self._disk = process, process.disk
        self._open: dict[int, Handle] = {}
        self._last = 2

    def _opened(self, node: Node, path: str) -> int:
        self._last += 1
        self._open[self._last] = Handle(node, path)
        return self._last

    def _node(self, path: str) -> Node:
        if (node := self._disk.names.get(path)) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node

    def make_dir(self, path: str) -> None:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            step = "/".join(parts[:depth])
            if (node := self._disk.names.get(step)) is None:
                self._process.step("make_dir", step)
                self._disk.make_folder(step)
                self.sync_dir(parent(step))
            elif not node.is_folder:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), step)

    def _has_folder(self, path: str) -> None:
        if parent(path) != ".":
            self._node(parent(path))

    def create(self, path: str) -> int:
        self._process.step("create", path)
        self._has_folder(path)
        if path in self._disk.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return self._opened(self._disk.make_file(path), path)

    def append_to(self, path: str) -> int:
        self._process.step("append_to", path)
        self._has_folder(path)
        node = self._disk.names.get(path)
        return self._opened(self._disk.make_file(path) if node is None else node, path)

    def open(self, path: str) -> int:
        self._process.step("open", path)
        return self._opened(self._node(path), path)

    def write(self, handle: int, data: bytes) -> None:
        file = self._open[handle]
        room = self._disk.capacity_bytes - self._disk.used_bytes()
        try:
            self._process.step("write", file.path)
        except OSError as error:
            if not isinstance(error, Dead) or isinstance(error, Struck):
                file.node.data += data[: len(data) // 2]
            raise
        file.node.data += data[: max(room, 0)]
        if room < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.path)

    def truncate(self, handle: int, size_bytes: int) -> None:
        self._process.step("truncate", self._open[handle].path)
        del self._open[handle].node.data[size_bytes:]

    def size(self, handle: int) -> int:
        self._process.step("size", self._open[handle].path)
        return len(self._open[handle].node.data)

    def is_at(self, handle: int, path: str, size_bytes: int) -> bool:
        self._process.step("is_at", path)
        node = self._disk.names.get(path)
        return node is not None and node is self._open[handle].node and len(node.data) == size_bytes

    def sync(self, handle: int) -> None:
        file = self._open[handle]
        try:
            self._process.step("sync", file.path)
        except SyncFailed as error:
            if not isinstance(error, Dead):
                file.node.spoilt = self._process
            raise
        file.node.sync(self._process)

    def close(self, handle: int) -> None:
        self._open.pop(handle)

    def sync_dir(self, path: str) -> None:
        self._process.step("sync_dir", path)
        self._disk.sync_folder(path)

    def rename(self, old: str, new: str) -> None:
        self._process.step("rename", new)
        self._node(old)
        self._has_folder(new)
        self._disk.move(old, new)

    def remove(self, path: str) -> None:
        self._process.step("remove", path)
        self._node(path)
        self._disk.remove(path)

    def size_of(self, path: str) -> int | None:
        self._process.step("size_of", path)
        node = self._disk.names.get(path)
        return None if node is None else -1 if node.is_folder else len(node.data)

    def read(self, path: str) -> bytes:
        self._process.step("read", path)
        return bytes(self._node(path).data)

    def read_at(self, handle: int, offset: int, size_bytes: int) -> bytes:
        self._process.step("read_at", self._open[handle].path)
        return bytes(self._open[handle].node.data[offset : offset + size_bytes])

    def names(self, path: str) -> list[str]:
        self._process.step("names", path)
        self._node(path)
        return [p.removeprefix(f"{path}/") for p in self._disk.names if parent(p) == path]

    def free_bytes(self) -> int:
        # What the plan asks for is a gigabyte's business; a disk that fills up is a matter of bytes here.
        return 1 << 40


@contextmanager
def hold(process: Process, root: Path) -> Iterator[NightFiles]:
    """The folder's lock and files, for one process at a time."""
    if process.disk.holder is not None:
        raise FolderBusy(f"{root}: another run is at work here; nothing was touched")
    process.disk.holder = process
    try:
        yield NightFiles(process)
    finally:
        if process.disk.holder is process:
            process.disk.holder = None
