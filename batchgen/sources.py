"""Where bytes of the user's come from: manifests, and the pictures that jobs send. Opens files; decides nothing.

What a manifest means is `manifest`'s; here it is opened as often as it is read, and watched for edits.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from batchgen import images
from batchgen.manifest import Document, Format, Row, format_of, read
from batchgen.manifest.row import Place, nowhere
from batchgen.model import BadAnswer, FileInput, Header, InputChanged, Job, ManifestChanged, Problem, UsageError

MAX_INPUT_BYTES = 20 << 20


@dataclass
class Source:
    """A manifest on disk; `rows` may be walked again and again, and says so if the file changes between."""

    path: Path
    format: Format
    default_place: Place = nowhere
    _document: Document | None = None
    _signature: tuple[int, int, int] = (0, 0, 0)

    @property
    def name(self) -> str:
        return self.path.name

    def header(self) -> Header:
        """What stands beside the jobs. Raises ManifestError, all problems at once."""
        self._signature = _signature(self.path)
        with self.path.open("rb") as file:
            document = read(str(self.path), self.format, file)
            self.default_place = document.default_place
            if self.format is Format.YAML:
                self._document = document
        return document.header

    def rows(self) -> Iterator[Row | Problem]:
        """The rows from the first on, streamed where the format allows. Raises ManifestChanged."""
        if self._document:
            yield from self._document.rows
            return
        self.check_unchanged()
        with self.path.open("rb") as file:
            yield from read(str(self.path), self.format, file).rows
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raises ManifestChanged where the file is not the one that was opened first."""
        if self._document is not None:
            return
        try:
            same = _signature(self.path) == self._signature
        except FileNotFoundError:
            same = False
        if not same:
            raise ManifestChanged(f"{self.path} was edited or moved while it was read")


def _signature(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def open_manifest(path: Path, format: Format | None = None) -> Source:
    """The manifest at `path`. Raises UsageError where there is none or its kind is not known."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the manifest in it")
    format = format or format_of(path.name)
    if format is None:
        known = ", ".join(f".{kind}" for kind in Format)
        raise UsageError(
            f"{path}: the kind of manifest is not known by its name (known: {known}); name it with --format"
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error
    return Source(path, format)


@dataclass
class Inputs:
    """The pictures that jobs send, found relative to the manifest."""

    base: Path
    _known: dict[str, FileInput] = field(default_factory=dict)

    def digest(self, path: str) -> FileInput:
        """What the file is now; each file is read once a plan. Raises ValueError saying what is wrong with it."""
        if path not in self._known:
            self._known[path] = FileInput(path, hashlib.sha256(self._read(path)).hexdigest())
        return self._known[path]

    def read(self, job: Job) -> dict[str, bytes]:
        """The bytes of the job's pictures by field name. Raises InputChanged where they are not those of the plan."""
        found = {}
        for name, value in job.request.items():
            if isinstance(value, FileInput):
                try:
                    data = self._read(value.path)
                except ValueError as error:
                    raise InputChanged(f"{name}: {error}") from error
                if hashlib.sha256(data).hexdigest() != value.sha256:
                    raise InputChanged(
                        f"{name}: {value.path} was edited since the run began; run the same command again"
                    )
                found[name] = data
        return found

    def _read(self, path: str) -> bytes:
        place = self.base / path
        try:
            if not place.is_file():
                raise ValueError(f"there is no file {path!r} (looked for {place})")
            if (size := place.stat().st_size) > MAX_INPUT_BYTES:
                raise ValueError(f"{path!r} has {size >> 20} MiB; at most {MAX_INPUT_BYTES >> 20} MiB can be sent")
            data = place.read_bytes()
        except OSError as error:
            raise ValueError(f"{path!r} cannot be read: {error.strerror}") from error
        try:
            images.check(data)
        except BadAnswer as error:
            raise ValueError(f"{path!r} cannot be sent: {error}") from error
        return data


def encoder(inputs: Inputs, encode: Callable[..., bytes]) -> Callable[[Job], bytes]:
    """From a job to the body of its request, its pictures read and checked on the way."""

    def body(job: Job) -> bytes:
        plain = {name: value for name, value in job.request.items() if not isinstance(value, FileInput)}
        return encode(job.model, plain, inputs.read(job))

    return body
