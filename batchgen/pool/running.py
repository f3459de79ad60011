"""The asyncio tasks of a pool: what is at work, and how it is let go. Knows nothing of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

Work = Coroutine[None, None, None]


class Running:
    """Work that the end of a run waits for, the requests among it, and feeders beside it, which are cancelled then.

    `ended` hears of each that ends, with the error that it ended by. All is ordered, so that one seed always gives the
    same night.
    """

    def __init__(self, ended: Callable[[BaseException | None], None]) -> None:
        self._hear = ended
        self._work: dict[asyncio.Task[None], None] = {}
        self._feeders: dict[asyncio.Task[None], None] = {}
        self._sending: dict[asyncio.Task[None], None] = {}

    def __bool__(self) -> bool:
        """Whether there is work that an end waits for."""
        return bool(self._work)

    def spawn(self, work: Work) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._work[task] = None
        task.add_done_callback(self._ended)
        return task

    def send(self, work: Work) -> None:
        """Work that waits for a server, until it says that this is `answered`."""
        self._sending[self.spawn(work)] = None

    def feed(self, work: Work) -> None:
        """Work beside the jobs', which a run that ends does not wait for."""
        task = self.spawn(work)
        self._feeders[task] = self._work.pop(task)

    def answered(self) -> None:
        """The work that calls this waits for no server any more."""
        if task := asyncio.current_task():
            self._sending.pop(task, None)

    def abort(self) -> None:
        """Let go of requests without an answer."""
        for task in self._sending:
            task.cancel()

    async def end_feeders(self, within_s: float) -> None:
        for feeder in self._feeders:
            feeder.cancel()
        if self._feeders:
            await asyncio.wait(self._feeders, timeout=within_s)

    async def settle(self, within_s: float) -> None:
        if self._work:
            await asyncio.wait(self._work, timeout=within_s)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for tasks in (self._work, self._feeders, self._sending):
            tasks.pop(task, None)
        self._hear(None if task.cancelled() else task.exception())
