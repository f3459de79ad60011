"""batchgen turns a manifest of prompts into pictures, unattended.

From Python: `batchgen.run(path, **settings)` makes what is missing and returns the Summary, `await run_async(...)` does
so inside a running event loop, `read(path)` yields a manifest's jobs. Importing the package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "read", "run", "run_async"]

if TYPE_CHECKING:
    from batchgen.runner.program import read, run, run_async


def __getattr__(name: str) -> Any:
    if name in __all__:
        from batchgen.runner import program

        return getattr(program, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
