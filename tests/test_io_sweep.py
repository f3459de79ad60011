"""Every file operation of a small run fails, or is the last one; what was not synced is lost; files are cut.

The run is `nights.stage`'s: the real program on a simulated disk. `make nights` sweeps every operation with every
error; `make test` takes every twelfth, and the errors in turns.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
from nights.machine import DiskFault
from nights.promises import ATTEMPTS, LOG, entries, pictures
from nights.scenario import Scenario, Start
from nights.server import Episode
from nights.shrink import play_apart, told
from nights.stage import Story

from batchgen.model import ExitCode

pytestmark = pytest.mark.no_cover  # as in test_nights
WHOLE = bool(os.environ.get("BATCHGEN_SOAK"))
STEP = 1 if WHOLE else 12
CODES = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS)
FIRST = Scenario(seed=3, jobs=3, flags=(("concurrency", 2),), slowest_s=2.0)
LOST = Episode("answer lost", 0.0, 3.0)
# Afterwards one picture makes way for another, one comes back, and one is new.
EDITS = (("change", 0), ("add", 1))
LATER = replace(FIRST, episodes=(LOST,), starts=(Start(), Start(edits=EDITS), Start(edits=(("revert", 0),))))


def struck(story: Scenario, number: int, fault: DiskFault, *, power: bool = False) -> Story:
    """The story with this fault in its execution of this number (from 0)."""
    start = replace(story.starts[number], faults=(fault,), power=power)
    return play_apart(replace(story, starts=(*story.starts[:number], start, *story.starts[number + 1 :])))


def operations(story: Scenario, number: int) -> int:
    """How many file operations an execution has when all is well."""
    return play_apart(story).played[number].process.operations


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_every_file_operation_may_fail(number: int, lasting: bool) -> None:
    """Whichever operation fails, and however, no promise is broken and the next run finishes the work."""
    last = operations(LATER, number)
    for at in range(1 + number % STEP, last + 1, STEP):
        for code in CODES if WHOLE else [CODES[at // STEP % len(CODES)]]:
            story = struck(LATER, number, DiskFault(code, at=at, lasting=lasting))
            assert story.played[number].process.struck, f"operation {at} of {last} was not reached"
            assert not story.broken, told(story)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power cut"])
def test_every_file_operation_may_be_the_last(number: int, power: bool) -> None:
    """A process that dies at any operation, with all that was not synced or without, loses no job and no picture."""
    for at in range(1 + power % STEP, operations(LATER, number) + 1, STEP):
        for seed in range(8 if WHOLE and power else 1):
            story = struck(replace(LATER, seed=seed + at), number, DiskFault(at=at, kill=True), power=power)
            assert not story.broken, told(story)


def cut(path: str, size_bytes: int, starts: tuple[Start, ...]) -> tuple[Story, int]:
    """A story in which a file is cut before the last execution, and how many requests there were until then."""
    story = play_apart(replace(FIRST, starts=(*starts, Start(cuts=((path, size_bytes),)))))
    return story, sum(r.start <= len(starts) for r in story.server.ledger)


def file_size(path: str, starts: tuple[Start, ...]) -> int:
    """How large a file is after these executions."""
    return play_apart(replace(FIRST, starts=(*starts, Start(cuts=((path, 1 << 20),))))).cut_from[path]


def test_a_log_that_lost_its_end_is_refused_at_every_byte() -> None:
    """A log that was cut by somebody sends nobody to the shop again: nothing is sent until a person decides."""
    size = file_size(LOG, (Start(),))
    for at in range(1, size, 1 if WHOLE else 97):
        story, before = cut(LOG, at, (Start(),))
        assert len(story.server.ledger) == before, told(story)
        assert story.played[1].exit_code is ExitCode.USAGE
        assert "--redo-missing" in str(story.played[1].error)
        assert len(pictures(story, "images")) == FIRST.jobs


DIES = (Start(kill_s=1.9),)


def test_a_log_cut_at_any_byte_after_a_crash_gets_its_lines_back() -> None:
    """Lines that a crashed run's log has lost come back from the attempts file, and their pictures are not bought."""
    whole = play_apart(replace(FIRST, starts=DIES))
    made = len([r for r in whole.server.ledger if r.start == 1 and r.delivered])
    assert made, "the crash comes after the first picture"
    size = file_size(LOG, DIES)
    for at in range(0, size, 1 if WHOLE else 61):
        story, before = cut(LOG, at, DIES)
        assert not story.broken, told(story)
        bought = [r.prompt for r in story.server.ledger[:before] if r.delivered]
        again = [r.prompt for r in story.server.ledger[before:] if r.prompt in bought]
        assert not again, told(story)
        assert len({entry["job"] for entry in entries(story)}) == FIRST.jobs


def test_attempts_cut_at_any_byte_lose_no_picture() -> None:
    """What is left of a cut attempts file is read; what is done stays done, and the rest is made."""
    size = file_size(ATTEMPTS, DIES)
    for at in range(0, size, 1 if WHOLE else 61):
        story, _ = cut(ATTEMPTS, at, DIES)
        assert not [b for b in story.broken if not b.startswith(("on record", "rationed"))], told(story)
        assert len(pictures(story, "images")) == FIRST.jobs
