"""Names that people give to columns and keys -> fields. No lines, no positions, no checking of values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from batchgen import text
from batchgen.manifest.fields import EXPANDING, FIELDS, NESTED, nearest
from batchgen.manifest.reading import Reading
from batchgen.manifest.scalars import resolve

GUESSES = (("prompts", "prompt_text", "text_prompt"), ("caption", "captions", "text", "texts", "description"))
"""What a column of prompts may be called where none is called `prompt`; the second names only without the first."""

ELSEWHERE = {
    "custom_id": "id",
    "steps": "num_steps",
    "num_inference_steps": "num_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
}
"""What other programs call our fields."""

_DECIMAL_COMMA = re.compile(r"\s*[-+]?[0-9]*,[0-9]+\s*")
_FLOATS = frozenset(("guidance_scale",))


class Misnamed(NamedTuple):
    """What is wrong with the name at an index, and how to mend it; -1 is the whole header."""

    at: int
    what: str
    fix: str


def assign(
    names: Sequence[str], reading: Reading, noun: str = "column"
) -> tuple[list[tuple[int, str]], list[Misnamed]]:
    """Which field each of `names` stands for, as in `width` or `meta.Category`, and which cannot be understood.

    What `reading.columns` says comes first, then the name itself, whatever its case; where nothing is called `prompt`
    a single likely name is taken for it, and that is noted.
    """
    wrong: list[Misnamed] = []
    chosen = _chosen(names, reading, noun, wrong)
    if wrong:
        return [], wrong
    if not reading.has_prompt and "prompt" not in reading.columns:
        _guess_prompt(names, reading, noun, chosen, wrong)
    seen = {path for paths in chosen.values() for path in paths}
    elsewhere = frozenset(seen)
    assigned: list[tuple[int, str]] = []
    for i, name in enumerate(names):
        if i in chosen:
            assigned += [(i, path) for path in chosen[i]]
            continue
        path, what, fix = _field(name, noun)
        if path in elsewhere or (path == "exclude" and "matrix" not in names):
            path, what = f"meta.{name}", ""
        if what:
            wrong.append(Misnamed(i, what, fix))
        elif path in seen:
            wrong.append(Misnamed(i, f"a second {noun} for '{text.printable(path, 60)}'", "remove or rename one"))
        seen.add(path)
        assigned.append((i, path))
    return assigned, wrong


def _chosen(names: Sequence[str], reading: Reading, noun: str, wrong: list[Misnamed]) -> dict[int, list[str]]:
    """The fields of the names that `reading.columns` speaks of, by their index."""
    chosen: dict[int, list[str]] = {}
    folded = [name.casefold() for name in names]
    for path, name in reading.columns.items():
        if name in names:
            chosen.setdefault(names.index(name), []).append(path)
        elif name.casefold() in folded:
            chosen.setdefault(folded.index(name.casefold()), []).append(path)
        elif noun == "column":  # not every object has to have every key
            there = text.printable(", ".join(names), 200)
            wrong.append(Misnamed(-1, f"no column '{text.printable(name, 60)}' for '{path}'", f"there are: {there}"))
    return chosen


def _guess_prompt(
    names: Sequence[str], reading: Reading, noun: str, chosen: dict[int, list[str]], wrong: list[Misnamed]
) -> None:
    folded = [name.casefold() for name in names]
    if "prompt" in folded:
        return
    for likely in GUESSES:
        found = [i for i, name in enumerate(folded) if re.sub("[ -]", "_", name) in likely and i not in chosen]
        if len(found) > 1:
            them = " or ".join(f"'{text.printable(names[i], 60)}'" for i in found)
            wrong.append(Misnamed(found[1], f"no {noun} 'prompt'; is it {them}?", "call that one 'prompt'"))
        if len(found) == 1:
            chosen[found[0]] = ["prompt"]
            reading.note(f"{reading.file}: the {noun} '{text.printable(names[found[0]], 60)}' is taken for the prompt")
        if found:
            return


def _field(name: str, noun: str) -> tuple[str, str, str]:
    """The field that a name stands for, or what is wrong with it and how to mend it."""
    folded = name.casefold()
    head, dot, rest = name.partition(".")
    named = f"{noun} '{text.printable(name, 60)}'"
    if not name.strip():
        return "", f"a {noun} without a name", f"name it, or remove the {noun}"
    if (folded in FIELDS and (noun != "column" or folded not in NESTED)) or folded in EXPANDING:
        return folded, "", ""
    if head.casefold() in NESTED and (dot or noun == "column"):
        nested = head.casefold()
        wrong = "" if rest else f"{named}: which of the {nested}?"
        return f"{nested}.{rest}", wrong, f"name it as in '{nested}.night'"
    extended = any(folded.startswith(f"{known}_") for known in FIELDS)  # `prompt_id` is no slip of the pen
    guess = ELSEWHERE.get(folded) or (None if extended else nearest(folded, FIELDS))
    if guess:
        own = f"'meta.{text.printable(name, 60)}' to keep it as your own"
        return folded, f"{named} looks like the field '{guess}'", f"call it '{guess}', or {own}"
    return f"meta.{name}", "", ""


@dataclass(slots=True)
class Columns:
    """Which cell of a row is which field; `index` holds them all, as in `width` or `meta.Category`.

    `others` are the columns that are no fields, by the header's own words. With `decimal_comma`, `3,5` is a number.
    """

    count: int
    decimal_comma: bool = False
    index: dict[str, int] = field(default_factory=dict)
    fields: list[tuple[int, str]] = field(default_factory=list)
    params: list[tuple[int, str]] = field(default_factory=list)
    meta: list[tuple[int, str]] = field(default_factory=list)
    others: list[tuple[int, str]] = field(default_factory=list)

    def add(self, index: int, path: str, header: str) -> None:
        nested, _, name = path.partition(".")
        self.index.setdefault(path, index)
        {"params": self.params, "meta": self.meta}.get(nested, self.fields).append((index, name or path))
        if nested == "meta":
            self.others.append((index, header))

    def values(self, cells: list[str]) -> dict[str, Any]:
        """What the cells of a row say. Missing cells are empty, and an empty cell says nothing."""
        if len(cells) < self.count:
            cells += [""] * (self.count - len(cells))
        values: dict[str, Any] = {name: cell for i, name in self.fields if (cell := cells[i])}
        if self.decimal_comma:
            values |= {name: _pointed(values[name]) for name in _FLOATS if name in values}
        if self.params and (params := {name: self._resolved(cells[i]) for i, name in self.params if cells[i]}):
            values["params"] = params
        if self.meta and (meta := {name: cell for i, name in self.meta if (cell := cells[i])}):
            values["meta"] = meta
        return values

    def variables(self, cells: list[str]) -> dict[str, str]:
        """What templates may name: the cells of all columns that are no fields, the empty ones too."""
        return {name: cells[i] for i, name in self.others}

    def _resolved(self, cell: str) -> Any:
        return resolve(_pointed(cell) if self.decimal_comma else cell)


def read_header(cells: list[str], reading: Reading, *, decimal_comma: bool = False) -> tuple[Columns, list[Misnamed]]:
    """The columns that a header names, and what is wrong with it.

    Empty cells at the end, which spreadsheets like to leave, are no columns.
    """
    count = max((i for i, cell in enumerate(cells, 1) if cell.strip()), default=0)
    names = [cell.strip() for cell in cells[:count]]
    columns = Columns(count, decimal_comma)
    assigned, wrong = assign(names, reading)
    for index, path in assigned:
        columns.add(index, path, names[index])
    return columns, wrong


def _pointed(cell: str) -> str:
    """A number as spreadsheets write it where the decimal mark is a comma, with a point."""
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell
