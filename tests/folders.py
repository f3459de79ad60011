"""Output folders as runs leave them, written by hand: for tests of what reads them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image
from samples import attempt, entry

from batchgen import joblog
from batchgen.folder import State
from batchgen.layout import PRIVATE, Books
from batchgen.model import Entry, Picture, Shard

RUN = "20261122T120000Z-aaaa"


def drawing(colour: int = 0, size: tuple[int, int] = (48, 32), kind: str = "PNG", **settings: Any) -> bytes:
    """A small picture in one of many colours."""
    out = io.BytesIO()
    Image.new("RGB", size, (colour * 37 % 256, colour * 91 % 256, 180)).save(out, kind, **settings)
    return out.getvalue()


def made(root: Path, job: str, data: bytes | None = None, **changes: Any) -> Entry:
    """A job that is done, and its picture in the folder."""
    data = drawing() if data is None else data
    file = f"images/{job}.png"
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    picture = Picture(file, 0, "png", 48, 32, len(data), hashlib.sha256(data).hexdigest(), 1.5)
    told: dict[str, Any] = {"job": job, "run": RUN, "images": (picture,), "attempts": (attempt(),)}
    return entry(**(told | changes))


def write_folder(root: Path, entries: Iterable[Entry], shard: Shard | None = None, **state: Any) -> Path:
    """The log of these entries, and a state that says that nobody is at work."""
    private, books = root / PRIVATE, Books(shard)
    private.mkdir(parents=True, exist_ok=True)
    (root / books.log).write_bytes(b"".join(map(joblog.encode, entries)))
    told: dict[str, Any] = {"manifest": "../../m.yaml", "api": "nebula", "run": RUN, "doing": "ended"}
    (root / books.state).write_bytes(msgspec.json.encode(State(**(told | state))))
    return root
