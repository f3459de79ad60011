"""Texts in PNG: chunks behind the header (ISO/IEC 15948 sections 11.3.4 and 14.2; XMP specification part 3)."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from batchgen.metadata.made import Carried

MAX_TEXT_BYTES = MAX_XMP_BYTES = 1 << 27
_MAGIC_BYTES = 8
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PARAMETERS, _XMP = b"parameters", b"XML:com.adobe.xmp"
_C2PA = b"caBX"
# What tEXt may hold: printable Latin-1 and line feeds.
_LATIN = re.compile(r"[\n\x20-\x7e\xa0-\xff]*")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and where the content of each chunk begins and ends."""
    at = _MAGIC_BYTES
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, at + 8 + length
        at += 12 + length
        if kind == b"IEND":
            break


def look(data: bytes) -> Carried:
    sealed = False
    texts: dict[bytes, bytes] = {}
    for kind, start, end in _chunks(data):
        sealed |= kind == _C2PA
        if kind in _TEXTS:
            keyword, _, rest = data[start:end].partition(b"\0")
            if keyword in (_PARAMETERS, _XMP):
                texts.setdefault(keyword, _text(kind, rest))
    words = texts.get(_PARAMETERS)
    found = words.decode("utf-8", "replace") if words is not None else None
    return Carried(found, _PARAMETERS in texts, texts.get(_XMP), sealed)


def _text(kind: bytes, rest: bytes) -> bytes:
    """What a text chunk says behind its keyword, as UTF-8."""
    if kind == b"tEXt":
        return rest.decode("latin-1").encode()
    if kind == b"zTXt":
        return _inflated(rest[1:]).decode("latin-1").encode()
    words = rest[2:].split(b"\0", 2)[-1]
    return _inflated(words) if rest[:1] == b"\1" else words


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def splice(data: bytes, size: tuple[int, int], text: str | None, xmp: bytes | None) -> bytes:
    """The picture with these chunks right behind its header, and every other byte as it was."""
    chunks = []
    if text is not None and _LATIN.fullmatch(text):
        chunks.append(_chunk(b"tEXt", _PARAMETERS + b"\0" + text.encode("latin-1")))
    elif text is not None:
        chunks.append(_chunk(b"iTXt", _PARAMETERS + b"\0\0\0\0\0" + text.encode()))
    if xmp is not None:
        chunks.append(_chunk(b"iTXt", _XMP + b"\0\0\0\0\0" + xmp))
    _, _, end = next(_chunks(data))
    view = memoryview(data)
    return b"".join([view[: end + 4], *chunks, view[end + 4 :]])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
