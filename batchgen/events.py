"""What the pool tells its observers: frozen facts, the same for each of them. The pool knows none."""

from __future__ import annotations

import msgspec

from batchgen.model import Attempt, Entry, Failure, Job


class Tried(msgspec.Struct, frozen=True):
    """An attempt has ended; what it cost follows from its `billed`, `price_usd` and how many `pictures` came.

    `again`: it was a repetition within this run.
    """

    job: Job
    attempt: Attempt
    price_usd: float | None
    pictures: int = 1
    again: bool = False


class Finished(msgspec.Struct, frozen=True):
    """A job has ended, and its entry is in the log."""

    entry: Entry


class Left(msgspec.Struct, frozen=True):
    """A job stays pending; another run can do it."""

    job: Job
    failure: Failure
    message: str


class Paced(msgspec.Struct, frozen=True):
    """The pace has changed, and why; `routine` changes need nobody's attention.

    `concurrency` is how many requests may be in flight from now on, `pause_s` for how long none may leave; None where
    the change is not about them. An `outage` is a pause that lasts until the next change of `concurrency`. Where a run
    has several endpoints, `endpoint` is the one that this is about. A `notice` is for the summary too.
    """

    message: str
    routine: bool = False
    concurrency: int | None = None
    pause_s: float | None = None
    outage: bool = False
    endpoint: str | None = None
    notice: bool = False


Event = Tried | Finished | Left | Paced
