"""Which jobs a shard holds, and its part of what may be used. Pure: the same on every machine, for ever.

A job's shard follows from its id alone, so that a manifest may grow and be sorted anew without work being done twice.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from batchgen.model import Shard

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)


def parse(text: str) -> Shard:
    """The shard called `i/n`. Raises ValueError where there is none of this name."""
    found = _SHARD.fullmatch(text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError("expected I/N with I from 1 to N, such as 3/8")
    return Shard(int(found[1]), int(found[2]))


def holds(shard: Shard, job: str) -> bool:
    """Whether the job of this id belongs to the shard."""
    digest = blake2b(job.encode(), digest_size=8, person=b"batchgen shard").digest()
    return int.from_bytes(digest, "big") % shard.n == shard.i - 1


def part(shard: Shard, whole: int) -> int:
    """The shard's part of a number that all of them together may not exceed; the parts add up to it."""
    return whole // shard.n + (shard.i <= whole % shard.n)
