"""What whoever sends is told once, from settings and folder: policy, money, and the jobs as there is room for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from batchgen.failures import Allowance
from batchgen.folder import Spending
from batchgen.model import Secret
from batchgen.pacing import Budget
from batchgen.plan import Plan
from batchgen.pool import Deadline, Pending, Policy
from batchgen.runner.context import Run

Pull = Callable[[int], Awaitable[Sequence[Pending]]]


def policy_of(this: Run, key: Secret) -> Policy:
    settings, limits = this.settings, this.settings.limits
    return Policy(
        run=this.run,
        manifest=settings.manifest.name,
        api=settings.style,
        key=key,
        allowance=Allowance(limits.attempts, limits.uncertain_retries),
        give_up_after_s=settings.give_up_after_s,
        wait_for_quota=settings.wait_for_quota,
        prices_usd=dict(settings.prices_usd),
        deadline=_deadline(this),
    )


def budget_of(this: Run) -> Budget:
    limits, spent, lives = this.settings.limits, this.folder.spent, this.folder.lives
    over_usd = this.overdrawn(Spending.at_risk_usd, lambda limits: limits.max_cost_usd)
    over = this.overdrawn(lambda spent: spent.requests, lambda limits: limits.max_requests)
    return Budget(
        limits.max_cost_usd,
        limits.max_requests,
        spent.at_risk_usd() + lives.exposure_usd() + over_usd,
        spent.requests + len(lives.ended()) + math.ceil(over),
    )


def _deadline(this: Run) -> Deadline | None:
    settings = this.settings
    if settings.until is None and settings.max_runtime_s is None:
        return None
    end_s = math.inf if settings.max_runtime_s is None else this.began_s + settings.max_runtime_s
    return Deadline("the time that was set is up", settings.until, end_s)


def puller(this: Run, plan: Plan, reader: ThreadPoolExecutor) -> Pull:
    """Hands out jobs as there is room for them, reading the manifest beside the event loop."""
    jobs = plan.to_send(this.session.jobs)
    folder = this.folder

    def some(n: int) -> list[Pending]:
        found = []
        for job in islice(jobs, n):
            row = folder.fold.row(job.id, job.fingerprint)
            life = folder.lives.of(job.id, job.fingerprint)
            found.append(Pending(job, life, row.last_n if row else 0))
        this.session.source.check_unchanged()
        return found

    async def pull(n: int) -> Sequence[Pending]:
        return await asyncio.get_running_loop().run_in_executor(reader, some, n)

    return pull
