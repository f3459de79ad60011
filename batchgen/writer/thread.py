"""The one thread that commits: it takes all that waits, a group at a time, and tells who waits for it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from batchgen.model import StorageError
from batchgen.world import Result, StoreFailed

W = TypeVar("W")
_In = TypeVar("_In", contravariant=True)
GROUP = 32


class Commits(Protocol[_In]):
    """What the thread does with a group of pieces of work."""

    def commit(self, group: Iterable[_In]) -> list[Result]:
        """What became of each piece, in order. Raises OSError or StorageError where nothing can be kept."""
        ...

    def salvage(self, group: Iterable[_In]) -> None:
        """Keep what can be kept where `commit` has failed before. Raises nothing."""
        ...


class Writer(Generic[W]):
    """The thread: takes all that waits (up to a group), commits it, and frees the group's slots in one call."""

    def __init__(self, committer: Commits[W], loop: asyncio.AbstractEventLoop) -> None:
        self._commit, self._salvage, self._loop = committer.commit, committer.salvage, loop
        self._waiting: queue.SimpleQueue[tuple[W, asyncio.Future[Result]] | None] = queue.SimpleQueue()
        self._failed: Exception | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batchgen-writer", daemon=True)
        self._thread.start()

    def submit(self, work: W) -> asyncio.Future[Result]:
        future = self._loop.create_future()
        self._waiting.put((work, future))
        return future

    def close(self, patience_s: float | None = None) -> bool:
        """Write what waits, then end; False where that took longer than `patience_s` and was left."""
        self._waiting.put(None)
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._closed:
            if group := self._group():
                self._serve(group)

    def _group(self) -> list[tuple[W, asyncio.Future[Result]]]:
        """All that waits, up to a group; at least one piece of work, or the end."""
        group: list[tuple[W, asyncio.Future[Result]]] = []
        while not group or (len(group) < GROUP and not self._waiting.empty()):
            if (item := self._waiting.get()) is None:
                self._closed = True
                break
            group.append(item)
        return group

    def _serve(self, group: list[tuple[W, asyncio.Future[Result]]]) -> None:
        """Commit a group, which is empty afterwards: nobody holds its answers any longer than they are needed."""
        results: list[Result] | None = None
        futures = [future for _, future in group]
        group.reverse()
        works = (group.pop()[0] for _ in futures)
        try:
            if self._failed is None:
                results = self._commit(works)
            elif isinstance(self._failed, StoreFailed):
                self._salvage(works)
        except Exception as error:  # the thread must outlive whatever happens, or its jobs would wait for ever
            self._failed = error if isinstance(error, StorageError) else StorageError(f"cannot save: {error}")
            self._failed.__cause__ = error
        self._loop.call_soon_threadsafe(_resolve, futures, results, self._failed)


def _resolve(
    futures: Sequence[asyncio.Future[Result]], results: Sequence[Result] | None, failure: Exception | None
) -> None:
    for number, future in enumerate(futures):
        if future.done():
            continue
        if results is not None:
            future.set_result(results[number])
        else:
            future.set_exception(failure or StorageError("the writer has stopped"))
