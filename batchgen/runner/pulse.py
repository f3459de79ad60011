"""A run's pulse: what it is doing, told in the folder's state now and then, and whatever else is due as often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta

import msgspec

from batchgen import joblog
from batchgen.folder import Live, Pause
from batchgen.model import StorageError
from batchgen.plan import Plan
from batchgen.pool import ABORT_S
from batchgen.runner.context import Run
from batchgen.runner.engine import Sends, Shown
from batchgen.runner.verdict import summarize
from batchgen.summary import Summary
from batchgen.text import printable

HEARTBEAT_S = 30.0
LEAST_S = 2.0


class Pulse:
    """Beats every 30 s while a pool is at work, and soon after something has `changed`."""

    def __init__(self, this: Run, plan: Plan, pool: Sends, changed: asyncio.Event) -> None:
        self._this, self._plan, self._pool = this, plan, pool
        self._changed, self._ended = changed, asyncio.Event()
        self._began_at = joblog.timestamp(this.clock.utc())

    async def around(self, work: Coroutine[None, None, None], tick: Callable[[], None]) -> None:
        """Do the work; meanwhile say what it is, and make durable what was noted since the last picture."""
        beating = asyncio.create_task(self._heart(tick))
        beating.add_done_callback(self._stopped)
        try:
            await work
        finally:
            self._ended.set()
            self._changed.set()
            await asyncio.wait([beating], timeout=ABORT_S)

    def _stopped(self, beating: asyncio.Task[None]) -> None:
        if not beating.cancelled() and (error := beating.exception()):
            words = printable(f"{type(error).__name__}: {error}")
            self._this.warn(f"the heartbeat has stopped ({words}); the run goes on, though it looks dead")

    async def _heart(self, tick: Callable[[], None]) -> None:
        while not self._ended.is_set():
            tick()
            if self._this.copies:
                self._this.copies.tick()
            self._changed.clear()
            this = self._this
            so_far = summarize(this, self._plan, self._pool) if this.hear else None
            await asyncio.to_thread(self._beat, self._doing(), self._live(), so_far)
            await _wait(self._ended, LEAST_S)
            await _wait(self._changed, HEARTBEAT_S - LEAST_S)

    def _beat(self, doing: str, live: Live, so_far: Summary | None) -> None:
        this = self._this
        now = joblog.timestamp(this.clock.utc())
        # A disk that fails here fails the next picture or intent too, and is told there.
        with contextlib.suppress(OSError, StorageError):
            this.folder.write_state(msgspec.structs.replace(this.state, heartbeat_at=now, doing=doing, live=live))
            this.folder.sync_attempts()
        if this.hear and so_far:
            this.hear(so_far)

    def _doing(self) -> str:
        if self._pool.stops:
            return f"ending ({self._pool.stops[0].reason})"
        pauses = self._pauses()
        if pause := self._pause(pauses):
            return pause.why
        return "working" + (f", without {', '.join(pauses)}" if pauses else "")

    def _live(self) -> Live:
        this, limits = self._this, self._this.settings.limits
        asked = [lane.gates.adaptive for lane in self._pool.lanes if not lane.closed]
        pauses = self._pauses()
        pause = self._pause(pauses)
        return Live(
            began_at=self._began_at,
            to_do=self._plan.remaining,
            concurrency=limits.concurrency,
            limit=sum(int(adaptive.limit) for adaptive in asked),
            limit_reason=next((a.reason for a in asked if a.limit < a.ceiling), asked[0].reason if asked else ""),
            ended=this.tally.ended,
            waiting=self._pool.waiting,
            requests_per_minute=limits.requests_per_minute,
            pause=pause,
            ends_at=_timestamp(this.ends_at),
            resting=pauses if len(self._pool.lanes) > 1 else {},
        )

    def _pause(self, pauses: dict[str, Pause]) -> Pause | None:
        """What holds everything: of several endpoints that all rest, the pause that is over first."""
        if len(pauses) < len(self._pool.lanes):
            return None
        return min(pauses.values(), key=lambda pause: pause.until or pause.gives_up_at or "~")

    def _pauses(self) -> dict[str, Pause]:
        """Of each endpoint that is not asked at present, why."""
        found = ((lane, self._pause_of(lane)) for lane in self._pool.lanes)
        return {lane.name: pause for lane, pause in found if pause}

    def _pause_of(self, lane: Shown) -> Pause | None:
        gates, now_s, utc = lane.gates, self._this.clock.monotonic(), self._this.clock.utc()

        def at(moment_s: float) -> str:
            return joblog.timestamp(utc + timedelta(seconds=moment_s - now_s))

        if lane.closed:
            return Pause(f"not asked any more ({lane.closed.reason})")
        if gates.day.closed_until and gates.day.closed_until > utc:
            return Pause("the day's quota is spent", until=joblog.timestamp(gates.day.closed_until))
        if (opened_s := gates.breaker.opened_s) is not None:
            gives_up_s = opened_s + self._this.settings.give_up_after_s
            return Pause("nothing succeeds, asking now and then", at(opened_s), gives_up_at=at(gives_up_s))
        cooldown = gates.cooldown
        if cooldown.until_s > now_s:
            return Pause("cooldown after a rate limit", at(cooldown.began_s), at(cooldown.until_s))
        if cooldown.barren:
            return Pause("one request tries the way after a cooldown", at(cooldown.began_s))
        return None


def _timestamp(moment: datetime | None) -> str | None:
    return joblog.timestamp(moment) if moment else None


async def _wait(event: asyncio.Event, at_most_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()
