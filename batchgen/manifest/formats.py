"""How manifests are written, and what their names tell of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath


class Format(StrEnum):
    """How a manifest is written."""

    YAML = "yaml"
    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    JSON = "json"
    TXT = "txt"


_SUFFIXES = {f".{format}": format for format in Format} | {".yml": Format.YAML, ".ndjson": Format.JSONL}


def format_of(name: str) -> Format | None:
    """The format that a file's suffix tells, whatever its case; None for any other suffix."""
    return _SUFFIXES.get(PurePath(name).suffix.lower())
