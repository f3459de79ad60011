"""What the parts of one run share."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchgen.folder import Folder, State
from batchgen.progress import say
from batchgen.runner.session import Session
from batchgen.settings import Settings
from batchgen.summary import Tally
from batchgen.world import Clock


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
    """One run: what it was told, where it writes, what it has counted."""

    session: Session
    folder: Folder
    voice: Voice
    clock: Clock
    run: str
    state: State
    began_s: float
    tally: Tally = field(default_factory=Tally)
    new_jobs: int = 0
    notices: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        """Something the user should know, now and in the summary."""
        self.notices.append(message)
        self.voice.say(f"note: {message}")

    @property
    def settings(self) -> Settings:
        return self.session.settings
