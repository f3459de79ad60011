"""Object stores on 127.0.0.1 for tests: moto, nanio (which checks signatures), and a proxy that makes trouble.

By hand: `python tests/stores.py moto|nanio`, which prints what to export and serves until it is interrupted.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

BUCKET = "pictures"
ACCESS, SECRET = "TESTACCESSKEY", "test-secret-0123456789"
HOST = "127.0.0.1"


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """moto's S3, with an empty bucket; takes any key. Its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        connection = http.client.HTTPConnection(host, port)
        connection.request("PUT", f"/{BUCKET}", headers={"Content-Length": "0"})
        assert connection.getresponse().status == 200
        connection.close()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def nanio() -> Iterator[str]:
    """nanio, with an empty bucket; checks signatures. Its URL."""
    import uvicorn
    from nanio.app import build_app
    from nanio.auth.credentials import StaticCredentialResolver
    from nanio.config import Settings

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / BUCKET).mkdir()
        settings = Settings(
            data_dir=Path(folder), host=HOST, access_log=False, credentials=StaticCredentialResolver({ACCESS: SECRET})
        )
        config = uvicorn.Config(build_app(settings), host=HOST, port=0, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://{HOST}:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def google() -> Iterator[str]:
    """moto behind the names that Google's XML API has for S3's headers, with an empty bucket; takes any token. Its URL.

    Google: "Cloud Storage XML API, interoperability with Amazon S3". What emulators of Google's store know is the JSON
    API, which obstore does not use for objects.
    """
    with moto() as url, Proxy(url, dialect=("x-goog-", "x-amz-")) as proxy:
        yield proxy.url


SERVERS = {"moto": moto, "nanio": nanio}


@dataclass(frozen=True)
class Fault:
    """An answer instead of the store's own: a status with an XML error, or none at all after `wait_s`."""

    status: int = 0
    code: str = ""
    message: str = ""
    wait_s: float = 0.0

    @property
    def body(self) -> bytes:
        return (
            f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode() if self.code else b""
        )


SLOW_DOWN = Fault(503, "SlowDown", "Please reduce your request rate.")
HANG_UP = Fault()


@dataclass
class Proxy:
    """A way to a store that does to each request what `rule(method, path)` says; None lets it through.

    `dialect` says how headers begin that are called otherwise on this side and on that of the store.
    """

    target: str = ""
    rule: Callable[[str, str], Fault | None] = lambda method, path: None
    dialect: tuple[str, str] = ("", "")
    seen: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def count(self, method: str, part: str = "") -> int:
        return sum(m == method and part in path for m, path in self.seen)

    def __enter__(self) -> Proxy:
        self._server = ThreadingHTTPServer((HOST, 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.proxy.seen.append((self.command, self.path))
        self.proxy.headers.append(dict(self.headers))
        if fault := self.proxy.rule(self.command, self.path):
            time.sleep(fault.wait_s)
            if not fault.status:
                self.close_connection = True
                return
            self._answer(fault.status, {"ETag": '"x"'}, fault.body)
            return
        parts = urlsplit(self.proxy.target)
        there = http.client.HTTPConnection(parts.hostname or "", parts.port)
        # The host is signed.
        there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        here, far = self.proxy.dialect
        for name, value in self.headers.items():
            if name == "x-goog-if-generation-match":
                name, value = "If-None-Match", "*"
            elif name == "authorization" and here:
                value = f"AWS {ACCESS}:signature"
            there.putheader(name.replace(here, far, 1), value)
        there.endheaders(body)
        answer = there.getresponse()
        headers = {name.lower().replace(far, here, 1): value for name, value in answer.getheaders()}
        self._answer(answer.status, headers, answer.read())
        there.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            left_out = {"transfer-encoding", "connection", "date", "server"}
            if self.command != "HEAD":
                left_out.add("content-length")
                self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                if name.lower() not in left_out:
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = do_any


def env(url: str, secret: str = SECRET) -> dict[str, str]:
    """The variables that lead to the server, Nebula's own."""
    return {"NEBULA_ACCESS_KEY": ACCESS, "NEBULA_SECRET_KEY": secret, "NEBULA_ENDPOINT": url}


def main() -> None:
    with SERVERS[sys.argv[1]]() as url:
        sys.stdout.write("".join(f"export {name}={value}\n" for name, value in env(url).items()))
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
