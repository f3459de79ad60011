"""What every reader hands over: one row of a manifest, whatever its format. No checking, no defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


class Row(msgspec.Struct, frozen=True, gc=False):
    """What one row says: field names and raw values, `params` and `meta` as dicts; empty fields are left out.

    `variables` are what its templates may name: a table's other columns.
    """

    line: int
    values: dict[str, Any]
    place: Place
    variables: Mapping[str, Any] = MappingProxyType({})

    def problem(self, file: str, field: str, what: str, fix: str = "") -> Problem:
        """A mistake in `field`, with its place and the job's id where the row gives one."""
        line, column = self.place(field)
        given = self.values.get("id")
        job = text.printable(given, 100) if isinstance(given, str) else None
        return Problem(file, line, column, what, fix, job, field, self._said(field))

    def _said(self, path: str) -> str | None:
        """What stands in a known field, where it is one value. Anything else could be a key in the wrong place."""
        name, _, inner = path.partition(".")
        value = self.values.get(name) if name in FIELDS else None
        if inner and isinstance(value, dict):
            value = value.get(inner)
        return text.printable(str(value), 100) if isinstance(value, str | int | float) else None
