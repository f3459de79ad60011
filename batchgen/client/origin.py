"""The way to one server: looking up its name, connecting, and using connections again. Sends what it is given."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
import threading
from collections import deque
from functools import cached_property
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from batchgen.client.connection import SCRATCH_BYTES, Connection

# A socket that idled may be closed by the server at the very moment it is used again, and the outcome is unknown then.
KEEPALIVE_S = 4.0
LOOK_UP_AGAIN_S = 10.0
_NEXT_FAMILY_S = 0.25


class Origin:
    """Scheme, host and port of a URL, with the connections that lead there."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self.host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self.address = f"{self.host}:{self._port}"
        self._idle: deque[tuple[float, Connection]] = deque()
        self._open: set[Connection] = set()
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._found: asyncio.Future[list[AddrInfoType]] | None = None
        self._found_s = 0.0

    def close(self) -> None:
        for connection in self._open:
            connection.close()

    async def connection(self, timeout_s: float) -> Connection:
        """A connection that was busy a moment ago, or a new one. Raises OSError where there is none in time."""
        trusted_s = asyncio.get_running_loop().time() - KEEPALIVE_S
        while self._idle and self._idle[0][0] < trusted_s:
            self._drop(self._idle.popleft()[1])
        while self._idle:
            connection = self._idle.pop()[1]
            if not connection.closed:
                return connection
            self._drop(connection)
        async with asyncio.timeout(timeout_s):
            connection = await self._connect()
        self._open.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """The connection has nothing to do at the moment, or is closed."""
        if connection.closed:
            self._drop(connection)
        else:
            self._idle.append((asyncio.get_running_loop().time(), connection))

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._open.discard(connection)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        chosen = await start_connection(
            await self.addresses(), happy_eyeballs_delay=_NEXT_FAMILY_S, interleave=1, loop=loop
        )
        _, connection = await loop.create_connection(
            lambda: Connection(self._scratch),
            sock=chosen,
            ssl=self._context if self._tls else None,
            server_hostname=self.host if self._tls else None,
        )
        if connection.closed:  # TLS may tell of both in one breath
            raise ConnectionResetError(errno.ECONNRESET, "the server closed the new connection at once")
        return connection

    @cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def addresses(self) -> list[AddrInfoType]:
        """Where the host is; one look-up serves all who connect at about the same time."""
        now_s = asyncio.get_running_loop().time()
        if self._found is None or (self._found.done() and now_s - self._found_s > LOOK_UP_AGAIN_S):
            self._found, self._found_s = _look_up(self.host, self._port), now_s
        found = self._found
        try:
            return await asyncio.shield(found)
        except OSError:
            if self._found is found:
                self._found = None
            raise


def _look_up(host: str, port: int) -> asyncio.Future[list[AddrInfoType]]:
    """On a thread that nobody waits for: one that hangs holds up neither other work nor the program's end."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[AddrInfoType]] = loop.create_future()
    # An answer that comes when all have given up waiting is nobody's, and no error of the program's either.
    found.add_done_callback(lambda late: late.cancelled() or late.exception())

    def look_up() -> None:
        answer: list[AddrInfoType] = []
        error = None
        try:
            answer += socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=_flags(host))
        except Exception as problem:
            error = problem
        with contextlib.suppress(RuntimeError):  # the program has ended meanwhile
            loop.call_soon_threadsafe(settle, answer, error)

    def settle(answer: list[AddrInfoType], error: Exception | None) -> None:
        if found.done():
            return
        if error:
            found.set_exception(error)
        else:
            found.set_result(answer)

    try:
        threading.Thread(target=look_up, name="batchgen-resolver", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    return found


def _flags(host: str) -> int:
    """Only addresses that this machine could reach; but a literal one is what it is, also where loopback is the only
    network of its family, which the system would not count (getaddrinfo(3), AI_ADDRCONFIG)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return socket.AI_ADDRCONFIG
    return socket.AI_NUMERICHOST
