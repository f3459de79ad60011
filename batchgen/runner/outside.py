"""The outside world of a run: clock, chance, disk, server, account and writer thread, chosen in one place.

`real` is what the command line uses; simulated nights hand `conduct.run` another. Nothing here decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen import threads
from batchgen.clock import SystemClock
from batchgen.files import PosixFiles
from batchgen.folder import alone, locked
from batchgen.layout import PRIVATE
from batchgen.model import Secret, Shard
from batchgen.world import Clock, Files, Randomness, Threads

if TYPE_CHECKING:
    from batchgen.pool import Way
    from batchgen.runner.context import Run
    from batchgen.runner.online import Offer
    from batchgen.runner.session import Access, Session
    from batchgen.stores import Store
    from batchgen.world import Work
    from batchgen.writer import Committer, Writer


@dataclass(frozen=True)
class Link:
    """The ways to the servers, and the keys that requests carry there, which nothing that is kept may show."""

    ways: Sequence[Way]
    key: Secret


@dataclass(frozen=True)
class Outside:
    """All that a run touches outside of itself.

    `begun` answers whether a run has been in an output folder; `hold` locks the folder, or a shard's part of it, or
    raises FolderBusy, and gives its files; `store` opens what keeps the pictures where the folder does not. `link`
    opens the way to the server. `writer` starts what commits answers; `pause` is how that waits for a full disk.
    `ask` asks the API for what costs nothing, `start` begins what goes on beside.
    """

    clock: Clock
    randomness: Randomness
    begun: Callable[[Path], bool]
    hold: Callable[[Path, Shard | None], AbstractContextManager[Files]]
    link: Callable[[Run], AbstractAsyncContextManager[Link]]
    writer: Callable[[Committer[Work], asyncio.AbstractEventLoop], Writer[Work]]
    pause: Callable[[float], None]
    ask: Callable[[Access], Awaitable[Offer]]
    store: Callable[[Session, Files], Store | None] = lambda session, local: None
    start: Threads = threads.start


def real() -> Outside:
    """This machine and the network."""
    return Outside(SystemClock(), random.Random(), _begun, _hold, _link, _writer, time.sleep, _ask, _store)


def _begun(root: Path) -> bool:
    return (root / PRIVATE).exists()


@contextlib.contextmanager
def _hold(root: Path, shard: Shard | None) -> Iterator[Files]:
    with locked(root, shard):
        files = PosixFiles(root)
        try:
            yield files
        finally:
            files.close_root()


def _store(session: Session, local: Files) -> Store | None:
    from batchgen.runner.storage import store_of

    return store_of(session.settings, local, partial(alone, session.settings.output.absolute()))


def _link(this: Run) -> AbstractAsyncContextManager[Link]:
    # An HTTP library takes longer to load than most looks take.
    from batchgen.runner.link import link

    return link(this)


async def _ask(access: Access) -> Offer:
    from batchgen.runner.online import ask

    return await ask(access)


def _writer(committer: Committer[Work], loop: asyncio.AbstractEventLoop) -> Writer[Work]:
    from batchgen.writer import Writer

    return Writer(committer, loop)
