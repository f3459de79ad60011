"""An output folder as runs leave it, made by hand: pictures, log, state; and ways to damage it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image
from samples import AT, entry

from batchgen import joblog
from batchgen.folder import State
from batchgen.layout import picture_file
from batchgen.model import Entry, Picture


def png(colour: int = 0, size: int = 8) -> bytes:
    """A small real picture; different for each of 256 colours, all of one length."""
    file = io.BytesIO()
    Image.new("L", (size, size), colour).save(file, "PNG", compress_level=0)
    return file.getvalue()


class Leavings:
    """The output folder `root` of the manifest `m.yaml` beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".batchgen/tmp").mkdir(parents=True)
        (root / "images").mkdir()
        (root / "log.jsonl").touch()
        self.state("../m.yaml")

    def state(self, manifest: str, **more: Any) -> None:
        (self.root / ".batchgen/state.json").write_bytes(msgspec.json.encode(State(manifest, api="sandbox", **more)))

    def manifest(self, *ids: str) -> Path:
        """The manifest that has these jobs."""
        path = self.root.parent / "m.yaml"
        jobs = [{"id": job, "prompt": job, "model": "flux"} for job in ids]
        path.write_bytes(msgspec.json.encode({"jobs": jobs}))
        return path

    def done(self, job: str, *pictures: bytes, fingerprint: str = "f" * 32, **said: Any) -> Entry:
        """A job that is done, with its pictures on the disk."""
        kept = []
        for position, data in enumerate(pictures or (png(sum(job.encode()) % 256),)):
            file = picture_file(job, position, position, "png")
            self.put(file, data)
            digest = hashlib.sha256(data).hexdigest()
            kept.append(Picture(file, position, "png", 8, 8, len(data), digest, 1.5))
        return self.log(entry(job=job, fingerprint=fingerprint, images=tuple(kept), **said))

    def log(self, *entries: Entry) -> Entry:
        with (self.root / "log.jsonl").open("ab") as log:
            log.writelines(map(joblog.encode, entries))
        return entries[-1]

    def note(self, line: bytes) -> None:
        with (self.root / ".batchgen/attempts.jsonl").open("ab") as attempts:
            attempts.write(line)

    def put(self, file: str, data: bytes) -> Path:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        # As a run replaces a picture: another file, so that hard links keep the old one.
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        return path

    def files(self, folder: str) -> set[str]:
        return files_below(self.root / folder)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


LATER = AT.replace("2026", "2027")
