"""Where pictures go: staged under a temporary name, made durable, then given their final name. Local folders.

Knows bytes and names; whether they are a picture, and whose, was decided before.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import PurePosixPath

from batchgen.layout import TMP
from batchgen.world import Files, Staged


@dataclass
class LocalSink:
    """Pictures in the output folder. One thread at a time."""

    files: Files
    _numbers: count[int] = field(default_factory=count)
    _made: set[str] = field(default_factory=set)

    def stage(self, data: bytes) -> Staged:
        """Write the bytes to a temporary file. Its name begins with their digest, so that it can be found again."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = f"{TMP}/{sha256[:32]}-{next(self._numbers)}"
        handle = self.files.create(path)
        staged = Staged(path, handle, sha256)
        try:
            self.files.write(handle, data)
        except BaseException:
            self.discard([staged])
            raise
        return staged

    def sync(self, staged: Sequence[Staged]) -> None:
        """Make staged bytes durable and let go of their handles."""
        for item in staged:
            self.files.sync(item.handle)
        for item in staged:
            with contextlib.suppress(OSError):  # the bytes are durable already
                self.files.close(item.handle)

    def is_staged(self, staged: Staged) -> bool:
        """Whether the bytes are still under their temporary name."""
        return self.files.size_of(staged.path) is not None

    def discard(self, staged: Sequence[Staged]) -> None:
        """Forget staged bytes after a failure; what cannot be removed is swept up at the next start."""
        for item in staged:
            with contextlib.suppress(OSError):
                self.files.close(item.handle)
            with contextlib.suppress(OSError):
                self.files.remove(item.path)

    def publish(self, moves: Sequence[tuple[Staged, str]]) -> None:
        """Give durable pictures their final names, which must be free, and make the names durable."""
        parents = {str(PurePosixPath(name).parent) for _, name in moves}
        for parent in sorted(parents - self._made):
            self.files.make_dir(parent)
            self._made.add(parent)
        for staged, name in moves:
            if self.is_staged(staged):
                self.files.rename(staged.path, name)
        for parent in sorted(parents):
            self.files.sync_dir(parent)
