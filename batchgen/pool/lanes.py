"""All the endpoints of a run: which of them takes a job now, and when there is none left that could.

One endpoint is a list of length one; what is said of "another" one never holds there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from batchgen.events import Event, Paced
from batchgen.failures import RULES, Again, Effect, Step
from batchgen.joblog import timestamp
from batchgen.model import ExitCode, Failure
from batchgen.pool.consequences import reason_of
from batchgen.pool.lane import Lane
from batchgen.pool.task import Fault, Policy, Stop, Task
from batchgen.text import duration, printable
from batchgen.world import Clock

AVOIDS_S = 30.0
# What one server refuses and another may do, and what asking costs nothing: it has not the model, the key there may not
# use it, it takes no such request.
_OF_THE_SERVER = (Failure.NOT_FOUND, Failure.FORBIDDEN, Failure.BAD_REQUEST)
_OF_THE_RUN = (ExitCode.STORAGE, ExitCode.INTERNAL)


class Lanes:
    """The lanes that are still asked are `open`; the run is told to `stop` with the last of them."""

    def __init__(
        self,
        policy: Policy,
        lanes: Sequence[Lane],
        *,
        clock: Clock,
        observe: Callable[[Event], None],
        stop: Callable[[ExitCode, str], None],
    ) -> None:
        self._policy, self._clock, self._observe, self._stop = policy, clock, observe, stop
        self.all = list(lanes)
        self.open = list(lanes)
        self.several = len(self.all) > 1
        self._turn = 0
        self._told_days: set[tuple[Lane, object]] = set()

    @property
    def in_flight(self) -> int:
        return sum(lane.in_flight for lane in self.all)

    def out_of_time(self, now_s: float, utc: datetime) -> str | None:
        """Why nothing more can be answered in time; None without a deadline, or where an endpoint is fast enough."""
        if (deadline := self._policy.deadline) is None:
            return None
        for lane in self.open:
            lane.too_late = deadline.passed(now_s, utc, lane.effects.usual_s())
        return deadline.reason if all(lane.too_late for lane in self.open) else None

    def free(self, now_s: float, utc: datetime) -> tuple[list[Lane], float]:
        """The lanes that may be asked now, the one with most room first; and how long the others wait at least."""
        found, wait_s = [], float("inf")
        for lane in self.open:
            if lane.too_late:
                continue
            if held := lane.hold(now_s, utc):
                wait_s = min(wait_s, held.wait_s)
            else:
                found.append(lane)
        if len(found) > 1:
            found.sort(key=lambda lane: (lane.load, lane.turn))
        return found, wait_s

    def chosen(self, lane: Lane) -> None:
        """Of lanes with as much room, the one that was chosen longest ago is next."""
        self._turn += 1
        lane.turn = self._turn

    # Where a job may go

    def suits(self, task: Task, lane: Lane, now_s: float) -> bool:
        """Whether the job should go there: not to who refused it; where it has just failed elsewhere, only to who is
        well, if somebody is and has room before long."""
        if not self.several:
            return True
        if not self.could_do(task, lane):
            return False
        if task.failed_at is None or now_s >= task.due_s + AVOIDS_S:
            return True
        if task.failed_at is not lane and lane.is_well(now_s):
            return True
        return not self.others_are_well(task, now_s)

    def could_do(self, task: Task, lane: Lane) -> bool:
        """Whether nothing but pace, pauses and being closed keeps the job from going there."""
        return _takes(task, lane) or not any(_takes(task, each) for each in self.all)

    def spare(self, task: Task, tries: int, now_s: float) -> bool:
        """Whether a job that has been tried so often may go to another lane without a pause."""
        return self.several and tries < len(self.open) and self.others_are_well(task, now_s)

    def others_are_well(self, task: Task, now_s: float) -> bool:
        """Whether a lane that did not fail the job last, and has not refused it, could be asked soon."""
        return any(each is not task.failed_at and _takes(task, each) and each.is_well(now_s) for each in self.open)

    def refused(self, task: Task, lane: Lane, fault: Fault, *, ending: bool) -> Step | None:
        """What becomes of a job that failed there for what may be the endpoint's own reasons: another may well do it.
        None where the reason is the job's, or there is only this endpoint. `ending`: the run sends nothing more."""
        if not (self.several and _is_the_lanes(lane, fault)):
            return None
        rule = RULES[fault.failure]
        if rule.again is Again.NEVER:
            task.barred = (*task.barred, lane)
        if fault.failure is Failure.NOT_FOUND:
            self._lacks(lane, task.job.model, fault)
            if any(each.closed and _takes(task, each) for each in self.all):
                return Step.RETRY  # of those that are asked no more one may have the model: none of the others is asked
        if any(each is not lane and _takes(task, each) for each in self.open):
            return Step.RETRY
        if fault.failure is Failure.NOT_FOUND and not any(each.effects.successes for each in self.all):
            self._stop(rule.exit_code, reason_of(fault))
            return Step.LEAVE
        return Step.FAIL if rule.again is Again.NEVER and not ending else Step.LEAVE

    def _lacks(self, lane: Lane, model: str, fault: Fault) -> None:
        """The endpoint does not have this model, so jobs for it go to those that may have it."""
        if model not in lane.lacks:
            lane.lacks.add(model)
            message = f"{lane.name} does not have the model {printable(model, 100)}: {fault.message}"
            self._observe(Paced(message, endpoint=lane.name, notice=True))

    # When there is no other

    def close(self, lane: Lane, exit_code: ExitCode, reason: str) -> None:
        """Ask this endpoint no more, and end the run where it was the last, or where the reason is not the endpoint."""
        if not self.several or exit_code in _OF_THE_RUN:
            self._stop(exit_code, reason)
            return
        if lane.closed:
            return
        lane.closed = Stop(exit_code, reason)
        self.open.remove(lane)
        if self.open:
            self._observe(Paced(f"{lane.name} is not asked any more: {reason}", endpoint=lane.name, notice=True))
            return
        for code in dict.fromkeys(each.closed.exit_code for each in self.all if each.closed):
            why = [f"{e.name}: {e.closed.reason}" for e in self.all if e.closed and e.closed.exit_code is code]
            self._stop(code, "; ".join(why))

    def check_patience(
        self, now_s: float, has_work: Callable[[Lane], bool], make_room: Callable[[Failure, str], bool]
    ) -> None:
        """End the run where every endpoint that has something to do is closed, spent for the day, or has been mute too
        long; but where others could do jobs that are not fetched yet, only `make_room` for these."""
        if not any(lane.in_trouble for lane in self.all):
            return
        spent, mute = self._spent(), self._mute(now_s)
        closed = [lane for lane in self.all if lane.closed]
        hopeless = [*closed, *mute, *spent]
        if not hopeless or any(lane.in_flight for lane in closed):
            return
        others = [lane for lane in self.open if lane not in hopeless]
        if any(map(has_work, others)):
            return
        left = self._why(spent, mute) or [
            Stop(lane.closed.exit_code, f"{lane.name}: {lane.closed.reason}")
            for lane in closed
            if lane.closed and has_work(lane)
        ]
        failure = Failure.QUOTA_SPENT if spent else Failure.NOT_CONNECTED
        if left and others and make_room(failure, reason := "; ".join(stop.reason for stop in left)):
            self._observe(Paced(f"jobs that no other endpoint could do are left: {reason}", notice=True))
            return
        for stop in left:
            self._stop(stop.exit_code, stop.reason)

    def _spent(self) -> list[Lane]:
        """Who is not waited for until the next day begins."""
        spent = [lane for lane in self.open if lane.gates.day.closed_until]
        if self._policy.wait_for_quota or self.several:
            for lane in spent:
                self._tell_day(lane)
        return [] if self._policy.wait_for_quota else spent

    def _mute(self, now_s: float) -> list[Lane]:
        """Who has not answered for too long. Where others do, one whose vain requests may cost is asked no more."""
        patience_s = self._policy.give_up_after_s
        mute = [lane for lane in self.open if lane.gates.breaker.open_for_s(now_s) > patience_s]
        for lane in mute if len(mute) < len(self.open) else ():
            if lane.effects.may_cost:
                reason = f"nothing has succeeded for {duration(patience_s)}, and its requests may cost money"
                self.close(lane, ExitCode.WORK_LEFT, reason)
        return [lane for lane in mute if not lane.closed]

    def _why(self, spent: Sequence[Lane], mute: Sequence[Lane]) -> list[Stop]:
        reasons = []
        if until := min(filter(None, (lane.gates.day.closed_until for lane in spent)), default=None):
            reasons.append(f"the day's quota is spent; it opens again at {timestamp(until)}")
        if mute:
            who = ", ".join(lane.name for lane in mute) + " have" if self.several else "the server has"
            reasons.append(f"{who} not answered for {duration(self._policy.give_up_after_s)}")
        return [Stop(ExitCode.WORK_LEFT, "; ".join(reasons))] if reasons else []

    def _tell_day(self, lane: Lane) -> None:
        """Once a day, for how long an endpoint rests."""
        until = lane.gates.day.closed_until
        assert until is not None
        if (told := (lane, until.date())) in self._told_days:
            return
        self._told_days.add(told)
        pause_s = max((until - self._clock.utc()).total_seconds(), 0.0)
        all_of_it = (
            "the day's quota is spent; everything pauses"
            if not self.several
            else (f"{lane.name}: the day's quota is spent; it pauses")
        )
        message = f"{all_of_it} until {timestamp(until)}"
        self._observe(Paced(message, pause_s=round(pause_s, 3), endpoint=lane.name or None))


def _is_the_lanes(lane: Lane, fault: Fault) -> bool:
    """Whether a failure may be the endpoint's own; to have a prompt's content judged twice may cost money, so that is
    asked of others only where this one refuses everything."""
    if fault.failure is Failure.REFUSED_CONTENT:
        return lane.effects.doubted
    return RULES[fault.failure].effect is Effect.STOP or fault.failure in _OF_THE_SERVER


def _takes(task: Task, lane: Lane) -> bool:
    return lane not in task.barred and task.job.model not in lane.lacks
