"""What a job may be called, which names a filesystem would mix up, and names for jobs that have none. No files.

An id becomes a path below the output folder, so the rules keep it inside that folder on every common filesystem.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array

from batchgen import text

MAX_SEGMENT_BYTES = 180
MAX_ID_BYTES = 800

_SEGMENT = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,100}[A-Za-z0-9_-])?"
_PLAIN_ID = re.compile(_SEGMENT)
_PLAIN_FOLDERS = re.compile(rf"(?:{_SEGMENT}/){{1,4}}{_SEGMENT}")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9])(?:\.|$)")
_SUSPECT = re.compile(r"(?:^|/)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:[./]|$)|\.(?:png|jpe?g|webp|gif)/")
_PICTURE = re.compile(r"\.(?:png|jpe?g|webp|gif)$")


def complaint(job_id: str) -> str | None:
    """What is wrong with an id, or None.

    >>> complaint("night/fox-1"), complaint("../fox")
    (None, "a part of an id may not start with '.' or '-'")
    """
    if _PLAIN_ID.fullmatch(job_id) and not _DEVICE.match(job_id.lower()):  # the common case, for speed
        return None
    if _PLAIN_FOLDERS.fullmatch(job_id) and not _SUSPECT.search(job_id.lower()):
        return None
    if bad := next((c for c in job_id if not _legal(c)), None):
        return f"an id may hold letters, digits, '.', '_', '-' and '/', not '{text.printable(bad) or ' '}'"
    if len(job_id.encode()) > MAX_ID_BYTES:
        return f"an id may not be longer than {MAX_ID_BYTES} bytes"
    *folders, name = job_id.split("/")
    complaints = [*map(_segment_complaint, [*folders, name]), *map(_folder_complaint, folders)]
    return next(filter(None, complaints), None)


def _legal(char: str) -> bool:
    return char in "._-/" or (category := unicodedata.category(char))[0] in "LM" or category == "Nd"


def _segment_complaint(segment: str) -> str | None:
    if not segment:
        return "an id may not be empty, nor hold an empty part before, between or after '/'"
    if segment[0] in ".-":
        return "a part of an id may not start with '.' or '-'"
    if segment[-1] == ".":
        return "a part of an id may not end in '.'"
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        return f"a part of an id may not be longer than {MAX_SEGMENT_BYTES} bytes"
    if _DEVICE.match(collision_key(segment)):
        return f"'{segment}' is the name of a device on Windows"
    return None


def _folder_complaint(segment: str) -> str | None:
    if _PICTURE.search(collision_key(segment)):
        return f"the folder '{segment}' would be taken for a picture"
    return None


def collision_key(job_id: str) -> str:
    """Equal for two ids exactly when some filesystem could take one for the other: by case or by Unicode form."""
    if job_id.isascii():
        return job_id.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", job_id).casefold())


def derived(prompt: str, said: bytes) -> str:
    """The id of a row that gives none: a slug of its prompt and eight hex digits of a hash of what the row says.

    This recipe is frozen: another would rename everybody's jobs.
    """
    return f"{_slug(prompt) or 'job'}-{hashlib.sha256(said).hexdigest()[:8]}"


def _slug(words: str) -> str:
    slug = text.slug(words)
    if not slug.isascii():
        slug = re.sub("-+", "-", "".join(c if _legal(c) else "-" for c in slug)).strip("-")
    return slug


def part(value: str) -> str:
    """A variable's value as it stands in an id: unchanged where it is legal there, else as a slug. Frozen as well.

    >>> part("SD_1.5"), part("oil painting"), part("../x")
    ('SD_1.5', 'oil-painting', 'x')
    """
    return value if _PLAIN_ID.fullmatch(value) else _slug(value)


def seed(job_id: str) -> int:
    """The automatic seed of a job, from 0 to 2**31-1. Frozen as well: another would buy every picture again."""
    return int.from_bytes(hashlib.sha256(f"seed\0{job_id}".encode()).digest()[:4]) >> 1


class _Marks:
    """A set of 64-bit numbers other than 0: open addressing in one array, 12 to 24 bytes a number."""

    def __init__(self) -> None:
        self._slots, self._used = array("Q", bytes(8 * 1024)), 0

    def add(self, mark: int) -> bool:
        """Take a number in; False where it was there."""
        if 3 * self._used >= 2 * len(self._slots):
            self._grow()
        slots, last = self._slots, len(self._slots) - 1
        at = mark & last
        while there := slots[at]:
            if there == mark:
                return False
            at = (at + 1) & last
        slots[at] = mark
        self._used += 1
        return True

    def _grow(self) -> None:
        old, self._slots, self._used = self._slots, array("Q", bytes(16 * len(self._slots))), 0
        for mark in old:
            if mark:
                self.add(mark)


class IdBook:
    """Which ids are taken.

    Keeps 64 bits of a hash for each, at most 24 bytes a job. Among a million jobs two different ids pass for one with a
    probability of 1 in 36 million.
    """

    def __init__(self) -> None:
        self._taken = _Marks()
        self._copies: dict[int, int] = {}

    def claim(self, job_id: str) -> bool:
        """Take an id; False if an earlier job has it, or one that a filesystem would not keep apart from it."""
        return self._taken.add(_mark(job_id))

    def claim_derived(self, job_id: str) -> str:
        """Take a derived id, or the first free of `-2`, `-3`, ... behind it: order tells equal rows apart."""
        if self.claim(job_id):
            return job_id
        mark = _mark(job_id)
        while True:
            copy = self._copies[mark] = self._copies.get(mark, 1) + 1
            if self.claim(f"{job_id}-{copy}"):
                return f"{job_id}-{copy}"


def _mark(job_id: str) -> int:
    digest = hashlib.blake2b(collision_key(job_id).encode(), digest_size=8).digest()
    return int.from_bytes(digest) or 1
