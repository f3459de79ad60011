"""An output folder as its readers see it: whose it is, what its logs say, where its pictures are. Reads, and locks."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from batchgen import joblog
from batchgen.address import is_store
from batchgen.files import PosixFiles
from batchgen.flags import Flags
from batchgen.folder import Folder, Records, State, known_books, locked, read_state
from batchgen.joblog import Note, PaceNote
from batchgen.layout import PRIVATE, Books, books_among, superseded
from batchgen.manifest import format_of
from batchgen.model import BatchgenError, Entry, Picture, Shard, UsageError
from batchgen.runner import process
from batchgen.runner.session import Session, default_output, open_session
from batchgen.runner.storage import OutputFiles, files_of
from batchgen.sources import open_manifest
from batchgen.stores import StoreFiles
from batchgen.summary import Summary
from batchgen.world import Files

TAIL_BYTES = 1 << 20
_MOST_NAMED = 10
T = TypeVar("T")


@dataclass(frozen=True)
class Archive:
    """An output folder, also while a run is at work there: torn tails are left out.

    `swept` temporary files of a run that was cut short were removed where the folder was taken hold of.
    """

    root: Path
    files: OutputFiles
    records: Records
    states: tuple[tuple[Books, State], ...]
    swept: int = 0

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
        found = self.manifest_place
        return found if found and found.is_file() else None

    @property
    def manifest_place(self) -> Path | None:
        """Where the last run had its manifest, seen from the folder; None where no run says so."""
        return (self.root / self.state.manifest).resolve() if self.state else None

    @property
    def store(self) -> str | None:
        """The address of the store that holds the pictures; None where they are files of the folder."""
        return self.files.place if isinstance(self.files, StoreFiles) else None

    @property
    def at_work(self) -> bool:
        """Whether a process that a state names is alive, as far as this machine can tell."""
        states = [state for _, state in self.states if state.pid]
        return any(s.host != socket.gethostname() or process.is_there(s.pid, s.process) for s in states)

    def session(self, manifest: Path, env: Mapping[str, str]) -> Session:
        """The manifest with what the last run was told of it."""
        flags, state = Flags(manifest, output=self.root), self.state
        if state:
            flags = replace(flags, api=state.api or None, defaults=state.defaults, format=state.format or None)
        return open_session(flags, env)

    def told(self, manifest: Path) -> str:
        """What `batchgen run` needs to be told to go on here: the manifest, where else than usual things are, and what
        the last run was told that makes its jobs what they are. Paths are absolute if that of the manifest is.
        """
        root = self.root.absolute() if manifest.is_absolute() else self.root
        folder = "" if self.root.resolve() == default_output(manifest).resolve() else str(root)
        said = [("-o", self.store or folder), ("--state", folder if self.store else "")]
        if state := self.state:
            said += [("--api", state.api if state.api != _own_api(manifest, state.format) else "")]
            said += [("--format", state.format if state.format != format_of(manifest.name) else "")]
            said += [("-D", default) for default in state.defaults]
        return shlex.join([str(manifest), *(word for flag, value in said if value for word in (flag, value))])

    def entries(self) -> Iterator[Entry]:
        """The last entry of each job, in the order in which the jobs first ended."""
        return self.records.entries()

    def recent(self) -> list[Recent]:
        """What happened last, by who wrote here."""
        return [Recent(self.records.files, books) for books in self.records.books]

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

    def pace(self) -> list[PaceNote]:
        """The last changes of pace."""
        return self._last(self.books.pace, joblog.decode_pace)

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
def records_at(root: Path, shard: Shard | None = None, env: Mapping[str, str] = os.environ) -> Iterator[Records | None]:
    """The folder as it is now, or as a shard of it sees it; None where there is none. Pictures may be in a store."""
    with _reading(root, shard, env) as found:
        yield found[1] if found else None


def last_change_ns(root: Path) -> int:
    """When a log of the output folder got its last line (nanoseconds since 1970); 0 where there is none."""
    logs = [root / books.log for books in books_among(path.name for path in root.iterdir())]
    return max((log.stat().st_mtime_ns for log in logs), default=0)


def _own_api(manifest: Path, form: str) -> str | None:
    """The API that jobs go to where only the manifest says so; None where it cannot be read."""
    try:
        said = open_manifest(manifest, form or None).header().apis
    except BatchgenError:
        return None
    return said[0].style if said else "nebula"


def root_of(path: Path) -> Path:
    """The output folder `path`, or the one that belongs to the manifest `path`."""
    return path if path.is_dir() else default_output(path)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The output folder `path`, or the one that belongs to the manifest `path`.

    Raises UsageError where no run has been.
    """
    root = _there(path)
    with _reading(root) as found:
        if found is None or not found[1].has_log:
            raise _untouched(path, root)
        yield Archive(root, *found, _states(found[1]))


@contextmanager
def hold_archive(path: Path) -> Iterator[tuple[Archive, Folder]]:
    """As `open_archive`, and the same folder to move files in: mended as a run would, and locked for all others.

    Raises FolderBusy where somebody is at work there.
    """
    root = _there(path)
    if not (root / PRIVATE).is_dir():
        raise _untouched(path, root)
    with locked(root), _files(root) as files, closing(Folder(files)) as folder:
        leftovers = len(folder.leftovers())
        folder.load()
        yield Archive(root, files, folder, _states(folder), leftovers), folder


def _states(records: Records) -> tuple[tuple[Books, State], ...]:
    found = ((books, read_state(records.files, books)) for books in records.books)
    return tuple((books, state) for books, state in found if state)


def _there(path: Path) -> Path:
    if not path.exists():
        where = "; name the local folder of log and state, or the manifest" if is_store(str(path)) else ""
        raise UsageError(f"{path}: there is no such folder or manifest{where}")
    return root_of(path)


def _untouched(path: Path, root: Path) -> UsageError:
    """Names the output folders below or around `path`; where there are none, the command that makes one."""
    within = sorted(str(each.parent) for each in root.glob(f"*/{PRIVATE}")) if root.is_dir() else []
    around = [str(each) for each in path.absolute().parents if (each / PRIVATE).is_dir()]
    if within or around:
        more = ", …" if len(within) > _MOST_NAMED else ""
        return UsageError(f"{path}: no run has been here, but in {', '.join((within or around)[:_MOST_NAMED])}{more}")
    manifest = shlex.quote(str(path)) if path.is_file() else "MANIFEST"
    return UsageError(f"{root}: no run has been here yet; start one with: batchgen run {manifest}")


@contextmanager
def _files(root: Path, env: Mapping[str, str] = os.environ) -> Iterator[OutputFiles]:
    local = PosixFiles(root)
    try:
        yield files_of(local, env)
    finally:
        local.close_root()


@contextmanager
def _reading(
    root: Path, shard: Shard | None = None, env: Mapping[str, str] = os.environ
) -> Iterator[tuple[OutputFiles, Records] | None]:
    if not (root / PRIVATE).is_dir():
        yield None
        return
    with _files(root, env) as files, closing(Records(files, shard)) as records:
        records.load()
        yield files, records
