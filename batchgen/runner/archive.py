"""An output folder as its readers see it: whose it is, what its logs say, where its pictures are. Reads, and locks."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from batchgen import joblog
from batchgen.files import PosixFiles
from batchgen.folder import Folder, Records, State, exclusive, read_state
from batchgen.layout import PRIVATE, TMP, superseded
from batchgen.model import Entry, Picture, UsageError
from batchgen.runner.session import Session, default_output, open_session
from batchgen.settings import Flags


@dataclass(frozen=True)
class Archive:
    """An output folder, also while a run is at work there: torn tails are left out.

    `swept` temporary files of a run that was cut short were removed where the folder was taken hold of.
    """

    root: Path
    files: PosixFiles
    records: Records
    state: State | None
    swept: int = 0

    @property
    def manifest(self) -> Path | None:
        """The manifest that the folder belongs to; None where it is not in its place any more."""
        found = (self.root / self.state.manifest).resolve() if self.state else None
        return found if found and found.is_file() else None

    @property
    def at_work(self) -> bool:
        """Whether the process that the state names is alive, as far as this machine can tell."""
        state = self.state
        if not state or not state.pid or state.host != socket.gethostname():
            return bool(state and state.pid > 0)
        try:
            os.kill(state.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def session(self, manifest: Path, env: Mapping[str, str]) -> Session:
        """The manifest with what the last run was told of it."""
        flags, state = Flags(manifest, output=self.root), self.state
        if state:
            flags = replace(flags, api=state.api or None, defaults=state.defaults, format=state.format or None)
        return open_session(flags, env)

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


@contextmanager
def records_at(root: Path) -> Iterator[Records | None]:
    """The folder as it is now; None where there is none."""
    with _reading(root) as found:
        yield found[1] if found else None


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
            raise _untouched(root)
        yield Archive(root, *found, read_state(found[0]))


@contextmanager
def hold_archive(path: Path) -> Iterator[tuple[Archive, Folder]]:
    """As `open_archive`, and the same folder to move files in: mended as a run would, and locked for all others.

    Raises FolderBusy where somebody is at work there.
    """
    root = _there(path)
    if not (root / PRIVATE).is_dir():
        raise _untouched(root)
    with exclusive(root), _files(root) as files, closing(Folder(files)) as folder:
        leftovers = len(files.names(TMP))
        folder.load()
        yield Archive(root, files, folder, read_state(files), leftovers), folder


def _there(path: Path) -> Path:
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder or manifest")
    return root_of(path)


def _untouched(root: Path) -> UsageError:
    return UsageError(f"{root}: no run has been here yet; start one with: batchgen run MANIFEST")


@contextmanager
def _files(root: Path) -> Iterator[PosixFiles]:
    files = PosixFiles(root)
    try:
        yield files
    finally:
        files.close_root()


@contextmanager
def _reading(root: Path) -> Iterator[tuple[PosixFiles, Records] | None]:
    if not (root / PRIVATE).is_dir():
        yield None
        return
    with _files(root) as files, closing(Records(files)) as records:
        records.load()
        yield files, records
