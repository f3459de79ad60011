"""The folder that an export writes to: it replaces and removes what it made itself, and nothing else.

Every file is written under a temporary name; before it gets its own, a line in the ledger says so. So the same command
goes on with an export that was cut short.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from batchgen.export import ledger
from batchgen.export.ledger import Made, Owner
from batchgen.files import PosixFiles
from batchgen.folder import only_one
from batchgen.layout import IMAGES, PRIVATE, QUARANTINE, SUPERSEDED, Books
from batchgen.model import UsageError
from batchgen.runner.pictures import sha256_of
from batchgen.runner.storage import OutputFiles
from batchgen.stores import StoreFiles

_OWN = ".batchgen-export"
_LEDGER = f"{_OWN}/files.jsonl"
_TMP = f"{_OWN}/tmp"
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}
_RESERVED = {IMAGES, SUPERSEDED, PRIVATE, Books().log, Books().summary, QUARANTINE, "thumbs", "report.html"}


class InTheWayError(Exception):
    """A file that is not of this export bears the name of one that is to be made."""


def check_place(path: Path) -> None:
    """Raises UsageError where an export would write among the files of an output folder."""
    place = path.resolve()
    for above in (place, *place.parents):
        inside = place.relative_to(above).parts
        if (above / PRIVATE).is_dir() and (not inside or inside[0] in _RESERVED):
            raise UsageError(f"{path}: this belongs to the output folder {above}; choose another place with -o")


@contextmanager
def open_destination(root: Path, owner: Owner) -> Iterator[Destination]:
    """Hold the folder `root` for this export; made where it is missing.

    Raises UsageError where something else is in it, FolderBusy where another export is at work there.
    """
    check_place(root)
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root}: this is a file; the export needs a folder, choose another place with -o")
    if root.is_dir() and not (root / _OWN).is_dir() and any(root.iterdir()):
        raise UsageError(f"{root}: this folder was not made by an export and is not empty; choose another with -o")
    with only_one(root / _OWN, "another export"):
        files = PosixFiles(root)
        try:
            with closing(Destination(files, root, owner)) as found:
                yield found
        finally:
            files.close_root()


class Destination:
    """An open destination; `counts` says what was done: written, linked, kept, removed."""

    def __init__(self, files: PosixFiles, root: Path, owner: Owner) -> None:
        self.files, self.root, self.owner = files, root, owner
        self.counts: Counter[str] = Counter()
        self.notices: list[str] = []
        self._made: dict[str, list[Made]] = {}
        self._folders: set[str] = {"."}
        self._number = 0
        self._load()
        files.make_dir(_TMP)
        for name in files.names(_TMP):
            files.remove(f"{_TMP}/{name}")
        self._ledger = files.append_to(_LEDGER)
        # Behind a line that a crash cut short a new one begins on a line of its own.
        files.write(self._ledger, b"\n" if files.size(self._ledger) else ledger.encode(owner))

    def _load(self) -> None:
        if self.files.size_of(_LEDGER) is None:
            return
        for number, line in enumerate(self.files.read(_LEDGER).splitlines()):
            try:
                found = ledger.decode(line)
            except msgspec.MsgspecError:  # empty, or cut short by a crash
                continue
            if isinstance(found, Made):
                self._made.setdefault(found.file, []).append(found)
            elif number == 0 and found != self.owner:
                raise UsageError(
                    f"{self.root}: this is the {found.to} export of {(self.root / found.source).resolve()}; choose"
                    " another folder with -o"
                )

    def has(self, file: str, recipe: str) -> bool:
        """Whether the file is there as this recipe made it."""
        there = self._there(file)
        for made in self._made.get(file, ()) if there else ():
            if made.recipe == recipe and self._is(made, there):
                self.counts["kept"] += 1
                return True
        return False

    def _there(self, file: str) -> os.stat_result | None:
        return self.files.stat(file)

    def _is(self, made: Made, there: os.stat_result | None) -> bool:
        """Whether a file is the one that was made: by size and time, and where it was copied since, by its bytes."""
        if there is None or not stat.S_ISREG(there.st_mode) or there.st_size != made.size_bytes:
            return False
        return there.st_mtime_ns == made.mtime_ns or sha256_of(self.files, made.file) == made.sha256

    def make(self, file: str, fill: Callable[[io.RawIOBase], str | None]) -> bool:
        """Write a file; `fill` gives its recipe, or None where there is nothing to be written after all.

        Raises InTheWayError.
        """
        temporary = self._temporary()
        out = _Hashing(self.files.create(temporary), self.files)
        try:
            recipe = fill(out)
            self.files.sync(out.handle)
        finally:
            self.files.close(out.handle)
        if recipe is None:
            self.files.remove(temporary)
            return False
        self._publish(temporary, self._as_made(temporary, file, recipe, out.sha256.hexdigest()), "written")
        return True

    def link(self, file: str, recipe: str, source: tuple[OutputFiles, str], sha256: str) -> bool:
        """Give a file of the output folder a second name here; False where the file systems cannot do that.

        Raises InTheWayError.
        """
        temporary, (files, path) = self._temporary(), source
        if isinstance(files, StoreFiles):
            return False
        try:
            files.link(path, self.files, temporary)
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        self._publish(temporary, self._as_made(temporary, file, recipe, sha256), "linked")
        return True

    def _as_made(self, temporary: str, file: str, recipe: str, sha256: str) -> Made:
        new = self.files.stat(temporary)
        assert new is not None
        return Made(file, recipe, sha256, new.st_size, new.st_mtime_ns)

    def _temporary(self) -> str:
        self._number += 1
        return f"{_TMP}/{self._number}"

    def _publish(self, temporary: str, made: Made, how: str) -> None:
        there = self._there(made.file)
        if there is not None and self._is_kept(made, there):
            self.files.remove(temporary)
            self._note(msgspec.structs.replace(made, mtime_ns=there.st_mtime_ns))
            self.counts["kept"] += 1
            return
        if there is not None and not self._is_mine(made.file, there):
            self.files.remove(temporary)
            raise InTheWayError(f"{self.root / made.file}: is there and not of this export; move it away")
        self._note(made)
        folder = made.file.rpartition("/")[0] or "."
        if folder not in self._folders:
            self.files.make_dir(folder)
            self._folders.add(folder)
        self.files.rename(temporary, made.file)
        self.counts[how] += 1

    def _note(self, made: Made) -> None:
        self.files.write(self._ledger, ledger.encode(made))
        self._made.setdefault(made.file, []).append(made)

    def _is_kept(self, made: Made, there: os.stat_result) -> bool:
        """Whether what is there may stay: made by the same recipe with the same bytes, or such bytes of nobody."""
        known = self._made.get(made.file)
        if known:
            return any(m.recipe == made.recipe and m.sha256 == made.sha256 and self._is(m, there) for m in known)
        return stat.S_ISREG(there.st_mode) and sha256_of(self.files, made.file) == made.sha256

    def _is_mine(self, file: str, there: os.stat_result) -> bool:
        return any(self._is(made, there) for made in self._made.get(file, ()))

    def finish(self, wanted: Set[str]) -> None:
        """Remove what earlier exports made and this one did not, and make everything durable."""
        for file in sorted(self._made.keys() - wanted):
            there = self._there(file)
            if there is not None and self._is_mine(file, there):
                self.files.remove(file)
                self.counts["removed"] += 1
            elif there is not None:
                self.notices.append(f"{self.root / file}: left the dataset, but was changed by somebody; it stays")
        for folder in sorted(self._folders):
            self.files.sync_dir(folder)
        self._rewrite(wanted)

    def _rewrite(self, wanted: Set[str]) -> None:
        """Keep of the ledger only what tells of files that are there."""
        temporary = self._temporary()
        handle = self.files.create(temporary)
        try:
            self.files.write(handle, ledger.encode(self.owner))
            for file in sorted(self._made.keys() & wanted):
                self.files.write(handle, ledger.encode(self._made[file][-1]))
            self.files.sync(handle)
        finally:
            self.files.close(handle)
        self.files.rename(temporary, _LEDGER)
        self.files.sync_dir(_OWN)

    def close(self) -> None:
        self.files.close(self._ledger)


class _Hashing(io.RawIOBase):
    """A file that is written from its beginning to its end, with the digest of what was written."""

    def __init__(self, handle: int, files: PosixFiles) -> None:
        self.handle, self.sha256, self._files, self._at = handle, hashlib.sha256(), files, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self._files.write(self.handle, data)
        self.sha256.update(data)
        self._at += len(data)
        return len(data)
