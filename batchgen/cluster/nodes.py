"""The machines of a Ray cluster: the only module that imports Ray. Turns its actors, streams and errors into ours."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchgen import __version__
from batchgen.clock import SystemClock
from batchgen.cluster.limiter import Limiter
from batchgen.cluster.messages import Batch, Errand, Lost, News, Over, Spent
from batchgen.cluster.worker import Worker
from batchgen.model import ExitCode, UsageError
from batchgen.pacing import Budget, Lease
from batchgen.pool import Pending, Stop
from batchgen.text import printable
from batchgen.world import Account

# Read when Ray is imported: without it, it tells its makers of every start.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CALLS = 10_000
KNOCK_S = 10.0
OpenAccounts = Callable[[Callable[[str], None]], Sequence[Account]]


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """In a cluster for a while: that at `address`, else at RAY_ADDRESS, else on this machine, where one is made if
    none runs.

    Ray prints on standard output, where only what was asked for belongs; meanwhile nothing comes there.
    """
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            _connect(address)
            yield
        finally:
            ray.shutdown()


def _connect(address: str | None) -> None:
    """Names of actors are this run's own, for Ray gives it a namespace that nobody else has."""
    on_term, place = signal.getsignal(signal.SIGTERM), address or os.environ.get("RAY_ADDRESS", "")
    try:
        _knock(place)
        with _silent():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                include_dashboard=None if place else False,
            )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        of = f" at {printable(place, 100)}" if place else ""
        hint = "write HOST:PORT; where a token is asked for, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here, too"
        raise UsageError(f"the Ray cluster{of} cannot be reached: {printable(str(error), 300)} ({hint})") from error
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: there Ray leaves the signal alone
            signal.signal(signal.SIGTERM, on_term)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What Ray's core writes to standard error while it connects is said by the error that follows, if there is one."""
    with Path(os.devnull).open("w") as nowhere:
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def where() -> str:
    """The address of the cluster that this process is in."""
    return str(ray.get_runtime_context().gcs_address)


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT, which Ray would find out in a minute and a half."""
    host, colon, port = address.rpartition(":")
    if colon and host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


async def _answer(call: Callable[[], Any]) -> Any:
    """What an actor answers. Raises Lost where it does not."""
    try:
        return await call()
    except RayError as error:
        raise Lost(_why(error)) from None


def _why(error: Exception) -> str:
    told = isinstance(error, ActorDiedError) and error.actor_init_failed
    if isinstance(error, ActorDiedError | ActorUnavailableError) and not told:
        return "its process or its machine is gone, or cannot be reached"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1] if lines else type(error).__name__, 300)


# The limiter


class LimiterCalls:
    """The limiter of one run by its name, so that one that took the place of a lost one is found."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return LimiterCalls, (self._name,)

    async def lease(self, lane: int, n: int) -> Lease:
        return await self._call("lease", lane, n)  # type: ignore[no-any-return]

    async def give_back(self, lane: int, n: int) -> None:
        await self._call("give_back", lane, n)

    async def admit(self, spent: Spent, cost_usd: float) -> str | None:
        return await self._call("admit", spent, cost_usd)  # type: ignore[no-any-return]

    async def tell(self, spent: Spent) -> None:
        await self._call("tell", spent)

    async def forget(self, most: Spent) -> Spent:
        return await self._call("forget", most)  # type: ignore[no-any-return]

    async def slow(self, lane: int, pause_s: float, closed_until: str | None) -> None:
        await self._call("slow", lane, pause_s, closed_until)

    async def news(self, seen: int) -> News:
        return await self._call("news", seen)  # type: ignore[no-any-return]

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            if self._handle is None:
                # Asking for a name waits for an answer; other work of this process should not.
                self._handle = await asyncio.to_thread(ray.get_actor, self._name)
            return await getattr(self._handle, method).remote(*arguments)
        except (RayError, ValueError) as error:
            self._handle = None
            raise Lost(_why(error)) from None


class _LimiterActor(Limiter):
    def __init__(self, open_accounts: OpenAccounts, budget: Budget, awaited: set[str], gone: Sequence[Spent]) -> None:
        super().__init__([], SystemClock(), budget, awaited, gone)
        self.accounts = open_accounts(self.warn)


