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
from batchgen.files import PosixFiles
from batchgen.joblog import SeenPicture
from batchgen.model import BadAnswer, Picture
from batchgen.verify import Kind

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


def look(files: PosixFiles, picture: Picture | SeenPicture, *, quick: bool = False) -> Sight:
    """The file of a picture beside the log; `quick` compares its size only."""
    try:
        found = files.stat(picture.file)
        if found is None:
            return Sight(Kind.MISSING, "is not there")
        if not stat.S_ISREG(found.st_mode):
            return Sight(Kind.CHANGED, "is not a regular file")
        size = found.st_size
        if size == picture.size_bytes and quick:
            return Sight()
        digest = sha256_of(files, picture.file)
        if digest == picture.sha256:
            return Sight(sha256=digest)
        return _other(files, picture.file, digest, f"{size} bytes of {picture.size_bytes}")
    except OSError as error:
        return unreadable(error)


def load(files: PosixFiles, picture: Picture) -> tuple[Sight, bytes]:
    """As `look`, with the bytes of a picture that is what the log says."""
    try:
        data = files.read(picture.file)
        if hashlib.sha256(data).hexdigest() == picture.sha256:
            return Sight(sha256=picture.sha256), data
    except OSError:
        pass
    return look(files, picture), b""


def look_named(files: PosixFiles, file: str, sha8: str) -> Sight:
    """A file whose name promises the first digits of its sha256."""
    try:
        if (found := files.stat(file)) and not stat.S_ISREG(found.st_mode):
            return Sight(Kind.CHANGED, "is not a regular file")
        digest = sha256_of(files, file)
        whole = digest.startswith(sha8)
        return Sight(sha256=digest) if whole else _other(files, file, digest, "not what its name says")
    except OSError as error:
        return unreadable(error)


def unreadable(error: OSError) -> Sight:
    words = "its path leads out of the folder" if error.errno == errno.EINVAL else error.strerror or str(error)
    return Sight(Kind.UNREADABLE, f"cannot be read: {words}")


def _other(files: PosixFiles, file: str, digest: str, words: str) -> Sight:
    """A file that is not the one that was saved: another picture, or none."""
    if (files.size_of(file) or 0) <= _CHECKED_BYTES:
        try:
            images.check(files.read(file))
        except BadAnswer as error:
            return Sight(Kind.BROKEN, f"{error} ({words})", digest)
    return Sight(Kind.CHANGED, f"is a file with other content ({words})", digest)


def sha256_of(files: PosixFiles, file: str) -> str:
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


def walk(root: Path, folder: str) -> Iterator[str]:
    """The files below a folder, as paths relative to `root`; links are files, and followed nowhere."""
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
