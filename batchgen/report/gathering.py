"""All that a page is made of, gathered entry by entry; an entry is let go as soon as it has been counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from batchgen import joblog
from batchgen.model import Attempt, Entry, Outcome
from batchgen.report.facts import Scene, Thumb
from batchgen.report.numbers import Numbers
from batchgen.report.rows import ORPHAN, STATES, Rows
from batchgen.summary import FailureGroup, Tally

LISTED = 500
"""How many jobs a browser without script is shown."""


@dataclass(frozen=True)
class Listed:
    """A job as the plain list tells it."""

    job: str
    outcome: str
    file: str | None


@dataclass
class Report:
    """Of `numbers`, which every entry of the logs has been added to, and what `show` is told of each job."""

    scene: Scene
    numbers: Numbers
    rows: Rows = field(default_factory=Rows)
    tally: Tally = field(default_factory=Tally)
    listed: list[Listed] = field(default_factory=list)
    broken: int = 0
    edited: int = 0
    _groups: dict[int, int] = field(default_factory=dict)
    _earlier: dict[int, list[Entry]] = field(default_factory=dict)

    @property
    def has_earlier(self) -> bool:
        """Whether some request was tried again later: then `remember` wants every entry once more."""
        return bool(self.numbers.retold)

    def remember(self, entry: Entry) -> None:
        key = joblog.key(entry.job, entry.fingerprint)
        if key in self.numbers.retold:
            self._earlier.setdefault(key, []).append(entry)

    def show(self, entry: Entry, thumbs: Sequence[Thumb]) -> None:
        """The entry that holds for a job, with what became of its pictures."""
        state = self._state(entry)
        group = None
        if entry.outcome is not Outcome.DONE and state is None:
            group = self._group(self.tally.without_picture(entry))
        earlier = self._attempts_before(entry)
        self.rows.add(entry, thumbs, state=state, group=group, earlier=earlier)
        self.broken += sum(thumb.name is None for thumb in thumbs)
        self.edited += sum(thumb.name is not None and thumb.problem is not None for thumb in thumbs)
        if len(self.listed) < LISTED:
            whole = entry.images and thumbs[0].name
            self.listed.append(Listed(entry.job, entry.outcome.value, entry.images[0].file if whole else None))

    def _state(self, entry: Entry) -> str | None:
        standings = self.scene.standings
        if standings is None:
            return None
        standing = standings.get(joblog.key(entry.job))
        return ORPHAN if standing is None else STATES.get(standing)

    def _group(self, group: FailureGroup) -> int:
        return self._groups.setdefault(id(group), len(self._groups))

    def _attempts_before(self, entry: Entry) -> list[Attempt]:
        before = self._earlier.get(joblog.key(entry.job, entry.fingerprint), ())
        known = {(attempt.n, attempt.at) for attempt in entry.attempts}
        found = {(a.n, a.at): a for other in before for a in other.attempts if (a.n, a.at) not in known}
        return [found[who] for who in sorted(found)]

    @property
    def groups(self) -> list[FailureGroup]:
        """Failures by cause, in the order of the numbers that rows have."""
        return list(self.tally.groups.values())