class LimiterStarter:
    """Makes limiters on this machine, one at a time: the one before it is ended, should it still be there."""

    def __init__(self, name: str, open_accounts: OpenAccounts, budget: Budget) -> None:
        self._name, self._open_accounts, self._budget = name, open_accounts, budget
        self._actor: Any = None

    def __call__(self, awaited: set[str], gone: Sequence[Spent]) -> None:
        """See `Limiter`. Raises Lost where none can be had now."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"name": self._name, "num_cpus": 0, "max_restarts": 0, "max_concurrency": CALLS}
        actor = ray.remote(_LimiterActor).options(**options, scheduling_strategy=here)
        try:
            if self._actor is not None:
                ray.kill(self._actor)
            self._actor = actor.remote(self._open_accounts, self._budget, awaited, gone)
        except (RayError, ValueError) as error:  # its name is still taken, by one that is not quite gone
            raise Lost(_why(error)) from None


# Workers


class _WorkerActor:
    """A worker as an actor: the same, with calls that can be awaited from elsewhere.

    `version` is the driver's; only the same one can make sense of the `errand`, which is pickled.
    """

    def __init__(self, version: str, name: str, errand: bytes, limiter: LimiterCalls) -> None:
        self._version, self._name = version, name
        if version == __version__:
            self._worker = Worker(name, cloudpickle.loads(errand), limiter, SystemClock(), random.Random())

    async def reports(self) -> AsyncIterator[Batch]:
        if self._version != __version__:
            here = f"{socket.gethostname()} has batchgen {__version__}, the run was started with {self._version}"
            refusal = Stop(ExitCode.USAGE, f"{here}; install the same version on all machines")
            yield Batch([Over((refusal,), frozenset())])
            return
        async for batch in self._worker.reports():
            yield batch

    async def hand(self, jobs: Sequence[Pending]) -> None:
        self._worker.hand(jobs)

    async def kept(self, number: int, failure: str | None) -> None:
        self._worker.kept(number, failure)

    async def end(self) -> None:
        self._worker.end()

    async def stop(self, exit_code: ExitCode, reason: str) -> None:
        self._worker.stop(exit_code, reason)

    async def abort(self) -> None:
        self._worker.abort()


def _pickled(errand: Errand) -> bytes:
    return cloudpickle.dumps(errand)  # type: ignore[no-untyped-call, no-any-return]


class RayPeer:
    """A worker on a node."""

    def __init__(self, node: str, name: str, errand: Errand, limiter: str) -> None:
        self.name = name
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": 0, "max_restarts": 0, "max_concurrency": CALLS, "scheduling_strategy": there}
        actor = ray.remote(_WorkerActor).options(**options)
        self._actor: Any = actor.remote(__version__, name, _pickled(errand), LimiterCalls(limiter))

    async def reports(self) -> AsyncIterator[Batch]:
        stream = self._actor.reports.options(num_returns="streaming").remote()
        try:
            async for reference in stream:
                yield await reference
        except Exception as error:  # also what cannot be read here
            raise Lost(_why(error)) from None

    async def hand(self, jobs: Sequence[Pending]) -> None:
        await _answer(lambda: self._actor.hand.remote(jobs))

    async def kept(self, number: int, failure: str | None) -> None:
        await _answer(lambda: self._actor.kept.remote(number, failure))

    async def end(self) -> None:
        await _answer(lambda: self._actor.end.remote())

    async def stop(self, exit_code: ExitCode, reason: str) -> None:
        await _answer(lambda: self._actor.stop.remote(exit_code, reason))

    async def abort(self) -> None:
        await _answer(lambda: self._actor.abort.remote())

    def kill(self) -> None:
        with contextlib.suppress(RayError):
            ray.kill(self._actor)


class RayNodes:
    """The nodes that have processors to work with; a head that is to do nothing else has none."""

    def __init__(self, limiter: str) -> None:
        self._limiter = limiter

    async def alive(self) -> Mapping[str, str]:
        try:
            nodes = await asyncio.to_thread(ray.nodes)
        except (RayError, ConnectionError) as error:
            raise Lost(_why(error)) from None
        able = [node for node in nodes if node["Alive"] and node["Resources"].get("CPU")]
        return {node["NodeID"]: node["NodeManagerHostname"] for node in able}

    def start(self, node: str, name: str, errand: Errand) -> RayPeer:
        try:
            return RayPeer(node, name, errand, self._limiter)
        except RayError as error:
            raise Lost(_why(error)) from None
