"""Which store and which local folder belong together: the same small file lies in both."""

from __future__ import annotations

import contextlib

import msgspec

from batchgen.joblog import BAD_LINE
from batchgen.layout import PRIVATE
from batchgen.model import UsageError
from batchgen.world import Files

MARK = f"{PRIVATE}/store.json"
_DRAFT = f"{PRIVATE}/store.json.new"


class Mark(msgspec.Struct, frozen=True):
    """`id` is the pair's name; host and folder tell people where the log of these pictures is."""

    id: str
    store: str
    host: str
    folder: str
    manifest: str
    v: int = 1

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


def decode_mark(data: bytes) -> Mark | None:
    try:
        return msgspec.json.decode(data, type=Mark)
    except BAD_LINE:
        return None


def read_mark(files: Files) -> Mark | None:
    """The mark of a local folder; None where its pictures are in the folder itself."""
    try:
        data = files.read(MARK)
    except FileNotFoundError:
        return None
    if mark := decode_mark(data):
        return mark
    raise UsageError(f"{MARK} is damaged: bring it back from its copy below the store's prefix")


def write_mark(files: Files, mark: Mark) -> None:
    """Write the mark whole and durably."""
    with contextlib.suppress(FileNotFoundError):
        files.remove(_DRAFT)
    handle = files.create(_DRAFT)
    try:
        files.write(handle, mark.encode())
        files.sync(handle)
    finally:
        files.close(handle)
    files.rename(_DRAFT, MARK)
    files.sync_dir(PRIVATE)
