"""Fetching pictures that an answer only links to. A GET costs nothing, so it is repeated; a request never is for it.

The key stays where it belongs: only the API's own origin gets it. An address that is not public is asked only where it
is the API's own host, or where the API itself is on such an address; link-local ones (a cloud's metadata) never beside
that. This holds for every redirect and for the addresses that names lead to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from batchgen.images import sniff
from batchgen.model import AttemptFailed, Failure, Secret
from batchgen.text import printable

MAX_PICTURE_BYTES = 64 << 20
MAX_HOPS = 5
PAUSES_S = (1.0, 4.0, 15.0, 40.0, 60.0)
TRY_S = 60.0
# Less than what makes the pool believe that the disk hangs.
PATIENCE_S = 300.0
_REDIRECTS = {301, 302, 303, 307, 308}

LookUp = Callable[[str, int, socket.AddressFamily], Awaitable[list[ResolveResult]]]


class _Refused(OSError):
    """An address that is not asked, however often."""


class Downloads:
    """Pictures by their addresses; `headers` (with the key) go to the origin of `api_url` alone."""

    def __init__(
        self,
        api_url: str,
        headers: Mapping[str, str],
        key: Secret,
        look_up: LookUp,
    ) -> None:
        self._headers, self._key = headers, key
        self._home = _origin(api_url)
        self._guard = _Guard(urlsplit(api_url).hostname or "", look_up)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def pictures(self, urls: Sequence[str]) -> list[bytes]:
        """The bytes at these addresses, which begin as pictures do.

        Raises AttemptFailed (DOWNLOAD) where one cannot be had within minutes; its words do not hold the address, which
        may be as good as a key.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=self._guard, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                headers={"Accept-Encoding": "identity"},
            )
        try:
            async with asyncio.timeout(PATIENCE_S):
                return [await self._picture(self._session, url) for url in urls]
        except TimeoutError:
            raise AttemptFailed(Failure.DOWNLOAD, f"the picture could not be fetched within {PATIENCE_S:g} s") from None

    async def _picture(self, session: aiohttp.ClientSession, url: str) -> bytes:
        tries, why = 0, ""
        for pause_s in (*PAUSES_S, None):
            tries += 1
            try:
                async with asyncio.timeout(TRY_S):
                    return await self._get(session, url)
            except _Refused as error:
                why = str(error)
                break
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                if isinstance(cause := getattr(error, "os_error", None), _Refused):
                    why = str(cause)
                    break
                why = self._key.hide(_words(error))
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        place = printable(_host(url), 100)
        count = f" ({tries} tries)" if tries > 1 else ""
        raise AttemptFailed(Failure.DOWNLOAD, f"the picture could not be fetched from {place}: {why}{count}")

    async def _get(self, session: aiohttp.ClientSession, url: str) -> bytes:
        for _ in range(MAX_HOPS + 1):
            await self._guard.check(url)
            headers = self._headers if _origin(url) == self._home else {}
            # A signature covers the address as it was written.
            place = URL(url, encoded=url.isascii())
            async with session.get(place, headers=headers, allow_redirects=False) as response:
                if response.status in _REDIRECTS and (there := response.headers.get("location")):
                    url = urljoin(url, there)
                    continue
                if response.status != 200:
                    raise ValueError(f"status {response.status}")
                data = await _read(response)
                if sniff(data) is None:
                    raise ValueError("what came is no picture")
                return data
        raise _Refused(f"more than {MAX_HOPS} redirects")


class _Guard(AbstractResolver):
    """Looks names up, and lets through what may be asked."""

    def __init__(self, home: str, look_up: LookUp) -> None:
        self._home, self._look_up = home.lower(), look_up
        self._inside: bool | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._look_up(host, port, family)
        allowed = [place for place in found if await self._may(host, place["host"])]
        if not allowed:
            raise _Refused("its address is not a public one, and is not asked")
        return allowed

    async def check(self, url: str) -> None:
        """Raises _Refused for what is not asked; names are looked at when they are looked up."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise _Refused("its address is no plain http or https one")
        if _address(parts.hostname) and not await self._may(parts.hostname, parts.hostname):
            raise _Refused("its address is not a public one, and is not asked")

    async def _may(self, host: str, address: str) -> bool:
        ip = _address(address)
        if host.lower() == self._home:
            return True
        if ip is None or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            return False
        return ip.is_global or await self._is_inside()

    async def _is_inside(self) -> bool:
        """Whether the API itself is on an address that is not public."""
        if self._inside is None:
            known = _address(self._home)
            places = (
                [self._home] if known else [p["host"] for p in await self._look_up(self._home, 0, socket.AF_UNSPEC)]
            )
            self._inside = not any((ip := _address(place)) is None or ip.is_global for place in places)
        return self._inside

    async def close(self) -> None:
        """Nothing is held."""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "nowhere"
    except ValueError:
        return "nowhere"


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_PICTURE_BYTES:
            response.close()
            raise _Refused(f"it is larger than {MAX_PICTURE_BYTES >> 20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)


def _words(error: Exception) -> str:
    """What happened, without the address: exceptions of the library hold it."""
    if isinstance(error, TimeoutError):
        return f"no whole answer within {TRY_S:g} s"
    return printable(str(error)) if type(error) is ValueError else type(error).__name__
