"""The lines of the two files that are the truth: the job log (finished jobs) and the attempts file (what was sent).

A line and the value it stands for, both ways, and what many lines add up to. Nothing here opens a file: readers hand in
lines with their offsets. Folding ignores order, so files may be concatenated.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import overload

import msgspec

from batchgen.model import Attempt, Billed, Counts, Entry, Failure, Job, Outcome, Picture, Timings

_RANK = (Outcome.UNCERTAIN, Outcome.FAILED, Outcome.DONE)


class Intent(msgspec.Struct, frozen=True, tag="intent", tag_field="type", omit_defaults=True):
    """A request is about to leave; written first, so that a crash cannot hide that it may have been paid for."""

    job: str
    fingerprint: str
    n: int
    at: str
    run: str
    price_usd: float | None = None


class Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="type", omit_defaults=True):
    """How an attempt without a picture ended."""

    job: str
    fingerprint: str
    attempt: Attempt
    price_usd: float | None = None


class Prepared(msgspec.Struct, frozen=True, tag="prepared", tag_field="type"):
    """The entry of a job whose pictures are about to get their final names; `entry` is the log line to be."""

    job: str
    fingerprint: str
    entry: msgspec.Raw


Note = Intent | Ended | Prepared


class SeenAttempt(msgspec.Struct, frozen=True):
    """What folding needs of an entry's attempt."""

    n: int
    at: str


class SeenPicture(msgspec.Struct, frozen=True):
    """What finding a picture needs of an entry."""

    file: str
    index: int
    size_bytes: int
    sha256: str


class Seen(msgspec.Struct, frozen=True):
    """What folding needs of an entry; the rest of the line is skipped unread."""

    job: str
    fingerprint: str
    outcome: Outcome
    finished_at: str
    api: str = ""
    attempts: tuple[SeenAttempt, ...] = ()
    images: tuple[SeenPicture, ...] = ()
    cost_usd: float | None = None
    exposure_usd: float | None = None


_encoder = msgspec.json.Encoder()
_entries = msgspec.json.Decoder(Entry)
_seen = msgspec.json.Decoder(Seen)
_notes: msgspec.json.Decoder[Note] = msgspec.json.Decoder(Note)
BAD_LINE = (msgspec.MsgspecError, ValueError, RecursionError)


def encode(value: Entry | Note) -> bytes:
    """One physical line: the line separators that JSON allows inside text are escaped."""
    line = _encoder.encode(value)
    return line.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029") + b"\n"


def decode(line: bytes) -> Entry:
    """The entry on a line. Raises one of BAD_LINE."""
    return _entries.decode(line)


def decode_seen(line: bytes) -> Seen:
    return _seen.decode(line)


def decode_note(line: bytes) -> Note:
    return _notes.decode(line)


def prepared(entry: Entry, line: bytes) -> bytes:
    """The attempts-file line that holds `line`, the log line of `entry`."""
    return encode(Prepared(entry.job, entry.fingerprint, msgspec.Raw(line.rstrip(b"\n"))))


