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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from batchgen import joblog
from batchgen.images import ImageFacts
from batchgen.joblog import Draft, Saved
from batchgen.layout import picture_file
from batchgen.metadata import Embedded
from batchgen.model import BadAnswer, Entry, Job, Outcome, Picture, Secret, ServerError, StorageError
from batchgen.protocol import Answer, Drawn
from batchgen.text import printable
from batchgen.world import Clock, Result, Shelf, Sink, Staged, SyncFailed, Verdict, Work

T = TypeVar("T")
GROUP = 32
HOPE_S = 600.0
RETRY_S = 5.0
# A full disk may be emptied and descriptors may be given back; nothing else gets better by waiting.
_FULL = {errno.ENOSPC, errno.EDQUOT}
_HOPEFUL = _FULL | {errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True)
class _Ready:
    """A picture as it is to be written; `received_sha256` is of the server's bytes, where they are others."""

    drawn: Drawn
    facts: ImageFacts
    received_sha256: str | msgspec.UnsetType
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Opened:
    """An answer's pictures, decoded, checked and finished, before they are written."""

    draft: Draft
    pictures: tuple[_Ready, ...]
    usage: dict[str, Any] | None
    decode_s: float


@dataclass
class Committer:
    """The order of things for one group, on whatever thread calls."""

    decode: Callable[[bytes], Answer | ServerError]
    check: Callable[[bytes], ImageFacts]
    sink: Sink
    folder: Shelf
    clock: Clock
    pause: Callable[[float], None]
    key: Secret
    finish: Callable[[bytes, ImageFacts, Job], Embedded] = lambda data, facts, job: Embedded(data)
    on_full: Callable[[str], None] = lambda message: None

    def commit(self, group: Sequence[Work]) -> list[Result]:
        """What became of each piece of work, in order. Raises OSError or StorageError where nothing can be kept."""
        opened = [self._open(work) for work in group]
        moves: dict[str, Staged] = {}
        results = self._persist(lambda: self._stage(opened, moves))
        entries = [result for result in results if isinstance(result, Entry)]
        if not entries:
            return results
        lines = [joblog.encode(entry) for entry in entries]
        self._persist(lambda: self._prepare(entries, lines))
        if moves:
            self._persist(lambda: self._publish(entries, moves))
        self._persist(lambda: self.folder.append_log(b"".join(lines)))
        self.folder.sync_log()
        return results

    def _persist(self, step: Callable[[], T]) -> T:
        """Do a step that may be done again, as long as the disk may recover: the pictures are paid for."""
        give_up_s = self.clock.monotonic() + HOPE_S
        while True:
            try:
                return step()
            except SyncFailed:
                raise
            except OSError as error:
                if error.errno not in _HOPEFUL or self.clock.monotonic() >= give_up_s:
                    raise
                if error.errno in _FULL:
                    self.on_full(str(error))
                self.pause(RETRY_S)

    def _open(self, work: Work) -> _Opened | Verdict | ServerError | Exception:
        if isinstance(work, Verdict):
            return work
        began_s = self.clock.monotonic()
        try:
            answer = self.decode(work.body)
            if isinstance(answer, ServerError):
                # Read again without the key: a message that was cut could hold a part of it.
                hidden = self.decode(self.key.hide_bytes(work.body))
                return hidden if isinstance(hidden, ServerError) else answer
            pictures = tuple((drawn, self.check(drawn.data)) for drawn in answer.pictures)
            ready = tuple(self._finished(drawn, facts, work.draft.job) for drawn, facts in pictures)
        except BadAnswer as error:
            last = work.draft.attempts[-1]
            with contextlib.suppress(OSError):  # a courtesy that must cost nobody a picture
                self.folder.quarantine(work.draft.job.id, last.n, self.key.hide_bytes(work.body))
            return error
        except Exception as error:  # one answer must never take the others of its group with it
            return error
        return _Opened(work.draft, ready, answer.usage, self.clock.monotonic() - began_s)

    def _finished(self, drawn: Drawn, facts: ImageFacts, job: Job) -> _Ready:
        """The picture with what belongs into it; as it came where that fails, for it is paid for."""
        try:
            data, notes = self.finish(drawn.data, facts, job)
        except Exception as error:
            data, notes = drawn.data, (f"no metadata was embedded: {printable(str(error), 200)}",)
        received = msgspec.UNSET if data is drawn.data else hashlib.sha256(drawn.data).hexdigest()
        return _Ready(msgspec.structs.replace(drawn, data=data), facts, received, notes)

    def _stage(
        self, opened: Sequence[_Opened | Verdict | ServerError | Exception], moves: dict[str, Staged]
    ) -> list[Result]:
        moves.clear()
        began_s = self.clock.monotonic()
        try:
            saved = [self._stage_one(item, moves) if isinstance(item, _Opened) else None for item in opened]
            self.sink.sync(moves.values())
        except BaseException:
            self.sink.discard(moves.values())
            raise
        now_s, utc = self.clock.monotonic(), self.clock.utc()
        results: list[Result] = []
        for item, pictures in zip(opened, saved, strict=True):
            if isinstance(item, _Opened) and pictures is not None:
                kept = msgspec.structs.replace(pictures, save_s=now_s - began_s)
                results.append(item.draft.entry(Outcome.DONE, kept, now_s, utc))
            elif isinstance(item, Verdict):
                results.append(item.draft.entry(item.outcome, Saved(), now_s, utc))
            elif not isinstance(item, _Opened):
                results.append(item)
        return results

    def _stage_one(self, item: _Opened, moves: dict[str, Staged]) -> Saved:
        pictures = []
        for position, ready in enumerate(item.pictures):
            drawn, facts = ready.drawn, ready.facts
            staged = self.sink.stage(drawn.data)
            file = picture_file(item.draft.job.id, position, drawn.index, facts.extension)
            moves[file] = staged
            pictures.append(
                Picture(
                    file=file,
                    index=drawn.index,
                    format=facts.format,
                    width=facts.width,
                    height=facts.height,
                    size_bytes=len(drawn.data),
                    sha256=staged.sha256,
                    inference_s=drawn.inference_s,
                    revised_prompt=drawn.revised_prompt or msgspec.UNSET,
                    received_sha256=ready.received_sha256,
                )
            )
        return Saved(tuple(pictures), item.decode_s, notes=_oddities(item), usage=item.usage)

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


