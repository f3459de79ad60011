"""Keeps a run's limiter: starts it, hears what it tells, and puts another in the place of one that is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from batchgen.cluster.messages import AGAIN_S, LimiterCalls, Lost, News, Spent
from batchgen.events import Event, Paced
from batchgen.model import ExitCode
from batchgen.text import printable
from batchgen.world import Clock

EARLY_S = 5.0
STARTS = 10


class Keeper:
    """`start` makes a limiter, which is told who has to tell first what they have spent, and what those had spent who
    are gone; `hear` is called with what it tells, `stop` where none can be kept."""

    def __init__(
        self,
        limiter: LimiterCalls,
        start: Callable[[set[str], Sequence[Spent]], None],
        clock: Clock,
        *,
        hear: Callable[[News], None],
        stop: Callable[[ExitCode, str], None],
        observe: Callable[[Event], None],
    ) -> None:
        self._limiter, self._start, self._clock = limiter, start, clock
        self._hear, self._stop, self._observe = hear, stop, observe
        self._gone: dict[str, Spent] = {}
        self._noticed: set[str] = set()

    async def keep(self, at_work: Callable[[], set[str]]) -> None:
        """For ever; `at_work` names the workers that are."""
        seen, there, began_s, early = 0, False, 0.0, 0
        while True:
            try:
                if not there:
                    self._start(at_work(), list(self._gone.values()))
                    seen, there, began_s = 0, True, self._clock.monotonic()
                news = await self._limiter.news(seen)
                seen = news.number
                self._tell(news)
            except Lost as error:
                why = printable(str(error), 200)
                if there:
                    self._observe(Paced(f"the limiter was lost ({why}); another takes its place"))
                there = False
                early = early + 1 if self._clock.monotonic() - began_s < EARLY_S else 0
                if early == STARTS:
                    self._stop(ExitCode.INTERNAL, f"no limiter can be kept: {why}")
                await asyncio.sleep(AGAIN_S)

    def _tell(self, news: News) -> None:
        for notice in news.notices:
            if notice not in self._noticed:
                self._noticed.add(notice)
                self._observe(Paced(notice))
        self._hear(news)

    async def gone(self, most: Spent) -> None:
        """A worker is gone, and has spent that at most; what the limiter knows of it is told to those that follow."""
        self._gone[most.worker] = most
        with contextlib.suppress(Lost):
            self._gone[most.worker] = await self._limiter.forget(most)
