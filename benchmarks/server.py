"""The sandbox in a process of its own, with an account that does not run empty; tells its books when it is ended.

    python benchmarks/server.py SHORTEST_S LONGEST_S [FAULT...]

The first line on standard output is the API's address, the second one, after SIGTERM, the ledger as JSON. This is what
`batchgen sandbox` serves, but that one sells for 100 US dollars at most and keeps its books to itself.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from batchgen.sandbox import Sandbox, Script, parse_fault


async def serve(script: Script) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Sandbox(script) as sandbox:
        print(sandbox.url, flush=True)
        await stop.wait()
        books = sandbox.ledger
        told = {
            "requests": books.requests,
            "pictures": books.pictures,
            "highest_in_flight": books.highest_in_flight,
            "faults": books.faults,
        }
        print(json.dumps(told), flush=True)


def main() -> None:
    """Read the arguments and serve."""
    shortest_s, longest_s = map(float, sys.argv[1:3])
    faults = tuple(map(parse_fault, sys.argv[3:]))
    asyncio.run(serve(Script(latency_s=(shortest_s, longest_s), faults=faults, balance_usd=1e9)))


if __name__ == "__main__":
    main()
