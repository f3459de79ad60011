"""What a run would do, cost and take, before it does anything: gathers what is known and says it. Changes nothing."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from batchgen import joblog
from batchgen.advice import Advice
from batchgen.changes import Change, changes, summed
from batchgen.clock import SystemClock
from batchgen.estimate import Estimate, Facts, ModelEstimate, Source, estimate, obstacles
from batchgen.folder import Records, Spending
from batchgen.joblog import Earlier, History
from batchgen.model import ExitCode, Job, Standing, UsageError
from batchgen.plan import Mark, Plan, check_plan, headline
from batchgen.runner.archive import records_at
from batchgen.runner.endpoints import EndpointCheck, endpoints_of, sent_today
from batchgen.runner.online import Offer, against
from batchgen.runner.session import Session, check_folder, need_key, plan_of
from batchgen.runner.storage import check_store, try_store
from batchgen.settings import Settings
from batchgen.text import counted, duration, printable, size


class Difference(msgspec.Struct, frozen=True):
    """One job to be done: where it stands, and what of it changed since the log's last entry for it.

    `file` is where `line` counts if that is not the manifest itself.
    """

    job: str
    line: int
    standing: Standing
    changes: list[Change]
    file: str | None = None

    def __str__(self) -> str:
        said = "; ".join(map(str, self.changes))
        return f"{self.job}: {said or ('new' if self.standing is Standing.PENDING else self.standing.value)}"


class Check(msgspec.Struct, frozen=True):
    """What a run of this manifest would do. `standings` counts the selected jobs, `to_do` the requests by model,
    `changed_by` the changed jobs by parameter; `counted` are jobs that were not looked at one by one, because there are
    very many; `jobs` and `gone` are None unless asked for.
    """

    manifest: str
    output: str
    api: str
    total: int
    selected: int
    standings: dict[str, int]
    to_do: dict[str, int]
    restorable: int
    changed_by: dict[str, int]
    in_doubt: int
    orphans: int
    estimate: Estimate
    warnings: list[Advice]
    notices: list[str]
    endpoints: list[EndpointCheck] = []
    jobs: list[Difference] | None = None
    gone: list[str] | None = None
    counted: int = 0
    store: str | None = None
    store_probed: bool = False
    exit_code: int = 0
    v: int = 1


@dataclass
class _Watcher:
    """Hears of every selected job, and counts or lists what changed."""

    records: Records | None
    style: str
    listed: list[Difference] | None
    by_name: Counter[str] = field(default_factory=Counter)

    def __call__(self, job: Job, standing: Standing, mark: Mark) -> None:
        if mark is not Mark.DO:
            return
        found: list[Change] = []
        if standing is Standing.CHANGED:
            found = self._changes(job)
            self.by_name.update(change.name for change in found)
        if self.listed is not None:
            self.listed.append(Difference(job.id, job.line, standing, found, job.file))

    def _changes(self, job: Job) -> list[Change]:
        assert self.records is not None
        try:
            entry = self.records.last_entry(job.id)
        except joblog.BAD_LINE:  # an entry of which only the fold's part can be read
            return []
        return changes(job, self.style, entry) if entry else []


def check(
    session: Session, ask: Callable[[], Offer] | None = None, *, diff: bool = False, by_exit_code: bool = False
) -> Check:
    """Validate the manifest and plan a run; `ask` asks the API, once the manifest is known to be good.

    Raises ManifestError with all problems.
    """
    settings = session.settings
    with records_at(settings.output, settings.shard, session.env) as records:
        if records:
            check_store(settings, records.files)
            check_folder(session, records)
        watcher = _Watcher(records, settings.style, [] if diff else None)
        standing = records.standing if records else lambda job: Standing.PENDING
        new = records is None or not records.fold.jobs
        plan = plan_of(session, standing, watcher, count=new and not diff)
        if ask and settings.store:
            try_store(settings.store, new=records is None)
        offer = ask() if ask else None
        facts = _facts(session, records, plan, offer or Offer())
        found = estimate(plan, settings.limits, facts)
        refusal = _refusal(session, plan)
        against_it = [*obstacles(found, settings.limits, facts), *refusal]
        if offer:
            against_it += against(offer, plan.to_do, settings.prices_usd)
        return Check(
            manifest=str(settings.manifest),
            output=str(settings.output),
            api=settings.style,
            total=plan.total,
            selected=plan.selected,
            standings={standing.value: count for standing, count in plan.standings.items()},
            to_do=dict(plan.to_do),
            restorable=plan.restorable,
            changed_by=dict(watcher.by_name),
            in_doubt=len(records.lives.doubtful()) if records else 0,
            orphans=records.fold.jobs - plan.in_log if records else 0,
            estimate=found,
            warnings=plan.advisor.warnings(),
            notices=[*session.notices, *session.source.notices, *against_it],
            endpoints=endpoints_of(session),
            jobs=watcher.listed,
            gone=_gone(session, records) if diff else None,
            counted=plan.counted,
            store=str(settings.store) if settings.store else None,
            store_probed=bool(ask and settings.store),
            exit_code=_exit_code(plan, refusal) if by_exit_code else ExitCode.OK,
        )


def _exit_code(plan: Plan, refusal: Sequence[str]) -> ExitCode:
    """For make: whether there is work to do, or nothing because a run would not even begin."""
    if plan.remaining or plan.restorable:
        return ExitCode.TO_DO
    return ExitCode.USAGE if refusal else ExitCode.OK


def _gone(session: Session, records: Records | None) -> list[str]:
    return records.orphans(job.id for job in session.jobs() if isinstance(job, Job)) if records else []


def _facts(session: Session, records: Records | None, plan: Plan, offer: Offer) -> Facts:
    settings = session.settings
    spent, lives = (records.spent, records.lives) if records else (Spending(), None)
    return Facts(
        earlier=_earlier(records, settings.style, plan),
        prices_usd=settings.prices_usd,
        api_prices_usd=offer.prices_usd,
        spent_usd=spent.spent_usd,
        exposure_usd=spent.exposure_usd + (lives.exposure_usd() if lives else 0.0),
        requests=spent.requests + (len(lives.ended()) if lives else 0),
        sent_today=sent_today(session, records),
        balance_usd=offer.balance_usd,
        free_bytes=None if settings.store else _free_bytes(settings.output),
        runtime_s=_runtime_s(settings, SystemClock().utc()),
    )


def _runtime_s(settings: Settings, now: datetime) -> float | None:
    """How long a run that begins now may work."""
    ends = [] if settings.until is None else [round((settings.until - now).total_seconds(), 1)]
    ends += [] if settings.max_runtime_s is None else [settings.max_runtime_s]
    return min(ends, default=None)


def _earlier(records: Records | None, style: str, plan: Plan) -> Mapping[str, Earlier]:
    """How the pictures of the models to be used went before, by a walk over the log."""
    history = History(style, plan.to_do)
    if records and plan.to_do:
        records.read_again(history.add)
    return history.by_model


def _free_bytes(output: Path) -> int | None:
    """What is free where the output folder is, or will be."""
    place = output.absolute()
    try:
        found = os.statvfs(next(folder for folder in (place, *place.parents) if folder.exists()))
    except (OSError, StopIteration):
        return None
    return found.f_bavail * found.f_frsize


def _refusal(session: Session, plan: Plan) -> list[str]:
    """Why a run would refuse to begin."""
    try:
        check_plan(plan, session.settings.selection)
        if plan.remaining:
            need_key(session.access)
    except UsageError as error:
        return [f"a run would be refused: {error}"]
    return []


def render(found: Check) -> Iterator[str]:
    """The check for people, a line at a time."""
    yield headline(found.total, found.selected, found.standings)
    for model, each in found.estimate.models.items():
        yield f"  to do      {each.requests} x {printable(model, 100)}, {_answer(each)}"
    if found.counted:
        yield f"  counted    {found.counted:,} of them were not built; a run checks each before it sends anything"
    yield from map(str, found.endpoints)
    if found.store:
        tried = "put, head, get and delete work" if found.store_probed else "--online tries to put and delete there"
        yield f"  store      {found.store} ({tried})"
    if found.changed_by:
        yield f"  changed    {', '.join(summed(found.changed_by))}"
    for warning in found.warnings:
        yield f"  warning    {warning}"
    if found.to_do:
        yield from _needs(found.estimate)
    if found.in_doubt:
        yield f"  in doubt   {counted(found.in_doubt, 'job')} may have been paid for without an answer"
    if found.orphans:
        yield f"  orphans    {found.orphans} jobs of the log are no longer in the manifest"
    for notice in found.notices:
        yield f"  note       {notice}"
    if not found.to_do:
        yield "  nothing to do" if not found.restorable else "  nothing to send"
    yield from map(str, found.jobs or ())
    yield from (f"{job}: gone from the manifest" for job in found.gone or ())


def _answer(each: ModelEstimate) -> str:
    known = each.response_source is Source.LOG
    where = f"the median of the last {each.earlier_pictures}" if known else "assumed, none was made here yet"
    return f"{each.response_s:.1f} s each ({where})"


def _unknown_price(models: Sequence[str]) -> str:
    names = ", ".join(printable(model, 100) for model in models)
    return f"no price is known for {names} (prices_usd, --price or --online)"


def _needs(found: Estimate) -> Iterator[str]:
    money, time, disk = found.money, found.time, found.disk
    cost = f"${money.cost_usd:.4f}" if money.cost_usd is not None else _unknown_price(money.unpriced)
    if any(each.price_source is Source.API for each in found.models.values()):
        cost += " by the API's prices"
    if money.spent_usd or money.exposure_usd:
        cost += f", ${money.spent_usd + money.exposure_usd:.4f} spent before"
    if money.budget_left_usd is not None:
        cost += f", ${money.budget_left_usd:.4f} left of ${money.max_cost_usd:g}"
    if money.balance_usd is not None:
        cost += f", the account holds ${money.balance_usd:.4f}"
    yield f"  cost       {cost}"
    bound = "the requests a minute" if time.bound_by == "requests_per_minute" else f"{found.concurrency.set} in flight"
    yield f"  time       about {duration(time.duration_s)}, bound by {bound}, without retries"
    if (useful := found.concurrency.useful) is not None:
        pace = f"{found.concurrency.requests_per_minute:g} requests a minute"
        yield f"  in flight  {found.concurrency.set} at most; {pace} keep about {max(1, math.ceil(useful))} busy"
    if time.nights is not None:
        sent = f", {time.sent_today} of today's are sent" if time.sent_today else ""
        yield f"  nights     {counted(time.nights, 'quota day')} of {time.requests_per_day} requests{sent}"
    assumed = any(each.picture_source is Source.ASSUMED for each in found.models.values())
    where = "assumed from their pixels" if assumed else "by earlier pictures"
    free = f"; {size(disk.free_bytes)} free" if disk.free_bytes is not None else ""
    yield f"  disk       about {size(disk.needed_bytes)} ({where}){free}"
