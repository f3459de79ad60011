"""Jobs from the manifest, fetched a little before they are needed, beside the event loop's other work."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from batchgen.model import ExitCode
from batchgen.pool.task import Pending, Task
from batchgen.text import printable
from batchgen.world import Clock


class Feed:
    """Jobs that are ready, as `prepare` makes them of what was pulled; `spawn` runs a fetch, `stop` ends the run."""

    def __init__(
        self,
        concurrency: int,
        *,
        pull: Callable[[int], Awaitable[Sequence[Pending]]],
        clock: Clock,
        prepare: Callable[[Pending, float], Task],
        spawn: Callable[[Coroutine[None, None, None]], None],
        stop: Callable[[ExitCode, str], None],
    ) -> None:
        self._concurrency, self._pull, self._clock, self._prepare = concurrency, pull, clock, prepare
        self._spawn, self._stop = spawn, stop
        self.ready: deque[Task] = deque()
        self._pulling = self._exhausted = False

    @property
    def empty(self) -> bool:
        """Whether no job is left and none is on its way."""
        return self._exhausted and not self._pulling and not self.ready

    def is_full(self, waiting: int) -> bool:
        """Whether there is no room for more jobs, with `waiting` ones already backing off."""
        return len(self.ready) >= self._concurrency or waiting >= 4 * self._concurrency

    def pull_ahead(self, waiting: int) -> None:
        """Fetch jobs where there is room."""
        if not self.is_full(waiting) and not (self._pulling or self._exhausted):
            self._pulling = True
            self._spawn(self._pull_some())

    async def _pull_some(self) -> None:
        found: Sequence[Pending] = []
        try:
            found = await self._pull(self._concurrency)
        except Exception as error:  # the manifest was edited, or its file is gone: what runs is still finished
            self._stop(getattr(error, "exit_code", ExitCode.INTERNAL), printable(str(error)) or type(error).__name__)
        self._pulling, self._exhausted = False, not found
        now_s = self._clock.monotonic()
        self.ready.extend(self._prepare(pending, now_s) for pending in found)
