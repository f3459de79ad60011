"""The names of things in an output folder, relative to it. Names only: nothing here looks whether they are there."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from batchgen.model import Shard

IMAGES = "images"
SUPERSEDED = "superseded"
PRIVATE = ".batchgen"
LOCK = f"{PRIVATE}/lock"
QUARANTINE = f"{PRIVATE}/quarantine"
FOREIGN_FINGERPRINT = "00000000"
_LOG = re.compile(r"(?:log|attempts)(?:-(\d{1,6})-of-(\d{1,6}))?\.jsonl", re.ASCII)


class Books(msgspec.Struct, frozen=True):
    """The files that one writer of an output folder keeps: a run of the whole manifest, or a shard of it."""

    shard: Shard | None = None

    def _name(self, folder: str, name: str, extension: str = "") -> str:
        mark = f"-{self.shard.i}-of-{self.shard.n}" if self.shard else ""
        return f"{folder}{name}{mark}{extension}"

    @property
    def log(self) -> str:
        return self._name("", "log", ".jsonl")

    @property
    def summary(self) -> str:
        return self._name("", "summary", ".json")

    @property
    def attempts(self) -> str:
        return self._name(f"{PRIVATE}/", "attempts", ".jsonl")

    @property
    def state(self) -> str:
        return self._name(f"{PRIVATE}/", "state", ".json")

    @property
    def pace(self) -> str:
        return self._name(f"{PRIVATE}/", "pace", ".jsonl")

    @property
    def tmp(self) -> str:
        return self._name(f"{PRIVATE}/", "tmp")

    @property
    def lock(self) -> str:
        return self._name(f"{PRIVATE}/", "lock")


def books_among(names: Iterable[str]) -> list[Books]:
    """Whose books these file names belong to, each once: the whole manifest's first, then shards by their numbers."""
    found = {m.groups() for name in names if (m := _LOG.fullmatch(name))}
    shards = sorted(Shard(int(i), int(n)) for i, n in found if i is not None and 1 <= int(i) <= int(n))
    return [Books()] * ((None, None) in found) + [Books(shard) for shard in shards]


def picture_file(job: str, position: int, index: int, extension: str) -> str:
    """The name of a job's picture; further ones of the same answer carry their index after `~`, illegal in ids."""
    return f"{IMAGES}/{job}{f'~{index}' if position else ''}.{extension}"


def superseded(file: str, fingerprint: str, sha256: str) -> str:
    """The name of a picture once another has taken its place: `superseded/<id>~<fp8>~<sha8>.<ext>`."""
    stem, dot, extension = file.removeprefix(f"{IMAGES}/").rpartition(".")
    return f"{SUPERSEDED}/{stem}~{fingerprint[:8]}~{sha256[:8]}{dot}{extension}"
