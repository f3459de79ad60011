"""The fault matrix of the reliability page, rows 1-44 and what of 72-80 concerns running, against real sockets.

Each test names its row. After every run the folder is audited: sums, pictures, log, no key anywhere. What takes long
is in `test_pool`, on virtual time.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faultserver import (
    HTML,
    JSON_TYPE,
    MODEL,
    Act,
    FaultServer,
    Seen,
    after,
    always,
    and_fin,
    answer_body,
    body,
    chunked,
    cut_short,
    endless,
    endless_continue,
    gzip_bomb,
    hang_up,
    nth,
    ok,
    ok_then_close,
    on,
    once,
    picture,
    reset,
    silence,
    status,
    trickle,
)
from PIL import Image

from batchgen.flags import Flags
from batchgen.model import UsageError
from batchgen.runner.conduct import run as run_session
from batchgen.runner.context import Voice
from batchgen.runner.session import open_session
from batchgen.summary import Summary

KEY = "ak_canary-5ecretc0ffee0123456789"
GOOD_BAD = ("good", "bad", "other")


@dataclass
class Ended:
    """A run that has ended, and what it left behind."""

    output: Path
    summary: Summary

    @property
    def log(self) -> dict[str, dict[str, Any]]:
        """The entries of the job log by job."""
        path = self.output / "log.jsonl"
        lines = path.read_text("utf-8").split("\n") if path.exists() else [""]
        assert lines.pop() == "", "the log ends with a whole line"
        return {entry["job"]: entry for entry in map(json.loads, lines)}

    @property
    def outcomes(self) -> dict[str, str]:
        return {job: entry["outcome"] for job, entry in self.log.items()}

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The ended attempts of jobs that are still pending."""
        lines = (self.output / ".batchgen/attempts.jsonl").read_text("utf-8").splitlines()
        return [note["attempt"] for note in map(json.loads, lines) if note["type"] == "ended"]

    def failures(self, job: str) -> list[str]:
        return [attempt["failure"] for attempt in self.log[job]["attempts"] if "failure" in attempt]

    @property
    def pictures(self) -> list[str]:
        folder = self.output / "images"
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Desk:
    """Where a user sits: a manifest, an output folder, a key in the environment."""

    def __init__(self, root: Path) -> None:
        self.root, self.output, self.manifest = root, root / "out", root / "night.jsonl"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "XDG_STATE_HOME": str(root / "state"),
            "NEBULA_API_KEY": KEY,
        }

    def write(self, prompts: Sequence[str], **fields: Any) -> None:
        """A manifest with a job for each prompt, named after it."""
        rows = [{"id": prompt, "prompt": prompt, "model": MODEL, **fields} for prompt in prompts]
        self.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))

    async def run(self, server: FaultServer | str, prompts: Sequence[str] | None = None, **flags: Any) -> Ended:
        """One run in this process, audited."""
        if prompts is not None:
            self.write(prompts)
        url = server if isinstance(server, str) else server.url
        posts = 0 if isinstance(server, str) else server.ledger.posts
        ended = Ended(self.output, await self.unaudited(url, **flags))
        self.audit(ended)
        if isinstance(server, FaultServer):
            assert ended.summary.requests >= server.ledger.posts - posts, "every request that arrived was counted"
        return ended

    async def unaudited(self, url: str, **flags: Any) -> Summary:
        said: dict[str, Any] = {"concurrency": 3, "output": self.output, "api": "nebula", "api_url": url} | flags
        return await run_session(open_session(Flags.of(self.manifest, **said), self.env), Voice(quiet=True))

    async def command(self, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        """The real command in a process of its own; its exit code and all it said."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "batchgen.cli", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            stdin=asyncio.subprocess.DEVNULL,
            env=self.env | (env or {}),
            cwd=self.root,
        )
        try:
            async with asyncio.timeout(50):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return process.returncode, said.decode("utf-8", "surrogateescape")

    async def batchgen_run(self, server: FaultServer | str, *arguments: str, **kwargs: Any) -> tuple[int, str]:
        url = server if isinstance(server, str) else server.url
        where = ("run", str(self.manifest), "-o", str(self.output), "--api", "nebula", "--api-url", url)
        return await self.command(*where, *arguments, **kwargs)

    def audit(self, ended: Ended) -> None:
        """What holds after every run, whatever the server did."""
        found = ended.summary
        assert found.done + found.failed + found.uncertain + found.pending == found.selected
        in_log = [image["file"] for entry in ended.log.values() for image in entry["images"]]
        assert sorted(in_log) == [f"images/{name}" for name in ended.pictures]
        for name in ended.pictures:
            with Image.open(ended.output / "images" / name) as image:
                image.load()
        assert not list((ended.output / ".batchgen/tmp").iterdir())
        for entry in ended.log.values():
            assert (entry["outcome"] == "done") == bool(entry["images"])
        written = json.loads((ended.output / "summary.json").read_text("utf-8"))
        assert written["exit_code"] == found.exit_code
        self.assert_no_key()

    def assert_no_key(self) -> None:
        for path in [*self.output.rglob("*"), *(self.root / "state").rglob("*")]:
            if path.is_file():
                assert KEY[3:20].encode() not in path.read_bytes(), path


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def error(message: Any = "computer says no", code: Any = None) -> bytes:
    """An error in the API's long shape."""
    return json.dumps({"status": "error", "error": {"code": code, "message": message, "details": {}}}).encode()


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header claims what it likes, with checksums that hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", data or zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def noise(format: str, size: int) -> bytes:
    """A picture that does not compress."""
    file = io.BytesIO()
    Image.frombytes("RGB", (size, size), os.urandom(size * size * 3)).save(file, format)
    return file.getvalue()


def pixels(file: Path | io.BytesIO) -> bytes:
    """What a picture shows, whatever else it carries."""
    with Image.open(file) as found:
        return found.tobytes()


def cut(data: bytes, part: float = 0.9) -> bytes:
    return data[: int(len(data) * part)]


# Rows 1 to 6: no whole answer

NO_ANSWER: dict[str, tuple[Act, str]] = {
    "row1-close-without-bytes": (hang_up(), "no_answer"),
    "row2-rst-after-request": (reset(after_headers=False), "no_answer"),
    "row2-rst-after-headers": (reset(), ""),
    "row4-row43-never-answer": (silence(), "no_answer"),
    "row5-a-byte-now-and-then": (trickle(0.2), "no_answer"),
    "row6-endless-100-continue": (endless_continue(), "no_answer"),
}


@pytest.mark.parametrize(("fate", "failure"), NO_ANSWER.values(), ids=NO_ANSWER)
async def test_an_answer_that_never_comes_parks_its_job(desk: Desk, fate: Act, failure: str) -> None:
    """Rows 1-6, 43: unknown, so with no ration one request, then parked as uncertain; the deadline fires, no hang."""
    async with FaultServer(on("bad", fate)) as server:
        ended = await desk.run(server, GOOD_BAD, uncertain_retries=0, timeout_s=2)
    assert server.ledger.by_prompt == {"good": 1, "bad": 1, "other": 1}
    assert ended.outcomes == {"good": "done", "bad": "uncertain", "other": "done"}
    assert ended.summary.exit_code == 3
    assert ended.log["bad"]["billed"] in ("maybe", "yes")
    assert not failure or ended.failures("bad") == [failure]


async def test_row3_a_kept_connection_that_the_server_closes_loses_nothing(desk: Desk) -> None:
    """Row 3: an idle connection that was closed is not used again; each job is sent once and done."""
    async with FaultServer(always(ok_then_close(0.2))) as server:
        ended = await desk.run(server, GOOD_BAD, requests_per_minute=120, uncertain_retries=0)
    assert ended.summary.exit_code == 0
    assert server.ledger.by_prompt == dict.fromkeys(GOOD_BAD, 1)
    assert len({seen.connection for seen in server.ledger.requests}) == 3


async def test_row3_a_connection_that_dies_as_it_is_used_again_doubles_nothing(desk: Desk) -> None:
    """Row 3: the request that met a dying connection is not sent again behind our back by the library."""
    used: set[int] = set()

    def scenario(seen: Seen) -> Act:
        stale = seen.connection in used
        used.add(seen.connection)
        return reset(after_headers=False) if stale else ok()

    async with FaultServer(scenario) as server:
        ended = await desk.run(server, ("a", "b", "c"), concurrency=1, uncertain_retries=0)
    assert server.ledger.posts == 3
    assert ended.summary.done + ended.summary.uncertain == 3


# Rows 7 to 22: answers that are paid for and of no use, and those that only look so

_JPEG, _WEBP = noise("JPEG", 64), noise("WEBP", 64)
_GOOD = base64.b64encode(picture("x")).decode()
USELESS: dict[str, Act] = {
    "row7-shorter-than-announced": cut_short(),
    "row8-chunks-cut-short": chunked(whole=False),
    "row9-empty": body(b""),
    "row9-null": body(b"null"),
    "row9-list": body(b"[]"),
    "row9-text": body(b'"x"'),
    "row9-huge-number": body(b"1e999"),
    "row9-nan": body(b"NaN"),
    "row9-data-null": body(b'{"status": "success", "data": null}'),
    "row9-data-text": body(b'{"status": "success", "data": "x"}'),
    "row9-b64-number": body(b'{"status": "success", "data": [{"b64_json": 17}]}'),
    "row9-b64-null": body(b'{"status": "success", "data": [{"b64_json": null}]}'),
    "row9-half-json": body(cut(answer_body(picture("x")), 0.5)),
    "row10-deep-lists": body(b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "row10-deep-objects": body(b'{"data": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"),
    "row10-deep-elsewhere": body(b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "data": []}'),
    "row11-a-million-digits": body(b'{"data": ' + b"9" * 1_000_000 + b"}"),
    "row12-endless": endless(),
    "row13-gzip-bomb": gzip_bomb(),
    "row13-gzip-in-gzip": gzip_bomb(2),
    "row13-brotli": body(b"\x1b\x03)\x00\x00\xa4\xe2?,i", [JSON_TYPE, ("Content-Encoding", "br")]),
    "row13-zstd": body(b"\x28\xb5\x2f\xfd\x04\x00\x01\x00", [JSON_TYPE, ("Content-Encoding", "zstd")]),
    "row13-broken-gzip": body(b"\x1f\x8b\x08nothing", [JSON_TYPE, ("Content-Encoding", "gzip")]),
    "row17-junk-in-base64": body(answer_body(_GOOD[:40] + "!*§" + _GOOD[40:])),
    "row17-empty-base64": body(answer_body("")),
    "row17-base64-of-base64": body(answer_body(base64.b64encode(_GOOD.encode()).decode())),
    "row18-jpeg-cut": body(answer_body(cut(_JPEG))),
    "row18-png-cut": body(answer_body(cut(noise("PNG", 64)))),
    "row18-webp-cut": body(answer_body(cut(_WEBP))),
    "row18-only-magic": body(answer_body(b"\x89PNG\r\n\x1a\n")),
    "row19-huge-claim": body(answer_body(png(60_000, 60_000))),
    "row19-no-pixels": body(answer_body(png(0, 10))),
    "row20-svg": body(answer_body(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")),
    "row20-html": body(answer_body(HTML)),
    "row20-elf": body(answer_body(b"\x7fELF" + bytes(200))),
    "row20-gif": body(answer_body(noise("GIF", 8))),
    "row20-url-instead": body(b'{"status": "success", "data": [{"url": "http://127.0.0.1:1/x.png"}]}'),
    "row22-no-image": body(answer_body()),
    "row22-second-image-broken": body(answer_body(picture("x"), b"nothing")),
}


@pytest.mark.parametrize("fate", USELESS.values(), ids=USELESS)
async def test_a_useless_answer_is_never_a_picture(desk: Desk, fate: Act) -> None:
    """Rows 7-22: no crash, no picture, paid for and said so, one request where the ration is 0; others are done."""
    async with FaultServer(on("bad", fate)) as server:
        ended = await desk.run(server, GOOD_BAD, uncertain_retries=0, timeout_s=20)
        again = await desk.run(server, uncertain_retries=0)
    assert server.ledger.by_prompt == {"good": 1, "bad": 1, "other": 1}
    assert ended.outcomes == {"good": "done", "bad": "uncertain", "other": "done"}
    assert ended.pictures == ["good.png", "other.png"]
    assert (ended.summary.exit_code, again.summary.exit_code) == (3, 3)
    assert ended.log["bad"]["billed"] in ("yes", "maybe")
    assert ended.failures("bad")[0] in ("bad_answer", "unclassified")


async def test_useless_answers_of_every_kind_cost_one_extra_request_each(desk: Desk) -> None:
    """Rows 7-22 with the default ration: exactly two paid requests for each bad job, parked, exit 3."""
    slow = ("row12-endless", "row13-gzip-bomb", "row13-gzip-in-gzip")
    fates = {name: fate for name, fate in USELESS.items() if name not in slow}
    prompts = [prompt for name in fates for prompt in (f"good-{name}", name)]
    async with FaultServer(lambda seen: fates.get(seen.prompt, ok())) as server:
        ended = await desk.run(server, prompts, concurrency=50)
    assert ended.summary.exit_code == 3
    assert {name: ended.outcomes[name] for name in fates} == dict.fromkeys(fates, "uncertain")
    assert {name: server.ledger.by_prompt[name] for name in fates} == dict.fromkeys(fates, 2)
    assert ended.summary.done == len(fates)


async def test_a_picture_that_does_not_decode_is_told_by_the_full_check_alone(desk: Desk) -> None:
    """A whole PNG whose pixels are nonsense passes by structure; `check="full"` finds it, and it is quarantined."""
    spoilt = on("spoilt", body(answer_body(png(8, 8, b"no pixels"))))
    async with FaultServer(spoilt) as server:
        full = await desk.run(server, ["good", "spoilt"], check="full", uncertain_retries=0)
        assert full.outcomes == {"good": "done", "spoilt": "uncertain"}
        assert "cannot be decoded" in full.log["spoilt"]["attempts"][0]["message"]
        assert len(list((desk.output / ".batchgen/quarantine").iterdir())) == 1
        assert (await desk.unaudited(server.url, retry=["uncertain"])).done == 2


FINE: dict[str, Act] = {
    "row7b-8-mib-and-fin": and_fin(answer_body(noise("PNG", 1500))),
    "row8-chunks-whole": chunked(whole=True),
    "row14-text-html": body(answer_body(picture("x")), [("Content-Type", "text/html")]),
    "row14-image-png": body(answer_body(picture("x")), [("Content-Type", "image/png")]),
    "row14-no-type": body(answer_body(picture("x")), []),
    "row14-broken-type": body(answer_body(picture("x")), [("Content-Type", ";;;=")]),
    "row15-utf-16": body(answer_body(picture("x")), [("Content-Type", "application/json; charset=utf-16")]),
    "row15-bogus-charset": body(answer_body(picture("x")), [("Content-Type", "application/json; charset=bogus")]),
    "row17-data-prefix": body(answer_body("data:image/png;base64," + _GOOD)),
    "row17-whitespace": body(answer_body("\r\n".join([_GOOD[:30], _GOOD[30:60], " \t" + _GOOD[60:]]))),
    "row17-url-safe": body(answer_body(base64.urlsafe_b64encode(_JPEG).decode())),
    "row17-no-padding": body(answer_body(_GOOD.rstrip("="))),
    "row17-escaped-slashes": body(answer_body(picture("x")).replace(b"/", b"\\/")),
    "jpeg": body(answer_body(_JPEG)),
    "webp": body(answer_body(_WEBP)),
    "unknown-fields": body(answer_body(picture("x"), extra={"deep": [1, 2]}, status=None)),
    "row22-timings-missing": body(json.dumps({"data": [{"b64_json": _GOOD}]}).encode()),
    "row31-cookies": body(
        answer_body(picture("x")), [JSON_TYPE, *(("Set-Cookie", f"c{n}={'x' * 100}") for n in range(50))]
    ),
}


@pytest.mark.parametrize("fate", FINE.values(), ids=FINE)
async def test_an_odd_answer_with_a_whole_picture_is_kept(desk: Desk, fate: Act) -> None:
    """Rows 7b, 14, 15, 17, 31: it was paid for, and the picture is whole, so it is kept."""
    async with FaultServer(on("bad", fate)) as server:
        ended = await desk.run(server, GOOD_BAD, uncertain_retries=0)
    assert ended.outcomes == dict.fromkeys(GOOD_BAD, "done")
    assert server.ledger.posts == 3
    assert all("cookie" not in seen.headers for seen in server.ledger.requests)


async def test_row21_another_size_than_asked_for_is_kept_and_noted(desk: Desk) -> None:
    """Row 21: the picture is paid for; the log says what is odd about it."""
    desk.write(["a"], width=32, height=32)
    async with FaultServer() as server:
        ended = await desk.run(server)
    assert ended.summary.exit_code == 0
    assert ended.log["a"]["notes"] == ["the picture is 16 x 16, asked for was 32 x 32"]


async def test_row22_two_pictures_for_one_request_are_both_kept_and_noted(desk: Desk) -> None:
    """Row 22: further pictures of one answer are <id>~<index>, and the log says so."""
    async with FaultServer(always(body(answer_body(picture("x"), picture("y"))))) as server:
        ended = await desk.run(server, ["a"])
    assert ended.pictures == ["a.png", "a~1.png"]
    assert "2 pictures came for one request" in ended.log["a"]["notes"]
    assert ended.summary.exit_code == 0


async def test_row12_a_refusal_without_end_is_still_a_refusal(desk: Desk) -> None:
    """Rows 12, 25: a 401 is one by its status, however much text comes with it."""
    async with FaultServer(always(endless(401))) as server:
        ended = await desk.run(server, GOOD_BAD, timeout_s=20, uncertain_retries=0)
    assert ended.summary.exit_code == 6
    assert server.ledger.posts == 1


async def test_a_useless_answer_for_a_long_id_stays_that_jobs_own_affair(desk: Desk) -> None:
    """Promise 20: the answer goes to quarantine whatever the job is called, and nobody else is hurt."""
    name = "/".join(["n" * 150, "i" * 150])
    async with FaultServer(on(name, body(b"null"))) as server:
        ended = await desk.run(server, ["good", name, "other"], uncertain_retries=0)
    assert ended.outcomes == {"good": "done", name: "uncertain", "other": "done"}
    assert ended.summary.exit_code == 3


# Rows 23 and 24: every refusal in every shape

SHAPES: dict[str, tuple[bytes, list[tuple[str, str]]]] = {
    "short": (b'{"status": "failed", "message": "computer says no"}', [JSON_TYPE]),
    "long": (error(code="E_NO"), [JSON_TYPE]),
    "html": (HTML, [("Content-Type", "text/html")]),
    "empty": (b"", []),
}
REFUSALS: dict[int, tuple[str, int]] = {
    # how the job ends and the exit code; answers come at once, so 5xx were no generations
    400: ("failed", 3),
    401: ("pending", 6),
    402: ("pending", 6),
    403: ("failed", 3),
    404: ("failed", 3),
    409: ("failed", 3),
    413: ("failed", 3),
    422: ("failed", 3),
    500: ("pending", 4),
    502: ("pending", 4),
    503: ("pending", 4),
    504: ("pending", 4),
    520: ("pending", 4),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("code", REFUSALS, ids=[f"row23-{code}" for code in REFUSALS])
async def test_a_refusal_is_sent_once(desk: Desk, code: int, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 23: exactly one request (attempts: 1), the job ends as table (b) says, the exit code too."""
    monkeypatch.setattr("batchgen.failures.TOO_FAST_S", 30.0)  # also where this machine is busy
    ends, exit_code = REFUSALS[code]
    data, headers = SHAPES[shape]
    async with FaultServer(on("bad", status(code, data, headers))) as server:
        ended = await desk.run(server, GOOD_BAD, attempts=1, uncertain_retries=0)
    assert server.ledger.by_prompt["bad"] == 1
    assert ended.outcomes.get("bad", "pending") == ends
    assert ended.summary.exit_code == exit_code
    [attempt] = ended.log["bad"]["attempts"] if ends == "failed" else ended.attempts
    assert attempt["http"] == code
    assert len(attempt["message"]) <= 500 and attempt["message"].isprintable()


@pytest.mark.parametrize(
    ("code", "shape"),
    [(500, "html"), (502, "empty"), (504, "html"), (520, "empty")],
    ids=lambda value: str(value),
)
async def test_a_proxy_error_that_took_as_long_as_a_picture_is_unknown(desk: Desk, code: int, shape: str) -> None:
    """Row 23: a slow 5xx without the API's shape may have been paid for: rationed, then parked."""
    data, headers = SHAPES[shape]
    async with FaultServer(on("bad", status(code, data, headers, after_s=0.55))) as server:
        ended = await desk.run(server, GOOD_BAD, uncertain_retries=0)
    assert server.ledger.by_prompt["bad"] == 1
    assert ended.outcomes["bad"] == "uncertain"
    assert (ended.log["bad"]["billed"], ended.summary.exit_code) == ("maybe", 3)


@pytest.mark.parametrize("shape", ["long", "html"])
async def test_row23_a_rate_limit_delays_and_costs_nothing(desk: Desk, shape: str) -> None:
    """Row 23: after a 429 everybody pauses, and the job is done at its second request."""
    data, headers = SHAPES[shape]
    async with FaultServer(once("bad", status(429, data, [*headers, ("Retry-After", "0")]))) as server:
        ended = await desk.run(server, GOOD_BAD, attempts=1, uncertain_retries=0)
    assert ended.summary.exit_code == 0
    assert server.ledger.by_prompt == {"good": 1, "bad": 2, "other": 1}
    assert ended.failures("bad") == ["rate_limited"]


_ODD_ERRORS: dict[str, bytes] = {
    "code-int": error(code=17),
    "code-null": error(code=None),
    "code-list": error(code=["a", 1]),
    "code-dict": error(code={"a": 1}),
    "message-dict": error({"why": "no"}),
    "message-null": error(None),
    "message-1-mb": error("no" * 500_000),
    "message-list": json.dumps({"status": "failed", "message": ["a", "b"]}).encode(),
    "detail": json.dumps({"detail": [{"loc": ["body"], "msg": "field required"}]}).encode(),
    "error-text": b'{"error": "no"}',
    "error-null": b'{"error": null}',
    "deep": b'{"error": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "row16-invalid-utf-8": b'{"status": "failed", "message": "caf\xe9 \xff\xfe ferm\xe9"}',
    "row33-terminal": error("\x1b[2J\x1b]52;c;aGk=\x07 a\rb\x00 \u202egnp.exe\u2066 \u2028 line\nline \x9b31m"),
    "row34-script": error("<script>alert(1)</script>"),
    "row34-formula": error('=HYPERLINK("http://127.0.0.1")'),
}


@pytest.mark.parametrize("data", _ODD_ERRORS.values(), ids=[f"row24-{name}" for name in _ODD_ERRORS])
async def test_an_odd_error_is_one_harmless_line(desk: Desk, data: bytes) -> None:
    """Rows 16, 24, 33, 34: whatever an error holds, the log has one intact line with a short, printable message."""
    async with FaultServer(on("bad", status(400, data, [JSON_TYPE]))) as server:
        ended = await desk.run(server, GOOD_BAD)
    assert server.ledger.by_prompt["bad"] == 1
    [attempt] = ended.log["bad"]["attempts"]
    assert attempt["failure"] == "bad_request"
    assert attempt["message"].isprintable() and 0 < len(attempt["message"]) <= 500
    assert (ended.output / "log.jsonl").read_bytes().count(b"\n") == 3


async def test_row33_escapes_reach_no_terminal(desk: Desk) -> None:
    """Row 33: nothing that could drive a terminal is said, whatever the server's message holds."""
    desk.write(GOOD_BAD)
    async with FaultServer(on("bad", status(422, _ODD_ERRORS["row33-terminal"]))) as server:
        code, said = await desk.batchgen_run(server, "--verbose")
    assert code == 3
    assert all(char.isprintable() or char == "\n" for char in said)


# Row 25 and the canary: an account that is refused

BAD_KEY = status(401, b'{"status": "failed", "message": "Invalid API key"}', [JSON_TYPE])


@pytest.mark.parametrize(
    ("code", "exit_code"), [(401, 6), (402, 6), (403, 6), (404, 2)], ids=["401", "402", "403", "404"]
)
async def test_row25_what_is_wrong_for_all_costs_one_request(desk: Desk, code: int, exit_code: int) -> None:
    """A bad key, balance, permission or address: one request, nothing failed, the code that says whose turn it is."""
    desk.write([f"job-{n}" for n in range(20)])
    async with FaultServer(always(status(code, error()))) as server:
        got, said = await desk.batchgen_run(server, "--concurrency", "8")
    assert (got, server.ledger.posts) == (exit_code, 1)
    assert KEY not in said


async def test_row25_a_key_that_dies_at_the_50th_request(desk: Desk) -> None:
    """Row 25: at most C more requests, exit 6, the rest pending; with a good key the next run does exactly the rest."""
    prompts = [f"job-{n}" for n in range(90)]
    async with FaultServer(after(49, BAD_KEY)) as server:
        ended = await desk.run(server, prompts, concurrency=4)
        assert server.ledger.posts <= 49 + 4
        assert ended.summary.exit_code == 6
        assert (ended.summary.done, ended.summary.pending, ended.summary.failed) == (49, 41, 0)
        server.scenario = always(ok())
        ended = await desk.run(server, concurrency=4)
    assert ended.summary.exit_code == 0
    assert set(server.ledger.paid.values()) == {1}


# Rows 26, 28, 29: pauses and the day's quota over the wire


async def test_row26_a_duplicated_retry_after_is_no_crash(desk: Desk) -> None:
    """Row 26: two Retry-After headers: one of them is believed."""
    headers = [("Retry-After", "1"), ("Retry-After", "0.5")]
    async with FaultServer(nth(1, status(429, b"", headers))) as server:
        ended = await desk.run(server, ["a"])
    assert ended.summary.exit_code == 0
    first, second = (seen.at_s for seen in server.ledger.requests)
    assert second - first >= 0.99


_QUOTAS: dict[str, Act] = {
    "row28-message": status(429, error("You have reached the daily limit of 200 requests"), [JSON_TYPE]),
    "row28-code": status(429, error("no", "quota_exceeded_daily"), [JSON_TYPE]),
    "row28-retry-after": status(429, error(), [("Retry-After", "20000")]),
    "row29-http-200": status(
        200, b'{"status": "failed", "data": null, "message": "Daily quota exceeded"}', [JSON_TYPE]
    ),
}


@pytest.mark.parametrize("quota", _QUOTAS.values(), ids=_QUOTAS)
async def test_a_spent_day_ends_the_run(desk: Desk, quota: Act) -> None:
    """Rows 28, 29: at most C more requests, exit 4, pending untouched, the reopening named; then one probe at most."""
    prompts = [f"job-{n}" for n in range(40)]
    async with FaultServer(after(20, quota)) as server:
        ended = await desk.run(server, prompts, concurrency=4)
        posts = server.ledger.posts
        again = await desk.run(server, concurrency=4)
    assert posts <= 20 + 4
    assert ended.summary.exit_code == again.summary.exit_code == 4
    assert (ended.summary.done, ended.summary.failed, ended.summary.uncertain) == (20, 0, 0)
    assert "opens again at" in ended.summary.verdict
    assert server.ledger.posts - posts <= 1


# Row 30: redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["same", "other", "file", "loop"])
async def test_row30_a_redirect_is_not_followed(desk: Desk, code: int, to: str) -> None:
    """Row 30: one request, no other host sees it or the key, exit 2, the job stays pending."""
    async with FaultServer() as other, FaultServer() as server:
        there = {
            "same": server.url + "/elsewhere",
            "other": other.url + "/images/generation",
            "file": "file:///etc/passwd",
            "loop": server.url + "/images/generation",
        }[to]
        server.scenario = always(status(code, b"", [("Location", there)]))
        ended = await desk.run(server, GOOD_BAD)
    assert (server.ledger.posts, server.ledger.others) == (1, [])
    assert (other.ledger.posts, other.ledger.others) == (0, [])
    assert (ended.summary.exit_code, ended.summary.pending) == (2, 3)


# Row 31: headers


@pytest.mark.parametrize(
    "headers",
    [
        [("Set-Cookie", "c=" + "x" * 4000)] * 500,
        [(f"X-{n}", "y") for n in range(10_000)],
        [("X-Long", "y" * 1_000_000)],
        [("X-Control", "a\x00b")],
        [("X-Key", KEY), ("X-Long", KEY + "y" * 20_000)],
    ],
    ids=["row31-cookie-bomb", "row31-10k-headers", "row31-1-mb-line", "row31-nul", "row31-key-in-a-long-line"],
)
async def test_row31_header_bombs_are_contained(desk: Desk, headers: list[tuple[str, str]]) -> None:
    """Row 31: too many or too long headers cost their own job at most, in one request."""
    async with FaultServer(on("bad", body(answer_body(picture("x")), headers))) as server:
        ended = await desk.run(server, GOOD_BAD, uncertain_retries=0)
    assert server.ledger.by_prompt == {"good": 1, "bad": 1, "other": 1}
    assert ended.outcomes["bad"] in ("uncertain", "done")
    assert (ended.outcomes["good"], ended.outcomes["other"]) == ("done", "done")


# Row 32: the key

_ECHOES: dict[str, Act] = {
    "200-failed-code": body(error("no", f"nsfw_{KEY}")),
    "400-message": status(400, error(f"bad request by {KEY}")),
    "400-code": status(400, error("no", f"bad_{KEY}")),
    "400-escaped": status(400, error(f"bad request by {KEY}").replace(b"ak_", b"\\u0061k_")),
    "400-plain": status(400, f"bad request by {KEY}".encode()),
    "400-html": status(400, f"<p>Authorization: Bearer {KEY}</p>".encode()),
    "400-at-the-edge": status(400, error("x" * 470 + KEY)),
    "200-failed": body(json.dumps({"status": "failed", "message": f"content policy, {KEY}"}).encode()),
    "200-useless": body(json.dumps({"status": "success", "data": [], "message": KEY}).encode()),
    "401-stop": status(401, error(f"no such key {KEY}")),
    "402-stop": status(402, error(f"no credit for {KEY}")),
    "quota": status(429, error(f"daily limit of {KEY} reached")),
    "redirect": status(302, f"moved, {KEY}".encode(), [("Location", f"http://127.0.0.1:1/{KEY}")]),
    "header": status(400, b"no", [("X-Key", KEY), ("Set-Cookie", f"key={KEY}")]),
    "200-failed-edge": body(json.dumps({"status": "failed", "message": "nsfw " + "x" * 465 + KEY}).encode()),
    "401-stop-escaped": status(401, error(f"no such key {KEY}").replace(b"ak_", b"\\u0061k_")),
    "200-stop": body(json.dumps({"status": "failed", "message": f"insufficient balance: {KEY}"}).encode()),
}


@pytest.mark.parametrize("fate", _ECHOES.values(), ids=[f"row32-{name}" for name in _ECHOES])
async def test_row32_a_key_that_the_server_echoes_is_nowhere(desk: Desk, fate: Act) -> None:
    """Row 32: not in the log, the attempts, the summary, the quarantine, nor in any other file (the audit looks)."""
    async with FaultServer(on("bad", fate)) as server:
        ended = await desk.run(server, GOOD_BAD, attempts=1, uncertain_retries=0)
    assert KEY[3:20] not in repr(ended.summary)
    assert all(seen.authorization == f"Bearer {KEY}" for seen in server.ledger.requests)


@pytest.mark.parametrize("name", ["400-message", "401-stop-escaped", "200-stop"])
async def test_row32_a_key_that_the_server_echoes_is_not_said(desk: Desk, name: str) -> None:
    """Row 32: neither standard output nor standard error hold the key, also with --verbose and --json."""
    desk.write(GOOD_BAD)
    async with FaultServer(on("bad", _ECHOES[name])) as server:
        _, said = await desk.batchgen_run(server, "--verbose", "--json", env={"BATCHGEN_UNCERTAIN_RETRIES": "0"})
    assert "summary" not in said and '"exit_code":' in said
    assert KEY[3:20] not in said
    desk.assert_no_key()


# Row 35


async def test_row35_an_answer_after_the_deadline_is_on_the_servers_books_only(desk: Desk) -> None:
    """Row 35: the picture that came too late was paid once; the job is parked and not bought again by a later run."""
    async with FaultServer(on("bad", ok(2.5))) as server:
        ended = await desk.run(server, GOOD_BAD, timeout_s=2, uncertain_retries=0)
        again = await desk.run(server, uncertain_retries=0)
    assert server.ledger.by_prompt["bad"] == 1
    assert ended.outcomes["bad"] == again.outcomes["bad"] == "uncertain"
    assert again.summary.requests == 0


async def test_row35_asked_for_by_name_a_parked_job_is_done_again(desk: Desk) -> None:
    """`--retry uncertain` gives the job a new ration; without it nothing is sent."""
    async with FaultServer(once("bad", hang_up())) as server:
        await desk.run(server, GOOD_BAD, uncertain_retries=0)
        assert (await desk.run(server, uncertain_retries=0)).summary.exit_code == 3
        ended = await desk.run(server, uncertain_retries=0, retry=["uncertain"])
    assert ended.summary.exit_code == 0
    assert server.ledger.by_prompt == {"good": 1, "bad": 2, "other": 1}


# Rows 39 to 44: the network


Resolver = Callable[[Callable[[], Any]], None]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """Lets a test say what becomes of a look-up; nothing is asked of a network."""
    real = socket.getaddrinfo

    def install(answer: Callable[[], Any]) -> None:
        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            return answer() if str(host).endswith(".invalid") else real(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return install


NO_HOST = "https://api.invalid/api/v1"


@pytest.mark.parametrize(
    "code", [socket.EAI_AGAIN, socket.EAI_NONAME, socket.EAI_FAIL], ids=["again", "noname", "fail"]
)
async def test_row39_a_name_that_is_not_found_costs_nothing(desk: Desk, resolver: Resolver, code: int) -> None:
    """Row 39: not sent, billed no, nothing counted against any job; given up on in the end with exit 4."""

    def answer() -> Any:
        raise socket.gaierror(code, "as scripted")

    resolver(answer)
    ended = await desk.run(NO_HOST, [f"job-{n}" for n in range(5)], concurrency=1, give_up_after_s=1e-6)
    assert (ended.summary.exit_code, ended.summary.pending) == (4, 5)
    assert {(a["failure"], a["billed"], a.get("counts")) for a in ended.attempts} == {("not_connected", "no", None)}


async def test_row39_a_hanging_resolver_is_no_answer_that_was_lost(desk: Desk, resolver: Resolver) -> None:
    """Row 39: before a connection stands nothing was sent, also when the deadline is shorter than the wait for it."""
    free = threading.Event()

    def answer() -> Any:
        free.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "as scripted")

    resolver(answer)
    try:
        ended = await desk.run(NO_HOST, ["a", "b"], timeout_s=1, concurrency=1, uncertain_retries=0, max_requests=1)
    finally:
        free.set()
    assert {attempt["failure"] for attempt in ended.attempts} == {"not_connected"}
    assert ended.summary.uncertain == 0


_HANGING_RESOLVER = """\
import socket, sys, time
def getaddrinfo(*args, **kwargs):
    time.sleep(100)
    print("the look-up has ended", flush=True)
    raise socket.gaierror(socket.EAI_AGAIN, "as scripted")
socket.getaddrinfo = getaddrinfo
import batchgen.client.exchange
sys.modules["batchgen.client.exchange"].CONNECT_TIMEOUT_S = 0.5  # the package has a function of that name
from batchgen.cli import main
sys.exit(main(sys.argv[1:]))
"""


async def test_row39_a_hanging_resolver_does_not_hold_up_the_end(desk: Desk) -> None:
    """Row 39: the process ends although a look-up still hangs in a thread."""
    desk.write(["a"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HANGING_RESOLVER, "run", str(desk.manifest), "-o", str(desk.output)),
        *("--api", "nebula", "--api-url", NO_HOST, "--max-requests", "1"),
        env=desk.env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert (process.returncode, said) == (4, b"")


async def test_row40_a_name_with_a_dead_first_address_connects(desk: Desk) -> None:
    """Row 40: where only the IPv4 address of a name answers, that one is used."""
    async with FaultServer() as server:
        ended = await desk.run(server.url.replace("127.0.0.1", "localhost"), GOOD_BAD)
    assert ended.summary.exit_code == 0
    assert server.ledger.posts == 3


async def test_row41_refused_at_first_then_taken(desk: Desk) -> None:
    """Row 41: refused connections cost nothing and count for nothing; the job is done as soon as somebody listens."""
    async with FaultServer() as server:
        server.refuse()

        async def return_later() -> None:
            notes = desk.output / ".batchgen/attempts.jsonl"
            while not (notes.exists() and b"not_connected" in notes.read_bytes()):  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.02)
            await server.listen()

        back = asyncio.create_task(return_later())
        ended = await desk.run(server, ["a"], attempts=1, uncertain_retries=0)
        await back
    assert ended.summary.exit_code == 0
    assert server.ledger.by_prompt == {"a": 1}
    assert set(ended.failures("a")) == {"not_connected"}
    assert all("counts" not in attempt for attempt in ended.log["a"]["attempts"])


async def test_row41_refused_for_good_gives_up_with_everything_pending(desk: Desk) -> None:
    """Row 41: exit 4 after `--give-up-after`; nothing failed, nothing uncertain."""
    async with FaultServer() as server:
        server.refuse()
        ended = await desk.run(server, [f"job-{n}" for n in range(6)], concurrency=1, give_up_after_s=1e-6)
    assert (ended.summary.exit_code, ended.summary.pending) == (4, 6)
    assert "has not answered" in ended.summary.verdict


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates that it has signed: a good one, an expired one, one for another host."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndir=.\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n"
        "policy=p\ncopy_extensions=copy\nunique_subject=no\n[p]\ncommonName=supplied\n"
    )
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    _openssl(folder, f"req -x509 {new_key} -keyout ca.key -out ca.pem -days 36500 -subj /CN=test-authority")
    ages = {"good": ("IP:127.0.0.1", "20200101", "21200101"), "expired": ("IP:127.0.0.1", "20200101", "20210101")}
    for name, (host, begin, end) in (ages | {"elsewhere": ("DNS:other.invalid", "20200101", "21200101")}).items():
        _openssl(
            folder, f"req {new_key} -keyout {name}.key -out {name}.csr -subj /CN={name} -addext subjectAltName={host}"
        )
        _openssl(
            folder,
            f"ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in {name}.csr -out {name}.pem"
            f" -startdate {begin}000000Z -enddate {end}000000Z -notext",
        )
    _openssl(folder, f"req -x509 {new_key} -keyout self.key -out self.pem -days 36500 -subj /CN=127.0.0.1")
    return folder


def _openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [("good", 0), ("expired", 2), ("elsewhere", 2), ("self", 2)],
    ids=["row42-good", "row42-expired", "row42-wrong-host", "row42-self-signed"],
)
async def test_row42_a_certificate_that_cannot_be_trusted(
    desk: Desk, certificates: Path, name: str, exit_code: int
) -> None:
    """Row 42: exit 2 and not one request; with the good one everything is done."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    desk.write(GOOD_BAD)
    async with FaultServer(tls=context) as server:
        got, said = await desk.batchgen_run(server, env={"SSL_CERT_FILE": str(certificates / "ca.pem")})
    assert (got, server.ledger.posts) == (exit_code, 3 if name == "good" else 0), said
    assert KEY not in said


async def test_row42_a_handshake_that_is_reset_is_tried_again(desk: Desk) -> None:
    """Row 42: a reset during the handshake is no verdict on the certificate: not sent, not counted."""

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(rude, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"https://127.0.0.1:{port}/api/v1"
        ended = await desk.run(url, [f"job-{n}" for n in range(5)], concurrency=1, give_up_after_s=1e-6)
    assert (ended.summary.exit_code, ended.summary.pending) == (4, 5)
    assert {(a["failure"], a["billed"]) for a in ended.attempts} == {("not_connected", "no")}


async def test_row44_proxies_and_netrc_of_the_environment_are_ignored(desk: Desk) -> None:
    """Row 44: the request goes to the address that was given, with the key that was given."""
    netrc = desk.root / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password wrong\n")
    netrc.chmod(0o600)
    desk.write(GOOD_BAD)
    async with FaultServer() as proxy, FaultServer() as server:
        there = f"http://127.0.0.1:{proxy.port}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        env = {name: there for names in (names, map(str.lower, names)) for name in names} | {"NETRC": str(netrc)}
        code, said = await desk.batchgen_run(server, env=env)
    assert (code, server.ledger.posts) == (0, 3), said
    assert (proxy.ledger.posts, proxy.ledger.others, proxy.ledger.pings) == (0, [], 0)
    assert {seen.authorization for seen in server.ledger.requests} == {f"Bearer {KEY}"}


# Rows 72 to 80, as far as they concern running

_BAD_IDS = {
    "parent": "../x",
    "absolute": "/x",
    "drive": "C:\\x",
    "device": "NUL.png",
    "superscript": "COM¹",
    "dot": ".",
    "trailing-dot": "x.",
    "empty": "",
    "nul": "a\0b",
    "newline": "a\nb",
    "option": "-rf",
    "rtl": "a\u202egnp",
    "long": "x" * 300,
    "surrogate": "a\ud800",
    "tilde": "a~1",
}


@pytest.mark.parametrize("name", _BAD_IDS.values(), ids=[f"row72-{name}" for name in _BAD_IDS])
async def test_row72_an_id_that_is_no_name_sends_nothing(desk: Desk, name: str) -> None:
    """Row 72: exit 2, naming the row; no request, no folder."""
    rows = [{"id": "fine", "prompt": "x", "model": MODEL}, {"id": name, "prompt": "x", "model": MODEL}]
    desk.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    async with FaultServer() as server:
        with pytest.raises(UsageError, match=r"night.jsonl:2"):
            await desk.run(server)
    assert server.ledger.posts == 0
    assert not desk.output.exists()


@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("\ufb01x", "fix"), ("stra\u00dfe", "STRASSE")],
    ids=["row72-same", "row72-case", "row72-nfc", "row72-nfkc", "row72-casefold"],
)
async def test_row72_names_that_a_filesystem_would_mix_up_send_nothing(desk: Desk, names: tuple[str, str]) -> None:
    """Row 72: a collision is an error before anything is sent."""
    desk.write(names)
    async with FaultServer() as server:
        with pytest.raises(UsageError):
            await desk.run(server)
    assert server.ledger.posts == 0


@pytest.mark.parametrize(
    "text", ["id,prompt,model\n", "id,prompt,model\r\n\r\n"], ids=["row75-only-header", "row75-header-and-blank"]
)
async def test_row75_no_jobs_is_nothing_to_do(desk: Desk, text: str) -> None:
    """Row 75: a header without rows is no error: exit 0, nothing sent."""
    desk.manifest = desk.root / "night.csv"
    desk.manifest.write_text(text)
    async with FaultServer() as server:
        code, said = await desk.batchgen_run(server)
    assert (code, server.ledger.posts) == (0, 0), said
    assert "nothing to do" in said


async def test_row75_reordered_rows_are_the_same_jobs(desk: Desk) -> None:
    """Row 75: identity is id and request; turning the manifest around sends nothing."""
    prompts = [f"job-{n}" for n in range(10)]
    async with FaultServer() as server:
        await desk.run(server, prompts)
        ended = await desk.run(server, prompts[::-1])
    assert (ended.summary.exit_code, server.ledger.posts) == (0, 10)


async def test_row75_an_edited_row_is_done_again_and_no_other(desk: Desk) -> None:
    """Row 75: exactly the changed job is sent; its old picture is moved to superseded/ and comes back when undone."""
    async with FaultServer() as server:
        await desk.run(server, GOOD_BAD)
        text = desk.manifest.read_text()
        desk.manifest.write_text(text.replace('"prompt": "bad"', '"prompt": "better"'))
        ended = await desk.run(server)
        assert server.ledger.by_prompt == {"good": 1, "bad": 1, "other": 1, "better": 1}
        assert pixels(ended.output / "images/bad.png") == pixels(io.BytesIO(picture("better")))
        desk.manifest.write_text(text)
        found = await desk.unaudited(server.url)
    assert (found.exit_code, server.ledger.posts) == (0, 4)
    assert pixels(desk.output / "images/bad.png") == pixels(io.BytesIO(picture("bad")))


def _csv(rows: Sequence[str]) -> str:
    return "id,prompt,model\n" + "".join(f"{row},{row},{MODEL}\n" for row in rows)


async def test_row75_a_manifest_that_is_edited_during_the_run_stops_the_feeding(desk: Desk) -> None:
    """Row 75: nothing that was bought is bought again although rows moved under the reader; exit 4."""
    desk.manifest = desk.root / "night.csv"
    bought, fresh = [f"bought-{n:05}" for n in range(3000)], [f"fresh-{n:05}" for n in range(300)]
    desk.manifest.write_text(_csv(bought[:300]))
    async with FaultServer() as server:
        await desk.run(server, concurrency=50)
        desk.manifest.write_text(_csv(fresh + bought[:300]))

        def scenario(seen: Seen) -> Act:
            if seen.prompt == fresh[0]:
                desk.manifest.write_text(_csv(bought[:300] + fresh))
            return ok()

        server.scenario = scenario
        ended = await desk.run(server, concurrency=2)
    assert max(server.ledger.by_prompt.values()) == 1
    assert ended.summary.exit_code == 4
    assert "edited" in ended.summary.verdict


@pytest.mark.parametrize(
    "prompt",
    ["{0.__class__}", "{id!r:>999999999}", "{{x}}", "%s %(x)s", "{{ ''.__class__ }}", "${HOME} $(id) `id`"],
    ids=lambda prompt: f"row76-{prompt}",
)
async def test_row76_a_template_in_a_prompt_is_text(desk: Desk, prompt: str) -> None:
    """Row 76: in a job without variables the prompt is sent as it is written."""
    rows = [{"id": "a", "prompt": prompt, "model": MODEL}]
    desk.manifest.write_text(json.dumps(rows[0]) + "\n")
    async with FaultServer() as server:
        ended = await desk.run(server)
    assert [seen.prompt for seen in server.ledger.requests] == [prompt]
    assert ended.summary.exit_code == 0


@pytest.mark.parametrize(
    "prompt",
    [
        "Grüße 漢字 🦊 \u202e \u2028 end",
        "line one\nline two\ttab",
        "x" * 1_000_000,
        '"quotes" \\ back/slash',
        " blanks ",
    ],
    ids=["row77-unicode", "row77-lines", "row77-1-mb", "row77-quotes", "row77-blanks"],
)
async def test_row77_a_prompt_is_sent_exactly(desk: Desk, prompt: str) -> None:
    """Row 77: the server gets the very text, and the log is valid UTF-8 with one line."""
    desk.manifest.write_text(json.dumps({"id": "a", "prompt": prompt, "model": MODEL}) + "\n")
    async with FaultServer() as server:
        ended = await desk.run(server)
    assert [seen.prompt for seen in server.ledger.requests] == [prompt]
    assert ended.log["a"]["request"]["prompt"] == prompt
    assert len((ended.output / "log.jsonl").read_text("utf-8").splitlines()) == 1


@pytest.mark.parametrize(
    "prompt", ["a\ud800b", "a\0b", "a\x1b[2Jb", " ", ""], ids=["surrogate", "nul", "escape", "blank", "empty"]
)
async def test_row77_a_prompt_that_is_no_text_sends_nothing(desk: Desk, prompt: str) -> None:
    """Row 77: exit 2 before anything is sent."""
    desk.manifest.write_text(json.dumps({"id": "a", "prompt": prompt, "model": MODEL}) + "\n")
    async with FaultServer() as server:
        with pytest.raises(UsageError):
            await desk.run(server)
    assert server.ledger.posts == 0


_BAD_URLS = {
    "http": "http://api.invalid/api/v1",
    "http-ip": "http://192.0.2.1/api/v1",
    "http-metadata": "http://169.254.169.254/api/v1",
    "user": "https://somebody:hunter2secret@api.invalid/api/v1",
    "user-trick": "http://localhost@api.invalid/",
    "like-loopback": "http://127.0.0.1.api.invalid/",
    "like-localhost": "http://localhost.api.invalid/",
    "ftp": "ftp://127.0.0.1/",
    "file": "file:///etc/passwd",
    "no-host": "https:///api/v1",
    "no-scheme": "api.invalid/api/v1",
    "query": "https://api.invalid/api/v1?key=1",
}


_BROKEN_URLS = {
    "broken-ipv6": "https://[::1/api/v1",
    "port-words": "https://127.0.0.1:port/api/v1",
    "port-range": "https://127.0.0.1:99999/api/v1",
}


@pytest.mark.parametrize(
    "url", (_BAD_URLS | _BROKEN_URLS).values(), ids=[f"row78-{name}" for name in _BAD_URLS | _BROKEN_URLS]
)
async def test_row78_an_address_that_cannot_be_meant_is_refused(desk: Desk, url: str) -> None:
    """Row 78: exit 2 before anything is sent or recorded; a password in it is not repeated."""
    with pytest.raises(UsageError) as raised:
        await desk.run(url, ["a"])
    assert raised.value.exit_code == 2
    assert "hunter2secret" not in str(raised.value) and KEY not in str(raised.value)
    assert not desk.output.exists()


async def test_row78_a_trailing_slash_is_forgiven(desk: Desk) -> None:
    """Row 78: the path is put together with one slash."""
    async with FaultServer() as server:
        ended = await desk.run(server.url + "/", ["a"])
    assert (ended.summary.exit_code, server.ledger.posts) == (0, 1)


_BAD_KEYS = {
    "missing": None,
    "empty": "",
    "blank": "  ",
    "newline-inside": "ak_a\nb",
    "cr": "ak_a\rb",
    "not-ascii": "ak_é",
}


@pytest.mark.parametrize("key", _BAD_KEYS.values(), ids=[f"row79-{name}" for name in _BAD_KEYS])
async def test_row79_a_key_that_is_none_sends_nothing(desk: Desk, key: str | None) -> None:
    """Row 79: exit 2, no request, and the key is not repeated."""
    del desk.env["NEBULA_API_KEY"]
    if key is not None:
        desk.env["NEBULA_API_KEY"] = key
    desk.write(["a"])
    async with FaultServer() as server:
        with pytest.raises(UsageError) as raised:
            await desk.run(server)
    assert server.ledger.posts == 0
    assert "ak_" not in str(raised.value)


async def test_row79_a_key_with_a_newline_at_its_end_is_taken_without(desk: Desk) -> None:
    """Row 79: what `cat` and editors leave at the end is no part of the key."""
    desk.env["NEBULA_API_KEY"] = KEY + "\n"
    async with FaultServer() as server:
        await desk.run(server, ["a"])
    assert [seen.authorization for seen in server.ledger.requests] == [f"Bearer {KEY}"]


async def test_row79_a_key_file_that_others_can_read_is_used_with_a_warning(desk: Desk) -> None:
    """Row 79: the run goes on, and says what to do about the file."""
    del desk.env["NEBULA_API_KEY"]
    desk.write(["a"])
    file = desk.root / "key"
    file.write_text(KEY)
    file.chmod(0o644)
    async with FaultServer() as server:
        code, said = await desk.batchgen_run(server, "--api-key-file", str(file))
    assert (code, server.ledger.posts) == (0, 1)
    assert "chmod 600" in said and KEY not in said


@pytest.mark.parametrize("form", [["--api-key", KEY], [f"--api-key={KEY}"], ["--key", KEY]], ids=["two", "one", "key"])
async def test_row79_a_key_on_the_command_line_is_refused_and_not_repeated(desk: Desk, form: list[str]) -> None:
    """Row 79: exit 2; the message, which cron mails, does not hold the key."""
    desk.write(["a"])
    async with FaultServer() as server:
        code, said = await desk.batchgen_run(server, *form)
    assert (code, server.ledger.posts) == (2, 0)
    assert KEY not in said


@pytest.mark.parametrize(
    "place",
    ["file:///etc/hostname", "http://169.254.169.254/latest", "http://localhost/x.png", "/etc/hostname", "missing.png"],
    ids=lambda place: f"row80-{place}",
)
async def test_row80_an_input_that_is_no_picture_file_sends_nothing(desk: Desk, place: str) -> None:
    """Row 80: addresses are not fetched, and what is no picture is not sent anywhere: exit 2, no request."""
    desk.write(["a"], image=place)
    async with FaultServer() as server:
        with pytest.raises(UsageError):
            await desk.run(server)
    assert (server.ledger.posts, server.ledger.others) == (0, [])


# What the command says and returns


async def test_the_command_tells_the_truth_with_its_exit_code(desk: Desk) -> None:
    """0 and silence when all is done; 3 again and again where jobs have no picture, also when nothing is sent."""
    desk.write(GOOD_BAD)
    async with FaultServer() as server:
        assert await desk.batchgen_run(server, "--quiet") == (0, "")
        assert await desk.batchgen_run(server, "--quiet") == (0, "")
        desk.write([*GOOD_BAD, "worse"])
        server.scenario = on("worse", status(400, error()))
        codes = [(await desk.batchgen_run(server, "--quiet"))[0] for _ in range(2)]
    assert codes == [3, 3]
    assert server.ledger.by_prompt == {"good": 1, "bad": 1, "other": 1, "worse": 1}


@asynccontextmanager
async def _fault_process(desk: Desk, *arguments: str) -> AsyncIterator[tuple[str, Path]]:
    """The fault server in a process of its own."""
    books, script = desk.root / "books.jsonl", Path(__file__).with_name("faultserver.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), "--ledger", str(books), *arguments), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        yield (await process.stdout.readline()).decode().strip(), books
    finally:
        process.terminate()
        await process.communicate()


async def test_the_fault_server_works_in_a_process_of_its_own(desk: Desk) -> None:
    """Outages are switched by request number or time, and the ledger is on disk at once."""
    desk.write([f"job-{n}" for n in range(6)])
    async with _fault_process(desk, "--latency", "0.01", "--outage", "429:#3-4") as (url, books):
        code, said = await desk.batchgen_run(url, "--concurrency", "1")
        lines = [json.loads(line) for line in books.read_text().splitlines()]
    assert code == 0, said
    assert [line["what"] for line in lines].count("request") == 7
    assert sorted(line["prompt"] for line in lines if line["what"] == "paid") == [f"job-{n}" for n in range(6)]
