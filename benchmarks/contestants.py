"""How others fetch the same answers: each a whole program, `contestants.py NAME URL COUNT FOLDER IN_FLIGHT`.

Written as their users write them: every one reads its prompts one by one, keeps IN_FLIGHT requests out and leaves
FOLDER/<n>.<ext>. `read` throws the answers away and `write` writes a file that was there from the start: together they
are the floor that no program can go below.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADERS = {"Authorization": "Bearer bench", "Content-Type": "application/json", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Task:
    url: str
    count: int
    folder: Path
    in_flight: int

    def prompts(self) -> Iterator[int]:
        return iter(range(self.count))

    def path(self, number: int) -> Path:
        return self.folder / f"{number}.picture"


def request(number: int) -> dict[str, Any]:
    return {"model": "black-forest-labs/FLUX.1-schnell", "prompt": f"picture {number}"}


async def _in_flight(task: Task, one: Callable[[int], Awaitable[None]]) -> None:
    numbers = task.prompts()

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(task.in_flight)))


def read(task: Task) -> None:
    """aiohttp at its barest: the answers are read and thrown away."""
    import aiohttp

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
            body = json.dumps(request(0)).encode()

            async def one(number: int) -> None:
                async with session.post(f"{task.url}/images/generation", data=body) as response:
                    await response.read()

            await _in_flight(task, one)

    asyncio.run(main())


def write(task: Task) -> None:
    """The same files, written once and as they are."""
    data = Path(os.environ["PICTURE"]).read_bytes()
    for number in task.prompts():
        handle = os.open(task.path(number), os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(handle, data)
        os.close(handle)


def cookbook(task: Task) -> None:
    """aiohttp, json and base64, as cookbooks have it."""
    import aiohttp

    async def main() -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=task.in_flight), headers=HEADERS
        ) as session:

            async def one(number: int) -> None:
                async with session.post(f"{task.url}/images/generation", json=request(number)) as response:
                    answer = await response.json()
                task.path(number).write_bytes(base64.b64decode(answer["data"][0]["b64_json"]))

            await _in_flight(task, one)

    asyncio.run(main())


def threads(task: Task) -> None:
    """requests, a session and a pool of threads."""
    import threading

    import requests

    local = threading.local()

    def one(number: int) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.headers.update(HEADERS)
        answer = local.session.post(f"{task.url}/images/generation", json=request(number), timeout=180).json()
        task.path(number).write_bytes(base64.b64decode(answer["data"][0]["b64_json"]))

    with ThreadPoolExecutor(task.in_flight) as pool:
        for _ in pool.map(one, task.prompts()):
            pass


def openai(task: Task) -> None:
    """The asynchronous client of the openai package."""
    from openai import AsyncOpenAI

    async def main() -> None:
        async with AsyncOpenAI(base_url=task.url, api_key="bench", max_retries=0, timeout=180) as client:

            async def one(number: int) -> None:
                asked = request(number)
                answer = await client.images.generate(model=asked["model"], prompt=asked["prompt"])
                assert answer.data and answer.data[0].b64_json
                task.path(number).write_bytes(base64.b64decode(answer.data[0].b64_json))

            await _in_flight(task, one)

    asyncio.run(main())


def curl(task: Task) -> None:
    """curl, jq and base64 under xargs."""
    asked = json.dumps(request(0)).replace('"', '\\"')
    line = (
        f'curl -sS -H "Authorization: Bearer bench" -H "Content-Type: application/json" -d "{asked}"'
        f' "{task.url}/images/generation" | jq -r ".data[0].b64_json" | base64 -d > {task.folder}/$1.picture'
    )
    numbers = "\n".join(map(str, task.prompts())).encode()
    subprocess.run(["xargs", "-P", str(task.in_flight), "-n", "1", "sh", "-c", line, "sh"], input=numbers, check=True)


CONTESTANTS: dict[str, Callable[[Task], None]] = {
    one.__name__: one for one in (read, write, cookbook, threads, openai, curl)
}

if __name__ == "__main__":
    name, url, count, folder, in_flight = sys.argv[1:]
    CONTESTANTS[name](Task(url, int(count), Path(folder), int(in_flight)))
