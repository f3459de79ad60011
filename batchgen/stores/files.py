"""File operations on a folder whose pictures are objects in a store. Decides nothing but what lies where.

What is below `images/`, `superseded/` and `staged/` is in the store, everything else in the local folder. A picture
gets its final name by one upload of the file that was made durable locally; an object takes its name whole or not at
all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from urllib.parse import quote

from batchgen.layout import IMAGES, STAGED, SUPERSEDED
from batchgen.stores.index import Index
from batchgen.stores.objects import Objects
from batchgen.world import Files

_KEPT = (IMAGES, SUPERSEDED, STAGED)
_PIECE_BYTES = 8 << 20
_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_NAMES = {"", ".", ".."}


def in_store(path: str) -> bool:
    """Whether this path of an output folder is an object's. Raises OSError where it would leave the prefix."""
    first, *rest = path.split("/")
    if first in _KEPT and not _NO_NAMES.isdisjoint(rest):
        raise OSError(errno.EINVAL, "not a path inside the prefix", path)
    return first in _KEPT


class StoreFiles:
    """`world.Files` on a local folder and the store at `place`; `connect` is called when the store is first needed."""

    def __init__(self, local: Files, place: str, connect: Callable[[], Objects]) -> None:
        self.local, self.place, self._connect = local, place, connect
        self._lock = threading.RLock()
        self._connected: Objects | None = None
        self._listed: Index | None = None

    @property
    def objects(self) -> Objects:
        with self._lock:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    @property
    def _index(self) -> Index:
        """One listing of all pictures instead of a question for each."""
        with self._lock:
            if self._listed is None:
                self._listed = Index(chain.from_iterable(self.objects.below(folder) for folder in _KEPT))
            return self._listed

    def look(self) -> None:
        """List what is there, unless that was done: afterwards nobody has to wait for it."""
        _ = self._index

    # What has another meaning in a store.

    def make_dir(self, path: str) -> None:
        if not in_store(path):
            self.local.make_dir(path)

    def sync_dir(self, path: str) -> None:
        if not in_store(path):
            self.local.sync_dir(path)

    def rename(self, old: str, new: str) -> None:
        """Upload a local file, or move an object: copied, then deleted. Repeated after a failure, it does what is left.

        The index learns of it at the end: a move that failed halfway is asked for again in the same words.
        """
        if not in_store(new):
            if in_store(old):
                raise OSError(errno.EXDEV, "a picture in a store is read, not moved here", old)
            self.local.rename(old, new)
        elif in_store(old):
            self._move(old, new)
        else:
            self._upload(old, new)

    def _move(self, old: str, new: str) -> None:
        index = self._index
        size_bytes = index.get(old)
        if size_bytes is None and old.startswith(f"{STAGED}/"):
            size_bytes = self.objects.size(old)  # another machine put it there, after the listing
        if size_bytes is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", old)
        self.objects.copy(old, new)
        self.objects.delete(old)
        index.put(new, size_bytes)
        index.remove(old)

    def _upload(self, old: str, new: str) -> None:
        index, data = self._index, self.local.read(old)
        self.objects.put(new, data, attributes(new, data))
        index.put(new, len(data))
        self.local.remove(old)

    def remove(self, path: str) -> None:
        if not in_store(path):
            self.local.remove(path)
            return
        self.objects.delete(path)
        self._index.remove(path)

    def size_of(self, path: str) -> int | None:
        return self._index.get(path) if in_store(path) else self.local.size_of(path)

    def read(self, path: str) -> bytes:
        return self.objects.get(path) if in_store(path) else self.local.read(path)

    def sha256(self, path: str) -> str:
        if not in_store(path):
            return self.local.sha256(path)
        noted = self.objects.attributes(path).get("sha256", "")
        return noted if _SHA256.fullmatch(noted) else hashlib.sha256(self.read(path)).hexdigest()

    def names(self, path: str) -> list[str]:
        return list(dict.fromkeys(self._names(path))) if in_store(path) else self.local.names(path)

    def _names(self, folder: str) -> Iterator[str]:
        for name, _ in self.objects.below(folder):
            yield name.removeprefix(f"{folder}/").partition("/")[0]

    def mirror(self, path: str) -> None:
        """Upload a copy of a local file as it is now, beside the pictures. The last line of a log may be torn."""
        handle = self.local.open(_local(path))
        try:
            size_bytes = self.local.size(handle)
            pieces = _pieces(self.local, handle, size_bytes)
            self.objects.put(path, next(pieces, b"") if size_bytes <= _PIECE_BYTES else pieces, _type(path))
        finally:
            self.local.close(handle)

    # What is local.

    def create(self, path: str) -> int:
        return self.local.create(_local(path))

    def append_to(self, path: str) -> int:
        return self.local.append_to(_local(path))

    def open(self, path: str) -> int:
        """A file to read from; of an object, a copy that is gone when it is closed."""
        if not in_store(path):
            return self.local.open(path)
        import tempfile  # and all that it loads: most looks copy nothing

        with tempfile.TemporaryFile() as copy:
            copy.write(self.read(path))
            copy.flush()
            return os.dup(copy.fileno())

    def write(self, handle: int, data: bytes) -> None:
        self.local.write(handle, data)

    def truncate(self, handle: int, size_bytes: int) -> None:
        self.local.truncate(handle, size_bytes)

    def size(self, handle: int) -> int:
        return self.local.size(handle)

    def is_at(self, handle: int, path: str, size_bytes: int) -> bool:
        return self.local.is_at(handle, path, size_bytes)

    def sync(self, handle: int) -> None:
        self.local.sync(handle)

    def close(self, handle: int) -> None:
        self.local.close(handle)

    def read_at(self, handle: int, offset: int, size_bytes: int) -> bytes:
        return self.local.read_at(handle, offset, size_bytes)

    def free_bytes(self) -> int:
        return self.local.free_bytes()


def _local(path: str) -> str:
    if in_store(path):
        raise OSError(errno.EXDEV, "pictures in a store are uploaded whole", path)
    return path


def attributes(file: str, data: bytes) -> dict[str, str]:
    """What is kept beside a picture: its type, its digest, and whose it is."""
    stem = file.partition("/")[2].rpartition(".")[0]
    job = quote(stem.partition("~")[0], safe="/")
    return {**_type(file), "sha256": hashlib.sha256(data).hexdigest(), "job": job}


def _type(path: str) -> dict[str, str]:
    extension = path.rpartition(".")[2]
    return {"Content-Type": _TYPES[extension]} if extension in _TYPES else {}


def _pieces(files: Files, handle: int, size_bytes: int) -> Iterator[bytes]:
    for offset in range(0, size_bytes, _PIECE_BYTES):
        yield files.read_at(handle, offset, min(_PIECE_BYTES, size_bytes - offset))
