"""Pictures as they are on the disk, beside what the log says of them: read and hashed in threads, a few at a time."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from batchgen import images
from batchgen.joblog import SeenPicture
from batchgen.model import BadAnswer, Picture
from batchgen.runner.storage import OutputFiles
from batchgen.stores import StoreFiles
from batchgen.verify import Kind
from batchgen.world import StoreFailed

# sha256 and reading run without the interpreter's lock; more threads than this only wait for the disk.
THREADS = min(8, (os.cpu_count() or 1) + 2)
_CHUNK_BYTES = 1 << 20
_CHECKED_BYTES = 1 << 28

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Sight:
    """What is there: `kind` is None for what the log says. `sha256` is that of the file, as far as it was read."""

    kind: Kind | None = None
    what: str = ""
    sha256: str | None = None


def look(files: OutputFiles, picture: Picture | SeenPicture, *, quick: bool = False) -> Sight:
    """The file of a picture beside the log; `quick` compares its size only."""
    try:
        size = _size(files, picture.file)
        if size is None:
            return Sight(Kind.MISSING, "is not there")
        if size < 0:
            return Sight(Kind.CHANGED, "is not a regular file")
        if size == picture.size_bytes and quick:
            return Sight()
        digest = sha256_of(files, picture.file)
        if digest == picture.sha256:
            return Sight(sha256=digest)
        return _other(files, picture.file, digest, f"{size} bytes of {picture.size_bytes}")
    except StoreFailed:
        raise  # not this picture's fault
    except OSError as error:
        return unreadable(error)


def load(files: OutputFiles, picture: Picture) -> tuple[Sight, bytes]:
    """As `look`, with the bytes of a picture that is what the log says."""
    try:
        data = files.read(picture.file)
        if hashlib.sha256(data).hexdigest() == picture.sha256:
            return Sight(sha256=picture.sha256), data
    except OSError:
        pass
    return look(files, picture), b""


def look_named(files: OutputFiles, file: str, sha8: str) -> Sight:
    """A file whose name promises the first digits of its sha256."""
    try:
        if (_size(files, file) or 0) < 0:
            return Sight(Kind.CHANGED, "is not a regular file")
        digest = sha256_of(files, file)
        whole = digest.startswith(sha8)
        return Sight(sha256=digest) if whole else _other(files, file, digest, "not what its name says")
    except StoreFailed:
        raise  # not this picture's fault
    except OSError as error:
        return unreadable(error)


def unreadable(error: OSError) -> Sight:
    words = "its path leads out of the folder" if error.errno == errno.EINVAL else error.strerror or str(error)
    return Sight(Kind.UNREADABLE, f"cannot be read: {words}")


def _other(files: OutputFiles, file: str, digest: str, words: str) -> Sight:
    """A file that is not the one that was saved: another picture, or none."""
    if (files.size_of(file) or 0) <= _CHECKED_BYTES:
        try:
            images.check(files.read(file))
        except BadAnswer as error:
            return Sight(Kind.BROKEN, f"{error} ({words})", digest)
    return Sight(Kind.CHANGED, f"is a file with other content ({words})", digest)


def sha256_of(files: OutputFiles, file: str) -> str:
    """The digest of a file of any size. Raises OSError."""
    digest, offset = hashlib.sha256(), 0
    handle = files.open(file)
    try:
        while data := files.read_at(handle, offset, _CHUNK_BYTES):
            digest.update(data)
            offset += len(data)
    finally:
        files.close(handle)
    return digest.hexdigest()


def _size(files: OutputFiles, file: str) -> int | None:
    """In bytes; -1 for what is no regular file, None for nothing. Raises OSError for a path that leads out."""
    if isinstance(files, StoreFiles):
        return files.size_of(file)
    found = files.stat(file)
    return None if found is None else found.st_size if stat.S_ISREG(found.st_mode) else -1


def changed_s(files: OutputFiles, file: str) -> float | None:
    """When a file was last changed, in seconds since the epoch; None where there is none."""
    if isinstance(files, StoreFiles):
        return files.objects.changed_s(file)
    found = files.stat(file)
    return max(found.st_mtime, found.st_ctime) if found else None


def walk(files: OutputFiles, root: Path, folder: str) -> Iterator[str]:
    """The files below a folder, as paths relative to `root`; links are files, and followed nowhere."""
    if isinstance(files, StoreFiles):
        yield from (name for name, _ in files.objects.below(folder))
    else:
        yield from _walk(root, folder)


def _walk(root: Path, folder: str) -> Iterator[str]:
    waiting = [folder] if (root / folder).is_dir() and not (root / folder).is_symlink() else []
    while waiting:
        at = waiting.pop()
        with os.scandir(root / at) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{at}/{entry.name}")
                else:
                    yield f"{at}/{entry.name}"


def ahead(work: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> Iterator[tuple[T, R]]:
    """Each item with what `work` makes of it, in their order; done in threads, at most twice as many as these ahead."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads, "batchgen-look") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= 2 * threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
