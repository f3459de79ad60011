"""The names of things in an output folder, relative to it. Names only: nothing here looks whether they are there."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from batchgen.model import Shard

IMAGES = "images"
REPORT = "report.html"
THUMBS = "thumbs"
SUPERSEDED = "superseded"
STAGED = "staged"
PRIVATE = ".batchgen"
LOCK = f"{PRIVATE}/lock"
ONE_AT_A_TIME = f"{PRIVATE}/one-at-a-time"
QUARANTINE = f"{PRIVATE}/quarantine"
FOREIGN_FINGERPRINT = "00000000"
UNKNOWN_SHA256 = "0" * 64
_NAME_BYTES = 255
_MARKS = re.compile(r"~[^~/]{1,8}~(?P<sha8>[0-9a-f]{8})(?=(?:~\d+)?(?:\.[^./~]*)?$)")
_SHARD = r"-(\d{1,6})-of-(\d{1,6})"
_LOG = re.compile(rf"(?:log|attempts)(?:{_SHARD})?\.jsonl", re.ASCII)
_LOCK = re.compile(rf"lock{_SHARD}", re.ASCII)


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
    return [Books()] * ((None, None) in found) + _of_shards(found - {(None, None)})


def locked_among(names: Iterable[str]) -> list[Books]:
    """The shards whose locks these file names are, each of which began here, whether it has written yet or not."""
    return _of_shards({m.groups() for name in names if (m := _LOCK.fullmatch(name))})


def _of_shards(found: Iterable[tuple[str, ...]]) -> list[Books]:
    return [Books(shard) for shard in sorted(Shard(int(i), int(n)) for i, n in found if 1 <= int(i) <= int(n))]


def picture_file(job: str, position: int, index: int, extension: str) -> str:
    """The name of a job's picture; further ones of the same answer carry their index after `~`, illegal in ids."""
    return f"{IMAGES}/{job}{f'~{index}' if position else ''}.{extension}"


def job_of(file: str) -> str:
    """The id of the job whose picture would bear this name."""
    folder, slash, name = file.removeprefix(f"{IMAGES}/").rpartition("/")
    return folder + slash + _split(name)[0].partition("~")[0]


def superseded(file: str, fingerprint: str, sha256: str) -> str:
    """The name of a picture once another has taken its place: `superseded/<id>~<fp8>~<sha8>.<ext>`."""
    return f"{SUPERSEDED}/" + _marked(file.removeprefix(f"{IMAGES}/"), f"~{fingerprint[:8]}~{sha256[:8]}")


def copy_of(name: str, number: int) -> str:
    """The name to try where `name` in `superseded/`, and its copies with lower numbers, are taken."""
    return _marked(name, f"~{number}")


def promised_sha8(name: str) -> str | None:
    """The first digits of the sha256 that a name in `superseded/` promises; None where it promises nothing."""
    found = _MARKS.search(name)
    return found["sha8"] if found and not UNKNOWN_SHA256.startswith(found["sha8"]) else None


def renamed(name: str, sha256: str) -> str:
    """The name for a file in `superseded/` that is not what its `name` promises, by its own `sha256`."""
    return _MARKS.sub(f"~{FOREIGN_FINGERPRINT}~{sha256[:8]}", name)


def _marked(name: str, mark: str) -> str:
    """`name` with a mark before its extension; what no file system would take any more is cut."""
    folder, slash, name = name.rpartition("/")
    stem, extension = _split(name)
    encoded = stem.encode(errors="surrogateescape")
    room = _NAME_BYTES - len(f"{mark}{extension}".encode(errors="surrogateescape"))
    stem = stem if len(encoded) <= room else encoded[: max(room, 0)].decode(errors="ignore")
    return f"{folder}{slash}{stem}{mark}{extension}"


def _split(name: str) -> tuple[str, str]:
    """Stem, and extension with its dot; a name that has only a leading dot has no extension."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if stem else (name, "")
