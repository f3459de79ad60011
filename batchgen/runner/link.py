"""The real way to a server: endpoint (or a sandbox of the run's own), HTTP client, and the account they count on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import batchgen
from batchgen.account import MemoryAccount, SharedAccount, account_name, store_path
from batchgen.client import Client, Endpoint
from batchgen.inputs import Inputs, encoder, sends_files
from batchgen.model import Job, Post, Secret
from batchgen.pacing import Gates, Pace
from batchgen.pool import Way
from batchgen.protocol.styles import Style
from batchgen.runner.context import Run
from batchgen.runner.outside import Link
from batchgen.settings import Settings
from batchgen.world import Account, Clock


@asynccontextmanager
async def link(this: Run) -> AsyncIterator[Link]:
    """Open for as long as the run sends."""
    account = accounts_of(this).open(this.clock, this.warn)
    try:
        async with ways(this.settings, this.session.inputs, account) as found:
            yield found
    finally:
        if isinstance(account, SharedAccount):
            account.close()


@asynccontextmanager
async def ways(settings: Settings, inputs: Inputs, account: Account) -> AsyncIterator[Link]:
    """The ways to the servers, counted on this account."""
    with ThreadPoolExecutor(2, "batchgen-inputs") as input_files:
        async with (
            _endpoint(settings) as endpoint,
            _client(settings, inputs, endpoint, input_files) as client,
        ):
            limits = settings.limits
            gates = Gates.of(limits.concurrency)
            way = Way(client, account, gates, limits.timeout_s, limits.requests_per_minute)
            yield Link([way], endpoint.key)


@asynccontextmanager
async def _endpoint(settings: Settings) -> AsyncIterator[Endpoint]:
    style, place = settings.api, settings.place
    if not style.stands_in:
        assert settings.key is not None
        yield _addresses(style, place.url, settings.key, place.headers)
        return
    from batchgen.sandbox import SANDBOX_KEY, Sandbox, Script

    # A stand-in, wherever it is, never sees the real key.
    key = Secret(SANDBOX_KEY)
    if place.url:
        yield _addresses(style, place.url, key, place.headers)
        return
    async with Sandbox(Script(balance_usd=1e9)) as sandbox:
        yield _addresses(style, sandbox.url, key, place.headers)


def _addresses(style: Style, url: str, key: Secret, headers: Mapping[str, str]) -> Endpoint:
    return Endpoint(url, url + style.models_path, key, headers, style.links)


def _client(settings: Settings, inputs: Inputs, endpoint: Endpoint, input_files: ThreadPoolExecutor) -> Client:
    encode = encoder(inputs, settings.api.encoder(settings.place.path))

    async def prepare(job: Job) -> Post:
        if sends_files(job):
            return await asyncio.get_running_loop().run_in_executor(input_files, encode, job)
        return encode(job)

    return Client(endpoint, prepare, user_agent=f"batchgen/{batchgen.__version__}")


@dataclass(frozen=True)
class Accounts:
    """How the account behind the endpoint is opened, here or in another process: its file and its name there (None: it
    is counted in memory alone), its pace, and what the folder knows of today.
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


def accounts_of(this: Run) -> Accounts:
    settings, limits = this.settings, this.settings.limits
    pace, path = Pace(limits.requests_per_minute, limits.requests_per_day), store_path(this.session.env)
    if settings.in_process or path is None:
        return Accounts(pace, this.sent_today, homeless=path is None)
    from batchgen.sandbox import SANDBOX_KEY

    key = Secret(SANDBOX_KEY) if settings.api.stands_in or settings.key is None else settings.key
    own_count = None if settings.shared_account else settings.shard
    return Accounts(pace, this.sent_today, path, account_name(settings.url, key, own_count))
