"""A stable random order of jobs: a job's place is a hash of the seed and its id, whatever else the manifest holds.

Nothing is kept for each job: where there are more than WINDOW_JOBS, the manifest is walked once for every so many.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator

from batchgen.model import Job

PLACES = 1 << 64
WINDOW_JOBS = 20_000


def place(seed: str, job_id: str) -> int:
    """Where a job comes in the order of this seed: a number below PLACES.

    This recipe is frozen: another would make tonight's sample a different one.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{job_id}".encode(), digest_size=8).digest())


def last_place(places: Iterable[int], limit: int) -> int:
    """The last place that the first `limit` of these jobs take; about 40 bytes a job of the limit are held."""
    first: list[int] = []  # a heap of negatives: the latest place comes out first
    for number in places:
        if len(first) < limit:
            heapq.heappush(first, -number)
        else:
            heapq.heappushpop(first, -number)
    return -first[0] if first and len(first) == limit else PLACES - 1


def shuffled(walk: Callable[[], Iterable[Job]], seed: str, count: int, end: int = PLACES) -> Iterator[Job]:
    """The jobs of `walk`, about `count` and all with places before `end`, in the order of this seed."""
    windows = max(1, -(-count // WINDOW_JOBS))
    for window in range(windows):
        low, high = (end * bound // windows for bound in (window, window + 1))
        found = [(at, job) for job in walk() if low <= (at := place(seed, job.id)) < high]
        yield from (job for _, job in sorted(found, key=lambda each: each[0]))
