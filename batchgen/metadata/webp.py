"""Exif and XMP in WebP: chunks behind the picture, announced by the flags of a VP8X chunk (RFC 9649 section 2.7)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from batchgen.metadata import exif
from batchgen.metadata.made import Carried

MAX_TEXT_BYTES = MAX_XMP_BYTES = 1 << 27
_EXIF, _XMP, _C2PA = b"EXIF", b"XMP ", b"C2PA"
_PICTURE = (b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_HEAD_BYTES = 12
_HAS_ALPHA, _HAS_EXIF, _HAS_XMP = 0x10, 0x08, 0x04
_VP8L_ALPHA_BIT = 28


class _Chunk(NamedTuple):
    """A chunk that begins at `at`; its content of `length` bytes begins 8 bytes later and may be padded by one."""

    kind: bytes
    at: int
    length: int

    @property
    def end(self) -> int:
        return self.at + 8 + self.length + self.length % 2


def _chunks(data: bytes) -> list[_Chunk]:
    """The chunks of a picture. Raises ValueError where they do not fill the file as it says it is long."""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    found, at = [], _HEAD_BYTES
    while at + 8 <= end:
        found.append(_Chunk(data[at : at + 4], at, struct.unpack_from("<I", data, at + 4)[0]))
        at = found[-1].end
    if not found or at != end or end > len(data):
        raise ValueError("its chunks do not end where the WebP picture says it ends")
    return found


def look(data: bytes) -> Carried:
    chunks = _chunks(data)
    contents = {c.kind: data[c.at + 8 : c.at + 8 + c.length] for c in reversed(chunks) if c.kind in (_EXIF, _XMP)}
    block, packet = contents.get(_EXIF), contents.get(_XMP)
    # Some programs put JPEG's own prefix before the block.
    comment = exif.comment(block.removeprefix(b"Exif\0\0")) if block is not None else None
    return Carried(comment, block is not None, packet, any(c.kind == _C2PA for c in chunks))


def splice(data: bytes, size: tuple[int, int], text: str | None, xmp: bytes | None) -> bytes:
    """The picture with these chunks behind what is drawn, and every other byte but lengths and flags as it was."""
    chunks = _chunks(data)
    first, end = chunks[0], chunks[-1].end
    extended = first.kind == b"VP8X"
    place = max(c.end for c in chunks if c.kind in _PICTURE)
    behind_exif = max([place, *(c.end for c in chunks if c.kind == _EXIF)])
    head = bytearray(data[first.at : first.end]) if extended else _vp8x(data, size, chunks)
    head[8] |= (text is not None and _HAS_EXIF) | (xmp is not None and _HAS_XMP)
    view = memoryview(data)
    body = b"".join(
        [
            head,
            view[first.end if extended else first.at : place],
            _chunk(_EXIF, exif.block(text)) if text is not None else b"",
            view[place:behind_exif],
            _chunk(_XMP, xmp) if xmp is not None else b"",
            view[behind_exif:end],
        ]
    )
    return b"".join([b"RIFF", struct.pack("<I", len(body) + 4), b"WEBP", body, view[end:]])


def _vp8x(data: bytes, size: tuple[int, int], chunks: Sequence[_Chunk]) -> bytearray:
    """The chunk that makes a simple file an extended one."""
    first = chunks[0]
    bits = struct.unpack_from("<I", data, first.at + 9)[0] if first.kind == b"VP8L" else 0
    kinds = {c.kind for c in chunks}
    flags = (_HAS_ALPHA * (bits >> _VP8L_ALPHA_BIT & 1)) | (_HAS_EXIF * (_EXIF in kinds)) | (_HAS_XMP * (_XMP in kinds))
    width, height = size[0] - 1, size[1] - 1
    sides = struct.pack("<HBHB", width & 0xFFFF, width >> 16, height & 0xFFFF, height >> 16)
    return bytearray(b"VP8X" + struct.pack("<II", 10, flags) + sides)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
