"""What a report is told beside the log's entries: where the folder stands, what happened to pictures and pace."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from batchgen.joblog import PaceNote
from batchgen.model import Standing
from batchgen.summary import Summary


class Stand(msgspec.Struct, frozen=True):
    """Where the folder stands at `made_at` (UTC, ISO 8601).

    `total` and `pending` are None where the manifest cannot be read. `command` is the start of a command line that
    goes on with this folder; None where the manifest is not known.
    """

    name: str
    made_at: str
    done: int
    failed: int
    uncertain: int
    total: int | None = None
    pending: int | None = None
    in_doubt: int = 0
    orphans: int = 0
    requests: int = 0
    cost_usd: float | None = None
    exposure_usd: float = 0.0
    run: str | None = None
    running: bool = False
    killed: bool = False
    doing: str | None = None
    heartbeat_at: str | None = None
    command: str | None = None


class Thumb(msgspec.Struct, frozen=True):
    """What became of one picture: the name of its small form in `thumbs/`, or why there is none.

    `file` is where the picture lies now, where that is known: it may be in `superseded/`.
    """

    name: str | None
    problem: str | None = None
    file: str | None = None


class Scene(msgspec.Struct, frozen=True):
    """All that the page tells beside the entries.

    `standings` says how the manifest's jobs stand, by `joblog.key` of their id; None where the manifest is not known.
    `axes` has the values of each axis in the manifest's order. `thumbs` is by sha256 of the picture.
    """

    stand: Stand
    version: str
    summary: Summary | None = None
    standings: Mapping[int, Standing] | None = None
    axes: Mapping[str, list[str]] = {}
    pace: tuple[PaceNote, ...] = ()
    notices: tuple[str, ...] = ()
