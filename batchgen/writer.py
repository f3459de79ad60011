"""The one thread that turns answers into pictures and log lines: decode, check, stage, commit, a group at a time.

A group becomes durable in one order: pictures under temporary names, their complete entries in the attempts file, final
names, log lines. Only then does anybody learn that a job is done. What an answer means and where bytes go is decided by
the callables handed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from batchgen import joblog
from batchgen.images import ImageFacts
from batchgen.joblog import Draft, Saved
from batchgen.layout import picture_file
from batchgen.metadata import Embedded
from batchgen.model import BadAnswer, Body, Entry, Job, Outcome, Picture, Secret, ServerError, StorageError
from batchgen.protocol import Answer, Drawn
from batchgen.text import printable
from batchgen.world import (
    Clock,
    Delivery,
    Result,
    Shelf,
    Sink,
    Staged,
    StoreBusy,
    StoreFailed,
    SyncFailed,
    Verdict,
    Work,
)

T = TypeVar("T")
_Waiting = tuple[Work, "asyncio.Future[Result]"]
GROUP = 32
HOPE_S = 600.0
RETRY_S = 5.0
# A full disk may be emptied and descriptors may be given back; nothing else gets better by waiting.
_FULL = {errno.ENOSPC, errno.EDQUOT}
_HOPEFUL = _FULL | {errno.EMFILE, errno.ENFILE}


class _Checked(msgspec.Struct, frozen=True):
    """A picture as it is to be written; `received_sha256` is of the server's bytes, where they are others."""

    drawn: Drawn
    facts: ImageFacts
    sha256: str
    received_sha256: str | msgspec.UnsetType = msgspec.UNSET
    notes: tuple[str, ...] = ()


class _Opened(msgspec.Struct, frozen=True):
    """An answer whose pictures are decoded and checked, and what the server says it used."""

    pictures: list[_Checked]
    usage: dict[str, Any] | None


class _Kept(msgspec.Struct, frozen=True):
    """A job whose pictures are written, but not yet durable; `opened_s` is when they had been decoded and checked."""

    draft: Draft
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...]
    usage: dict[str, Any] | None
    decode_s: float
    opened_s: float

    def entry(self, now_s: float, at: str) -> Entry:
        saved = Saved(self.pictures, self.decode_s, now_s - self.opened_s, self.notes, self.usage)
        return self.draft.entry(Outcome.DONE, saved, now_s, at)


