"""Pictures in an object store, all else in a local folder: `StoreFiles` is both in one; `objects` knows obstore."""

from batchgen.stores.files import StoreFiles
from batchgen.stores.mark import MARK, Mark, read_mark
from batchgen.stores.objects import Objects
from batchgen.stores.store import Store, owner, probe

__all__ = ["MARK", "Mark", "Objects", "Store", "StoreFiles", "owner", "probe", "read_mark"]
