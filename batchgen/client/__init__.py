"""One HTTP attempt: a body goes out, a raw answer or a classified failure comes back.

Says which failures happened before the server could have begun; judges nothing else, retries nothing, follows nothing.
The HTTP is HTTP/1.1 with one request at a time on a connection: `incoming` reads answers, `connection` talks, `origin`
connects. A picture's answer is one large text of known length, and this way of it costs a third of a general library.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from batchgen.client.origin import Origin
from batchgen.model import AttemptFailed, Failure, Job, Reply, Secret
from batchgen.text import printable

CONNECT_TIMEOUT_S = 15.0
PING_TIMEOUT_S = 10.0
_END = b"\r\n"
_JSON = b"Content-Type: application/json\r\n"
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, with which key: the generation URL and one that answers for free, at the same server."""

    generate_url: str
    ping_url: str
    key: Secret


class Client:
    """Sends requests to one endpoint; use as an async context manager."""

    def __init__(self, endpoint: Endpoint, encode: Callable[[Job], Awaitable[bytes]], *, user_agent: str) -> None:
        self._encode = encode
        self._key, self._origin = endpoint.key, Origin(endpoint.generate_url)
        self._post = _head("POST", endpoint.generate_url, endpoint.key, user_agent) + _JSON
        self._get = _head("GET", endpoint.ping_url, endpoint.key, user_agent) + _END

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._origin.close()

    async def prepare(self, job: Job) -> bytes:
        return await self._encode(job)

    async def send(self, body: bytes, timeout_s: float) -> Reply:
        """One attempt. Raises AttemptFailed where no whole answer came within `timeout_s`."""
        request = b"%bContent-Length: %d\r\n\r\n%b" % (self._post, len(body), body)
        return await _exchange(self._origin, request, self._key, timeout_s)

    async def reachable(self) -> bool:
        """Whether anything but a server error answers at the free address."""
        try:
            return (await _exchange(self._origin, self._get, self._key, PING_TIMEOUT_S)).status < 500
        except AttemptFailed:
            return False


async def ask(url: str, key: Secret, timeout_s: float, *, user_agent: str) -> Reply:
    """One GET of an address that costs nothing. Raises AttemptFailed where no whole answer came within `timeout_s`."""
    origin = Origin(url)
    try:
        return await _exchange(origin, _head("GET", url, key, user_agent) + _END, key, timeout_s)
    finally:
        origin.close()


async def _exchange(origin: Origin, request: bytes, key: Secret, timeout_s: float) -> Reply:
    now = asyncio.get_running_loop().time
    began_s = now()
    try:
        # Connecting ends well before the whole: afterwards nobody could say any more that nothing was sent.
        connection = await origin.connection(min(CONNECT_TIMEOUT_S, timeout_s / 2))
    except Exception as error:
        words = f"cannot connect to {origin.address}: {_words(error)}"
        raise AttemptFailed(_not_sent(error), printable(key.hide(words))) from None
    try:
        answer = await connection.ask(request, began_s + timeout_s)
        return Reply(
            answer.status, answer.headers, answer.content(), connection.first_byte_s - began_s, now() - began_s
        )
    except TimeoutError:
        raise AttemptFailed(Failure.NO_ANSWER, f"no whole answer within {timeout_s:g} s") from None
    except AttemptFailed as error:
        raise AttemptFailed(error.failure, printable(key.hide(str(error)))) from None
    except Exception as error:
        failure = Failure.NO_ANSWER if isinstance(error, OSError) else Failure.UNCLASSIFIED
        raise AttemptFailed(failure, printable(key.hide(_words(error)))) from None
    finally:
        origin.give_back(connection)


def _head(method: str, url: str, key: Secret, user_agent: str) -> bytes:
    """What all requests to an address begin with."""
    parts = urlsplit(url)
    place = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    host = parts.netloc.rpartition("@")[2]
    lines = (
        f"{method} {place} HTTP/1.1",
        f"Host: {host}",
        f"Authorization: Bearer {key.reveal()}",
        "Accept: */*",
        "Accept-Encoding: identity",
        f"User-Agent: {user_agent}",
    )
    return "".join(f"{line}\r\n" for line in lines).encode()


def _words(error: Exception) -> str:
    """What the log says about an exception: the system's own words, where it has some."""
    if isinstance(error, TimeoutError) and not error.args:
        return "no answer in time"
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"


def _not_sent(error: Exception) -> Failure:
    """Why there is no connection: the request cannot have been paid for."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure.TLS
    if isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS:
        return Failure.TOO_MANY_FILES
    return Failure.NOT_CONNECTED
