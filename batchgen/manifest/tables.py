"""Lines of CSV, TSV, JSONL and plain text -> rows, one at a time. No checking of values, nothing kept from row to row.

Lines come as bytes and end at line feeds only: prompts may hold the other characters that Python counts as line ends.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import msgspec

from batchgen.manifest.columns import Columns, read_header
from batchgen.manifest.row import Row
from batchgen.model import Problem

MAX_CELL_CHARS = 1 << 20

Rows = Iterator[Row | Problem]


_LONE_CR = ("a carriage return stands alone", "end lines with LF or CR LF")


def txt_rows(file: str, lines: Iterable[bytes]) -> Rows:
    """One prompt a line; blank lines are skipped."""
    source = _Lines(file, lines)
    for line in source:
        prompt = line.removesuffix("\n").removesuffix("\r")
        if source.problems:
            yield from source.taken()
        elif "\r" in prompt:
            yield Problem(file, source.line, prompt.index("\r") + 1, *_LONE_CR)
        elif prompt.strip():
            yield Row(source.line, {"prompt": prompt}, partial(_line_start, source.line))


def jsonl_rows(file: str, lines: Iterable[bytes]) -> Rows:
    """One JSON object a line; blank lines are skipped."""
    source = _Lines(file, lines)
    for line in source:
        if source.problems:
            yield from source.taken()
        elif line.strip():
            yield _json_row(file, source.line, line)


def _json_row(file: str, number: int, line: str) -> Row | Problem:
    try:
        values = msgspec.json.decode(line)
    except RecursionError:
        return Problem(file, number, 1, "not valid JSON: nested too deep")
    except msgspec.DecodeError as error:
        reason, _, byte = str(error).removeprefix("JSON is malformed: ").partition(" (byte ")
        column = len(line.encode()[: int(byte.rstrip(")") or 0)].decode(errors="ignore")) + 1
        return Problem(file, number, column, f"not valid JSON: {reason}", "write one job object a line")
    if not isinstance(values, dict):
        return Problem(file, number, 1, "expected a job object", 'write {"prompt": "..."}')
    return Row(number, values, partial(_line_start, number))


def _line_start(line: int, _: str) -> tuple[int, int]:
    return line, 1


def csv_rows(file: str, lines: Iterable[bytes]) -> Rows:
    """Comma-separated cells with a header; quoted cells may hold line ends."""
    if csv.field_size_limit() < MAX_CELL_CHARS:
        csv.field_size_limit(MAX_CELL_CHARS)
    source = _Lines(file, lines)
    return _rows(source, _csv_records(source), _csv_cell)


def tsv_rows(file: str, lines: Iterable[bytes]) -> Rows:
    """Tab-separated cells with a header; a quote is a character like any other."""
    source = _Lines(file, lines)
    return _rows(source, _tsv_records(source), _tsv_cell)


class _Lines:
    """Decodes lines and counts them; what cannot be decoded is replaced, and told in `problems`."""

    def __init__(self, file: str, lines: Iterable[bytes]) -> None:
        self.file = file
        self.lines = lines
        self.line = 0
        self.problems: list[Problem] = []

    def __iter__(self) -> Iterator[str]:
        for line in self.lines:
            self.line += 1
            if self.line == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                decoded = line.decode()
            except UnicodeDecodeError as error:
                decoded = line.decode(errors="replace")
                column = len(line[: error.start].decode()) + 1
                self.complain(
                    self.line, column, f"byte 0x{line[error.start]:02x} is not UTF-8", "save the file as UTF-8"
                )
            if "\0" in decoded:
                self.complain(self.line, decoded.index("\0") + 1, "a NUL character", "save the file as UTF-8 text")
                decoded = decoded.replace("\0", "\ufffd")
            yield decoded

    def complain(self, line: int, column: int, what: str, fix: str) -> None:
        self.problems.append(Problem(self.file, line, column, what, fix))

    def taken(self) -> list[Problem]:
        problems, self.problems = self.problems, []
        return problems


class _Record(NamedTuple):
    """One row of cells, where it starts, and the lines it was read from."""

    line: int
    cells: list[str]
    raw: list[str]


CellPlace = Callable[[_Record, int], tuple[int, int]]


def _csv_records(source: _Lines) -> Iterator[_Record]:
    raw: list[str] = []

    def recorded() -> Iterator[str]:
        for line in source:
            raw.append(line)
            yield line

    reader = csv.reader(recorded(), strict=True)
    while True:
        start = source.line + 1
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            source.complain(start, 1, *_csv_complaint(str(error)))
        yield _Record(start, cells, raw.copy())
        raw.clear()


def _csv_complaint(message: str) -> tuple[str, str]:
    if "end of data" in message:
        return "a quoted cell that begins in this row is never closed", "close it with a double quote"
    if "expected after" in message:
        return "a closing quote is followed by more text", 'write a quote inside a quoted cell as ""'
    if "field limit" in message:
        return f"a cell is longer than {MAX_CELL_CHARS:,} characters", "look for a double quote that is never closed"
    if "new-line" in message:
        return _LONE_CR
    return f"not valid CSV: {message}", ""


def _tsv_records(source: _Lines) -> Iterator[_Record]:
    for line in source:
        yield _Record(source.line, line.removesuffix("\n").removesuffix("\r").split("\t"), [line])


def _csv_cell(record: _Record, index: int) -> tuple[int, int]:
    cell, at_start, quotable, quoted = 0, True, False, False
    line, column = record.line, 1
    for line, raw in enumerate(record.raw, record.line):
        for column, char in enumerate(raw, 1):
            if at_start and cell == index:
                return line, column
            if at_start:
                quotable, at_start = char == '"', False
            if char == '"' and quotable:
                quoted = not quoted
            elif char == "," and not quoted:
                cell, at_start = cell + 1, True
    return line, column + 1


def _tsv_cell(record: _Record, index: int) -> tuple[int, int]:
    return record.line, sum(len(cell) + 1 for cell in record.cells[:index]) + 1


def _rows(source: _Lines, records: Iterator[_Record], cell_place: CellPlace) -> Rows:
    columns: Columns | None = None
    for record in records:
        if not source.problems and not any(record.cells):
            continue
        if columns is None and not source.problems:
            columns = _header(source, record, cell_place)
        elif columns is not None and len(record.cells) > columns.count and any(record.cells[columns.count :]):
            what = f"{len(record.cells)} cells, but the header names {columns.count} columns"
            fix = "quote a cell that holds the separator" if cell_place is _csv_cell else ""
            source.complain(*cell_place(record, columns.count), what, fix)
        elif columns is not None and not source.problems:
            yield Row(record.line, columns.values(record.cells), partial(_place, columns, record, cell_place))
        yield from source.taken()
        if columns is None:
            return


def _header(source: _Lines, record: _Record, cell_place: CellPlace) -> Columns | None:
    """What the columns are; None, and complaints, if the header does not say so clearly."""
    columns, complaints = read_header(record.cells)
    for index, what, fix in complaints:
        source.complain(*cell_place(record, index), what, fix)
    if "prompt" not in columns.index and not complaints:
        others = [c for c in ";\t," if c in record.raw[0]] if columns.count == 1 else []
        separator = "commas" if cell_place is _csv_cell else "tabs"
        fix = f"separate the columns by {separator}, not by {others[0]!r}" if others else "name it in the first row"
        source.complain(record.line, 1, "no column 'prompt'", fix)
    return None if source.problems else columns


def _place(columns: Columns, record: _Record, cell_place: CellPlace, field: str) -> tuple[int, int]:
    return cell_place(record, columns.index[field]) if field in columns.index else (record.line, 1)
