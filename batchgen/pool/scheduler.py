"""Which job is sent next, and where it goes afterwards: on, back into the heap, or out.

Waiting jobs are data in a heap, not sleeping tasks, and nothing is pulled before there is room for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence

from batchgen import failures, joblog
from batchgen.events import Event, Finished, Left, Tried
from batchgen.failures import RULES, Step
from batchgen.joblog import Ended
from batchgen.model import (
    Attempt,
    Billed,
    BudgetSpent,
    Entry,
    ExitCode,
    Failure,
    InputChanged,
    Outcome,
    Post,
    Reply,
    StorageError,
)
from batchgen.pacing import Budget, RetryBudget
from batchgen.pool.backlog import Backlog
from batchgen.pool.consequences import Consequences
from batchgen.pool.feed import Feed
from batchgen.pool.lane import Lane
from batchgen.pool.lanes import Lanes
from batchgen.pool.running import Running
from batchgen.pool.sender import Intents, Sender
from batchgen.pool.task import Fault, Pending, Policy, Sent, Stop, Task, Way
from batchgen.pool.waits import wait_s
from batchgen.text import printable
from batchgen.world import Clock, Deliver, Randomness, Verdict

SLICE_S = 30.0
ABORT_S = 5.0
STALL_S = 720.0


class Pool:
    """Does the jobs that `pull` hands out, one of the `ways` or another, until there are none or something says stop.

    Money (`budget`) and retries are the run's; pace, pauses and outages are each endpoint's own.
    """

    def __init__(
        self,
        policy: Policy,
        ways: Sequence[Way],
        *,
        pull: Callable[[int], Awaitable[Sequence[Pending]]],
        budget: Budget,
        deliver: Deliver,
        note: Callable[[bytes], None],
        keep: Callable[[], Awaitable[None]],
        clock: Clock,
        randomness: Randomness,
        observe: Callable[[Event], None],
    ) -> None:
        self._policy, self._budget, self._retries = policy, budget, RetryBudget()
        self._deliver, self._note, self._keep = deliver, note, keep
        self._clock, self._random, self._observe = clock, randomness, observe
        intents, self._running = Intents(note), Running(self._ended)
        lanes = [self._lane(way, Sender(policy, way, deliver=deliver, intents=intents, clock=clock)) for way in ways]
        self._lanes = Lanes(policy, lanes, clock=clock, observe=observe, stop=self.stop)
        self._feed = Feed(
            sum(way.concurrency for way in ways),
            pull=pull,
            clock=clock,
            prepare=self._prepare,
            spawn=self._running.feed,
            stop=self.stop,
        )
        self._stall_s = max(way.timeout_s for way in ways) + STALL_S
        self.stops: list[Stop] = []
        self.unfinished: set[tuple[str, str]] = set()
        self.in_doubt: set[tuple[str, str]] = set()
        self.in_flight = self._successes = 0
        self._waiting = Backlog()
        self._progress_s = clock.monotonic()
        self._aborted_s = math.inf
        self._wake = asyncio.Event()

    def _lane(self, way: Way, sender: Sender) -> Lane:
        effects = Consequences(
            gates=way.gates,
            clock=self._clock,
            randomness=self._random,
            observe=self._observe,
            stop=lambda exit_code, reason: self._lanes.close(lane, exit_code, reason),
            name=way.name,
        )
        lane = Lane(way, sender, effects, clock=self._clock, randomness=self._random, spawn=self._running.feed)
        return lane

    @property
    def lanes(self) -> Sequence[Lane]:
        """The endpoints as they are now, in their order."""
        return self._lanes.all

    @property
    def waiting(self) -> int:
        """How many jobs wait for another try."""
        return len(self._waiting)

    def stop(self, exit_code: ExitCode, reason: str) -> None:
        """Send nothing more; what is in flight gets until its own deadline."""
        if all(stop.exit_code is not exit_code for stop in self.stops):
            self.stops.append(Stop(exit_code, reason))
        self._wake.set()

    def abort(self) -> None:
        """Let go of requests without an answer; answers that have come are still written, for at most five seconds."""
        self._aborted_s = self._clock.monotonic()
        self._running.abort()
        self._wake.set()

    async def run(self) -> None:
        """Until every job has ended or is left to another run. Never raises for what a job or a server does."""
        while not self._over():
            self._wake.clear()
            wait_s = self._fill()
            if self._over():
                break
            slice_s = ABORT_S / 10 if self._aborted_s < math.inf else SLICE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(wait_s, 0.001), slice_s)):
                    await self._wake.wait()
        await self._running.end_feeders(ABORT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await asyncio.gather(*(lane.give_back() for lane in self.lanes))

    async def settle(self) -> None:
        """Count what was written after `run` had stopped waiting for it."""
        await self._running.settle(ABORT_S)

    def _over(self) -> bool:
        now_s = self._clock.monotonic()
        if now_s > self._aborted_s + ABORT_S:
            return True
        if self.in_flight and now_s - self._progress_s > self._stall_s:
            # Requests have deadlines of their own, so it is the disk that does not answer.
            self.stop(ExitCode.STORAGE, f"nothing could be saved for {now_s - self._progress_s:.0f} s")
            return True
        return not self._running and bool(self.stops or (self._feed.empty and not self._waiting))

    # What is sent next

    def _fill(self) -> float:
        """Start what may start; the seconds until something else may."""
        while not self.stops:
            now_s, utc = self._clock.monotonic(), self._clock.utc()
            if reason := self._lanes.out_of_time(now_s, utc):
                self.stop(ExitCode.WORK_LEFT, reason)
                break
            self._feed.pull_ahead(len(self._waiting))
            free, wait_s = self._lanes.free(now_s, utc)
            self._lanes.check_patience(now_s, self._has_work, self._make_room)
            if not free or self.stops:
                return wait_s
            for lane in free:
                if task := self._next(lane, now_s):
                    break
            else:
                return min(wait_s, self._next_due_s(now_s))
            if limit := self._budget.spent(task.cost_usd):
                self.stop(ExitCode.WORK_LEFT, limit)
            else:
                self._start(task, lane, now_s)
        return math.inf

    def _next(self, lane: Lane, now_s: float) -> Task | None:
        """The job to send there now: one whose backoff is over before new ones, if the retry budget allows."""
        probe, ready = lane.probe_cleared, self._feed.ready
        may_repeat = probe or not self._waiting or self._retries.hold(now_s) is None

        def suits(task: Task) -> bool:
            return (may_repeat or not task.repeats(lane.name)) and self._lanes.suits(task, lane, now_s)

        asks = self._waiting and (may_repeat or self._lanes.several)
        if asks and (task := self._waiting.pop(now_s, suits, early=probe and not ready)):
            return task
        for _ in range(len(ready)):
            if not suits(task := ready.popleft()):
                # It waits for another lane, and makes room for jobs that need not.
                self._waiting.push(task)
                continue
            outcome = failures.step_at_start(task.life, self._policy.allowance).outcome if task.life else None
            if outcome is None:
                return task
            self._running.spawn(self._finish(task, outcome))
        return None

    def _has_work(self, lane: Lane) -> bool:
        """Whether there is, or may soon be, something that this lane could do."""
        more = lane.in_flight or self._feed.ready or not (self._feed.empty or self._feed.is_full(len(self._waiting)))
        return bool(more) or any(self._lanes.could_do(task, lane) for task in self._waiting)

    def _make_room(self, failure: Failure, reason: str) -> bool:
        """Leave the waiting jobs to another run, so that those behind them are fetched; False where there are none."""
        if self._feed.empty:
            return False
        for task in self._waiting.clear():
            self._leave(task, failure, reason)
        return True

    def _prepare(self, pending: Pending, now_s: float) -> Task:
        price_usd = self._policy.prices_usd.get(pending.job.model)
        return Task(pending, now_s, now_s, pending.life, price_usd, self._successes)

    def _next_due_s(self, now_s: float) -> float:
        """Until a waiting job may be sent; one that is due already waits for retry tokens, or for another lane."""
        tokens = self._retries.hold(now_s) if self._waiting else None
        if tokens:
            return max(tokens.wait_s, self._waiting.first_s - now_s)
        return self._waiting.next_s(now_s) - now_s

    def _start(self, task: Task, lane: Lane, now_s: float) -> None:
        task.queued_s += max(0.0, now_s - task.due_s)
        task.probing, lane.probe_cleared = lane.probe_cleared, False
        if task.probing:
            lane.gates.breaker.probe()
        self.unfinished.add((task.job.id, task.job.fingerprint))
        lane.gates.sent(now_s)
        self._budget.sent(task.cost_usd)
        if task.repeats(lane.name) and not task.probing:
            self._retries.sent(now_s)
        if not self.in_flight:
            self._progress_s = now_s
        self.in_flight += 1
        lane.in_flight += 1
        self._lanes.chosen(lane)
        self._running.send(self._attempt(task, lane))

    def _ended(self, error: BaseException | None) -> None:
        if error:
            code = ExitCode.STORAGE if isinstance(error, StorageError | OSError) else ExitCode.INTERNAL
            self.stop(code, printable(self._policy.key.hide(f"{type(error).__name__}: {error}")))
        self._progress_s = self._clock.monotonic()
        self._wake.set()

    # One job's attempt, and what becomes of the job

    async def _attempt(self, task: Task, lane: Lane) -> None:
        started_s = self._clock.monotonic()

        def answered(reply: Reply | None) -> None:
            self._running.answered()
            lane.effects.answered(reply.headers if reply else {}, started_s)

        try:
            if (post := await self._post(task, lane)) is None or not await self._remembered(task):
                return
            sent, result = await lane.sender.attempt(task, post, answered)
            if isinstance(result, Entry):
                self._succeeded(lane, sent, result)
                for refuser in task.barred:
                    refuser.effects.outdone()
                self._observe(Tried(task.job, result.attempts[-1], task.price_usd, len(result.images), task.again))
                if task.price_usd:
                    self._budget.correct(task.price_usd * len(result.images) - task.cost_usd)
                self._finished(result)
            else:
                await self._failed(task, lane, sent, result)
        except asyncio.CancelledError:
            self._abandoned(task, lane)
        except (StorageError, OSError) as error:
            self.stop(ExitCode.STORAGE, printable(str(error)))
        finally:
            self.in_flight -= 1
            lane.in_flight -= 1
            if task.probing:
                lane.gates.breaker.probe_ended(self._clock.monotonic())

    def _succeeded(self, lane: Lane, sent: Sent, entry: Entry) -> None:
        self._successes += 1
        lane.last_success = self._successes
        self._retries.succeeded()
        lane.effects.success(sent, entry.timings.response_s or 0.0, lane.in_flight)

    async def _post(self, task: Task, lane: Lane) -> Post | None:
        """What to send; None where nothing can be, and the job stays pending."""
        try:
            return await lane.way.transport.prepare(task.job)
        except asyncio.CancelledError:
            pass  # nothing was sent
        except BudgetSpent as error:
            self.stop(error.exit_code, str(error))
            return None
        except InputChanged as error:
            self._leave(task, Failure.INPUT_CHANGED, str(error))
        except Exception as error:  # whatever it is, it is this job's record and nobody else's
            sent = lane.sender.now(task)
            await self._failed(task, lane, sent, Fault(Failure.UNSENDABLE, f"{type(error).__name__}: {error}"))
            return None
        self._budget.unsent(task.cost_usd)
        return None

    async def _remembered(self, task: Task) -> bool:
        """Before a job is repeated that may have been paid for in vain, make that durable: a power cut must not make
        its ration forgotten. False where the run has ended meanwhile."""
        try:
            if task.again and task.life[-1].billed is not Billed.NO:
                await self._keep()
        except asyncio.CancelledError:
            self._budget.unsent(task.cost_usd)
            return False
        return True

    async def _failed(self, task: Task, lane: Lane, sent: Sent, fault: Fault) -> None:
        now_s, job, rule = self._clock.monotonic(), task.job, RULES[fault.failure]
        fault = fault.without(self._policy.key)
        others_succeed = lane.last_success > task.successes_before
        task.successes_before, task.failed_at = self._successes, lane
        attempt = Attempt(
            n=sent.n,
            at=sent.at,
            elapsed_s=round(now_s - sent.sent_s, 6),
            billed=rule.billed,
            http=fault.http,
            failure=fault.failure,
            code=fault.code,
            message=fault.message,
            counts=failures.counts(fault.failure, others_succeed=others_succeed, probing=task.probing),
            urls=fault.urls,
            endpoint=sent.endpoint,
        )
        again = task.again
        task.life = (*task.life, attempt)
        self._note(joblog.encode(Ended(job.id, job.fingerprint, attempt, task.price_usd)))
        if rule.billed is Billed.NO:
            self._budget.refused(task.cost_usd)
        self._observe(Tried(job, attempt, task.price_usd, again=again))
        stops = lane.effects.failure(task, sent, fault, now_s)
        step = self._lanes.refused(task, lane, fault, ending=bool(self.stops))
        if step is None:
            by_rule = failures.next_step(fault.failure, task.life, task.in_run, self._policy.allowance)
            step = Step.LEAVE if stops else by_rule
        await self._go_on(task, lane, step, fault, now_s)

    async def _go_on(self, task: Task, lane: Lane, step: Step, fault: Fault, now_s: float) -> None:
        if outcome := step.outcome:
            await self._finish(task, outcome)
        elif step is Step.LEAVE:
            self._leave(task, fault.failure, fault.message)
        else:
            pause_s = self._wait_s(task, lane, fault, self._clock.monotonic())
            task.due_s, task.waited_s = now_s + pause_s, task.waited_s + pause_s
            self._waiting.push(task)

    def _wait_s(self, task: Task, lane: Lane, fault: Fault, now_s: float) -> float:
        elsewhere = self._lanes.spare(task, task.tries, now_s)
        pause_s = max(0.0, lane.gates.cooldown.until_s - now_s)
        return wait_s(fault, task.tries, pause_s=pause_s, elsewhere=elsewhere, jitter=self._random.random())

    async def _finish(self, task: Task, outcome: Outcome) -> None:
        result = await self._deliver.submit(Verdict(task.draft(self._policy), outcome))
        if isinstance(result, Entry):
            self._finished(result)

    def _finished(self, entry: Entry) -> None:
        self.unfinished.discard((entry.job, entry.fingerprint))
        self._observe(Finished(entry))

    def _abandoned(self, task: Task, lane: Lane) -> None:
        """The intent has no end: whether the request was paid for will never be known."""
        self.in_doubt.add((task.job.id, task.job.fingerprint))
        at = joblog.timestamp(self._clock.utc())
        doubt = Attempt(task.next_n, at, 0.0, Billed.MAYBE, failure=Failure.IN_DOUBT, endpoint=lane.name or None)
        self._observe(Tried(task.job, doubt, task.price_usd, again=task.again))

    def _leave(self, task: Task, failure: Failure, message: str) -> None:
        self._observe(Left(task.job, failure, printable(self._policy.key.hide(message))))
