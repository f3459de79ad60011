"""An image API on 127.0.0.1 that misbehaves where a polite HTTP library would not, and keeps the books.

A scenario looks at each generation request and returns what is done to it, an `Act`: an async function that has the
raw connection in its hands. The ledger tells for every request its order, prompt, time, and whether it was PAID, which
means that a picture was generated, whatever became of the answer.

    async with FaultServer(nth(3, hang_up())) as server:
        ...                                    # server.url, server.ledger

In a process of its own: `python tests/faultserver.py --latency 0.05 --outage reset:@2-4 --ledger FILE`; prints its URL.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import functools
import gzip
import hashlib
import io
import json
import signal
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

MODEL = "black-forest-labs/FLUX.1-schnell"
BASE_PATH = "/api/v1"
HTML = b"<html><head><title>502</title></head><body><h1>Bad Gateway</h1></body></html>"
JSON_TYPE = ("Content-Type", "application/json")
Headers = Sequence[tuple[str, str]]


@functools.lru_cache(maxsize=4096)
def picture(prompt: str, format: str = "PNG", size: int = 16) -> bytes:
    """A small real picture, another one for each prompt."""
    colour = tuple(hashlib.sha256(prompt.encode("utf-8", "replace")).digest()[:3])
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, format)
    return file.getvalue()


def answer_body(*pictures: bytes | str, **changes: Any) -> bytes:
    """The documented success answer; text stands for itself where base64 would be."""
    data = [
        {
            "timings": {"inference": 1.25},
            "index": index,
            "b64_json": data if isinstance(data, str) else base64.b64encode(data).decode(),
        }
        for index, data in enumerate(pictures)
    ]
    whole = {"model": MODEL, "object": "list", "data": data, "message": "Image generated successfully"}
    return json.dumps(whole | {"status": "success"} | changes).encode()


@dataclass
class Seen:
    """One generation request; `number` counts from 1, `n` counts the requests with this prompt."""

    number: int
    n: int
    prompt: str
    at_s: float
    connection: int
    authorization: str
    headers: dict[str, str] = field(default_factory=dict)
    paid: bool = False


@dataclass
class Ledger:
    """What the server has seen and sold. With a file, every change is a line there at once."""

    requests: list[Seen] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    pings: int = 0
    others: list[str] = field(default_factory=list)
    path: Path | None = None

    @property
    def posts(self) -> int:
        return len(self.requests)

    @property
    def by_prompt(self) -> Counter[str]:
        """How many requests came for each prompt."""
        return Counter(seen.prompt for seen in self.requests)

    @property
    def paid(self) -> Counter[str]:
        """How many pictures were generated for each prompt."""
        return Counter(seen.prompt for seen in self.requests if seen.paid)

    def pay(self, seen: Seen) -> None:
        seen.paid = True
        self.write("paid", seen)

    def write(self, what: str, seen: Seen) -> None:
        if self.path:
            facts = asdict(seen)
            del facts["authorization"], facts["headers"]
            with self.path.open("a") as file:
                file.write(json.dumps({"what": what, **facts}) + "\n")


class Exchange:
    """One request and the connection that it came on."""

    def __init__(self, server: FaultServer, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.server, self.seen, self._writer = server, seen, writer
        self.keep_alive = True

    def pay(self) -> None:
        self.server.ledger.pay(self.seen)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers)]
        await self.write("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape"))

    async def reply(self, status: int, body: bytes, headers: Headers = ()) -> None:
        length = (
            ()
            if any(name.lower() == "content-length" for name, _ in headers)
            else (("Content-Length", str(len(body))),)
        )
        await self.head(status, [*headers, *length])
        await self.write(body)

    def reset(self) -> None:
        """Close with RST instead of FIN: to linger for no time at all."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.keep_alive = False

    def close(self) -> None:
        self._writer.close()
        self.keep_alive = False


Act = Callable[[Exchange], Awaitable[None]]
Scenario = Callable[[Seen], Act]

# What can be done to a request


def act(work: Callable[[Exchange], Awaitable[None]], *, after_s: float = 0.0, paid: bool = False) -> Act:
    """Draw for `after_s`, take the money if `paid`, then do `work`."""

    async def do(exchange: Exchange) -> None:
        if after_s:
            await asyncio.sleep(after_s)
        if paid:
            exchange.pay()
        await work(exchange)

    return do


def ok(after_s: float = 0.0, **changes: Any) -> Act:
    """A good answer with the prompt's own picture."""
    return act(
        lambda x: x.reply(200, answer_body(picture(x.seen.prompt), **changes), [JSON_TYPE]), after_s=after_s, paid=True
    )


def body(data: bytes | Callable[[Exchange], bytes], headers: Headers = (JSON_TYPE,), *, after_s: float = 0.0) -> Act:
    """Any body with status 200, paid for."""
    return act(
        lambda x: x.reply(200, data if isinstance(data, bytes) else data(x), headers), after_s=after_s, paid=True
    )


