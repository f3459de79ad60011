"""One request and its answer, and which failures happened before the server could have begun. Judges nothing else."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from batchgen.client.origin import Origin
from batchgen.model import AttemptFailed, Failure, Reply, Secret
from batchgen.text import printable

CONNECT_TIMEOUT_S = 15.0
END = b"\r\n"
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}


async def exchange(origin: Origin, request: bytes, key: Secret, timeout_s: float) -> Reply:
    """The answer to `request`, head and body. Raises AttemptFailed where no whole one came within `timeout_s`."""
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


def who(key: Secret, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that say who asks: the key, if there is one, and the API's own."""
    own = {name.lower(): value for name, value in headers.items()}
    return ({"authorization": f"Bearer {key.reveal()}"} if key.reveal() else {}) | own


def head(method: str, url: str, headers: Mapping[str, str], user_agent: str) -> bytes:
    """What all requests to an address begin with."""
    parts = urlsplit(url)
    place = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    host = parts.netloc.rpartition("@")[2]
    lines = (
        f"{method} {place} HTTP/1.1",
        f"Host: {host}",
        *(f"{name.title()}: {value}" for name, value in headers.items()),
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
