"""batchgen turns a manifest of prompts into pictures, unattended.

From Python: `batchgen.run(path, **settings)` makes what is missing and returns the Summary, `await run_async(...)` does
so inside a running event loop, `read(path)` yields a manifest's jobs. All errors raised on purpose are BatchgenErrors.
Importing the package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["BatchgenError", "ManifestError", "__version__", "read", "run", "run_async"]

if TYPE_CHECKING:
    from batchgen.model import BatchgenError, ManifestError
    from batchgen.runner.program import read, run, run_async

_HOMES = {
    **dict.fromkeys(("BatchgenError", "ManifestError"), "batchgen.model"),
    **dict.fromkeys(("read", "run", "run_async"), "batchgen.runner.program"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
