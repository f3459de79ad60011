"""An entry `from: FILE` of a list of jobs: what it says, and how it turns the rows of the file into its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from batchgen.manifest.fields import EXPANDING, FIELDS, NESTED, Complaint, Wrong, check, merged, nearest, shown
from batchgen.manifest.formats import Format, format_of
from batchgen.manifest.reading import Rows
from batchgen.manifest.row import Lent, Place, Row, nowhere
from batchgen.model import Problem

OWN = ("from", "columns", "format")
_NO_NAMES = (Format.YAML, Format.TXT)


@dataclass(frozen=True)
class Include:
    """An entry that has been checked. `beside` are the fields beside `from`: what rows say wins over them.

    `columns` are as in `Reading`; with `has_prompt` rows need not bring a prompt.
    """

    file: str
    path: str
    format: Format
    columns: dict[str, str] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)
    has_prompt: bool = False
    place: Place = nowhere

    @cached_property
    def constant(self) -> set[str]:
        """What stands beside `from` and means the same for every row."""
        return {name for name, value in self.beside.items() if _expands(name, value) or not _has_template(value)}

    def problem(self, what: str, fix: str = "") -> Problem:
        """A mistake in the name of the file, at its place in the manifest."""
        return Problem(self.file, *self.place("from"), what, fix)

    def row(self, row: Row) -> Row:
        """A row of the file, with what stands beside `from`."""
        values, lent = merged(self.beside, row.values), None
        if fields := self.constant - row.values.keys():
            lent = Lent(fields, self.place)
        return Row(row.line, values, row.place, row.variables, self.path, lent)


Open = Callable[[Include], Rows]
"""Reads the file of an entry."""


def refused(include: Include) -> Iterator[Problem]:
    """Stands for the reader where there may be no such entry: in a file that is itself read by one."""
    yield include.problem(
        "a file that is read by 'from' may have no 'from' of its own", "name the file in the manifest"
    )


def read_entry(
    file: str, values: dict[str, Any], place: Place, *, has_prompt: bool
) -> tuple[Include | None, list[Problem]]:
    """The entry that says `values`; None if it cannot be read, and every problem of it."""
    path = values["from"]
    complaints: list[Complaint] = []
    if not isinstance(path, str) or not path.strip():
        complaints.append(Complaint("from", f"from: expected the name of a file, got {shown(path)}"))
    format = _format(path, values.get("format"), complaints) if not complaints else None
    columns = _columns(values.get("columns"), format, complaints)
    beside = {name: value for name, value in values.items() if name not in OWN and value is not None}
    beside = _checked(beside, complaints)
    problems = [Problem(file, *place(path), what, fix) for path, what, fix in complaints]
    if format is None:
        return None, problems
    return Include(file, path, format, columns, beside, has_prompt or "prompt" in beside, place), problems


def _format(path: str, said: Any, complaints: list[Complaint]) -> Format | None:
    known = ", ".join(Format)
    if said is None:
        if (told := format_of(path)) is None:
            what = f"from: the kind of file is not known by its name, {shown(path)}"
            complaints.append(Complaint("from", what, f"add 'format:' with one of {known}"))
        return told
    if isinstance(said, str) and said.lower() in tuple(Format):
        return Format(said.lower())
    complaints.append(Complaint("format", f"format: expected one of {known}, got {shown(said)}"))
    return None


def _columns(said: Any, format: Format | None, complaints: list[Complaint]) -> dict[str, str]:
    """For fields the columns that hold them."""
    if said is None:
        return {}
    if not isinstance(said, dict):
        complaints.append(Complaint("columns", "columns: expected a mapping of fields to columns"))
        return {}
    if format in _NO_NAMES:
        complaints.append(Complaint("columns", f"columns: a {format} file has none", "remove it"))
    good: dict[str, str] = {}
    for path, column in said.items():
        if not _names_field(path):
            what, fix = (
                f"columns: {shown(path)} is not a known field",
                "write as in 'prompt: Caption' or 'meta.kind: Type'",
            )
        elif not isinstance(column, str) or not column.strip():
            what, fix = f"columns: expected the name of a column, got {shown(column)}", "put it into quotes"
        else:
            good[path] = column.strip()
            continue
        complaints.append(Complaint(f"columns.{path}", what, fix))
    return good


def _names_field(path: str) -> bool:
    nested, _, name = path.partition(".")
    return bool(name) if nested in NESTED else path in FIELDS or path in EXPANDING


def _checked(beside: dict[str, Any], complaints: list[Complaint]) -> dict[str, Any]:
    """What stands beside `from` without what is wrong; what is or may be a template can be checked in its jobs only."""
    later = {name for name, value in beside.items() if _expands(name, value) or _has_template(value)}
    wrong: list[Complaint] = []
    try:
        check({name: value for name, value in beside.items() if name not in later})
    except Wrong as caught:
        wrong = caught.complaints
    if "id" in beside and not (later & {"id", "seed", *EXPANDING}):
        fix = "remove it, or name a column as in '{name}'"
        wrong.append(Complaint("id", "id: every row would get the same id", fix))
    bad = {complaint.field.partition(".")[0] for complaint in wrong}
    for complaint in wrong:
        near = None if complaint.field in FIELDS else nearest(complaint.field, OWN)
        complaints.append(complaint._replace(fix=f"did you mean '{near}'?") if near else complaint)
    return {name: value for name, value in beside.items() if name not in bad}


def _expands(name: str, value: Any) -> bool:
    """Whether a field makes several jobs of each row."""
    return name in EXPANDING or (name == "seed" and isinstance(value, list))


def _has_template(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_template, value.values()))
    return isinstance(value, str) and "{" in value
