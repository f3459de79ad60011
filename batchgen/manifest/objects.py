"""JSON -> rows: a line an object, or one array or map of them. No checking of values of fields.

What stands where is looked up only when a problem asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from batchgen import text
from batchgen.manifest import ids
from batchgen.manifest.batch import batch_values, is_batch
from batchgen.manifest.columns import assign
from batchgen.manifest.fields import FIELDS, Complaint, Wrong, check
from batchgen.manifest.jsontext import Piece, after_blanks, members, said_twice
from batchgen.manifest.lines import Lines
from batchgen.manifest.reading import MAX_WHOLE_BYTES, Reading, Rows
from batchgen.manifest.row import Row
from batchgen.model import Problem

_MAX_SHAPES = 1000
_OBJECT = 'write {"prompt": "..."}'


class _Shape(NamedTuple):
    """What objects with certain keys say: which key is which field, name in `params` or name in `meta`.

    `plain`: all keys are fields, and go by their own names.
    """

    plain: bool
    fields: list[tuple[str, str]]
    params: list[tuple[str, str]]
    meta: list[tuple[str, str]]
    wrong: list[Complaint]

    def values(self, said: dict[str, Any]) -> dict[str, Any]:
        """The fields of an object; what it says under `params` and `meta` wins over keys of its own."""
        values = {path: said[key] for key, path in self.fields}
        for nested, keys in (("params", self.params), ("meta", self.meta)):
            given = values.get(nested)
            if keys and (given is None or isinstance(given, dict)):
                values[nested] = {name: said[key] for key, name in keys} | (given or {})
        return values

    def variables(self, said: dict[str, Any]) -> dict[str, Any]:
        """What templates may name: all keys that are no fields."""
        return {key: said[key] for key, _ in self.meta}

    def key(self, path: str) -> str:
        """What the field at `path` is called in the object."""
        nested, _, name = path.partition(".")
        keys = {"params": self.params, "meta": self.meta}.get(nested, self.fields) if name else self.fields
        return next((key for key, assigned in keys if assigned == (name or path)), path)


def jsonl_rows(reading: Reading, lines: Iterable[bytes]) -> Rows:
    """One JSON object a line; blank lines are skipped."""
    source, reader = Lines(reading.file, lines), _Objects(reading)
    for line in source:
        if source.problems:
            yield from source.taken()
        elif line.strip():
            yield from reader.rows(Piece(source.line, 1, line))


def json_rows(reading: Reading, lines: Iterable[bytes]) -> Rows:
    """An array of jobs, or a map from names to jobs; a job is an object, or its prompt."""
    source, reader = Lines(reading.file, lines), _Objects(reading)
    read, size = [], 0
    for line in source:
        read.append(line)
        size += len(line)
        if size > MAX_WHOLE_BYTES:
            what = f"a JSON manifest may hold at most {MAX_WHOLE_BYTES >> 20} MiB"
            yield Problem(reading.file, 0, 0, what, "write one object a line into a .jsonl file")
            return
    if source.problems:
        yield from source.taken()
        return
    for piece in _pieces(reading.file, "".join(read)):
        if isinstance(piece, Problem):
            yield piece
        else:
            yield from reader.rows(piece)


class _Objects:
    """Turns objects into rows; remembers what their keys mean."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.file = reading.file
        self.shapes: dict[tuple[str, ...], _Shape] = {}

    def rows(self, piece: Piece) -> Sequence[Row | Problem]:
        """One row, or its problems."""
        try:
            said = msgspec.json.decode(piece.text)
        except RecursionError:
            return [self._problem(piece, 0, "not valid JSON: nested too deep")]
        except msgspec.DecodeError as error:
            return [self._malformed(piece, error)]
        if isinstance(said, str):
            said = {"prompt": said}
        if not isinstance(said, dict):
            fix = "let an array of jobs be the whole of a .json file" if isinstance(said, list) else _OBJECT
            return [self._problem(piece, 0, "expected a job object", fix)]
        if piece.text.count(":") != len(said) and (twice := said_twice(piece.text)):
            what = f"the key '{text.printable(twice[0], 60)}' stands here twice"
            return [self._problem(piece, twice[1], what, "remove one")]
        return self._batch_row(piece, said) if is_batch(said) else self._flat_row(piece, said)

    def _flat_row(self, piece: Piece, said: dict[str, Any]) -> Sequence[Row | Problem]:
        shape = self.shapes.get(keys := tuple(said)) or self._shape(keys)
        values = said if shape.plain else shape.values(said)
        if type(values.get("id")) is int:  # many sets number their prompts
            values["id"] = str(values["id"])
        if piece.key is not None:
            _name(values, piece.key)
        row = Row(piece.line, values, partial(_place, shape, piece), shape.variables(said) if shape.meta else {})
        return self._all_problems(row, shape.wrong) if shape.wrong else (row,)

    def _batch_row(self, piece: Piece, said: dict[str, Any]) -> Sequence[Row | Problem]:
        values, paths, wrong = batch_values(said)
        row = Row(piece.line, values, lambda path: piece.place(paths.get(path, path)))
        return self._all_problems(row, wrong) if wrong else (row,)

    def _all_problems(self, row: Row, complaints: list[Complaint]) -> list[Problem]:
        """What is wrong with a row beside its values, and what with these."""
        try:
            check(row.values)
        except Wrong as wrong:
            complaints = complaints + wrong.complaints
        return [row.problem(self.file, *complaint) for complaint in complaints]

    def _shape(self, keys: tuple[str, ...]) -> _Shape:
        assigned, wrong = assign(keys, self.reading, "key")
        bad = {index for index, _, _ in wrong}
        kinds: dict[str, list[tuple[str, str]]] = {"": [], "params": [], "meta": []}
        for i, path in assigned:
            nested, dot, name = path.partition(".")
            if i not in bad:
                kinds[nested if dot else ""].append((keys[i], name or path))
        shape = _Shape(
            plain=not bad and all(keys[i] == path and "." not in path for i, path in assigned),
            fields=kinds[""],
            params=kinds["params"],
            meta=kinds["meta"],
            wrong=[Complaint(keys[i], what, fix) for i, what, fix in wrong],
        )
        if len(self.shapes) >= _MAX_SHAPES:
            self.shapes.clear()
        self.shapes[keys] = shape
        return shape

    def _malformed(self, piece: Piece, error: msgspec.DecodeError) -> Problem:
        reason, _, byte = str(error).removeprefix("JSON is malformed: ").partition(" (byte ")
        offset = len(piece.text.encode()[: int(byte.rstrip(")") or 0)].decode(errors="ignore"))
        return self._problem(piece, offset, f"not valid JSON: {reason}", "write one job object a line")

    def _problem(self, piece: Piece, offset: int, what: str, fix: str = "") -> Problem:
        return Problem(self.file, *piece.at(offset), what, fix)


