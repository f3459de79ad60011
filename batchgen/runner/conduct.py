"""One run, wired together: settings -> plan -> pool -> summary."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from batchgen import joblog
from batchgen.folder import Folder, State, read_state
from batchgen.model import Entry, ExitCode, Interrupted, Job, Standing, StorageError, UsageError
from batchgen.plan import Mark, Plan, check_plan, render
from batchgen.progress import say
from batchgen.runner import process
from batchgen.runner.context import Run, Voice
from batchgen.runner.money import priced
from batchgen.runner.outside import Outside, real
from batchgen.runner.refusal import exit_code_of, reason_of
from batchgen.runner.session import Session, check_folder, need_key, plan_of
from batchgen.runner.verdict import summarize
from batchgen.summary import Summary
from batchgen.text import counted

if TYPE_CHECKING:
    from batchgen.stores import Store

ROOM_BYTES = 64 << 20


async def run(
    session: Session, voice: Voice, outside: Outside | None = None, hear: Callable[[Summary], None] | None = None
) -> Summary:
    """Make what is missing; `hear` hears of the summary so far now and then.

    Raises BatchgenError where nothing could be begun; everything later is in the summary.
    """
    with interruptible():
        return await _run(session, voice, outside or real(), hear)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Until the pool listens to signals itself, they end the run at once, with their own exit code."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted(ExitCode[signal.Signals(number).name])

    before = {}
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # not the main thread: the program around us decides
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _run(session: Session, voice: Voice, outside: Outside, hear: Callable[[Summary], None] | None) -> Summary:
    # The time that a run may take counts from here: a long log and a slow store are a part of it.
    root, plan, began_s = session.settings.output.absolute(), None, outside.clock.monotonic()
    if not outside.begun(root):
        # What cannot begin leaves no folder behind.
        plan = plan_of(session, lambda job: Standing.PENDING)
        session = await priced(session, plan, outside.ask)
        _check_begin(session, plan)
    try:
        shard = session.settings.shard
        with contextlib.ExitStack() as open_:
            local = open_.enter_context(outside.hold(root, shard))
            store = outside.store(session, local)
            folder = open_.enter_context(contextlib.closing(Folder(store.files if store else local, shard)))
            folder.load()
            before = _last_state(folder)
            this = _begin(session, folder, voice, outside, began_s)
            this.hear = hear
            with _remembered(this, before) as ended:
                if store:
                    _claim(this, store)
                ended(verdict := await _conduct(this, None if folder.fold.jobs else plan))
                return verdict
    except StorageError:
        raise
    except OSError as error:
        place = root / error.filename if isinstance(error.filename, str) else root
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        fix = "; a folder is needed there: move the file away, or choose another folder with -o" if in_the_way else ""
        raise StorageError(f"{place}: {error.strerror or error}{fix}") from error


def _claim(this: Run, store: Store) -> None:
    """Make sure that pictures can be kept before any is paid for, and that they are found again."""
    from batchgen.runner.copies import Copies
    from batchgen.stores import Mark

    number = int(this.outside.randomness.random() * (1 << 48))
    mark = Mark(
        id=f"{this.run}-{number:012x}",
        store=str(store.address),
        host=this.state.host,
        folder=str(this.settings.output.absolute()),
        manifest=this.settings.manifest.name,
    )
    store.claim(mark)
    own = this.folder.own
    this.store, this.copies = store, Copies(store, this.clock, own.log, own.summary, start=this.outside.start)


@contextlib.contextmanager
def _remembered(this: Run, before: State | None) -> Iterator[Callable[[Summary], None]]:
    """The folder's state tells how the run ended, also where it could not begin and leaves no summary.

    What makes the jobs what they are stays as the state `before` says where the run ended before it sent anything.
    """
    code, verdict = int(ExitCode.INTERNAL), ""
    told: dict[str, Any] = {}

    def ended(found: Summary) -> None:
        nonlocal code, verdict
        code, verdict = found.exit_code, found.verdict

    try:
        yield ended
    except BaseException as error:
        storage = isinstance(error, OSError)
        code, verdict = int(ExitCode.STORAGE) if storage else exit_code_of(error), reason_of(error)
        if before and not this.tally.requests:
            told = {name: getattr(before, name) for name in ("manifest", "api", "defaults", "format")}
        raise
    finally:
        logged = max(this.state.logged, this.folder.logged) + this.new_jobs
        now = joblog.timestamp(this.clock.utc())
        how = {"pid": 0, "doing": "ended", "heartbeat_at": now, "exit_code": code, "verdict": verdict}
        with contextlib.suppress(OSError):
            this.folder.write_state(msgspec.structs.replace(this.state, logged=logged, **how, **told))


def _last_state(folder: Folder) -> State | None:
    """What the run that began last said of itself, also a shard."""
    states = [state for books in folder.books if (state := read_state(folder.files, books))]
    return max(states, key=lambda state: state.started_at, default=None)


def _begin(session: Session, folder: Folder, voice: Voice, outside: Outside, began_s: float) -> Run:
    settings, now = session.settings, outside.clock.utc()
    check_folder(session, folder)
    run = f"{now:%Y%m%dT%H%M%SZ}-{int(outside.randomness.random() * 0x10000):04x}"
    started = joblog.timestamp(now)
    state = State(
        manifest=session.manifest_from_output,
        api=settings.style,
        defaults=tuple(session.defaults),
        format=session.source.format,
        logged=folder.logged,
        run=run,
        pid=os.getpid(),
        host=socket.gethostname(),
        started_at=started,
        heartbeat_at=started,
        doing="planning",
        process=process.mark(os.getpid()),
    )
    folder.write_state(state)
    this = Run(session, folder, voice, outside, run, state, began_s)
    this.notices += [*session.notices, *folder.notices]
    if doubtful := len(folder.lives.doubtful()):
        this.notices.append(f"{counted(doubtful, 'job')} of an earlier run may have been paid for without an answer")
    return this


async def _conduct(this: Run, plan: Plan | None) -> Summary:
    """`plan` is what was planned before the folder was there, where nothing in the folder says otherwise."""
    if plan is None:
        plan = plan_of(this.session, this.folder.standing, _regroup(this))
        before = len(this.session.notices)
        this.session = await priced(this.session, plan, this.outside.ask)
        this.notices += this.session.notices[before:]
    check_plan(plan, this.settings.selection)
    this.notices += this.session.source.notices
    place = "store" if this.store else "folder"
    if missing := plan.standings[Standing.MISSING]:
        this.notices.append(f"{missing} finished pictures are gone from the {place} and are made again")
    if not plan.total:
        say(f"{this.settings.manifest}: the manifest holds no jobs")
    said = list(render(plan, this.settings.prices_usd))
    this.voice.say("\n".join(said if plan.remaining else said[:1]))
    for notice in this.notices:
        this.voice.say(f"note: {notice}")
    if plan.restorable:
        _restore(this, plan)
    pool = None
    if plan.remaining:
        _check_begin(this.session, plan)
        if (free := this.folder.files.free_bytes()) < ROOM_BYTES:
            raise StorageError(f"{this.settings.output}: only {free >> 20} MiB are free; make room first")
        from batchgen.runner.work import work

        pool = await work(this, plan)
    verdict = summarize(this, plan, pool)
    with contextlib.suppress(OSError):
        this.folder.write_whole(
            this.folder.own.summary, msgspec.json.format(msgspec.json.encode(verdict), indent=2) + b"\n"
        )
    aborted = verdict.exit_code is ExitCode.STORAGE or (pool and pool.in_flight)
    if this.copies and not aborted and (failure := this.copies.finish()):
        this.voice.say(f"note: the copies of log and summary are not up to date: {failure}")
    return verdict


def _regroup(this: Run) -> Callable[[Job, Standing, Mark], None]:
    """Jobs that failed in earlier runs are told again, with their causes."""

    def tell(job: Job, standing: Standing, mark: Mark) -> None:
        if standing not in (Standing.FAILED, Standing.UNCERTAIN) or mark is not Mark.SKIP:
            return
        if entry := this.folder.entry(job.id, job.fingerprint):
            this.tally.without_picture(entry)

    return tell


def _restore(this: Run, plan: Plan) -> None:
    def again(entry: Entry) -> Entry:
        """The entry as of now: nothing was sent and nothing paid for it this time."""
        return msgspec.structs.replace(
            entry,
            run=this.run,
            attempts=(),
            cost_usd=None if entry.cost_usd is None else 0.0,
            exposure_usd=None if entry.exposure_usd is None else 0.0,
            finished_at=joblog.timestamp(this.clock.utc()),
            notes=(*entry.notes, "brought back from superseded/"),
        )

    for job in plan.chosen(this.session.jobs(), Mark.RESTORE):
        this.folder.restore(job, again)
    this.notices.append(f"{plan.restorable} pictures were brought back from superseded/")


def _check_begin(session: Session, plan: Plan) -> None:
    """Raises UsageError where the plan needs something that was not given."""
    if not plan.remaining:
        return
    need_key(session.access)
    limits, prices = session.settings.limits, session.settings.prices_usd
    if limits.max_cost_usd is not None and plan.cost_usd(prices) is None:
        unknown = ", ".join(sorted(model for model in plan.to_do if model not in prices))
        raise UsageError(f"max_cost_usd needs prices, none is known for {unknown}; add --price MODEL=USD or prices_usd")
