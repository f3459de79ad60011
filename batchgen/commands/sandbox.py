"""batchgen sandbox: serve the stand-in for the image API."""

from __future__ import annotations

import argparse
from typing import Any

from batchgen.commands import common

ABOUT = """\
Serve a stand-in for the image API on 127.0.0.1 until interrupted: real HTTP, real pictures, faults on demand. It speaks
Nebula Block's shape below /api/v1 and the OpenAI-compatible one below /v1; the key of both is sandbox-key.

  batchgen sandbox --port 8080 --latency 0.5-2 --fail 503:0.05
  NEBULA_API_URL=http://127.0.0.1:8080/api/v1 NEBULA_API_KEY=sandbox-key batchgen run jobs/demo.yaml --api nebula
  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=sandbox-key batchgen run jobs/demo.yaml --api openai

--fail takes KIND:PROBABILITY or KIND:xN (the first N requests). KIND is an HTTP status or one of: reset, hang, quota,
balance, refuse, failed200, disconnect, slow, truncate, badjson, badbase64, notimage, cutimage, empty, html, link,
deadlink."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8080, help="port on 127.0.0.1 (default 8080; 0 takes a free one)")
    parser.add_argument(
        "--latency",
        type=common.span,
        default=(0.02, 0.1),
        metavar="FROM-TO",
        help="seconds a picture (default 0.02-0.1)",
    )
    parser.add_argument("--fail", action="append", default=[], metavar="KIND:PART", help="a fault (repeatable)")
    parser.add_argument("--rpm", type=common.count, metavar="N", help="refuse more requests a minute")
    parser.add_argument("--rpd", type=common.count, metavar="N", help="refuse more requests a day")
    parser.add_argument(
        "--format", choices=["png", "jpeg", "webp"], default="png", help="of the pictures (default png)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides which requests meet a fault (default 0)")


def act(arguments: argparse.Namespace) -> int:
    import asyncio

    from batchgen.model import UsageError
    from batchgen.sandbox import Script, parse_fault

    try:
        script = Script(
            latency_s=arguments.latency,
            faults=tuple(map(parse_fault, arguments.fail)),
            requests_per_minute=arguments.rpm,
            requests_per_day=arguments.rpd,
            output_format=arguments.format,
            seed=arguments.seed,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    asyncio.run(_serve(script, arguments.port))
    return 0


async def _serve(script: Any, port: int) -> None:
    import asyncio
    import signal

    from batchgen.model import UsageError
    from batchgen.sandbox import Sandbox

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with Sandbox(script, port=port) as sandbox:
            common.tell(f"NEBULA_API_URL={sandbox.url}\nOPENAI_BASE_URL={sandbox.openai_url}")
            await stop.wait()
    except (OSError, OverflowError) as error:
        raise UsageError(f"port {port} cannot be used: {getattr(error, 'strerror', error)}") from error
