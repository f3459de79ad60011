"""JSON -> rows: a line an object, or one array or map of them. No checking of values of fields.

What stands where is looked up only when a problem asks for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import msgspec

from batchgen import text
from batchgen.manifest import ids
from batchgen.manifest.batch import batch_values, is_batch
from batchgen.manifest.columns import assign
from batchgen.manifest.fields import FIELDS, NESTED, Complaint, Wrong, check
from batchgen.manifest.lines import Lines
from batchgen.manifest.reading import MAX_WHOLE_BYTES, Reading, Rows
from batchgen.manifest.row import Row
from batchgen.model import Problem

_MAX_SHAPES = 1000
_BLANK = re.compile(r"[ \t\r\n]*")
_OBJECT = 'write {"prompt": "..."}'


class _Piece(NamedTuple):
    """The JSON text of one job, where it starts, and its name in a map of jobs."""

    line: int
    column: int
    text: str
    key: str | None = None

    def at(self, offset: int) -> tuple[int, int]:
        """The place of one of its characters."""
        before = self.text[:offset]
        lines = before.count("\n")
        return self.line + lines, offset - before.rfind("\n") if lines else self.column + offset

    def place(self, path: str) -> tuple[int, int]:
        """The place of the value at `path`, of the object that holds it if there is none."""
        offset = 0
        while path:
            spots = _spots(self.text, offset)
            name, _, rest = (path, "", "") if path in spots else path.partition(".")
            if name not in spots:
                break
            offset, path = spots[name], rest
        return self.at(offset)


class _Shape(NamedTuple):
    """What objects with certain keys say; `plain`: all their keys are fields."""

    plain: bool
    assigned: list[tuple[str, str]]
    wrong: list[Complaint]


def jsonl_rows(reading: Reading, lines: Iterable[bytes]) -> Rows:
    """One JSON object a line; blank lines are skipped."""
    source, reader = Lines(reading.file, lines), _Objects(reading)
    for line in source:
        if source.problems:
            yield from source.taken()
        elif line.strip():
            yield from reader.rows(_Piece(source.line, 1, line))


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

    def rows(self, piece: _Piece) -> Rows:
        """One row or its problems."""
        try:
            said = msgspec.json.decode(piece.text)
        except RecursionError:
            yield self._problem(piece, 0, "not valid JSON: nested too deep")
            return
        except msgspec.DecodeError as error:
            yield self._malformed(piece, error)
            return
        if isinstance(said, str):
            said = {"prompt": said}
        elif not isinstance(said, dict):
            fix = "let an array of jobs be the whole of a .json file" if isinstance(said, list) else _OBJECT
            yield self._problem(piece, 0, "expected a job object", fix)
            return
        elif piece.text.count(":") != len(said) and (twice := _said_twice(piece.text)):
            yield self._problem(
                piece, twice[1], f"the key '{text.printable(twice[0], 60)}' stands here twice", "remove one"
            )
            return
        if is_batch(said):
            yield from self._batch_row(piece, said)
        else:
            yield from self._flat_row(piece, said)

    def _flat_row(self, piece: _Piece, said: dict[str, Any]) -> Rows:
        shape = self.shapes.get(keys := tuple(said)) or self._shape(keys)
        variables: dict[str, Any] = {}
        values = said if shape.plain else _sorted_out(shape, said, variables)
        if piece.key is not None:
            _name(values, piece.key)
        row = Row(piece.line, values, partial(_place, shape, piece), variables)
        yield from self._all_problems(row, shape.wrong) if shape.wrong else (row,)

    def _batch_row(self, piece: _Piece, said: dict[str, Any]) -> Rows:
        values, paths, wrong = batch_values(said)
        row = Row(piece.line, values, lambda path: piece.place(paths.get(path, path)))
        yield from self._all_problems(row, wrong) if wrong else (row,)

    def _all_problems(self, row: Row, complaints: list[Complaint]) -> Iterator[Problem]:
        """What is wrong with a row beside its values, and what with these."""
        try:
            check(row.values)
        except Wrong as wrong:
            complaints = complaints + wrong.complaints
        for complaint in complaints:
            yield row.problem(self.file, *complaint)

    def _shape(self, keys: tuple[str, ...]) -> _Shape:
        assigned, wrong = assign(keys, self.reading, "key")
        bad = {index for index, _, _ in wrong}
        shape = _Shape(
            all(keys[i] == path and "." not in path for i, path in assigned) and not bad,
            [(keys[i], path) for i, path in assigned if i not in bad],
            [Complaint(keys[i], what, fix) for i, what, fix in wrong],
        )
        if len(self.shapes) >= _MAX_SHAPES:
            self.shapes.clear()
        self.shapes[keys] = shape
        return shape

    def _malformed(self, piece: _Piece, error: msgspec.DecodeError) -> Problem:
        reason, _, byte = str(error).removeprefix("JSON is malformed: ").partition(" (byte ")
        offset = len(piece.text.encode()[: int(byte.rstrip(")") or 0)].decode(errors="ignore"))
        return self._problem(piece, offset, f"not valid JSON: {reason}", "write one job object a line")

    def _problem(self, piece: _Piece, offset: int, what: str, fix: str = "") -> Problem:
        return Problem(self.file, *piece.at(offset), what, fix)


def _sorted_out(shape: _Shape, said: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
    """The fields of an object whose keys are not all fields; fills in the `variables`."""
    values: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {name: {} for name in NESTED}
    for key, path in shape.assigned:
        head, dot, name = path.partition(".")
        if dot:
            nested[head][name] = said[key]
            if head == "meta":
                variables[key] = said[key]
        else:
            values[path] = said[key]
    for name, inner in nested.items():
        given = values.get(name)
        if inner and (given is None or isinstance(given, dict)):
            values[name] = inner | (given or {})
    return values


def _name(values: dict[str, Any], key: str) -> None:
    """Let the key of a map be the job's id if it can, else keep it in `meta`."""
    if values.get("id") is None and ids.complaint(key) is None:
        values["id"] = key
    elif isinstance(values.setdefault("meta", {}), dict):
        values["meta"] = {"key": key} | values["meta"]


