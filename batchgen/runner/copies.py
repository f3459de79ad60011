"""Copies of log and summary beside the pictures in a store: now and then, and at the end. Never stops a run."""

from __future__ import annotations

from batchgen import threads
from batchgen.stores import Store
from batchgen.text import printable
from batchgen.world import Clock, StoreFailed, Thread, Threads

EVERY_S = 300.0
# A log that takes long to upload is uploaded less often: at most this part of the time goes into it.
_PART_OF_TIME = 0.1
PATIENCE_S = 30.0
_BYTES_PER_S = 1 << 20


class Copies:
    """Uploads files of the output folder that have changed since, on a thread that nobody has to wait for."""

    def __init__(self, store: Store, clock: Clock, *paths: str, start: Threads = threads.start) -> None:
        self._store, self._clock, self._paths, self._start = store, clock, paths, start
        self._thread: Thread | None = None
        self._next_s = clock.monotonic() + EVERY_S
        self._failure = ""

    def tick(self) -> None:
        """Begin to upload what has changed, if it is time and no upload is at work."""
        if self._clock.monotonic() >= self._next_s and not self._busy:
            self._begin()

    def finish(self) -> str:
        """Upload what has changed, for half a minute and a second a megabyte; what went wrong, if anything did."""
        local = self._store.files.local
        patience_s = PATIENCE_S + sum(local.size_of(path) or 0 for path in self._paths) / _BYTES_PER_S
        if self._thread:
            self._thread.join(patience_s)
        if not self._busy:
            self._begin()
            assert self._thread
            self._thread.join(patience_s)
        return f"{self._store.address}: the copies took too long to upload" if self._busy else self._failure

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _begin(self) -> None:
        self._thread = self._start("batchgen-copies", self._upload)

    def _upload(self) -> None:
        began_s, self._failure = self._clock.monotonic(), ""
        for path in self._paths:
            try:
                if self._store.is_newer(path):
                    self._store.files.mirror(path)
            except (StoreFailed, OSError) as error:
                self._failure = printable(str(error))
        now_s = self._clock.monotonic()
        self._next_s = now_s + max(EVERY_S, (now_s - began_s) / _PART_OF_TIME)
