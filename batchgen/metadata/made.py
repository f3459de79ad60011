"""The values that metadata is about: what a picture was made from, and what was found in one."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import msgspec


class Made(msgspec.Struct, frozen=True):
    """What a picture was made from; `request` as the log has it."""

    job: str
    fingerprint: str
    api: str
    model: str
    request: dict[str, Any]


class Embedded(NamedTuple):
    """A picture as it is to be written; `notes` tells in words what was left out, and why."""

    data: bytes
    notes: tuple[str, ...] = ()


class Carried(NamedTuple):
    """What a picture carries: the infotext, whether its place is `taken` (by that or another), the XMP packet.

    `sealed`: it bears a C2PA manifest, so that no byte of it may change.
    """

    infotext: str | None = None
    taken: bool = False
    xmp: bytes | None = None
    sealed: bool = False


class Container(Protocol):
    """What a module for one format has. The limits are of the infotext in UTF-16 and of the XMP packet, in bytes."""

    MAX_TEXT_BYTES: int
    MAX_XMP_BYTES: int

    def look(self, data: bytes) -> Carried: ...
    def splice(self, data: bytes, size: tuple[int, int], text: str | None, xmp: bytes | None) -> bytes: ...