@dataclass(frozen=True)
class Saved:
    """The pictures of a job as they were written, and how long that took in seconds."""

    pictures: tuple[Picture, ...] = ()
    decode_s: float = 0.0
    save_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """All that is known of a job before its pictures are written: everything of its entry but how it ended.

    `ready_s` is the monotonic time from which `total_s` counts; `price_usd` is what one picture costs.
    """

    job: Job
    run: str
    manifest: str
    api: str
    attempts: tuple[Attempt, ...]
    ready_s: float
    queued_s: float = 0.0
    waited_s: float = 0.0
    first_byte_s: float | None = None
    response_s: float | None = None
    price_usd: float | None = None

    def entry(self, outcome: Outcome, saved: Saved, now_s: float, utc: datetime) -> Entry:
        """The finished job's entry at the monotonic time `now_s`."""
        job, pictures = self.job, saved.pictures
        seconds = [p.inference_s for p in pictures if p.inference_s is not None]
        billed = {attempt.billed for attempt in self.attempts}
        certain = sum(a.billed is Billed.YES for a in self.attempts) + max(len(pictures) - 1, 0)
        possible = sum(a.billed is Billed.MAYBE for a in self.attempts)
        return Entry(
            job=job.id,
            fingerprint=job.fingerprint,
            outcome=outcome,
            run=self.run,
            manifest=self.manifest,
            line=job.line,
            api=self.api,
            model=job.model,
            request=job.request,
            meta=job.meta,
            images=pictures,
            inference_s=max(seconds) if seconds else None,
            timings=Timings(
                queued_s=_rounded(self.queued_s),
                waited_s=_rounded(self.waited_s),
                first_byte_s=_rounded(self.first_byte_s),
                response_s=_rounded(self.response_s),
                decode_s=_rounded(saved.decode_s),
                save_s=_rounded(saved.save_s),
                total_s=_rounded(now_s - self.ready_s),
            ),
            attempts=self.attempts,
            cost_usd=None if self.price_usd is None else round(certain * self.price_usd, 6),
            exposure_usd=None if self.price_usd is None else round(possible * self.price_usd, 6),
            billed=next(b for b in (Billed.YES, Billed.MAYBE, Billed.NO) if b in billed or b is Billed.NO),
            finished_at=timestamp(utc),
            notes=saved.notes,
        )


@overload
def _rounded(seconds: float) -> float: ...
@overload
def _rounded(seconds: float | None) -> float | None: ...
def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, round(seconds, 6))


