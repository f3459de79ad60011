"""Parquet with the pictures inside, as `datasets` writes and reads it. Needs pyarrow, the extra `export`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import RawIOBase
from typing import TYPE_CHECKING, Any

import msgspec

from batchgen.export.columns import Column, Row, cell
from batchgen.model import UsageError

if TYPE_CHECKING:
    import pyarrow

# A row group is what a reader takes at once.
GROUP_BYTES = 64 << 20
GROUP_ROWS = 1000
_IMAGE = "image"


def need_pyarrow() -> None:
    """Raises UsageError where the extra is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError("Parquet needs pyarrow; install it with: pip install 'batchgen[export]'") from None


def features(columns: Sequence[Column]) -> bytes:
    """What tells `datasets` that the column `image` is to be decoded (Features.from_arrow_schema)."""
    types = {_IMAGE: {"_type": "Image"}} | {
        column.name: {"dtype": column.kind.value, "_type": "Value"} for column in columns
    }
    return msgspec.json.encode({"info": {"features": types}})


def _schema(columns: Sequence[Column]) -> pyarrow.Schema:
    import pyarrow as pa

    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    fields = [(_IMAGE, image), *((column.name, pa.type_for_alias(column.kind.value)) for column in columns)]
    return pa.schema(fields, metadata={"huggingface": features(columns)})


def write(out: RawIOBase, rows: Iterable[tuple[Row, bytes]], columns: Sequence[Column]) -> int:
    """One row a picture, in row groups of bounded size; how many there were.

    The same rows give the same bytes with the same pyarrow.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, count = _schema(columns), 0
    plain = [column.name for column in columns]
    # Pictures are compressed already, and their smallest and largest bytes tell nobody anything.
    compression = {f"{_IMAGE}.bytes": "NONE", f"{_IMAGE}.path": "SNAPPY"} | dict.fromkeys(plain, "SNAPPY")
    with pq.ParquetWriter(out, schema, compression=compression, use_dictionary=False, write_statistics=plain) as writer:
        for group in _groups(rows):
            data: list[Any] = [[{"bytes": picture, "path": row.file_name} for row, picture in group]]
            data += ([cell(row.values.get(c.name), c.kind) for row, _ in group] for c in columns)
            arrays = [pa.array(values, field.type) for values, field in zip(data, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=GROUP_ROWS)
            count += len(group)
    return count


def _groups(rows: Iterable[tuple[Row, bytes]]) -> Iterable[list[tuple[Row, bytes]]]:
    group: list[tuple[Row, bytes]] = []
    size = 0
    for row, picture in rows:
        if group and (size + len(picture) > GROUP_BYTES or len(group) == GROUP_ROWS):
            yield group
            group, size = [], 0
        group.append((row, picture))
        size += len(picture)
    if group:
        yield group
