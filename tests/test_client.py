"""The client: what leaves the machine, what it refuses to follow or to swallow, and what each failure is called."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from samples import job

from batchgen.client import Client, Server, incoming, origin
from batchgen.client.connection import Connection
from batchgen.client.origin import Origin
from batchgen.model import AttemptFailed, Failure, Job, Post, Reply, Secret

CANARY = "canary-key-0123456789"
GENERATE, PING = "/images/generation", "/models"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def post(body: bytes = b"{}") -> Post:
    return Post(GENERATE, "application/json", body)


async def encode(of: Job) -> Post:
    return post(of.prompt.encode())


def client_of(url: str) -> Client:
    return Client(Server(url, url + PING, Secret(CANARY)), encode, user_agent="batchgen/9")


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[Client, str]]:
    """A client and the server that it talks to; every request goes to `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with client_of(url) as client:
            yield client, url
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Client]:
    """A client of a server that writes whatever bytes it likes once a request is in."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:"))
                await reader.readexactly(length)
                await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, client_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        yield client


async def _nothing(request: web.Request) -> web.Response:
    return web.Response()


async def failure_of(client: Client, timeout_s: float = 30.0) -> AttemptFailed:
    """How an attempt fails; its words never hold the key."""
    with pytest.raises(AttemptFailed) as caught:
        await client.send(post(), timeout_s)
    assert CANARY not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    return caught.value


# What exceptions mean

NOT_SENT: dict[str, tuple[Exception, Failure]] = {
    "refused": (ConnectionRefusedError(errno.ECONNREFUSED, f"because of {CANARY}"), Failure.NOT_CONNECTED),
    "unreachable": (OSError(errno.ENETUNREACH, "Network is unreachable"), Failure.NOT_CONNECTED),
    "name": (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), Failure.NOT_CONNECTED),
    "connect timeout": (TimeoutError(), Failure.NOT_CONNECTED),
    "handshake reset": (ConnectionResetError(errno.ECONNRESET, "reset"), Failure.NOT_CONNECTED),
    "no TLS": (ssl.SSLError(1, "wrong version number"), Failure.NOT_CONNECTED),
    "no descriptors": (OSError(errno.EMFILE, "Too many open files"), Failure.TOO_MANY_FILES),
    "no descriptors at all": (OSError(errno.ENFILE, "Too many open files"), Failure.TOO_MANY_FILES),
    "certificate": (ssl.SSLCertVerificationError("expired"), Failure.TLS),
    "no name": (UnicodeError("encoding with 'idna' codec failed"), Failure.NOT_CONNECTED),
    "anything": (RuntimeError(f"with {CANARY}"), Failure.NOT_CONNECTED),
}
SENT: dict[str, tuple[Exception, Failure]] = {
    "reset": (ConnectionResetError(errno.ECONNRESET, f"by {CANARY}"), Failure.NO_ANSWER),
    "broken pipe": (BrokenPipeError(errno.EPIPE, "Broken pipe"), Failure.NO_ANSWER),
    "TLS breaks": (ssl.SSLError(1, "bad record mac"), Failure.NO_ANSWER),
    "deadline": (TimeoutError(), Failure.NO_ANSWER),
    "anything": (RuntimeError(f"with {CANARY}"), Failure.UNCLASSIFIED),
}


@pytest.mark.parametrize(("error", "failure"), NOT_SENT.values(), ids=NOT_SENT.keys())
async def test_what_fails_before_the_request_left_was_not_paid_for(
    monkeypatch: pytest.MonkeyPatch, error: Exception, failure: Failure
) -> None:
    """Without a connection nothing can have been bought, whatever the reason; and no message tells the key."""

    async def fail(*_: object) -> Connection:
        raise error

    monkeypatch.setattr(Origin, "_connect", fail)
    async with client_of("https://api.test") as client:
        assert (await failure_of(client)).failure is failure
        assert await client.reachable() is False


@pytest.mark.parametrize(("error", "failure"), SENT.values(), ids=SENT.keys())
async def test_what_fails_after_the_request_left_may_have_been_paid_for(
    monkeypatch: pytest.MonkeyPatch, error: Exception, failure: Failure
) -> None:
    """With a connection every failure is one of unknown end; and no message tells the key."""

    async def fail(*_: object) -> None:
        raise error

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...

    monkeypatch.setattr(Connection, "ask", fail)
    async with raw(talk) as client:
        assert (await failure_of(client)).failure is failure


async def test_being_cancelled_is_no_failure() -> None:
    """A cancelled attempt stays cancelled: whoever ends the run decides what that means; the server sees the end."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        left.set()

    async with raw(talk) as client:
        attempt = asyncio.create_task(client.send(post(), 30))
        await asked.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await left.wait()


@pytest.mark.parametrize(
    ("status", "reachable"), [(200, True), (401, True), (404, True), (429, True), (500, False), (503, False)]
)
async def test_the_free_address_tells_whether_the_server_is_there(status: int, reachable: bool) -> None:
    """Anything but a server error is a sign of life."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status if request.path == PING else 200)

    async with serving(handler) as (client, _):
        assert await client.reachable() is reachable


async def test_preparing_is_left_to_the_encoder() -> None:
    """The body that is sent is the one that the encoder made."""
    assert await client_of("https://api.test").prepare(job(prompt="a bear")) == post(b"a bear")


# What really leaves the machine


async def test_a_request_is_what_it_should_be_and_nothing_more() -> None:
    """One POST with the body as it is, the key in one header, no cookie, and no compression asked for."""
    seen: list[tuple[web.Request, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request, await request.read()))
        response = web.Response(body=b"answer", headers={"Retry-After": "7", "X-Other": "dropped"})
        response.set_cookie("session", "tracked")
        return response

    async with serving(handler) as (client, _):
        replies = [await client.send(post(b'{"prompt": "a fox"}'), 30) for _ in range(2)]
        assert await client.reachable()
    assert [(request.method, request.path) for request, _ in seen] == [("POST", GENERATE)] * 2 + [("GET", PING)]
    for request, body in seen[:2]:
        assert body == b'{"prompt": "a fox"}'
        assert request.headers.getall("Authorization") == [f"Bearer {CANARY}"]
        assert request.headers["Accept-Encoding"] == "identity"
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["User-Agent"] == "batchgen/9"
    assert not any("Cookie" in request.headers for request, _ in seen)
    for reply in replies:
        assert isinstance(reply, Reply)
        assert (reply.status, reply.body, reply.headers["retry-after"]) == (200, b"answer", "7")
        assert "x-other" not in reply.headers
        assert 0 < reply.first_byte_s <= reply.response_s


async def test_a_server_may_have_headers_paths_and_types_of_its_own() -> None:
    """Without a key none is sent; the API's headers travel with every request, and each request has its path."""
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(body=b"{}")

    async with serving(handler) as (_, url):
        endpoint = Server(url, url + PING, Secret(""), {"api-key": "k-1", "X-Org": "team 1"})
        async with Client(endpoint, encode, user_agent="batchgen/9") as client:
            await client.send(Post("/images/edits?api-version=1", "multipart/form-data; boundary=b", b"--b--"), 30)
            await client.send(post(), 30)
            assert await client.reachable()
    assert [request.path_qs for request in seen] == ["/images/edits?api-version=1", GENERATE, PING]
    assert seen[0].headers["Content-Type"] == "multipart/form-data; boundary=b"
    for request in seen:
        assert (request.headers["api-key"], request.headers["X-Org"]) == ("k-1", "team 1")
        assert "Authorization" not in request.headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_handed_back_not_followed(status: int) -> None:
    """A redirect would send a paid request, or the key, somewhere else: it is only reported."""
    elsewhere = []

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            elsewhere.append(request)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with serving(handler) as (client, _):
        reply = await client.send(post(), 30)
        await client.reachable()
    assert (reply.status, reply.headers["location"]) == (status, "/elsewhere")
    assert elsewhere == []


async def test_the_environment_changes_neither_way_nor_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Proxies and a .netrc that happen to be there are ignored, for a paid request as for a free one."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\ndefault login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response()

    async with serving(handler) as (client, _):
        assert (await client.send(post(), 30)).status == 200
        assert await client.reachable()
    assert seen == [f"Bearer {CANARY}"] * 2


@pytest.mark.parametrize("declared", [True, False], ids=["with length", "endless"])
async def test_an_answer_larger_than_the_cap_is_not_swallowed(monkeypatch: pytest.MonkeyPatch, declared: bool) -> None:
    """Reading stops at the cap, whether the length was announced or not."""
    monkeypatch.setattr(incoming, "MAX_ANSWER_BYTES", 1 << 20)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if declared:
            response.content_length = 1 << 40
        await response.prepare(request)
        while True:
            await response.write(b"x" * (1 << 16))

    async with serving(handler) as (client, _):
        error = await failure_of(client)
    assert error.failure is Failure.BAD_ANSWER
    assert str(error).endswith("the answer is larger than 1 MiB")


async def test_words_of_our_own_need_no_class_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log says about an answer that is too large is a sentence, without the name of a Python class."""
    monkeypatch.setattr(incoming, "MAX_ANSWER_BYTES", 1 << 20)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (2 << 20))

    async with serving(handler) as (client, _):
        assert str(await failure_of(client)) == "the answer is larger than 1 MiB"


async def test_an_answer_of_just_the_cap_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap is the largest size that is accepted."""
    monkeypatch.setattr(incoming, "MAX_ANSWER_BYTES", 100_000)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 100_000)

    async with serving(handler) as (client, _):
        assert len((await client.send(post(), 30)).body) == 100_000


CUT = {
    "length": b"HTTP/1.1 %d X\r\nContent-Length: 100\r\n\r\nhalf an answer",
    "chunked": b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\ne\r\nhalf an answer\r\n",
}


def cutting(head: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()
        writer.close()

    return talk


@pytest.mark.parametrize("head", CUT.values(), ids=CUT.keys())
async def test_half_a_picture_is_none(head: bytes) -> None:
    """A success answer that ends early was paid for and is useless."""
    async with raw(cutting(head % 200)) as client:
        assert (await failure_of(client)).failure is Failure.BAD_ANSWER


@pytest.mark.parametrize("head", CUT.values(), ids=CUT.keys())
@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_a_refusal_is_one_by_its_status_however_little_of_it_arrives(head: bytes, status: int) -> None:
    """An error answer that ends early still says what it says."""
    async with raw(cutting(head % status)) as client:
        reply = await client.send(post(), 30)
    assert (reply.status, reply.body) == (status, b"half an answer")


GARBAGE = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "huge header": b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * (1 << 20) + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X-Some: header\r\n" * 50_000 + b"\r\n",
    "only continue": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_an_attempt_of_unknown_end(data: bytes) -> None:
    """Whatever a broken server says, the attempt ends as one that may have been paid for."""
    async with raw(cutting(data)) as client:
        assert (await failure_of(client)).failure in (Failure.NO_ANSWER, Failure.UNCLASSIFIED)


async def test_nobody_listens() -> None:
    """A refused connection is told as one that never reached the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with client_of(f"http://127.0.0.1:{free.getsockname()[1]}") as client:
            assert (await failure_of(client)).failure is Failure.NOT_CONNECTED
            assert await client.reachable() is False


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"], ids=["silent", "half"])
async def test_every_attempt_has_a_deadline(begin: bytes) -> None:
    """A server that never ends its answer is left at the deadline, and the message says how long was waited."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        await reader.read()

    async with raw(talk) as client:
        error = await failure_of(client, 0.05)
    assert error.failure is Failure.NO_ANSWER
    assert str(error) == "no whole answer within 0.05 s"


# Connections

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    """A server that closes an idle connection costs no request: the next one opens another."""
    let_go = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WHOLE)
        writer.write_eof()
        assert await reader.read() == b"", "nothing more may come over this connection"
        let_go.set()

    async with raw(talk) as client:
        for _ in range(3):
            assert (await client.send(post(), 30)).body == b"ok"
            await let_go.wait()
            let_go.clear()


@pytest.mark.parametrize(("keepalive_s", "connections"), [(60.0, 1), (1e-9, 3)], ids=["busy", "idle"])
async def test_only_a_connection_that_was_just_busy_is_used_again(
    monkeypatch: pytest.MonkeyPatch, keepalive_s: float, connections: int
) -> None:
    """A connection that has idled too long is closed instead of being trusted once more."""
    monkeypatch.setattr(origin, "KEEPALIVE_S", keepalive_s)
    peers = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        writer.write(WHOLE)
        await writer.drain()

    async with raw(talk) as client:
        for _ in range(3):
            await client.send(post(), 30)
    assert len(peers) == connections


async def test_a_connection_is_not_used_again_before_a_whole_request_has_left() -> None:
    """A server that refuses a large request early may never read its rest: the next job is not sent after it."""
    peers = set()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, client_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        for body in (bytes(16 << 20), b"{}"):
            assert (await client.send(post(body), 30)).status == 413
    assert len(peers) == 2


async def test_a_server_that_hangs_up_with_the_handshake_was_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that TLS tells of together with the connection comes before the request: it cannot have been paid for."""

    class HangUp(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()

    sides = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for side in sides:
        side.maximum_version = ssl.TLSVersion.TLSv1_2  # in which the server's is the last word of a handshake
        side.set_ciphers("AECDH:@SECLEVEL=0")  # without a certificate
        side.check_hostname, side.verify_mode = False, ssl.CERT_NONE
    monkeypatch.setattr(Origin, "_context", sides[1])
    server = await asyncio.get_running_loop().create_server(HangUp, "127.0.0.1", 0, ssl=sides[0])
    async with server, client_of(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        assert (await failure_of(client)).failure is Failure.NOT_CONNECTED


# Names


async def test_a_look_up_that_fails_too_late_is_nobodys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all have given up waiting for a name, its failure is told to nobody: cron would mail it."""
    told: list[object] = []
    hanging = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        hanging.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    server = Origin("http://api.test")
    with pytest.raises(TimeoutError):
        await server.connection(0.01)
    found = server._found
    assert found is not None
    hanging.set()
    await asyncio.wait([found])
    found.__del__()  # what the collector would do
    assert told == []


async def test_an_address_that_is_no_name_needs_no_network_of_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 is reached also where the machine has IPv6 alone, where the system knows no such address by default."""
    look_up = socket.getaddrinfo

    def without_ipv4(*args: Any, **others: Any) -> Any:
        if others["flags"] & socket.AI_ADDRCONFIG:
            raise socket.gaierror(socket.EAI_FAMILY, "Address family for hostname not supported")
        return look_up(*args, **others)

    async with serving(_nothing) as (client, _):
        monkeypatch.setattr(socket, "getaddrinfo", without_ipv4)
        assert (await client.send(post(b"{}"), 30)).status == 200


async def test_clients_of_two_threads_receive_apart() -> None:
    """A program may have runs in several threads: what one receives is never written over by another's answer."""
    async with serving(_nothing) as (one, _), serving(_nothing) as (two, _):
        rooms = []
        for client in (one, two):
            await client.send(post(), 30)
            (connection,) = client._origin._open
            rooms.append(connection.get_buffer(-1))
    rooms[0][:] = bytes(len(rooms[0]))
    rooms[1][:] = b"x" * len(rooms[1])
    assert not any(rooms[0])


async def test_a_large_answer_whose_server_closes_at_once_is_whole() -> None:
    """Eight MiB followed by the end of the connection are a picture, not half of one."""
    body = b"x" * (8 << 20)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with raw(talk) as client:
        assert (await client.send(post(), 30)).body == body


@pytest.mark.parametrize(
    "echo",
    [f"HTTP/1.1 {CANARY}\r\n\r\n", f"HTTP/1.1 200 OK\r\nContent-Encoding: {CANARY}\r\nContent-Length: 0\r\n\r\n"],
    ids=["status", "encoding"],
)
async def test_a_server_that_echoes_the_key_is_quoted_without_it(echo: str) -> None:
    """What is said about a broken answer may quote it, and the quotation loses the key, all of it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(echo.encode())
        await writer.drain()
        writer.close()

    async with raw(talk) as client:
        error = await failure_of(client)
    assert CANARY[:8] not in str(error)
    assert "\n" not in str(error) and json.dumps(str(error))
