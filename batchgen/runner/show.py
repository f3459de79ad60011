"""Finds what a picture or an id was made from: in the log of an output folder, else in the picture itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from batchgen import images, manifest, metadata
from batchgen.layout import PRIVATE, superseded
from batchgen.metadata import Carried, Made
from batchgen.model import BadAnswer, Entry, FileInput, Picture, UsageError
from batchgen.runner.archive import Archive, open_archive, root_of
from batchgen.shown import Other, Shown, Whereabouts, made_of
from batchgen.text import printable

_AWAY = re.compile(r"~([0-9a-f]{8})\.[a-z]+$")
_MAX_GUESSED = 10_000
_EDITED = "the record in the picture does not fit its own fingerprint: somebody has edited it"
_OTHER_BYTES = "the file is not, byte for byte, the one that the log tells of"


def show(what: str, where: Path | None = None, *, here: Path | None = None) -> Shown:
    """Where the picture or the id `what` comes from.

    `where` is an output folder, or a manifest whose folder is meant; without it a picture's own folder counts, and for
    an id the folder around `here` (the current one), or those under the nearest `outputs/`. Raises UsageError.
    """
    path = Path(what)
    if where and (root_of(where) / path).is_file():
        path = root_of(where) / path
    if path.is_dir():
        raise UsageError(f"{what} is a folder; where it stands tells: batchgen status {what}")
    if path.is_file() and (where is None or images.sniff(path.read_bytes()[:16])):
        return _of_picture(path, where)
    folders = [where] if where else list(_near((here or Path()).absolute()))
    if where is None and not folders:
        raise UsageError(f"{what}: there is no such picture, and no output folder near; name one: show {what} DIR")
    found = [shown for folder in folders if (shown := _of_job(what, folder, told=len(folders) == 1))]
    if len(found) == 1:
        return found[0]
    looked = ", ".join(map(str, folders))
    if not found:
        raise UsageError(f"{_no_such(what)} (looked in {looked})")
    places = ", ".join(str(shown.output) for shown in found)
    raise UsageError(f"several folders have a job {printable(what, 80)!r} ({places}); name one behind it")


def _no_such(what: str) -> str:
    return f"{printable(what, 80)!r} is no file, and no job of this name has ended there"


def _near(here: Path) -> Iterator[Path]:
    """The output folder around a place, else those under the nearest `outputs/`."""
    around = (here, *here.parents)
    if root := next((folder for folder in around if (folder / PRIVATE).is_dir()), None):
        yield root
    elif home := next((folder / "outputs" for folder in around if (folder / "outputs").is_dir()), None):
        yield from sorted(folder.parent for folder in home.glob(f"*/{PRIVATE}"))


def _of_job(job: str, folder: Path, *, told: bool) -> Shown | None:
    """What the log of a folder says of a job; None, or (`told`) UsageError, where that is nothing."""
    with open_archive(folder) as archive:
        entries = archive.of_job(job)
        if entries:
            return _from_log(archive, entries[0])
        if told:
            guess = None
            if archive.records.fold.jobs <= _MAX_GUESSED:
                guess = manifest.nearest(job, [entry.job for entry in archive.entries()], cutoff=0.6)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise UsageError(f"{archive.root}: {_no_such(job)}{hint}")
    return None


def _from_log(archive: Archive, entry: Entry, **beside: Any) -> Shown:
    others = [other for other in archive.of_job(entry.job) if other.fingerprint != entry.fingerprint]
    return Shown(
        source="log",
        made=made_of(entry),
        output=str(archive.root),
        entry=entry,
        pictures=tuple(
            Whereabouts(archive.place_of(entry, p), p.width, p.height, p.format, p.size_bytes) for p in entry.images
        ),
        others=tuple(
            Other(o.outcome, o.fingerprint, o.finished_at, tuple(archive.place_of(o, p) for p in o.images))
            for o in others
        ),
        **beside,
    )


def _of_picture(path: Path, where: Path | None) -> Shown:
    data, notices = path.read_bytes(), []
    carried = Carried()
    try:
        carried = metadata.carried(data, images.check(data).format)
    except (BadAnswer, *metadata.UNREADABLE) as error:
        notices.append(f"the metadata cannot be read: {printable(str(error), 200)}")
    made = metadata.made(carried)
    if made and not _is_sound(made):
        notices.append(_EDITED)
    root = where or next((folder for folder in path.absolute().parents if (folder / PRIVATE).is_dir()), None)
    if root and (found := _in_log(path, data, root, made, notices)):
        return found
    if made or carried.infotext:
        return Shown(source="picture", made=made, file=str(path), infotext=carried.infotext, notices=tuple(notices))
    why = [*(notices or ["it carries no parameters"])]
    why.append(f"the log of {root} does not tell of it" if root else "it lies in no output folder")
    raise UsageError(f"{path}: {', and '.join(why)}; name the folder that it comes from: show FILE DIR")


def _is_sound(made: Made) -> bool:
    """Whether the record's fingerprint is that of what it says."""
    request = dict(made.request)
    try:
        for name in ("image", "mask"):
            if name in request:
                request[name] = msgspec.convert(request[name], FileInput)
        return manifest.fingerprint(made.api, made.model, request) == made.fingerprint
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return False


@dataclass
class _Search:
    """The entry that tells of a picture best: by bytes and name, by bytes, by name alone."""

    name: str | None
    sha256: str
    rank: int = 0
    entry: Entry | None = None

    def marks(self) -> list[bytes]:
        """Of these a line holds at least one if its entry could be meant."""
        away = _AWAY.search(self.name or "")
        return [text.encode() for text in (self.sha256, self.name, away and away[1]) if text]

    def add(self, entry: Entry) -> None:
        for picture in entry.images:
            rank = self._rank(entry, picture)
            if rank and rank >= self.rank:
                self.rank, self.entry = rank, entry

    def _rank(self, entry: Entry, picture: Picture) -> int:
        same_bytes = self.sha256 in (picture.sha256, picture.received_sha256)
        same_name = self.name in (picture.file, superseded(picture.file, entry.fingerprint, picture.sha256))
        return 2 * same_bytes + same_name


def _in_log(path: Path, data: bytes, root: Path, made: Made | None, notices: list[str]) -> Shown | None:
    try:
        with open_archive(root) as archive:
            inside = path.resolve().is_relative_to(archive.root.resolve())
            name = path.resolve().relative_to(archive.root.resolve()).as_posix() if inside else None
            search = _Search(name, hashlib.sha256(data).hexdigest())
            archive.history(search.add, search.marks())
            entry, by_name = search.entry, search.rank == 1
            if entry is None or (by_name and made and made.fingerprint != entry.fingerprint):
                return None
            return _from_log(archive, entry, file=str(path), notices=(*notices, *[_OTHER_BYTES] * by_name))
    except UsageError as error:
        notices.append(str(error))
        return None
