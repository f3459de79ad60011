"""An entry in the making: all that is known of a job before its pictures are written."""

from __future__ import annotations

from datetime import datetime
from typing import Any, overload

import msgspec

from batchgen.model import Attempt, Billed, Entry, Job, Outcome, Picture, Timings


class Saved(msgspec.Struct, frozen=True):
    """The pictures of a job as they were written, how long that took in seconds, what the server says it used."""

    pictures: tuple[Picture, ...] = ()
    decode_s: float = 0.0
    save_s: float = 0.0
    notes: tuple[str, ...] = ()
    usage: dict[str, Any] | None = None


class Draft(msgspec.Struct, frozen=True):
    """All that is known of a job before its pictures are written: everything of its entry but how it ended.

    `ready_s` is the monotonic time from which `total_s` counts; `price_usd` is what one picture costs.
    """

    job: Job
    run: str
    manifest: str
    api: str
    attempts: tuple[Attempt, ...]
    ready_s: float
    queued_s: float = 0.0
    waited_s: float = 0.0
    first_byte_s: float | None = None
    response_s: float | None = None
    price_usd: float | None = None

    def entry(self, outcome: Outcome, saved: Saved, now_s: float, at: str) -> Entry:
        """The finished job's entry, at the monotonic time `now_s` and the UTC timestamp `at`."""
        job, pictures = self.job, saved.pictures
        seconds = [p.inference_s for p in pictures if p.inference_s is not None]
        billed = [attempt.billed for attempt in self.attempts]
        certain, possible = billed.count(Billed.YES) + max(len(pictures) - 1, 0), billed.count(Billed.MAYBE)
        return Entry(
            job=job.id,
            fingerprint=job.fingerprint,
            outcome=outcome,
            run=self.run,
            manifest=self.manifest,
            line=job.line,
            api=self.api,
            model=job.model,
            request=job.request,
            meta=job.meta,
            images=pictures,
            inference_s=max(seconds) if seconds else None,
            timings=Timings(
                queued_s=_rounded(self.queued_s),
                waited_s=_rounded(self.waited_s),
                first_byte_s=_rounded(self.first_byte_s),
                response_s=_rounded(self.response_s),
                decode_s=_rounded(saved.decode_s),
                save_s=_rounded(saved.save_s),
                total_s=_rounded(now_s - self.ready_s),
            ),
            attempts=self.attempts,
            cost_usd=None if self.price_usd is None else round(certain * self.price_usd, 6),
            exposure_usd=None if self.price_usd is None else round(possible * self.price_usd, 6),
            billed=next((b for b in (Billed.YES, Billed.MAYBE) if b in billed), Billed.NO),
            finished_at=at,
            notes=saved.notes,
            axes=job.axes or msgspec.UNSET,
            file=job.file or msgspec.UNSET,
            usage=saved.usage or msgspec.UNSET,
        )


@overload
def _rounded(seconds: float) -> float: ...
@overload
def _rounded(seconds: float | None) -> float | None: ...
def _rounded(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    return round(seconds, 6) if seconds > 0 else 0.0


def timestamp(utc: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`."""
    return utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
