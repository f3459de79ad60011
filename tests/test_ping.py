"""Pings: what arrives at a real server, and that neither a bad server nor a secret token does any harm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from batchgen.model import Secret
from batchgen.ping import BODY_BYTES, Ping, address

TOKEN = "5ecret-70ken"


class Switch(ThreadingHTTPServer):
    """A dead man's switch on a port of its own: keeps what it heard, and answers with `codes`, then with 200."""

    daemon_threads = True

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.heard: list[tuple[str, str, str, bytes]] = []
        self.release = threading.Event()
        self.release.set()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{TOKEN}"

    @property
    def steps(self) -> list[str]:
        return [path.rpartition("/")[2] for _, path, _, _ in self.heard]


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = urlsplit(self.path)
        server.heard.append((self.command, parts.path, parse_qs(parts.query)["rid"][0], body))
        server.release.wait(30)
        self.send_response(server.codes.pop(0) if server.codes else 200)
        self.end_headers()

    do_GET = do_POST = _answer

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def switch() -> Iterator[type[Switch]]:
    opened: list[Switch] = []

    class Opened(Switch):
        def __init__(self, *codes: int) -> None:
            super().__init__(*codes)
            opened.append(self)

    yield Opened
    for server in opened:
        server.release.set()
        server.shutdown()
        server.server_close()


def ping(url: str) -> Ping:
    return Ping(Secret(url), "the-rid", "batchgen/test", pauses_s=(0.0, 0.0))


def test_a_run_is_told_from_its_start_to_its_end(switch: type[Switch]) -> None:
    """`start` without a body, then the exit code with the summary, in this order and with one rid."""
    server = switch()
    told = ping(server.url)
    told.begin()
    told.end(4, "12 of 20 jobs are left\n  schön")
    assert server.heard == [
        ("GET", f"/{TOKEN}/start", "the-rid", b""),
        ("POST", f"/{TOKEN}/4", "the-rid", "12 of 20 jobs are left\n  schön".encode()),
    ]
    assert told.failures == {} and not told.refused


def test_what_goes_wrong_in_passing_is_tried_again(switch: type[Switch]) -> None:
    """A server that is busy hears it with the third try, and nothing is said."""
    server = switch(503, 429)
    told = ping(server.url)
    told.end(0, "fine")
    assert server.steps == ["0", "0", "0"] and told.failures == {}


def test_a_wrong_address_is_told_once(switch: type[Switch]) -> None:
    """Nobody is asked three times for a page that is not there."""
    server = switch(404)
    told = ping(server.url)
    told.end(0, "fine")
    assert server.steps == ["0"] and told.failures == {"0": "HTTP 404"} and told.refused


def test_a_long_summary_is_cut(switch: type[Switch]) -> None:
    """A body holds 10 kB at most, and whole letters."""
    server = switch()
    ping(server.url).end(3, "ü" * BODY_BYTES)
    body = server.heard[0][3]
    assert BODY_BYTES - 5 < len(body) <= BODY_BYTES and set(body.decode()) == {"ü", "…"}


def test_nobody_there_is_a_failure_without_the_token() -> None:
    """What went wrong is told in words that cannot hold the URL."""
    told = ping(f"http://127.0.0.1:9/{TOKEN}")
    told.begin()
    told.end(0, "fine")
    assert told.failures["0"] == "Connection refused" and TOKEN not in repr((told.failures, vars(told)))


@pytest.mark.parametrize("url", [f"http://127.0.0.1:99999/{TOKEN}", f"http://\x7f/{TOKEN}", f"http://[::1/{TOKEN}"])
def test_an_address_that_cannot_be_never_raises(url: str) -> None:
    """Whatever the library makes of it, a ping fails quietly and without the token."""
    told = ping(url)
    told.end(0, "fine")
    assert list(told.failures) == ["0"] and TOKEN not in str(told.failures)


def test_who_is_impatient_does_not_wait(switch: type[Switch]) -> None:
    """A server that takes the request and never answers is left alone when the user says so."""
    server = switch()
    server.release.clear()
    told = ping(server.url)
    told.begin()
    told.end(0, "fine", impatient=lambda: True)
    assert told.failures == {"0": "no answer"}


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://p.example/a/", "https://p.example/a/start?rid=r"),
        ("https://p.example", "https://p.example/start?rid=r"),
        ("https://p.example/a?x=1", "https://p.example/a/start?x=1&rid=r"),
    ],
)
def test_where_a_step_is_told(url: str, found: str) -> None:
    """The step goes behind the path, the rid into the query, and what was there stays."""
    assert address(Secret(url), "start", "r") == found
