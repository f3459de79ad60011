"""Which job is sent next, and where it goes afterwards: on, back into the heap, or out.

Waiting jobs are data in a heap, not sleeping tasks, and nothing is pulled before there is room for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import date
from itertools import count

from tenacity import RetryCallState, wait_exponential

from batchgen import failures, joblog
from batchgen.events import Event, Finished, Left, Paced, Tried
from batchgen.failures import RULES, Effect, Step
from batchgen.joblog import Ended
from batchgen.model import Attempt, Billed, Entry, ExitCode, Failure, InputChanged, Outcome, Post, Reply, StorageError
from batchgen.pacing import QUOTA_HINT_S, Gates, Hold, backoff_s
from batchgen.pool.consequences import Consequences
from batchgen.pool.feed import Feed
from batchgen.pool.sender import Sender
from batchgen.pool.task import Fault, Pending, Policy, Sent, Stop, Task
from batchgen.text import duration, printable
from batchgen.world import Account, Clock, Deliver, Randomness, Transport, Verdict

SLICE_S = 30.0
ABORT_S = 5.0
STALL_S = 720.0
_bound_s = wait_exponential(multiplier=1, max=60)


class Pool:
    """Does the jobs that `pull` hands out, until there are none or something says stop."""

    def __init__(
        self,
        policy: Policy,
        *,
        pull: Callable[[int], Awaitable[Sequence[Pending]]],
        gates: Gates,
        transport: Transport,
        account: Account,
        deliver: Deliver,
        note: Callable[[bytes], None],
        keep: Callable[[], Awaitable[None]],
        clock: Clock,
        randomness: Randomness,
        observe: Callable[[Event], None],
    ) -> None:
        self._policy, self._gates = policy, gates
        self._transport, self._deliver, self._note, self._keep = transport, deliver, note, keep
        self._clock, self._random, self._observe = clock, randomness, observe
        self._sender = Sender(policy, transport=transport, deliver=deliver, note=note, clock=clock)
        self._effects = Consequences(gates=gates, clock=clock, randomness=randomness, observe=observe, stop=self.stop)
        self._feed = Feed(
            policy,
            pull=pull,
            account=account,
            gates=gates,
            clock=clock,
            randomness=randomness,
            prepare=self._prepare,
            spawn=self._spawn_feeder,
            stop=self.stop,
        )
        self.stops: list[Stop] = []
        self.hold: Hold | None = None
        self.unfinished: set[tuple[str, str]] = set()
        self.in_doubt: set[tuple[str, str]] = set()
        self.in_flight = 0
        self._waiting: list[tuple[float, int, Task]] = []
        self._order = count()
        self._running: set[asyncio.Task[None]] = set()
        self._feeding: set[asyncio.Task[None]] = set()
        # Ordered, so that one seed always gives the same night.
        self._sending: dict[asyncio.Task[None], None] = {}
        self._probe_cleared = False
        self._told_day: date | None = None
        self._progress_s = clock.monotonic()
        self._aborted_s = math.inf
        self._wake = asyncio.Event()

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
        for task in self._sending:
            task.cancel()
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
        for feeder in self._feeding:
            feeder.cancel()
        if self._feeding:
            await asyncio.wait(self._feeding, timeout=ABORT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await self._feed.give_back()

    async def settle(self) -> None:
        """Count what was written after `run` had stopped waiting for it."""
        if self._running:
            await asyncio.wait(self._running, timeout=ABORT_S)

    def _over(self) -> bool:
        now_s = self._clock.monotonic()
        if now_s > self._aborted_s + ABORT_S:
            return True
        if self.in_flight and now_s - self._progress_s > self._policy.timeout_s + STALL_S:
            # Requests have deadlines of their own, so it is the disk that does not answer.
            self.stop(ExitCode.STORAGE, f"nothing could be saved for {now_s - self._progress_s:.0f} s")
            return True
        return not self._running and bool(self.stops or (self._feed.empty and not self._waiting))

    # What is sent next

    def _fill(self) -> float:
        """Start what may start; the seconds until something else may."""
        while not self.stops:
            now_s, utc = self._clock.monotonic(), self._clock.utc()
            if self._policy.deadline and self._policy.deadline.passed(now_s, utc, self._effects.usual_s()):
                self.stop(ExitCode.WORK_LEFT, self._policy.deadline.reason)
                break
            self._feed.pull_ahead(len(self._waiting))
            self.hold = self._gates.hold(now_s, utc, self.in_flight)
            if self._feed.lease_ahead():
                continue
            self._check_patience(now_s)
            if self.hold or self.stops:
                return self.hold.wait_s if self.hold else math.inf
            if self._gates.breaker.opened_s is None:
                self._probe_cleared = False
            elif not self._probe_cleared:
                self._gates.breaker.probe()
                self._spawn_feeder(self._ask_whether_reachable())
                return math.inf
            task = self._next(now_s)
            if task is None:
                return self._next_due_s(now_s)
            if limit := self._gates.budget.spent(task.cost_usd):
                self.stop(ExitCode.WORK_LEFT, limit)
            else:
                self._start(task, now_s)
        return math.inf

    def _check_patience(self, now_s: float) -> None:
        if (until := self._gates.day.closed_until) and not self._policy.wait_for_quota:
            self.stop(ExitCode.WORK_LEFT, f"the day's quota is spent; it opens again at {joblog.timestamp(until)}")
        elif until and until.date() != self._told_day:
            self._told_day = until.date()
            self._observe(Paced(f"the day's quota is spent; everything pauses until {joblog.timestamp(until)}"))
        if self._gates.breaker.open_for_s(now_s) > self._policy.give_up_after_s:
            self.stop(ExitCode.WORK_LEFT, f"the server has not answered for {duration(self._policy.give_up_after_s)}")

    def _next(self, now_s: float) -> Task | None:
        """The job to send now: one whose backoff is over before new ones, if the retry budget allows."""
        probe = self._probe_cleared
        due = self._waiting and (self._waiting[0][0] <= now_s or (probe and not self._feed.ready))
        if due and (probe or self._gates.retries.hold(now_s) is None):
            return heapq.heappop(self._waiting)[2]
        while self._feed.ready:
            task = self._feed.ready.popleft()
            outcome = failures.step_at_start(task.life, self._policy.allowance).outcome if task.life else None
            if outcome is None:
                return task
            self._spawn(self._finish(task, outcome))
        return None

    def _prepare(self, pending: Pending, now_s: float) -> Task:
        price_usd = self._policy.prices_usd.get(pending.job.model)
        return Task(pending, now_s, now_s, pending.life, price_usd, self._effects.successes)

    def _next_due_s(self, now_s: float) -> float:
        if not self._waiting:
            return math.inf
        tokens = self._gates.retries.hold(now_s)
        return max(self._waiting[0][0] - now_s, tokens.wait_s if tokens else 0.0)

    def _start(self, task: Task, now_s: float) -> None:
        task.queued_s += max(0.0, now_s - task.due_s)
        task.probing, self._probe_cleared = self._probe_cleared, False
        if task.probing:
            self._gates.breaker.probe()
        self.unfinished.add((task.job.id, task.job.fingerprint))
        again = task.again and not task.probing
        self._gates.sent(now_s, task.cost_usd, again=again)
        if not self.in_flight:
            self._progress_s = now_s
        self.in_flight += 1
        self._sending[self._spawn(self._attempt(task))] = None

    def _spawn_feeder(self, work: Coroutine[None, None, None]) -> None:
        """Work beside the jobs', which a run that ends does not wait for."""
        task = self._spawn(work)
        self._running.discard(task)
        self._feeding.add(task)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._feeding.discard(task)
        self._sending.pop(task, None)
        if not task.cancelled() and (error := task.exception()):
            code = ExitCode.STORAGE if isinstance(error, StorageError | OSError) else ExitCode.INTERNAL
            self.stop(code, printable(self._policy.key.hide(f"{type(error).__name__}: {error}")))
        self._progress_s = self._clock.monotonic()
        self._wake.set()

    async def _ask_whether_reachable(self) -> None:
        if await self._transport.reachable():
            self._probe_cleared, self._gates.breaker.probing = True, False
        else:
            self._gates.breaker.probe_ended(self._clock.monotonic())

    # One job's attempt, and what becomes of the job

    async def _attempt(self, task: Task) -> None:
        this, started_s = asyncio.current_task(), self._clock.monotonic()
        assert this is not None

        def answered(reply: Reply | None) -> None:
            self._sending.pop(this, None)
            self._effects.answered(reply.headers if reply else {}, started_s)

        try:
            if (post := await self._post(task)) is None or not await self._remembered(task):
                return
            sent, result = await self._sender.attempt(task, post, answered)
            if isinstance(result, Entry):
                self._effects.success(sent, result.timings.response_s or 0.0, self.in_flight)
                self._observe(Tried(task.job, result.attempts[-1], task.price_usd, len(result.images), task.again))
                if task.price_usd:
                    self._gates.budget.correct(task.price_usd * len(result.images) - task.cost_usd)
                self._finished(result)
            else:
                await self._failed(task, sent, result)
        except asyncio.CancelledError:
            self._abandoned(task)
        except (StorageError, OSError) as error:
            self.stop(ExitCode.STORAGE, printable(str(error)))
        finally:
            self.in_flight -= 1
            if task.probing:
                self._gates.breaker.probe_ended(self._clock.monotonic())

    async def _post(self, task: Task) -> Post | None:
        """What to send; None where nothing can be, and the job stays pending."""
        try:
            return await self._transport.prepare(task.job)
        except asyncio.CancelledError:
            pass  # nothing was sent
        except InputChanged as error:
            self._leave(task, Failure.INPUT_CHANGED, str(error))
        except Exception as error:  # whatever it is, it is this job's record and nobody else's
            sent = Sent(task.next_n, joblog.timestamp(self._clock.utc()), self._clock.monotonic())
            await self._failed(task, sent, Fault(Failure.UNSENDABLE, f"{type(error).__name__}: {error}"))
            return None
        self._gates.budget.unsent(task.cost_usd)
        return None

    async def _remembered(self, task: Task) -> bool:
        """Before a job is repeated that may have been paid for in vain, make that durable: a power cut must not make
        its ration forgotten. False where the run has ended meanwhile."""
        try:
            if task.again and task.life[-1].billed is not Billed.NO:
                await self._keep()
        except asyncio.CancelledError:
            self._gates.budget.unsent(task.cost_usd)
            return False
        return True

    async def _failed(self, task: Task, sent: Sent, fault: Fault) -> None:
        now_s, job, rule = self._clock.monotonic(), task.job, RULES[fault.failure]
        fault = fault.without(self._policy.key)
        others_succeed = self._effects.successes > task.successes_before
        task.successes_before = self._effects.successes
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
        )
        again = task.again
        task.life = (*task.life, attempt)
        self._note(joblog.encode(Ended(job.id, job.fingerprint, attempt, task.price_usd)))
        if rule.billed is Billed.NO:
            self._gates.budget.refused(task.cost_usd)
        self._observe(Tried(job, attempt, task.price_usd, again=again))
        stops = self._effects.failure(task, sent, fault, now_s)
        step = failures.next_step(fault.failure, task.life, task.in_run, self._policy.allowance)
        await self._go_on(task, Step.LEAVE if stops else step, fault, now_s)

    async def _go_on(self, task: Task, step: Step, fault: Fault, now_s: float) -> None:
        if outcome := step.outcome:
            await self._finish(task, outcome)
        elif step is Step.LEAVE:
            self._leave(task, fault.failure, fault.message)
        else:
            wait_s = self._backoff_s(task, fault)
            task.due_s, task.waited_s = now_s + wait_s, task.waited_s + wait_s
            heapq.heappush(self._waiting, (task.due_s, next(self._order), task))

    def _backoff_s(self, task: Task, fault: Fault) -> float:
        rule = RULES[fault.failure]
        if rule.effect in (Effect.COOLDOWN, Effect.QUOTA):
            # After the pause another job tries the way first, if there is one: this one may be the reason.
            pause_s = max(0.0, self._gates.cooldown.until_s - self._clock.monotonic())
            return pause_s + 0.5 + self._random.random()
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = len(task.life) - task.in_run
        least_s = max(rule.min_wait_s, min(fault.asked_s or 0.0, QUOTA_HINT_S))
        return backoff_s(_bound_s(state), self._random.random(), least_s)

    async def _finish(self, task: Task, outcome: Outcome) -> None:
        result = await self._deliver.submit(Verdict(task.draft(self._policy), outcome))
        if isinstance(result, Entry):
            self._finished(result)

    def _finished(self, entry: Entry) -> None:
        self.unfinished.discard((entry.job, entry.fingerprint))
        self._observe(Finished(entry))

    def _abandoned(self, task: Task) -> None:
        """The intent has no end: whether the request was paid for will never be known."""
        self.in_doubt.add((task.job.id, task.job.fingerprint))
        at = joblog.timestamp(self._clock.utc())
        doubt = Attempt(task.next_n, at, 0.0, Billed.MAYBE, failure=Failure.IN_DOUBT)
        self._observe(Tried(task.job, doubt, task.price_usd, again=task.again))

    def _leave(self, task: Task, failure: Failure, message: str) -> None:
        self._observe(Left(task.job, failure, printable(self._policy.key.hide(message))))
