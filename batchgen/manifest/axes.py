"""A row's `matrix` and `exclude` -> axes of checked values. Knows no templates, places or jobs; counts nothing.

An axis named like a field sets it; any other is a variable. A value that is a mapping sets several fields at once: its
keys that are fields set these, the others are variables named `axis.key`, and `name` is what the value is called.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from batchgen.manifest.fields import (
    EXPANDING,
    FIELDS,
    NESTED,
    RESERVED,
    VALUE,
    Complaint,
    Wrong,
    check,
    check_each,
    nearest,
    shown,
)

MAX_AXES = 32

_FEW = 100
_NAME = re.compile(r"(?:(?:params|meta)\.)?[^\W\d]\w*")
_OWN = frozenset({"id", *EXPANDING, *RESERVED})


class Value(msgspec.Struct, frozen=True):
    """One value of an axis: what it is called, the fields it sets, what templates may name, and where it stands."""

    label: str
    sets: dict[str, Any]
    variables: dict[str, str]
    path: str


@dataclass(frozen=True)
class Axis:
    """One thing that varies, with all its values."""

    name: str
    values: list[Value]

    @cached_property
    def sets(self) -> set[str]:
        """The fields that any of its values sets, as in `width` or `params.scheduler`."""
        return {path for value in self.values for path in paths(value.sets)}

    @cached_property
    def variables(self) -> set[str]:
        """What every one of its values gives to templates."""
        return set.intersection(*(set(value.variables) for value in self.values))


Exclude = dict[int, str]
"""A combination to leave out: the labels by the numbers of their axes."""


def paths(fields: Mapping[str, Any]) -> Iterator[str]:
    """The names of fields; of params and meta those inside."""
    for name, value in fields.items():
        if name in NESTED:
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name


def written(value: Any) -> str:
    """A scalar as text: 7.0 as 7, true as true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    return str(value)


