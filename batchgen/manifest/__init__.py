"""Manifests: text in, jobs out, with every problem at its place. This file is the whole interface.

`read` knows the formats and yields rows, `jobs` turns rows into jobs and knows no format; `survey` counts where there
are too many to build them all. Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import PurePath

from batchgen.manifest import document, tables
from batchgen.manifest.document import Document
from batchgen.manifest.fields import FIELDS, LIMITS, Complaint, Field, check_each, nearest, overrides
from batchgen.manifest.jobs import Rules, Tally, canonical, fingerprint, jobs, survey
from batchgen.manifest.row import Row
from batchgen.model import Header

__all__ = [
    "FIELDS",
    "LIMITS",
    "Complaint",
    "Document",
    "Field",
    "Format",
    "Row",
    "Rules",
    "Tally",
    "canonical",
    "check_each",
    "fingerprint",
    "format_of",
    "jobs",
    "nearest",
    "overrides",
    "read",
    "survey",
]


class Format(StrEnum):
    """How a manifest is written."""

    YAML = "yaml"
    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    TXT = "txt"


_SUFFIXES = {f".{format}": format for format in Format} | {".yml": Format.YAML, ".ndjson": Format.JSONL}
_TABLES: dict[Format, Callable[[str, Iterable[bytes]], tables.Rows]] = {
    Format.CSV: tables.csv_rows,
    Format.TSV: tables.tsv_rows,
    Format.JSONL: tables.jsonl_rows,
    Format.TXT: tables.txt_rows,
}


def format_of(name: str) -> Format | None:
    """The format that a file's suffix tells, whatever its case; None for any other suffix."""
    return _SUFFIXES.get(PurePath(name).suffix.lower())


def read(name: str, format: Format, lines: Iterable[bytes]) -> Document:
    """The manifest in `lines` (as a binary file yields them); `name` is what problems call it.

    Tables are lazy: nothing is read before `rows` is iterated, once, and their problems come among the rows. YAML is
    read at once, and mistakes in its header or syntax raise ManifestError with all problems that can be known.
    """
    if format is Format.YAML:
        return document.read(name, lines)
    return Document(Header(), _TABLES[format](name, lines))
