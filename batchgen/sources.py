"""Where manifests come from, and the files that they read. Opens files; decides nothing.

What a manifest means is `manifest`'s; here it is opened as often as it is read, and watched for edits.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from batchgen.manifest import Document, Format, Include, Row, format_of, included, read
from batchgen.manifest.row import Place, nowhere
from batchgen.model import Header, ManifestChanged, Problem, StorageError, UsageError
from batchgen.text import printable

STANDARD_INPUT = Path("-")
MAX_NOTICES = 20
_BLOCK_BYTES = 1 << 20

Signature = tuple[int, int, int]


@dataclass
class Source:
    """A manifest; `rows` may be walked again and again, and says so if a file changes between.

    `label` is what problems call it. `notices` is what its readers had to guess, filled as the rows are walked.
    """

    path: Path
    format: Format
    spool: Spool | None = None
    default_place: Place = nowhere
    notices: dict[str, None] = field(default_factory=dict)
    _document: Document | None = None
    _signatures: dict[Path, Signature] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return "<stdin>" if self.spool else str(self.path)

    @property
    def files(self) -> list[Path]:
        """The manifest and the files that it has read rows from so far."""
        return list(dict.fromkeys((self.path, *self._signatures)))

    def header(self) -> Header:
        """What stands beside the jobs. Raises ManifestError, all problems at once."""
        with self._open() as file:
            document = self._read(file)
            self.default_place = document.default_place
            if self.format is Format.YAML:
                self._document = document
                self._signatures.clear()  # it is held whole, and its file not read again
        return document.header

    def rows(self) -> Iterator[Row | Problem]:
        """The rows from the first on, streamed where the format allows. Raises ManifestChanged."""
        if self._document:
            yield from self._document.rows
            return
        with self._open() as file:
            yield from self._read(file).rows
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raises ManifestChanged where a file is not the one that was opened first."""
        for path, signature in self._signatures.items():
            try:
                same = _signature(path) == signature
            except OSError:
                same = False
            if not same:
                raise ManifestChanged(f"{path} was edited or moved while it was read")

    def _open(self) -> IO[bytes]:
        if self.spool:
            return self.spool.open()
        return self._watched(self.path)

    def _watched(self, path: Path) -> IO[bytes]:
        """The file, which must be what it was when it was opened first. Raises OSError and ManifestChanged."""
        first = path not in self._signatures
        if first and not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "there is no such file" if not path.exists() else "this is no file")
        if first:
            self._signatures[path] = _signature(path)
        else:
            self.check_unchanged()
        return path.open("rb")

    def _read(self, file: IO[bytes]) -> Document:
        return read(self.label, self.format, file, include=self._included, note=self._note)

    def _included(self, include: Include) -> Iterator[Row | Problem]:
        path = self.path.parent / include.path
        try:
            file = self._watched(path)
        except (OSError, ValueError) as error:
            yield include.problem(f"from: {path} cannot be read: {getattr(error, 'strerror', None) or error}")
            return
        with file:
            yield from included(include, str(path), file, self._note)
        self.check_unchanged()

    def _note(self, note: str) -> None:
        if len(self.notices) < MAX_NOTICES:
            self.notices.setdefault(note)


class Spool:
    """Standard input, kept in a file without a name for as long as this lives; may be read again and again."""

    def __init__(self, stream: IO[bytes]) -> None:
        import shutil
        import tempfile

        try:
            file = tempfile.TemporaryFile(prefix="batchgen-", buffering=0)  # noqa: SIM115 - closed when this is gone
            weakref.finalize(self, file.close)
            self._fd = file.fileno()
            shutil.copyfileobj(stream, file, _BLOCK_BYTES)
        except OSError as error:
            place = tempfile.gettempdir()
            raise StorageError(f"standard input cannot be kept in {place} ({error.strerror}); set TMPDIR") from error

    def open(self) -> IO[bytes]:
        return io.BufferedReader(_FromStart(self._fd), _BLOCK_BYTES)


class _FromStart(io.RawIOBase):
    """Reads an open file from its start, wherever others who read it are."""

    def __init__(self, fd: int) -> None:
        self._fd, self._at = fd, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = os.preadv(self._fd, [buffer], self._at)
        self._at += n
        return n


def _signature(path: Path) -> Signature:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def open_manifest(path: Path, format: str | None = None) -> Source:
    """The manifest at `path`; `-` is standard input, read to its end here.

    Raises UsageError where there is none or its kind is not known.
    """
    known = _known_format(path, format)
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise UsageError("there is no standard input to read a manifest from")
        return Source(path, known, Spool(sys.stdin.buffer))
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error
    return Source(path, known)


def _known_format(path: Path, format: str | None) -> Format:
    known = ", ".join(Format)
    if format is not None and format not in tuple(Format):
        raise UsageError(f"format {printable(format, 40)!r} is not known; use one of {known}")
    if format is not None:
        found: Format | None = Format(format)
    elif path == STANDARD_INPUT:
        raise UsageError(f"standard input has no name to tell its kind; name it with --format, one of {known}")
    else:
        found = format_of(path.name)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the manifest in it")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file; to read from a pipe, name the manifest '-'")
    if found is None:
        known = ", ".join(f".{kind}" for kind in Format)
        raise UsageError(
            f"{path}: the kind of manifest is not known by its name (known: {known}); name it with --format"
        )
    return found