def status(code: int, data: bytes = b"", headers: Headers = (), *, after_s: float = 0.0) -> Act:
    """A refusal: nothing is paid."""
    return act(lambda x: x.reply(code, data, headers), after_s=after_s)


def hang_up(after_s: float = 0.0) -> Act:
    """Close without a byte; the picture was generated."""

    async def work(exchange: Exchange) -> None:
        exchange.close()

    return act(work, after_s=after_s, paid=True)


def reset(*, after_headers: bool = True, after_s: float = 0.0) -> Act:
    """RST, after the headers of a good answer or instead of them."""

    async def work(exchange: Exchange) -> None:
        if after_headers:
            await exchange.head(200, [JSON_TYPE, ("Content-Length", "1000")])
            await asyncio.sleep(0.02)
        exchange.reset()

    return act(work, after_s=after_s, paid=True)


def silence() -> Act:
    """Never answer."""

    async def work(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    return act(work, paid=True)


def trickle(every_s: float) -> Act:
    """A byte now and then, for ever."""

    async def work(exchange: Exchange) -> None:
        await exchange.head(200, [JSON_TYPE, ("Content-Length", "1000000")])
        while True:
            await exchange.write(b" ")
            await asyncio.sleep(every_s)

    return act(work, paid=True)


def endless_continue(every_s: float = 0.01) -> Act:
    """100 Continue, for ever."""

    async def work(exchange: Exchange) -> None:
        while True:
            await exchange.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(every_s)

    return act(work, paid=True)


def cut_short(missing: int = 10) -> Act:
    """A Content-Length that is longer than the body, then FIN."""

    async def work(exchange: Exchange) -> None:
        whole = answer_body(picture(exchange.seen.prompt))
        await exchange.reply(200, whole[:-missing], [JSON_TYPE, ("Content-Length", str(len(whole)))])
        exchange.close()

    return act(work, paid=True)


def chunked(*, whole: bool) -> Act:
    """A chunked answer, to its end or broken off in the middle."""

    async def work(exchange: Exchange) -> None:
        data = answer_body(picture(exchange.seen.prompt))
        half = len(data) // 2
        await exchange.head(200, [JSON_TYPE, ("Transfer-Encoding", "chunked")])
        await exchange.write(f"{half:x}\r\n".encode() + data[:half] + b"\r\n")
        if whole:
            await exchange.write(f"{len(data) - half:x}\r\n".encode() + data[half:] + b"\r\n0\r\n\r\n")
        else:
            exchange.close()

    return act(work, paid=True)


def and_fin(data: bytes) -> Act:
    """A body of the exact length, and the connection is closed in the same breath."""

    async def work(exchange: Exchange) -> None:
        await exchange.reply(200, data, [JSON_TYPE, ("Connection", "close")])
        exchange.close()

    return act(work, paid=True)


def endless(code: int = 200, chunk: bytes = b" " * 65536) -> Act:
    """A body without length and end."""

    async def work(exchange: Exchange) -> None:
        await exchange.head(code, [JSON_TYPE, ("Connection", "close")])
        while True:
            await exchange.write(chunk)

    return act(work, paid=code == 200)


def gzip_bomb(layers: int = 1, mebibytes: int = 80) -> Act:
    """Many MiB of blanks in a few hundred kB."""
    return body(_bomb(layers, mebibytes), [JSON_TYPE, ("Content-Encoding", ", ".join(["gzip"] * layers))])


@functools.cache
def _bomb(layers: int, mebibytes: int) -> bytes:
    data = gzip.compress(b" " * (mebibytes << 20), 1)
    for _ in range(layers - 1):
        data = gzip.compress(data)
    return data


def ok_then_close(idle_s: float) -> Act:
    """A good answer that promises to keep the connection, which is closed a little later."""

    async def work(exchange: Exchange) -> None:
        await exchange.reply(200, answer_body(picture(exchange.seen.prompt)), [JSON_TYPE, ("Connection", "keep-alive")])
        await asyncio.sleep(idle_s)
        exchange.close()

    return act(work, paid=True)


# Which request meets what


def always(fate: Act) -> Scenario:
    return lambda seen: fate


def nth(number: int, fate: Act, otherwise: Act | None = None) -> Scenario:
    """The `number`-th request of all."""
    return lambda seen: fate if seen.number == number else otherwise or ok()


def first(n: int, fate: Act, otherwise: Act | None = None) -> Scenario:
    return lambda seen: fate if seen.number <= n else otherwise or ok()


def after(n: int, fate: Act, otherwise: Act | None = None) -> Scenario:
    return lambda seen: fate if seen.number > n else otherwise or ok()


def on(prompt: str, fate: Act, otherwise: Act | None = None) -> Scenario:
    """Requests with this prompt."""
    return lambda seen: fate if seen.prompt == prompt else otherwise or ok()


def once(prompt: str, fate: Act) -> Scenario:
    """The first request with this prompt."""
    return lambda seen: fate if seen.prompt == prompt and seen.n == 1 else ok()


class FaultServer:
    """Serves a scenario on 127.0.0.1 while the `async with` block runs."""

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        ledger: Path | None = None,
        ping_status: int = 200,
    ) -> None:
        self.scenario = scenario or always(ok())
        self.ledger = Ledger(path=ledger)
        self.ping_status = ping_status
        self.url = ""
        self.port = port
        self._tls, self._connections = tls, 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def listen(self) -> None:
        """Take connections, on the same port as before if there was one."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self._tls, limit=1 << 26, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}{BASE_PATH}"

    def refuse(self) -> None:
        """Refuse new connections until `listen`."""
        if self._server:
            self._server.close()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._connections += 1
        try:
            # Connections break here on purpose, and clients leave when they have enough.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                while await self._one(reader, writer, self._connections):
                    pass
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
        data = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = line.split(" ", 2)
        if method != "POST" or path != BASE_PATH + "/images/generation":
            return await self._beside(method, path, writer)
        seen = self._seen(json.loads(data)["prompt"], connection, headers)
        exchange = Exchange(self, seen, writer)
        self.ledger.in_flight += 1
        self.ledger.most_in_flight = max(self.ledger.most_in_flight, self.ledger.in_flight)
        try:
            await self.scenario(seen)(exchange)
        finally:
            self.ledger.in_flight -= 1
        return exchange.keep_alive

    def _seen(self, prompt: str, connection: int, headers: dict[str, str]) -> Seen:
        number, n = self.ledger.posts + 1, self.ledger.by_prompt[prompt] + 1
        seen = Seen(number, n, prompt, time.monotonic(), connection, headers.get("authorization", ""), headers)
        self.ledger.requests.append(seen)
        self.ledger.write("request", seen)
        return seen

    async def _beside(self, method: str, path: str, writer: asyncio.StreamWriter) -> bool:
        ping = method == "GET" and path == BASE_PATH + "/serverless/models"
        self.ledger.pings += ping
        if not ping:
            self.ledger.others.append(f"{method} {path}")
        data = b'{"data": {"models": []}, "message": "", "status": "success"}'
        code = self.ping_status if ping else 404
        writer.write(f"HTTP/1.1 {code} Whatever\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()
        return True


# A process of its own


@dataclass(frozen=True)
class Outage:
    """From when to when what happens: seconds since the start (`@2-4`) or request numbers (`#5-9`)."""

    kind: str
    by: str
    begin: float
    end: float

    @classmethod
    def parse(cls, text: str) -> Outage:
        kind, _, span = text.partition(":")
        begin, _, end = span[1:].partition("-")
        if kind not in (*FATES, "refuse") or span[:1] not in ("@", "#") or (kind == "refuse" and span[0] == "#"):
            raise argparse.ArgumentTypeError(f"{text!r} is not KIND:@FROM-TO (seconds) or KIND:#FROM-TO (requests)")
        return cls(kind, span[0], float(begin), float(end or "inf"))

    def holds(self, at_s: float, number: int) -> bool:
        return self.begin <= (at_s if self.by == "@" else number) < self.end


FATES: dict[str, Callable[[], Act]] = {
    "close": hang_up,
    "reset": lambda: reset(after_headers=False),
    "hang": silence,
    "truncate": cut_short,
    "garbage": lambda: body(b'{"data": [{"b64_json": "bm8="}], "status": "success"}'),
    "500": lambda: status(500, b'{"status": "failed", "message": "internal error"}', [JSON_TYPE]),
    "502": lambda: status(502, HTML),
    "503": lambda: status(503, HTML),
    "429": lambda: status(
        429, b'{"status": "failed", "message": "too many requests"}', [JSON_TYPE, ("Retry-After", "1")]
    ),
    "quota": lambda: status(429, b'{"status": "failed", "message": "daily limit reached"}', [JSON_TYPE]),
    "401": lambda: status(401, b'{"status": "failed", "message": "bad key"}', [JSON_TYPE]),
}


async def _serve(arguments: argparse.Namespace) -> None:
    began_s = time.monotonic()
    outages: list[Outage] = arguments.outage

    def scenario(seen: Seen) -> Act:
        for outage in outages:
            if outage.kind != "refuse" and outage.holds(seen.at_s - began_s, seen.number):
                return FATES[outage.kind]()
        return ok(arguments.latency)

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with FaultServer(scenario, port=arguments.port, ledger=arguments.ledger) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        switches = [asyncio.create_task(_refuse(server, outage)) for outage in outages if outage.kind == "refuse"]
        await stop.wait()
        for switch in switches:
            switch.cancel()


async def _refuse(server: FaultServer, outage: Outage) -> None:
    await asyncio.sleep(outage.begin)
    server.refuse()
    await asyncio.sleep(outage.end - outage.begin)
    await server.listen()


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description="An image API on 127.0.0.1 that misbehaves as told.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ledger", type=Path, help="a line for every request and every picture that was paid")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds a picture")
    parser.add_argument(
        "--outage",
        type=Outage.parse,
        action="append",
        default=[],
        help=f"KIND:@FROM-TO in seconds or KIND:#FROM-TO in requests; KIND is refuse, {', '.join(FATES)}",
    )
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
