"""An output folder becomes a dataset: opened, written in one of the forms, and told about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from batchgen.model import ExitCode, StorageError
from batchgen.runner.archive import open_archive
from batchgen.runner.dataset import Dataset, Order
from batchgen.runner.formats import FORMATS, Counts
from batchgen.text import counted, size
from batchgen.verify import Finding

if TYPE_CHECKING:
    from batchgen.progress import Meter


class Exported(msgspec.Struct, frozen=True):
    """What an export did. `pictures` and `size_bytes` are what is in the dataset now; `written`, `linked`, `kept` and
    `removed` count its files, `in_the_way` those that are not its own; `counts` and `findings` tell what was left out.
    """

    output: str
    to: str
    destination: str
    pictures: int
    size_bytes: int
    written: int
    linked: int
    kept: int
    removed: int
    in_the_way: int
    counts: dict[str, int]
    findings: list[Finding]
    notices: list[str]
    exit_code: int
    v: int = 1


def run(path: Path, order: Order, meter: Meter) -> Exported:
    """Export the output folder `path`, or the one that belongs to the manifest `path`.

    Raises UsageError where the destination must not be written to or nothing is done yet, StorageError where a disk
    fails.
    """
    if order.to == "parquet":
        from batchgen.export.parquet import need_pyarrow

        need_pyarrow()
    try:
        with open_archive(path) as archive:
            this = Dataset(archive, order, meter)
            try:
                this.survey()
                return _exported(this, FORMATS[order.to](this))
            finally:
                meter.close()
    except OSError as error:
        raise StorageError(f"{error.filename or order.destination}: {error.strerror or error}") from error


def _exported(this: Dataset, counts: Counts) -> Exported:
    bad = this.findings.faults or this.in_the_way
    return Exported(
        output=str(this.archive.root),
        to=this.order.to,
        destination=str(this.order.destination),
        pictures=this.pictures,
        size_bytes=this.size_bytes,
        written=counts["written"],
        linked=counts["linked"],
        kept=counts["kept"],
        removed=counts["removed"],
        in_the_way=this.in_the_way,
        counts={str(kind): count for kind, count in this.findings.counts.items()},
        findings=this.findings.kept,
        notices=this.notices,
        exit_code=int(ExitCode.INCOMPLETE if bad else ExitCode.OK),
    )


def render(found: Exported) -> Iterator[str]:
    """The result for people, a line at a time."""
    yield f"{found.destination}: {found.to} of {counted(found.pictures, 'picture')} ({size(found.size_bytes)})"
    did = ((found.written, "written"), (found.linked, "linked"), (found.kept, "kept"), (found.removed, "removed"))
    yield f"  files      {', '.join(f'{count} {word}' for count, word in did if count) or 'none'}"
    if found.counts:
        left = counted(sum(found.counts.values()), "picture")
        yield f"  left out   {left}; to have them made again: batchgen verify {found.output} --requeue"
    for finding in found.findings:
        yield f"    {finding.kind}: {finding}"
    for notice in found.notices:
        yield f"  note       {notice}"