def _name(values: dict[str, Any], key: str) -> None:
    """Let the key of a map be the job's id if it can, else keep it in `meta`."""
    if values.get("id") is None and ids.complaint(key) is None:
        values["id"] = key
    elif isinstance(values.setdefault("meta", {}), dict):
        values["meta"] = {"key": key} | values["meta"]


def _place(shape: _Shape, piece: Piece, path: str) -> tuple[int, int]:
    """Where a field stands, whatever key it was said with."""
    return piece.place(shape.key(path))


def _pieces(file: str, document: str) -> Iterator[Piece | Problem]:
    """The jobs of an array or map, cut out of its text one after another."""
    at = after_blanks(document, 0)
    if document[at : at + 1] not in ("[", "{"):
        what = "expected an array of jobs, or a map from names to jobs" if document.strip() else "the manifest is empty"
        yield Problem(file, 1, 1, what, 'write [{"prompt": "..."}]')
        return
    line, counted = 1, 0
    keys: set[str] = set()
    try:
        for key, start, end in members(document, at, alone=True):
            line += document.count("\n", counted, start)
            line_start, counted = document.rfind("\n", 0, start) + 1, start
            place = line, start - line_start + 1
            if key in FIELDS:
                what = f"'{key}' is a field of a job, and stands where a job's name is expected"
                yield Problem(file, *place, what, "put a single job into an array: [{...}]")
                return
            if key in keys:
                yield Problem(file, *place, f"the key '{text.printable(key, 60)}' stands here twice", "rename one")
                continue
            if key is not None:
                keys.add(key)
            yield Piece(*place, document[start:end], key)
    except RecursionError:
        yield Problem(file, line, 0, "not valid JSON: nested too deep")
    except json.JSONDecodeError as error:
        yield Problem(file, error.lineno, error.colno, f"not valid JSON: {error.msg}", _jsonl_hint(document, error))


def _jsonl_hint(document: str, error: json.JSONDecodeError) -> str:
    lines = error.msg == "Extra data" and document.lstrip().startswith("{")
    return "one object a line is JSON Lines: call it .jsonl, or say --format jsonl" if lines else ""
