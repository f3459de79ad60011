"""What the parts of one run share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from batchgen.folder import Folder, Spending, State
from batchgen.limits import Limits, part_of
from batchgen.progress import say
from batchgen.runner.session import Session
from batchgen.settings import Settings
from batchgen.summary import Summary, Tally
from batchgen.world import Clock

if TYPE_CHECKING:
    from batchgen.runner.copies import Copies
    from batchgen.runner.outside import Outside
    from batchgen.stores import Store


@dataclass(frozen=True)
class Voice:
    """How much a run says on standard error."""

    quiet: bool = False
    verbose: bool = False

    def say(self, message: str) -> None:
        if not self.quiet:
            say(message)


@dataclass
class Run:
    """One run: what it was told, where it writes, what it has counted; `hear` hears of its summary now and then."""

    session: Session
    folder: Folder
    voice: Voice
    outside: Outside
    run: str
    state: State
    began_s: float
    tally: Tally = field(default_factory=Tally)
    new_jobs: int = 0
    store: Store | None = None
    copies: Copies | None = None
    notices: list[str] = field(default_factory=list)
    hear: Callable[[Summary], None] | None = None

    def warn(self, message: str) -> None:
        """Something the user should know, now and in the summary; told once."""
        if message in self.notices:
            return
        self.notices.append(message)
        self.voice.say(f"note: {message}")

    @property
    def settings(self) -> Settings:
        return self.session.settings

    @property
    def clock(self) -> Clock:
        return self.outside.clock

    @property
    def ends_at(self) -> datetime | None:
        """When the run ends at the latest, by what it was told."""
        runtime_s, began_at = self.settings.max_runtime_s, datetime.fromisoformat(self.state.started_at)
        ends = (self.settings.until, began_at + timedelta(seconds=runtime_s) if runtime_s else None)
        return min(filter(None, ends), default=None)

    def sent_today(self, endpoint: str = "") -> int:
        """How many requests the folder knows to have been sent this UTC day, of several endpoints to this one."""
        today = self.clock.utc().date().isoformat()
        key = f"{today} {endpoint}".rstrip()
        ended = (ended.attempt for ended in self.folder.lives.ended() if ended.attempt.at.startswith(today))
        open_today = sum(attempt.endpoint == (endpoint or attempt.endpoint) for attempt in ended)
        return self.folder.spent.by_day[key] + open_today + self._overdrawn_today(key, endpoint)

    def _overdrawn_today(self, key: str, endpoint: str) -> int:
        whole = next((each.whole for each in self.settings.endpoints if each.name == endpoint), None)
        if whole is None or self.settings.shared_account:
            return 0
        over = self.overdrawn(lambda spent: spent.by_day[key], lambda limits: limits.requests_per_day, whole)
        return math.ceil(over)

    def overdrawn(
        self, used: Callable[[Spending], float], part: Callable[[Limits], float | None], whole: Limits | None = None
    ) -> float:
        """What shards beside this one have used beyond their parts (of `whole`; else of the run's limits), which is no
        longer there for this one.

        A run of everything, or of another number of shards, may use what some have left; what it used counts as used by
        all alike, so that those who had used up their parts have then more than these.
        """
        settings, found = self.settings, 0.0
        for shard, spent in self.folder.spent_beside:
            limits = whole or settings.whole or settings.limits
            limit = part(part_of(limits, shard, shared_account=settings.shared_account))
            found += max(0.0, used(spent) - limit) if limit is not None else 0.0
        return found
