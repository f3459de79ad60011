"""Pictures that an answer only links to: who is asked, who gets the key, and that a lost one is never bought again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohappyeyeballs import AddrInfoType
from aiohttp import web
from conftest import Beside, Place

import batchgen
from batchgen.client import Client, downloads, incoming
from batchgen.client.downloads import MAX_HOPS, Downloads, Guard, _Guarded, _Refused
from batchgen.model import AttemptFailed, Failure, Secret

PNG = b"\x89PNG\r\n\x1a\nand so on"
CANARY = "canary-key-0123456789"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tries without a pause between them."""
    monkeypatch.setattr(downloads, "PAUSES_S", (0.0, 0.0))


class Shelf:
    """A server of files: what it says to each GET in turn, and what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[web.Request] = []
        self.url = ""

    async def __call__(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if self.answers else PNG
        if isinstance(answer, bytes):
            return web.Response(body=answer)
        if isinstance(answer, str):
            return web.Response(status=302, headers={"Location": answer})
        return web.Response(status=answer)


@asynccontextmanager
async def serving(*answers: Any) -> AsyncIterator[Shelf]:
    shelf = Shelf(*answers)
    runner = web.ServerRunner(web.Server(shelf))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shelf.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield shelf
    finally:
        await runner.cleanup()


def known(host: str, port: int) -> asyncio.Future[list[AddrInfoType]]:
    """Names, and where they lead in these tests."""
    places = {
        "api.example": ["93.184.216.34"],
        "cdn.example": ["2606:2800:220:1::1", "93.184.216.35"],
        "inside.example": ["10.0.0.7"],
        "both.example": ["10.0.0.7", "93.184.216.36"],
        "here.example": ["127.0.0.1"],
        "mapped.example": ["::ffff:127.0.0.1"],
        "metadata.example": ["169.254.169.254"],
        "gpu.lan": ["10.0.0.5"],
    }
    found: asyncio.Future[list[AddrInfoType]] = asyncio.get_running_loop().create_future()
    kind = socket.AF_INET, socket.SOCK_STREAM, 0, ""
    found.set_result([(*kind, (ip, port)) for ip in places.get(host, [host])])
    return found


@asynccontextmanager
async def fetching(api_url: str) -> AsyncIterator[Downloads]:
    yield Downloads(api_url, {"authorization": f"Bearer {CANARY}"}, Secret(CANARY), "batchgen/9")


async def failure_of(api_url: str, url: str) -> str:
    """Why a picture cannot be had, in words that hold neither the key nor the address's secret part."""
    async with fetching(api_url) as found:
        with pytest.raises(AttemptFailed) as caught:
            await found.pictures([url])
    assert caught.value.failure is Failure.DOWNLOAD
    assert CANARY not in str(caught.value) and "sig=" not in str(caught.value)
    return str(caught.value)


async def test_the_key_goes_to_the_apis_own_origin_alone() -> None:
    """Another port is another origin, also after a redirect from home."""
    async with serving() as other, serving(PNG, f"{other.url}/b?sig=1") as home, fetching(home.url + "/v1") as found:
        assert await found.pictures([f"{home.url}/a", f"{home.url}/b", f"{other.url}/c"]) == [PNG] * 3
    assert [request.headers.get("authorization") for request in home.asked] == [f"Bearer {CANARY}"] * 2
    assert [request.headers.get("authorization") for request in other.asked] == [None, None]


async def test_an_address_is_asked_as_it_was_written() -> None:
    """A signature covers every character of an address, the escaped ones too."""
    async with serving() as shelf, fetching(shelf.url) as found:
        await found.pictures([f"{shelf.url}/a%2Fb%20c?sig=x%2By%3D&t=1+2"])
    assert shelf.asked[0].raw_path == "/a%2Fb%20c?sig=x%2By%3D&t=1+2"


@pytest.mark.parametrize("first", [503, 404, 403, b"<html>soon</html>", b""])
async def test_a_get_is_repeated(first: Any) -> None:
    """A picture that is not there yet, or not yet a picture, is asked for again."""
    async with serving(first, first) as shelf, fetching(shelf.url) as found:
        assert await found.pictures([f"{shelf.url}/a"]) == [PNG]
    assert len(shelf.asked) == 3


async def test_it_ends_after_some_tries() -> None:
    """What is never there is told with where it should have been, and what came instead."""
    async with serving(*[404] * 9) as shelf:
        words = await failure_of(shelf.url, f"{shelf.url}/a?sig=1")
    assert words == "the picture could not be fetched from 127.0.0.1: status 404 (3 tries)"
    assert len(shelf.asked) == 3


async def test_a_dead_server_is_told_without_the_address() -> None:
    """No connection is a failure like any other, and its words hold no signature."""
    async with serving() as shelf:
        pass
    assert "cannot connect to 127.0.0.1" in await failure_of("http://127.0.0.1:1", f"{shelf.url}/a?sig=1")


async def test_redirects_end() -> None:
    """A circle is left after a few steps, and not entered again."""
    async with serving(*["/again?sig=1"] * 99) as shelf:
        assert f"more than {MAX_HOPS} redirects" in await failure_of(shelf.url, f"{shelf.url}/a")
    assert len(shelf.asked) == MAX_HOPS + 1


