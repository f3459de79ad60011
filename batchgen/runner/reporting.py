"""Makes the page of a folder: reads what is there, makes thumbnails, writes `report.html`. No lock is needed.

Everything is read through `archive` and written below the folder; what is on the page is decided in `batchgen.report`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from batchgen import __version__, joblog
from batchgen.clock import SystemClock
from batchgen.layout import REPORT, THUMBS
from batchgen.model import BatchgenError, Entry, Job, Picture, Standing, StorageError
from batchgen.plan import Mark
from batchgen.report import Report, Scene, Stand, Thumb, render
from batchgen.report.numbers import Numbers
from batchgen.runner import live
from batchgen.runner.archive import Archive, Recent, open_archive
from batchgen.runner.live import RunState
from batchgen.runner.look import Status, counts_of, plan_now
from batchgen.runner.storage import OutputFiles
from batchgen.runner.thumbs import Thumbs, Wanted, open_thumbs, side_by_side, sweep_drafts, write_new
from batchgen.stores import StoreFiles
from batchgen.summary import Summary
from batchgen.world import Clock, Files, StoreFailed

TELL_EVERY_S = 10.0
_UPLOADS = 8
_DRAFT = re.compile(r"\.report\.html\.([0-9]{1,10})\.part")
_AXIS_VALUES = 10_000


class Reported(msgspec.Struct, frozen=True):
    """What making a page came to. `problems` are pictures that cannot be shown."""

    page: str
    size_bytes: int
    jobs: int
    pictures: int
    thumbs_made: int
    thumbs_removed: int
    problems: int
    elapsed_s: float
    copy: str | None = None
    v: int = 1


def report(path: Path, env: Mapping[str, str], tell: Callable[[str], None], clock: Clock | None = None) -> Reported:
    """Make the page of the output folder `path`, or of the one that belongs to the manifest `path`.

    `tell` hears now and then how far it is. Raises UsageError where no run has been, StorageError where the folder
    cannot be written to.
    """
    clock = clock or SystemClock()
    with open_archive(path) as archive:
        try:
            return _report(archive, path if path.is_file() else archive.manifest, env, tell, clock)
        except StorageError:
            raise
        except OSError as error:
            place = archive.root / error.filename if isinstance(error.filename, str) else archive.root
            raise StorageError(f"{place}: {error.strerror or error}; the report needs to write there") from error


def _report(
    archive: Archive, manifest: Path | None, env: Mapping[str, str], tell: Callable[[str], None], clock: Clock
) -> Reported:
    began_s, files = clock.monotonic(), archive.records.files
    numbers = _count(archive)
    page = Report(_scene(archive, manifest, env, numbers, clock), numbers)
    if page.has_earlier:
        archive.history(page.remember)
    thumbs = open_thumbs(files)
    pictures, told_s = 0, began_s
    for entry, small in _shown(archive, thumbs):
        page.show(entry, small)
        pictures += len(small)
        if clock.monotonic() - told_s >= TELL_EVERY_S:
            told_s = clock.monotonic()
            tell(f"{pictures:,} pictures looked at, {thumbs.made:,} thumbnails made")
    size = _write(files, render(page))
    if archive.store:
        _mirror(archive.files, thumbs.used)
    return Reported(
        page=str(archive.root / REPORT),
        size_bytes=size,
        jobs=len(page.rows.rows),
        pictures=pictures,
        thumbs_made=thumbs.made,
        thumbs_removed=thumbs.sweep(),
        problems=thumbs.problems,
        elapsed_s=round(clock.monotonic() - began_s, 3),
        copy=f"{archive.store}/{REPORT}" if archive.store else None,
    )


def _mirror(files: OutputFiles, used: Iterable[str]) -> None:
    """The page also beside the pictures in a store, where its links lead to them; thumbnails that are there stay."""
    assert isinstance(files, StoreFiles)
    there = {name for name, _ in files.objects.below(THUMBS)}
    with ThreadPoolExecutor(_UPLOADS, "batchgen-report") as pool:
        list(pool.map(files.mirror, sorted({f"{THUMBS}/{name}" for name in used} - there)))
    files.mirror(REPORT)


def _count(archive: Archive) -> Numbers:
    numbers = Numbers()
    archive.history(numbers.add)
    if archive.state:
        for ended in archive.records.lives.ended():
            numbers.add_open(ended.attempt, archive.state.run)
    return numbers


def _shown(archive: Archive, thumbs: Thumbs) -> Iterator[tuple[Entry, list[Thumb]]]:
    """The entry that holds for each job, with the small forms of its pictures, which are made ahead of it."""
    ahead: deque[Entry] = deque()

    def pictures() -> Iterator[list[Wanted]]:
        for entry in archive.entries():
            ahead.append(entry)
            yield [Wanted(picture, _place(archive, entry, picture)) for picture in entry.images]

    with warnings.catch_warnings():
        # What a decoder only warns of is shown as well as it goes.
        warnings.simplefilter("ignore")
        for small in side_by_side(thumbs, pictures()):
            yield ahead.popleft(), small


def _place(archive: Archive, entry: Entry, picture: Picture) -> str | None:
    try:
        return archive.place_of(entry, picture)
    except StoreFailed:
        raise
    except (OSError, ValueError):  # a path that can be no file's; what is wrong with it is told when it is read
        return None


def _write(files: Files, page: Iterator[str]) -> int:
    sweep_drafts(files, ".", _DRAFT)
    draft = f".{REPORT}.{os.getpid()}.part"
    size = write_new(files, draft, _in_chunks(page), durable=True)
    files.rename(draft, REPORT)
    return size


def _in_chunks(page: Iterator[str]) -> Iterator[bytes]:
    """The page in pieces worth a system call."""
    waiting, size = [], 0
    for piece in page:
        waiting.append(piece)
        size += len(piece)
        if size > 1 << 18:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    yield "".join(waiting).encode()


@dataclass
class _Heard:
    """What a walk over the manifest tells beside the plan."""

    standings: dict[int, Standing] = field(default_factory=dict)
    axes: dict[str, dict[str, None]] = field(default_factory=dict)

    def __call__(self, job: Job, standing: Standing, mark: Mark) -> None:
        self.standings[joblog.key(job.id)] = standing
        for name, value in job.axes.items():
            values = self.axes.setdefault(name, {})
            if len(values) < _AXIS_VALUES:
                values.setdefault(value)


def _scene(archive: Archive, manifest: Path | None, env: Mapping[str, str], numbers: Numbers, clock: Clock) -> Scene:
    heard, notices, plan = _Heard(), [], None
    if manifest:
        try:
            plan = plan_now(manifest, archive, env, heard)
        except BatchgenError as error:
            first = str(error).partition("\n")[0]
            notices.append(f"The manifest cannot be read as it is now, so pending jobs are not counted: {first}")
    recent, now = archive.recent(), clock.utc()
    status = counts_of(archive, manifest, plan).at(live.now(recent, now))
    command = f"batchgen run {archive.told(manifest.absolute())}" if manifest and plan else None
    return Scene(
        version=__version__,
        stand=_stand(archive, status, numbers, joblog.timestamp(now), command),
        summary=_last_words(archive),
        standings=heard.standings if plan else None,
        axes={name: list(values) for name, values in heard.axes.items()},
        pace=tuple(note for one in recent for note in one.pace()),
        notices=tuple(notices),
    )


def _stand(archive: Archive, status: Status, numbers: Numbers, now: str, command: str | None) -> Stand:
    return Stand(
        name=archive.root.resolve().name,
        made_at=now,
        done=status.done,
        failed=status.failed,
        uncertain=status.uncertain,
        total=status.total,
        pending=status.pending,
        in_doubt=status.in_doubt,
        orphans=status.orphans,
        requests=status.requests,
        cost_usd=status.cost_usd if numbers.priced else None,
        exposure_usd=status.exposure_usd,
        run=status.run,
        running=status.running,
        killed=status.run_state is RunState.KILLED,
        doing=status.doing,
        heartbeat_at=status.heartbeat_at,
        command=command,
    )


def _last_words(archive: Archive) -> Summary | None:
    """The summary of whoever began last."""
    return Recent(archive.records.files, archive.latest[0]).summary() if archive.latest else None
