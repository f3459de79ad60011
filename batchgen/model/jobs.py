"""What is to be made: which server to ask, jobs, and which of them a run is for."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from batchgen.model.entries import Outcome


class Api(msgspec.Struct, frozen=True):
    """An endpoint to ask. `style` is the wire format; `url`, `key_env` and `path` (of the generation, below `url`)
    override the style's own. `headers` travel with every request; `$NAME` in them stands for an environment variable.
    `limits` are its own, where they differ from the manifest's; `name` is what log and messages call it.
    """

    style: str = "nebula"
    url: str | None = None
    key_env: str | None = None
    path: str | None = None
    headers: dict[str, str] = {}
    limits: dict[str, Any] = {}
    name: str | None = None


class Header(msgspec.Struct, frozen=True):
    """What a manifest says beside its jobs: `apis` are its endpoints, all of one style, none where it says nothing of
    them; `embed` is whether pictures are to carry their parameters.
    """

    apis: tuple[Api, ...] = ()
    limits: dict[str, Any] = {}
    prices_usd: dict[str, float] = {}
    defaults: dict[str, Any] = {}
    embed: bool | None = None


class FileInput(msgspec.Struct, frozen=True):
    """A picture that a job sends: its path as the manifest has it, and the digest of its bytes."""

    path: str
    sha256: str


class Job(msgspec.Struct, frozen=True):
    """One picture request after defaults have been applied.

    `request` is what is sent beside the model, as plain JSON values; `image` and `mask` stand in it as
    `FileInput`. `fingerprint` is a hash of API style, model and request. `axes` says which values of its matrix the
    job has, and its number among the repetitions. `file` is where `line` counts if that is not the manifest itself, as
    the manifest names it.
    """

    id: str
    fingerprint: str
    model: str
    request: dict[str, Any]
    meta: dict[str, Any]
    line: int
    axes: dict[str, str] = {}
    file: str | None = None

    @property
    def prompt(self) -> str:
        return str(self.request["prompt"])


class Standing(StrEnum):
    """Where a job of the manifest stands before a run, by the log and by what is on the disk."""

    DONE = "done"
    PENDING = "pending"
    CHANGED = "changed"
    MISSING = "missing"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    UNCERTAIN = "uncertain"


class Shard(msgspec.Struct, frozen=True, order=True):
    """The part `i` of `n` of a manifest's jobs, from 1 to n."""

    i: int
    n: int

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"


class Selection(msgspec.Struct, frozen=True):
    """Which jobs of the manifest a run is for, which of the ended ones it does again, and in which order.

    `limit` counts jobs to be done. With `shuffle`, a seed, they are the first of a random order, up to `last_place`.
    """

    retry: frozenset[Outcome] = frozenset()
    redo: bool = False
    redo_missing: bool = False
    only: tuple[str, ...] = ()
    limit: int | None = None
    shuffle: str | None = None
    last_place: int | None = None
    shard: Shard | None = None