def _place(shape: _Shape, piece: _Piece, path: str) -> tuple[int, int]:
    """Where a field stands, whatever key it was said with."""
    for key, assigned in shape.assigned:
        if assigned == path:
            return piece.place(key)
    return piece.place(path)


def _pieces(file: str, document: str) -> Iterator[_Piece | Problem]:
    """The jobs of an array or map, cut out of its text one after another."""
    at = _after_blanks(document, 0)
    if document[at : at + 1] not in ("[", "{"):
        what = "expected an array of jobs, or a map from names to jobs" if document.strip() else "the manifest is empty"
        yield Problem(file, 1, 1, what, 'write [{"prompt": "..."}]')
        return
    line, counted = 1, 0
    keys: set[str] = set()
    try:
        for key, start, end in _members(document, at, alone=True):
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
            yield _Piece(*place, document[start:end], key)
    except RecursionError:
        yield Problem(file, line, 0, "not valid JSON: nested too deep")
    except json.JSONDecodeError as error:
        yield Problem(file, error.lineno, error.colno, f"not valid JSON: {error.msg}", _jsonl_hint(document, error))


def _jsonl_hint(document: str, error: json.JSONDecodeError) -> str:
    lines = error.msg == "Extra data" and document.lstrip().startswith("{")
    return "one object a line is JSON Lines: call it .jsonl, or say --format jsonl" if lines else ""


# A number of any length is no error here: what it means is decided elsewhere.
_decoder = json.JSONDecoder(parse_int=float)


def _members(document: str, at: int, *, alone: bool = False) -> Iterator[tuple[str | None, int, int]]:
    """Key, start and end of each value in the array or object that starts at `at`; `alone`: nothing may follow it.

    Raises JSONDecodeError, and RecursionError for what is nested too deep.
    """
    opening, closing = document[at], {"[": "]", "{": "}"}[document[at]]
    at = _after_blanks(document, at + 1)
    more = document[at : at + 1] != closing
    while more:
        key = None
        if opening == "{":
            if document[at : at + 1] != '"':
                raise json.JSONDecodeError("expected a key in double quotes", document, at)
            key, at = _decoder.raw_decode(document, at)
            at = _expect(document, at, ":")
        start = at
        _, at = _decoder.raw_decode(document, start)
        yield key, start, at
        at = _after_blanks(document, at)
        more = document[at : at + 1] != closing
        if more:
            at = _expect(document, at, ",")
    if alone and (rest := _after_blanks(document, at + 1)) < len(document):
        raise json.JSONDecodeError("Extra data", document, rest)


def _spots(document: str, at: int) -> dict[str, int]:
    """Where the values of the object at `at` start; nothing if there is no object."""
    at = _after_blanks(document, at)
    try:
        return {key: start for key, start, _ in _members(document, at) if key} if document[at] == "{" else {}
    except (json.JSONDecodeError, RecursionError):
        return {}


class _Twice(Exception):
    """A key that stands twice in one object."""


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))


_strict_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_int=float)


def _said_twice(document: str) -> tuple[str, int] | None:
    """A key that stands twice in an object, and where the second stands if that is the outermost object."""
    try:
        _strict_decoder.decode(document)
    except _Twice as twice:
        key = str(twice)
        spots = [start for name, start, _ in _members(document, _after_blanks(document, 0)) if name == key]
        return key, spots[1] if len(spots) > 1 else 0
    except RecursionError:  # told by the check of values
        pass
    return None


def _expect(document: str, at: int, char: str) -> int:
    at = _after_blanks(document, at)
    if document[at : at + 1] != char:
        raise json.JSONDecodeError(f"expected {char!r}", document, at)
    return _after_blanks(document, at + 1)


def _after_blanks(document: str, at: int) -> int:
    found = _BLANK.match(document, at)
    assert found
    return found.end()
