"""One HTTP attempt: a body goes out, a raw answer or a classified failure comes back. The only client of aiohttp.

Says which failures happened before the server could have begun; judges nothing else, retries nothing, follows nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from batchgen.downloads import Downloads
from batchgen.model import AttemptFailed, Failure, Job, Post, Reply, Secret
from batchgen.protocol.answers import filled
from batchgen.text import printable
from batchgen.world import Clock

MAX_ANSWER_BYTES = 64 << 20
CONNECT_TIMEOUT_S = 15.0
PING_TIMEOUT_S = 10.0
REFUSAL_BODY_S = 5.0
# A socket that idled may be closed by the server at the very moment it is used again, and the outcome is unknown then.
KEEPALIVE_S = 4.0
_KEPT_HEADERS = (
    *("retry-after", "retry-after-ms", "date", "location"),
    *("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
)
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, with which key and which other headers: the API's address, and a URL that answers for free.

    `links` finds where a success answer says that its pictures lie.
    """

    url: str
    ping_url: str
    key: Secret
    headers: Mapping[str, str] = field(default_factory=dict)
    links: Callable[[bytes], tuple[str, ...]] = lambda body: ()


class Client:
    """Sends requests to one endpoint; use as an async context manager."""

    def __init__(
        self, endpoint: Endpoint, encode: Callable[[Job], Awaitable[Post]], clock: Clock, *, user_agent: str
    ) -> None:
        self._encode = encode
        self._endpoint, self._clock, self._user_agent = endpoint, clock, user_agent
        self._session: aiohttp.ClientSession | None = None
        self._downloads = Downloads(
            endpoint.url, _headers(endpoint.key, endpoint.headers), endpoint.key, _Resolver().resolve
        )

    async def __aenter__(self) -> Client:
        self._session = _new_session(self._endpoint.key, self._user_agent, self._endpoint.headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._downloads.close()
        if self._session:
            await self._session.close()

    async def prepare(self, job: Job) -> Post:
        return await self._encode(job)

    async def send(self, post: Post, timeout_s: float) -> Reply:
        """One attempt. Raises AttemptFailed where no whole answer came within `timeout_s`."""
        try:
            # The library's own limits have been seen not to fire; this one is independent of them.
            async with asyncio.timeout(timeout_s + 1):
                return await self._post(post, timeout_s)
        except Exception as error:
            failure = _failure(error)
            raise AttemptFailed(failure, self._describe(error, failure, timeout_s)) from None

    async def fetch(self, reply: Reply) -> Reply:
        """The answer with the pictures that it links to. Raises AttemptFailed where one cannot be had."""
        began_s = self._clock.monotonic()
        pictures = await self._downloads.pictures(reply.links)
        body = await asyncio.to_thread(filled, reply.body, pictures)
        response_s = reply.response_s + self._clock.monotonic() - began_s
        return msgspec.structs.replace(reply, body=body, links=(), response_s=response_s)

    async def reachable(self) -> bool:
        """Whether anything but a server error answers at the free address."""
        assert self._session is not None
        try:
            async with (
                asyncio.timeout(PING_TIMEOUT_S),
                self._session.get(self._endpoint.ping_url, allow_redirects=False) as response,
            ):
                return response.status < 500
        except Exception:
            return False

    async def _post(self, post: Post, timeout_s: float) -> Reply:
        assert self._session is not None
        began_s = self._clock.monotonic()
        async with self._session.post(
            self._endpoint.url + post.path,
            data=post.body,
            headers={"Content-Type": post.content_type},
            allow_redirects=False,
            timeout=_limits(timeout_s),
        ) as response:
            first_byte_s = self._clock.monotonic() - began_s
            answer = await (_read(response) if response.status == 200 else _read_refusal(response))
            headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
            linked = self._endpoint.links(answer) if response.status == 200 else ()
            return Reply(response.status, headers, answer, first_byte_s, self._clock.monotonic() - began_s, linked)

    def _describe(self, error: Exception, failure: Failure, timeout_s: float) -> str:
        if isinstance(error, AttemptFailed):
            return str(error)
        if failure is Failure.NO_ANSWER and isinstance(error, TimeoutError):
            return f"no whole answer within {timeout_s:g} s"
        return _words(error, self._endpoint.key)


async def ask(
    url: str, key: Secret, timeout_s: float, *, user_agent: str, headers: Mapping[str, str] | None = None
) -> Reply:
    """One GET of an address that costs nothing. Raises AttemptFailed where no whole answer came within `timeout_s`."""
    try:
        async with (
            asyncio.timeout(timeout_s),
            _new_session(key, user_agent, headers or {}) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            return Reply(response.status, {}, await _read(response), 0.0, 0.0)
    except Exception as error:
        words = f"no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else _words(error, key)
        raise AttemptFailed(_failure(error), words) from None


def _words(error: Exception, key: Secret) -> str:
    """Exceptions of the library can hold the request's headers: only their kind and their words are used."""
    return printable(key.hide(f"{type(error).__name__}: {error}"))


def _new_session(key: Secret, user_agent: str, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, resolver=_Resolver()),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        headers={
            **_headers(key, headers),
            "Accept-Encoding": "identity",
            "User-Agent": user_agent,
        },
    )


def _headers(key: Secret, headers: Mapping[str, str]) -> dict[str, str]:
    """What says who asks."""
    own = {name.lower(): value for name, value in headers.items()}
    return ({"authorization": f"Bearer {key.reveal()}"} if key.reveal() else {}) | own


class _Resolver(AbstractResolver):
    """Look-ups on threads that nobody waits for: one that hangs holds up neither other work nor the program's end."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def look_up() -> None:
            try:
                answer, error = _addresses(host, port, family), None
            except Exception as problem:
                answer, error = [], problem
            with contextlib.suppress(RuntimeError):  # the program has ended meanwhile
                loop.call_soon_threadsafe(settle, answer, error)

        def settle(answer: list[ResolveResult], error: Exception | None) -> None:
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
        return await found

    async def close(self) -> None:
        """Nothing is held."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        ResolveResult(hostname=host, host=str(place[0]), port=int(place[1]), family=kind, proto=proto, flags=numeric)
        for kind, _, proto, _, place in found
    ]


