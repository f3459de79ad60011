"""Which reader reads which format, for manifests and for the files that they name. Opens none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from batchgen.manifest import document
from batchgen.manifest.document import Document
from batchgen.manifest.formats import Format
from batchgen.manifest.include import Include, Open, refused
from batchgen.manifest.objects import json_rows, jsonl_rows
from batchgen.manifest.prompts import txt_rows
from batchgen.manifest.reading import Note, Reading, Rows, unheard
from batchgen.manifest.row import Row
from batchgen.manifest.tables import csv_rows, tsv_rows
from batchgen.model import Header, ManifestError, Problem

_READERS: dict[Format, Callable[[Reading, Iterable[bytes]], Rows]] = {
    Format.CSV: csv_rows,
    Format.TSV: tsv_rows,
    Format.JSONL: jsonl_rows,
    Format.JSON: json_rows,
    Format.TXT: txt_rows,
}


def read(
    name: str, format: Format, lines: Iterable[bytes], *, include: Open = refused, note: Note = unheard
) -> Document:
    """The manifest in `lines` (as a binary file yields them); `name` is what problems call it.

    Tables are lazy: nothing is read before `rows` is iterated, once, and their problems come among the rows. YAML is
    read at once, and mistakes in its header or syntax raise ManifestError with all problems that can be known; its
    rows may be iterated again and again, and `include` yields those of its `from` entries. `note` hears what a reader
    had to guess, perhaps more than once.
    """
    if format is Format.YAML:
        return document.read(name, lines, include)
    return Document(Header(), _READERS[format](Reading(name, note=note), lines))


def included(include: Include, name: str, lines: Iterable[bytes], note: Note = unheard) -> Iterator[Row | Problem]:
    """The rows of the file of a `from` entry, called `name`, with what stands beside `from`."""
    for row in _rows(include, name, lines, note):
        if isinstance(row, Problem):
            yield row
            continue
        if "prompt" in include.beside and "prompt" in row.values:
            note(f"{name}: its own prompts win over the prompt beside 'from'")
        yield include.row(row)


def _rows(include: Include, name: str, lines: Iterable[bytes], note: Note) -> Rows:
    if include.format is not Format.YAML:
        yield from _READERS[include.format](Reading(name, include.columns, include.has_prompt, note), lines)
        return
    try:
        found = document.read(name, lines, refused)
    except ManifestError as error:
        yield from error.problems
        return
    if found.header != Header():
        what = "'from' reads only the jobs of a file, not its api, limits, prices_usd and defaults"
        yield Problem(name, 1, 1, what, "move them into the manifest, or beside 'from'")
    else:
        yield from found.rows
