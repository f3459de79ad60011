"""What goes on in an output folder now, from its state and the ends of its files. Looks, and changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from batchgen import joblog
from batchgen.folder import Live, Pause, State
from batchgen.joblog import Ended, Note, PaceNote, Trouble, moment
from batchgen.model import Entry, Outcome
from batchgen.runner import process
from batchgen.runner.archive import Recent
from batchgen.text import counted, duration, printable

RATE_S = 300.0
SILENT_S = 120.0
PACE_SHOWN = 5


class RunState(StrEnum):
    """Whether the last run is at work. `silent`: it may be, but its heartbeat stopped; `killed`: it ended unheard."""

    RUNNING = "running"
    SILENT = "silent"
    KILLED = "killed"
    ENDED = "ended"


AT_WORK = (RunState.RUNNING, RunState.SILENT)


class Work(msgspec.Struct, frozen=True):
    """How far a run at work is: its last heartbeat, and what the log tells since. Moments are UTC.

    `ended` of the `to_do` jobs it began with have ended. `pictures_per_minute` holds for the last `window_s` seconds;
    `eta_s` and `eta_at` follow from it, None where nothing can be foretold. `left_at_end` is how many jobs will
    probably be left when the run was told to end. `resting` are those of several endpoints that are not asked now.
    """

    began_at: str
    to_do: int
    ended: int
    in_flight: int
    waiting: int
    limit: int
    limit_reason: str
    concurrency: int
    requests_per_minute: float | None
    pause: Pause | None
    ends_at: str | None
    left_at_end: int | None
    pictures_per_minute: float | None
    window_s: float | None
    eta_s: float | None
    eta_at: str | None
    resting: dict[str, Pause] = {}


class Now(msgspec.Struct, frozen=True):
    """Who is or was at work in a folder, what it does, how it ended, and what went wrong last.

    Of several `shards` one at work is told in full, the one that began last; of all of them how they stand.
    """

    run: str | None = None
    run_state: RunState | None = None
    host: str | None = None
    started_at: str | None = None
    heartbeat_at: str | None = None
    heartbeat_age_s: float | None = None
    doing: str | None = None
    work: Work | None = None
    last_exit_code: int | None = None
    last_verdict: str | None = None
    troubles: list[Trouble] = []
    pace: list[PaceNote] = []
    shards: dict[str, RunState] = {}

    @property
    def running(self) -> bool:
        """Whether a run is at work, as far as can be known from here."""
        return self.run_state is RunState.RUNNING or (
            self.run_state is RunState.SILENT and self.host == socket.gethostname()
        )


def now(recents: Sequence[Recent], utc: datetime) -> Now:
    """What goes on at the moment `utc`."""
    states = [(recent, state) for recent in recents if (state := recent.state)]
    standing = {recent.books: _run_state(state, utc) for recent, state in states}
    if not states:
        return _now(recents[0], utc) if recents else Now()
    told, _ = max(states, key=lambda each: (standing[each[0].books] in AT_WORK, each[1].started_at))
    shards = {str(books.shard): run_state for books, run_state in standing.items() if books.shard}
    found = msgspec.structs.replace(_now(told, utc), shards=shards)
    if len(recents) > 1 and found.run_state not in AT_WORK:
        notes, entries = ([note for r in recents for note in r.notes()], [e for r in recents for e in r.entries()])
        found = msgspec.structs.replace(found, troubles=_troubles(notes, entries))
    return found


def _now(recent: Recent, utc: datetime) -> Now:
    # The log last: what it tells of is no longer in flight.
    state, notes, entries = recent.state, recent.notes(), recent.entries()
    if state is None:
        ended = _ended(recent, None)
        return Now(last_exit_code=ended[0], last_verdict=ended[1], troubles=_troubles(notes, entries))
    run_state = _run_state(state, utc)
    at_work = run_state in AT_WORK
    code, verdict = _ended(recent, state)
    return Now(
        run=state.run or None,
        run_state=run_state,
        host=state.host or None,
        started_at=state.started_at or None,
        heartbeat_at=state.heartbeat_at or None,
        heartbeat_age_s=_age_s(state, utc),
        doing=state.doing or None,
        work=_work(state, [e for e in entries if e.run == state.run], notes, utc) if at_work else None,
        last_exit_code=code,
        last_verdict=verdict,
        troubles=_troubles(notes, entries, state if at_work else None),
        pace=[change for change in recent.pace() if change.run == state.run][-PACE_SHOWN:],
    )


def _ended(recent: Recent, state: State | None) -> tuple[int | None, str | None]:
    """How the last run ended: by the state, which also knows of one that could not begin, else by the summary."""
    if state and state.verdict and state.doing == "ended":
        return state.exit_code, state.verdict
    found = recent.summary()
    return (found.exit_code, found.verdict) if found else (None, None)


def _run_state(state: State, utc: datetime) -> RunState:
    if not state.pid:
        return RunState.ENDED
    here = state.host == socket.gethostname()
    if here and not process.is_there(state.pid, state.process):
        return RunState.KILLED
    # A large manifest may take long to plan, and nothing beats meanwhile.
    silent = (_age_s(state, utc) or 0.0) > SILENT_S and not (here and state.live is None)
    return RunState.SILENT if silent else RunState.RUNNING


def _age_s(state: State, utc: datetime) -> float | None:
    try:
        return max(0.0, round((utc - moment(state.heartbeat_at)).total_seconds(), 3))
    except ValueError:
        return None


def _troubles(notes: list[Note], entries: list[Entry], at_work: State | None = None) -> list[Trouble]:
    """While a run is at work every attempt of its that failed; afterwards only what is still without a picture."""
    if at_work:
        ours = [note for note in notes if isinstance(note, Ended) and note.attempt.at >= at_work.started_at]
        return joblog.troubles([entry for entry in entries if entry.run == at_work.run], ours)
    last = {entry.job: entry for entry in sorted(entries, key=lambda entry: entry.finished_at)}
    left = [note for note in notes if note.job not in last]
    return joblog.troubles([e for e in last.values() if e.outcome is not Outcome.DONE], left)


def _work(state: State, entries: list[Entry], notes: list[Note], utc: datetime) -> Work | None:
    """None before there is any, and where the state's moments are none."""
    try:
        return _measured(state.live, state, entries, notes, utc) if state.live else None
    except ValueError:
        return None


