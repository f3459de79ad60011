"""A disk in memory that knows what would survive a power cut. Knows neither time nor faults.

Names and contents become durable apart: a file's bytes when it is synced, a name when its folder is. Of what is not
durable a power cut keeps, folder by folder, the first changes and of a file's new bytes the first ones, as many as
chance has it; a move never loses the file, but may leave it under both names.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from batchgen.model import Shard


@dataclass(eq=False)
class Node:
    """A file's bytes as they are and as they would survive.

    `spoilt` is the process for which a sync has failed: another sync of the same one promises, and does nothing.
    """

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    spoilt: object | None = None
    is_folder: bool = False

    def sync(self, process: object) -> None:
        if self.spoilt is not process:
            self.durable, self.spoilt = bytes(self.data), None


@dataclass(frozen=True)
class Change:
    """A name that a folder's listing has got (`node`) or lost (None); both halves of a move share its number."""

    path: str
    node: Node | None
    move: int = 0


def parent(path: str) -> str:
    return path.rpartition("/")[0] or "."


class Disk:
    """One file system; every path is relative to the output folder."""

    def __init__(self, capacity_bytes: int = 1 << 30) -> None:
        self.capacity_bytes = capacity_bytes
        self.names: dict[str, Node] = {}
        self.holders: dict[object, Shard | None] = {}
        self.alone: object | None = None
        self._durable: dict[str, Node] = {}
        self._pending: dict[str, list[Change]] = {}
        self._moves = count(1)

    def hold(self, process: object, shard: Shard | None) -> bool:
        """Take the lock of the folder, or of a shard's part; False where others have what does not go with it."""
        mine = shard and shard.n
        if any(not mine or not other or other.n != mine or other == shard for other in self.holders.values()):
            return False
        self.holders[process] = shard
        return True

    def let_go(self, process: object) -> None:
        self.holders.pop(process, None)
        self.alone = None if self.alone is process else self.alone

    def used_bytes(self) -> int:
        return sum(len(node.data) for node in self.names.values())

    def below(self, folder: str) -> list[str]:
        """The paths of all files below a folder, in order."""
        return sorted(p for p, node in self.names.items() if p.startswith(f"{folder}/") and not node.is_folder)

    def make_folder(self, path: str) -> None:
        self._change(Change(path, Node(is_folder=True)))

    def make_file(self, path: str) -> Node:
        node = Node()
        self._change(Change(path, node))
        return node

    def remove(self, path: str) -> None:
        self._change(Change(path, None))

    def move(self, old: str, new: str) -> None:
        node, number = self.names[old], next(self._moves)
        self._change(Change(new, node, number))
        self._change(Change(old, None, number))

    def sync_folder(self, folder: str) -> None:
        for change in self._pending.pop(folder, []):
            _apply(self._durable, change)

    def power_cut(self, chance: random.Random) -> None:
        """Lose what nobody synced: all of it, or as much as chance has it."""
        keep = chance.choice((0.0, chance.random(), chance.random(), 1.0))
        kept = [change for changes in self._pending.values() for change in _some(changes, keep, chance)]
        half_moved = {change.move for change in kept if change.move and change.node is None}
        linked = {change.move for change in kept if change.move and change.node is not None}
        every = [change for changes in self._pending.values() for change in changes]
        kept += [c for c in every if c.node is not None and c.move in half_moved - linked]
        for change in kept:
            _apply(self._durable, change)
        self.names = {path: node for path, node in self._durable.items() if self._reachable(path)}
        self._durable, self._pending, self.holders, self.alone = dict(self.names), {}, {}, None
        for node in self.names.values():
            node.data = bytearray(_survivor(node, keep, chance))
            node.durable, node.spoilt = bytes(node.data), None

    def _reachable(self, path: str) -> bool:
        folder = parent(path)
        return folder == "." or (folder in self._durable and self._reachable(folder))

    def _change(self, change: Change) -> None:
        _apply(self.names, change)
        self._pending.setdefault(parent(change.path), []).append(change)


def _apply(names: dict[str, Node], change: Change) -> None:
    if change.node is None:
        names.pop(change.path, None)
    else:
        names[change.path] = change.node


def _some(changes: list[Change], keep: float, chance: random.Random) -> Iterable[Change]:
    return changes[: chance.randint(0, len(changes)) if 0 < keep < 1 else int(keep) * len(changes)]


def _survivor(node: Node, keep: float, chance: random.Random) -> bytes:
    data = bytes(node.data)
    if node.spoilt or keep == 0 or data == node.durable:
        return node.durable
    if keep == 1:
        return data
    if not data.startswith(node.durable):
        return chance.choice((node.durable, data))
    end = chance.randint(len(node.durable), len(data))
    # Some file systems keep the length and fill what was not written with zeros.
    return data[:end] + bytes(chance.choice((0, len(data) - end)))
