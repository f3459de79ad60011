"""What many lines add up to: how jobs ended (Fold), and what was sent for those that have not (Lives)."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from batchgen.joblog.lines import Ended, Intent, Prepared, Seen, Withdrawn, decode_note, decode_seen
from batchgen.model import Attempt, Billed, Counts, Failure, Outcome

_RANK = (Outcome.UNCERTAIN, Outcome.FAILED, Outcome.DONE)
_DONE = Outcome.DONE


_SMALL = (1 << 60) - 1


def key(*parts: str) -> int:
    """A 60-bit hash, the size at which a Python int is still small; another one in every process."""
    return hash(parts) & _SMALL


class Row(msgspec.Struct, frozen=True):
    """The best entry for one job and fingerprint: `offset` is where its line begins, `last_n` its last attempt,
    `finished` when it ended (seconds since 1970).
    """

    outcome: Outcome
    offset: int
    last_n: int
    finished: float


@dataclass
class Fold:
    """What the job log says, in about 150 bytes a job: for each job and fingerprint the entry that holds, and sums.

    A done entry beats the others; among equals the one finished last. Jobs are known by 60-bit hashes; the rows of a
    job are a chain from the `_latest` one through the `_earlier` ones. What tells a repeated line from another entry
    is its run, its outcome, its time and its attempts. `requests_by_day` also counts what each of several endpoints was
    sent, as `2026-11-22 gpu:8000`.
    """

    requests: int = 0
    spent_usd: float = 0.0
    exposure_usd: float = 0.0
    bought: bool = False
    drawn: bool = False
    requests_by_day: dict[str, int] = field(default_factory=dict)
    _latest: dict[int, int] = field(default_factory=dict)
    _earlier: array[int] = field(default_factory=lambda: array("i"))
    _fingerprints: array[int] = field(default_factory=lambda: array("q"))
    _offsets: array[int] = field(default_factory=lambda: array("q"))
    _finished: array[float] = field(default_factory=lambda: array("d"))
    _entries: array[int] = field(default_factory=lambda: array("q"))
    _last_n: array[int] = field(default_factory=lambda: array("H"))
    _ranks: bytearray = field(default_factory=bytearray)
    _more: set[tuple[int, int]] = field(default_factory=set)

    def add(self, line: bytes, offset: int) -> None:
        """Take in one line that begins at `offset`. Raises one of BAD_LINE for a damaged one."""
        seen = decode_seen(line)
        if self._place(seen, offset):
            self._sum(seen)

    def _sum(self, seen: Seen) -> None:
        self.requests += len(seen.attempts)
        for attempt in seen.attempts:
            day = attempt.at[:10]
            for where in (day, f"{day} {attempt.endpoint}") if attempt.endpoint else (day,):
                self.requests_by_day[where] = self.requests_by_day.get(where, 0) + 1
        self.spent_usd += seen.cost_usd or 0.0
        self.exposure_usd += seen.exposure_usd or 0.0
        if seen.outcome is _DONE:
            self.drawn |= seen.api == "sandbox"
            self.bought |= seen.api != "sandbox"

    def _place(self, seen: Seen, offset: int) -> bool:
        """Let the line take its place; False where the very same line was there before."""
        rank, finished = _RANK.index(seen.outcome), _instant(seen.finished_at)
        last_n = min(_last_n(seen), 0xFFFF)
        entry = hash((seen.run, rank, finished, last_n))
        job, fingerprint = key(seen.job), hash(seen.fingerprint)
        latest = self._latest.get(job, -1)
        if (row := self._find(latest, fingerprint)) < 0:
            self._earlier.append(latest)
            self._latest[job] = len(self._ranks)
            self._fingerprints.append(fingerprint)
            self._offsets.append(offset)
            self._finished.append(finished)
            self._entries.append(entry)
            self._last_n.append(last_n)
            self._ranks.append(rank)
            return True
        # Only jobs with several entries need to be remembered entry by entry.
        self._more.add((row, self._entries[row]))
        if (row, entry) in self._more:
            return False
        self._more.add((row, entry))
        self._last_n[row] = max(last_n, self._last_n[row])
        if (rank, finished, offset) >= (self._ranks[row], self._finished[row], self._offsets[row]):
            self._ranks[row], self._finished[row], self._offsets[row] = rank, finished, offset
        return True

    def _find(self, number: int, fingerprint: int) -> int:
        """The row of this fingerprint in the chain that begins with row `number`; -1 for none."""
        while number >= 0 and self._fingerprints[number] != fingerprint:
            number = self._earlier[number]
        return number

    def row(self, job: str, fingerprint: str) -> Row | None:
        if not self._latest:
            return None  # a new folder: nothing needs to be hashed
        number = self._find(self._latest.get(key(job), -1), hash(fingerprint))
        return None if number < 0 else self._row(number)

    def rows(self, job: str) -> list[Row]:
        """All that is known of a job, whatever its fingerprint."""
        return list(self._back_from(self._latest.get(key(job), -1))) if self._latest else []

    def has_rivals(self, job: str) -> bool:
        """Whether a job that is known is known with several fingerprints."""
        return self._earlier[self._latest[key(job)]] >= 0

    def each(self) -> Iterator[list[Row]]:
        """The `rows` of one job after the other, in the order in which the log first tells of them."""
        for number in self._latest.values():
            yield list(self._back_from(number))

    def _back_from(self, number: int) -> Iterator[Row]:
        while number >= 0:
            yield self._row(number)
            number = self._earlier[number]

    def _row(self, number: int) -> Row:
        return Row(_RANK[self._ranks[number]], self._offsets[number], self._last_n[number], self._finished[number])

    @property
    def jobs(self) -> int:
        """How many different jobs the log knows."""
        return len(self._latest)

    def keys(self) -> set[int]:
        """The `key` of every job that the log knows."""
        return set(self._latest)

    def counts(self) -> dict[Outcome, int]:
        """How many jobs ended how, each by its best entry; for readers without a manifest."""
        best: dict[int, int] = {}
        for number in self._latest.values():
            rank, at = 0, number
            while at >= 0:
                rank, at = max(rank, self._ranks[at]), self._earlier[at]
            best[rank] = best.get(rank, 0) + 1
        return {outcome: best.get(rank, 0) for rank, outcome in enumerate(_RANK)}


def _last_n(seen: Seen) -> int:
    last = 0
    for attempt in seen.attempts:  # a million times in a large log: `max` over a generator takes ten times as long
        if attempt.n > last:
            last = attempt.n
    return last


def _instant(text: str) -> float:
    """A time as seconds. Raises ValueError for what is none."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


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
            if _last_n(decode_seen(note.entry)) > self.last_n(*who):
                self.prepared[who] = bytes(note.entry) + b"\n"
            return
        if isinstance(note, Withdrawn):
            self._withdraw(who, note.n)
            return
        ended = note if isinstance(note, Ended) else _in_doubt(note)
        if ended.attempt.n <= self.last_n(*who):
            return
        life = self._attempts.setdefault(who, {})
        if ended.attempt.n not in life or isinstance(note, Ended):
            life[ended.attempt.n] = ended

    def _withdraw(self, who: tuple[str, str], n: int) -> None:
        life = self._attempts.get(who, {})
        if n in life and life[n].attempt.failure is Failure.IN_DOUBT:
            del life[n]
        if not life:
            self._attempts.pop(who, None)

    def of(self, job: str, fingerprint: str) -> tuple[Attempt, ...]:
        """A job's attempts so far, in order; one whose end is not known has failure `in_doubt`."""
        life = self._attempts.get((job, fingerprint), {})
        return tuple(life[n].attempt for n in sorted(life))

    def forget(self, job: str, fingerprint: str) -> None:
        """The job is finished: its entry tells its attempts from now on."""
        self._attempts.pop((job, fingerprint), None)
        self.prepared.pop((job, fingerprint), None)

    def unfinished(self) -> set[tuple[str, str]]:
        """The jobs that have attempts here, as ids and fingerprints."""
        return set(self._attempts)

    def ended(self) -> list[Ended]:
        """All attempts of unfinished jobs, as the lines of a compacted file."""
        return [life[n] for life in self._attempts.values() for n in sorted(life)]

    def exposure_usd(self) -> float:
        """What unfinished jobs may have cost."""
        return sum(e.price_usd or 0.0 for e in self.ended() if e.attempt.billed is not Billed.NO)

    def doubtful(self) -> set[tuple[str, str]]:
        """The jobs whose last attempt may have been paid for without an answer."""
        return {who for who, life in self._attempts.items() if life[max(life)].attempt.failure is Failure.IN_DOUBT}


def _in_doubt(intent: Intent) -> Ended:
    attempt = Attempt(
        n=intent.n,
        at=intent.at,
        elapsed_s=0.0,
        billed=Billed.MAYBE,
        failure=Failure.IN_DOUBT,
        message="no end is known",
        counts=Counts.DOUBT,
        endpoint=intent.endpoint,
    )
    return Ended(intent.job, intent.fingerprint, attempt, intent.price_usd)
