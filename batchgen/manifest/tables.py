"""Lines of CSV and TSV -> rows, one at a time. No checking of values, nothing kept from row to row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple

from batchgen import text
from batchgen.manifest.columns import Columns, read_header
from batchgen.manifest.lines import LONE_CR, Lines
from batchgen.manifest.reading import Reading, Rows
from batchgen.manifest.row import Row

MAX_CELL_CHARS = 1 << 20
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SEPARATOR_LINE = re.compile(r'"?sep=([^"\w\r\n])"?[\r\n]*', re.IGNORECASE)


class _Record(NamedTuple):
    """One row of cells, where it starts, and the lines it was read from."""

    line: int
    cells: list[str]
    raw: list[str]


def csv_rows(reading: Reading, lines: Iterable[bytes]) -> Rows:
    """Cells with a header; quoted cells may hold line ends.

    The separator is what a first line `sep=;` names, else the one of comma, semicolon and tab that stands most often
    outside quotes in the first line that is not blank, in this order where they are equal.
    """
    if csv.field_size_limit() < MAX_CELL_CHARS:
        csv.field_size_limit(MAX_CELL_CHARS)
    source = Lines(reading.file, lines)
    decoded = iter(source)
    first = next(decoded, "")
    if said := _SEPARATOR_LINE.fullmatch(first):
        table = _Csv(source, decoded, line=1, separator=said[1])
    else:
        blank = []
        while first and not first.strip():
            blank.append(first)
            first = next(decoded, "")
        table = _Csv(source, chain(blank, [first] if first else [], decoded), line=0, separator=_separator(first))
    yield from _rows(table, reading)


def tsv_rows(reading: Reading, lines: Iterable[bytes]) -> Rows:
    """Tab-separated cells with a header; a quote is a character like any other."""
    return _rows(_Tsv(Lines(reading.file, lines)), reading)


def _separator(header: str) -> str:
    bare = re.sub('"[^"]*"?', "", header)
    return max(SEPARATORS, key=bare.count)


@dataclass
class _Csv:
    """A table whose cells may be quoted; `line` is how many lines have been given to the reader."""

    source: Lines
    lines: Iterable[str]
    line: int
    separator: str
    ragged_fix: str = "quote a cell that holds the separator"
    raw: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[_Record]:
        reader = csv.reader(self._recorded(), delimiter=self.separator, strict=True)
        while True:
            start = self.line + 1
            cells: list[str] = []
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.source.complain(start, 1, *_csv_complaint(str(error)))
            raw, self.raw = self.raw, []
            self.line += len(raw)
            yield _Record(start, cells, raw)

    def _recorded(self) -> Iterator[str]:
        for line in self.lines:
            self.raw.append(line)
            yield line

    def place(self, record: _Record, index: int) -> tuple[int, int]:
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
                elif char == self.separator and not quoted:
                    cell, at_start = cell + 1, True
        return line, column + 1


def _csv_complaint(message: str) -> tuple[str, str]:
    if "end of data" in message:
        return "a quoted cell that begins in this row is never closed", "close it with a double quote"
    if "expected after" in message:
        return "a closing quote is followed by more text", 'write a quote inside a quoted cell as ""'
    if "field limit" in message:
        return f"a cell is longer than {MAX_CELL_CHARS:,} characters", "look for a double quote that is never closed"
    if "new-line" in message:
        return LONE_CR
    return f"not valid CSV: {message}", ""


@dataclass
class _Tsv:
    """A table whose cells are whatever stands between tabs."""

    source: Lines
    separator: str = "\t"
    ragged_fix: str = ""

    def __iter__(self) -> Iterator[_Record]:
        for line in self.source:
            yield _Record(self.source.line, line.removesuffix("\n").removesuffix("\r").split("\t"), [line])

    def place(self, record: _Record, index: int) -> tuple[int, int]:
        return record.line, sum(len(cell) + 1 for cell in record.cells[:index]) + 1


def _rows(table: _Csv | _Tsv, reading: Reading) -> Rows:
    source = table.source
    columns: Columns | None = None
    for record in table:
        if source.problems:
            yield from source.taken()
            if columns is None:
                return
        elif not any(record.cells):
            continue
        elif columns is None:
            columns = _header(table, record, reading)
            yield from source.taken()
            if columns is None:
                return
        elif len(record.cells) > columns.count and any(record.cells[columns.count :]):
            what = f"{len(record.cells)} cells, but the header names {columns.count} columns"
            source.complain(*table.place(record, columns.count), what, table.ragged_fix)
            yield from source.taken()
        else:
            values, place = columns.values(record.cells), partial(_place, columns, record, table)
            yield Row(record.line, values, place, columns.variables(record.cells) if columns.others else {})


def _header(table: _Csv | _Tsv, record: _Record, reading: Reading) -> Columns | None:
    """What the columns are; None, and complaints, if the header does not say so clearly."""
    columns, wrong = read_header(record.cells, reading, decimal_comma=table.separator == ";")
    for index, what, fix in wrong:
        place = table.place(record, index) if index >= 0 else (record.line, 1)
        table.source.complain(*place, what, fix)
    if "prompt" not in columns.index and not reading.has_prompt and not wrong:
        others = [c for c in SEPARATORS if c in record.raw[0]] if columns.count == 1 else []
        words = SEPARATORS.get(table.separator, repr(table.separator))
        there = text.printable(", ".join(cell.strip() for cell in record.cells[: columns.count]), 200)
        fix = f"separate the columns by {words}, not by {others[0]!r}" if others else "call that of the prompts so"
        table.source.complain(record.line, 1, f"no column 'prompt'; there are: {there}", fix)
    return None if table.source.problems else columns


def _place(columns: Columns, record: _Record, table: _Csv | _Tsv, field: str) -> tuple[int, int]:
    return table.place(record, columns.index[field]) if field in columns.index else (record.line, 1)
