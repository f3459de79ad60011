"""The prebuilt answers that all contestants fetch: three sizes, from fixed seeds."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from batchgen.protocol import Drawn, nebula


@dataclass(frozen=True)
class Size:
    """An answer: its letter, what it holds, and how many requests make a round that start-up noise does not hide."""

    name: str
    what: str
    side: int
    format: str
    pictures: int


SIZES = (
    Size("S", "64 x 64 PNG", 64, "png", 2000),
    Size("M", "1024 x 1024 JPEG", 1024, "jpeg", 800),
    Size("L", "1024 x 1024 noisy PNG", 1024, "png", 200),
)


def picture(size: Size) -> bytes:
    """Noise, as coarse as brings the answer to 13 KB, 244 KB and 2.2 MB."""
    chance, file = random.Random(size.name), io.BytesIO()
    raw = chance.randbytes(size.side * size.side * 3)
    if size.format == "png":
        levels = 48 if size.side == 64 else 11
        shades = bytes(value * levels // 256 * (256 // levels) for value in range(256))
        Image.frombytes("RGB", (size.side, size.side), raw.translate(shades)).save(file, "PNG")
    else:
        small = Image.frombytes("RGB", (size.side, size.side), raw).resize((300, 300)).resize((size.side, size.side))
        small.save(file, "JPEG", quality=80)
    return file.getvalue()


def build(root: Path) -> dict[str, bytes]:
    """Write the answers where the server finds them; the bytes that each size's files must have."""
    found = {}
    for size in SIZES:
        found[size.name] = picture(size)
        answer = nebula.encode_answer("black-forest-labs/FLUX.1-schnell", [Drawn(found[size.name], 0, 13.37)])
        (root / f"{size.name}.json").write_bytes(answer)
    return found
