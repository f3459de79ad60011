"""A line of the file that tells how the pace of runs changed, and why."""

from __future__ import annotations

import msgspec


class PaceNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of pace in one run at a UTC time; the other fields are those of events.Paced."""

    at: str
    run: str
    message: str
    concurrency: int | None = None
    pause_s: float | None = None
    outage: bool = False
    endpoint: str | None = None


_notes = msgspec.json.Decoder(PaceNote)


def decode_pace(line: bytes) -> PaceNote:
    """The change of pace on a line. Raises one of BAD_LINE."""
    return _notes.decode(line)