async def test_a_picture_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than any picture is left."""
    monkeypatch.setattr(incoming, "MAX_ANSWER_BYTES", 500)
    async with serving(PNG * 100) as shelf:
        shelf.answers += [PNG * 100] * 2
        assert "larger than" in await failure_of(shelf.url, f"{shelf.url}/a")


@pytest.mark.parametrize(
    "there", ["file:///etc/passwd", "ftp://x/a", "http://169.254.169.254/latest?sig=1", "http://u:p@127.0.0.1/", "//["]
)
async def test_where_no_redirect_leads(there: str) -> None:
    """Every step is looked at as the first one was."""
    async with serving(*[there] * 3) as shelf:
        await failure_of(shelf.url, f"{shelf.url}/a")
    assert 1 <= len(shelf.asked) <= 3


PUBLIC, INSIDE, LOOPBACK = "https://api.example/v1", "https://gpu.lan/v1", "http://127.0.0.1:8000/v1"
ALLOWED = [
    (PUBLIC, "cdn.example", True),
    (PUBLIC, "api.example", True),
    (PUBLIC, "inside.example", False),
    (PUBLIC, "here.example", False),
    (PUBLIC, "mapped.example", False),
    (PUBLIC, "metadata.example", False),
    (PUBLIC, "127.0.0.1", False),
    (PUBLIC, "10.0.0.7", False),
    (PUBLIC, "[::1]", False),
    (PUBLIC, "93.184.216.34", True),
    (INSIDE, "gpu.lan", True),
    (INSIDE, "inside.example", True),
    (INSIDE, "cdn.example", True),
    (INSIDE, "metadata.example", False),
    (INSIDE, "169.254.169.254", False),
    (INSIDE, "0.0.0.0", False),
    (LOOPBACK, "127.0.0.1", True),
    (LOOPBACK, "here.example", True),
    (LOOPBACK, "metadata.example", False),
]


@pytest.mark.parametrize(("api_url", "host", "allowed"), ALLOWED, ids=[f"{a} {h}" for a, h, _ in ALLOWED])
async def test_which_addresses_are_asked(
    api_url: str, host: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public server cannot have addresses of one's own network asked; a server there can have its neighbours'."""
    monkeypatch.setattr("batchgen.client.origin._look_up", known)
    way = _Guarded(f"https://{host}/a", Guard(api_url))
    if allowed:
        await way.check()
    else:
        with pytest.raises(_Refused, match="not a public one"):
            await way.check()
        assert await way.addresses() == []


async def test_of_several_addresses_the_public_ones_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to both kinds is connected to at the public one."""
    monkeypatch.setattr("batchgen.client.origin._look_up", known)
    way = _Guarded("https://both.example/a", Guard(PUBLIC))
    assert [place[4][0] for place in await way.addresses()] == ["93.184.216.36"]


# Whole runs


async def run(place: Place, url: str, **settings: Any) -> batchgen.runner.Summary:  # type: ignore[name-defined]
    manifest = place.jobs("a", "b", api={"style": "openai"})
    return await batchgen.run_async(manifest, api_url=url, **settings)


async def test_linked_pictures_are_saved(place: Place, beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that only says where its picture lies ends as a picture like any other."""
    monkeypatch.setenv("OPENAI_API_KEY", "sandbox-key")
    sandbox = beside("link:x1")
    summary = await run(place, sandbox.openai_url)
    assert (summary.exit_code, summary.done, sandbox.ledger.pictures) == (0, 2, 2)
    assert place.files() == {"a.png", "b.png"}
    assert all("urls" not in attempt for entry in place.log for attempt in entry["attempts"])


async def test_a_lost_picture_is_not_bought_again(
    place: Place, beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that cannot be fetched fails its job as paid, with its address in the log; it is asked for once."""
    monkeypatch.setenv("OPENAI_API_KEY", "sandbox-key")
    sandbox = beside("deadlink:x1")
    summary = await run(place, sandbox.openai_url, prices={"black-forest-labs/FLUX.1-schnell": 0.003})
    assert (summary.exit_code, summary.done, summary.failed) == (3, 1, 1)
    assert (sandbox.ledger.pictures, summary.cost_usd) == (2, 0.006)
    (lost,) = (entry for entry in place.log if entry["outcome"] == "failed")
    (attempt,) = lost["attempts"]
    assert (attempt["failure"], attempt["billed"], attempt["http"]) == ("download", "yes", 200)
    assert attempt["urls"][0].startswith(sandbox.openai_url.removesuffix("/v1") + "/files/")
    assert (await run(place, sandbox.openai_url)).failed == 1
    assert sandbox.ledger.requests == 2


async def test_where_a_picture_lies_is_noted_before_it_is_fetched(
    place: Place, beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should the process die while it fetches, the folder still tells where the paid picture is."""
    noted: list[bytes] = []
    fetch = Client.fetch

    async def looking(self: Client, reply: Any) -> Any:
        noted.append((place.output / ".batchgen" / "attempts.jsonl").read_bytes())
        return await fetch(self, reply)

    monkeypatch.setenv("OPENAI_API_KEY", "sandbox-key")
    monkeypatch.setattr(Client, "fetch", looking)
    sandbox = beside("link:x1")
    assert (await run(place, sandbox.openai_url)).done == 2
    (line,) = (line for line in noted[0].splitlines() if b"urls" in line)
    assert b"/files/" in line and b'"billed":"yes"' in line
    assert all("failure" not in attempt for entry in place.log for attempt in entry["attempts"])


async def test_whatever_goes_wrong_with_fetching_keeps_the_address(
    place: Place, beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in fetching is not paid for by another request either."""

    async def broken(self: Client, reply: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setenv("OPENAI_API_KEY", "sandbox-key")
    monkeypatch.setattr(Client, "fetch", broken)
    sandbox = beside("link:x1")
    assert (await run(place, sandbox.openai_url)).failed == 1
    assert sandbox.ledger.requests == 2
    assert any(attempt.get("urls") for entry in place.log for attempt in entry["attempts"])
