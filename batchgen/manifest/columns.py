"""The header of a table -> which column is which field. No lines, no positions, no checking of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchgen import text
from batchgen.manifest.fields import FIELDS, NESTED, RESERVED, nearest
from batchgen.manifest.yaml12 import resolve


@dataclass(frozen=True, slots=True)
class Columns:
    """Which cell of a row is which field; `index` holds them all, as in `width` or `meta.Category`."""

    count: int
    index: dict[str, int]
    fields: list[tuple[int, str]]
    params: list[tuple[int, str]]
    meta: list[tuple[int, str]]

    def values(self, cells: list[str]) -> dict[str, Any]:
        """What the cells of a row say. Missing cells are empty, and an empty cell says nothing."""
        if len(cells) < self.count:
            cells += [""] * (self.count - len(cells))
        values: dict[str, Any] = {name: cells[i] for i, name in self.fields if cells[i]}
        if self.params and (params := {name: resolve(cells[i]) for i, name in self.params if cells[i]}):
            values["params"] = params
        if self.meta and (meta := {name: cells[i] for i, name in self.meta if cells[i]}):
            values["meta"] = meta
        return values


def read_header(cells: list[str]) -> tuple[Columns, list[tuple[int, str, str]]]:
    """The columns that a header names, and for each cell that is wrong its index, what is wrong, and what to do.

    Empty cells at the end, which spreadsheets like to leave, are no columns.
    """
    count = max((i for i, cell in enumerate(cells, 1) if cell.strip()), default=0)
    columns = Columns(count, {}, [], [], [])
    wrong: list[tuple[int, str, str]] = []
    lists = {"params": columns.params, "meta": columns.meta}
    for i, cell in enumerate(cells[:count]):
        path, what, fix = _field(cell.strip())
        if what:
            wrong.append((i, what, fix))
        elif path in columns.index:
            wrong.append((i, f"a second column for '{text.printable(path, 60)}'", "remove or rename one"))
        columns.index.setdefault(path, i)
        nested, _, name = path.partition(".")
        lists.get(nested, columns.fields).append((i, name or path))
    return columns, wrong


def _field(name: str) -> tuple[str, str, str]:
    """The field that a header cell names, or what is wrong with it and how to mend it."""
    folded = name.casefold()
    head, _, rest = name.partition(".")
    column = f"column '{text.printable(name, 60)}'"
    own = f"'meta.{text.printable(name, 60)}' to keep it as your own"
    if not name:
        return "", "a column without a name", "name it, or remove the column"
    if head.casefold() in NESTED:
        nested = head.casefold()
        return (
            f"{nested}.{rest}",
            "" if rest else f"{column}: which of the {nested}?",
            f"name it as in '{nested}.night'",
        )
    if folded in FIELDS or folded == "repeat":
        return folded, "", ""
    if folded in RESERVED:
        return folded, f"{column}: '{folded}' is not supported yet", f"call it {own}"
    extended = any(folded.startswith(f"{known}_") for known in FIELDS)  # `prompt_id` is no slip of the pen
    if not extended and (guess := nearest(folded, FIELDS)):
        return folded, f"{column}: did you mean '{guess}'?", f"call it '{guess}', or {own}"
    return f"meta.{name}", "", ""