def timestamp(utc: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`."""
    return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03d}Z"


def key(*parts: str) -> int:
    """A 60-bit hash: the size at which a Python int is still small."""
    digest = blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 4


class Row(msgspec.Struct, frozen=True):
    """The best entry for one job and fingerprint: `offset` is where its line begins, `last_n` its last attempt."""

    outcome: Outcome
    offset: int
    last_n: int


@dataclass
class Fold:
    """What the job log says, in about 170 bytes a job: for each job and fingerprint the entry that holds, and sums.

    A done entry beats the others; among equals the one finished last. Identities are 60-bit hashes.
    """

    requests: int = 0
    spent_usd: float = 0.0
    exposure_usd: float = 0.0
    bought: bool = False
    drawn: bool = False
    requests_by_day: dict[str, int] = field(default_factory=dict)
    _rows: dict[int, int] = field(default_factory=dict)
    _latest: dict[int, int] = field(default_factory=dict)
    _earlier: array[int] = field(default_factory=lambda: array("q"))
    _offsets: array[int] = field(default_factory=lambda: array("q"))
    _finished: array[int] = field(default_factory=lambda: array("q"))
    _last_n: array[int] = field(default_factory=lambda: array("H"))
    _ranks: bytearray = field(default_factory=bytearray)

    def add(self, line: bytes, offset: int) -> None:
        """Take in one line that begins at `offset`. Raises one of BAD_LINE for a damaged one."""
        seen = decode_seen(line)
        self.requests += len(seen.attempts)
        for attempt in seen.attempts:
            self.requests_by_day[attempt.at[:10]] = self.requests_by_day.get(attempt.at[:10], 0) + 1
        self.spent_usd += seen.cost_usd or 0.0
        self.exposure_usd += seen.exposure_usd or 0.0
        if seen.outcome is Outcome.DONE:
            self.drawn |= seen.api == "sandbox"
            self.bought |= seen.api != "sandbox"
        self._place(seen, offset)

    def _place(self, seen: Seen, offset: int) -> None:
        rank = _RANK.index(seen.outcome)
        finished = int("0" + "".join(filter(str.isdigit, seen.finished_at))[:17])
        last_n = min(max((a.n for a in seen.attempts), default=0), 0xFFFF)
        job, both = key(seen.job), key(seen.job, seen.fingerprint)
        row = self._rows.get(both)
        if row is None:
            self._rows[both] = len(self._ranks)
            self._earlier.append(self._latest.get(job, -1))
            self._latest[job] = len(self._ranks)
            self._offsets.append(offset)
            self._finished.append(finished)
            self._last_n.append(last_n)
            self._ranks.append(rank)
            return
        self._last_n[row] = max(last_n, self._last_n[row])
        if (rank, finished) >= (self._ranks[row], self._finished[row]):
            self._ranks[row], self._finished[row], self._offsets[row] = rank, finished, offset

    def row(self, job: str, fingerprint: str) -> Row | None:
        number = self._rows.get(key(job, fingerprint))
        return None if number is None else self._row(number)

    def rows(self, job: str) -> list[Row]:
        """All that is known of a job, whatever its fingerprint."""
        found, number = [], self._latest.get(key(job), -1)
        while number >= 0:
            found.append(self._row(number))
            number = self._earlier[number]
        return found

    def _row(self, number: int) -> Row:
        return Row(_RANK[self._ranks[number]], self._offsets[number], self._last_n[number])

    @property
    def jobs(self) -> int:
        """How many different jobs the log knows."""
        return len(self._latest)

    def counts(self) -> dict[Outcome, int]:
        """How many jobs ended how, each by its best entry; for readers without a manifest."""
        best: dict[int, int] = {}
        for number in self._latest.values():
            rank, at = 0, number
            while at >= 0:
                rank, at = max(rank, self._ranks[at]), self._earlier[at]
            best[rank] = best.get(rank, 0) + 1
        return {outcome: best.get(rank, 0) for rank, outcome in enumerate(_RANK)}


@dataclass
class Lives:
    """The attempts of jobs that are not finished, from the attempts file, after the log has been folded.

    `last_n` answers how far the log already tells a job's attempts.
    """

    last_n: Callable[[str, str], int]
    prepared: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _attempts: dict[tuple[str, str], dict[int, Ended]] = field(default_factory=dict)

    def add(self, line: bytes) -> None:
        """Take in one line. Raises one of BAD_LINE for a damaged one."""
        note = decode_note(line)
        who = (note.job, note.fingerprint)
        if isinstance(note, Prepared):
            if max((a.n for a in decode_seen(note.entry).attempts), default=0) > self.last_n(*who):
                self.prepared[who] = bytes(note.entry) + b"\n"
            return
        ended = note if isinstance(note, Ended) else _in_doubt(note)
        if ended.attempt.n <= self.last_n(*who):
            return
        life = self._attempts.setdefault(who, {})
        if ended.attempt.n not in life or isinstance(note, Ended):
            life[ended.attempt.n] = ended

    def of(self, job: str, fingerprint: str) -> tuple[Attempt, ...]:
        """A job's attempts so far, in order; one whose end is not known has failure `in_doubt`."""
        life = self._attempts.get((job, fingerprint), {})
        return tuple(life[n].attempt for n in sorted(life))

    def forget(self, job: str, fingerprint: str) -> None:
        """The job is finished: its entry tells its attempts from now on."""
        self._attempts.pop((job, fingerprint), None)
        self.prepared.pop((job, fingerprint), None)

    def ended(self) -> list[Ended]:
        """All attempts of unfinished jobs, as the lines of a compacted file."""
        return [life[n] for life in self._attempts.values() for n in sorted(life)]

    def exposure_usd(self) -> float:
        """What unfinished jobs may have cost."""
        return sum(e.price_usd or 0.0 for e in self.ended() if e.attempt.billed is not Billed.NO)

    def doubtful(self) -> int:
        """How many jobs' last attempt may have been paid without an answer."""
        return sum(life[max(life)].attempt.failure is Failure.IN_DOUBT for life in self._attempts.values())


def _in_doubt(intent: Intent) -> Ended:
    attempt = Attempt(
        intent.n, intent.at, 0.0, Billed.MAYBE, failure=Failure.IN_DOUBT, message="no end is known", counts=Counts.DOUBT
    )
    return Ended(intent.job, intent.fingerprint, attempt, intent.price_usd)