@dataclass
class Committer:
    """The order of things for one group, on whatever thread calls."""

    decode: Callable[[Body], Answer | ServerError]
    check: Callable[[bytes], ImageFacts]
    sink: Sink
    folder: Shelf
    clock: Clock
    pause: Callable[[float], None]
    key: Secret
    finish: Callable[[bytes, ImageFacts, Job], Embedded] = lambda data, facts, job: Embedded(data)
    on_full: Callable[[str], None] = lambda message: None
    on_wait: Callable[[str], None] = lambda message: None

    def commit(self, group: Iterable[Work]) -> list[Result]:
        """What became of each piece of work, in order. Raises OSError or StorageError where nothing can be kept.

        Each piece is taken when the pictures of the one before it are written, so that one answer at a time is open.
        """
        results, entries, lines, moves = self._ready(group)
        if not entries:
            return results
        if moves:
            self._persist(lambda: self._publish(entries, moves))
        self._persist(lambda: self.folder.append_log(b"".join(lines)))
        self.folder.sync_log()
        return results

    def salvage(self, group: Iterable[Work]) -> None:
        """Keep what was paid for where final names or the log cannot be had any more: the next run adopts it."""
        with contextlib.suppress(OSError, StorageError):
            self._ready(group)

    def _ready(self, group: Iterable[Work]) -> tuple[list[Result], list[Entry], list[bytes], dict[str, Staged]]:
        """Bring a group so far that a crash loses nothing: pictures under temporary names, and what they are."""
        moves: dict[str, Staged] = {}
        results = self._written(group, moves)
        entries = [result for result in results if isinstance(result, Entry)]
        lines = [joblog.encode(entry) for entry in entries]
        if entries:
            self._persist(lambda: self._prepare(entries, lines))
        return results, entries, lines, moves

    def _written(self, group: Iterable[Work], moves: dict[str, Staged]) -> list[Result]:
        """Entries whose pictures are durable under temporary names, which `moves` tells by the final ones."""
        try:
            taken = [self._take(work, moves) for work in group]
            self.sink.sync(moves.values())
        except BaseException:
            self.sink.discard(moves.values())
            raise
        now_s, at = self.clock.monotonic(), joblog.timestamp(self.clock.utc())
        return [item.entry(now_s, at) if isinstance(item, _Kept) else item for item in taken]

    def _persist(self, step: Callable[[], T]) -> T:
        """Do a step that may be done again, as long as the disk may recover: the pictures are paid for."""
        give_up_s = self.clock.monotonic() + HOPE_S
        while True:
            try:
                return step()
            except SyncFailed:
                raise
            except OSError as error:
                hopeful = isinstance(error, StoreBusy) or error.errno in _HOPEFUL
                if not hopeful or self.clock.monotonic() >= give_up_s:
                    raise
                if isinstance(error, StoreBusy):
                    self.on_wait(str(error))
                elif error.errno in _FULL:
                    self.on_full(str(error))
                self.pause(RETRY_S)

    def _take(self, work: Work, moves: dict[str, Staged]) -> _Kept | Result:
        if isinstance(work, Verdict):
            now_s, at = self.clock.monotonic(), joblog.timestamp(self.clock.utc())
            return work.draft.entry(work.outcome, Saved(), now_s, at)
        began_s = self.clock.monotonic()
        answer = self._open(work)
        if not isinstance(answer, _Opened):
            return answer
        opened_s = self.clock.monotonic()
        pictures = self._persist(lambda: self._stage(work.draft.job.id, answer.pictures, moves))
        notes = _oddities(work.draft, answer.pictures)
        return _Kept(work.draft, pictures, notes, answer.usage, opened_s - began_s, opened_s)

    def _open(self, work: Delivery) -> _Opened | ServerError | Exception:
        try:
            answer = self.decode(work.body)
            if isinstance(answer, ServerError):
                # Read again without the key: a message that was cut could hold a part of it.
                hidden = self.decode(self.key.hide_bytes(work.body))
                return hidden if isinstance(hidden, ServerError) else answer
            return _Opened([self._check(drawn, work.draft.job) for drawn in answer.pictures], answer.usage)
        except BadAnswer as error:
            last = work.draft.attempts[-1]
            with contextlib.suppress(OSError):  # a courtesy that must cost nobody a picture
                self.folder.quarantine(work.draft.job.id, last.n, self.key.hide_bytes(work.body))
            return error
        except Exception as error:  # one answer must never take the others of its group with it
            return error

    def _check(self, drawn: Drawn, job: Job) -> _Checked:
        """The picture with what belongs into it; as it came where that fails, for it is paid for."""
        facts = self.check(drawn.data)
        try:
            data, notes = self.finish(drawn.data, facts, job)
        except Exception as error:
            data, notes = drawn.data, (f"no metadata was embedded: {printable(str(error), 200)}",)
        sha256 = hashlib.sha256(data).hexdigest()
        if data is drawn.data:
            return _Checked(drawn, facts, sha256, notes=notes)
        received = hashlib.sha256(drawn.data).hexdigest()
        return _Checked(msgspec.structs.replace(drawn, data=data), facts, sha256, received, notes)

    def _stage(self, job: str, checked: list[_Checked], moves: dict[str, Staged]) -> tuple[Picture, ...]:
        """Write an answer's pictures, or none of them."""
        staged: dict[str, Staged] = {}
        pictures = [_picture(job, position, one) for position, one in enumerate(checked)]
        try:
            for picture, one in zip(pictures, checked, strict=True):
                staged[picture.file] = self.sink.stage(one.drawn.data, one.sha256)
        except BaseException:
            self.sink.discard(staged.values())
            raise
        moves |= staged
        return tuple(pictures)

    def _prepare(self, entries: Sequence[Entry], lines: Sequence[bytes]) -> None:
        done = [joblog.prepared(e, line) for e, line in zip(entries, lines, strict=True) if e.images]
        if done:
            self.folder.append_attempts(b"".join(done))
        self.folder.sync_attempts()

    def _publish(self, entries: Sequence[Entry], moves: dict[str, Staged]) -> None:
        for entry in entries:
            # A step that is done again finds some pictures in their places: those are the new ones.
            if to_come := [picture.file for picture in entry.images if picture.file in moves]:
                self.folder.make_way(entry.job, to_come)
        self.sink.publish(moves)


