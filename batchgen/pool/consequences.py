"""What one attempt's end means for all at its endpoint: pace, pauses, outages, the day, and whether it goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta

import msgspec

from batchgen.events import Event, Paced
from batchgen.failures import RULES, Again, Effect, End
from batchgen.joblog import timestamp
from batchgen.model import Billed, ExitCode, Failure
from batchgen.pacing import Gates, clock_skew, told
from batchgen.pool.task import Fault, Sent, Task
from batchgen.world import Clock, Randomness

CANARY_REFUSALS = 10
FORBIDDEN_IN_A_ROW = 3
DOUBTED_IN_A_ROW = 3
REMEMBERED_DURATIONS = 200
INTERNAL_ERRORS = 5
MINUTE = timedelta(minutes=1)


class Consequences:
    """Feeds an endpoint's gates with successes and failures, and says stop where going on would be wrong; `name` is the
    endpoint's, where there are several; `may_cost`: its outage's latest failure may have been paid for."""

    def __init__(
        self,
        *,
        gates: Gates,
        clock: Clock,
        randomness: Randomness,
        observe: Callable[[Event], None],
        stop: Callable[[ExitCode, str], None],
        name: str = "",
    ) -> None:
        self._gates, self._clock, self._random = gates, clock, randomness
        self._hear, self._stop, self._name = observe, stop, name
        self.successes = 0
        self.may_cost = False
        self._date: str | None = None
        self._refusals = self._forbidden = self._internal = self._in_a_row = self._outdone = 0
        self._durations_s: deque[float] = deque(maxlen=REMEMBERED_DURATIONS)

    def answered(self, headers: Mapping[str, str], sent_s: float) -> None:
        """What the server says beside its answer to a request that was sent at `sent_s`: its clock, and its limit."""
        self._server_date(headers.get("date"))
        if limit := told(headers):
            self._gates.allotment.hear(limit, sent_s, self._clock.monotonic())

    def _server_date(self, text: str | None) -> None:
        """The server's clock decides when its day begins; told once where it is far from ours."""
        if text == self._date:
            return
        self._date = text
        ahead = clock_skew(text, self._clock.utc())
        if ahead is not None and abs(ahead - self._gates.day.skew) > MINUTE:
            self._gates.day.skew = ahead
            self._observe(Paced(f"the server's clock differs from ours by {ahead.total_seconds():+.0f} s"))

    def usual_s(self) -> float:
        """The 95th percentile of how long recent answers took; 0 before the first."""
        ordered = sorted(self._durations_s)
        return ordered[-(-len(ordered) * 95 // 100) - 1] if ordered else 0.0

    def success(self, sent: Sent, response_s: float, in_flight: int) -> None:
        gates = self._gates
        self.successes += 1
        self._forbidden = self._in_a_row = self._outdone = 0
        self._durations_s.append(response_s)
        gates.cooldown.succeeded(sent.sent_s)
        if gates.breaker.succeeded():
            gates.adaptive.restart("the server is back")
            self._observe(Paced("the server answers again; starting slowly", concurrency=1))
        elif sent.sent_s >= gates.cooldown.until_s and gates.adaptive.succeeded(in_flight):
            limit = int(gates.adaptive.limit)
            self._observe(Paced(f"concurrency {limit}: {gates.adaptive.reason}", routine=True, concurrency=limit))

    @property
    def doubted(self) -> bool:
        """Whether it has refused so many jobs one after another that the reason may be the endpoint."""
        return self._in_a_row >= DOUBTED_IN_A_ROW

    def outdone(self) -> None:
        """Another endpoint has done what this one refused; too often, without a success between, and it is broken."""
        self._outdone += 1
        if self._outdone >= CANARY_REFUSALS:
            self._stop(ExitCode.USAGE, f"{self._outdone} jobs that it refused were done by others")

    def failure(self, task: Task, sent: Sent, fault: Fault, now_s: float) -> bool:
        """Take the failure in; True where it is no fault of the job's own and stops the run."""
        rule, gates = RULES[fault.failure], self._gates
        if task.probing and rule.end is End.REFUSED and rule.effect is not Effect.OUTAGE and gates.breaker.succeeded():
            gates.adaptive.restart("the server is back")
        self._in_a_row += rule.again is Again.NEVER and rule.end is End.REFUSED
        if rule.effect is Effect.OUTAGE:
            self.may_cost = rule.billed is not Billed.NO
        match rule.effect:
            case Effect.FEWER:
                gates.adaptive.cut(0.5, "too many open files")
                self._nobody_succeeds(fault, now_s)
            case Effect.OUTAGE:
                gates.adaptive.slow()
                self._nobody_succeeds(fault, now_s)
            case Effect.COOLDOWN:
                self._cool_down(sent, fault, now_s)
            case Effect.QUOTA if sent.at[:10] == timestamp(self._clock.utc())[:10]:
                # An answer from before midnight tells of a day that is over.
                gates.day.close(self._clock.utc(), self._random.random())
            case Effect.STOP:
                self._stop(rule.exit_code, reason_of(fault))
            case Effect.CANARY:
                return self._canary(fault)
        if fault.failure is Failure.INTERNAL:
            self._internal += 1
            if self._internal >= INTERNAL_ERRORS:
                self._stop(ExitCode.INTERNAL, f"{self._internal} unexpected errors, the last: {fault.message}")
        return False

    def _observe(self, event: Paced) -> None:
        if self._name:
            event = msgspec.structs.replace(event, message=f"{self._name}: {event.message}", endpoint=self._name)
        self._hear(event)

    def _nobody_succeeds(self, fault: Fault, now_s: float) -> None:
        if self._gates.breaker.failed(now_s):
            why = f"{fault.failure}: {fault.message}"
            self._observe(Paced(f"nothing succeeds ({why}); asking now and then", outage=True))

    def _cool_down(self, sent: Sent, fault: Fault, now_s: float) -> None:
        gates = self._gates
        if not gates.cooldown.begin(now_s, sent.sent_s, fault.asked_s, self._random.random()):
            return
        gates.adaptive.cut(0.8, "rate limited")
        pause_s, limit = gates.cooldown.until_s - now_s, int(gates.adaptive.limit)
        message = (
            f"rate limited; {'it' if self._name else 'everything'} pauses {pause_s:.0f} s, then concurrency {limit}"
        )
        self._observe(Paced(message, concurrency=limit, pause_s=round(pause_s, 3)))
        if gates.cooldown.hopeless(now_s):
            gates.cooldown.forget()
            gates.day.close(self._clock.utc(), self._random.random())

    def _canary(self, fault: Fault) -> bool:
        """Refusals that would be the same for every job stop the run before they fail the whole manifest."""
        if fault.failure is Failure.BAD_REQUEST:
            self._refusals += 1
            if not self.successes and self._refusals >= CANARY_REFUSALS:
                self._stop(ExitCode.USAGE, f"the first {self._refusals} requests were all refused: {fault.message}")
            return False
        self._forbidden += fault.failure is Failure.FORBIDDEN
        if self._name and fault.failure is Failure.NOT_FOUND:
            return False  # that one of several servers lacks a model says nothing of other models
        if not self.successes or self._forbidden >= FORBIDDEN_IN_A_ROW:
            self._stop(RULES[fault.failure].exit_code, reason_of(fault))
            return True
        return False


def reason_of(fault: Fault) -> str:
    """Why a failure ends more than its job, and what somebody should look at then."""
    hint = RULES[fault.failure].hint
    return f"{fault.failure}: {fault.message.rstrip('. ')}" + (f" ({hint})" if hint else "")
