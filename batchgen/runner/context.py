"""What the parts of one run share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchgen.folder import Folder, Spending, State
from batchgen.progress import say
from batchgen.runner.session import Session
from batchgen.settings import Limits, Settings, part_of
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
        """Something the user should know, now and in the summary."""
        self.notices.append(message)
        self.voice.say(f"note: {message}")

    @property
    def settings(self) -> Settings:
        return self.session.settings

    @property
    def clock(self) -> Clock:
        return self.outside.clock

    @property
    def sent_today(self) -> int:
        """How many requests the folder knows to have been sent this UTC day."""
        today = self.clock.utc().date().isoformat()
        open_today = sum(ended.attempt.at.startswith(today) for ended in self.folder.lives.ended())
        overdrawn = (
            0
            if self.settings.shared_account
            else self.overdrawn(lambda spent: spent.by_day[today], lambda limits: limits.requests_per_day)
        )
        return self.folder.spent.by_day[today] + open_today + math.ceil(overdrawn)

    def overdrawn(self, used: Callable[[Spending], float], part: Callable[[Limits], float | None]) -> float:
        """What shards beside this one have used beyond their parts, which is no longer there for this one.

        A run of everything, or of another number of shards, may use what some have left; what it used counts as used by
        all alike, so that those who had used up their parts have then more than these.
        """
        settings, found = self.settings, 0.0
        for shard, spent in self.folder.spent_beside:
            limit = part(part_of(settings.whole or settings.limits, shard, shared_account=settings.shared_account))
            found += max(0.0, used(spent) - limit) if limit is not None else 0.0
        return found
