"""The pictures of an output folder on their way into a dataset: which rows there are, which are left out and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen import export
from batchgen.export import Column, Row
from batchgen.model import Outcome, UsageError
from batchgen.plan import too_many_missing
from batchgen.runner.archive import Archive
from batchgen.runner.destination import InTheWayError
from batchgen.runner.pictures import Sight, ahead, load, look
from batchgen.text import counted
from batchgen.verify import SHOWN, Finding, Findings

if TYPE_CHECKING:
    from batchgen.progress import Meter

SHARD_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Order:
    """What was asked for: `to` is a format; shards of at most so many bytes, copies although links are possible,
    pictures compared by size only where their bytes need not be read, so many names of each kind of finding.
    """

    to: str
    destination: Path
    shard_bytes: int = SHARD_BYTES
    copy: bool = False
    quick: bool = False
    shown: int = SHOWN


@dataclass
class Dataset:
    """`pictures` and `size_bytes` are what is in it; `survey` comes first."""

    archive: Archive
    order: Order
    meter: Meter
    findings: Findings = field(default_factory=Findings)
    columns: list[Column] = field(default_factory=list)
    examples: set[str] = field(default_factory=set)
    notices: list[str] = field(default_factory=list)
    in_the_way: int = 0
    pictures: int = 0
    size_bytes: int = 0
    _places: list[tuple[str, int]] = field(default_factory=list)
    _left: set[str] = field(default_factory=set)

    def survey(self) -> None:
        """Find the jobs that are done, whose pictures are there, and the columns that they need.

        Raises UsageError where there is nothing to export, or so little left that the folder was rather moved.
        """
        self.findings.shown = self.order.shown
        root, found, had = self.archive.root, export.Survey(), 0
        for offset in self.archive.records.last_offsets():
            entry = self.archive.records.at(offset)
            if entry.outcome is not Outcome.DONE:
                continue
            self._places.append((entry.job, offset))
            for position, row in enumerate(export.rows(entry)):
                had += 1
                if self._is_there(offset, position, row):
                    found.add(row)
        if not had:
            raise UsageError(f"{root}: no job is done yet; there is nothing to export")
        if not self.pictures or too_many_missing(self.findings.faults, had):
            raise UsageError(
                f"{root}: {self.findings.faults} of {counted(had, 'picture')} are not what the log says; is a disk not"
                f" mounted? Look with: batchgen verify {root}"
            )
        self._places.sort()
        self.columns, self.examples = found.columns(), found.examples()
        self.meter.expect(self.pictures)
        if self.archive.at_work:
            self.notices.append("a run is at work there; what it makes from now on is not in this export")

    def _is_there(self, offset: int, position: int, row: Row) -> bool:
        self.pictures += 1
        self.size_bytes += row.picture.size_bytes
        sight = look(self.archive.files, row.picture, quick=True)
        if sight.kind is None:
            return True
        seen = self.archive.records.seen(offset)
        if self.archive.records.is_away(seen, seen.images[position]):
            self._drop(row)  # its job has left the manifest, or a run will bring it back
        else:
            self.leave(row, sight)
        return False

    def rows(self) -> Iterator[Row]:
        """A row for each picture that is not left out, by id."""
        for _, offset in self._places:
            for row in export.rows(self.archive.records.at(offset)):
                if row.key not in self._left:
                    yield row

    def with_bytes(self, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes]]:
        """The rows with their bytes, but for those whose picture is not what the log says."""
        for row, (sight, data) in ahead(lambda row: load(self.archive.files, row.picture), rows):
            self.meter.tick()
            if sight.kind:
                self.leave(row, sight)
            else:
                yield row, data

    def checked(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows whose picture is what the log says."""
        files, quick = self.archive.files, self.order.quick
        for row, sight in ahead(lambda row: look(files, row.picture, quick=quick), rows):
            self.meter.tick()
            if sight.kind:
                self.leave(row, sight)
            else:
                yield row

    def leave(self, row: Row, sight: Sight) -> None:
        """Leave a picture out, and tell it."""
        assert sight.kind is not None
        self._drop(row)
        self.findings.add(Finding(sight.kind, row.picture.file, row.values["id"], sight.what))

    def blocked(self, error: InTheWayError, rows: Iterable[Row] = ()) -> None:
        """A file that is not the export's stands where one of its own should: nothing is overwritten."""
        self.in_the_way += 1
        if self.in_the_way <= self.order.shown:
            self.notices.append(str(error))
        for row in rows:
            self._drop(row)

    def _drop(self, row: Row) -> None:
        if row.key not in self._left:
            self._left.add(row.key)
            self.pictures -= 1
            self.size_bytes -= row.picture.size_bytes