def _picture(job: str, position: int, one: _Checked) -> Picture:
    drawn, facts = one.drawn, one.facts
    return Picture(
        file=picture_file(job, position, drawn.index, facts.extension),
        index=drawn.index,
        format=facts.format,
        width=facts.width,
        height=facts.height,
        size_bytes=len(drawn.data),
        sha256=one.sha256,
        inference_s=drawn.inference_s,
        received_sha256=one.received_sha256,
        revised_prompt=drawn.revised_prompt or msgspec.UNSET,
    )


def _oddities(draft: Draft, checked: Sequence[_Checked]) -> tuple[str, ...]:
    """What about the answer was not as asked, in words for the log."""
    request, notes = draft.job.request, []
    width, height = request.get("width"), request.get("height")
    for facts in [one.facts for one in checked]:
        if width not in (None, facts.width) or height not in (None, facts.height):
            notes.append(f"the picture is {facts.width} x {facts.height}, asked for was {width} x {height}")
    if len(checked) > 1 and "n" not in request:
        notes.append(f"{len(checked)} pictures came for one request")
    notes += [note for one in checked for note in one.notes]
    return tuple(dict.fromkeys(notes))


class Writer:
    """The thread: takes all that waits (up to a group), commits it, and frees the group's slots in one call."""

    def __init__(self, committer: Committer, loop: asyncio.AbstractEventLoop) -> None:
        self._commit, self._salvage, self._loop = committer.commit, committer.salvage, loop
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._failed: Exception | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batchgen-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> asyncio.Future[Result]:
        future = self._loop.create_future()
        self._waiting.put((work, future))
        return future

    def close(self, patience_s: float | None = None) -> bool:
        """Write what waits, then end; False where that took longer than `patience_s` and was left."""
        self._waiting.put(None)
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._closed:
            if group := self._group():
                self._serve(group)

    def _group(self) -> list[_Waiting]:
        """All that waits, up to a group; at least one piece of work, or the end."""
        group: list[_Waiting] = []
        while not group or (len(group) < GROUP and not self._waiting.empty()):
            if (item := self._waiting.get()) is None:
                self._closed = True
                break
            group.append(item)
        return group

    def _serve(self, group: list[_Waiting]) -> None:
        """Commit a group, which is empty afterwards: nobody holds its answers any longer than they are needed."""
        results: list[Result] | None = None
        futures = [future for _, future in group]
        group.reverse()
        works = (group.pop()[0] for _ in futures)
        try:
            if self._failed is None:
                results = self._commit(works)
            elif isinstance(self._failed, StoreFailed):
                self._salvage(works)
        except Exception as error:  # the thread must outlive whatever happens, or its jobs would wait for ever
            self._failed = error if isinstance(error, StorageError) else StorageError(f"cannot save: {error}")
            self._failed.__cause__ = error
        self._loop.call_soon_threadsafe(_resolve, futures, results, self._failed)


def _resolve(
    futures: Sequence[asyncio.Future[Result]], results: Sequence[Result] | None, failure: Exception | None
) -> None:
    for number, future in enumerate(futures):
        if future.done():
            continue
        if results is not None:
            future.set_result(results[number])
        else:
            future.set_exception(failure or StorageError("the writer has stopped"))
