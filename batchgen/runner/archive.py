"""An output folder as its readers see it: whose it is, what its logs say, where its pictures are. Changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from batchgen import joblog
from batchgen.files import PosixFiles
from batchgen.folder import Records, State, known_books, read_state
from batchgen.joblog import Note
from batchgen.layout import PRIVATE, Books, books_among, superseded
from batchgen.model import Entry, Picture, Shard, UsageError
from batchgen.runner.session import default_output
from batchgen.summary import Summary
from batchgen.world import Files

TAIL_BYTES = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Archive:
    """An output folder, also while a run is at work there: torn tails are left out."""

    root: Path
    records: Records
    states: tuple[tuple[Books, State], ...]

    @property
    def latest(self) -> tuple[Books, State] | None:
        """Who began last, with what it says of itself."""
        return max(self.states, key=lambda each: each[1].started_at, default=None)

    @property
    def state(self) -> State | None:
        return self.latest[1] if self.latest else None

    @property
    def manifest(self) -> Path | None:
        """The manifest that the folder belongs to; None where it is not in its place any more."""
        found = (self.root / self.state.manifest).resolve() if self.state else None
        return found if found and found.is_file() else None

    def entries(self) -> Iterator[Entry]:
        """The last entry of each job, in the order in which the jobs first ended."""
        return self.records.entries()

    def of_job(self, job: str) -> list[Entry]:
        """The entries that hold for a job, one a fingerprint; the one that the log holds last comes first."""
        return self.records.job_entries(job)

    def place_of(self, entry: Entry, picture: Picture) -> str | None:
        """Where a picture of the entry lies now, relative to `root`; None where it is missing."""
        away = superseded(picture.file, entry.fingerprint, picture.sha256)
        places = (place for place in (away, picture.file) if self.records.files.size_of(place) == picture.size_bytes)
        return next(places, None)

    def history(self, add: Callable[[Entry], None], marks: Sequence[bytes] = ()) -> None:
        """Hand every entry of the logs to `add`, earlier ones of the same job among them.

        With `marks` only those whose lines hold one of these, which is many times as fast as to read them all.
        """

        def hear(line: bytes) -> None:
            if not marks or any(mark in line for mark in marks):
                add(joblog.decode(line))

        self.records.read_again(hear)


class PaceChange(msgspec.Struct, frozen=True):
    """A change of pace and its reason, as the run noted it."""

    at: str
    run: str
    message: str


_pace_changes = msgspec.json.Decoder(PaceChange)


@dataclass(frozen=True)
class Recent:
    """The ends of the files of one who writes to a folder: what happened last, cheap to read however long they are."""

    files: Files
    books: Books

    @property
    def state(self) -> State | None:
        return read_state(self.files, self.books)

    def entries(self) -> list[Entry]:
        """The last entries of the logs."""
        return self._last(self.books.log, joblog.decode)

    def notes(self) -> list[Note]:
        """The last intents and ends of attempts."""
        return self._last(self.books.attempts, joblog.decode_note)

    def pace(self) -> list[PaceChange]:
        """The last changes of pace."""
        return self._last(self.books.pace, _pace_changes.decode)

    def summary(self) -> Summary | None:
        """The verdict of the last run that could begin; None where there is none that can be read."""
        try:
            return msgspec.json.decode(self.files.read(self.books.summary), type=Summary)
        except (OSError, *joblog.BAD_LINE):
            return None

    def _last(self, path: str, decode: Callable[[bytes], T]) -> list[T]:
        if not (size_bytes := self.files.size_of(path)) or size_bytes < 0:
            return []
        handle = self.files.open(path)
        try:
            data = self.files.read_at(handle, max(0, size_bytes - TAIL_BYTES), TAIL_BYTES)
        finally:
            self.files.close(handle)
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        found = []
        for line in lines[size_bytes > TAIL_BYTES :]:
            with contextlib.suppress(*joblog.BAD_LINE):
                found.append(decode(line))
        return found


@contextmanager
def recent_at(root: Path) -> Iterator[list[Recent]]:
    """What happened last in the folder, by who wrote there. Raises OSError where there is no such folder."""
    files = PosixFiles(root)
    try:
        yield [Recent(files, books) for books in known_books(files)]
    finally:
        files.close_root()


@contextmanager
def records_at(root: Path, shard: Shard | None = None) -> Iterator[Records | None]:
    """The folder as it is now, or as a shard of it sees it; None where there is none."""
    if not (root / PRIVATE).is_dir():
        yield None
        return
    files = PosixFiles(root)
    records = Records(files, shard)
    try:
        records.load()
        yield records
    finally:
        records.close()
        files.close_root()


def last_change_ns(root: Path) -> int:
    """When a log of the output folder got its last line (nanoseconds since 1970); 0 where there is none."""
    logs = [root / books.log for books in books_among(path.name for path in root.iterdir())]
    return max((log.stat().st_mtime_ns for log in logs), default=0)


def root_of(path: Path) -> Path:
    """The output folder `path`, or the one that belongs to the manifest `path`."""
    return path if path.is_dir() else default_output(path)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The output folder `path`, or the one that belongs to the manifest `path`.

    Raises UsageError where no run has been.
    """
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder or manifest")
    root = root_of(path)
    with records_at(root) as records:
        if records is None or not records.has_log:
            raise UsageError(f"{root}: no run has been here yet; start one with: batchgen run MANIFEST")
        states = ((books, read_state(records.files, books)) for books in records.books)
        yield Archive(root, records, tuple((books, state) for books, state in states if state))
