"""`world.Files` on the simulated disk, for one process. Each operation may fail, or be the process' last."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchgen.model import FolderBusy, Shard
from batchgen.world import SyncFailed
from nights.disk import Node, parent
from nights.machine import Process, Struck
from nights.threads import Dead


@dataclass(frozen=True)
class Handle:
    """An open file."""

    node: Node
    path: str


class NightFiles:
    """`world.Files` on the simulated disk, for one process."""

    def __init__(self, process: Process) -> None:
        self._process, self._disk = process, process.disk
        self._open: dict[int, Handle] = {}
        self._last = 2

    def _opened(self, node: Node, path: str) -> int:
        self._last += 1
        self._open[self._last] = Handle(node, path)
        return self._last

    def _node(self, path: str) -> Node:
        if (node := self._disk.names.get(path)) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node

    def make_dir(self, path: str) -> None:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            step = "/".join(parts[:depth])
            if (node := self._disk.names.get(step)) is None:
                self._process.step("make_dir", step)
                self._disk.make_folder(step)
                self.sync_dir(parent(step))
            elif not node.is_folder:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), step)

    def _has_folder(self, path: str) -> None:
        if parent(path) != ".":
            self._node(parent(path))

    def create(self, path: str) -> int:
        self._process.step("create", path)
        self._has_folder(path)
        if path in self._disk.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return self._opened(self._disk.make_file(path), path)

    def append_to(self, path: str) -> int:
        self._process.step("append_to", path)
        self._has_folder(path)
        node = self._disk.names.get(path)
        return self._opened(self._disk.make_file(path) if node is None else node, path)

    def open(self, path: str) -> int:
        self._process.step("open", path)
        return self._opened(self._node(path), path)

    def write(self, handle: int, data: bytes) -> None:
        file = self._open[handle]
        room = self._disk.capacity_bytes - self._disk.used_bytes()
        try:
            self._process.step("write", file.path)
        except OSError as error:
            if not isinstance(error, Dead) or isinstance(error, Struck):
                file.node.data += data[: len(data) // 2]
            raise
        file.node.data += data[: max(room, 0)]
        if room < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.path)

    def truncate(self, handle: int, size_bytes: int) -> None:
        self._process.step("truncate", self._open[handle].path)
        del self._open[handle].node.data[size_bytes:]

    def size(self, handle: int) -> int:
        self._process.step("size", self._open[handle].path)
        return len(self._open[handle].node.data)

    def is_at(self, handle: int, path: str, size_bytes: int) -> bool:
        self._process.step("is_at", path)
        node = self._disk.names.get(path)
        return node is not None and node is self._open[handle].node and len(node.data) == size_bytes

    def sync(self, handle: int) -> None:
        file = self._open[handle]
        try:
            self._process.step("sync", file.path)
        except SyncFailed as error:
            if not isinstance(error, Dead):
                file.node.spoilt = self._process
            raise
        file.node.sync(self._process)

    def close(self, handle: int) -> None:
        self._open.pop(handle)

    def sync_dir(self, path: str) -> None:
        self._process.step("sync_dir", path)
        self._disk.sync_folder(path)

    def rename(self, old: str, new: str) -> None:
        self._process.step("rename", new)
        self._node(old)
        self._has_folder(new)
        self._disk.move(old, new)

    def remove(self, path: str) -> None:
        self._process.step("remove", path)
        self._node(path)
        self._disk.remove(path)

    def size_of(self, path: str) -> int | None:
        self._process.step("size_of", path)
        node = self._disk.names.get(path)
        return None if node is None else -1 if node.is_folder else len(node.data)

    def read(self, path: str) -> bytes:
        self._process.step("read", path)
        return bytes(self._node(path).data)

    def sha256(self, path: str) -> str:
        return hashlib.sha256(self.read(path)).hexdigest()

    def read_at(self, handle: int, offset: int, size_bytes: int) -> bytes:
        self._process.step("read_at", self._open[handle].path)
        return bytes(self._open[handle].node.data[offset : offset + size_bytes])

    def names(self, path: str) -> list[str]:
        self._process.step("names", path)
        if path != ".":
            self._node(path)
        return [p.removeprefix(f"{path}/") for p in self._disk.names if parent(p) == path]

    def free_bytes(self) -> int:
        # What the plan asks for is a gigabyte's business; a disk that fills up is a matter of bytes here.
        return 1 << 40


@contextmanager
def hold(process: Process, root: Path, shard: Shard | None) -> Iterator[NightFiles]:
    """The folder's lock and files, for one process or a shard beside others."""
    if not process.disk.hold(process, shard):
        raise FolderBusy(f"{root}: another run is at work here; nothing was touched")
    try:
        yield NightFiles(process)
    finally:
        process.disk.let_go(process)


@contextmanager
def alone(process: Process) -> Iterator[None]:
    """Wait until no other shard does what only one may do at a time."""
    while process.disk.alone is not None:
        process.loop.wait(0.05)
    process.disk.alone = process
    try:
        yield
    finally:
        process.disk.alone = None if process.disk.alone is process else process.disk.alone
