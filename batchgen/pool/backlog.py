"""Jobs that wait for another try: data in a heap, not sleeping tasks."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from itertools import count

from batchgen.pool.task import Task


class Backlog:
    """Waiting jobs by the time from which they may be sent."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Task]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Task]:
        return (task for *_, task in self._heap)

    def push(self, task: Task) -> None:
        heapq.heappush(self._heap, (task.due_s, next(self._order), task))

    def pop(self, now_s: float, suits: Callable[[Task], bool], *, early: bool = False) -> Task | None:
        """The job that has been due for longest, of those that `suits`; where none is due and `early`, the next."""
        if not self._heap or (self.first_s > now_s and not early):
            return None
        if suits(self._heap[0][2]):
            return heapq.heappop(self._heap)[2]
        for item in sorted(self._heap):
            if item[0] > now_s and not early:
                break
            if suits(item[2]):
                self._heap.remove(item)
                heapq.heapify(self._heap)
                return item[2]
        return None

    def clear(self) -> list[Task]:
        """All of them, which wait no longer."""
        tasks, self._heap = list(self), []
        return tasks

    @property
    def first_s(self) -> float:
        """When the first of them is due, or was."""
        return self._heap[0][0] if self._heap else math.inf

    def next_s(self, after_s: float) -> float:
        """When a job will be due after that moment; infinite where none will."""
        if self.first_s > after_s:
            return self.first_s
        return min((due_s for due_s, *_ in self._heap if due_s > after_s), default=math.inf)
