"""The pool's nouns: what it is told, what it is given to do, and how far each job is. No decisions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from batchgen.failures import Allowance
from batchgen.joblog import Draft
from batchgen.model import Attempt, Billed, ExitCode, Failure, Job, Reply, Secret
from batchgen.pacing import Gates
from batchgen.text import printable
from batchgen.world import Account, Transport

if TYPE_CHECKING:
    from batchgen.pool.lane import Lane


@dataclass(frozen=True)
class Deadline:
    """When to stop sending: at a moment of the wall clock (`utc`), after a time of the monotonic clock (`end_s`)."""

    reason: str
    utc: datetime | None = None
    end_s: float = math.inf

    def passed(self, now_s: float, utc: datetime, usual_s: float) -> bool:
        """Whether a request that takes as long as usual would end too late."""
        by_wall = self.utc is not None and (self.utc - utc).total_seconds() <= usual_s
        return by_wall or self.end_s - now_s <= usual_s


@dataclass(frozen=True)
class Policy:
    """What the pool is told once: names for the log, limits of patience, prices. `key` hides those of all endpoints."""

    run: str
    manifest: str
    api: str
    key: Secret
    allowance: Allowance
    give_up_after_s: float = 1800.0
    wait_for_quota: bool = False
    deadline: Deadline | None = None
    prices_usd: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """One endpoint as the pool is told of it: how requests reach it, which account they are counted on, when they may
    leave, and how long an answer may take. Only where there are several has it a `name`, for log and messages.
    """

    transport: Transport
    account: Account
    gates: Gates
    timeout_s: float
    requests_per_minute: float | None = None
    name: str = ""

    @property
    def concurrency(self) -> int:
        return self.gates.adaptive.ceiling


class Pending(msgspec.Struct, frozen=True):
    """A job to be done, with its attempts so far and the number of the last one that the log already tells."""

    job: Job
    life: tuple[Attempt, ...] = ()
    last_n: int = 0


@dataclass(frozen=True)
class Stop:
    """Nothing more is sent; `exit_code` and `reason` are the run's."""

    exit_code: ExitCode
    reason: str


def cost_usd(job: Job, price_usd: float | None) -> float:
    """What a request for the job is expected to cost, where one picture costs `price_usd`."""
    n = job.request.get("n", 1)  # asks for several pictures
    return (price_usd or 0.0) * (n if isinstance(n, int) and n > 0 else 1)


@dataclass(slots=True)
class Task:
    """A job on its way through the pool; data while it waits.

    `due_s` is the monotonic time from which it may be sent, `life` all its attempts ever, `successes_before` how many
    others had succeeded when it was last sent, `probing` that it is sent to learn whether an outage is over, `cost_usd`
    what its next request is expected to cost. `failed_at` is the lane that failed it last, `barred` are those that have
    refused it and would again.
    """

    pending: Pending
    ready_s: float
    due_s: float
    life: tuple[Attempt, ...]
    price_usd: float | None
    successes_before: int
    queued_s: float = 0.0
    waited_s: float = 0.0
    probing: bool = False
    failed_at: Lane | None = None
    barred: tuple[Lane, ...] = ()
    job: Job = field(init=False)
    cost_usd: float = field(init=False)

    def __post_init__(self) -> None:
        self.job = self.pending.job
        self.cost_usd = cost_usd(self.job, self.price_usd)

    @property
    def in_run(self) -> int:
        """The place in `life` where this run's attempts begin."""
        return len(self.pending.life)

    @property
    def again(self) -> bool:
        """Whether this run has sent the job before."""
        return len(self.life) > self.in_run

    def repeats(self, endpoint: str) -> bool:
        """Whether this run has asked this endpoint (the only one is nameless) for the job before."""
        return bool(self.life) and any(tried.endpoint == (endpoint or None) for tried in self.life[self.in_run :])

    @property
    def tries(self) -> int:
        """How often this run has sent the job."""
        return len(self.life) - self.in_run

    @property
    def next_n(self) -> int:
        return (self.life[-1].n if self.life else self.pending.last_n) + 1

    def draft(self, policy: Policy, sent: Sent | None = None, reply: Reply | None = None) -> Draft:
        """Everything of the job's entry that is known, with the attempt that `reply` has just ended."""
        life = self.life
        if sent and reply:
            elapsed_s = round(reply.response_s, 6)
            answered = Attempt(sent.n, sent.at, elapsed_s, Billed.YES, http=reply.status, endpoint=sent.endpoint)
            life = (*life, answered)
        return Draft(
            job=self.job,
            run=policy.run,
            manifest=policy.manifest,
            api=policy.api,
            attempts=life,
            ready_s=self.ready_s,
            queued_s=self.queued_s,
            waited_s=self.waited_s,
            first_byte_s=reply.first_byte_s if reply else None,
            response_s=reply.response_s if reply else None,
            price_usd=self.price_usd,
        )


class Sent(msgspec.Struct, frozen=True):
    """One attempt under way; `endpoint` names who was asked, where there are several."""

    n: int
    at: str
    sent_s: float
    endpoint: str | None = None


class Fault(msgspec.Struct, frozen=True):
    """How an attempt failed, in the words of the classification; `asked_s` is the pause the server asked for, `urls`
    are where pictures lie that could not be fetched."""

    failure: Failure
    message: str
    http: int | None = None
    code: str | None = None
    asked_s: float | None = None
    urls: tuple[str, ...] = ()

    def without(self, key: Secret) -> Fault:
        """The same, should the server have echoed the key, and fit to be shown."""
        code = self.code and printable(key.hide(self.code))
        urls = tuple(key.hide(url) for url in self.urls)
        return msgspec.structs.replace(self, message=printable(key.hide(self.message)), code=code, urls=urls)
