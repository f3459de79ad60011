"""The first half of a commit: answers decoded, checked and written under temporary names, durably. Ends no job."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from batchgen import joblog
from batchgen.images import ImageFacts
from batchgen.joblog import Draft, Saved
from batchgen.layout import picture_file
from batchgen.metadata import Embedded
from batchgen.model import BadAnswer, Body, Entry, Job, Outcome, Picture, Secret, ServerError
from batchgen.protocol import Answer, Drawn
from batchgen.text import printable
from batchgen.world import Clock, Delivery, Result, Sink, Staged, Verdict, Work
from batchgen.writer.patience import Patience


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
class Stager:
    """`decode`, `check` and `finish` make pictures of an answer, `quarantine` keeps one that is of no use."""

    decode: Callable[[Body], Answer | ServerError]
    check: Callable[[bytes], ImageFacts]
    sink: Sink
    clock: Clock
    patience: Patience
    key: Secret
    quarantine: Callable[[str, int, bytes], None]
    finish: Callable[[bytes, ImageFacts, Job], Embedded] = lambda data, facts, job: Embedded(data)

    def written(self, group: Iterable[Work], moves: dict[str, Staged]) -> list[Result]:
        """Entries whose pictures are durable under temporary names, which `moves` tells by the final ones."""
        try:
            taken = [self._take(work, moves) for work in group]
            self.sink.sync(moves.values())
        except BaseException:
            self.sink.discard(moves.values())
            raise
        now_s, at = self.clock.monotonic(), joblog.timestamp(self.clock.utc())
        return [item.entry(now_s, at) if isinstance(item, _Kept) else item for item in taken]

    def _take(self, work: Work, moves: dict[str, Staged]) -> _Kept | Result:
        if isinstance(work, Verdict):
            now_s, at = self.clock.monotonic(), joblog.timestamp(self.clock.utc())
            return work.draft.entry(work.outcome, Saved(), now_s, at)
        began_s = self.clock.monotonic()
        answer = self._open(work)
        if not isinstance(answer, _Opened):
            return answer
        opened_s = self.clock.monotonic()
        pictures = self.patience.persist(lambda: self._stage(work.draft.job.id, answer.pictures, moves))
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
                self.quarantine(work.draft.job.id, last.n, self.key.hide_bytes(work.body))
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
