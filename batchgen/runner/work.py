"""The part of a run that sends: endpoint, client, writer and pool, with signals and heartbeat around them.

Imported only when there is something to send, because an HTTP library takes longer to load than most looks take.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice

import msgspec

import batchgen
from batchgen import images, joblog
from batchgen.account import MemoryAccount, SharedAccount, account_name, store_path
from batchgen.client import Client, Endpoint
from batchgen.events import Event, Finished
from batchgen.failures import Allowance
from batchgen.model import ExitCode, FileInput, Job, Secret
from batchgen.pacing import Adaptive, Breaker, Budget, Gates, Pace
from batchgen.plan import Mark, Plan
from batchgen.pool import Deadline, Pending, Policy, Pool
from batchgen.progress import Progress
from batchgen.protocol import nebula
from batchgen.runner.context import Run, Voice
from batchgen.settings import Settings
from batchgen.sink import LocalSink
from batchgen.sources import encoder
from batchgen.world import Account
from batchgen.writer import Committer, Writer

HEARTBEAT_S = 30.0
SECOND_SIGNAL_S = 2.0
_SIGNALS = {
    signal.SIGHUP: ExitCode.SIGHUP,
    signal.SIGINT: ExitCode.SIGINT,
    signal.SIGTERM: ExitCode.SIGTERM,
}


async def work(this: Run, plan: Plan) -> Pool:
    """Send what the plan has to do; the pool as it stands when nothing is in flight any more."""
    progress = Progress(plan.remaining, this.clock, quiet=this.voice.quiet, verbose=this.voice.verbose)
    observe = _observers(this, progress)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, "batchgen-manifest") as reader, ThreadPoolExecutor(2, "batchgen-inputs") as input_files:
        async with (
            _endpoint(this.settings) as endpoint,
            _client(this, endpoint, input_files) as client,
            _account(this, endpoint) as account,
        ):
            committer = Committer(
                decode=nebula.decode_answer,
                check=images.check,
                sink=LocalSink(this.folder.files),
                folder=this.folder,
                clock=this.clock,
                pause=time.sleep,
                key=endpoint.key,
            )
            writer = Writer(committer, loop)
            pool = Pool(
                _policy(this, endpoint.key),
                pull=_puller(this, plan, reader),
                gates=_gates(this),
                transport=client,
                account=account,
                deliver=writer,
                note=this.folder.append_attempts,
                clock=this.clock,
                randomness=random.Random(),
                observe=observe,
            )

            def on_full(message: str) -> None:
                loop.call_soon_threadsafe(_storage_is_full, this, pool, message)

            committer.on_full = on_full
            progress.in_flight = lambda: pool.in_flight
            with _signals(pool, this.voice):
                await _with_heartbeat(this, progress, pool)
            progress.close()
            written = writer.close(None if pool.in_flight == 0 else 0.0)
    if written and not any(stop.exit_code is ExitCode.STORAGE for stop in pool.stops):
        this.folder.compact(lambda job, fp: (job, fp) in pool.unfinished or bool(this.folder.lives.of(job, fp)))
    return pool


def _storage_is_full(this: Run, pool: Pool, message: str) -> None:
    if not pool.stops:
        this.warn(f"{message}: nothing more is sent, and for 10 minutes what was paid for is tried to be saved")
    pool.stop(ExitCode.STORAGE, message)


def _observers(this: Run, progress: Progress) -> Callable[[Event], None]:
    def observe(event: Event) -> None:
        if isinstance(event, Finished):
            this.folder.lives.forget(event.entry.job, event.entry.fingerprint)
        this.tally(event)
        progress(event)

    return observe


def _policy(this: Run, key: Secret) -> Policy:
    settings, limits = this.settings, this.settings.limits
    return Policy(
        run=this.run,
        manifest=settings.manifest.name,
        api=settings.style,
        key=key,
        concurrency=limits.concurrency,
        timeout_s=limits.timeout_s,
        allowance=Allowance(limits.attempts, limits.uncertain_retries),
        give_up_after_s=settings.give_up_after_s,
        wait_for_quota=settings.wait_for_quota,
        prices_usd=dict(settings.prices_usd),
        requests_per_minute=limits.requests_per_minute,
        deadline=_deadline(this),
    )


def _gates(this: Run) -> Gates:
    limits, fold, lives = this.settings.limits, this.folder.fold, this.folder.lives
    spent_usd = fold.spent_usd + fold.exposure_usd + lives.exposure_usd()
    return Gates(
        breaker=Breaker(max(5, limits.concurrency)),
        adaptive=Adaptive(limits.concurrency),
        budget=Budget(limits.max_cost_usd, limits.max_requests, spent_usd, fold.requests + len(lives.ended())),
    )


@asynccontextmanager
async def _account(this: Run, endpoint: Endpoint) -> AsyncIterator[Account]:
    limits, today = this.settings.limits, this.clock.utc().date().isoformat()
    pace = Pace(limits.requests_per_minute, limits.requests_per_day)
    open_today = sum(ended.attempt.at.startswith(today) for ended in this.folder.lives.ended())
    sent_today = this.folder.fold.requests_by_day.get(today, 0) + open_today
    if this.settings.in_process:
        yield MemoryAccount(pace, this.clock, sent_today)
        return
    shared = SharedAccount(
        store_path(this.session.env),
        account_name(this.settings.url, endpoint.key),
        pace,
        this.clock,
        sent_today=sent_today,
        warn=this.warn,
    )
    try:
        yield shared
    finally:
        shared.close()


def _deadline(this: Run) -> Deadline | None:
    settings = this.settings
    if settings.until is None and settings.max_runtime_s is None:
        return None
    end_s = math.inf if settings.max_runtime_s is None else this.began_s + settings.max_runtime_s
    return Deadline("the time that was set is up", settings.until, end_s)


def _puller(this: Run, plan: Plan, reader: ThreadPoolExecutor) -> Callable[[int], Awaitable[Sequence[Pending]]]:
    """Hands out jobs as there is room for them, reading the manifest beside the event loop."""
    jobs = plan.chosen(this.session.jobs(), Mark.DO)
    folder, retry = this.folder, this.settings.selection.retry

    def some(n: int) -> list[Pending]:
        found = []
        for job in islice(jobs, n):
            row = folder.fold.row(job.id, job.fingerprint)
            life = folder.lives.of(job.id, job.fingerprint)
            if row and row.outcome in retry:
                # Asked for by name: the job starts with new allowances.
                life = tuple(msgspec.structs.replace(attempt, counts=None) for attempt in life)
            found.append(Pending(job, life, row.last_n if row else 0))
        this.session.source.check_unchanged()
        return found

    async def pull(n: int) -> Sequence[Pending]:
        return await asyncio.get_running_loop().run_in_executor(reader, some, n)

    return pull


@asynccontextmanager
async def _endpoint(settings: Settings) -> AsyncIterator[Endpoint]:
    if not settings.in_process:
        key = settings.key
        if key is None:
            from batchgen.sandbox import SANDBOX_KEY

            key = Secret(SANDBOX_KEY)
        yield _addresses(settings.url, key)
        return
    from batchgen.sandbox import SANDBOX_KEY, Sandbox, Script

    async with Sandbox(Script(balance_usd=1e9)) as sandbox:
        yield _addresses(sandbox.url, Secret(SANDBOX_KEY))


def _addresses(url: str, key: Secret) -> Endpoint:
    return Endpoint(url + nebula.GENERATE_PATH, url + nebula.MODELS_PATH, key)


def _client(this: Run, endpoint: Endpoint, input_files: ThreadPoolExecutor) -> Client:
    encode = encoder(this.session.inputs, nebula.encode_request)

    async def prepare(job: Job) -> bytes:
        if any(isinstance(value, FileInput) for value in job.request.values()):
            return await asyncio.get_running_loop().run_in_executor(input_files, encode, job)
        return encode(job)

    return Client(endpoint, prepare, this.clock, user_agent=f"batchgen/{batchgen.__version__}")


@contextlib.contextmanager
def _signals(pool: Pool, voice: Voice) -> Iterator[None]:
    """The first signal drains, one that comes two seconds later or more ends at once."""
    loop = asyncio.get_running_loop()
    first_s: float | None = None

    def received(number: signal.Signals) -> None:
        nonlocal first_s
        now_s = time.monotonic()
        if first_s is None:
            first_s = now_s
            voice.say(f"{number.name}: no new requests; waiting for {pool.in_flight} answers (again: stop at once)")
            pool.stop(_SIGNALS[number], f"ended by {number.name}")
        elif now_s - first_s >= SECOND_SIGNAL_S:
            pool.abort()

    installed = []
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup and its like: whoever started us wants it so
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: the program around us decides
            loop.add_signal_handler(number, received, number)
            installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)


async def _with_heartbeat(this: Run, progress: Progress, pool: Pool) -> None:
    async def beat() -> None:
        while True:
            progress.tick()
            doing = pool.hold.reason if pool.hold and not pool.in_flight else "working"
            now = joblog.timestamp(this.clock.utc())
            state = msgspec.structs.replace(this.state, heartbeat_at=now, doing=doing)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(this.folder.write_state, state)
            await asyncio.sleep(HEARTBEAT_S)

    heart = asyncio.create_task(beat())
    try:
        await pool.run()
    finally:
        heart.cancel()
        await asyncio.wait([heart])
