"""Manifests: text in, jobs out, with every problem at its place. This file is the whole interface.

`read` knows the formats and yields rows, `jobs` turns rows into jobs and knows no format; `survey` counts where there
are too many to build them all. Nothing here opens a file.
"""

from __future__ import annotations

from batchgen.manifest.document import Document
from batchgen.manifest.fields import (
    EXPANDING,
    FIELDS,
    LIMITS,
    SWITCHES,
    Complaint,
    Field,
    check_each,
    nearest,
    nearest_limit,
    overrides,
)
from batchgen.manifest.formats import Format, format_of
from batchgen.manifest.include import Include
from batchgen.manifest.jobs import Rules, Tally, canonical, fingerprint, jobs, survey
from batchgen.manifest.mistakes import SHOWN_ALIKE, Mistakes
from batchgen.manifest.readers import included, read
from batchgen.manifest.row import Row

__all__ = [
    "EXPANDING",
    "FIELDS",
    "LIMITS",
    "SHOWN_ALIKE",
    "SWITCHES",
    "Complaint",
    "Document",
    "Field",
    "Format",
    "Include",
    "Mistakes",
    "Row",
    "Rules",
    "Tally",
    "canonical",
    "check_each",
    "fingerprint",
    "format_of",
    "included",
    "jobs",
    "nearest",
    "nearest_limit",
    "overrides",
    "read",
    "survey",
]
