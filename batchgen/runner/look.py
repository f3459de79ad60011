"""Looks at a folder without touching it: where it stands."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from batchgen.folder import State
from batchgen.joblog import BAD_LINE
from batchgen.layout import Books
from batchgen.model import Outcome
from batchgen.plan import Plan
from batchgen.runner.archive import Archive, open_archive
from batchgen.runner.session import open_session, plan_of
from batchgen.settings import Flags
from batchgen.text import counted


class Status(msgspec.Struct, frozen=True):
    """Where a folder stands. `total` is None where the manifest cannot be found any more."""

    output: str
    manifest: str | None
    total: int | None
    done: int
    failed: int
    uncertain: int
    pending: int | None
    in_doubt: int
    orphans: int
    requests: int
    cost_usd: float
    exposure_usd: float
    run: str | None
    running: bool
    doing: str | None
    heartbeat_at: str | None
    last_verdict: str | None
    store: str | None = None
    v: int = 1


def status(path: Path, env: Mapping[str, str]) -> Status:
    """Where the output folder `path` stands, or the one that belongs to the manifest `path`."""
    with open_archive(path) as archive:
        manifest = path if path.is_file() else archive.manifest
        plan = _plan(manifest, archive, env) if manifest else None
        return _status(archive, manifest, plan)


def _plan(manifest: Path, archive: Archive, env: Mapping[str, str]) -> Plan:
    """The plan that the last run would have now."""
    flags, state = Flags(manifest, output=archive.root), archive.state
    if state:
        flags = replace(flags, api=state.api or None, defaults=state.defaults, format=state.format or None)
    session = open_session(flags, env)
    return plan_of(session, archive.records.standing)


def _status(archive: Archive, manifest: Path | None, plan: Plan | None) -> Status:
    root, state, fold, lives = archive.root, archive.state, archive.records.fold, archive.records.lives
    counts: Mapping[Outcome, int] = (
        {outcome: plan.settled(outcome) for outcome in Outcome} if plan else Counter(fold.counts())
    )
    return Status(
        output=str(root),
        manifest=str(manifest) if manifest else None,
        total=plan.total if plan else None,
        done=counts[Outcome.DONE],
        failed=counts[Outcome.FAILED],
        uncertain=counts[Outcome.UNCERTAIN],
        pending=plan.remaining if plan else None,
        in_doubt=len(lives.doubtful()),
        orphans=fold.jobs - plan.in_log if plan else 0,
        requests=fold.requests + len(lives.ended()),
        cost_usd=round(fold.spent_usd, 6),
        exposure_usd=round(fold.exposure_usd + lives.exposure_usd(), 6),
        run=state.run if state else None,
        running=any(_at_work(state) for _, state in archive.states),
        doing=state.doing if state else None,
        heartbeat_at=state.heartbeat_at if state else None,
        last_verdict=_last_verdict(root, archive.latest[0]) if archive.latest else None,
        store=archive.store,
    )


def _at_work(state: State) -> bool:
    """Whether the process that the state names is alive, as far as this machine can tell."""
    if not state.pid or state.host != socket.gethostname():
        return state.pid > 0
    try:
        os.kill(state.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _last_verdict(root: Path, books: Books) -> str | None:
    try:
        return str(msgspec.json.decode((root / books.summary).read_bytes())["verdict"])
    except (OSError, *BAD_LINE, KeyError, TypeError):
        return None


def render(found: Status) -> Iterator[str]:
    """The status for people, a line at a time."""
    of = f" of {found.total}" if found.total is not None else ""
    yield f"{found.output}: {found.done}{of} jobs done"
    if found.store:
        yield f"  pictures   {found.store}"
    for name, count in (("failed", found.failed), ("uncertain", found.uncertain), ("pending", found.pending)):
        if count:
            yield f"  {name:<10} {count}"
    if found.in_doubt and found.running:
        yield f"  in flight  {counted(found.in_doubt, 'job')}"
    elif found.in_doubt:
        yield f"  in doubt   {counted(found.in_doubt, 'job')} may have been paid for without an answer"
    if found.orphans:
        yield f"  orphans    {found.orphans} jobs of the log are no longer in the manifest"
    cost = f", ${found.cost_usd:.4f}" if found.cost_usd else ""
    exposure = f" (and ${found.exposure_usd:.4f} in doubt)" if found.exposure_usd else ""
    yield f"  requests   {found.requests}{cost}{exposure}"
    if found.running:
        yield f"  run        {found.run}: {found.doing}, last heard of at {found.heartbeat_at}"
    elif found.doing != "ended":
        yield f"  run        {found.run} ended without a word; run the same command again"
    elif found.last_verdict:
        yield f"  last run   {found.last_verdict}"
    if found.manifest is None:
        yield "  the manifest is not where it was; pending jobs cannot be counted"
