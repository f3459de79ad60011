"""Fetching pictures that an answer only links to. A GET costs nothing, so it is repeated; a request never is for it.

The key stays where it belongs: only the API's own origin gets it. An address that is not public is asked only where it
is the API's own host, or where the API itself is on such an address; link-local ones (a cloud's metadata) never beside
that. This holds for every redirect, and for the addresses that names lead to.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from aiohappyeyeballs import AddrInfoType

from batchgen.client.exchange import END, exchange, head
from batchgen.client.origin import Origin
from batchgen.images import sniff
from batchgen.model import AttemptFailed, Failure, Secret
from batchgen.text import printable

MAX_HOPS = 5
PAUSES_S = (1.0, 4.0, 15.0, 40.0, 60.0)
TRY_S = 60.0
# Less than what makes the pool believe that the disk hangs.
PATIENCE_S = 300.0
_REDIRECTS = {301, 302, 303, 307, 308}
# What an address may hold as it is; a signature covers the rest as it was written, escapes among it.
_SAFE = "%/:?#[]@!$&'()*+,;=-._~"


class _Refused(Exception):
    """What is not asked, however often."""


class _NotYet(Exception):
    """What may be there at the next try."""


class Downloads:
    """Pictures by their addresses; `headers` (the key among them) go to the origin of `api_url` alone."""

    def __init__(self, api_url: str, headers: Mapping[str, str], key: Secret, user_agent: str) -> None:
        self._headers, self._key, self._user_agent = headers, key, user_agent
        self._home, self._guard = _origin(api_url), Guard(api_url)

    async def pictures(self, urls: Sequence[str]) -> list[bytes]:
        """The bytes at these addresses, which begin as pictures do.

        Raises AttemptFailed (DOWNLOAD) where one cannot be had within minutes; its words do not hold the address, which
        may be as good as a key.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                return [await self._picture(url) for url in urls]
        except TimeoutError:
            raise AttemptFailed(Failure.DOWNLOAD, f"the picture could not be fetched within {PATIENCE_S:g} s") from None

    async def _picture(self, url: str) -> bytes:
        tries, why = 0, ""
        for pause_s in (*PAUSES_S, None):
            tries += 1
            try:
                return await self._get(url)
            except _Refused as error:
                why = str(error)
                break
            except (AttemptFailed, _NotYet) as error:
                why = str(error)
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        count = f" ({tries} tries)" if tries > 1 else ""
        place = printable(_origin(url)[1], 100) or "nowhere"
        raise AttemptFailed(Failure.DOWNLOAD, f"the picture could not be fetched from {place}: {why}{count}")

    async def _get(self, url: str) -> bytes:
        for _ in range(MAX_HOPS + 1):
            url = quote(url, safe=_SAFE)
            headers = self._headers if _origin(url) == self._home else {}
            origin = _Guarded(url, self._guard)
            try:
                await origin.check()
                request = head("GET", url, headers, self._user_agent) + END
                reply = await exchange(origin, request, self._key, TRY_S)
            finally:
                origin.close()
            if reply.status in _REDIRECTS and (there := reply.headers.get("location")):
                url = _joined(url, there)
                continue
            if reply.status != 200:
                raise _NotYet(f"status {reply.status}")
            if sniff(data := bytes(reply.body)) is None:
                raise _NotYet("what came is no picture")
            return data
        raise _Refused(f"more than {MAX_HOPS} redirects")


class Guard:
    """Knows which addresses may be asked beside those of `api_url`."""

    def __init__(self, api_url: str) -> None:
        self.home = Origin(api_url)
        self._inside: bool | None = None

    async def allowed(self, host: str, found: Sequence[AddrInfoType]) -> list[AddrInfoType]:
        """Those of the addresses of `host` that may be asked."""
        if host.lower() == self.home.host.lower():
            return list(found)
        return [place for place in found if await self._may(_ip(place))]

    async def _may(self, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            return False
        return ip.is_global or await self._is_inside()

    async def _is_inside(self) -> bool:
        """Whether the API itself is on an address that is not public."""
        if self._inside is None:
            self._inside = not any(_ip(place).is_global for place in await self.home.addresses())
        return self._inside


class _Guarded(Origin):
    """A way that is taken only where the guard allows it."""

    def __init__(self, url: str, guard: Guard) -> None:
        parts = _parts(url)
        if parts is None or parts.scheme not in ("http", "https") or parts.username or parts.password:
            raise _Refused("its address is no plain http or https one")
        super().__init__(url)
        self._guard = guard

    async def check(self) -> None:
        """Raises _Refused where no address of the host may be asked."""
        try:
            if await self.addresses():
                return
        except OSError as error:
            raise _NotYet(f"its name leads nowhere ({error.strerror or error})") from None
        raise _Refused("its address is not a public one, and is not asked")

    async def addresses(self) -> list[AddrInfoType]:
        return await self._guard.allowed(self.host, await super().addresses())


def _ip(place: AddrInfoType) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(str(place[4][0]).partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; nothing of an address that is none."""
    parts = _parts(url)
    if parts is None:
        return "", "", 0
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _joined(url: str, there: str) -> str:
    try:
        return urljoin(url, there)
    except ValueError:
        raise _Refused("it is redirected to no address") from None
