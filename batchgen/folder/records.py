"""What earlier runs left in an output folder, read and never changed: log, attempts, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from batchgen import joblog
from batchgen.folder.spending import Spending, spending
from batchgen.joblog import Fold, Lives, Row, Seen, SeenPicture
from batchgen.layout import PRIVATE, Books, books_among, superseded
from batchgen.model import Entry, Job, Outcome, Shard, Standing, UsageError
from batchgen.world import Files

_CHUNK_BYTES = 1 << 18
_LINE_BYTES = 4096
_OFFSET_BITS = 44


@dataclass
class _Log:
    """An open log: what folds its lines, and how far that was done."""

    path: str
    handle: int
    add: Callable[[bytes, int], None]
    read_to: int = 0


class Records:
    """The folder as a reader sees it, also while runs are at work; torn tails are left out.

    All logs are folded into one; where a line stands is told by the number of its log and its offset there. A shard
    leaves the attempts of the shards beside it alone: they are of other jobs.
    """

    def __init__(self, files: Files, shard: Shard | None = None) -> None:
        self.files, self.own = files, Books(shard)
        self.fold = Fold()
        self.lives = Lives(self.last_n)
        self._logs: list[_Log] = []
        others = [books for books in known_books(files) if books != self.own]
        self.beside = [books for books in others if shard and books.shard and books.shard.n == shard.n]
        self.earlier = [books for books in others if books not in self.beside]
        self._spent_by: list[tuple[Shard, Spending]] = []
        self._spent_beside = self._spent_earlier = Spending()
        self._jobs_beside = 0

    @property
    def has_log(self) -> bool:
        return bool(self._logs)

    def load(self) -> None:
        """Read the logs and the attempts files.

        Raises UsageError where one is damaged before its tail: to skip a line could mean to pay again.
        """
        self._read_earlier()
        self._read_log(self.own)
        self._read_beside()
        self._read_attempts(self.own)

    def _read_earlier(self) -> None:
        for books in self.earlier:
            self._read_log(books)
        self._spent_earlier = spending(self.fold)

    def _read_beside(self) -> None:
        """The last logs; what earlier attempts came to is told by all of them."""
        spent, jobs = spending(self.fold), self.fold.jobs
        for books in self.beside:
            before = spending(self.fold)
            self._read_log(books)
            assert books.shard is not None
            self._spent_by.append((books.shard, spending(self.fold).less(before)))
        self._spent_beside, self._jobs_beside = spending(self.fold).less(spent), self.fold.jobs - jobs
        for books in self.earlier:
            self._read_attempts(books)

    @property
    def books(self) -> list[Books]:
        """All who wrote here, this one first."""
        return [self.own, *self.earlier, *self.beside]

    @property
    def logged(self) -> int:
        """How many jobs the logs know without those that only shards beside this one know, whose logs may grow."""
        return self.fold.jobs - self._jobs_beside

    @property
    def spent(self) -> Spending:
        """What counts against the limits of a run: all that was ever spent, or a shard's own and its part of what was
        spent before there were shards.
        """
        total = spending(self.fold)
        if self.own.shard is None:
            return total
        own = total.less(self._spent_beside).less(self._spent_earlier)
        return own.plus(self._spent_earlier.part(self.own.shard.n))

    @property
    def spent_beside(self) -> list[tuple[Shard, Spending]]:
        """What counts against the limits of each shard beside this one, as their logs told when they were read."""
        return [(shard, own.plus(self._spent_earlier.part(shard.n))) for shard, own in self._spent_by]

    def _read_log(self, books: Books) -> None:
        if self.files.size_of(books.log) is not None:
            self._fold(self._open_log(books.log, self.files.open(books.log)))

    def _read_attempts(self, books: Books) -> None:
        if self.files.size_of(books.attempts) is not None:
            handle = self.files.open(books.attempts)
            try:
                fold_lines(lines(self.files, handle), books.attempts, self._add_note)
            finally:
                self.files.close(handle)

    def _open_log(self, path: str, handle: int) -> _Log:
        """One more log, whose lines are folded with places of their own."""
        base = len(self._logs) << _OFFSET_BITS
        log = _Log(path, handle, lambda line, offset: self.fold.add(line, base + offset))
        self._logs.append(log)
        return log

    def _fold(self, log: _Log) -> None:
        log.read_to = max(log.read_to, fold_lines(lines(self.files, log.handle, log.read_to), log.path, log.add))

    def catch_up(self) -> None:
        """Take in what runs have logged since `load`; for readers of a folder in which one may be at work."""
        for log in self._logs:
            self._fold(log)

    def leftovers(self) -> list[str]:
        """Temporary files of all who wrote here; while somebody is at work, also those in use."""
        return [f"{books.tmp}/{name}" for books in self.books for name in names(self.files, books.tmp)]

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
        return map(self.at, self.last_offsets())

    def last_offsets(self) -> Iterator[int]:
        """Where the `entries` are."""
        for rows in self.fold.each():
            yield _last(rows)[0].offset

    def at(self, offset: int) -> Entry:
        """The entry whose line begins there."""
        return joblog.decode(self._line(offset))

    def job_entries(self, job: str) -> list[Entry]:
        """The entries that hold for a job, one a fingerprint; the one that the log holds last comes first."""
        return [joblog.decode(self._line(row.offset)) for row in _last(self.fold.rows(job))]

    def last_entry(self, job: str) -> Entry | None:
        """The entry that the log holds last for a job, whatever its fingerprint."""
        return next(iter(self.job_entries(job)), None)

    def read_again(self, add: Callable[[bytes], None]) -> None:
        """Feed the good lines of the log to `add`, one by one."""
        for log in self._logs:
            fold_lines(lines(self.files, log.handle), log.path, lambda line, _: add(line))

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

    def _line(self, place: int) -> bytes:
        log, offset = self._logs[place >> _OFFSET_BITS].handle, place & ((1 << _OFFSET_BITS) - 1)
        size = _LINE_BYTES
        while True:
            data = self.files.read_at(log, offset, size)
            end = data.find(b"\n")
            if end >= 0 or len(data) < size:
                return data[: end + 1] or data
            size *= 4

    def close(self) -> None:
        for log in self._logs:
            self.files.close(log.handle)
        self._logs.clear()


def _last(rows: list[Row]) -> list[Row]:
    """The rows of a job, the last one first: of one log by their places, of several by their times."""
    newest: dict[int, float] = {}
    for row in rows:
        log = row.offset >> _OFFSET_BITS
        newest[log] = max(newest.get(log, row.finished), row.finished)
    return sorted(rows, key=lambda row: (newest[row.offset >> _OFFSET_BITS], row.offset), reverse=True)


def known_books(files: Files) -> list[Books]:
    """The books of all who ever wrote to the folder."""
    return books_among(name for folder in (".", PRIVATE) for name in names(files, folder))


def names(files: Files, folder: str) -> list[str]:
    try:
        return files.names(folder)
    except FileNotFoundError:
        return []


def lines(files: Files, handle: int, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The lines of a file from `offset` with their offsets, in constant memory; the last may lack its newline."""
    rest = b""
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
