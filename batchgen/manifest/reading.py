"""What every reader of rows is told beside the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from batchgen.manifest.row import Row
from batchgen.model import Problem

Rows = Iterator[Row | Problem]
Note = Callable[[str], None]

MAX_WHOLE_BYTES = 8 << 20
"""How large a file may be that is read at once, not as a stream."""


def unheard(_: str) -> None:
    """Takes notes nobody asked for."""


@dataclass(frozen=True)
class Reading:
    """How one file is read.

    `file` is what problems call it. `columns` names for fields (`prompt`, `meta.kind`) the header or key that holds
    them. With `has_prompt` rows need not bring a prompt. `note` hears what was guessed.
    """

    file: str
    columns: Mapping[str, str] = field(default_factory=dict)
    has_prompt: bool = False
    note: Note = unheard
