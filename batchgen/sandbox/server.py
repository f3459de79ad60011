"""The sandbox itself: the image API's endpoints over real HTTP on 127.0.0.1, in two shapes, with scripted faults.

Bodies come from `shapes`, pictures from `drawing`, misfortune from `script`; here is only the serving.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from aiohttp import web

from batchgen.protocol import Drawn, nebula, openai
from batchgen.sandbox.catalog import IMAGE_PRICES_USD, MODELS
from batchgen.sandbox.drawing import draw_all
from batchgen.sandbox.faults import BALANCE_MESSAGE, QUOTA_MESSAGE, answer, refusal
from batchgen.sandbox.ledger import Ledger, Limits, digest
from batchgen.sandbox.orders import Refused, read_order
from batchgen.sandbox.script import Fate, Script
from batchgen.sandbox.shapes import NEBULA, OPENAI, Error, Reply, Shape, shape_of

HOST = "127.0.0.1"
FILES_PATH = "/files/{name}"
MAX_BODY_BYTES = 64 * 1024 * 1024
DRAWING_THREADS = 2
TRICKLED_PIECES = 20
KEPT_FILES = 200
# Requests that are still running when the sandbox closes get this long, twice; zero would mean forever to aiohttp.
SHUTDOWN_S = 0.1
HANG_CHECK_S = 0.05

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Sandbox:
    """The stand-in API, running while the `async with` block runs.

    >>> async with Sandbox(Script(faults=(parse_fault("503:0.1"),))) as sandbox:  # doctest: +SKIP
    ...     print(sandbox.url)
    http://127.0.0.1:40123/api/v1

    `url` is where Nebula Block's shape is spoken, `openai_url` where the OpenAI-compatible one is; keys, limits, money
    and faults are the same for both.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        port: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
        utc: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.script = script or Script()
        self.ledger = Ledger(self.script.balance_usd)
        self.url = self.openai_url = ""
        self._files: dict[str, bytes] = {}
        self._port, self._monotonic, self._utc = port, monotonic, utc
        self._fate, self._limits = Fate(self.script), Limits(self.script)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_post(NEBULA.base + nebula.GENERATE_PATH, self._generate)
        app.router.add_get(NEBULA.base + nebula.MODELS_PATH, self._models)
        app.router.add_get(NEBULA.base + nebula.CREDITS_PATH, self._credits)
        app.router.add_post(OPENAI.base + openai.GENERATE_PATH, self._generate)
        app.router.add_post(OPENAI.base + openai.EDIT_PATH, self._generate)
        app.router.add_get(OPENAI.base + openai.MODELS_PATH, self._listed)
        app.router.add_get(FILES_PATH, self._file)
        self._artists = ThreadPoolExecutor(DRAWING_THREADS, thread_name_prefix="sandbox")
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, HOST, self._port, backlog=1024).start()
        except BaseException:
            await self._close()
            raise
        root = f"http://{HOST}:{self._runner.addresses[0][1]}"
        self.url, self.openai_url = root + NEBULA.base, root + OPENAI.base
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._runner.cleanup()
        self._artists.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in who knows the key, and puts every refusal into the shape that is spoken there."""
        with self.ledger.request() if request.method == "POST" else nullcontext():
            try:
                # What lies at an address of its own is open to all who know it.
                closed = not request.path.startswith("/files/")
                if closed and request.headers.get("Authorization") != f"Bearer {self.script.key}":
                    raise Refused(Error(401, "Invalid or missing API key."))
                return await handler(request)
            except Refused as refused:
                why = refused.why
            except web.HTTPException as refused:
                why = Error(refused.status, refused.reason)
            shape = shape_of(request.path)
            reply = why if isinstance(why, Reply) else shape.error(why)
            self.ledger.refusals[reply.status] += 1
            return _response(reply, self._told(shape))

    def _told(self, shape: Shape) -> dict[str, str]:
        return self._limits.told(self._monotonic()) if shape.tells_limits else {}

    async def _models(self, request: web.Request) -> web.Response:
        return _response(Reply(200, nebula.encode_models(MODELS.values())))

    async def _listed(self, request: web.Request) -> web.Response:
        return _response(Reply(200, openai.encode_models(MODELS)))

    async def _credits(self, request: web.Request) -> web.Response:
        return _response(Reply(200, nebula.encode_credits(self.ledger.balance_usd)))

    async def _file(self, request: web.Request) -> web.Response:
        if (data := self._files.get(request.match_info["name"])) is None:
            raise Refused(Error(404, "There is no such file."))
        return _response(Reply(200, data, "application/octet-stream"))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self._limit()
        fault = self._fate.next_fault()
        if fault:
            self.ledger.faults[fault] += 1
            if reply := refusal(fault):
                raise Refused(reply)
        if fault == "hang":
            return await _hang(request)
        if fault == "reset":
            return _hang_up(request, reset=True)
        reply = await self._sold(request, body, fault)
        if fault == "disconnect":
            return _hang_up(request)
        if fault == "truncate":
            return await _truncate(request, reply)
        if fault == "slow":
            return await _trickle(request, reply, self.script.trickle_s)
        return _response(reply, self._told(shape_of(request.path)))

    def _limit(self) -> None:
        """Counts the request against the day and the minute, or refuses it."""
        now = self._monotonic()
        if self._limits.day_is_spent(self._utc().date()):
            raise Refused(Error(429, QUOTA_MESSAGE, "quota_exceeded"))
        if wait_s := self._limits.wait_s(now):
            raise Refused(Error(429, "Too many requests.", "rate_limit_exceeded", headers={"Retry-After": str(wait_s)}))
        self._limits.count(now)

    async def _sold(self, request: web.Request, body: bytes, fault: str | None) -> Reply:
        """Draws what `body` asks for, takes the money, and writes the answer."""
        work = asyncio.get_running_loop().run_in_executor
        latency_s = self._fate.next_latency_s()
        shape, kind = shape_of(request.path), request.headers.get("Content-Type", "")
        order = await work(self._artists, read_order, lambda: shape.read(kind, body), self.script.output_format)
        price_usd = IMAGE_PRICES_USD[order.model] * order.count
        if self.ledger.balance_usd < price_usd:
            raise Refused(Error(402, BALANCE_MESSAGE, "insufficient_balance"))
        started = self._monotonic()
        await asyncio.sleep(latency_s + self.script.step_s * (order.num_steps or 0))
        pictures = await work(self._artists, draw_all, order)
        self.ledger.sell(body, order.prompt, price_usd)
        if order.as_link or fault in ("link", "deadlink"):
            links = [self._keep(data, lost=fault == "deadlink") for data in pictures]
            return Reply(200, shape.answer(order.model, links))
        seconds = round(self._monotonic() - started, 4)
        drawn = [Drawn(data, index, seconds) for index, data in enumerate(pictures)]
        return answer(lambda found: shape.answer(order.model, found), drawn, fault)

    def _keep(self, data: bytes, *, lost: bool) -> str:
        """Where the picture lies from now on, until many others have come after it."""
        name = f"{digest(data)[:32]}.{self.script.output_format}"
        if not lost:
            self._files[name] = data
            if len(self._files) > KEPT_FILES:
                del self._files[next(iter(self._files))]
        return self.openai_url.removesuffix(OPENAI.base) + FILES_PATH.format(name=name)


def _response(reply: Reply, told: Mapping[str, str] | None = None) -> web.Response:
    headers = {**reply.headers, **(told or {})}
    return web.Response(body=reply.body, status=reply.status, content_type=reply.content_type, headers=headers or None)


def _hang_up(request: web.Request, *, reset: bool = False) -> web.Response:
    """Closes the connection without an answer; what is returned reaches nobody."""
    if transport := request.transport:
        if reset:
            # To linger for no time at all makes closing send RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        transport.close()
    return web.Response()


async def _hang(request: web.Request) -> web.Response:
    # aiohttp has no event for a client that leaves.
    while request.transport and not request.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(HANG_CHECK_S)
    return web.Response()


async def _begun(request: web.Request, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": reply.content_type})
    response.content_length = len(reply.body)
    await response.prepare(request)
    return response


async def _truncate(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Announces the whole answer, sends half of it and closes."""
    response = await _begun(request, reply)
    await response.write(reply.body[: len(reply.body) // 2])
    _hang_up(request)
    return response


async def _trickle(request: web.Request, reply: Reply, duration_s: float) -> web.StreamResponse:
    response = await _begun(request, reply)
    piece = -(-len(reply.body) // TRICKLED_PIECES)
    for start in range(0, len(reply.body), piece):
        await response.write(reply.body[start : start + piece])
        await asyncio.sleep(duration_s / TRICKLED_PIECES)
    return response
