"""The real file operations, all of them below one folder. Decides nothing: order and meaning are the callers'.

Every path goes through one descriptor of the folder, so that nothing is written elsewhere even when the folder is
moved or replaced during a run; the first folders in it are held open in the same way, and `sync_dir` looks whether they
are still in their places. Files are the owner's alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from batchgen.world import SyncFailed

_NEW_FILE, _NEW_DIR = 0o600, 0o700
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_HELD_FOLDERS = 32
_NO_NAMES = {"", ".", ".."}


class _Parent:
    """An open folder and a name in it, for as long as one operation takes."""

    __slots__ = ("_held", "folder", "name")

    def __init__(self, folder: int, name: str, *, held: bool) -> None:
        self.folder, self.name, self._held = folder, name, held

    def __enter__(self) -> tuple[int, str]:
        return self.folder, self.name

    def __exit__(self, *error: object) -> None:
        if not self._held:
            os.close(self.folder)


class PosixFiles:
    """File operations below `root`, which is made where it is missing."""

    def __init__(self, root: Path) -> None:
        missing = [d for d in (root, *root.parents) if not d.exists()]
        root.mkdir(_NEW_DIR, parents=True, exist_ok=True)
        for made in missing:
            _sync_dir(made.parent, None)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self._held: dict[str, int] = {}

    def close_root(self) -> None:
        for handle in (*self._held.values(), self._root):
            os.close(handle)

    def _parent(self, path: str) -> _Parent:
        """The folder that holds `path`, opened step by step so that no link on the way leads elsewhere."""
        folder, _, name = path.rpartition("/")
        if (known := self._held.get(folder)) is not None and name not in _NO_NAMES:
            return _Parent(known, name, held=True)
        if not _NO_NAMES.isdisjoint(path.split("/")):
            raise OSError(errno.EINVAL, "not a path inside the folder", path)
        opened = self._descend(folder)
        held = len(self._held) < _HELD_FOLDERS and self._held.setdefault(folder, opened) == opened
        return _Parent(opened, name, held=held)

    def _descend(self, folder: str) -> int:
        """A descriptor of a folder below the root."""
        at = os.open(".", _FOLDER, dir_fd=self._root)
        for step in filter(None, folder.split("/")):
            try:
                inner = os.open(step, _FOLDER, dir_fd=at)
            finally:
                os.close(at)
            at = inner
        return at

    def _open(self, path: str, flags: int) -> int:
        with self._parent(path) as (folder, name):
            return os.open(name, flags | os.O_NOFOLLOW, _NEW_FILE, dir_fd=folder)

    def make_dir(self, path: str) -> None:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            step = "/".join(parts[:depth])
            try:
                os.mkdir(step, _NEW_DIR, dir_fd=self._root)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(step, dir_fd=self._root, follow_symlinks=False).st_mode):
                    raise
            else:
                self.sync_dir("/".join(parts[: depth - 1]) or ".")

    def create(self, path: str) -> int:
        return self._open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def append_to(self, path: str) -> int:
        return self._open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def open(self, path: str) -> int:
        return self._open(path, os.O_RDONLY)

    def write(self, handle: int, data: bytes) -> None:
        written = os.write(handle, data)
        while written < len(data):
            written += os.write(handle, memoryview(data)[written:])

    def truncate(self, handle: int, size_bytes: int) -> None:
        os.ftruncate(handle, size_bytes)

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def is_at(self, handle: int, path: str, size_bytes: int) -> bool:
        try:
            found = os.stat(path, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return found.st_size == size_bytes and os.path.samestat(found, os.fstat(handle))

    def sync(self, handle: int) -> None:
        try:
            os.fdatasync(handle)
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror) from error

    def close(self, handle: int) -> None:
        os.close(handle)

    def sync_dir(self, path: str) -> None:
        _sync_dir(path, self._root, self._held.get(path))

    def rename(self, old: str, new: str) -> None:
        with self._parent(old) as (source, old_name), self._parent(new) as (target, new_name):
            os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)

    def remove(self, path: str) -> None:
        with self._parent(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def size_of(self, path: str) -> int | None:
        try:
            found = os.stat(path, dir_fd=self._root, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else -1

    def stat(self, path: str) -> os.stat_result | None:
        """What the file system knows of a file; None where there is nothing."""
        try:
            with self._parent(path) as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def link(self, path: str, target: PosixFiles, new: str) -> None:
        """Give a file another name in another folder: the bytes are there once. An existing `new` is an error."""
        with self._parent(path) as (source, name), target._parent(new) as (folder, new_name):
            os.link(name, new_name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)

    def read(self, path: str) -> bytes:
        handle = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            return file.read()

    def sha256(self, path: str) -> str:
        return hashlib.sha256(self.read(path)).hexdigest()

    def read_at(self, handle: int, offset: int, size_bytes: int) -> bytes:
        return os.pread(handle, size_bytes, offset)

    def names(self, path: str) -> list[str]:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._root)
        try:
            return os.listdir(handle)  # noqa: PTH208 - a descriptor, not a path
        finally:
            os.close(handle)

    def free_bytes(self) -> int:
        found = os.fstatvfs(self._root)
        return found.f_bavail * found.f_frsize


def replace_file(path: Path, data: bytes) -> None:
    """Replace a small file that others read, wherever it is, in one step. Its mode follows the umask."""
    path = Path(os.path.realpath(path))
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _sync_dir(path: str | Path, root: int | None, held: int | None = None) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    try:
        if held is not None and not os.path.sameopenfile(held, handle):
            raise OSError(errno.ESTALE, "somebody moved or replaced this folder while it was written to", path)
    except OSError:
        os.close(handle)
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error
    finally:
        os.close(handle)
