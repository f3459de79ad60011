"""One row -> the jobs it stands for: matrix, repeat, variables. Builds them one by one, or counts them only.

Order: the first axis varies slowest, the number of the repetition fastest. What a job says depends on its own values
alone, so that a value more on an axis leaves all other jobs as they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from batchgen.manifest import ids, templates
from batchgen.manifest.axes import paths
from batchgen.manifest.fields import merged
from batchgen.manifest.grid import Combination, Grid
from batchgen.manifest.row import Lent, Place, Row
from batchgen.manifest.templates import Template

NUMBER = "repeat"
"""What templates call the number of the repetition."""


class Variant(msgspec.Struct, frozen=True, gc=False):
    """One of the jobs that a row stands for, as a row of its own.

    `number` counts repetitions from 1 (0: there are none), `seed` is its own one of a sequence, `suffix` ends the
    id where that is derived, `axes` says what its values are called.
    """

    row: Row
    number: int = 0
    seed: int | None = None
    suffix: str = ""
    axes: dict[str, str] = {}


class Expansion(msgspec.Struct, frozen=True):
    """All that one row stands for, checked as far as that can be done once for all its jobs.

    `fields`, and what the axes set, hold Templates in the place of texts with braces; `dynamic` names those fields.
    """

    row: Row
    fields: dict[str, Any]
    columns: dict[str, str] = {}
    grid: Grid = Grid()
    repeat: int = 0
    seeds: list[int] = []
    id: Template | None = None
    dynamic: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many jobs there are, without building them."""
        return self.grid.count() * max(self.repeat, 1)

    def models(self) -> Counter[str | None]:
        """How many jobs ask for which model, without building them; None where the row leaves it to the defaults."""
        default, counts = self.fields.get("model"), Counter[str | None]()
        for number, axis in enumerate(self.grid.axes):
            if "model" in axis.sets:
                for value in axis.values:
                    counts[value.sets.get("model", default)] += self.grid.count({number: value})
        counts = counts or Counter({default: self.grid.count()})
        return Counter({model: count * max(self.repeat, 1) for model, count in counts.items()})

    def tells_apart(self) -> bool:
        """Whether the template of the id proves that no two of the jobs share one; False: only building them tells."""
        if self.id is None:
            return not self.grid.axes
        choices = {name: {ids.part(value)} for name, value in self.columns.items()}
        for axis in self.grid.axes:
            for name in axis.variables:
                choices[name] = {ids.part(value.variables[name]) for value in axis.values}
        if not all(text.isascii() for texts in choices.values() for text in texts):
            return False
        choices = {name: {text.lower() for text in texts} for name, texts in choices.items()}
        if NUMBER in self.id.names[:-1]:
            choices[NUMBER] = {str(number) for number in range(1, self.repeat + 1)}
        return templates.tells_apart(self.id, choices)

    def variants(self) -> Iterator[Variant]:
        """All the jobs, one after another."""
        numbers = range(1, self.repeat + 1) if self.repeat else range(1)
        for combination in self.grid.combinations():
            yield from self._of(combination, numbers)

    def sample(self) -> Iterator[Variant]:
        """A few of the jobs, which say most of what can be wrong: every value of every axis, the first and the last."""
        for combination in self.grid.sample():
            yield from self._of(combination, sorted({min(self.repeat, 1), self.repeat}))

    def _of(self, combination: Combination, numbers: Iterable[int]) -> Iterator[Variant]:
        fields, variables, axes = self.fields, dict(self.columns), {}
        for axis, value in zip(self.grid.axes, combination, strict=True):
            fields = merged(fields, value.sets)
            variables |= value.variables
            axes[axis.name] = value.label
        place = partial(_place, self.row.place, combination) if combination else self.row.place
        lent = self._lent(combination)
        for number in numbers:
            numbered = axes | {NUMBER: str(number)} if number else axes
            variables |= {NUMBER: str(number)} if number else {}
            said = {name: templates.rendered(fields[name], variables) for name in self.dynamic if name in fields}
            suffix = f"-{number}" if number else ""
            if self.id is not None:
                said["id"] = self.id.render({name: ids.part(variables[name]) for name in self.id.names})
                said["id"] += "" if NUMBER in self.id.names else suffix
                suffix = ""
            seed = self.seeds[number - 1] if self.seeds else None
            row = Row(self.row.line, fields | said, place, file=self.row.file, lent=lent)
            yield Variant(row, number, seed, suffix, numbered)

    def _lent(self, combination: Combination) -> Lent | None:
        """What the manifest says for all rows of a file, with what a matrix beside `from` sets."""
        lent = self.row.lent
        if lent is None or "matrix" not in lent.fields:
            return lent
        fields = {name for value in combination for name in value.sets if name not in self.dynamic}
        return Lent(lent.fields | fields, partial(_place, lent.place, combination))


def _place(place: Place, combination: Combination, field: str) -> tuple[int, int]:
    """Where a field of one job stands: at the axis value that sets it, else in the row."""
    for value in combination:
        if field in value.sets or field in paths(value.sets):
            return place(f"{value.path}.{field}")
    return place(field)
