"""What a picture is called in a dataset: one flat name without dots or slashes, different for different pictures."""

from __future__ import annotations

import hashlib
import unicodedata

_MAX_BYTES = 200
_KEPT = {"L", "M", "N"}
_WRITTEN = {"/": "~~", ".": "~-"}


def sample_key(job: str, position: int, index: int) -> str:
    """The name, without an extension, of the picture at `position` among those of a job's answer.

    WebDataset ends a sample's name at the first dot, and folders called `test` or `val` would become splits of an
    ImageFolder: `/` is written `~~` and `.` is written `~-`, which no id can hold. `~2` at the end is the index of a
    further picture. A name that is too long for a file system is cut and ends in `~h` and a hash of the whole.

    >>> sample_key("cat/v1.5", 0, 0), sample_key("cat", 1, 2)
    ('cat~~v1~-5', 'cat~2')
    """
    key = "".join(map(_written, job)) + (f"~{index}" if position else "")
    encoded = key.encode()
    if len(encoded) <= _MAX_BYTES:
        return key
    digest = hashlib.blake2b(encoded, digest_size=8).hexdigest()
    return f"{encoded[: _MAX_BYTES - 18].decode(errors='ignore')}~h{digest}"


def _written(char: str) -> str:
    if char in "-_" or (char.isascii() and char.isalnum()) or unicodedata.category(char)[0] in _KEPT:
        return char
    return _WRITTEN.get(char) or f"~x{ord(char):x}_"
