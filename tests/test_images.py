"""Which bytes pass for a whole picture: real ones of every kind, cut, damaged, oversized, and anything else."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from batchgen.images import MAX_PIXELS, ImageFacts, check, decode, sniff
from batchgen.model import BadAnswer

WIDTH, HEIGHT = 37, 23


def noise(mode: str = "RGB", seed: int = 1) -> Image.Image:
    """A small picture that no format can compress away."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (WIDTH, HEIGHT), random.Random(seed).randbytes(WIDTH * HEIGHT * bands))


def saved(format: str, picture: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture or noise()).save(buffer, format, **options)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG that holds another whole JPEG, end marker and all, in an application segment."""
    small = saved("JPEG", Image.new("RGB", (8, 8)))
    segment = b"\xff\xe1" + struct.pack(">H", len(small) + 8) + b"Exif\0\0" + small
    whole = saved("JPEG")
    return whole[:2] + segment + whole[2:]


WHOLE: dict[str, bytes] = {
    "png": saved("PNG"),
    "png with alpha": saved("PNG", noise("RGBA")),
    "png grey": saved("PNG", noise("L")),
    "jpeg baseline": saved("JPEG", quality=80),
    "jpeg progressive": saved("JPEG", quality=80, progressive=True),
    "jpeg with restarts": saved("JPEG", quality=80, restart_marker_rows=1),
    "jpeg grey": saved("JPEG", noise("L")),
    "jpeg with exif": saved("JPEG", exif=b"Exif\0\0" + b"\xff\xd9" * 20),
    "jpeg with thumbnail": with_thumbnail(),
    "webp lossy": saved("WEBP", quality=80),
    "webp lossless": saved("WEBP", lossless=True),
    "webp extended": saved("WEBP", noise("RGBA"), quality=80, exif=b"Exif\0\0odd"),
    "webp animated": saved("WEBP", save_all=True, append_images=[noise(seed=2), noise(seed=3)], duration=50),
}
FORMATS = {name: name.split()[0] for name in WHOLE}
EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
each = pytest.mark.parametrize("name", WHOLE)


def test_the_samples_are_what_they_are_called() -> None:
    """The samples really are of the kinds that the other tests speak of."""
    assert b"\xff\xc2" in WHOLE["jpeg progressive"]
    assert WHOLE["jpeg progressive"].count(b"\xff\xda") > 1
    assert b"\xff\xd0" in WHOLE["jpeg with restarts"]
    assert [WHOLE[f"webp {kind}"][12:16] for kind in ("lossy", "lossless", "extended", "animated")] == [
        b"VP8 ",
        b"VP8L",
        b"VP8X",
        b"VP8X",
    ]
    assert WHOLE["webp animated"].count(b"ANMF") == 3


@each
def test_whole_pictures_pass(name: str) -> None:
    """A whole picture is recognized, with its size, and agrees with what a real decoder says."""
    facts = check(WHOLE[name])
    assert facts == ImageFacts(FORMATS[name], WIDTH, HEIGHT)
    assert facts.extension == EXTENSIONS[FORMATS[name]]
    with Image.open(io.BytesIO(WHOLE[name])) as picture:
        assert (picture.format, picture.size) == (facts.format.upper(), (facts.width, facts.height))


@each
def test_every_truncation_is_rejected(name: str) -> None:
    """A picture that was cut anywhere, be it before its last byte, is not whole."""
    data = WHOLE[name]
    passed = [length for length in range(len(data)) if passes(data[:length])]
    assert passed == []


@each
@pytest.mark.parametrize("junk", [b"\0", b"\n", b"\xff\xd9", b"junk" * 9], ids=["NUL", "newline", "marker", "text"])
def test_what_follows_a_whole_picture_does_not_matter(name: str, junk: bytes) -> None:
    """Bytes after the end are no reason to throw away a picture that was paid for."""
    assert check(WHOLE[name] + junk) == check(WHOLE[name])


def passes(data: bytes) -> bool:
    """Whether the check lets `data` through; any exception but BadAnswer ends the test."""
    try:
        check(data)
    except BadAnswer:
        return False
    return True


@pytest.mark.parametrize("name", ["png", "png with alpha", "png grey"])
def test_a_flipped_bit_in_a_png_is_found(name: str) -> None:
    """The checksums of a PNG are looked at: no flipped bit goes unnoticed, wherever it is."""
    data = WHOLE[name]
    undetected = [at for at in range(len(data)) if passes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])]
    assert undetected == []


def test_the_damage_is_named() -> None:
    """The message says which part of a PNG is damaged."""
    data = WHOLE["png"]
    at = data.index(b"IDAT") + 10
    with pytest.raises(BadAnswer, match=r"checksum of its IDAT part"):
        check(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


IDAT, IEND = chunk(b"IDAT", b"x"), chunk(b"IEND")


@pytest.mark.parametrize(
    ("data", "good"),
    [
        pytest.param(png(header(1, 1), IDAT, IEND), True, id="the least"),
        pytest.param(png(header(1, 1), chunk(b"tEXt", b"a\0b"), IDAT, IDAT, IEND), True, id="more parts"),
        pytest.param(png(header(1, 1), IEND), False, id="no data"),
        pytest.param(png(header(1, 1), IDAT), False, id="no end"),
        pytest.param(png(IDAT, IEND), False, id="no header"),
        pytest.param(png(IDAT, header(1, 1), IEND), False, id="header not first"),
        pytest.param(png(), False, id="magic only"),
        pytest.param(png(header(1, 1), IDAT, IEND[:-1] + b"\0"), False, id="checksum of the end"),
    ],
)
def test_the_parts_of_a_png(data: bytes, good: bool) -> None:
    """A PNG has a header first, data, and an end."""
    assert passes(data) is good


def png_of(width: int, height: int) -> bytes:
    return png(header(width, height), IDAT, IEND)


def jpeg_of(width: int, height: int) -> bytes:
    data = WHOLE["jpeg baseline"]
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def webp_of(width: int, height: int) -> bytes:
    data = WHOLE["webp animated"]
    return data[:24] + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + data[30:]


SIZES = [
    pytest.param(png_of, 16384, 16384, True, id="png at the cap"),
    pytest.param(png_of, 16384, 16385, False, id="png over the cap"),
    pytest.param(png_of, 60000, 60000, False, id="png bomb"),
    pytest.param(png_of, MAX_PIXELS, 1, True, id="png line at the cap"),
    pytest.param(png_of, 2**32 - 1, 2**32 - 1, False, id="png at the edge of its numbers"),
    pytest.param(png_of, 0, 5, False, id="png without width"),
    pytest.param(png_of, 5, 0, False, id="png without height"),
    pytest.param(jpeg_of, 16384, 16384, True, id="jpeg at the cap"),
    pytest.param(jpeg_of, 16385, 16384, False, id="jpeg over the cap"),
    pytest.param(jpeg_of, 7, 0, False, id="jpeg without height"),
    pytest.param(webp_of, 16384, 16384, True, id="webp at the cap"),
    pytest.param(webp_of, 16385, 16384, False, id="webp over the cap"),
    pytest.param(webp_of, 2**24, 2**24, False, id="webp at the edge of its numbers"),
]


@pytest.mark.parametrize(("made", "width", "height", "good"), SIZES)
def test_the_pixel_cap(made: Callable[[int, int], bytes], width: int, height: int, good: bool) -> None:
    """A picture that claims more pixels than anyone draws, or none, is refused before anything decodes it."""
    data = made(width, height)
    if good:
        assert check(data) == ImageFacts(made.__name__.removesuffix("_of"), width, height)
    else:
        with pytest.raises(BadAnswer, match=f"claims {width} x {height} pixels"):
            check(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(saved("GIF"), id="gif"),
        pytest.param(saved("BMP"), id="bmp"),
        pytest.param(saved("TIFF"), id="tiff"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', id="svg"),
        pytest.param(b"<!doctype html><html></html>", id="html"),
        pytest.param(b"\x7fELF\x02\x01\x01" + b"\0" * 64, id="elf"),
        pytest.param(b"RIFF\x24\0\0\0WAVEfmt ", id="another RIFF"),
        pytest.param(b"\x89PNG", id="half a magic"),
        pytest.param(b"\xff\xd8", id="start of a jpeg"),
        pytest.param(b" " + WHOLE["png"], id="not at the start"),
    ],
)
def test_other_bytes_are_no_picture(data: bytes) -> None:
    """Only PNG, JPEG and WebP pass; the message shows how the bytes begin."""
    assert sniff(data) is None
    begins = data[:8].hex(" ") if data else "with nothing"
    with pytest.raises(BadAnswer, match=rf"^not a PNG, JPEG or WebP picture \(it begins {begins}\)$"):
        check(data)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(k + struct.pack("<I", len(d)) + d + b"\0" * (len(d) % 2) for k, d in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


CANVAS = (b"VP8X", b"\0" * 4 + (36).to_bytes(3, "little") + (22).to_bytes(3, "little"))
STILL = (b"VP8L", b"\x2f" + struct.pack("<I", 36 | 22 << 14) + b"\0" * 5)


@pytest.mark.parametrize(
    ("data", "good"),
    [
        pytest.param(riff(STILL), True, id="a still picture"),
        pytest.param(riff(CANVAS, (b"ALPH", b"x"), STILL), True, id="odd parts are padded"),
        pytest.param(riff(CANVAS), False, id="a canvas without a picture"),
        pytest.param(riff(CANVAS, (b"EXIF", b"x" * 20)), False, id="a canvas with a note"),
        pytest.param(riff((b"ANMF", b"x" * 20)), False, id="frames without a canvas"),
        pytest.param(riff(), False, id="empty"),
        pytest.param(b"RIFF\0\0\0\0WEBP" + riff(STILL)[12:], False, id="says that it is empty"),
        pytest.param(riff((b"VP8L", b"\x2f")), False, id="size beyond the end"),
    ],
)
def test_the_parts_of_a_webp(data: bytes, good: bool) -> None:
    """A WebP file needs a picture or frames, and a size; the canvas of an extended file is its size."""
    assert passes(data) is good
    assert not good or check(data) == ImageFacts("webp", 37, 23)


@pytest.mark.parametrize("extra", [1, 8, 16, 1000])
def test_a_part_cannot_reach_beyond_its_file(extra: int) -> None:
    """A part of a WebP file that claims more bytes than the file has is not whole, though the file's own size fits."""
    data = bytearray(riff(CANVAS, STILL))
    at = data.index(b"VP8L") + 4
    data[at : at + 4] = struct.pack("<I", len(STILL[1]) + extra)
    with pytest.raises(BadAnswer, match="cut short"):
        check(bytes(data) + b"x" * 2000)


