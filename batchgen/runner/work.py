"""The part of a run that sends: whoever does the jobs, with signals and pulse around it.

Imported only when there is something to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager

from batchgen import joblog
from batchgen.events import Event, Finished, Paced
from batchgen.model import ExitCode, StorageError
from batchgen.plan import Plan
from batchgen.pool import ABORT_S
from batchgen.progress import Progress
from batchgen.runner.context import Run
from batchgen.runner.engine import Engine, Sends, in_process
from batchgen.runner.orders import puller
from batchgen.runner.pulse import Pulse

SECOND_SIGNAL_S = 2.0
_NOT_CLEAN = {ExitCode.INTERNAL, ExitCode.STORAGE}
_SIGNALS = {
    signal.SIGHUP: ExitCode.SIGHUP,
    signal.SIGINT: ExitCode.SIGINT,
    signal.SIGTERM: ExitCode.SIGTERM,
}


async def work(this: Run, plan: Plan) -> Sends:
    """Send what the plan has to do; whoever has sent it, as it stands when nothing is in flight any more."""
    progress = Progress(plan.remaining, this.clock, quiet=this.voice.quiet, verbose=this.voice.verbose)
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, "batchgen-manifest") as reader:
        async with _engine(this)(this, puller(this, plan, reader), _observers(this, progress, changed)) as engine:
            pool, patience = engine.sends, engine.patience

            def on_full(message: str) -> None:
                loop.call_soon_threadsafe(_storage_is_full, this, pool, message)

            def on_wait(message: str) -> None:
                loop.call_soon_threadsafe(_store_is_busy, this, message)

            patience.on_full, patience.on_wait = on_full, on_wait
            progress.in_flight = lambda: pool.in_flight
            try:
                with _signals(this, pool, changed):
                    await Pulse(this, plan, pool, changed).around(pool.run(), progress.tick)
            except asyncio.CancelledError:
                # The program around us wants to end: answers that have come are still written.
                pool.abort()
                await pool.run()
                raise
            finally:
                progress.close()
                written = engine.writer.close(ABORT_S if pool.in_flight else None)
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


def _engine(this: Run) -> Callable[..., AbstractAsyncContextManager[Engine]]:
    if this.settings.engine == "local":
        return in_process
    from batchgen.runner.spread import on_ray

    return on_ray


def _storage_is_full(this: Run, pool: Sends, message: str) -> None:
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
            change = (event.message, event.concurrency, event.pause_s, event.outage, event.endpoint)
            this.notices += [event.message] if event.notice else []
            this.folder.note_pace(joblog.PaceNote(now, this.run, *change))
            changed.set()
        this.tally(event)
        progress(event)

    return observe


@contextlib.contextmanager
def _signals(this: Run, pool: Sends, changed: asyncio.Event) -> Iterator[None]:
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
