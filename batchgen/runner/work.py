"""The part of a run that sends: pool and writer, with signals and pulse around them.

Imported only when there is something to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from batchgen import images, joblog
from batchgen.events import Event, Finished, Paced
from batchgen.failures import Allowance
from batchgen.folder import Spending
from batchgen.model import ExitCode, Secret, StorageError
from batchgen.pacing import Adaptive, Breaker, Budget, Gates
from batchgen.plan import Plan
from batchgen.pool import ABORT_S, Deadline, Pending, Policy, Pool
from batchgen.progress import Progress
from batchgen.protocol.answers import decode_answer
from batchgen.runner.context import Run
from batchgen.runner.finish import finisher
from batchgen.runner.pulse import Pulse
from batchgen.sink import LocalSink
from batchgen.writer import Committer

SECOND_SIGNAL_S = 2.0
UPLOADS = 8
_NOT_CLEAN = {ExitCode.INTERNAL, ExitCode.STORAGE}
_SIGNALS = {
    signal.SIGHUP: ExitCode.SIGHUP,
    signal.SIGINT: ExitCode.SIGINT,
    signal.SIGTERM: ExitCode.SIGTERM,
}


async def work(this: Run, plan: Plan) -> Pool:
    """Send what the plan has to do; the pool as it stands when nothing is in flight any more."""
    progress = Progress(plan.remaining, this.clock, quiet=this.voice.quiet, verbose=this.voice.verbose)
    changed = asyncio.Event()
    observe = _observers(this, progress, changed)
    loop = asyncio.get_running_loop()
    outside = this.outside
    with ThreadPoolExecutor(1, "batchgen-manifest") as reader:
        async with outside.link(this) as link:
            committer = Committer(
                decode=decode_answer,
                check=images.decode if this.settings.check_pixels else images.check,
                sink=LocalSink(this.folder.files, this.folder.own.tmp, UPLOADS if this.store else 1, outside.start),
                folder=this.folder,
                clock=this.clock,
                pause=outside.pause,
                key=link.key,
                finish=finisher(this.settings),
            )
            writer = outside.writer(committer, loop)
            gates = _gates(this)
            pool = Pool(
                _policy(this, link.key),
                pull=_puller(this, plan, reader),
                gates=gates,
                transport=link.transport,
                account=link.account,
                deliver=writer,
                note=this.folder.append_attempts,
                keep=partial(asyncio.to_thread, this.folder.sync_attempts),
                clock=this.clock,
                randomness=outside.randomness,
                observe=observe,
            )

            def on_full(message: str) -> None:
                loop.call_soon_threadsafe(_storage_is_full, this, pool, message)

            def on_wait(message: str) -> None:
                loop.call_soon_threadsafe(_store_is_busy, this, message)

            committer.on_full, committer.on_wait = on_full, on_wait
            progress.in_flight = lambda: pool.in_flight
            try:
                with _signals(this, pool, changed):
                    await Pulse(this, plan, pool, gates, changed).around(pool.run(), progress.tick)
            except asyncio.CancelledError:
                # The program around us wants to end: answers that have come are still written.
                pool.abort()
                await pool.run()
                raise
            finally:
                progress.close()
                written = writer.close(ABORT_S if pool.in_flight else None)
            if written:
                await pool.settle()
    if written and not pool.in_flight and not {stop.exit_code for stop in pool.stops} & _NOT_CLEAN:
        try:
            this.folder.compact(pool.unfinished | this.folder.lives.unfinished())
        except (OSError, StorageError) as error:
            this.warn(f"the attempts file could not be tidied up ({error}); that is no harm")
    else:
        with contextlib.suppress(OSError, StorageError):
            this.folder.sync_attempts()
    return pool


def _storage_is_full(this: Run, pool: Pool, message: str) -> None:
    if not pool.stops:
        this.warn(f"{message}: nothing more is sent, and for 10 minutes what was paid for is tried to be saved")
    pool.stop(ExitCode.STORAGE, message)


def _store_is_busy(this: Run, message: str) -> None:
    told = f"{message.partition(' [')[0]}: what was paid for is kept here, and tried to be uploaded for 10 minutes"
    if told not in this.notices:
        this.warn(told)


def _observers(this: Run, progress: Progress, changed: asyncio.Event) -> Callable[[Event], None]:
    def observe(event: Event) -> None:
        if isinstance(event, Finished):
            this.folder.lives.forget(event.entry.job, event.entry.fingerprint)
            this.new_jobs += not this.folder.fold.rows(event.entry.job)
        elif isinstance(event, Paced):
            now = joblog.timestamp(this.clock.utc())
            change = (event.message, event.concurrency, event.pause_s, event.outage)
            this.folder.note_pace(joblog.PaceNote(now, this.run, *change))
            changed.set()
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
    limits, spent, lives = this.settings.limits, this.folder.spent, this.folder.lives
    over_usd = this.overdrawn(Spending.at_risk_usd, lambda limits: limits.max_cost_usd)
    over = this.overdrawn(lambda spent: spent.requests, lambda limits: limits.max_requests)
    return Gates(
        breaker=Breaker(max(5, limits.concurrency)),
        adaptive=Adaptive(limits.concurrency),
        budget=Budget(
            limits.max_cost_usd,
            limits.max_requests,
            spent.at_risk_usd() + lives.exposure_usd() + over_usd,
            spent.requests + len(lives.ended()) + math.ceil(over),
        ),
    )


def _deadline(this: Run) -> Deadline | None:
    settings = this.settings
    if settings.until is None and settings.max_runtime_s is None:
        return None
    end_s = math.inf if settings.max_runtime_s is None else this.began_s + settings.max_runtime_s
    return Deadline("the time that was set is up", settings.until, end_s)


def _puller(this: Run, plan: Plan, reader: ThreadPoolExecutor) -> Callable[[int], Awaitable[Sequence[Pending]]]:
    """Hands out jobs as there is room for them, reading the manifest beside the event loop."""
    jobs = plan.to_send(this.session.jobs)
    folder = this.folder

    def some(n: int) -> list[Pending]:
        found = []
        for job in islice(jobs, n):
            row = folder.fold.row(job.id, job.fingerprint)
            life = folder.lives.of(job.id, job.fingerprint)
            found.append(Pending(job, life, row.last_n if row else 0))
        this.session.source.check_unchanged()
        return found

    async def pull(n: int) -> Sequence[Pending]:
        return await asyncio.get_running_loop().run_in_executor(reader, some, n)

    return pull


@contextlib.contextmanager
def _signals(this: Run, pool: Pool, changed: asyncio.Event) -> Iterator[None]:
    """The first signal drains, one that comes two seconds later or more ends at once."""
    loop = asyncio.get_running_loop()
    first_s: float | None = None

    def received(number: signal.Signals) -> None:
        nonlocal first_s
        now_s = this.clock.monotonic()
        if first_s is None:
            first_s = now_s
            this.voice.say(
                f"{number.name}: no new requests; waiting for {pool.in_flight} answers (again, after 2 s: stop at once)"
            )
            pool.stop(_SIGNALS[number], f"ended by {number.name}")
            changed.set()
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
            with contextlib.suppress(ValueError):  # the loop took the handler, yet this is not the main thread
                # What follows is short and must not be cut off by the second signal that make and systemd send.
                signal.signal(number, signal.SIG_IGN)
