"""One HTTP attempt: a body goes out, a raw answer or a classified failure comes back.

Says which failures happened before the server could have begun; judges nothing else, retries nothing, follows nothing.
The HTTP is HTTP/1.1 with one request at a time on a connection: `incoming` reads answers, `connection` talks, `origin`
connects. A picture's answer is one large text of known length, and this way of it costs a third of a general library.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import msgspec

from batchgen.client.downloads import Downloads
from batchgen.client.exchange import END, exchange, head, who
from batchgen.client.origin import Origin
from batchgen.model import AttemptFailed, Body, Job, Post, Reply, Secret
from batchgen.protocol.answers import filled

PING_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Server:
    """Where requests go, with which key and which other headers: the API's address, and a URL of the same server that
    answers for free. `links` finds where a success answer says that its pictures lie.
    """

    url: str
    ping_url: str
    key: Secret
    headers: Mapping[str, str] = field(default_factory=dict)
    links: Callable[[Body], tuple[str, ...]] = lambda body: ()


class Client:
    """Sends requests to one endpoint; use as an async context manager."""

    def __init__(self, endpoint: Server, encode: Callable[[Job], Awaitable[Post]], *, user_agent: str) -> None:
        self._encode, self._user_agent = encode, user_agent
        self._url, self._key, self._origin = endpoint.url, endpoint.key, Origin(endpoint.url)
        self._links = endpoint.links
        self._headers = who(endpoint.key, endpoint.headers)
        self._heads: dict[str, bytes] = {}
        self._get = head("GET", endpoint.ping_url, self._headers, user_agent) + END
        self._downloads = Downloads(endpoint.url, self._headers, endpoint.key, user_agent)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._origin.close()

    async def prepare(self, job: Job) -> Post:
        return await self._encode(job)

    async def send(self, post: Post, timeout_s: float) -> Reply:
        """One attempt. Raises AttemptFailed where no whole answer came within `timeout_s`."""
        if (begin := self._heads.get(post.path)) is None:
            begin = self._heads[post.path] = head("POST", self._url + post.path, self._headers, self._user_agent)
        kind = post.content_type.encode()
        request = b"%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (begin, kind, len(post.body), post.body)
        reply = await exchange(self._origin, request, self._key, timeout_s)
        if reply.status == 200 and (found := self._links(reply.body)):
            return msgspec.structs.replace(reply, links=found)
        return reply

    async def fetch(self, reply: Reply) -> Reply:
        """The answer with the pictures that it links to. Raises AttemptFailed where one cannot be had."""
        now = asyncio.get_running_loop().time
        began_s = now()
        pictures = await self._downloads.pictures(reply.links)
        body = await asyncio.to_thread(filled, reply.body, pictures)
        return msgspec.structs.replace(reply, body=body, links=(), response_s=reply.response_s + now() - began_s)

    async def reachable(self) -> bool:
        """Whether anything but a server error answers at the free address."""
        try:
            return (await exchange(self._origin, self._get, self._key, PING_TIMEOUT_S)).status < 500
        except AttemptFailed:
            return False


async def ask(
    url: str, key: Secret, timeout_s: float, *, user_agent: str, headers: Mapping[str, str] | None = None
) -> Reply:
    """One GET of an address that costs nothing. Raises AttemptFailed where no whole answer came within `timeout_s`."""
    origin = Origin(url)
    try:
        return await exchange(origin, head("GET", url, who(key, headers or {}), user_agent) + END, key, timeout_s)
    finally:
        origin.close()
