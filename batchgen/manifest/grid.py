"""The combinations of axes, without those that are excluded: walked in order, counted by arithmetic, sampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from math import prod

import msgspec

from batchgen.manifest.axes import Axis, Exclude, Value

Combination = tuple[Value, ...]


class Grid(msgspec.Struct, frozen=True):
    """Axes and the combinations to leave out. Without axes there is one combination, the empty one."""

    axes: list[Axis] = []
    excludes: list[Exclude] = []

    @property
    def size(self) -> int:
        """How many combinations there would be if none were excluded."""
        return prod(len(axis.values) for axis in self.axes)

    def combinations(
        self, fixed: Mapping[int, Value] | None = None, *, backwards: bool = False
    ) -> Iterator[Combination]:
        """Every combination in order, the first axis slowest; those with the `fixed` values by number of axis."""
        pools = [[fixed[n]] if fixed and n in fixed else axis.values for n, axis in enumerate(self.axes)]
        out = self._excluded()
        for combination in product(*(pool[::-1] if backwards else pool for pool in pools)):
            if not any(tuple(combination[n].label for n in numbers) in labels for numbers, labels in out.items()):
                yield combination

    def _excluded(self) -> dict[tuple[int, ...], set[tuple[str, ...]]]:
        """What is excluded, by the axes that say so: one look-up for each set of axes, however many combinations."""
        out: dict[tuple[int, ...], set[tuple[str, ...]]] = {}
        for exclude in self.excludes:
            out.setdefault(tuple(exclude), set()).add(tuple(exclude.values()))
        return out

    def count(self, fixed: Mapping[int, Value] | None = None) -> int:
        """How many `combinations(fixed)` there are; its cost does not grow with their number."""
        labels = {n: value.label for n, value in (fixed or {}).items()}
        sizes = [1 if n in labels else len(axis.values) for n, axis in enumerate(self.axes)]
        live = [e for e in self.excludes if all(labels[n] == e[n] for n in labels.keys() & e.keys())]
        excludes = [{n: label for n, label in e.items() if n not in labels} for e in live]

        @cache
        def beyond(axis: int, matched: frozenset[int]) -> int:
            """The ways to go on from this axis, where `matched` excludes still fit all values before it."""
            if any(max(excludes[e], default=-1) < axis for e in matched):
                return 0
            if not matched:
                return prod(sizes[axis:])
            free = frozenset(e for e in matched if axis not in excludes[e])
            named: dict[str, set[int]] = {}
            for e in matched - free:
                named.setdefault(excludes[e][axis], set()).add(e)
            others = (sizes[axis] - len(named)) * beyond(axis + 1, free) if sizes[axis] > len(named) else 0
            return others + sum(beyond(axis + 1, free | more) for more in named.values())

        return beyond(0, frozenset(range(len(excludes))))

    def sample(self) -> Iterator[Combination]:
        """The first and the last combination, and for every value of every axis the first that has it."""
        searches = [self.combinations(), self.combinations(backwards=True)]
        each = ({n: value} for n, axis in enumerate(self.axes) for value in axis.values)
        searches += [self.combinations(fixed) for fixed in each if self.count(fixed)]
        found = (next(search, None) for search in searches)
        yield from {tuple(value.label for value in c): c for c in found if c is not None}.values()