@pytest.mark.parametrize("marker", range(0xC0, 0xD0), ids=hex)
def test_which_segments_are_frames(marker: int) -> None:
    """Every kind of frame tells the size; tables, extensions and arithmetic conditions between them do not."""
    data = WHOLE["jpeg baseline"]
    at = data.index(b"\xff\xc0") + 1
    assert passes(data[:at] + bytes([marker]) + data[at + 1 :]) is (marker not in (0xC4, 0xC8, 0xCC))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xd8\xff\xd9", id="nothing between start and end"),
        pytest.param(b"\xff\xd8\xff\xe0\x00\x02\xff\xd9", id="no scan"),
        pytest.param(b"\xff\xd8\xff\xe0\x00\x00\xff\xd9", id="a segment without length"),
        pytest.param(b"\xff\xd8\xff\xe0\x00\x04ab!", id="no marker after a segment"),
        pytest.param(b"\xff\xd8\xff\xda\x00\x02abc\xff\xd9", id="a scan without a frame"),
        pytest.param(b"\xff\xd8" + b"\xff" * 5000, id="filling for ever"),
    ],
)
def test_the_segments_of_a_jpeg(data: bytes) -> None:
    """A JPEG needs a frame, a scan and an end, each where the one before it ends."""
    with pytest.raises(BadAnswer):
        check(data)


