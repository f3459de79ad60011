"""The lines of the two files that are the truth: the job log (finished jobs) and the attempts file (what was sent).

Nothing here opens a file: readers hand in lines with their offsets. Folding ignores order, so files may be
concatenated; only what takes back an intent must follow it.
"""

from batchgen.joblog.draft import Draft, Saved, timestamp
from batchgen.joblog.fold import Fold, Lives, Row, key
from batchgen.joblog.history import Earlier, History
from batchgen.joblog.lines import (
    BAD_LINE,
    Ended,
    Intent,
    Note,
    Prepared,
    Seen,
    SeenAttempt,
    SeenPicture,
    Withdrawn,
    decode,
    decode_note,
    decode_seen,
    encode,
    prepared,
)
from batchgen.joblog.pace import PaceNote, decode_pace
from batchgen.joblog.recent import Rate, Trouble, in_flight, moment, rate, troubles

__all__ = [
    "BAD_LINE",
    "Draft",
    "Earlier",
    "Ended",
    "Fold",
    "History",
    "Intent",
    "Lives",
    "Note",
    "PaceNote",
    "Prepared",
    "Rate",
    "Row",
    "Saved",
    "Seen",
    "SeenAttempt",
    "SeenPicture",
    "Trouble",
    "Withdrawn",
    "decode",
    "decode_note",
    "decode_pace",
    "decode_seen",
    "encode",
    "in_flight",
    "key",
    "moment",
    "prepared",
    "rate",
    "timestamp",
    "troubles",
]
