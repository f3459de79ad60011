"""An output folder as its readers see it: whose it is, what its logs say, where its pictures are. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchgen import joblog
from batchgen.files import PosixFiles
from batchgen.folder import Records, State, read_state
from batchgen.layout import PRIVATE, superseded
from batchgen.model import Entry, Picture, UsageError
from batchgen.runner.session import default_output


@dataclass(frozen=True)
class Archive:
    """An output folder, also while a run is at work there: torn tails are left out."""

    root: Path
    records: Records
    state: State | None

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


@contextmanager
def records_at(root: Path) -> Iterator[Records | None]:
    """The folder as it is now; None where there is none."""
    if not (root / PRIVATE).is_dir():
        yield None
        return
    files = PosixFiles(root)
    records = Records(files)
    try:
        records.load()
        yield records
    finally:
        records.close()
        files.close_root()


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
        yield Archive(root, records, read_state(records.files))
