"""The four forms of a dataset, each as its readers want it. Every one is whole or not there, and written once only."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path

from batchgen import export
from batchgen.export import Form, Part, Row
from batchgen.export.ledger import Owner
from batchgen.files import PosixFiles
from batchgen.model import UsageError
from batchgen.runner.dataset import Dataset
from batchgen.runner.destination import Destination, InTheWayError, check_place, open_destination
from batchgen.runner.pictures import load
from batchgen.text import counted

# `datasets` makes splits of folders and files that are called like one: below a folder `train` it looks no further.
_SPLIT = "train"
_METADATA = f"{_SPLIT}/metadata.jsonl"
_FEW = 1000
Counts = Counter[str]


@contextmanager
def _destination(this: Dataset) -> Iterator[Destination]:
    order = this.order
    source = os.path.relpath(this.archive.root.resolve(), order.destination.resolve())
    with open_destination(order.destination, Owner(order.to, source)) as found:
        yield found
        this.notices += found.notices


def imagefolder(this: Dataset) -> Counts:
    """`train/metadata.jsonl` beside the pictures, which are hard links where the file system has them."""
    with _destination(this) as to:

        def missing() -> Iterator[Row]:
            for row in this.rows():
                if to.has(_place(row), _recipe(this, row)):
                    this.meter.tick()
                else:
                    yield row

        for row in this.checked(missing()):
            try:
                if this.order.copy or not _link(this, to, row):
                    _copy(this, to, row)
            except InTheWayError as error:
                this.blocked(error, [row])
        wanted = {_METADATA}

        def metadata(out: RawIOBase) -> str:
            for row in _examples_first(this):
                wanted.add(_place(row))
                out.write(export.json_line(row, this.columns))
            return "metadata"

        _make(this, to, Part(_METADATA, [], ""), metadata)
        to.finish(wanted)
        return to.counts


def _examples_first(this: Dataset) -> Iterator[Row]:
    """The rows by id; of many, first a few that have a value in every column.

    `datasets` takes the type of a column from the first 10 MB, and refuses a value where it saw none before.
    """
    first = this.examples if this.pictures > _FEW else set()
    if first:
        yield from (row for row in this.rows() if row.key in first)
    yield from (row for row in this.rows() if row.key not in first)


def _place(row: Row) -> str:
    return f"{_SPLIT}/{row.file_name}"


def _recipe(this: Dataset, row: Row) -> str:
    return f"copy {row.picture.sha256}" if this.order.copy else row.picture.sha256


def _link(this: Dataset, to: Destination, row: Row) -> bool:
    source = (this.archive.files, row.picture.file)
    return to.link(_place(row), _recipe(this, row), source, row.picture.sha256)


def _copy(this: Dataset, to: Destination, row: Row) -> None:
    def fill(out: RawIOBase) -> str | None:
        sight, data = load(this.archive.files, row.picture)
        if sight.kind:
            this.leave(row, sight)
            return None
        out.write(data)
        return _recipe(this, row)

    to.make(_place(row), fill)


def webdataset(this: Dataset) -> Counts:
    """`00000.tar` and so on, each sample's members side by side."""

    def fill(out: RawIOBase, part: Part) -> int:
        samples = 0
        for row, data in this.with_bytes(part.rows):
            for block in export.members(row, this.columns, data):
                out.write(block)
            samples += 1
        out.write(export.tar_end(out.tell()))
        return samples

    limit = this.order.shard_bytes - len(export.tar_end(0))
    return _shards(this, Form("{:05}.tar", limit, this.columns), fill)


def parquet(this: Dataset) -> Counts:
    """`data/train-00000.parquet` and so on, with the pictures inside."""
    from batchgen.export.parquet import features, write

    def fill(out: RawIOBase, part: Part) -> int:
        return write(out, this.with_bytes(part.rows), this.columns)

    form = Form("data/train-{:05}.parquet", this.order.shard_bytes, this.columns, features(this.columns))
    return _shards(this, form, fill)


def _shards(this: Dataset, form: Form, fill: Callable[[RawIOBase, Part], int]) -> Counts:
    with _destination(this) as to:
        wanted = set()
        for part in export.split(this.rows(), form):
            if to.has(part.file, part.recipe):
                wanted.add(part.file)
                for _ in part.rows:
                    this.meter.tick()
                continue

            def make(out: RawIOBase, part: Part = part) -> str | None:
                samples = fill(out, part)
                # What lacks a picture is looked at again the next time.
                return (part.recipe if samples == len(part.rows) else "incomplete") if samples else None

            if _make(this, to, part, make):
                wanted.add(part.file)
        to.finish(wanted)
        return to.counts


def _make(this: Dataset, to: Destination, part: Part, fill: Callable[[RawIOBase], str | None]) -> bool:
    try:
        return to.make(part.file, fill)
    except InTheWayError as error:
        this.blocked(error, part.rows)
        return False


def csv(this: Dataset) -> Counts:
    """One file; its paths are relative to it."""
    path = this.order.destination
    check_place(path)
    if path.is_dir():
        raise UsageError(f"{path}: this is a folder; for csv -o names the file to write")
    if path.exists() and not _is_ours(path):
        raise UsageError(f"{path}: this file was not made by an export; choose another name with -o")
    before = os.path.relpath(this.archive.root.resolve(), path.resolve().parent)
    prefix = "" if before == "." else f"{before}/"
    files = PosixFiles(path.resolve().parent)
    try:
        return _write_table(this, files, path.resolve().name, prefix)
    finally:
        files.close_root()


def _is_ours(path: Path) -> bool:
    begins = ",".join(export.CSV_BEGINS).encode()
    with path.open("rb") as file:
        return file.read(len(begins)) == begins


def _write_table(this: Dataset, files: PosixFiles, name: str, prefix: str) -> Counts:
    temporary, formulas = f".{name}.part", 0
    if files.size_of(temporary) is not None:
        files.remove(temporary)
    handle = files.create(temporary)
    try:
        files.write(handle, export.csv_header(this.columns))
        for row in this.checked(this.rows()):
            formulas += export.is_formula(row, this.columns)
            files.write(handle, export.csv_line(row, this.columns, prefix + row.picture.file))
        files.sync(handle)
    finally:
        files.close(handle)
    if formulas:
        this.notices.append(
            f"text in {counted(formulas, 'row')} that a spreadsheet could take for a formula (=, +, -, @ at its"
            " beginning) was not altered: import such columns as text"
        )
    if files.size_of(name) is not None and files.read(name) == files.read(temporary):
        files.remove(temporary)
        return Counter(kept=1)
    files.rename(temporary, name)
    files.sync_dir(".")
    return Counter(written=1)


FORMATS: dict[str, Callable[[Dataset], Counts]] = {
    "imagefolder": imagefolder,
    "webdataset": webdataset,
    "parquet": parquet,
    "csv": csv,
}
