"""The real way to a server: endpoint (or a sandbox of the run's own), HTTP client, and the account they count on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import batchgen
from batchgen.account import MemoryAccount, SharedAccount, account_name, store_path
from batchgen.client import Client, Endpoint
from batchgen.inputs import encoder, sends_files
from batchgen.model import Job, Post, Secret
from batchgen.pacing import Gates, Pace
from batchgen.pool import Way
from batchgen.protocol.styles import Style
from batchgen.runner.context import Run
from batchgen.runner.outside import Link
from batchgen.settings import Settings
from batchgen.world import Account


@asynccontextmanager
async def link(this: Run) -> AsyncIterator[Link]:
    """Open for as long as the run sends."""
    with ThreadPoolExecutor(2, "batchgen-inputs") as input_files:
        async with (
            _endpoint(this.settings) as endpoint,
            _client(this, endpoint, input_files) as client,
            _account(this, endpoint) as account,
        ):
            limits = this.settings.limits
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


def _client(this: Run, endpoint: Endpoint, input_files: ThreadPoolExecutor) -> Client:
    settings = this.settings
    encode = encoder(this.session.inputs, settings.api.encoder(settings.place.path))

    async def prepare(job: Job) -> Post:
        if sends_files(job):
            return await asyncio.get_running_loop().run_in_executor(input_files, encode, job)
        return encode(job)

    return Client(endpoint, prepare, user_agent=f"batchgen/{batchgen.__version__}")


@asynccontextmanager
async def _account(this: Run, endpoint: Endpoint) -> AsyncIterator[Account]:
    limits = this.settings.limits
    pace = Pace(limits.requests_per_minute, limits.requests_per_day)
    path = store_path(this.session.env)
    if this.settings.in_process or path is None:
        if path is None:
            this.warn("there is no HOME or XDG_STATE_HOME: other runs with the same key are not counted")
        yield MemoryAccount(pace, this.clock, this.sent_today)
        return
    own_count = None if this.settings.shared_account else this.settings.shard
    name = account_name(this.settings.url, endpoint.key, own_count)
    shared = SharedAccount(path, name, pace, this.clock, sent_today=this.sent_today, warn=this.warn)
    try:
        yield shared
    finally:
        shared.close()