def is_scalar(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def read_axes(matrix: Mapping[str, Any], columns: Iterable[str]) -> tuple[list[Axis], list[Complaint]]:
    """The axes of a matrix, those with mistakes left out, and the mistakes. `columns` are names that are taken."""
    complaints: list[Complaint] = []
    axes: list[Axis] = []
    if not matrix:
        complaints.append(Complaint("matrix", "matrix: no axes", "write it as in 'matrix: {animal: [cat, dog]}'"))
    if len(matrix) > MAX_AXES:
        return [], [Complaint("matrix", f"matrix: {len(matrix)} axes; at most {MAX_AXES} are possible")]
    for name, values in matrix.items():
        wrong = list(_name_complaints(name, columns)) or list(_list_complaints(name, values))
        if not wrong:
            axis, wrong = _axis(name, values)
            wrong += _twice(axis, axes)
            axes.append(axis)
        complaints += wrong
    return (axes if not complaints else []), complaints


def _name_complaints(name: str, columns: Iterable[str]) -> Iterator[Complaint]:
    path, axis = f"matrix.{name}", f"axis {shown(name)}"
    if name == "exclude":
        yield Complaint(path, "matrix: 'exclude' is no axis", "write it beside 'matrix'")
    elif name in NESTED:
        yield Complaint(path, f"{axis}: which of the {name}?", f"name it as in '{name}.night'")
    elif name in _OWN:
        yield Complaint(path, f"{axis}: the name has a meaning of its own", "call it otherwise")
    elif not _NAME.fullmatch(name):
        yield Complaint(path, f"{axis}: expected a name of letters, digits and '_'", "call it otherwise")
    elif any(column == name or column.startswith(f"{name}.") for column in columns):
        yield Complaint(path, f"{axis}: a column has the same name", "rename one of them")


def _list_complaints(name: str, values: Any) -> Iterator[Complaint]:
    path = f"matrix.{name}"
    if not isinstance(values, list):
        yield Complaint(path, f"axis '{name}': expected a list of values, got {shown(values)}", "write it in brackets")
    elif not values:
        yield Complaint(path, f"axis '{name}': no values", "give it some, or remove it")


def _axis(name: str, raw: list[Any]) -> tuple[Axis, list[Complaint]]:
    complaints: list[Complaint] = []
    values: list[Value] = []
    labels: set[str] = set()
    for number, one in enumerate(raw):
        path = f"matrix.{name}.{number}"
        try:
            value = _object(name, path, one) if isinstance(one, dict) else _scalar(name, path, one)
        except Wrong as wrong:
            complaints += [Complaint(c.field, f"axis '{name}': {c.what}", c.fix) for c in wrong.complaints]
            continue
        if value.label in labels:
            what = f"axis '{name}': the value {shown(value.label)} stands here twice"
            complaints.append(Complaint(path, what, "remove one, or give each mapping a 'name' of its own"))
        labels.add(value.label)
        values.append(value)
    return Axis(name, values), complaints


def _twice(axis: Axis, others: list[Axis]) -> Iterator[Complaint]:
    for other in others:
        for field in sorted(axis.sets & other.sets):
            what = f"axis '{axis.name}': the axis '{other.name}' sets '{field}' as well"
            yield Complaint(f"matrix.{axis.name}", what, "put both into the values of one axis")


def _scalar(name: str, path: str, raw: Any) -> Value:
    _refuse(path, check_each({"value": raw}, {"value": VALUE})[1])
    if raw is None:
        raise Wrong([Complaint(path, f"expected {VALUE.expects}, got nothing", "write '' for no text")], {})
    if not is_field(name):
        return Value(written(raw), {}, {name: written(raw)}, path)
    sets = _checked(path, _nested(name, raw))
    label = written(next(iter(_leaves(sets))))
    return Value(label, sets, {name: label}, path)


def is_field(name: str) -> bool:
    """Whether an axis or key of this name sets a field, as in `width` or `params.scheduler`."""
    return name in FIELDS or name.partition(".")[0] in NESTED


def _nested(name: str, value: Any) -> dict[str, Any]:
    outer, _, inner = name.partition(".")
    return {outer: {inner: value}} if inner else {name: value}


def _object(name: str, path: str, raw: dict[str, Any]) -> Value:
    said = {key: value for key, value in raw.items() if value is not None}
    sets: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, value in said.items():
        (sets if is_field(key) and key != "id" and "." not in key else own)[key] = value
    for key in own:
        if not _NAME.fullmatch(key) or "." in key or key == "id":
            fix = "the id names the axis in braces" if key == "id" else "call it otherwise"
            raise Wrong([Complaint(f"{path}.{key}", f"{shown(key)} cannot stand in a value", fix)], {})
    _refuse(path, check_each(own, dict.fromkeys(own, VALUE))[1])
    sets = _checked(path, sets)
    if is_field(name) and name not in paths(sets):
        raise Wrong([Complaint(path, f"this value does not say its '{name}'", f"write '{name}' into it")], {})
    leaves = [*_leaves(sets), *own.values()]
    label = own.get("name") if "name" in own else sets.get(name, "-".join(map(written, leaves)))
    if not leaves:
        what = "a mapping without a plain value" if said else "an empty mapping"
        raise Wrong([Complaint(path, what, "give it a 'name'" if said else "write what it sets")], {})
    texts = {f"{name}.{key}": written(value) for key, value in (sets | own).items() if is_scalar(value)}
    return Value(written(label), sets, {name: written(label)} | texts, path)


def _leaves(sets: dict[str, Any]) -> Iterator[Any]:
    for name, value in sets.items():
        yield from (filter(is_scalar, value.values()) if name in NESTED else [value])


def _checked(path: str, sets: dict[str, Any]) -> dict[str, Any]:
    """The fields with their right types. Raises Wrong with paths below `path`."""
    try:
        return check(sets)
    except Wrong as wrong:
        _refuse(path, wrong.complaints)
        raise


def _refuse(path: str, complaints: list[Complaint]) -> None:
    if complaints:
        raise Wrong([c._replace(field=f"{path}.{c.field}") for c in complaints], {})


def read_excludes(exclude: list[Any], axes: list[Axis]) -> tuple[list[Exclude], list[Complaint]]:
    """The combinations to leave out, and a complaint for each that matches nothing."""
    excludes: list[Exclude] = []
    complaints: list[Complaint] = []
    names = [axis.name for axis in axes]
    labels = [{value.label for value in axis.values} for axis in axes]
    for number, one in enumerate(exclude):
        path = f"exclude.{number}"
        wrong = list(_exclude_complaints(path, one, dict(zip(names, labels, strict=True))))
        complaints += wrong
        if not wrong:
            excludes.append({names.index(name): written(value) for name, value in one.items()})
    return excludes, complaints


def _exclude_complaints(path: str, one: Any, axes: dict[str, set[str]]) -> Iterator[Complaint]:
    if not isinstance(one, dict) or not one:
        fix = f"write it as in '{{{next(iter(axes))}: ...}}'"
        yield Complaint(
            path, f"exclude: expected a mapping of axes to values, got {shown(one) if one else 'none'}", fix
        )
        return
    for name, value in one.items():
        here = f"{path}.{name}"
        if name not in axes:
            guess = nearest(name, axes, cutoff=0.6)
            fix = f"did you mean '{guess}'?" if guess else f"the axes are: {', '.join(axes)}"
            yield Complaint(here, f"exclude: {shown(name)} is no axis of the matrix", fix)
        elif not is_scalar(value) or written(value) not in axes[name]:
            few = isinstance(value, str) and len(axes[name]) <= _FEW
            guess = nearest(value, axes[name], cutoff=0.6) if few else None
            fix = f"did you mean {shown(guess)}?" if guess else "it names a value of the axis, a mapping by its 'name'"
            yield Complaint(here, f"exclude: the axis '{name}' has no value {shown(value)}", fix)
