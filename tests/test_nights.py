"""Whole nights of the real program in a simulated world, and proof that the simulation finds what it is there to find.

A failing seed is told in full by `python -m nights SEED` (with `tests` on PYTHONPATH); `make nights` plays thousands.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from nights.disk import Disk
from nights.scenario import scenario
from nights.shrink import play_apart, shrink, told

from batchgen import failures, plan, shards
from batchgen.folder import Folder, Records
from batchgen.folder.writable import _Appender
from batchgen.joblog import Fold, Lives
from batchgen.model import Counts
from batchgen.pacing import Adaptive, Budget, Day
from batchgen.pool.consequences import Consequences
from batchgen.pool.lanes import Lanes
from batchgen.runner import conduct
from batchgen.runner.context import Run
from batchgen.runner.copies import Copies
from batchgen.sink import LocalSink
from batchgen.stores import StoreFiles
from batchgen.stores.files import in_store
from batchgen.world import Delivery, Work
from batchgen.writer import Committer

# What runs here is measured where it is tested for itself; to count its lines here too takes three times as long.
pytestmark = pytest.mark.no_cover
NIGHTS = 80
SHARE = 20


@pytest.mark.parametrize("first", range(0, NIGHTS, SHARE))
def test_nights_keep_every_promise(first: int) -> None:
    """Whatever happens in these nights, no promise is broken, and in the morning every job has ended."""
    for seed in range(first, first + SHARE):
        story = play_apart(scenario(seed))
        assert not story.broken, "\n" + told(shrink(story))


def test_one_seed_is_one_night() -> None:
    """A seed gives the same story again, in another process with other hashes of strings too."""
    program = "from nights.shrink import *; from nights.scenario import *; print(told(play_apart(scenario(7))))"
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    stories = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert stories == {(told(play_apart(scenario(7))) + "\n").encode()}


Patch = pytest.MonkeyPatch


def _pictures_not_synced(patch: Patch) -> None:
    def sync(self: LocalSink, staged: Iterable[Any]) -> None:
        for item in staged:
            self.files.close(item.handle)

    patch.setattr(LocalSink, "sync", sync)


def _names_not_synced(patch: Patch) -> None:
    def publish(self: LocalSink, moves: dict[str, Any]) -> None:
        for name in list(moves):
            self.files.make_dir(str(PurePosixPath(name).parent))
            self.files.rename(moves[name].path, name)
            del moves[name]

    patch.setattr(LocalSink, "publish", publish)


def _log_not_synced(patch: Patch) -> None:
    patch.setattr(Folder, "sync_log", lambda self: None)


def _ration_counted_twice(patch: Patch) -> None:
    taken = failures._taken
    patch.setattr(failures, "_taken", lambda life, which: taken(life, which) * (2 if which is Counts.RATION else 1))


def _adopted_without_digest(patch: Patch) -> None:
    def find(self: Folder, picture: Any, taken: Any) -> str | None:
        return picture.file if self.files.size_of(picture.file) == picture.size_bytes else None

    patch.setattr(Folder, "_find", find)


def _slot_freed_before_the_line(patch: Patch) -> None:
    kept: list[bytes] = []
    append = Folder.append_log

    def late(self: Folder, data: bytes) -> None:
        append(self, b"".join(kept))
        kept[:] = [data]

    patch.setattr(Folder, "append_log", late)


def _ration_forgotten_after_a_crash(patch: Patch) -> None:
    patch.setattr(Lives, "of", lambda self, job, fingerprint: ())


def _doubts_not_counted(patch: Patch) -> None:
    patch.setattr(failures, "LIFETIME_DOUBTS", 1000)


def _unknown_answers_sent_again_freely(patch: Patch) -> None:
    patch.setattr(failures, "counts", lambda failure, **_: None)


def _torn_tail_kept(patch: Patch) -> None:
    patch.setattr(_Appender, "cut", lambda self, size: None)


def _intent_after_the_answer(patch: Patch) -> None:
    patch.setattr(Folder, "append_attempts", lambda self, data: None)


def _old_pictures_overwritten(patch: Patch) -> None:
    patch.setattr(Folder, "make_way", lambda self, job, files: None)


def _day_not_closed(patch: Patch) -> None:
    patch.setattr(Day, "hold", lambda self, utc: None)
    patch.setattr(Lanes, "check_patience", lambda self, *arguments: None)


def _one_request_more_in_flight(patch: Patch) -> None:
    hold = Adaptive.hold
    patch.setattr(Adaptive, "hold", lambda self, in_flight: hold(self, in_flight - 1))


def _budget_forgets(patch: Patch) -> None:
    patch.setattr(Budget, "sent", lambda self, price_usd: None)


def _no_breaker(patch: Patch) -> None:
    patch.setattr(Consequences, "_nobody_succeeds", lambda self, fault, now_s: None)


def _done_again(patch: Patch) -> None:
    row = Fold.row

    def forgetful(self: Fold, job: str, fingerprint: str) -> Any:
        return None if job == "job-0" else row(self, job, fingerprint)

    patch.setattr(Fold, "row", forgetful)


def _pictures_swapped(patch: Patch) -> None:
    commit = Committer.commit

    def mixed(self: Committer[Work], works: Iterable[Work]) -> Any:
        group = list(works)
        deliveries = [work for work in group if isinstance(work, Delivery)]
        bodies = [work.body for work in deliveries]
        for work, body in zip(deliveries, bodies[1:] + bodies[:1], strict=True):
            object.__setattr__(work, "body", body)
        return commit(self, group)

    patch.setattr(Committer, "commit", mixed)


def _shards_overlap(patch: Patch) -> None:
    patch.setattr(plan, "holds", lambda shard, job: True)


def _shards_take_the_whole_limit(patch: Patch) -> None:
    patch.setattr(shards, "part", lambda shard, whole: whole)


def _what_other_shards_did_is_not_read(patch: Patch) -> None:
    patch.setattr(Records, "_read_earlier", lambda self: None)


def _what_was_read_is_not_kept(patch: Patch) -> None:
    patch.setattr(Folder, "_keep_what_was_read", lambda self: None)


def _overdrawn_parts_forgotten(patch: Patch) -> None:
    patch.setattr(Run, "overdrawn", lambda self, used, part, whole=None: 0.0)


def _time_counted_from_the_plan(patch: Patch) -> None:
    begin = conduct._begin

    def late(session: Any, folder: Any, voice: Any, outside: Any, began_s: float) -> Any:
        return begin(session, folder, voice, outside, outside.clock.monotonic())

    patch.setattr(conduct, "_begin", late)


def _draft_removed_before_the_upload(patch: Patch) -> None:
    def upload(self: StoreFiles, old: str, new: str) -> None:
        data = self.local.read(old)
        self.local.remove(old)
        self.objects.put(new, data)
        self._index.put(new, len(data))

    patch.setattr(StoreFiles, "_upload", upload)


def _objects_deleted_instead_of_moved(patch: Patch) -> None:
    def move(self: StoreFiles, old: str, new: str) -> None:
        self.objects.delete(old)
        self._index.remove(old)

    patch.setattr(StoreFiles, "_move", move)


def _objects_overwritten(patch: Patch) -> None:
    patch.setattr(StoreFiles, "size_of", lambda self, path: None if in_store(path) else self.local.size_of(path))


def _nothing_is_prepared(patch: Patch) -> None:
    patch.setattr(Committer, "_prepare", lambda self, entries, lines: None)


def _copies_not_finished(patch: Patch) -> None:
    patch.setattr(Copies, "finish", lambda self: "")


# Each with a night that finds it, where that is not the first one.
PLANTED: dict[Callable[[Patch], None], int] = {
    _pictures_not_synced: 0,
    _names_not_synced: 0,
    _log_not_synced: 0,
    _ration_counted_twice: 0,
    _adopted_without_digest: 5,
    _slot_freed_before_the_line: 0,
    _ration_forgotten_after_a_crash: 2,
    _doubts_not_counted: 62,
    _unknown_answers_sent_again_freely: 9,
    _torn_tail_kept: 11,
    _intent_after_the_answer: 0,
    _old_pictures_overwritten: 5,
    _day_not_closed: 38,
    _one_request_more_in_flight: 0,
    _budget_forgets: 1,
    _no_breaker: 21,
    _done_again: 0,
    _pictures_swapped: 0,
    _shards_overlap: 3,
    _shards_take_the_whole_limit: 38,
    _what_other_shards_did_is_not_read: 3,
    _what_was_read_is_not_kept: 738,
    _overdrawn_parts_forgotten: 6903,
    _time_counted_from_the_plan: 6729,
    _draft_removed_before_the_upload: 219,
    _objects_deleted_instead_of_moved: 54,
    _objects_overwritten: 4,
    _nothing_is_prepared: 6,
    _copies_not_finished: 4,
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_defect_is_found(plant: Callable[[Patch], None]) -> None:
    """Each defect that somebody might make breaks a promise in one of the nights that the real program gets through."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        assert any(play_apart(scenario(seed)).broken for seed in (PLANTED[plant], *range(NIGHTS)))


