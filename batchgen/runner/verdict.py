"""What a run adds up to: its tally and its plan become a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchgen import joblog, summary
from batchgen.model import Outcome
from batchgen.plan import Plan
from batchgen.runner.context import Run
from batchgen.summary import JobCounts, Summary

if TYPE_CHECKING:
    from batchgen.runner.engine import Sends


def summarize(this: Run, plan: Plan, pool: Sends | None) -> Summary:
    """The numbers of the run as they are now, at its end or before."""
    wall_s = this.clock.monotonic() - this.began_s
    tally, settled = this.tally, plan.settled
    done = settled(Outcome.DONE) + tally.done
    failed = settled(Outcome.FAILED) + tally.failed
    uncertain = settled(Outcome.UNCERTAIN) + tally.uncertain
    counts = JobCounts(plan.selected, done, failed, uncertain, plan.selected - done - failed - uncertain)
    stops = pool.stops if pool else []
    code = summary.exit_code(counts, [stop.exit_code for stop in stops])
    return Summary(
        run=this.run,
        manifest=str(this.settings.manifest),
        output=str(this.settings.output),
        store=str(this.settings.store) if this.settings.store else None,
        exit_code=code,
        verdict=summary.verdict(code, counts, tally.done, [s.reason for s in stops if s.exit_code is code]),
        started_at=this.state.started_at,
        finished_at=joblog.timestamp(this.clock.utc()),
        wall_s=round(wall_s, 3),
        total=plan.total,
        selected=plan.selected,
        done=done,
        failed=failed,
        uncertain=uncertain,
        pending=counts.pending,
        in_doubt=len(this.folder.lives.doubtful() | (pool.in_doubt if pool else set())),
        made=tally.done,
        requests=tally.requests,
        retries=tally.retries,
        pictures_per_minute=round(tally.pictures / wall_s * 60, 2) if tally.pictures and wall_s else None,
        inference_s=tally.inference(),
        cost_usd=round(tally.cost_usd, 6) if tally.priced else None,
        exposure_usd=round(tally.exposure_usd, 6) if tally.priced else None,
        failures=sorted(tally.groups.values(), key=lambda group: -group.count),
        left=tally.left,
        notices=this.notices,
        endpoints=tally.by_endpoint(),
    )
