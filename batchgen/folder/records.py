"""What earlier runs left in an output folder, read and never changed: log, attempts, pictures, state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import msgspec

from batchgen import joblog
from batchgen.folder.live import Live
from batchgen.joblog import Fold, Lives, Seen, SeenPicture
from batchgen.layout import ATTEMPTS, LOG, STATE, superseded
from batchgen.model import Entry, Job, Outcome, Standing, UsageError
from batchgen.world import Files

_CHUNK_BYTES = 1 << 18
_LINE_BYTES = 4096


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the folder remembers beside its log: whose pictures these are, and who is or was at work.

    `defaults` are the FIELD=VALUE defaults of the last run, without which its jobs would look like others; `format` is
    how its manifest was read; `logged` is how many jobs its log knew. `process` tells the process from later ones with
    its number. How the last run ended, also one that could not begin, is in `exit_code` and `verdict`.
    """

    manifest: str
    api: str = ""
    defaults: tuple[str, ...] = ()
    format: str = ""
    logged: int = 0
    run: str = ""
    pid: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    host: str = ""
    started_at: str = ""
    heartbeat_at: str = ""
    doing: str = ""
    process: str = ""
    live: Live | None = None
    exit_code: int | None = None
    verdict: str = ""


class Records:
    """The folder as a reader sees it, also while a run is at work; torn tails are left out."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.fold = Fold()
        self.lives = Lives(self.last_n)
        self._log: int | None = None

    @property
    def has_log(self) -> bool:
        return self._log is not None

    def load(self) -> None:
        """Read the log and the attempts file.

        Raises UsageError where one is damaged before its tail: to skip a line could mean to pay again.
        """
        for path, add in ((LOG, self.fold.add), (ATTEMPTS, self._add_note)):
            if self.files.size_of(path) is None:
                continue
            handle = self.files.open(path)
            fold_lines(lines(self.files, handle), path, add)
            if path == LOG:
                self._log = handle
            else:
                self.files.close(handle)

    def _add_note(self, line: bytes, offset: int) -> None:
        self.lives.add(line)

    def last_n(self, job: str, fingerprint: str) -> int:
        """The number of the job's last attempt that the log tells; 0 for none."""
        row = self.fold.row(job, fingerprint)
        return row.last_n if row else 0

    def standing(self, job: Job) -> Standing:
        """Where the job stands by the log and by what is on the disk."""
        row = self.fold.row(job.id, job.fingerprint)
        if row is None:
            return Standing.CHANGED if self.fold.rows(job.id) else Standing.PENDING
        if row.outcome is not Outcome.DONE:
            return Standing(row.outcome.value)
        seen = self.seen(row.offset)
        rivals = self.fold.has_rivals(job.id)
        here = [self.in_place(seen, picture, rivals=rivals) for picture in seen.images]
        if all(here):
            return Standing.DONE
        there = all(at or self.is_away(seen, p) for at, p in zip(here, seen.images, strict=True))
        return Standing.SUPERSEDED if there else Standing.MISSING

    def in_place(self, seen: Seen, picture: SeenPicture, *, rivals: bool) -> bool:
        """Whether the entry's picture bears its final name; with `rivals` another entry's could bear it."""
        if self.files.size_of(picture.file) != picture.size_bytes:
            return False
        return not (rivals and self.is_away(seen, picture))

    def is_away(self, seen: Seen, picture: SeenPicture) -> bool:
        """Whether the entry's picture has been moved to `superseded/`."""
        return self.files.size_of(superseded(picture.file, seen.fingerprint, picture.sha256)) == picture.size_bytes

    def seen(self, offset: int) -> Seen:
        return joblog.decode_seen(self._line(offset))

    def entry(self, job: str, fingerprint: str) -> Entry | None:
        """The whole entry that holds for a job, read back from the log."""
        row = self.fold.row(job, fingerprint)
        return joblog.decode(self._line(row.offset)) if row else None

    def entries(self) -> Iterator[Entry]:
        """The entry that the log holds last for each job, in the order in which it first tells of them."""
        for rows in self.fold.each():
            yield joblog.decode(self._line(max(row.offset for row in rows)))

    def job_entries(self, job: str) -> list[Entry]:
        """The entries that hold for a job, one a fingerprint; the one that the log holds last comes first."""
        offsets = sorted((row.offset for row in self.fold.rows(job)), reverse=True)
        return [joblog.decode(self._line(offset)) for offset in offsets]

    def last_entry(self, job: str) -> Entry | None:
        """The entry that the log holds last for a job, whatever its fingerprint."""
        offset = max((row.offset for row in self.fold.rows(job)), default=None)
        return None if offset is None else joblog.decode(self._line(offset))

    def read_again(self, add: Callable[[bytes], None]) -> None:
        """Feed the good lines of the log to `add`, one by one."""
        if self._log is not None:
            fold_lines(lines(self.files, self._log), LOG, lambda line, _: add(line))

    def orphans(self, ids: Iterable[str]) -> list[str]:
        """The jobs of the log that are not among `ids`; needs about 100 bytes for each job of the log."""
        left = self.fold.keys()
        for job in ids:
            left.discard(joblog.key(job))
        gone: list[str] = []

        def look(line: bytes) -> None:
            job = joblog.decode_seen(line).job
            if (key := joblog.key(job)) in left:
                left.remove(key)
                gone.append(job)

        if left:
            self.read_again(look)
        return gone

    def _line(self, offset: int) -> bytes:
        assert self._log is not None
        size = _LINE_BYTES
        while True:
            data = self.files.read_at(self._log, offset, size)
            end = data.find(b"\n")
            if end >= 0 or len(data) < size:
                return data[: end + 1] or data
            size *= 4

    def close(self) -> None:
        if self._log is not None:
            self.files.close(self._log)
            self._log = None


def read_state(files: Files) -> State | None:
    """The folder's state; None where there is none that can be read."""
    try:
        return msgspec.json.decode(files.read(STATE), type=State)
    except (OSError, *joblog.BAD_LINE):
        return None


def lines(files: Files, handle: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their offsets, in constant memory; the last may lack its newline."""
    offset, rest = 0, b""
    while more := files.read_at(handle, offset + len(rest), _CHUNK_BYTES):
        data, begin = rest + more, 0
        while end := data.find(b"\n", begin) + 1:
            yield offset + begin, data[begin:end]
            begin = end
        rest, offset = data[begin:], offset + begin
    if rest:
        yield offset, rest


def fold_lines(found: Iterable[tuple[int, bytes]], path: str, add: Callable[[bytes, int], None]) -> int:
    """Feed whole lines to `add`; the size up to which the file is good. Damage at its very end is only left out.

    Raises UsageError for damage that good lines follow.
    """
    good, bad = 0, 0
    for number, (offset, line) in enumerate(found, 1):
        try:
            if not line.endswith(b"\n"):
                break
            if not line.isspace():
                add(line, offset)
        except joblog.BAD_LINE:
            bad = bad or number
            continue
        if bad:
            raise UsageError(
                f"{path}:{bad}: this line is damaged and whole lines follow it; to go on without it could mean to pay"
                " again, so mend or remove the line by hand first"
            )
        good = offset + len(line)
    return good