def _measured(live: Live, state: State, entries: list[Entry], notes: list[Note], utc: datetime) -> Work:
    since = max(moment(live.began_at), utc - timedelta(seconds=RATE_S))
    if entries and len(entries) < live.ended:
        since = max(since, moment(entries[0].finished_at))  # the end of the log does not reach further back
    rate = joblog.rate(entries, since, utc)
    ended = min(live.to_do, live.ended + sum(entry.finished_at > state.heartbeat_at for entry in entries))
    pause, left = _still(live.pause, utc), live.to_do - ended
    per_s = rate.jobs / rate.window_s if rate else 0.0
    eta_s = left / per_s if per_s and not pause else None
    return Work(
        began_at=live.began_at,
        to_do=live.to_do,
        ended=ended,
        in_flight=joblog.in_flight(entries, notes, state.run),
        waiting=live.waiting,
        limit=live.limit,
        limit_reason=live.limit_reason,
        concurrency=live.concurrency,
        requests_per_minute=live.requests_per_minute,
        pause=pause,
        ends_at=live.ends_at,
        left_at_end=_left_at_end(live.ends_at, left, per_s, pause, utc),
        pictures_per_minute=rate.pictures_per_minute if rate else None,
        window_s=rate.window_s if rate else None,
        eta_s=round(eta_s, 1) if eta_s is not None else None,
        eta_at=joblog.timestamp(utc + timedelta(seconds=eta_s)) if eta_s is not None else None,
        resting={name: each for name, each in live.resting.items() if _still(each, utc)},
    )


def _still(pause: Pause | None, utc: datetime) -> Pause | None:
    """A pause that was over since the last heartbeat is no more."""
    return None if pause and pause.until and moment(pause.until) <= utc else pause


def _left_at_end(ends_at: str | None, left: int, per_s: float, pause: Pause | None, utc: datetime) -> int | None:
    if ends_at is None:
        return None
    goes_on = moment(pause.until) if pause and pause.until else utc
    seconds = (moment(ends_at) - goes_on).total_seconds()
    if seconds <= 0:
        return left
    return max(0, left - int(per_s * seconds)) if per_s else None