@each
def test_whole_pictures_pass_the_full_check(name: str) -> None:
    """Decoding says the same of a good picture as its structure does, also of one with several frames."""
    assert decode(WHOLE[name]) == check(WHOLE[name])


SPOILT = {
    "png without pixels": png(header(8, 8), chunk(b"IDAT", b"x"), IEND),
    "png with too few": png(header(8, 8), chunk(b"IDAT", zlib.compress(b"\0")), IEND),
    "jpeg without tables": b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda\x00\x08"
    b"\x01\x01\x00\x00\x3f\x00\x12\x34\xff\xd9",
    "webp without a frame": b"RIFF\x1e\0\0\0WEBPVP8 \x12\0\0\0\x10\0\0\x9d\x01\x2a\x08\0\x08\0" + bytes(8),
}


@pytest.mark.parametrize("data", SPOILT.values(), ids=SPOILT)
def test_what_does_not_decode_fails_the_full_check_alone(data: bytes) -> None:
    """Structure is all that `check` promises; `decode` promises pixels, and says what is wrong in one short line."""
    check(data)
    with pytest.raises(BadAnswer, match="cannot be decoded") as caught:
        decode(data)
    assert len(str(caught.value)) < 160


def test_the_full_check_asks_for_the_structure_first() -> None:
    """What Pillow would still draw of a cut picture is no whole picture."""
    with pytest.raises(BadAnswer, match="cut short"):
        decode(saved("PNG")[:-12])
