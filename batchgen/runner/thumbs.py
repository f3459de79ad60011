"""Small forms of pictures in `thumbs/`: made side by side, each once, what nobody needs any more swept away.

A picture that is missing, damaged or too large is told of and never ends the report.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from batchgen import images
from batchgen.layout import THUMBS
from batchgen.model import BadAnswer, Picture
from batchgen.report import Thumb
from batchgen.world import Files, StoreFailed

SIDE = 256
MAX_PIXELS = 80_000_000
MAX_BYTES = 256 << 20
_QUALITY, _EFFORT = 78, 2
_OURS = re.compile(r"[0-9a-f]{24}\.webp")
_DRAFT = re.compile(r"[0-9a-f]{24}\.webp\.([0-9]{1,10})\.part")


class Wanted(NamedTuple):
    """A picture of the log, and where it lies now; None where no file of its size is."""

    picture: Picture
    place: str | None


@dataclass
class Thumbs:
    """The folder of small pictures. `there` are those of earlier reports, `used` those that this one shows."""

    files: Files
    there: set[str]
    used: set[str] = field(default_factory=set)
    made: int = 0
    problems: int = 0

    def known(self, wanted: Wanted) -> Thumb | None:
        """The small form of one picture, where an earlier report has made it and the picture is in its place."""
        name = _name(wanted.picture.sha256)
        if wanted.place is None or name not in self.there or not _is_inside(wanted.place):
            return None
        self.used.add(name)
        return Thumb(name, file=wanted.place)

    def of(self, wanted: Wanted) -> Thumb:
        """The small form of one picture, made if need be. May be called from several threads."""
        try:
            return self._of(wanted)
        except Unusable as error:
            self.problems += 1
            return Thumb(None, str(error))

    def _of(self, wanted: Wanted) -> Thumb:
        file = wanted.place or wanted.picture.file
        data = self._read(file)
        digest = hashlib.sha256(data).hexdigest()
        changed = None if digest == wanted.picture.sha256 else "not the picture that the log tells of"
        name = _name(digest)
        if name not in self.there:
            self._write(name, shrink(data))
        self.used.add(name)
        return Thumb(name, changed, file)

    def _read(self, file: str) -> bytes:
        if not _is_inside(file):
            raise Unusable("its path in the log leads out of the folder")
        try:
            size = self.files.size_of(file)
            if size is None:
                raise Unusable("the picture is not in the folder")
            if size < 0:
                raise Unusable("not a regular file")
            if size > MAX_BYTES:
                raise Unusable("too large for a thumbnail")
            return self.files.read(file)
        except StoreFailed:
            raise  # not this picture's fault
        except (OSError, ValueError) as error:
            raise Unusable(f"cannot be read ({getattr(error, 'strerror', error)})") from error

    def _write(self, name: str, data: bytes) -> None:
        draft = f"{THUMBS}/{name}.{os.getpid()}.part"
        try:
            write_new(self.files, draft, [data])
            self.files.rename(draft, f"{THUMBS}/{name}")
        except FileExistsError:
            return  # two pictures of the same bytes at the same moment: the other thread writes it
        self.there.add(name)
        self.made += 1

    def sweep(self) -> int:
        """Remove what no picture needs any more; how many there were. Files of other names are left alone."""
        stale = [name for name in self.files.names(THUMBS) if _OURS.fullmatch(name) and name not in self.used]
        for name in stale:
            with contextlib.suppress(OSError):
                self.files.remove(f"{THUMBS}/{name}")
        return len(stale)


class Unusable(Exception):
    """Why a picture has no small form, for people."""


def open_thumbs(files: Files) -> Thumbs:
    """The folder, made where it is missing. Raises OSError where something else is in its place."""
    files.make_dir(THUMBS)
    sweep_drafts(files, THUMBS, _DRAFT)
    return Thumbs(files, {name for name in files.names(THUMBS) if files.size_of(f"{THUMBS}/{name}") != -1})


def side_by_side(thumbs: Thumbs, batches: Iterable[Sequence[Wanted]]) -> Iterator[list[Thumb]]:
    """The small forms of each batch's pictures, in order. Pillow lets go of the interpreter while it works."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, "batchgen-thumbs") as pool:

        def begin(batch: Sequence[Wanted]) -> list[Thumb | Future[Thumb]]:
            return [thumbs.known(wanted) or pool.submit(thumbs.of, wanted) for wanted in batch]

        pending = iter(batches)
        waiting = deque(begin(batch) for batch in islice(pending, workers * 16))
        while waiting:
            first = waiting.popleft()
            waiting.extend(begin(batch) for batch in islice(pending, 1))
            yield [made if isinstance(made, Thumb) else made.result() for made in first]


def shrink(data: bytes) -> bytes:
    """A WebP of at most 256 pixels a side, without the picture's metadata. Raises Unusable."""
    try:
        facts = images.check(data)
    except BadAnswer as error:
        raise Unusable(str(error)) from error
    if facts.width * facts.height > MAX_PIXELS:
        raise Unusable(f"too large for a thumbnail ({facts.width} x {facts.height})")
    try:
        return _shrunk(data)
    except Exception as error:  # whatever a decoder makes of damaged bytes, the page is made without this picture
        raise Unusable(f"cannot be decoded ({type(error).__name__})") from error


def _shrunk(data: bytes) -> bytes:
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
        picture.draft("RGB", (SIDE * 2, SIDE * 2))
        turned = ImageOps.exif_transpose(picture)
        clear = turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info
        small = turned.convert("RGBA" if clear else "RGB")
        small.thumbnail((SIDE, SIDE), Image.Resampling.HAMMING, reducing_gap=2.0)
        out = io.BytesIO()
        small.save(out, "WEBP", quality=_QUALITY, method=_EFFORT)
        return out.getvalue()


def write_new(files: Files, path: str, pieces: Iterable[bytes], *, durable: bool = False) -> int:
    """A new file of these bytes; their number. What was begun is removed where it cannot be finished."""
    handle, size = files.create(path), 0
    try:
        try:
            for piece in pieces:
                files.write(handle, piece)
                size += len(piece)
            if durable:
                files.sync(handle)
        finally:
            files.close(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            files.remove(path)
        raise
    return size


def sweep_drafts(files: Files, folder: str, pattern: re.Pattern[str]) -> None:
    """Remove what killed reports left: `pattern` is of their drafts, its group the process that wrote them."""
    for name in files.names(folder):
        found = pattern.fullmatch(name)
        if found and (int(found[1]) == os.getpid() or not _lives(int(found[1]))):
            with contextlib.suppress(OSError):
                files.remove(f"{folder}/{name}" if folder != "." else name)


def _is_inside(file: str) -> bool:
    return {"", ".", ".."}.isdisjoint(file.split("/"))


def _name(sha256: str) -> str:
    return f"{sha256[:24]}.webp"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
