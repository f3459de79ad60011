"""The second half of a commit: final names for staged pictures, then lines in the log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from batchgen import joblog
from batchgen.model import Entry, StorageError
from batchgen.world import Result, Shelf, Sink, Staged
from batchgen.writer.patience import Patience

W = TypeVar("W")


@dataclass
class Committer(Generic[W]):
    """The order of things for one group, on whatever thread calls.

    `written` brings a group so far that its pictures are durable under temporary names, which it adds to a mapping from
    the final ones; its results are entries where pictures came or jobs ended.
    """

    written: Callable[[Iterable[W], dict[str, Staged]], list[Result]]
    sink: Sink
    folder: Shelf
    patience: Patience

    def commit(self, group: Iterable[W]) -> list[Result]:
        """What became of each piece of work, in order. Raises OSError or StorageError where nothing can be kept.

        Each piece is taken when the pictures of the one before it are written, so that one answer at a time is open.
        """
        results, entries, lines, moves = self._ready(group)
        if not entries:
            return results
        if moves:
            self.patience.persist(lambda: self._publish(entries, moves))
        self.patience.persist(lambda: self.folder.append_log(b"".join(lines)))
        self.folder.sync_log()
        return results

    def salvage(self, group: Iterable[W]) -> None:
        """Keep what was paid for where final names or the log cannot be had any more: the next run adopts it."""
        with contextlib.suppress(OSError, StorageError):
            self._ready(group)

    def _ready(self, group: Iterable[W]) -> tuple[list[Result], list[Entry], list[bytes], dict[str, Staged]]:
        """Bring a group so far that a crash loses nothing: pictures under temporary names, and what they are."""
        moves: dict[str, Staged] = {}
        results = self.written(group, moves)
        entries = [result for result in results if isinstance(result, Entry)]
        lines = [joblog.encode(entry) for entry in entries]
        if entries:
            self.patience.persist(lambda: self._prepare(entries, lines))
        return results, entries, lines, moves

    def _prepare(self, entries: Sequence[Entry], lines: Sequence[bytes]) -> None:
        done = [joblog.prepared(e, line) for e, line in zip(entries, lines, strict=True) if e.images]
        if done:
            self.folder.append_attempts(b"".join(done))
        self.folder.sync_attempts()

    def _publish(self, entries: Sequence[Entry], moves: dict[str, Staged]) -> None:
        for entry in entries:
            # A step that is done again finds some pictures in their places: those are the new ones.
            if to_come := [picture.file for picture in entry.images if picture.file in moves]:
                self.folder.make_way(entry.job, to_come)
        self.sink.publish(moves)
