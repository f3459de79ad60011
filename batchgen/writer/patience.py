"""How long a step is tried again that a disk or a store may allow later: the pictures are paid for."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from batchgen.world import Clock, StoreBusy, SyncFailed

T = TypeVar("T")
HOPE_S = 600.0
RETRY_S = 5.0
# A full disk may be emptied and descriptors may be given back; nothing else gets better by waiting.
_FULL = {errno.ENOSPC, errno.EDQUOT}
_HOPEFUL = _FULL | {errno.EMFILE, errno.ENFILE}


@dataclass
class Patience:
    """`on_full` hears of a full disk, `on_wait` of a store that is busy, each time before the next try."""

    clock: Clock
    pause: Callable[[float], None]
    on_full: Callable[[str], None] = lambda message: None
    on_wait: Callable[[str], None] = lambda message: None

    def persist(self, step: Callable[[], T]) -> T:
        """Do a step that may be done again. Raises its OSError where waiting does not help, or has not helped."""
        give_up_s = self.clock.monotonic() + HOPE_S
        while True:
            try:
                return step()
            except SyncFailed:
                raise
            except OSError as error:
                hopeful = isinstance(error, StoreBusy) or error.errno in _HOPEFUL
                if not hopeful or self.clock.monotonic() >= give_up_s:
                    raise
                if isinstance(error, StoreBusy):
                    self.on_wait(str(error))
                elif error.errno in _FULL:
                    self.on_full(str(error))
                self.pause(RETRY_S)
