"""Where pictures go: staged under a temporary name, made durable, then given their final name. Local folders.

Knows bytes and names; whether they are a picture, and whose, was decided before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from batchgen import threads
from batchgen.world import Files, Staged, Threads


@dataclass
class LocalSink:
    """Pictures in the output folder. One thread at a time; `at_once` final names are given beside each other. `mark`
    tells the temporary files from those of others who write to the same folder."""

    files: Files
    tmp: str
    at_once: int = 1
    mark: str = ""
    start: Threads = threads.start
    _numbers: count[int] = field(default_factory=count)
    _made: set[str] = field(default_factory=set)
    _renamed_in: set[str] = field(default_factory=set)

    def stage(self, data: bytes, sha256: str) -> Staged:
        """Write the bytes to a temporary file. Its name begins with their digest, so that it can be found again."""
        path = f"{self.tmp}/{sha256[:32]}-{self.mark}{next(self._numbers)}"
        handle = self.files.create(path)
        staged = Staged(path, handle)
        try:
            self.files.write(handle, data)
        except BaseException:
            self.discard([staged])
            raise
        return staged

    def sync(self, staged: Iterable[Staged]) -> None:
        """Make staged bytes durable and let go of their handles."""
        staged = list(staged)
        for item in staged:
            self.files.sync(item.handle)
        for item in staged:
            with contextlib.suppress(OSError):  # the bytes are durable already
                self.files.close(item.handle)

    def discard(self, staged: Iterable[Staged]) -> None:
        """Forget staged bytes after a failure; what cannot be removed is swept up at the next start."""
        for item in staged:
            with contextlib.suppress(OSError):
                self.files.close(item.handle)
            with contextlib.suppress(OSError):
                self.files.remove(item.path)

    def publish(self, moves: dict[str, Staged]) -> None:
        """Give durable pictures their final names, which must be free, and make the names durable.

        What has got its name leaves `moves`: a call that is repeated after a failure goes on where it stopped.
        """
        for parent in sorted({_parent(name) for name in moves} - self._made):
            self.files.make_dir(parent)
            self._made.add(parent)
        waiting = iter(list(moves))
        if self.at_once < 2:
            self._rename(waiting, moves)
        else:
            beside_each_other(min(self.at_once, len(moves)), lambda: self._rename(waiting, moves), self.start)
        for parent in sorted(self._renamed_in):
            self.files.sync_dir(parent)
            self._renamed_in.remove(parent)

    def _rename(self, waiting: Iterator[str], moves: dict[str, Staged]) -> None:
        for name in waiting:
            self.files.rename(moves[name].path, name)
            self._renamed_in.add(_parent(name))
            del moves[name]


def beside_each_other(number: int, act: Callable[[], None], start: Threads = threads.start) -> None:
    """Let that many threads do the same; the first error is raised when all have ended."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    for thread in [start("batchgen-sink", run) for _ in range(number)]:
        thread.join()
    if errors:
        raise errors[0]


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
