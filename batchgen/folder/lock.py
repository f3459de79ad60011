"""Who may write: one process at a time, held by the kernel, free again however its holder dies."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from batchgen.folder.records import State
from batchgen.joblog import BAD_LINE
from batchgen.layout import PRIVATE, STATE
from batchgen.model import FolderBusy, UsageError

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the folder's kernel lock, or raise FolderBusy at once; it is free again however the holder dies."""
    with locked(root / PRIVATE, lambda: _holder(root)):
        yield


@contextmanager
def locked(private: Path, holder: Callable[[], str]) -> Iterator[None]:
    """Hold the lock of the folder around `private`, where the lock file is; `holder` tells who may hold it."""
    from filelock import FileLock, Timeout

    root = private.parent
    root.mkdir(0o700, parents=True, exist_ok=True)
    private.mkdir(0o700, exist_ok=True)
    # Without kernel locks there would be a marker file instead, which a killed run leaves behind for ever.
    lock = FileLock(private / "lock", timeout=0, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise FolderBusy(f"{root}: {holder()} is at work here; nothing was touched") from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        raise UsageError(
            f"{root}: this file system has no locks, so two runs could pay twice; choose another output folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _holder(root: Path) -> str:
    try:
        state = msgspec.json.decode((root / STATE).read_bytes(), type=State)
        return f"run {state.run} (process {state.pid} on {state.host}, since {state.started_at})"
    except (OSError, *BAD_LINE):
        return "another run"
