"""A line and the value it stands for, both ways, side by side."""

from __future__ import annotations

from typing import Annotated

import msgspec

from batchgen.model import Attempt, Entry, Outcome


class Intent(msgspec.Struct, frozen=True, tag="intent", tag_field="type", omit_defaults=True):
    """A request is about to leave; written first, so that a crash cannot hide that it may have been paid for."""

    job: str
    fingerprint: str
    n: int
    at: str
    run: str
    price_usd: float | None = None
    endpoint: str | None = None


class Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="type", omit_defaults=True):
    """How an attempt without a picture ended."""

    job: str
    fingerprint: str
    attempt: Attempt
    price_usd: float | None = None


class Withdrawn(msgspec.Struct, frozen=True, tag="withdrawn", tag_field="type"):
    """The request of an intent never left: whoever had been told to send it gave it back."""

    job: str
    fingerprint: str
    n: int


class Prepared(msgspec.Struct, frozen=True, tag="prepared", tag_field="type"):
    """The entry of a job whose pictures are about to get their final names; `entry` is the log line to be."""

    job: str
    fingerprint: str
    entry: msgspec.Raw


Note = Intent | Ended | Prepared | Withdrawn


class SeenAttempt(msgspec.Struct, frozen=True, gc=False):
    """What folding needs of an entry's attempt."""

    n: Annotated[int, msgspec.Meta(ge=0)]
    at: str
    endpoint: str | None = None


class SeenPicture(msgspec.Struct, frozen=True, gc=False):
    """What finding a picture needs of an entry."""

    file: str
    index: int
    size_bytes: int
    sha256: str


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What folding needs of an entry; the rest of the line is skipped unread."""

    job: str
    fingerprint: str
    outcome: Outcome
    finished_at: str
    run: str = ""
    api: str = ""
    attempts: tuple[SeenAttempt, ...] = ()
    images: tuple[SeenPicture, ...] = ()
    cost_usd: float | None = None
    exposure_usd: float | None = None


_encoder = msgspec.json.Encoder()
_entries = msgspec.json.Decoder(Entry)
_seen = msgspec.json.Decoder(Seen)
_notes: msgspec.json.Decoder[Note] = msgspec.json.Decoder(Note)
BAD_LINE = (msgspec.MsgspecError, ValueError, RecursionError)


def encode(value: Entry | Note) -> bytes:
    """One physical line: the line separators that JSON allows inside text are escaped."""
    line = _encoder.encode(value) + b"\n"
    if b"\xe2\x80" in line:
        line = line.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return line


def decode(line: bytes) -> Entry:
    """The entry on a line. Raises one of BAD_LINE."""
    return _entries.decode(line)


def decode_seen(line: bytes) -> Seen:
    return _seen.decode(line)


def decode_note(line: bytes) -> Note:
    return _notes.decode(line)


def prepared(entry: Entry, line: bytes) -> bytes:
    """The attempts-file line that holds `line`, the log line of `entry`."""
    return encode(Prepared(entry.job, entry.fingerprint, msgspec.Raw(line[:-1])))
