"""The output folder: what is in it, what earlier runs left there, and the one process that may write to it.

Knows in which order things become durable. Knows nothing of requests, retries or the manifest.
"""

from batchgen.folder.live import Live, Pause
from batchgen.folder.lock import alone, locked, only_one
from batchgen.folder.records import Records, known_books
from batchgen.folder.spending import Spending
from batchgen.folder.state import State, read_state
from batchgen.folder.writable import Folder

__all__ = [
    "Folder",
    "Live",
    "Pause",
    "Records",
    "Spending",
    "State",
    "alone",
    "known_books",
    "locked",
    "only_one",
    "read_state",
]
