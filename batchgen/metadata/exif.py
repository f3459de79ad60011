"""An Exif block that holds one text, both ways: a TIFF header, two directories, UserComment (CIPA DC-008)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_EXIF_IFD, _VERSION, _COMMENT = 0x8769, 0x9000, 0x9286
_LONG, _UNDEFINED = 4, 7
_UNICODE, _ASCII = b"UNICODE\0", b"ASCII\0\0\0"
_ENTRY = ">HHI4s"
_HEAD = (
    b"MM\0*"
    + struct.pack(">IH", 8, 1)
    + struct.pack(_ENTRY, _EXIF_IFD, _LONG, 1, struct.pack(">I", 26))
    + struct.pack(">IH", 0, 2)
    + struct.pack(_ENTRY, _VERSION, _UNDEFINED, 4, b"0232")
)
_COMMENT_AT = 56


def block(text: str) -> bytes:
    """The TIFF structure with `text` as UserComment; readers expect UTF-16 in big-endian order behind UNICODE."""
    comment = _UNICODE + text.encode("utf-16-be")
    entry = struct.pack(_ENTRY, _COMMENT, _UNDEFINED, len(comment), struct.pack(">I", _COMMENT_AT))
    return _HEAD + entry + bytes(4) + comment


def comment(data: bytes) -> str | None:
    """The UserComment in a TIFF structure of either byte order; None where there is none that can be read."""
    order = {b"MM": ">", b"II": "<"}.get(data[:2])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        for tag, _, place in _entries(data, order, first):
            if tag == _EXIF_IFD:
                found = (data[at : at + n] for tag, n, at in _entries(data, order, place) if tag == _COMMENT)
                return _text(next(found, b""))
    except (struct.error, UnicodeDecodeError):
        pass
    return None


def _entries(data: bytes, order: str, at: int) -> Iterator[tuple[int, int, int]]:
    """Tag, count and value (or its place) of each entry of a directory."""
    (count,) = struct.unpack_from(f"{order}H", data, at)
    for number in range(count):
        tag, _, size, place = struct.unpack_from(f"{order}HHII", data, at + 2 + 12 * number)
        yield tag, size, place


def _text(raw: bytes) -> str | None:
    code, words = raw[:8], raw[8:]
    if code == _ASCII:
        return words.decode("ascii").rstrip("\0")
    if code != _UNICODE:
        return None
    # The byte order is not written anywhere; most texts have letters whose high byte is zero.
    little = words[1::2].count(0) > words[::2].count(0)
    return words.decode("utf-16-le" if little else "utf-16-be")
