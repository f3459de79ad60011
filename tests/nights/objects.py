"""An object store of a simulated night, and `stores.Objects` on it as one process sees it.

Each call takes its time and may fail as stores do. What a process had asked for when it died may still happen.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast

from batchgen.address import Address
from batchgen.stores import Objects
from batchgen.world import StoreBusy, StoreFailed
from nights.machine import Process
from nights.threads import Dead

T = TypeVar("T")
CHANGING = {"put", "copy", "delete"}
# What obstore does by itself: it tries again for so long.
_TRIES_S, _EVERY_S, _TIMEOUT_S = 60.0, 10.0, 120.0


@dataclass(frozen=True)
class Trouble:
    """From one second to another, what the store does with this share of calls (`only`: of this name).

    `slow`: takes half a minute. `busy`: 503. `down`: nobody answers. `refused`: the key may not. `lost`: done, but the
    answer never comes. `cut`: not done, and no answer either.
    """

    kind: str
    from_s: float
    to_s: float
    share: float = 1.0
    only: str = ""

    def __str__(self) -> str:
        what = self.only or "calls"
        return f"{self.kind} for {self.share:.0%} of {what} from {self.from_s:.0f} s to {self.to_s:.0f} s"


KINDS = ("slow", "busy", "down", "refused", "lost", "cut")


@dataclass
class Bucket:
    """What outlives all processes."""

    chance: random.Random
    troubles: list[Trouble] = field(default_factory=list)
    held: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    met: list[tuple[float, str]] = field(default_factory=list)

    def below(self, folder: str) -> dict[str, bytes]:
        return {name: data for name, (data, _) in sorted(self.held.items()) if name.startswith(f"{folder}/")}

    def trouble(self, name: str, now_s: float) -> str:
        for each in self.troubles:
            fits = each.from_s <= now_s < each.to_s and each.only in ("", name)
            if fits and self.chance.random() < each.share:
                self.met.append((now_s, each.kind))
                return each.kind
        return ""


class NightObjects:
    """`stores.Objects` for one process."""

    def __init__(self, address: Address, bucket: Bucket, process: Process) -> None:
        self.address, self._bucket, self._process = address, bucket, process

    def _do(self, name: str, path: str, act: Callable[[], T]) -> T:
        process, bucket = self._process, self._bucket
        try:
            process.step(name, path, of_disk=False)
            return self._answer(name, act)
        except Dead:
            if name in CHANGING and bucket.chance.random() < 0.5:
                act()
            raise
        except StoreFailed as error:
            raise type(error)(f"{self.address}: {error} [{name} {path}]", error.errno or errno.EIO) from None

    def _answer(self, name: str, act: Callable[[], T]) -> T:
        loop, bucket = self._process.loop, self._bucket
        end_s = loop.time() + _TRIES_S
        while True:
            match bucket.trouble(name, loop.time()):
                case "refused":
                    raise StoreFailed("the store does not let this key do that", errno.EACCES)
                case "busy" | "down" if loop.time() >= end_s:
                    raise StoreBusy("the store is overloaded or out of reach", errno.EBUSY)
                case "busy" | "down":
                    loop.wait(_EVERY_S)
                case "lost" | "cut" as kind:
                    loop.wait(_TIMEOUT_S)
                    if kind == "lost" and name in CHANGING:
                        act()
                    raise StoreBusy("the store does not answer in time", errno.ETIMEDOUT)
                case kind:
                    loop.wait(30.0 if kind == "slow" else bucket.chance.uniform(0.02, 0.5))
                    return act()

    def _held(self, path: str) -> tuple[bytes, dict[str, str]]:
        if (found := self._bucket.held.get(path)) is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", path)
        return found

    def put(
        self,
        name: str,
        data: bytes | Iterable[bytes],
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        whole = (data if isinstance(data, bytes) else b"".join(data), dict(attributes or {}))
        self._do("put", name, lambda: self._bucket.held.update({name: whole}))

    def create(self, name: str, data: bytes, attributes: Mapping[str, str]) -> None:
        self._do("put", name, lambda: self._bucket.held.setdefault(name, (data, dict(attributes))))

    def get(self, name: str) -> bytes:
        return self._do("get", name, lambda: self._held(name)[0])

    def attributes(self, name: str) -> Mapping[str, str]:
        return self._do("get", name, lambda: self._held(name)[1])

    def size(self, name: str) -> int | None:
        found = self._do("head", name, lambda: self._bucket.held.get(name))
        return None if found is None else len(found[0])

    def copy(self, old: str, new: str) -> None:
        self._do("copy", old, lambda: self._bucket.held.update({new: self._held(old)}))

    def delete(self, name: str) -> None:
        self._do("delete", name, lambda: self._bucket.held.pop(name, None))

    def below(self, folder: str) -> Iterator[tuple[str, int]]:
        found = self._do("list", folder, lambda: self._bucket.below(folder))
        return iter([(name, len(data)) for name, data in found.items()])


def connector(bucket: Bucket, process: Process) -> Callable[[Address], Objects]:
    """How the process reaches the bucket."""
    return lambda address: cast("Objects", NightObjects(address, bucket, process))
