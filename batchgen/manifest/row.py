"""What every reader hands over: one row of a manifest, whatever its format. No checking, no defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import msgspec

from batchgen import text
from batchgen.manifest.fields import FIELDS
from batchgen.model import Problem

Place = Callable[[str], tuple[int, int]]
"""Where a field stands, as (line, column) counted from 1; 0 is unknown. Takes `width` as well as `params.scheduler`."""


def nowhere(_: str) -> tuple[int, int]:
    """The place of what has none."""
    return 0, 0


class Lent(msgspec.Struct, frozen=True, gc=False):
    """What a row of a file does not say itself: fields that stand beside `from`, and where in the manifest."""

    fields: Set[str]
    place: Place


class Row(msgspec.Struct, frozen=True, gc=False):
    """What one row says: field names and raw values, `params` and `meta` as dicts; empty fields are left out.

    `variables` are what its templates may name: a table's other columns. `file` is where the row stands if that is not
    the manifest itself, as the manifest names it, and `lent` is what the manifest says for all rows of that file.
    """

    line: int
    values: dict[str, Any]
    place: Place
    variables: Mapping[str, Any] = MappingProxyType({})
    file: str | None = None
    lent: Lent | None = None

    def is_lent(self, field: str) -> bool:
        """Whether what a field says is the same for all rows of this row's file."""
        return self.lent is not None and field.partition(".")[0] in self.lent.fields

    def problem(self, file: str, field: str, what: str, fix: str = "") -> Problem:
        """A mistake in `field`, with its place and the job's id where the row gives one; `file` is the manifest."""
        if self.lent is not None and self.is_lent(field):
            return Problem(file, *self.lent.place(field), what, fix, None, field, self._said(field))
        line, column = self.place(field)
        given = self.values.get("id")
        job = text.printable(given, 100) if isinstance(given, str) else None
        where = str(PurePath(file).parent / self.file) if self.file else file
        return Problem(where, line, column, what, fix, job, field, self._said(field))

    def _said(self, path: str) -> str | None:
        """What stands in a known field, where it is one value. Anything else could be a key in the wrong place."""
        name, _, inner = path.partition(".")
        value = self.values.get(name) if name in FIELDS else None
        if inner and isinstance(value, dict):
            value = value.get(inner)
        return text.printable(str(value), 100) if isinstance(value, str | int | float) else None
