"""A run on the machines of a Ray cluster: what goes to them, and what they work with there.

Pictures are written where they are made, to the output folder, which all machines share, or to the object store; final
names and the log are the driver's.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.account import MemoryAccount
from batchgen.clock import SystemClock
from batchgen.cluster.driver import Desk, Driver, written
from batchgen.cluster.messages import Errand, Hooks, Kit, Made
from batchgen.events import Event
from batchgen.files import PosixFiles
from batchgen.folder import read_state
from batchgen.inputs import Inputs
from batchgen.layout import PRIVATE, STAGED, Books
from batchgen.model import UsageError
from batchgen.pacing import Pace
from batchgen.pool import Policy
from batchgen.runner.context import Run
from batchgen.runner.engine import UPLOADS, Engine, sink_of, stager_of
from batchgen.runner.link import Counted, counted_on, keys_of, ways
from batchgen.runner.orders import Pull, budget_of, policy_of
from batchgen.settings import Settings
from batchgen.sink import LocalSink, beside_each_other
from batchgen.stores.files import attributes
from batchgen.world import Account, Staged
from batchgen.writer import Committer, Patience, Writer

if TYPE_CHECKING:
    from batchgen.stores import Objects

Carry = Callable[[Mapping[str, Staged]], Mapping[str, str]]
_MISSING = "Ray is not installed; pip install 'batchgen[ray]'"


@asynccontextmanager
async def on_ray(this: Run, pull: Pull, observe: Callable[[Event], None]) -> AsyncIterator[Engine]:
    """A worker on every machine of the cluster. Raises UsageError where there is no Ray, or no cluster."""
    try:
        from batchgen.cluster.nodes import LimiterCalls, LimiterStarter, RayNodes, connected, where
    except ImportError as error:
        raise UsageError(f"{_MISSING} ({error})") from error
    settings, folder, limits = this.settings, this.folder, this.settings.limits
    patience = Patience(this.clock, this.outside.pause)
    place = _Workplace(settings, this.session.inputs.base, settings.output.absolute(), folder.own, this.run)
    with tempfile.TemporaryDirectory(prefix="batchgen-") as own, connected(settings.ray_address):
        this.voice.say(f"  cluster    Ray at {where()}")
        committer = Committer(written, sink_of(this), folder, patience)
        writer: Writer[Made] = Writer(committer, asyncio.get_running_loop())
        name = f"limiter-{this.run}"
        open_accounts = partial(_open_accounts, _outliving(counted_on(this), Path(own)))
        driver = Driver(
            Errand(
                policy=_for_others(this, policy_of(this, keys_of(settings)[0])),
                open_kit=partial(_open_kit, place),
                concurrency=limits.concurrency,
                endpoints=[each.name for each in settings.endpoints],
                timeout_s=max(each.limits.timeout_s for each in settings.endpoints),
                metered=limits.max_cost_usd is not None or limits.max_requests is not None,
            ),
            RayNodes(name),
            pull=pull,
            deliver=writer,
            desk=Desk(
                note=folder.append_attempts,
                keep=partial(asyncio.to_thread, folder.sync_attempts),
                quarantine=folder.quarantine,
                last_n=folder.last_n,
            ),
            clock=this.clock,
            observe=observe,
            limiter=LimiterCalls(name),
            start_limiter=LimiterStarter(name, open_accounts, budget_of(this)),
        )
        yield Engine(driver, writer, patience)


def _for_others(this: Run, policy: Policy) -> Policy:
    """The policy for machines whose monotonic clocks are others."""
    deadline = policy.deadline
    return replace(policy, deadline=deadline and replace(deadline, utc=this.ends_at, end_s=math.inf))


def _outliving(accounts: Sequence[Counted], folder: Path) -> Sequence[Counted]:
    """Accounts that a limiter that is lost does not take with it, also where other runs do not count on them."""
    store = folder / "account.sqlite3"
    return [each if each.path else replace(each, path=store, name=str(n)) for n, each in enumerate(accounts)]


def _open_accounts(all_counted: Sequence[Counted], warn: Callable[[str], None]) -> Sequence[Account]:
    return [counted.open(SystemClock(), warn) for counted in all_counted]


@dataclass(frozen=True)
class _Workplace:
    """What a worker needs to know of the run: its settings, where input files are, whose folder it is."""

    settings: Settings
    inputs: Path
    folder: Path
    own: Books
    run: str


@asynccontextmanager
async def _open_kit(place: _Workplace, name: str, hooks: Hooks) -> AsyncIterator[Kit]:
    """On the worker's machine. Raises UsageError where it does not see the output folder."""
    settings, clock, mark = place.settings, SystemClock(), f"{name}-"
    elsewhere = [MemoryAccount(Pace(), clock)] * len(settings.endpoints)
    patience = Patience(clock, time.sleep, on_full=hooks.warn, on_wait=hooks.warn)
    with _desk(place, mark, patience) as (sink, carry):
        async with ways(settings, Inputs(place.inputs), elsewhere) as link:
            stager = stager_of(
                settings, sink=sink, clock=clock, patience=patience, key=link.key, quarantine=hooks.useless
            )
            yield Kit(link.ways, stager, carry)


@contextlib.contextmanager
def _desk(place: _Workplace, mark: str, patience: Patience) -> Iterator[tuple[LocalSink, Carry]]:
    """Where pictures are written, and how they get to where the driver finds them."""
    if address := place.settings.store:
        from batchgen.stores import Objects, probe

        objects = Objects(address)
        probe(objects, f"{place.run}-{mark}")
        with tempfile.TemporaryDirectory(prefix="batchgen-") as folder, _files(Path(folder)) as files:
            files.make_dir(PRIVATE)
            yield LocalSink(files, PRIVATE, mark=mark), partial(_upload, files, objects, patience)
        return
    with _files(_shared(place)) as files:
        state = read_state(files, place.own)
        if state is None or state.run != place.run:
            raise UsageError(
                f"{place.folder} is another folder on {socket.gethostname()}: --engine ray needs an output folder that"
                " all machines share under one path, or an object store (-o s3://BUCKET/PREFIX)"
            )
        yield LocalSink(files, place.own.tmp, mark=mark), _where_it_is


def _shared(place: _Workplace) -> Path:
    if not (place.folder / place.own.state).is_file():
        raise UsageError(
            f"{place.folder} is not on {socket.gethostname()}: --engine ray needs an output folder that all machines"
            " share under one path, or an object store (-o s3://BUCKET/PREFIX)"
        )
    return place.folder


@contextlib.contextmanager
def _files(root: Path) -> Iterator[PosixFiles]:
    files = PosixFiles(root)
    try:
        yield files
    finally:
        files.close_root()


def _where_it_is(moves: Mapping[str, Staged]) -> Mapping[str, str]:
    return {name: staged.path for name, staged in moves.items()}


def _upload(files: PosixFiles, objects: Objects, patience: Patience, moves: Mapping[str, Staged]) -> Mapping[str, str]:
    """Upload drafts to the store, several at once; the local ones are gone then."""
    drafts = {name: f"{STAGED}/{staged.path.rpartition('/')[2]}" for name, staged in moves.items()}
    waiting = iter(list(moves))

    def put() -> None:
        for name in waiting:
            data = files.read(moves[name].path)
            patience.persist(partial(objects.put, drafts[name], data, attributes(name, data)))
            files.remove(moves[name].path)

    beside_each_other(min(UPLOADS, len(moves)), put)
    return drafts
