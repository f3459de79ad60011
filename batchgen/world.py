"""The outside world as protocols: what the runner hands down, and what simulated nights replace.

Declarations only. The real ones are `clock`, `client`, `files` and `threads`; nothing below `runner` reaches outside by
itself.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from batchgen.model import Body, Entry, Job, Outcome, Post, Reply, ServerError, StorageError

if TYPE_CHECKING:
    import asyncio

    from batchgen.joblog import Draft
    from batchgen.pacing import Lease


class Clock(Protocol):
    """Intervals come from `monotonic` (seconds), dates from `utc`."""

    def monotonic(self) -> float: ...
    def utc(self) -> datetime: ...


class Randomness(Protocol):
    """A number from 0 up to 1, as `random.Random.random`."""

    def random(self) -> float: ...


class Transport(Protocol):
    """How a request reaches a server."""

    async def prepare(self, job: Job) -> Post:
        """What to send; raises InputChanged where a picture is not the one that was planned with, BudgetSpent where a
        limit that others count too leaves no room, and then nothing was counted."""
        ...

    async def send(self, post: Post, timeout_s: float) -> Reply:
        """One attempt; raises AttemptFailed where there is no whole answer."""
        ...

    async def fetch(self, reply: Reply) -> Reply:
        """The answer with the pictures that its links lead to; raises AttemptFailed where one cannot be had."""
        ...

    async def reachable(self) -> bool:
        """Whether the server answers at all, asked without paying."""
        ...


class Thread(Protocol):
    """Work that goes on beside, as in `threading.Thread`; the program may end before it does."""

    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class Threads(Protocol):
    """How work is begun that goes on beside."""

    def __call__(self, name: str, act: Callable[[], None]) -> Thread: ...


class Files(Protocol):
    """File operations inside one folder; every path is relative to it, with `/` between the parts.

    All of them raise OSError; `sync` raises SyncFailed, which must never be answered with another sync.
    """

    def make_dir(self, path: str) -> None:
        """Make a folder and its parents, durably; a symbolic link in the way is an error."""
        ...

    def create(self, path: str) -> int:
        """A new file to write to; an existing name is an error."""
        ...

    def append_to(self, path: str) -> int:
        """A file to append to, made where it is missing."""
        ...

    def open(self, path: str) -> int:
        """A file to read from."""
        ...

    def write(self, handle: int, data: bytes) -> None: ...
    def truncate(self, handle: int, size_bytes: int) -> None: ...
    def size(self, handle: int) -> int: ...

    def is_at(self, handle: int, path: str, size_bytes: int) -> bool:
        """Whether the open file is still the one that bears this name, and still this large."""
        ...

    def sync(self, handle: int) -> None: ...
    def close(self, handle: int) -> None: ...

    def sync_dir(self, path: str) -> None:
        """Make the names in a folder durable."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, atomically; an existing `new` is replaced."""
        ...

    def remove(self, path: str) -> None: ...

    def size_of(self, path: str) -> int | None:
        """The size of a regular file in bytes; -1 for anything else, None where there is nothing."""
        ...

    def read(self, path: str) -> bytes: ...

    def sha256(self, path: str) -> str:
        """The digest of a file's bytes, in hexadecimal."""
        ...

    def read_at(self, handle: int, offset: int, size_bytes: int) -> bytes: ...
    def names(self, path: str) -> list[str]: ...
    def free_bytes(self) -> int: ...


class Delivery(msgspec.Struct, frozen=True):
    """An answer with status 200 whose pictures are to be saved."""

    draft: Draft
    body: Body


class Verdict(msgspec.Struct, frozen=True):
    """A job that ended without a picture."""

    draft: Draft
    outcome: Outcome


Work = Delivery | Verdict
Result = Entry | ServerError | Exception


class Account(Protocol):
    """What the account has sent, shared by all who send with its key."""

    async def lease(self, n: int) -> Lease:
        """Leave for up to `n` requests; none where the day is spent."""
        ...

    async def give_back(self, n: int) -> None:
        """Leave that was not used."""
        ...


class Deliver(Protocol):
    """How the pool hands over what came of a job; the result is durable when the future is done.

    An Entry: the job is in the log. A ServerError: the answer was an error after all. BadAnswer: it was useless. The
    future raises StorageError where the work could not be kept.
    """

    def submit(self, work: Work) -> asyncio.Future[Result]: ...


class Staged(msgspec.Struct, frozen=True):
    """Bytes that are written but not yet seen."""

    path: str
    handle: int


class Sink(Protocol):
    """Where pictures go: staged, made durable, then given their final names."""

    def stage(self, data: bytes, sha256: str) -> Staged: ...
    def sync(self, staged: Iterable[Staged]) -> None: ...
    def discard(self, staged: Iterable[Staged]) -> None: ...

    def publish(self, moves: dict[str, Staged]) -> None:
        """Give what is staged its final names, durably; what has got its name leaves `moves`, also before a failure."""
        ...


class Shelf(Protocol):
    """What the writer needs of the output folder."""

    def append_attempts(self, data: bytes) -> None: ...
    def sync_attempts(self) -> None: ...
    def append_log(self, data: bytes) -> None: ...
    def sync_log(self) -> None: ...
    def make_way(self, job: str, files: Iterable[str]) -> None: ...
    def quarantine(self, job: str, n: int, body: bytes) -> None: ...


class SyncFailed(OSError):
    """Data could not be made durable and may have been dropped: another sync that succeeds would prove nothing."""


class StoreFailed(StorageError, OSError):
    """An object store did not do what it was asked to, and a person is needed."""

    def __init__(self, message: str, code: int = errno.EIO) -> None:
        super().__init__(message)
        self.errno = code


class StoreBusy(StoreFailed):
    """An object store is out of reach, slow or overloaded: the same call may succeed later."""
