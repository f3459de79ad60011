"""The real ways to the servers: endpoints (or a sandbox of the run's own), HTTP clients, the accounts they count on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import batchgen
from batchgen.account import MemoryAccount, SharedAccount, account_name, store_path
from batchgen.client import Client, Server
from batchgen.inputs import Inputs, encoder, sends_files
from batchgen.model import Job, Post, Secret
from batchgen.pacing import Gates, Pace
from batchgen.pool import Way
from batchgen.protocol.styles import Style
from batchgen.runner.context import Run
from batchgen.runner.outside import Link
from batchgen.settings import Endpoint, Settings
from batchgen.world import Account, Clock

Encode = Callable[[str | None, Job], Awaitable[Post]]


@asynccontextmanager
async def link(this: Run) -> AsyncIterator[Link]:
    """Open for as long as the run sends."""
    accounts = [counted.open(this.clock, this.warn) for counted in counted_on(this)]
    try:
        async with ways(this.settings, this.session.inputs, accounts) as found:
            yield found
    finally:
        for account in accounts:
            if isinstance(account, SharedAccount):
                account.close()


@asynccontextmanager
async def ways(settings: Settings, inputs: Inputs, accounts: Sequence[Account]) -> AsyncIterator[Link]:
    """The ways to the endpoints, each counted on its own of the accounts."""
    async with AsyncExitStack() as open_:
        encode, keys = open_.enter_context(_encoding(settings, inputs)), keys_of(settings)
        way = partial(_way, settings.api, encode, open_)
        endpoints = zip(settings.endpoints, keys, accounts, strict=True)
        yield Link([await way(*endpoint) for endpoint in endpoints], keys[0])


def keys_of(settings: Settings) -> list[Secret]:
    """The key of each endpoint; it hides all the others as well, so that no server's echo shows another's."""
    if settings.api.stands_in:
        from batchgen.sandbox import SANDBOX_KEY

        # A stand-in, wherever it is, never sees the real key.
        return [Secret(SANDBOX_KEY)] * len(settings.endpoints)
    keys = [each.key for each in settings.endpoints if each.key is not None]
    assert len(keys) == len(settings.endpoints)
    return [key.beside(*keys) for key in keys]


async def _way(
    style: Style, encode: Encode, open_: AsyncExitStack, endpoint: Endpoint, key: Secret, account: Account
) -> Way:
    place, limits = endpoint.place, endpoint.limits
    url = place.url or await open_.enter_async_context(_sandbox())
    server = Server(url, url + style.models_path, key, place.headers, style.links)
    agent = f"batchgen/{batchgen.__version__}"
    client = await open_.enter_async_context(Client(server, partial(encode, place.path), user_agent=agent))
    return Way(
        transport=client,
        account=account,
        gates=Gates.of(limits.concurrency),
        timeout_s=limits.timeout_s,
        requests_per_minute=limits.requests_per_minute,
        name=endpoint.name,
    )


@asynccontextmanager
async def _sandbox() -> AsyncIterator[str]:
    """The address of a sandbox of the run's own."""
    from batchgen.sandbox import Sandbox, Script

    async with Sandbox(Script(balance_usd=1e9)) as sandbox:
        yield sandbox.url


@contextmanager
def _encoding(settings: Settings, inputs: Inputs) -> Iterator[Encode]:
    """What makes a request of a job, for a server with its own generation path; pictures are read beside the loop."""
    paths = [each.place.path for each in settings.endpoints]
    encoders = {path: encoder(inputs, settings.api.encoder(path)) for path in paths}
    with ThreadPoolExecutor(2, "batchgen-inputs") as input_files:

        async def prepare(path: str | None, job: Job) -> Post:
            if sends_files(job):
                return await asyncio.get_running_loop().run_in_executor(input_files, encoders[path], job)
            return encoders[path](job)

        yield prepare


@dataclass(frozen=True)
class Counted:
    """How an endpoint's account is opened, by this process or another on the machine: its file and its name there
    (None: it is counted in memory alone), its pace, and what the folder knows of today.
    """

    pace: Pace
    sent_today: int
    path: Path | None = None
    name: str = ""
    homeless: bool = False

    def open(self, clock: Clock, warn: Callable[[str], None]) -> Account:
        if self.homeless:
            warn("there is no HOME or XDG_STATE_HOME: other runs with the same key are not counted")
        if self.path:
            return SharedAccount(self.path, self.name, self.pace, clock, sent_today=self.sent_today, warn=warn)
        return MemoryAccount(self.pace, clock, self.sent_today)


def counted_on(this: Run) -> list[Counted]:
    """The account of each endpoint."""
    pairs = zip(this.settings.endpoints, keys_of(this.settings), strict=True)
    return [_counted(this, endpoint, key) for endpoint, key in pairs]


def _counted(this: Run, endpoint: Endpoint, key: Secret) -> Counted:
    limits, settings = endpoint.limits, this.settings
    pace = Pace(limits.requests_per_minute, limits.requests_per_day)
    path, sent_today = store_path(this.session.env), this.sent_today(endpoint.name)
    if settings.in_process or path is None:
        return Counted(pace, sent_today, homeless=path is None)
    own_count = None if settings.shared_account else settings.shard
    return Counted(pace, sent_today, path, account_name(endpoint.place.url, key, own_count))
