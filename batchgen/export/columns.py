"""One row a picture: which columns it has, of which kind they are in all rows together, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from batchgen.export.names import sample_key
from batchgen.model import Entry, Picture

_INT64 = range(-(2**63), 2**63)
_EXACT = range(-(2**53), 2**53 + 1)
# `datasets` takes every column with such an ending for the path of another picture.
_PATHS = re.compile(r"_file_names?_*$")


class Kind(Enum):
    """What all values of a column are; TEXT holds what fits nothing else, as JSON."""

    BOOL = "bool"
    INT = "int64"
    FLOAT = "float64"
    TEXT = "string"


@dataclass(frozen=True)
class Column:
    """`used` is false where no row has a value."""

    name: str
    kind: Kind
    used: bool = True


@dataclass(frozen=True)
class Row:
    """A picture of a job that is done. `key` is its name in the dataset; `values` are plain JSON values."""

    key: str
    picture: Picture
    values: dict[str, Any]

    @property
    def extension(self) -> str:
        return self.picture.file.rpartition(".")[2]

    @property
    def file_name(self) -> str:
        return f"{self.key}.{self.extension}"


Getter = Callable[[Entry, Picture], Any]


def _asked(name: str) -> Getter:
    return lambda entry, picture: entry.request.get(name)


def _path(name: str) -> Getter:
    def path(entry: Entry, picture: Picture) -> Any:
        given = entry.request.get(name)
        return given.get("path") if isinstance(given, dict) else given

    return path


FIRST: dict[str, tuple[Kind, Getter]] = {
    "id": (Kind.TEXT, lambda entry, picture: entry.job),
    "text": (Kind.TEXT, _asked("prompt")),
    "negative_prompt": (Kind.TEXT, _asked("negative_prompt")),
    "model": (Kind.TEXT, lambda entry, picture: entry.model),
    "seed": (Kind.INT, _asked("seed")),
    "width": (Kind.INT, lambda entry, picture: picture.width),
    "height": (Kind.INT, lambda entry, picture: picture.height),
    "num_steps": (Kind.INT, _asked("num_steps")),
    "guidance_scale": (Kind.FLOAT, _asked("guidance_scale")),
    "input_image": (Kind.TEXT, _path("image")),
    "input_mask": (Kind.TEXT, _path("mask")),
}
LAST: dict[str, tuple[Kind, Getter]] = {
    "index": (Kind.INT, lambda entry, picture: picture.index),
    "format": (Kind.TEXT, lambda entry, picture: picture.format),
    "size_bytes": (Kind.INT, lambda entry, picture: picture.size_bytes),
    "sha256": (Kind.TEXT, lambda entry, picture: picture.sha256),
    "inference_s": (Kind.FLOAT, lambda entry, picture: picture.inference_s),
    "cost_usd": (Kind.FLOAT, lambda entry, picture: entry.cost_usd),
    "finished_at": (Kind.TEXT, lambda entry, picture: entry.finished_at),
    "api": (Kind.TEXT, lambda entry, picture: entry.api),
    "endpoint": (Kind.TEXT, lambda entry, picture: entry.endpoint),
    "run": (Kind.TEXT, lambda entry, picture: entry.run),
    "fingerprint": (Kind.TEXT, lambda entry, picture: entry.fingerprint),
    "manifest": (Kind.TEXT, lambda entry, picture: entry.manifest),
    "line": (Kind.INT, lambda entry, picture: entry.line),
}
_OWN = {"prompt", "negative_prompt", "seed", "width", "height", "num_steps", "guidance_scale", "image", "mask"}


def rows(entry: Entry) -> list[Row]:
    """A row for each picture of an entry. `cost_usd` is the job's, and stands with its first picture only."""
    more = _more(entry)
    found = []
    for position, picture in enumerate(entry.images):
        values = {name: get(entry, picture) for name, (_, get) in FIRST.items()} | more
        values |= {name: get(entry, picture) for name, (_, get) in LAST.items()}
        if position:
            values["cost_usd"] = None
        found.append(Row(sample_key(entry.job, position, picture.index), picture, values))
    return found


def _more(entry: Entry) -> dict[str, Any]:
    """What differs from manifest to manifest, under the names that a table would give it."""
    params = {name: value for name, value in entry.request.items() if name not in _OWN}
    axes = entry.axes if isinstance(entry.axes, dict) else {}
    groups = (("params", params), ("meta", entry.meta), ("axes", axes))
    return {_safe(f"{group}.{name}"): value for group, values in groups for name, value in values.items()}


def _safe(name: str) -> str:
    return f"{name}_" if _PATHS.search(name) else name


@dataclass
class Survey:
    """Looks at all rows and says which columns there are; the same rows in any order give the same columns."""

    _shapes: dict[str, set[str]] = field(default_factory=dict)
    _first: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        who = (row.values["id"], row.key)
        for name, value in row.values.items():
            shapes = self._shapes.setdefault(name, set())
            if value is not None:
                shapes.add(_shape(value))
                if who < self._first.setdefault(name, who):
                    self._first[name] = who

    def examples(self) -> set[str]:
        """The keys of a few rows that together have a value in every column that has any."""
        return {key for _, key in self._first.values()}

    def columns(self) -> list[Column]:
        """Columns that every export has stand first and last, those of this manifest between them by name."""
        declared = {name: kind for name, (kind, _) in (FIRST | LAST).items()}
        own = sorted(self._shapes.keys() - declared.keys())
        found = []
        for name in (*FIRST, *own, *LAST):
            shapes = self._shapes.get(name, set())
            kinds = (declared.get(name, Kind.BOOL if shapes else Kind.TEXT), *_FITTING)
            found.append(Column(name, next(kind for kind in kinds if shapes <= _FITTING[kind]), bool(shapes)))
        return found


# Not every whole number can be a float: those that cannot stand beside floats as text.
_FITTING = {
    Kind.BOOL: {"bool"},
    Kind.INT: {"int", "wide int"},
    Kind.FLOAT: {"int", "float"},
    Kind.TEXT: {"bool", "int", "wide int", "float", "other"},
}


def _shape(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and value in _INT64:
        return "int" if value in _EXACT else "wide int"
    return "float" if isinstance(value, float) else "other"


def cell(value: Any, kind: Kind) -> Any:
    """A value as it stands in a column of this kind."""
    if value is None:
        return None
    if kind is Kind.TEXT and not isinstance(value, str):
        return msgspec.json.encode(value).decode()
    return float(value) if kind is Kind.FLOAT else value


def cells(row: Row, columns: Sequence[Column]) -> Iterator[Any]:
    return (cell(row.values.get(column.name), column.kind) for column in columns)
