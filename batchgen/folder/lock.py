"""Who may write: one run, or shards of one number beside each other. The kernel holds the locks, however one dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from batchgen.folder.state import State
from batchgen.joblog import BAD_LINE
from batchgen.layout import LOCK, ONE_AT_A_TIME, PRIVATE, Books, books_among, locked_among
from batchgen.model import FolderBusy, Shard, UsageError

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


@contextmanager
def locked(root: Path, shard: Shard | None = None) -> Iterator[None]:
    """Hold the folder for a run alone, or one shard's part of it beside the other shards; else raise FolderBusy."""
    root.mkdir(0o700, parents=True, exist_ok=True)
    (root / PRIVATE).mkdir(0o700, exist_ok=True)
    own = Books(shard)
    with ExitStack() as held:
        if not _hold(held, root, LOCK, fcntl.LOCK_SH if shard else fcntl.LOCK_EX):
            raise FolderBusy(f"{root}: {_holders(root)} at work here; nothing was touched")
        if shard is not None:
            if not _hold(held, root, own.lock, fcntl.LOCK_EX):
                raise FolderBusy(f"{root}: {_holders(root, own)} at work on shard {shard}; nothing was touched")
            _refuse_other_numbers(root, shard)
        yield


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Wait until no other shard of the folder does what only one may do at a time."""
    handle = os.open(root / ONE_AT_A_TIME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def only_one(private: Path, who: str) -> Iterator[None]:
    """Hold the lock in the folder `private`, which is made; `who` would be at work there if another process had it."""
    private.parent.mkdir(0o700, parents=True, exist_ok=True)
    private.mkdir(0o700, exist_ok=True)
    with ExitStack() as held:
        if not _hold(held, private, "lock", fcntl.LOCK_EX):
            raise FolderBusy(f"{private.parent}: {who} is at work here; nothing was touched")
        yield


def _refuse_other_numbers(root: Path, shard: Shard) -> None:
    """Shards of another number hold other jobs: both beside each other could pay twice for the same one.

    Each takes its own lock first and looks for others' then: of two that begin at once, one at least sees the other.
    """
    for books in locked_among(path.name for path in (root / PRIVATE).iterdir()):
        if books.shard and books.shard.n != shard.n:
            with ExitStack() as probe:
                if not _hold(probe, root, books.lock, fcntl.LOCK_SH):
                    raise FolderBusy(
                        f"{root}: {_holders(root, books)} at work on shard {books.shard}, which does not go with shard"
                        f" {shard}; nothing was touched"
                    )


def _hold(held: ExitStack, root: Path, name: str, kind: int) -> bool:
    """Take the lock for as long as `held` lasts; False where somebody else has it."""
    handle = os.open(root / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    held.callback(os.close, handle)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise UsageError(
            f"{root}: this file system has no locks, so two runs could pay twice; choose another output folder"
        ) from error
    return True


def _known(root: Path) -> list[Books]:
    return books_among(path.name for folder in (root, root / PRIVATE) for path in folder.iterdir())


def _holders(root: Path, *books: Books) -> str:
    """Who is at work, as their states tell it."""
    states = [state for of in books or _known(root) if (state := _state(root / of.state)) and state.pid]
    if not states:
        return "another run is"
    told = "; ".join(f"run {s.run} (process {s.pid} on {s.host}, since {s.started_at})" for s in states[:3])
    return f"{told} {'is' if len(states) == 1 else 'are'}"


def _state(path: Path) -> State | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except (OSError, *BAD_LINE):
        return None