def test_a_failing_story_becomes_a_small_one() -> None:
    """What a failing night does not need is left out, and what is left breaks the same promise."""
    with pytest.MonkeyPatch.context() as patch:
        _one_request_more_in_flight(patch)
        story = next(s for s in map(play_apart, map(scenario, range(NIGHTS))) if s.broken)
        small = shrink(story)
    assert small.broken[0].startswith("limits")
    assert small.scenario.jobs <= 5
    assert not small.scenario.episodes
    assert len(small.scenario.starts) == 1


def test_a_power_cut_takes_what_was_not_synced() -> None:
    """Bytes need their file's sync and names their folder's; a move may leave both names, but never none."""
    ends = set()
    for seed in range(200):
        disk = Disk()
        disk.make_folder("images")
        disk.sync_folder(".")
        kept, lost = disk.make_file("kept"), disk.make_file("lost")
        kept.data += b"synced"
        kept.sync(disk)
        disk.sync_folder(".")
        lost.data += b"not synced"
        disk.move("kept", "images/kept")
        disk.power_cut(random.Random(seed))
        assert {"kept", "images/kept"} & set(disk.names)
        assert all(disk.names[name].data == b"synced" for name in ("kept", "images/kept") if name in disk.names)
        ends.add((frozenset(disk.names), bytes(disk.names["lost"].data)))
    assert {len(names) for names, _ in ends} == {3, 4}
    assert {b"", b"not synced"} < {data for _, data in ends}