def render(found: Now, utc: datetime) -> Iterator[str]:
    """What goes on, for people, a line at a time."""
    if found.shards:
        yield f"  shards     {', '.join(f'{shard} {run_state}' for shard, run_state in found.shards.items())}"
    if found.run_state in AT_WORK:
        yield from _render_run(found, utc)
        if found.work:
            yield from _render_work(found.work, utc)
    elif found.run_state is RunState.KILLED:
        yield f"  run        {found.run} ended without a word, last heard of at {_clock(found.heartbeat_at, utc)}"
        yield "             (killed, or a power cut); run the same command again"
    elif found.last_verdict:
        ended = f", at {_clock(found.heartbeat_at, utc)}" if found.run_state is RunState.ENDED else ""
        yield f"  last run   {found.last_verdict} (exit code {found.last_exit_code}{ended})"
    for trouble in found.troubles:
        yield f"  trouble    {_said(trouble, utc)}"


def _render_run(found: Now, utc: datetime) -> Iterator[str]:
    here = found.host == socket.gethostname()
    place = "" if here else f" on {printable(found.host or '?', 60)}"
    age = f"{duration(found.heartbeat_age_s)} ago, " if found.heartbeat_age_s is not None else ""
    heard = f"last heard of {age}at {_clock(found.heartbeat_at, utc)}"
    if found.run_state is RunState.SILENT:
        yield f"  run        {found.run}{place} may be at work, but was {heard}"
        yield (
            "             its process is there: is it stopped, or its disk stuck?"
            if here
            else ("             only that machine can tell whether it still is")
        )
    else:
        yield f"  run        {found.run}{place}: {printable(found.doing or '', 200)}; {heard}"


def _render_work(work: Work, utc: datetime) -> Iterator[str]:
    rate = "" if work.pictures_per_minute is None else f", {work.pictures_per_minute:.1f} pictures a minute"
    over = f" (in the last {duration(work.window_s)})" if rate and work.window_s else ""
    eta = f", about {duration(work.eta_s)} left (until {_clock(work.eta_at, utc)})" if work.eta_s else ""
    yield f"  this run   {work.ended} of {work.to_do} ended{rate}{over}{eta}"
    allowed = f" ({work.limit_reason}; at most {work.concurrency})" if work.limit < work.concurrency else ""
    pace = f", {work.requests_per_minute:g} requests a minute at most" if work.requests_per_minute else ""
    waiting = f"; {counted(work.waiting, 'job')} to be tried again" if work.waiting else ""
    yield f"  in flight  {work.in_flight} of {work.limit} allowed{allowed}{pace}{waiting}"
    if work.pause:
        yield f"  pause      {_pause(work.pause, utc)}"
    for name, pause in work.resting.items():
        yield f"  endpoint   {printable(name, 60)}: {_pause(msgspec.structs.replace(pause, gives_up_at=None), utc)}"
    if work.ends_at:
        left = f"; about {work.left_at_end} jobs will be left then" if work.left_at_end else ""
        yield f"  ends       by {_clock(work.ends_at, utc)} at the latest{left}"


def _pause(pause: Pause, utc: datetime) -> str:
    since = f", since {_clock(pause.since, utc)}" if pause.since else ""
    until = f", until {_clock(pause.until, utc)} (in {_seconds(pause.until, utc)})" if pause.until else ""
    end = f"; gives up at {_clock(pause.gives_up_at, utc)}" if pause.gives_up_at else ""
    return f"{printable(pause.why, 200)}{since}{until}{end}"


def _said(trouble: Trouble, utc: datetime) -> str:
    http = f"{trouble.http} " if trouble.http else ""
    times = f"{trouble.count} x " if trouble.count > 1 else ""
    end = f"{trouble.outcome}, " if trouble.outcome else ""
    said = printable(trouble.message or "", 160)
    return f"{_clock(trouble.at, utc)} {printable(trouble.job, 60)}: {times}{end}{http}{trouble.failure}: {said}"


def _clock(at: str | None, utc: datetime) -> str:
    """A moment to the second, with its day where that is another one."""
    if at is None:
        return "?"
    return f"{at[11:19]}Z" if at[:10] == utc.date().isoformat() else f"{at[:10]} {at[11:19]}Z"


def _seconds(at: str, utc: datetime) -> str:
    return duration((moment(at) - utc).total_seconds())
