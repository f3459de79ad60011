"""The image API of a simulated night, and its ledger: what was asked, what was drawn and so is paid for, what arrived.

The server is strict about its account's limits and believes no client. Its habits come from episodes, each a kind of
misbehaviour between two moments. A picture names its prompt, so that a wrong one can be told from a right one.
"""

from __future__ import annotations

import asyncio
import math
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime

from batchgen.model import AttemptFailed, Failure, Job, Post, Reply
from batchgen.protocol import Drawn, nebula

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_HEAD = _SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
_TAIL = _chunk(b"IDAT", zlib.compress(b"\0" * 72)) + _chunk(b"IEND", b"")


def picture(prompt: str, number: int) -> bytes:
    """A whole PNG that says what it was drawn for and by which request."""
    return _HEAD + _chunk(b"tEXt", b"Description\0" + f"{prompt}#{number}".encode()) + _TAIL


def prompt_of(data: bytes) -> str:
    """The prompt of a picture; empty where these bytes are not a whole one."""
    if not (data.startswith(_HEAD) and data.endswith(_TAIL)):
        return ""
    at = len(_HEAD)
    while at < len(data) - len(_TAIL):
        (length,) = struct.unpack_from(">I", data, at)
        text = data[at + 8 : at + 8 + length]
        if text.startswith(b"Description\0"):
            return text.removeprefix(b"Description\0").decode().rpartition("#")[0]
        at += 12 + length  # what batchgen has put before it
    return ""


@dataclass(frozen=True)
class Habit:
    """How a kind of misbehaviour looks: `quick` answers do not take the time of a drawing; `paid` ones draw first;
    `alive` says whether the free endpoint still answers."""

    status: int = 200
    body: bytes = b""
    failure: Failure | None = None
    quick: bool = True
    paid: bool = False
    alive: bool = True
    hangs: bool = False
    received: bool = True
    retry_after: tuple[str, ...] = ()


def _says(message: str, code: str | None = None) -> bytes:
    return nebula.encode_error(message, code)


_PAGE = b"<html><head><title>Bad Gateway</title></head><body>nginx</body></html>"
HABITS: dict[str, Habit] = {
    "connection refused": Habit(failure=Failure.NOT_CONNECTED, alive=False, received=False),
    "reset": Habit(failure=Failure.NO_ANSWER, alive=False),
    "answer lost": Habit(failure=Failure.NO_ANSWER, quick=False, paid=True),
    "hangs": Habit(failure=Failure.NO_ANSWER, paid=True, hangs=True, alive=False),
    "hangs, but lives": Habit(failure=Failure.NO_ANSWER, paid=True, hangs=True),
    "quick 502 page": Habit(502, _PAGE),
    "slow 502 page": Habit(502, _PAGE, quick=False, paid=True),
    "200 with a page": Habit(200, _PAGE, alive=False),
    "busy": Habit(503, _says("busy"), retry_after=("", "5", "120")),
    "internal error": Habit(500, _says("oops"), quick=False),
    "request timeout": Habit(408, _says("slow"), quick=False),
    "too fast": Habit(429, _says("Too many requests"), retry_after=("", "1", "7", "60", "nonsense", "-5", "1e12")),
    "day spent": Habit(429, _says("Daily quota exceeded")),
    "day spent, by 200": Habit(200, _says("Daily quota exceeded", "quota_exceeded")),
    "bad key": Habit(401, _says("Invalid API key")),
    "no balance": Habit(402, _says("Insufficient balance")),
    "forbidden": Habit(403, _says("not for you")),
    "no such model": Habit(404, _says("no such model")),
    "no picture": Habit(200, b'{"data": [{"b64_json": "bm8="}], "status": "success"}', quick=False, paid=True),
    "cut answer": Habit(200, b'{"data": [{"b64_json": "iVBORw0KGgo', quick=False, paid=True),
    "failed, no code": Habit(200, b'{"status": "failed", "message": "try again"}', quick=False),
    "teapot": Habit(418, _says("short and stout"), quick=False),
}
REFUSALS = {"bad request": (400, "invalid prompt"), "content": (400, "blocked by the content policy")}
FOR_GOOD = {"forbidden", "no such model", *REFUSALS}


@dataclass(frozen=True)
class Episode:
    """From one second of the story to another, a share of requests is answered by a habit: at one endpoint, or all."""

    habit: str
    from_s: float
    to_s: float
    share: float = 1.0
    endpoint: str | None = None

    def holds(self, now_s: float, endpoint: str) -> bool:
        return self.from_s <= now_s < self.to_s and self.endpoint in (None, endpoint)

    def __str__(self) -> str:
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"{self.habit}{at} for {self.share:.0%} of requests from {self.from_s:.0f} s to {self.to_s:.0f} s"


@dataclass
class Request:
    """A line of the ledger. `ended_s` is when the client knew; `delivered`: a good picture has reached it; `asked`: the
    pause that the answer asked for."""

    number: int
    start: int
    prompt: str
    at_s: float
    habit: str = ""
    paid: bool = False
    received: bool = True
    ended_s: float = math.inf
    delivered: bool = False
    asked: str = ""
    endpoint: str = ""


