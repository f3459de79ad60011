"""The pictures that jobs send: checked and digested when planning, read when sending. Opens files; decides nothing."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from batchgen import images
from batchgen.model import BadAnswer, FileInput, InputChanged, Job, Post

MAX_INPUT_BYTES = 20 << 20
_KEY_BYTES = 8
_RECORD_BYTES = _KEY_BYTES + 32


class Digests:
    """SHA-256 digests by path, in about 60 bytes each: a manifest may name a million pictures.

    Keeps 64 bits of a hash of each path. Should two paths ever share them, the digest of one is not that of its bytes,
    and its job stays unsent.
    """

    def __init__(self) -> None:
        self._records = bytearray()  # of each path the bits of its hash, then the digest
        self._slots = array("I", bytes(4 * 1024))  # open addressing: numbers of records, counted from 1

    def get(self, path: str) -> bytes | None:
        number = self._slots[self._slot(_key(path))]
        return bytes(self._records[number * _RECORD_BYTES - 32 : number * _RECORD_BYTES]) if number else None

    def add(self, path: str, digest: bytes) -> None:
        """Take in a path that is not there yet."""
        self._records += _key(path) + digest
        number = len(self._records) // _RECORD_BYTES
        if 3 * number >= 2 * len(self._slots):
            self._slots = array("I", bytes(2 * 4 * len(self._slots)))
            for earlier in range(1, number):
                self._slots[self._slot(self._key_of(earlier))] = earlier
        self._slots[self._slot(_key(path))] = number

    def _slot(self, key: bytes) -> int:
        """Where the number of this key's record stands, or belongs."""
        last = len(self._slots) - 1
        at = int.from_bytes(key) & last
        while (number := self._slots[at]) and self._key_of(number) != key:
            at = (at + 1) & last
        return at

    def _key_of(self, number: int) -> bytes:
        start = (number - 1) * _RECORD_BYTES
        return bytes(self._records[start : start + _KEY_BYTES])


def _key(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), digest_size=_KEY_BYTES).digest()


@dataclass
class Inputs:
    """The pictures that jobs send, found relative to the manifest."""

    base: Path
    _known: Digests = field(default_factory=Digests)

    def digest(self, path: str) -> FileInput:
        """What the file is now; each file is read once a plan. Raises ValueError saying what is wrong with it."""
        digest = self._known.get(path)
        if digest is None:
            digest = hashlib.sha256(self._read(path)).digest()
            self._known.add(path, digest)
        return FileInput(path, digest.hex())

    def read(self, job: Job) -> dict[str, bytes]:
        """The bytes of the job's pictures by field name. Raises InputChanged where they are not those of the plan."""
        found = {}
        for name, value in job.request.items():
            if isinstance(value, FileInput):
                try:
                    data = self._read(value.path)
                except ValueError as error:
                    raise InputChanged(f"{name}: {error}") from error
                if hashlib.sha256(data).hexdigest() != value.sha256:
                    raise InputChanged(
                        f"{name}: {value.path} was edited since the run began; run the same command again"
                    )
                found[name] = data
        return found

    def _read(self, path: str) -> bytes:
        place = self.base / path
        try:
            if not place.is_file():
                raise ValueError(f"there is no file {path!r} (looked for {place})")
            if (size := place.stat().st_size) > MAX_INPUT_BYTES:
                raise ValueError(f"{path!r} has {size >> 20} MiB; at most {MAX_INPUT_BYTES >> 20} MiB can be sent")
            data = place.read_bytes()
        except OSError as error:
            raise ValueError(f"{path!r} cannot be read: {error.strerror}") from error
        try:
            images.check(data)
        except BadAnswer as error:
            raise ValueError(f"{path!r} cannot be sent: {error}") from error
        return data


def sends_files(job: Job) -> bool:
    """Whether pictures of the user's go with the job, which have to be read first."""
    return any(isinstance(value, FileInput) for value in job.request.values())


def encoder(inputs: Inputs, encode: Callable[..., Post]) -> Callable[[Job], Post]:
    """From a job to its request, its pictures read and checked on the way."""

    def post(job: Job) -> Post:
        if not sends_files(job):
            return encode(job.model, job.request, {})
        plain = {name: value for name, value in job.request.items() if not isinstance(value, FileInput)}
        return encode(job.model, plain, inputs.read(job))

    return post
