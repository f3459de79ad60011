"""A row with matrix, repeat or variables -> its Expansion, or all that is wrong with it. Builds no jobs.

What all jobs of the row have in common is checked here, once: a mistake in a matrix of a million is one problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from itertools import pairwise
from typing import Any

import msgspec

from batchgen import text
from batchgen.manifest import ids, templates
from batchgen.manifest.axes import Axis, Exclude, Value, is_scalar, read_axes, read_excludes, written
from batchgen.manifest.expansion import NUMBER, Expansion
from batchgen.manifest.fields import (
    EXPANDING,
    FIELDS,
    MAX_REPEAT,
    NESTED,
    Complaint,
    Wrong,
    check,
    check_each,
    nearest,
    shown,
)
from batchgen.manifest.grid import Grid
from batchgen.manifest.row import Row
from batchgen.manifest.templates import Template

LARGE = 100_000
MAX_JOBS = MAX_REPEAT

_TEMPLATED = ("prompt", "negative_prompt", "image", "mask", *NESTED)
_SHOWN = 20
_BRACES = "write '{{' and '}}' for braces"


def stands_for_itself(row: Row) -> bool:
    """Whether a row is one job, just as it says: nothing varies and nothing is replaced."""
    values = row.values
    if not EXPANDING.keys().isdisjoint(values) or type(values.get("seed")) is list:
        return False
    return not row.variables or all(map(_is_literal, values.values()))


def _is_literal(value: Any) -> bool:
    """Whether surely no template is in a value: a quick look that gives up on what is nested."""
    if isinstance(value, dict):
        return all(not isinstance(inner, dict) and _is_literal(inner) for inner in value.values())
    return not isinstance(value, list) and not (isinstance(value, str) and ("{" in value or "}" in value))


def unfold(row: Row) -> Expansion | list[Complaint]:
    """What the row stands for, or all that is wrong with it apart from what only some of its jobs say."""
    reader = _Reader(row)
    expansion = reader.expansion()
    return reader.complaints or expansion


class _Reader:
    """Reads one row and gathers complaints."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.complaints: list[Complaint] = []
        self.columns = {name: written(value) for name, value in row.variables.items() if is_scalar(value)}
        self.axes: list[Axis] = []
        self.used: set[str] = set()
        self.noted: set[str] = set()  # named in meta, which is not sent

    def expansion(self) -> Expansion:
        fields, expanding, seeds = self._parts()
        grid, repeat = self._grid(expanding), self._repeat(expanding, seeds)
        id_text = fields.pop("id", None)
        if not self.complaints:
            self._count(grid, repeat, id_text)
            self._seeds_once(grid, repeat, seeds)
        if "matrix" in expanding and not self.axes:  # its names are not known, so templates cannot be checked
            return Expansion(self.row, fields)
        known = self.columns.keys() | set[str]().union(*(axis.variables for axis in grid.axes))
        numbered = known | {NUMBER} if repeat else known
        if known:  # a repetition alone leaves the braces of a prompt as they are
            fields, grid = self._templates("", fields, numbered), self._compiled(grid, numbered)
        id_template = self._template("id", id_text, numbered) if numbered and id_text else id_text
        if isinstance(id_template, str):
            id_template = Template((id_template,), ())
        if not self.complaints:
            self._unused()
            self._told_apart(id_text, id_template)
        sets = [fields, *(value.sets for axis in grid.axes for value in axis.values)]
        dynamic = {name for one in sets for name, value in one.items() if templates.is_template(value)}
        return Expansion(self.row, fields, self.columns, grid, repeat, seeds, id_template, tuple(sorted(dynamic)))

    def _parts(self) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
        """The row's fields, what makes it several jobs, and its sequence of seeds, as far as each is right."""
        said = dict(self.row.values)
        expanding, complaints = check_each({n: said.pop(n) for n in EXPANDING if n in said}, EXPANDING)
        seeds: list[Any] = said.pop("seed") if isinstance(said.get("seed"), list) else []
        for number, seed in enumerate(seeds):
            wrong = [c.what for c in check_each({"seed": seed}, FIELDS)[1]]
            wrong += [f"seed: a sequence holds numbers, got {shown(seed)}"] * (not wrong and type(seed) is not int)
            complaints += [Complaint(f"seed.{number}", what) for what in wrong]
        try:
            fields = check(said)
        except Wrong as wrong_fields:
            fields, complaints = wrong_fields.clean, complaints + wrong_fields.complaints
        if self.row.values.get("seed") == []:
            complaints.append(Complaint("seed", "seed: an empty sequence", "give it numbers, or remove it"))
        self.complaints += complaints
        return fields, expanding, seeds

    def _grid(self, expanding: dict[str, Any]) -> Grid:
        excludes: list[Exclude] = []
        if "matrix" in expanding:
            self.axes, complaints = read_axes(expanding["matrix"], self.columns)
            self.complaints += complaints
        elif "exclude" in expanding:
            self._complain("exclude", "exclude: there is no matrix to exclude from", "remove it")
        if self.axes and "exclude" in expanding:
            excludes, complaints = read_excludes(expanding["exclude"], self.axes)
            self.complaints += complaints
        return Grid(self.axes, excludes)

    def _repeat(self, expanding: dict[str, Any], seeds: list[int]) -> int:
        repeat: int = expanding.get("repeat", len(seeds))
        if seeds and repeat != len(seeds):
            what = f"repeat: {repeat}, but there are {len(seeds)} seeds"
            self._complain("repeat", what, "remove 'repeat': each seed makes one picture")
        return repeat

    def _count(self, grid: Grid, repeat: int, id_text: str | None) -> None:
        field, size = ("matrix" if grid.axes else "repeat"), grid.size * max(repeat, 1)
        if size > MAX_JOBS:
            what = f"{field}: {size:,} jobs; at most {MAX_JOBS:,} can stand in one row"
            self._complain(field, what, "split it into several manifests")
        elif grid.excludes and not grid.count():
            self._complain("exclude", "exclude: no combination is left", "exclude less, or remove the job")
        elif grid.size > LARGE and id_text is None:
            what = f"matrix: more than {LARGE:,} combinations need an id that tells them apart"
            self._complain(field, what, f"add {_suggested('', grid.axes)}")

    def _seeds_once(self, grid: Grid, repeat: int, seeds: list[int]) -> None:
        """No seed may come twice: the same picture would be bought again."""
        axis = next((axis for axis in grid.axes if "seed" in axis.sets), None)
        if axis is None:
            if twice := [str(seed) for seed, times in Counter(seeds).items() if times > 1 and seed >= 0]:
                self._complain("seed", f"seed: {twice[0]} stands here twice", "remove one")
        elif seeds:
            self._complain(
                "seed", f"seed: a sequence, and the axis '{axis.name}' sets it as well", "remove one of them"
            )
        elif repeat > 1:
            on_axis = sorted(value.sets["seed"] for value in axis.values if type(value.sets.get("seed")) is int)
            if near := next((a for a, b in pairwise(on_axis) if a >= 0 and b - a < repeat), None):
                what = f"axis '{axis.name}': repeat counts on from seed {near} into the next, so pictures come twice"
                self._complain(f"matrix.{axis.name}", what, f"leave {repeat} between seeds, or write 'seed: auto'")

    def _compiled(self, grid: Grid, known: Set[str]) -> Grid:
        """Templates in the place of texts with braces."""
        axes = [Axis(axis.name, [self._compiled_value(value, known) for value in axis.values]) for axis in grid.axes]
        return Grid(axes, grid.excludes)

    def _compiled_value(self, value: Value, known: Set[str]) -> Value:
        return msgspec.structs.replace(value, sets=self._templates(f"{value.path}.", value.sets, known))

    def _templates(self, path: str, fields: dict[str, Any], known: Set[str]) -> dict[str, Any]:
        found = dict(fields)
        for name in _TEMPLATED:
            if name in NESTED and name in fields:
                found[name] = {
                    inner: value
                    if name == "meta" and self.row.variables.get(inner) == value  # a column, not a template
                    else self._template(f"{path}{name}.{inner}", value, known)
                    for inner, value in fields[name].items()
                }
            elif name in fields:
                found[name] = self._template(f"{path}{name}", fields[name], known)
        return found

    def _template(self, path: str, value: Any, known: Set[str]) -> Any:
        """`value` compiled; complains about braces and names that mean nothing."""
        try:
            found = templates.compiled(value)
        except ValueError as error:
            self._complain(path, f"{text.printable(path, 60)}: {error}", _BRACES)
            return value
        names = set(templates.names_in(found))
        (self.noted if "meta." in path else self.used).update(names)
        for name in sorted(names - known):
            what = f"{text.printable(path, 60)}: {shown(f'{{{name}}}')} is not known"
            self._complain(path, what, self._meant(name, known))
        return found

    def _meant(self, name: str, known: Set[str]) -> str:
        axis = name.partition(".")[0]
        if any(axis == one.name and any(name in value.variables for value in one.values) for one in self.axes):
            return f"give it to every value of the axis '{axis}'"
        if guess := nearest(name, known, cutoff=0.6):
            return f"did you mean {shown(f'{{{guess}}}')}?"
        return f"known: {text.printable(', '.join(f'{{{one}}}' for one in sorted(known)[:_SHOWN]))}; {_BRACES}"

    def _unused(self) -> None:
        """An axis that neither sets a field nor is named would draw the same picture again and again."""
        for axis in self.axes:
            sent = any(not field.startswith("meta.") for field in axis.sets)
            if not sent and not any(self.used & value.variables.keys() for value in axis.values):
                what = f"axis '{axis.name}': it sets no field that is sent, and no prompt, path or id names"
                what += f" '{{{axis.name}}}'"
                guess = nearest(axis.name, FIELDS, cutoff=0.6)
                fix = f"did you mean '{guess}'?" if guess else "name it in the prompt, or remove it"
                self._complain(f"matrix.{axis.name}", what, fix)
                continue
            named = self.used | self.noted | {axis.name, f"{axis.name}.name"}
            keys = {key: value for value in axis.values for key in value.variables.keys() - named}
            for name, value in sorted(keys.items()):
                key = name.removeprefix(f"{axis.name}.")
                if key not in FIELDS:
                    guess = nearest(key, FIELDS, cutoff=0.6)
                    fix = f"did you mean '{guess}'?" if guess else "name it in a text, or remove it"
                    what = f"axis '{axis.name}': {shown(key)} is no field, and no text names '{{{name}}}'"
                    self._complain(f"{value.path}.{key}", what, fix)

    def _told_apart(self, id_text: str | None, template: Template | None) -> None:
        """The id has to name every axis that varies, and no two values may look the same in it."""
        if id_text is None or template is None:
            return
        named = set(template.names)
        missing = [axis for axis in self.axes if len(axis.values) > 1 and not named & axis.variables]
        if missing:
            names = ", ".join(f"'{axis.name}'" for axis in missing)
            what = f"id: does not name the {'axis' if len(missing) == 1 else 'axes'} {names}, so jobs would share it"
            self._complain("id", what, f"write {_suggested(id_text, missing)}")
        for axis in self.axes:
            seen: dict[str, Value] = {}
            for value in axis.values if named & axis.variables else []:
                slugs = [ids.part(value.variables[name]) for name in sorted(named & axis.variables)]
                first = seen.setdefault(ids.collision_key("\0".join(slugs)), value)
                if first is not value:
                    both = f"{shown(first.label)} and {shown(value.label)}"
                    what = f"axis '{axis.name}': {both} are both '{'-'.join(slugs)}' in an id"
                    self._complain(value.path, what, "write them as mappings with a 'name' each")

    def _complain(self, path: str, what: str, fix: str) -> None:
        self.complaints.append(Complaint(path, what, fix))


def _suggested(id_text: str, axes: list[Axis]) -> str:
    pieces = [id_text] * bool(id_text) + [f"{{{axis.name}}}" for axis in axes]
    return f"an id as in 'id: \"{text.printable('-'.join(pieces) or 'fox', 200)}\"'"
