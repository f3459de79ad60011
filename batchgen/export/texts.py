"""The bytes of each format's lines and members: the same for the same rows, on every machine and day."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterator, Sequence

import msgspec

from batchgen.export.columns import Column, Kind, Row, cells

CSV_BEGINS = ("file_name", "id", "text", "negative_prompt", "model")
# What spreadsheets take for the beginning of a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def json_line(row: Row, columns: Sequence[Column]) -> bytes:
    """A line of metadata.jsonl: every line has the same keys, since readers infer each column's type from the first."""
    values = {column.name: value for column, value in zip(columns, cells(row, columns), strict=True) if column.used}
    return msgspec.json.encode({"file_name": row.file_name} | values) + b"\n"


def sample_json(row: Row, columns: Sequence[Column]) -> bytes:
    """What a WebDataset sample says of its picture; columns in which it has no value are left out."""
    values = zip(columns, cells(row, columns), strict=True)
    return msgspec.json.encode({column.name: value for column, value in values if value is not None})


def csv_header(columns: Sequence[Column]) -> bytes:
    return _csv(["file_name", *(column.name for column in columns)])


def csv_line(row: Row, columns: Sequence[Column], path: str) -> bytes:
    """A line of CSV (RFC 4180) with nothing altered, also not what a spreadsheet could take for a formula."""
    return _csv([path, *map(_csv_cell, cells(row, columns))])


def _csv_cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _csv(values: Sequence[object]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue().encode()


def is_formula(row: Row, columns: Sequence[Column]) -> bool:
    """Whether a spreadsheet could take one of the row's texts for a formula."""
    values = zip(columns, cells(row, columns), strict=True)
    return any(column.kind is Kind.TEXT and value and value.startswith(_FORMULA) for column, value in values)


def members(row: Row, columns: Sequence[Column], picture: bytes) -> Iterator[bytes]:
    """A WebDataset sample as tar members: the picture, what is known of it, its prompt."""
    yield from _member(row.file_name, picture)
    yield from _member(f"{row.key}.json", sample_json(row, columns))
    yield from _member(f"{row.key}.txt", _prompt(row))


def members_bytes(row: Row, columns: Sequence[Column]) -> int:
    """How large a sample's members are together."""
    names = 0 if row.key.isascii() else 3 * 2 * tarfile.BLOCKSIZE
    sizes = (row.picture.size_bytes, len(sample_json(row, columns)), len(_prompt(row)))
    return names + sum(tarfile.BLOCKSIZE + _padded(size) for size in sizes)


def _prompt(row: Row) -> bytes:
    return str(row.values["text"] or "").encode()


def _member(name: str, data: bytes) -> Iterator[bytes]:
    """Header, data and padding. Nobody's file, of no time: equal rows are equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    yield info.tobuf(tarfile.PAX_FORMAT)
    yield data
    yield bytes(_padded(len(data)) - len(data))


def _padded(size_bytes: int) -> int:
    return size_bytes + -size_bytes % tarfile.BLOCKSIZE


def tar_end(size_bytes: int) -> bytes:
    """What ends a tar file after members of so many bytes."""
    end = size_bytes + 2 * tarfile.BLOCKSIZE
    return bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE)
