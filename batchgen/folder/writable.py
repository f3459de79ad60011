"""The output folder as the one process sees that holds its lock: it mends, adopts, appends, moves and never loses."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Container, Iterable, Set
from pathlib import PurePosixPath

import msgspec

from batchgen import joblog
from batchgen.folder.records import Records, fold_lines, lines, names
from batchgen.folder.state import State
from batchgen.joblog import Lives, PaceNote, SeenPicture
from batchgen.layout import FOREIGN_FINGERPRINT, IMAGES, PRIVATE, QUARANTINE, STAGED, copy_of, superseded
from batchgen.model import Entry, Job, Outcome, Shard, StorageError
from batchgen.shards import holds
from batchgen.world import Files

_MAX_TAIL_BYTES = 1 << 26
_QUARANTINE_BYTES = 1 << 20
_LONG_NAME = 200


class _Appender:
    """A file that only grows, by whole lines: a write that fails halfway is taken back."""

    def __init__(self, files: Files, path: str) -> None:
        self._files, self._path = files, path
        self._handle = files.append_to(path)
        self._size = files.size(self._handle)
        self._lock = threading.Lock()
        self.broken = False

    @property
    def handle(self) -> int:
        return self._handle

    def append(self, data: bytes) -> None:
        with self._lock:
            if self.broken:
                raise StorageError(f"{self._path} cannot be written to any more")
            if not self._files.is_at(self._handle, self._path, self._size):
                raise StorageError(
                    f"{self._path} was changed, moved or cut by somebody else; the run stops before more"
                )
            try:
                self._files.write(self._handle, data)
            except OSError:
                self.cut(self._size)
                raise
            self._size += len(data)

    def cut(self, size: int) -> None:
        self.broken = True
        self._files.truncate(self._handle, size)
        self._size, self.broken = size, False

    def sync(self) -> None:
        if self.broken:
            raise StorageError(f"{self._path} cannot be trusted any more")
        try:
            self._files.sync(self._handle)
        except OSError:
            self.broken = True
            raise

    def close(self) -> None:
        self._files.close(self._handle)


class Folder(Records):
    """An output folder that this process alone writes to, or a shard's part of it; `load` comes first."""

    def __init__(self, files: Files, shard: Shard | None = None) -> None:
        super().__init__(files, shard)
        for path in (PRIVATE, self.own.tmp, IMAGES):
            files.make_dir(path)
        self._entries = _Appender(files, self.own.log)
        self._attempts = _Appender(files, self.own.attempts)
        files.sync_dir(".")
        files.sync_dir(PRIVATE)
        self.notices: list[str] = []

    def load(self) -> None:
        """Read what earlier runs left, mend torn tails, adopt whole pictures whose log line was lost.

        Raises UsageError where a file is damaged before its tail: to skip a line could mean to pay again.
        """
        self._read_earlier()
        self._add_entry = self._open_log(self.own.log, self._entries.handle).add
        self._read(self._entries, self.own.log, self._add_entry)
        self._read_beside()
        self._read(self._attempts, self.own.attempts, self._add_note)
        self._keep_what_was_read()
        shard = self.own.shard
        for (job, _), line in list(self.lives.prepared.items()):
            if shard is None or holds(shard, job):
                self._adopt(line)
        # What an earlier run left may still be adopted by another shard.
        for books in (self.own, *(self.earlier if shard is None else ())):
            self._sweep(books.tmp)
        if shard is None:
            self._sweep(STAGED)

    def _keep_what_was_read(self) -> None:
        """What others wrote who may have died before a sync: this process goes by it, and never syncs it otherwise."""
        for path in (path for books in self.earlier for path in (books.log, books.attempts)):
            if self.files.size_of(path) is not None:
                handle = self.files.open(path)
                try:
                    self.files.sync(handle)
                finally:
                    self.files.close(handle)

    def _sweep(self, tmp: str) -> None:
        for name in names(self.files, tmp):
            if self.files.size_of(f"{tmp}/{name}") != -1:
                self.files.remove(f"{tmp}/{name}")

    def catch_up(self) -> None:
        """Nobody else logs while this process holds the folder."""

    def _read(self, file: _Appender, path: str, add: Callable[[bytes, int], None]) -> None:
        good = fold_lines(lines(self.files, file.handle), path, add)
        if tail := self.files.read_at(file.handle, good, _MAX_TAIL_BYTES):
            torn = self.files.append_to(f"{PRIVATE}/{PurePosixPath(path).name}.torn")
            self.files.write(torn, tail + b"\n")
            self.files.close(torn)
            file.cut(good)
            self.notices.append(f"{path} ended in a half-written line ({len(tail)} bytes); it was cut off")

    def _adopt(self, line: bytes) -> None:
        seen = joblog.decode_seen(line)
        found: list[str] = []
        for picture in seen.images:
            if (at := self._find(picture, found)) is None:
                return
            found.append(at)
        if not found:
            return
        for place, picture in zip(found, seen.images, strict=True):
            parent = str(PurePosixPath(picture.file).parent)
            if place != picture.file:
                self.make_way(seen.job, [picture.file])
                self.files.make_dir(parent)
                self.files.rename(place, picture.file)
            self.files.sync_dir(parent)
        self._entries.append(line)
        self._entries.sync()
        self._add_entry(line, self.files.size(self._entries.handle) - len(line))
        self.lives.forget(seen.job, seen.fingerprint)
        self.notices.append(f"job {seen.job!r}: its finished picture had lost its log line and was adopted")

    def _find(self, picture: SeenPicture, taken: Container[str]) -> str | None:
        """Where the picture's bytes are: under their final name, or still under a temporary one that is not `taken`."""
        folders = [*(books.tmp for books in (self.own, *self.earlier)), STAGED]
        drafts = [f"{tmp}/{n}" for tmp in folders for n in names(self.files, tmp) if n.startswith(picture.sha256[:32])]
        for place in (picture.file, *drafts):
            if (
                place not in taken
                and self.files.size_of(place) == picture.size_bytes
                and self.files.sha256(place) == picture.sha256
            ):
                return place
        return None

    def append_attempts(self, data: bytes) -> None:
        self._attempts.append(data)

    def sync_attempts(self) -> None:
        self._attempts.sync()

    def append_log(self, data: bytes) -> None:
        self._entries.append(data)

    def sync_log(self) -> None:
        self._entries.sync()

    def make_way(self, job: str, files: Iterable[str]) -> None:
        """Move the job's older pictures, and whatever else bears one of the names `files`, to `superseded/`.

        They were paid for: nothing is overwritten and nothing deleted. Durable when the caller syncs the folders.
        """
        for row in self.fold.rows(job):
            if row.outcome is Outcome.DONE:
                seen = self.seen(row.offset)
                for picture in seen.images:
                    if self.in_place(seen, picture, rivals=True):
                        self._move(picture.file, superseded(picture.file, seen.fingerprint, picture.sha256))
        for file in files:
            size = self.files.size_of(file)
            if size == -1:
                raise StorageError(f"{file} is not a regular file; move it away and run again")
            if size is not None:
                self._move(file, superseded(file, FOREIGN_FINGERPRINT, self.files.sha256(file)))

    def set_aside(self, file: str, name: str) -> str:
        """Move a file to `name` in `superseded/`, or to a copy's name where that is taken; the name it got."""
        new, number = name, 2
        while self.files.size_of(new) is not None:
            new, number = copy_of(name, number), number + 1
        self._move(file, new)
        return new

    def _move(self, old: str, new: str) -> None:
        parents = [str(PurePosixPath(path).parent) for path in (new, old)]
        self.files.make_dir(parents[0])
        self.files.rename(old, new)
        for parent in parents:
            self.files.sync_dir(parent)

    def restore(self, job: Job, again: Callable[[Entry], Entry]) -> None:
        """Bring the job's superseded pictures back under their names; the log says so with `again(entry)`."""
        entry = self.entry(job.id, job.fingerprint)
        assert entry is not None
        seen = self.seen(self.fold.row(job.id, job.fingerprint).offset)  # type: ignore[union-attr]
        away = [picture for picture in seen.images if self.is_away(seen, picture)]
        self.make_way(job.id, [picture.file for picture in away])
        for picture in away:
            self._move(superseded(picture.file, seen.fingerprint, picture.sha256), picture.file)
        line = joblog.encode(again(entry))
        self._entries.append(line)
        self._entries.sync()
        self._add_entry(line, self.files.size(self._entries.handle) - len(line))

    def note_pace(self, note: PaceNote) -> None:
        """Keep a change of pace and its reason. A note that cannot be written is no reason to stop."""
        line = msgspec.json.encode(note) + b"\n"
        with contextlib.suppress(OSError):
            handle = self.files.append_to(self.own.pace)
            try:
                self.files.write(handle, line)
            finally:
                self.files.close(handle)

    def quarantine(self, job: str, n: int, body: bytes) -> None:
        """Keep (the first MiB of) an answer that was paid for and is of no use, for whoever wants to know why."""
        self.files.make_dir(QUARANTINE)
        flat = job.replace("/", "~")
        if len(flat.encode()) > _LONG_NAME:
            digest = hashlib.blake2b(job.encode(), digest_size=8).hexdigest()[:15]
            flat = f"{flat.encode()[:_LONG_NAME].decode(errors='ignore')}~{digest}"
        name = f"{QUARANTINE}/{flat}~{n}.body"
        if self.files.size_of(name) is None:
            handle = self.files.create(name)
            try:
                self.files.write(handle, body[:_QUARANTINE_BYTES])
            finally:
                self.files.close(handle)

    def write_whole(self, path: str, data: bytes) -> None:
        """Replace a small file atomically and durably."""
        draft = f"{self.own.tmp}/{PurePosixPath(path).name}"
        if self.files.size_of(draft) is not None:
            self.files.remove(draft)
        handle = self.files.create(draft)
        try:
            self.files.write(handle, data)
            self.files.sync(handle)
        finally:
            self.files.close(handle)
        self.files.rename(draft, path)
        self.files.sync_dir(str(PurePosixPath(path).parent))

    def write_state(self, state: State) -> None:
        self.write_whole(self.own.state, msgspec.json.format(msgspec.json.encode(state)) + b"\n")

    def compact(self, unfinished: Set[tuple[str, str]]) -> None:
        """At a clean end, keep of the attempts file only what tells of `unfinished` jobs (ids and fingerprints)."""
        lives = Lives(lambda *who: self.last_n(*who) if who in unfinished else 0xFFFF)
        if unfinished:
            fold_lines(lines(self.files, self._attempts.handle), self.own.attempts, lambda line, _: lives.add(line))
        self.write_whole(self.own.attempts, b"".join(map(joblog.encode, lives.ended())))
        old, self._attempts = self._attempts, _Appender(self.files, self.own.attempts)
        old.close()

    def close(self) -> None:
        super().close()
        self._attempts.close()
