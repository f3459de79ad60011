"""The real command in a process that also tells how many asyncio tasks it has.

    python benchmarks/watched.py FILE ARGUMENT...

Everything else about a process can be read from /proc, but tasks are objects inside it, and a hook in batchgen would
serve nobody but this measurement. So only `asyncio.run` is replaced, by the same thing spelled out with the loop within
reach; from then on a plain timer (no task, no thread of its own) writes the count into FILE every second.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any

from batchgen import cli

EVERY_S = 1.0


def main() -> int:
    """Run the command with the arguments after FILE; its exit code."""
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)

    def count(loop: asyncio.AbstractEventLoop) -> None:
        # Always as many bytes at the same place: a reader never sees half a number.
        os.pwrite(file, b"%8d" % len(asyncio.all_tasks(loop)), 0)
        loop.call_later(EVERY_S, count, loop)

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner() as runner:
            runner.get_loop().call_soon(count, runner.get_loop())
            return runner.run(work)

    setattr(asyncio, "run", run)  # noqa: B010 - the name is another module's
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
