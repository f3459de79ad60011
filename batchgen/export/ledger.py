"""What an export remembers of the files it made: it replaces and removes these, and never another. Lines of text."""

from __future__ import annotations

import msgspec


class Owner(msgspec.Struct, frozen=True, tag="export", tag_field="type"):
    """The first line: what is exported here, and of which output folder (relative to the export)."""

    to: str
    source: str
    v: int = 1


class Made(msgspec.Struct, frozen=True, tag="made", tag_field="type", gc=False):
    """A file that was made, or was just about to get its name; size and time tell whether it still is that file."""

    file: str
    recipe: str
    sha256: str
    size_bytes: int
    mtime_ns: int


Line = Owner | Made

_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def decode(line: bytes) -> Line:
    """Raises msgspec.MsgspecError for a line that is damaged or was cut short."""
    return _decoder.decode(line)
