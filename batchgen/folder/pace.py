"""The file that tells how the pace of runs changed, read: nothing depends on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from batchgen.joblog import BAD_LINE, PaceNote, decode_pace
from batchgen.layout import PACE
from batchgen.world import Files


def read_pace(files: Files) -> Iterator[PaceNote]:
    """All changes that were noted; lines that cannot be read are left out."""
    try:
        data = files.read(PACE)
    except OSError:
        return
    for line in data.splitlines():
        with contextlib.suppress(*BAD_LINE):
            yield decode_pace(line)
