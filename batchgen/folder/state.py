"""What an output folder remembers beside its logs: a small file that each who writes there keeps. Values, read back."""

from __future__ import annotations

from typing import Annotated

import msgspec

from batchgen.folder.live import Live
from batchgen.joblog import BAD_LINE
from batchgen.layout import Books
from batchgen.world import Files

_WHOLE = Books()


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the folder remembers beside its log: whose pictures these are, and who is or was at work.

    `defaults` are the FIELD=VALUE defaults of the last run, without which its jobs would look like others; `format` is
    how its manifest was read; `logged` is how many jobs its logs knew, without those of shards beside it. `process`
    tells the process from later ones with its number. How the last run ended, also one that could not begin, is in
    `exit_code` and `verdict`.
    """

    manifest: str
    api: str = ""
    defaults: tuple[str, ...] = ()
    format: str = ""
    logged: int = 0
    run: str = ""
    pid: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    host: str = ""
    started_at: str = ""
    heartbeat_at: str = ""
    doing: str = ""
    process: str = ""
    live: Live | None = None
    exit_code: int | None = None
    verdict: str = ""


def read_state(files: Files, books: Books = _WHOLE) -> State | None:
    """The state of one who writes or wrote to the folder; None where there is none that can be read."""
    try:
        return msgspec.json.decode(files.read(books.state), type=State)
    except (OSError, *BAD_LINE):
        return None
