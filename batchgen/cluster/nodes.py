"""The machines of a Ray cluster: the only module that imports Ray. Turns its actors, streams and errors into ours."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchgen.clock import SystemClock
from batchgen.cluster.limiter import Limiter
from batchgen.cluster.messages import Batch, Errand, Lost, News, Spent
from batchgen.cluster.worker import Worker
from batchgen.model import ExitCode, UsageError
from batchgen.pacing import Budget, Lease
from batchgen.pool import Pending
from batchgen.text import printable
from batchgen.world import Account

# Read when Ray is imported: without it, it tells its makers of every start.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NAMESPACE = "batchgen"
CALLS = 10_000
OpenAccounts = Callable[[Callable[[str], None]], Sequence[Account]]


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """In a cluster for a while: that at `address`, else at RAY_ADDRESS, else on this machine, where one is made if
    none runs.

    Ray prints on standard output, where only what was asked for belongs; meanwhile nothing comes there.
    """
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                include_dashboard=None if address or os.environ.get("RAY_ADDRESS") else False,
            )
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise UsageError(f"the Ray cluster cannot be reached: {printable(str(error), 300)}") from error
        try:
            yield
        finally:
            ray.shutdown()


async def _answer(call: Callable[[], Any]) -> Any:
    """What an actor answers. Raises Lost where it does not."""
    try:
        return await call()
    except RayError as error:
        raise Lost(_why(error)) from None


def _why(error: Exception) -> str:
    if isinstance(error, ActorDiedError | ActorUnavailableError):
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

    async def forget(self, worker: str) -> None:
        await self._call("forget", worker)

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
    def __init__(self, open_accounts: OpenAccounts, budget: Budget, awaited: set[str]) -> None:
        super().__init__(open_accounts(self.warn), SystemClock(), budget, awaited)


def start_limiter(name: str, open_accounts: OpenAccounts, budget: Budget, awaited: set[str]) -> object:
    """A limiter on this machine; `awaited` are workers that have to tell first what they have spent. It lives as long
    as what is returned is kept."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"name": name, "num_cpus": 0, "max_restarts": 0, "max_concurrency": CALLS}
    actor = ray.remote(_LimiterActor).options(**options, scheduling_strategy=here)
    return actor.remote(open_accounts, budget, awaited)


# Workers


class _WorkerActor:
    """A worker as an actor: the same, with calls that can be awaited from elsewhere."""

    def __init__(self, name: str, errand: Errand, limiter: LimiterCalls) -> None:
        self._worker = Worker(name, errand, limiter, SystemClock(), random.Random())

    async def reports(self) -> AsyncIterator[Batch]:
        async for batch in self._worker.reports():
            yield batch

    async def hand(self, jobs: Sequence[Pending]) -> None:
        self._worker.hand(jobs)

    async def kept(self, number: int) -> None:
        self._worker.kept(number)

    async def end(self) -> None:
        self._worker.end()

    async def stop(self, exit_code: ExitCode, reason: str) -> None:
        self._worker.stop(exit_code, reason)

    async def abort(self) -> None:
        self._worker.abort()


class RayPeer:
    """A worker on a node."""

    def __init__(self, node: str, name: str, errand: Errand, limiter: str) -> None:
        self.name = name
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": 0, "max_restarts": 0, "max_concurrency": CALLS, "scheduling_strategy": there}
        actor = ray.remote(_WorkerActor).options(**options)
        self._actor: Any = actor.remote(name, errand, LimiterCalls(limiter))

    async def reports(self) -> AsyncIterator[Batch]:
        stream = self._actor.reports.options(num_returns="streaming").remote()
        try:
            async for reference in stream:
                yield await reference
        except RayError as error:
            raise Lost(_why(error)) from None

    async def hand(self, jobs: Sequence[Pending]) -> None:
        await _answer(lambda: self._actor.hand.remote(jobs))

    async def kept(self, number: int) -> None:
        await _answer(lambda: self._actor.kept.remote(number))

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
        return RayPeer(node, name, errand, self._limiter)