@functools.cache
def _limits(timeout_s: float) -> aiohttp.ClientTimeout:
    # Connecting ends well before the whole: afterwards nobody could say any more that nothing was sent.
    connect_s = min(CONNECT_TIMEOUT_S, timeout_s / 2)
    return aiohttp.ClientTimeout(total=timeout_s, connect=connect_s, sock_connect=connect_s, sock_read=timeout_s)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    if not await _collect(response, chunks):
        raise AttemptFailed(Failure.BAD_ANSWER, f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MiB")
    return b"".join(chunks)


async def _read_refusal(response: aiohttp.ClientResponse) -> bytes:
    """A refusal is one by its status, however little of its text arrives; half a picture would be none."""
    chunks: list[bytes] = []
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(REFUSAL_BODY_S):
            await _collect(response, chunks)
    return b"".join(chunks)


async def _collect(response: aiohttp.ClientResponse, chunks: list[bytes]) -> bool:
    """Add the body to `chunks`; False where it is larger than any answer, and was left."""
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            response.close()
            return False
        chunks.append(chunk)
    return True


def _failure(error: Exception) -> Failure:
    """Before the request could reach the server, or after: what decides whether it may have been paid for."""
    if isinstance(error, AttemptFailed):
        return error.failure
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return Failure.TLS
    if isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS:
        return Failure.TOO_MANY_FILES
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Failure.NOT_CONNECTED
    if isinstance(error, aiohttp.ClientPayloadError):
        return Failure.BAD_ANSWER
    if isinstance(error, aiohttp.ClientConnectionError | TimeoutError | OSError):
        return Failure.NO_ANSWER
    return Failure.UNCLASSIFIED