def _oddities(item: _Opened) -> tuple[str, ...]:
    """What about the answer was not as asked, in words for the log."""
    request, notes = item.draft.job.request, []
    asked = (request.get("width"), request.get("height"))
    for facts in (ready.facts for ready in item.pictures):
        if any(want not in (None, got) for want, got in zip(asked, (facts.width, facts.height), strict=True)):
            notes.append(f"the picture is {facts.width} x {facts.height}, asked for was {asked[0]} x {asked[1]}")
    if len(item.pictures) > 1 and "n" not in request:
        notes.append(f"{len(item.pictures)} pictures came for one request")
    notes += [note for ready in item.pictures for note in ready.notes]
    return tuple(dict.fromkeys(notes))


class Writer:
    """The thread: takes all that waits (up to a group), commits it, and frees the group's slots in one call."""

    def __init__(self, committer: Committer, loop: asyncio.AbstractEventLoop) -> None:
        self._commit, self._loop = committer.commit, loop
        self._waiting: queue.SimpleQueue[tuple[Work, asyncio.Future[Result]] | None] = queue.SimpleQueue()
        self._failed: Exception | None = None
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
        open_ = True
        while open_:
            group = [self._waiting.get()]
            while len(group) < GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            open_ = None not in group
            self._serve([item for item in group if item is not None])

    def _serve(self, group: list[tuple[Work, asyncio.Future[Result]]]) -> None:
        if not group:
            return
        results: list[Result] | None = None
        try:
            if self._failed is None:
                results = self._commit([work for work, _ in group])
        except Exception as error:  # the thread must outlive whatever happens, or its jobs would wait for ever
            self._failed = error if isinstance(error, StorageError) else StorageError(f"cannot save: {error}")
            self._failed.__cause__ = error
        self._loop.call_soon_threadsafe(_resolve, [future for _, future in group], results, self._failed)


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
