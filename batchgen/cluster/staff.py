"""Which machine has a worker, and which gets another: the driver's view of who works for it. Hands out no job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from batchgen.cluster.messages import Errand, Lost, Nodes, Peer, Spent
from batchgen.events import Event, Paced
from batchgen.joblog import Intent
from batchgen.model import ExitCode
from batchgen.pool import Pending, Stop, cost_usd
from batchgen.text import duration, printable
from batchgen.world import Clock

STARTS = 3
START_S = 60.0
Who = tuple[str, str]


@dataclass
class Handed:
    """A job that a worker has; `n` is the number of the request that its intent tells of, `sent` whether the worker has
    said that it leaves, `usd` what a request is expected to cost."""

    pending: Pending
    n: int
    usd: float
    sent: bool = False


@dataclass
class Crew:
    """A worker, what it has to do, and what it last said of itself; `requests` and `usd` are those it has told of."""

    peer: Peer
    node: str
    open: dict[Who, Handed] = field(default_factory=dict)
    ready: bool = False
    over: bool = False
    in_flight: int = 0
    waiting: int = 0
    limits: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    usd: float = 0.0

    @property
    def slice(self) -> int:
        """How many jobs it is handed at once: as many as it may have in flight now, so that few are in doubt when it is
        lost; two slices at most are with it."""
        return max(1, sum(self.limits.values()))

    def entrust(self, pending: Pending, n: int, price_usd: float | None) -> None:
        job = pending.job
        self.open[job.id, job.fingerprint] = Handed(pending, n, cost_usd(job, price_usd))

    def sends(self, intent: Intent) -> None:
        """The worker says that a request leaves."""
        if handed := self.open.get((intent.job, intent.fingerprint)):
            handed.sent = handed.sent or intent.n == handed.n
            self.requests, self.usd = self.requests + 1, self.usd + handed.usd

    def most_spent(self) -> Spent:
        """What it may have spent at most: for each job that it has, one request may have left without a word."""
        usd = self.usd + sum(handed.usd for handed in self.open.values())
        return Spent(self.peer.name, 0, self.requests + len(self.open), usd, 0, 0.0)


class Staff:
    """The workers of a run, one a machine; `listen` is called with each new one, `stop` where there is no hope."""

    def __init__(
        self,
        nodes: Nodes,
        errand: Errand,
        clock: Clock,
        *,
        listen: Callable[[Crew], None],
        stop: Callable[[ExitCode, str], None],
        observe: Callable[[Event], None],
    ) -> None:
        self._nodes, self._errand, self._clock = nodes, errand, clock
        self._listen, self._stop, self._observe = listen, stop, observe
        self.crews: list[Crew] = []
        self._names = count(1)
        self._strikes: dict[str, int] = {}
        self._alive: frozenset[str] = frozenset()
        self._retired: dict[str, Stop] = {}
        self._complete = False
        self._began_s = self._alone_since_s = clock.monotonic()

    async def look(self) -> None:
        """Every machine that can work has a worker; one that lost three without a result gets no other."""
        try:
            alive = await self._nodes.alive()
        except Lost as error:
            self._stop(ExitCode.INTERNAL, f"the cluster is gone: {printable(str(error))}")
            return
        self._alive = frozenset(alive)
        staffed = {crew.node for crew in self.crews}
        for node, label in alive.items():
            if node not in staffed and node not in self._retired:
                self._start(node, label)
        self._check_retired()
        self._check_patience()

    def _start(self, node: str, label: str) -> None:
        name = f"{label}-{next(self._names)}"
        try:
            crew = Crew(self._nodes.start(node, name, self._errand), node)
        except Lost as error:
            self._strike(node, name, str(error))
            return
        self.crews.append(crew)
        self._listen(crew)

    def _check_patience(self) -> None:
        now_s, patience_s = self._clock.monotonic(), self._errand.policy.give_up_after_s
        if any(crew.ready for crew in self.crews):
            self._alone_since_s = now_s
        elif now_s - self._alone_since_s > patience_s:
            self._stop(ExitCode.WORK_LEFT, f"no machine has been at work for {duration(patience_s)}")

    def at_work(self) -> set[str]:
        """The names of the workers that have opened what they work with."""
        return {crew.peer.name for crew in self.crews if crew.ready}

    @property
    def complete(self) -> bool:
        """Whether all who are there have opened what they work with, or have had time enough: what keeps one of them
        from working is found before anything is sent."""
        if not self._complete and self.crews:
            late = self._clock.monotonic() - self._began_s > START_S
            self._complete = late or all(crew.ready for crew in self.crews)
        return self._complete

    def lost(self, crew: Crew, why: str) -> str:
        """A worker is gone; what to tell of it."""
        return self._strike(crew.node, crew.peer.name, why, told=crew.ready)

    def made(self, crew: Crew) -> None:
        """A worker has made something: whatever happened on its machine before is forgiven."""
        self._strikes.pop(crew.node, None)

    def _strike(self, node: str, name: str, why: str, *, told: bool = False) -> str:
        words = printable(self._errand.policy.key.hide(f"{name}: {why}"), 300)
        self._strikes[node] = strikes = self._strikes.get(node, 0) + 1
        if not told:
            self._observe(Paced(f"a worker could not be started ({words})"))
        if strikes == STARTS:
            self.retire(node, name, Stop(ExitCode.INTERNAL, f"no worker can be kept at work: {why}"))
        return words

    def retire(self, node: str, name: str, stop: Stop) -> None:
        """The machine gets no other worker in this run; the run goes on where there are others."""
        reason = printable(self._errand.policy.key.hide(stop.reason))
        whose = f"{name}: " if stop.exit_code is not ExitCode.WORK_LEFT else ""
        self._retired[node] = Stop(stop.exit_code, f"{whose}{reason}")
        if not self._check_retired():
            self._observe(Paced(f"{name} has stopped ({reason})"))

    def _check_retired(self) -> bool:
        """End the run where no machine is left, for the reasons of all of them; whether it was ended."""
        none_left = bool(self._alive) and self._alive <= self._retired.keys()
        if none_left:
            for stop in self._retired.values():
                self._stop(stop.exit_code, stop.reason)
        return none_left
