"""The output folder: what is in it, what earlier runs left there, and the one process that may write to it.

Knows in which order things become durable. Knows nothing of requests, retries or the manifest.
"""

from batchgen.folder.lock import alone, locked
from batchgen.folder.records import Records, State, read_state
from batchgen.folder.spending import Spending
from batchgen.folder.writable import Folder

__all__ = ["Folder", "Records", "Spending", "State", "alone", "locked", "read_state"]
