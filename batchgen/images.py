"""Which bytes are a whole picture: format, dimensions and structure, read from the bytes alone.

`check` walks the structure to its end (PNG chunks with their CRCs, JPEG segments and scans, WebP chunks); `decode` lets
Pillow decode the pixels as well, which takes a hundred times as long. Nothing here opens a file or trusts a name.

Sources: PNG, ISO/IEC 15948; JPEG, ITU-T T.81 annex B; WebP, RFC 9649.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable

import msgspec

from batchgen.model import BadAnswer
from batchgen.text import printable

MAX_PIXELS = 268_435_456
EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_CHUNK, _CRC = struct.Struct(">I4s"), struct.Struct(">I")
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Inside entropy-coded data an FF byte is followed by 00, a restart marker or more FF; anything else ends the scan.
# All of a JPEG goes through this: a pattern that began with a repetition would take 40 times as long.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


class ImageFacts(msgspec.Struct, frozen=True):
    """What a picture is: `format` is png, jpeg or webp, dimensions in pixels."""

    format: str
    width: int
    height: int

    @property
    def extension(self) -> str:
        return EXTENSIONS[self.format]


def sniff(data: bytes) -> str | None:
    """The format that the first bytes announce, or None."""
    if data.startswith(_PNG_MAGIC):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def check(data: bytes) -> ImageFacts:
    """The facts of a whole picture. Raises BadAnswer, saying what is wrong, for anything that is not one."""
    kind = sniff(data)
    if kind is None:
        raise BadAnswer(f"not a PNG, JPEG or WebP picture (it begins {data[:8].hex(' ') or 'with nothing'})")
    try:
        width, height = _DIMENSIONS[kind](data)
    except (IndexError, struct.error) as error:
        raise BadAnswer(f"the {kind} picture is cut short") from error
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise BadAnswer(f"the {kind} picture claims {width} x {height} pixels")
    return ImageFacts(kind, width, height)


def decode(data: bytes) -> ImageFacts:
    """As `check`, and every pixel of every frame can be decoded. Raises BadAnswer where it cannot."""
    from PIL import Image, ImageSequence

    facts = check(data)
    try:
        with Image.open(io.BytesIO(data), formats=[facts.format]) as image:
            for frame in ImageSequence.Iterator(image):
                frame.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadAnswer(f"the {facts.format} picture cannot be decoded ({printable(str(error), 100)})") from error
    return facts


def _png(data: bytes) -> tuple[int, int]:
    view, at, kinds = memoryview(data), len(_PNG_MAGIC), set()
    while at < len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        end = at + 12 + length
        if end > len(data):
            raise IndexError
        if zlib.crc32(view[at + 4 : end - 4]) != _CRC.unpack_from(data, end - 4)[0]:
            name = printable(kind.decode("latin-1"), 40)
            raise BadAnswer(f"the png picture is damaged (checksum of its {name} part)")
        if length or kind != b"IDAT":
            kinds.add(kind)
        at = end
        if kind == b"IEND":
            break
    if data[12:16] != b"IHDR" or not {b"IDAT", b"IEND"} <= kinds:
        raise IndexError
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    at, size, scans = 2, (0, 0), 0
    while True:
        if data[at] != 0xFF:
            raise BadAnswer("the jpeg picture is damaged (a segment does not begin where the one before it ends)")
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker == 0xD9:
            break
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            size = (width, height)
        at += length
        if marker == 0xDA:
            scans += 1
            at = _scan_end(data, at)
    if not scans:
        raise IndexError
    return size


def _scan_end(data: bytes, at: int) -> int:
    """Where the marker begins that ends the scan at `at`. Raises IndexError where there is none, or no scan."""
    while data[at] == data[at + 1] == 0xFF:
        at += 1
    found = _SCAN_END.search(data, at)
    if not found or found.start() == at:
        raise IndexError
    return found.start()


def _webp(data: bytes) -> tuple[int, int]:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise IndexError
    size, at, pictures = (0, 0), 12, 0
    while at + 8 <= end:
        kind, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if at + 8 + length > end:
            raise IndexError
        if reader := _WEBP_SIZES.get(kind):
            # An extended file names its canvas first; the frames inside it do not change that.
            size = size if any(size) else reader(data, at + 8)
        pictures += kind in (b"VP8 ", b"VP8L", b"ANMF") and length > 5
        at += 8 + length + length % 2
    if not pictures:
        raise IndexError
    return size


def _vp8(data: bytes, at: int) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, at + 6)
    return width & 0x3FFF, height & 0x3FFF


def _vp8l(data: bytes, at: int) -> tuple[int, int]:
    (bits,) = struct.unpack_from("<I", data, at + 1)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _vp8x(data: bytes, at: int) -> tuple[int, int]:
    low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, at + 4)
    return (low_w | high_w << 16) + 1, (low_h | high_h << 16) + 1


_WEBP_SIZES: dict[bytes, Callable[[bytes, int], tuple[int, int]]] = {b"VP8 ": _vp8, b"VP8L": _vp8l, b"VP8X": _vp8x}
_DIMENSIONS: dict[str, Callable[[bytes], tuple[int, int]]] = {"png": _png, "jpeg": _jpeg, "webp": _webp}
