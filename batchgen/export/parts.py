"""Which pictures go together into one file of a dataset, and how it is known that a file already holds just these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from batchgen.export.columns import Column, Row
from batchgen.export.texts import members_bytes, sample_json

MOST_SAMPLES = 50_000


@dataclass(frozen=True)
class Part:
    """One file to be; two parts of the same form have the same `recipe` exactly when their bytes would be the same."""

    file: str
    rows: list[Row]
    recipe: str


@dataclass(frozen=True)
class Form:
    """How parts are named by their number, such as `{:05}.tar`, how large they may be, and what all rows share."""

    name: str
    limit_bytes: int
    columns: Sequence[Column]
    header: bytes = b""

    def part(self, number: int, rows: list[Row]) -> Part:
        digest = blake2b(self.header, digest_size=16)
        for row in rows:
            digest.update(f"\n{row.file_name}\n{row.picture.sha256}\n".encode() + sample_json(row, self.columns))
        return Part(self.name.format(number), rows, digest.hexdigest())


def split(rows: Iterable[Row], form: Form) -> Iterator[Part]:
    """Parts that are as large as the form allows; a single picture may be larger."""
    group: list[Row] = []
    size, number = 0, 0
    for row in rows:
        size_more = members_bytes(row, form.columns)
        if group and (size + size_more > form.limit_bytes or len(group) == MOST_SAMPLES):
            yield form.part(number, group)
            group, size, number = [], 0, number + 1
        group.append(row)
        size += size_more
    if group:
        yield form.part(number, group)
