"""Goes through the files of an output folder and holds them against its log; moves what it is told to, deletes nothing.

Before anything is called wrong, what a run may have logged meanwhile is read: the look is right beside a run at work.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.folder import Folder
from batchgen.joblog import Row, Seen, SeenPicture
from batchgen.layout import (
    FOREIGN_FINGERPRINT,
    IMAGES,
    SUPERSEDED,
    UNKNOWN_SHA256,
    job_of,
    promised_sha8,
    renamed,
    superseded,
)
from batchgen.model import Job, Outcome, StorageError, UsageError
from batchgen.runner import pictures
from batchgen.runner.archive import Archive, hold_archive, open_archive
from batchgen.runner.pictures import Sight, ahead, look_named, sha256_of
from batchgen.text import counted
from batchgen.verify import SHOWN, Finding, Findings, Kind, Verification, exit_code, next_steps

if TYPE_CHECKING:
    from batchgen.progress import Meter

# A file system may stamp a file with the time of its last tick, and a server's clock may be behind.
_SLACK_S = 5.0


@dataclass(frozen=True)
class Wish:
    """What was asked for: sizes only, damaged pictures moved aside so that they are made again, orphans moved aside."""

    quick: bool = False
    requeue: bool = False
    tidy: bool = False
    shown: int = SHOWN


def verify(path: Path, env: Mapping[str, str], wish: Wish, meter: Meter) -> Verification:
    """Hold the output folder `path`, or the one that belongs to the manifest `path`, against its log.

    Raises FolderBusy where files are to be moved and a run is at work, and StorageError where that fails.
    """
    since_s = time.time()
    try:
        with ExitStack() as stack:
            folder: Folder | None = None
            if wish.requeue or wish.tidy:
                archive, folder = stack.enter_context(hold_archive(path))
            else:
                archive = stack.enter_context(open_archive(path))
                archive.records.catch_up()
            stack.callback(meter.close)
            manifest = path if path.is_file() else archive.manifest
            return _Look(archive, folder, wish, meter, since_s).all(manifest, env)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror or error}") from error


@dataclass
class _Look:
    """One look over a folder; `folder` is there where files may be moved."""

    archive: Archive
    folder: Folder | None
    wish: Wish
    meter: Meter
    since_s: float
    findings: Findings = field(default_factory=Findings)
    sums: Counter[str] = field(default_factory=Counter)
    lost: set[str] = field(default_factory=set)
    passing: set[str] = field(default_factory=set)
    gone: set[str] | None = None
    notices: list[str] = field(default_factory=list)

    def all(self, manifest: Path | None, env: Mapping[str, str]) -> Verification:
        archive, at_work = self.archive, self.folder is None and self.archive.at_work
        self.findings.shown = self.wish.shown
        self.since_s -= _SLACK_S if at_work else 0.0
        if self.folder:
            self.notices += self.folder.notices
            if archive.swept:
                self.notices.append(f"{counted(archive.swept, 'leftover')} of a run that was cut short swept up")
        self._find_gone(manifest, env)
        self._pictures()
        self._strangers()
        self._superseded()
        had, name = self.sums["jobs"], archive.told(manifest) if manifest else "MANIFEST"
        self.notices += next_steps(len(self.lost), len(self.passing - self.lost), had, name)
        return Verification(
            output=str(archive.root),
            manifest=str(manifest) if manifest else None,
            quick=self.wish.quick,
            at_work=at_work,
            jobs=had,
            pictures=self.sums["pictures"],
            size_bytes=self.sums["size_bytes"],
            set_aside=self.sums["set_aside"],
            superseded=self.sums["superseded"],
            unsettled=self.sums["unsettled"],
            leftovers=0 if at_work else len(archive.records.leftovers()),
            jobs_gone=None if self.gone is None else len(self.gone),
            to_make=len(self.lost),
            counts={str(kind): self.findings.counts[kind] for kind in Kind},
            findings=self.findings.kept,
            notices=self.notices,
            exit_code=exit_code(self.findings),
        )

    def _find_gone(self, manifest: Path | None, env: Mapping[str, str]) -> None:
        """The jobs of the log that are no longer in the manifest, where it can be read."""
        if manifest is None:
            place = f"at {self.archive.manifest_place}" if self.archive.manifest_place else "where it was"
            self.notices.append(f"the manifest is not {place}: which jobs have left it is not known")
            return
        try:
            self.gone = set(self.archive.records.orphans(self._ids(manifest, env)))
        except UsageError as error:
            first = str(error).partition("\n")[0]
            self.notices.append(f"which jobs have left the manifest is not known: {first}")

    def _ids(self, manifest: Path, env: Mapping[str, str]) -> Iterator[str]:
        for job in self.archive.session(manifest, env).jobs():
            if not isinstance(job, Job):
                raise UsageError(str(job))
            yield job.id

    # The pictures that the log tells of

    def _pictures(self) -> None:
        rows = map(_held, self.archive.records.fold.each())
        offsets = array("q", (row.offset for row in rows if row))
        self.meter.expect(len(offsets))

        def wanted() -> Iterator[tuple[int, Seen, SeenPicture]]:
            for offset in offsets:
                seen = self.archive.records.seen(offset)
                self.sums["jobs"] += not self._has_left(seen.job)
                self.meter.tick()
                yield from ((offset, seen, picture) for picture in seen.images)

        files, quick = self.archive.files, self.wish.quick
        for (offset, seen, picture), sight in ahead(lambda item: pictures.look(files, item[2], quick=quick), wanted()):
            if self._has_left(seen.job):
                self._left(seen, picture, sight)
                continue
            self.sums["pictures"] += 1
            self.sums["size_bytes"] += picture.size_bytes
            if sight.kind:
                self._odd(offset, seen, picture)

    def _has_left(self, job: str) -> bool:
        return self.gone is not None and job in self.gone

    def _left(self, seen: Seen, picture: SeenPicture, sight: Sight) -> None:
        """A picture whose job has left the manifest: an orphan if it is there, and else missed by nobody."""
        if sight.kind is Kind.MISSING:
            self.sums["set_aside"] += self.archive.records.is_away(seen, picture)
        elif sight.kind:
            self._orphan(picture.file, seen.job, "its job is no longer in the manifest, and it is not as the log says")
        else:
            name = superseded(picture.file, seen.fingerprint, picture.sha256)
            self._orphan(picture.file, seen.job, "its job is no longer in the manifest", name)

    def _odd(self, offset: int, seen: Seen, picture: SeenPicture) -> None:
        """A picture that was not as the log says: look again, with what has been logged since."""
        records = self.archive.records
        records.catch_up()
        held = _held(records.fold.rows(seen.job))
        if held is None or held.offset != offset or self._is_prepared(seen.job):
            self.sums["unsettled"] += 1
            return
        sight = pictures.look(self.archive.files, picture, quick=self.wish.quick)
        if sight.kind is None:
            return
        if records.is_away(seen, picture):
            self.sums["set_aside"] += 1
            if sight.kind is not Kind.MISSING:
                self._orphan(picture.file, seen.job, "is not the picture of its job, which waits in superseded/")
            return
        moved_to = None
        # A run looks at sizes only: it makes again what is missing or has another size, the rest would pass for done.
        passes = self.archive.files.size_of(picture.file) == picture.size_bytes
        inside = ".." not in picture.file.split("/")
        if self.folder and self.wish.requeue and sight.kind is not Kind.MISSING and inside:
            name = superseded(picture.file, FOREIGN_FINGERPRINT, sight.sha256 or UNKNOWN_SHA256)
            moved_to = self.folder.set_aside(picture.file, name)
            passes = False
        (self.passing if passes else self.lost).add(seen.job)
        self.findings.add(Finding(sight.kind, picture.file, seen.job, sight.what, moved_to))

    # Files that the log does not tell of

    def _strangers(self) -> None:
        for file in pictures.walk(self.archive.files, self.archive.root, IMAGES):
            job = job_of(file)
            if self._explained(file, job):
                continue
            self.archive.records.catch_up()
            if self._explained(file, job):
                continue
            if self._is_new(file) or self._is_prepared(job):
                self.sums["unsettled"] += 1
            elif earlier := self._earlier(file, job):
                self._orphan(file, job, "an earlier picture of its job, left behind", earlier)
            else:
                self._orphan(file, None, "no line of the log tells of it")

    def _explained(self, file: str, job: str) -> bool:
        """Whether the entry that holds for the job has a picture of this name."""
        held = _held(self.archive.records.fold.rows(job)) if _is_text(job) else None
        return held is not None and any(p.file == file for p in self.archive.records.seen(held.offset).images)

    def _earlier(self, file: str, job: str) -> str | None:
        """The name in `superseded/` for a file that is a picture of an entry that does not hold any more."""
        for row in self.archive.records.fold.rows(job) if _is_text(job) else ():
            seen = self.archive.records.seen(row.offset)
            for picture in seen.images:
                if picture.file == file and pictures.look(self.archive.files, picture).kind is None:
                    return superseded(file, seen.fingerprint, picture.sha256)
        return None

    def _is_new(self, file: str) -> bool:
        changed_s = pictures.changed_s(self.archive.files, file)
        return changed_s is None or changed_s >= self.since_s

    def _is_prepared(self, job: str) -> bool:
        """Whether a picture of the job may just be getting its name, or will be adopted by the next run."""
        return self.folder is None and any(name == job for name, _ in self.archive.records.lives.prepared)

    def _orphan(self, file: str, job: str | None, what: str, name: str | None = None) -> None:
        moved_to, size = None, self.archive.files.size_of(file)
        if size == -1:
            what += "; it is no regular file, and is left where it is"
        elif self.folder and self.wish.tidy:
            name = name or superseded(file, FOREIGN_FINGERPRINT, self._digest(file))
            moved_to = self.folder.set_aside(file, name)
        self.findings.add(Finding(Kind.ORPHANED, file, job, what, moved_to))

    def _digest(self, file: str) -> str:
        try:
            return sha256_of(self.archive.files, file)
        except OSError:
            return UNKNOWN_SHA256

    # What lies in superseded/

    def _superseded(self) -> None:
        files = self.archive.files

        def work(file: str) -> Sight:
            sha8 = None if self.wish.quick else promised_sha8(file)
            return look_named(files, file, sha8) if sha8 else Sight()

        damaged = []
        for file, sight in ahead(work, pictures.walk(self.archive.files, self.archive.root, SUPERSEDED)):
            self.sums["superseded"] += 1
            if sight.kind and not (self._is_new(file) and not self.folder):
                damaged.append((file, sight.kind, sight))
        for file, kind, sight in damaged:
            moved_to = None
            if self.folder and self.wish.requeue:
                # Under its old name it could be brought back for the picture that it was.
                moved_to = self.folder.set_aside(file, renamed(file, sight.sha256 or UNKNOWN_SHA256))
            self.findings.add(Finding(kind, file, None, sight.what, moved_to))


def _held(rows: list[Row]) -> Row | None:
    """The entry whose pictures bear their names: the last that is done, also where a changed job has failed since."""
    return max((row for row in rows if row.outcome is Outcome.DONE), key=lambda row: row.offset, default=None)


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\udc80" <= char <= "\udcff" for char in name)