@dataclass
class Server:
    """The servers, each with its account. `utc` is their clock, `latency_s` the range of drawing times."""

    begin: datetime
    chance: random.Random
    episodes: list[Episode] = field(default_factory=list)
    latency_s: tuple[float, float] = (1.0, 20.0)
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    ledger: list[Request] = field(default_factory=list)
    skew: timedelta = timedelta(0)

    def utc(self, now_s: float) -> datetime:
        return self.begin + timedelta(seconds=now_s) + self.skew

    def habit(self, now_s: float, endpoint: str) -> str:
        """What goes wrong with a request that comes now; nothing, as a rule."""
        for episode in self.episodes:
            if episode.holds(now_s, endpoint) and self.chance.random() < episode.share:
                return episode.habit
        return ""

    def over_limit(self, now_s: float, endpoint: str) -> str:
        """Which of its account's limits one more request breaks."""
        came = [r for r in self.ledger if r.received and r.endpoint == endpoint]
        if self.requests_per_minute is not None:
            recent = sum(now_s - 60 < r.at_s <= now_s for r in came)
            if recent > self.requests_per_minute:
                return "too fast"
        if self.requests_per_day is not None:
            today = self.utc(now_s).date()
            used = sum(self.utc(r.at_s).date() == today and r.habit not in ("too fast", "day spent") for r in came)
            if used > self.requests_per_day:
                return "day spent"
        return ""

    def alive(self, now_s: float, endpoint: str) -> bool:
        return all(HABITS[e.habit].alive for e in self.episodes if e.holds(now_s, endpoint) and e.share == 1)


class Wire:
    """A Transport of one process to a server; `start` numbers the execution, `clock` is the loop's time."""

    def __init__(self, server: Server, start: int, encode: Callable[[Job], Post], endpoint: str) -> None:
        self._server, self._start, self._encode, self._endpoint = server, start, encode, endpoint
        self.in_flight = self.most_in_flight = 0

    async def prepare(self, job: Job) -> Post:
        return self._encode(job)

    async def fetch(self, reply: Reply) -> Reply:
        raise AttemptFailed(Failure.DOWNLOAD, "no links here")

    async def reachable(self) -> bool:
        await asyncio.sleep(0.02)
        return self._server.alive(asyncio.get_running_loop().time(), self._endpoint)

    async def send(self, post: Post, timeout_s: float) -> Reply:
        server, now_s = self._server, asyncio.get_running_loop().time()
        prompt = str(nebula.decode_request(post.body)["prompt"])
        request = Request(len(server.ledger) + 1, self._start, prompt, now_s, endpoint=self._endpoint)
        server.ledger.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(request, timeout_s)
        finally:
            self.in_flight -= 1
            request.ended_s = asyncio.get_running_loop().time()

    async def _answer(self, request: Request, timeout_s: float) -> Reply:
        server, said = self._server, prompt_kind(request.prompt)
        at = request.at_s, self._endpoint
        request.habit = server.over_limit(*at) or server.habit(*at) or said
        habit = HABITS.get(request.habit)
        shortest_s, longest_s = server.latency_s
        # An error that comes sooner than any picture could is believed to cost nothing, so a paid one never does.
        draws_s = server.chance.uniform(longest_s / 4 if habit else shortest_s, longest_s)
        quick = habit.quick if habit else bool(said)
        after_s = math.inf if habit and habit.hangs else 0.05 if quick else draws_s
        request.paid = not said and (habit is None or habit.paid)
        request.received = habit is None or habit.received
        await asyncio.sleep(min(after_s, timeout_s))
        if after_s > timeout_s:
            request.habit = request.habit or "too slow"
            raise AttemptFailed(Failure.NO_ANSWER, f"no whole answer within {timeout_s:g} s")
        if habit and habit.failure:
            raise AttemptFailed(habit.failure, request.habit)
        return self._reply(request, habit, after_s)

    def _reply(self, request: Request, habit: Habit | None, after_s: float) -> Reply:
        server = self._server
        headers = {"date": format_datetime(server.utc(request.at_s + after_s), usegmt=True)}
        if request.habit in REFUSALS:
            status, message = REFUSALS[request.habit]
            return Reply(status, headers, _says(message), after_s, after_s)
        if habit is None:
            request.delivered = True
            drawn = Drawn(picture(request.prompt, request.number), 0, round(after_s, 3))
            return Reply(200, headers, nebula.encode_answer("m", [drawn]), after_s, after_s)
        if habit.retry_after and (asked := server.chance.choice(habit.retry_after)):
            request.asked = headers["retry-after"] = asked
        return Reply(habit.status, headers, habit.body, after_s, after_s)


def prompt_kind(prompt: str) -> str:
    """For which reason the server never draws this prompt; empty where it does."""
    return next((kind for kind in REFUSALS if f"[{kind}]" in prompt), "")
