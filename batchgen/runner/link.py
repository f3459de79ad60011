"""The real way to a server: endpoint (or a sandbox of the run's own), HTTP client, and the account they count on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial

import batchgen
from batchgen.account import MemoryAccount, SharedAccount, account_name, store_path
from batchgen.client import Client, Server
from batchgen.inputs import encoder, sends_files
from batchgen.model import Job, Post, Secret
from batchgen.pacing import Gates, Pace
from batchgen.pool import Way
from batchgen.runner.context import Run
from batchgen.runner.outside import Link
from batchgen.settings import Endpoint, Settings
from batchgen.world import Account

Encode = Callable[[str | None, Job], Awaitable[Post]]


@asynccontextmanager
async def link(this: Run) -> AsyncIterator[Link]:
    """Open for as long as the run sends."""
    async with AsyncExitStack() as open_:
        encode, keys = open_.enter_context(_encoding(this)), _keys(this.settings)
        endpoints = zip(this.settings.endpoints, keys, strict=True)
        ways = [await _way(this, endpoint, key, encode, open_) for endpoint, key in endpoints]
        yield Link(ways, keys[0])


def _keys(settings: Settings) -> list[Secret]:
    """The key of each endpoint; it hides all the others as well, so that no server's echo shows another's."""
    if settings.api.stands_in:
        from batchgen.sandbox import SANDBOX_KEY

        # A stand-in, wherever it is, never sees the real key.
        return [Secret(SANDBOX_KEY)] * len(settings.endpoints)
    keys = [each.key for each in settings.endpoints if each.key is not None]
    assert len(keys) == len(settings.endpoints)
    return [key.beside(*keys) for key in keys]


async def _way(this: Run, endpoint: Endpoint, key: Secret, encode: Encode, open_: AsyncExitStack) -> Way:
    style, place, limits = this.settings.api, endpoint.place, endpoint.limits
    url = place.url or await open_.enter_async_context(_sandbox())
    server = Server(url, url + style.models_path, key, place.headers, style.links)
    agent = f"batchgen/{batchgen.__version__}"
    client = await open_.enter_async_context(Client(server, partial(encode, place.path), user_agent=agent))
    return Way(
        transport=client,
        account=open_.enter_context(_account(this, endpoint, key)),
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
def _encoding(this: Run) -> Iterator[Encode]:
    """What makes a request of a job, for a server with its own generation path; pictures are read beside the loop."""
    encoders = {
        each.place.path: encoder(this.session.inputs, this.settings.api.encoder(each.place.path))
        for each in this.settings.endpoints
    }
    with ThreadPoolExecutor(2, "batchgen-inputs") as input_files:

        async def prepare(path: str | None, job: Job) -> Post:
            if sends_files(job):
                return await asyncio.get_running_loop().run_in_executor(input_files, encoders[path], job)
            return encoders[path](job)

        yield prepare


@contextmanager
def _account(this: Run, endpoint: Endpoint, key: Secret) -> Iterator[Account]:
    limits = endpoint.limits
    pace = Pace(limits.requests_per_minute, limits.requests_per_day)
    path, sent_today = store_path(this.session.env), this.sent_today(endpoint.name)
    if this.settings.in_process or path is None:
        if path is None:
            this.warn("there is no HOME or XDG_STATE_HOME: other runs with the same key are not counted")
        yield MemoryAccount(pace, this.clock, sent_today)
        return
    own_count = None if this.settings.shared_account else this.settings.shard
    name = account_name(endpoint.place.url, key, own_count)
    shared = SharedAccount(path, name, pace, this.clock, sent_today=sent_today, warn=this.warn)
    try:
        yield shared
    finally:
        shared.close()
