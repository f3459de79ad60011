"""Exif and XMP in JPEG: APP1 segments before the picture (CIPA DC-008 section 4.5; XMP specification part 3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from batchgen.metadata import exif
from batchgen.metadata.made import Carried

_MAX_SEGMENT = 65_533
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_SOS, _EOI, _APP0, _APP1, _APP11 = 0xDA, 0xD9, 0xE0, 0xE1, 0xEB
MAX_TEXT_BYTES = _MAX_SEGMENT - len(_EXIF) - len(exif.block(""))
MAX_XMP_BYTES = _MAX_SEGMENT - len(_XMP)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker of each segment before the first scan, and where its content begins and ends."""
    at = 2
    while True:
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if marker in (_SOS, _EOI):
            return
        (length,) = struct.unpack_from(">H", data, at + 1)
        yield marker, at + 3, at + 1 + length
        at += 1 + length


def look(data: bytes) -> Carried:
    sealed, block, packet = False, None, None
    for marker, start, end in _segments(data):
        if marker == _APP11 and data[start : start + 2] == b"JP":  # JUMBF, which C2PA manifests are kept in
            sealed = True
        elif marker == _APP1 and data.startswith(_EXIF, start) and block is None:
            block = data[start + len(_EXIF) : end]
        elif marker == _APP1 and data.startswith(_XMP, start) and packet is None:
            packet = data[start + len(_XMP) : end]
    comment = exif.comment(block) if block is not None else None
    return Carried(comment, block is not None, packet, sealed)


def splice(data: bytes, size: tuple[int, int], text: str | None, xmp: bytes | None) -> bytes:
    """The picture with these segments behind its start and JFIF's own segments, and every other byte as it was."""
    segments = []
    if text is not None:
        segments.append(_segment(_EXIF + exif.block(text)))
    if xmp is not None:
        segments.append(_segment(_XMP + xmp))
    place = 2
    for marker, _, end in _segments(data):
        if marker != _APP0:
            break
        place = end
    view = memoryview(data)
    return b"".join([view[:place], *segments, view[place:]])


def _segment(content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, _APP1, len(content) + 2) + content
