"""What the pool tells its observers: frozen facts, the same for each of them. The pool knows none."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.model import Attempt, Entry, Failure, Job


@dataclass(frozen=True)
class Tried:
    """An attempt has ended; what it cost follows from its `billed`, `price_usd` and how many `pictures` came.

    `again`: it was a repetition within this run.
    """

    job: Job
    attempt: Attempt
    price_usd: float | None
    pictures: int = 1
    again: bool = False


@dataclass(frozen=True)
class Finished:
    """A job has ended, and its entry is in the log."""

    entry: Entry


@dataclass(frozen=True)
class Left:
    """A job stays pending; another run can do it."""

    job: Job
    failure: Failure
    message: str


@dataclass(frozen=True)
class Paced:
    """The pace has changed, and why; `routine` changes need nobody's attention."""

    message: str
    routine: bool = False


Event = Tried | Finished | Left | Paced
