"""Threads on virtual time, of which only one is ever at work: those of one process, and processes beside each other."""

from __future__ import annotations

import errno
import heapq
import math
import threading
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from batchgen.world import SyncFailed

if TYPE_CHECKING:
    from nights.machine import NightLoop


class Dead(SyncFailed):
    """What a process that is no more would do: nothing."""


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
        if not self._ends:
            work()
        self._asked, self._done = None, True
        self._back.release()

    def resume(self) -> float | None:
        """Let it work until it pauses (and asks for a time) or has ended (None)."""
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


Wait = Callable[[float], None]


def beside_each_other(works: list[tuple[float, Callable[[Wait], None]]]) -> None:
    """Let processes work, each from its own second on; whose turn comes first goes on first.

    Each is given what lets it wait until a second, while others go on.
    """
    turns: list[tuple[float, int, Aside]] = []

    def begin(work: Callable[[Wait], None]) -> Aside:
        def wait(until_s: float) -> None:
            if turns and until_s >= turns[0][0]:
                aside.pause(until_s)

        aside = Aside(lambda: work(wait))
        return aside

    for number, (from_s, work) in enumerate(works):
        heapq.heappush(turns, (from_s, number, begin(work)))
    while turns:
        _, number, aside = heapq.heappop(turns)
        if (until_s := aside.resume()) is not None:
            heapq.heappush(turns, (until_s, number, aside))


class Thread:
    """One of a crew; `world.Thread`."""

    def __init__(self, crew: Crew, act: Callable[[], None], on_end: Callable[[], None]) -> None:
        self.aside, self.on_end, self._crew = Aside(act), on_end, crew
        self.waiting: list[Thread] = []
        self.ended = False

    def is_alive(self) -> bool:
        return not self.ended

    def join(self, timeout: float | None = None) -> None:
        self._crew.join(self, math.inf if timeout is None else timeout)


class Crew:
    """The threads of one process: they work when the loop comes round, or while it stands still and waits for one."""

    def __init__(self, loop: NightLoop) -> None:
        self._loop, self._numbers = loop, count()
        self._turns: list[tuple[float, int, Thread]] = []
        self._all: list[Thread] = []
        self._current: Thread | None = None

    def start(self, name: str, act: Callable[[], None], on_end: Callable[[], None] = lambda: None) -> Thread:
        thread = Thread(self, act, on_end)
        self._all.append(thread)
        self._push(thread, 0.0)
        return thread

    def _push(self, thread: Thread, after_s: float) -> None:
        at_s = self._loop.time() + after_s
        heapq.heappush(self._turns, (at_s, next(self._numbers), thread))
        self._loop.call_at(at_s, self._go_on)

    def _go_on(self) -> None:
        while self._turns and self._turns[0][0] <= self._loop.time():
            self._let_work()

    def _let_work(self) -> None:
        _, _, thread = heapq.heappop(self._turns)
        self._current = thread
        asked_s = thread.aside.resume()
        self._current = None
        if asked_s is None:
            thread.ended = True
            self._all.remove(thread)
            for other in thread.waiting:
                self._push(other, 0.0)
            thread.on_end()
        elif asked_s < math.inf:
            self._push(thread, asked_s)

    def pause(self, seconds: float) -> bool:
        """Let the thread wait that calls; False where it is the loop's own."""
        thread = self._current
        if thread is None or threading.current_thread() is not thread.aside.thread:
            return False
        thread.aside.pause(seconds)
        return True

    def join(self, thread: Thread, timeout_s: float) -> None:
        """Wait for a thread: another of the crew as long as it takes, the loop at most so long, standing still."""
        if self._current and threading.current_thread() is self._current.aside.thread:
            if not thread.ended:
                thread.waiting.append(self._current)
                self.pause(math.inf)
            return
        end_s = self._loop.time() + timeout_s
        while not thread.ended and self._turns:
            at_s = min(self._turns[0][0], end_s)
            self._loop.jump(max(0.0, at_s - self._loop.time()))
            if self._turns[0][0] > end_s:
                return
            self._let_work()

    def end(self) -> None:
        """The process is dead."""
        for thread in list(self._all):
            thread.aside.end()
        self._turns, self._all = [], []
