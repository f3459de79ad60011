"""What a run at work tells of itself with its heartbeat, as the folder's state holds it. Values only."""

from __future__ import annotations

import msgspec


class Pause(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why nothing is sent at present, or only now and then; `until` when, or when the run gives up."""

    why: str
    since: str | None = None
    until: str | None = None
    gives_up_at: str | None = None


class Live(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run's work as it was at its last heartbeat; moments are UTC in ISO 8601.

    `ended` of the `to_do` jobs that it began with at `began_at` have ended, `waiting` wait for another try. At most
    `limit` requests may be out now (because of `limit_reason`), at most `concurrency` ever. `ends_at` is when the run
    was told to end. `resting` says of several endpoints which are not asked at present.
    """

    began_at: str
    to_do: int
    concurrency: int
    limit: int
    limit_reason: str
    ended: int = 0
    waiting: int = 0
    requests_per_minute: float | None = None
    pause: Pause | None = None
    ends_at: str | None = None
    resting: dict[str, Pause] = {}
