"""A sandbox that sells nothing before it is told to: what a test does meanwhile needs no luck with time."""

from __future__ import annotations

import asyncio
import threading

from aiohttp import web

from batchgen.sandbox import Sandbox, Script
from batchgen.sandbox.shapes import Reply


class HeldSandbox(Sandbox):
    """Every order waits until `let_go` is called, from whatever thread."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self._free = threading.Event()

    def let_go(self) -> None:
        self._free.set()

    async def _sold(self, request: web.Request, body: bytes, fault: str | None) -> Reply:
        while not self._free.is_set():  # noqa: ASYNC110 - another thread's event
            await asyncio.sleep(0.005)
        return await super()._sold(request, body, fault)
