"""What this account has sent: pace and day, shared by all runs on the machine and across restarts.

One small SQLite file in the user's state folder. The arithmetic is `pacing.grant`; here are the transactions, off the
event loop. Where the file cannot be used the run goes on with a count of its own, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from batchgen.model import Secret, Shard
from batchgen.pacing import AccountState, Lease, Pace, grant
from batchgen.world import Clock

BUSY_S = 10.0
REST_S = 60.0
LOOK_S = 0.5
_TABLE = "CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, state TEXT NOT NULL)"


def account_name(url: str, key: Secret, shard: Shard | None = None) -> str:
    """The account behind an address and a key, as a hash that gives neither away; a shard's part of it counts alone."""
    parts = ["batchgen account", url, key.reveal(), *([str(shard)] if shard else [])]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def store_path(env: Mapping[str, str]) -> Path | None:
    """`$XDG_STATE_HOME/batchgen/accounts.sqlite3`, by default below `~/.local/state`; None where nobody has a home."""
    folder = env.get("XDG_STATE_HOME") or (f"{env['HOME']}/.local/state" if env.get("HOME") else None)
    return Path(folder) / "batchgen" / "accounts.sqlite3" if folder else None


def sent_on(day: str, path: Path, name: str) -> int | None:
    """How many requests the account sent on a UTC day, as the store tells; None where it tells nothing. Only looks."""
    if not path.is_file():
        return None
    try:
        store = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=LOOK_S)
        with contextlib.closing(store) as connection:
            row = connection.execute("SELECT state FROM account WHERE name = ?", (name,)).fetchone()
        return msgspec.json.decode(row[0], type=AccountState).on(day).sent if row else None
    except (sqlite3.Error, OSError, msgspec.MsgspecError):
        return None


class MemoryAccount:
    """An account that only this run knows of."""

    def __init__(self, pace: Pace, clock: Clock, sent_today: int = 0) -> None:
        self._pace, self._clock = pace, clock
        self.state = AccountState(clock.utc().date().isoformat(), sent_today)

    async def lease(self, n: int) -> Lease:
        self.state, lease = grant(self.state, self._pace, n, self._clock.utc())
        return lease

    async def give_back(self, n: int) -> None:
        self.state = replace(self.state, sent=max(0, self.state.sent - n))


class SharedAccount:
    """An account whose state all runs on this machine share.

    `sent_today` is what the output folder itself knows of today's requests; the larger count holds.
    """

    def __init__(
        self, path: Path, name: str, pace: Pace, clock: Clock, *, sent_today: int, warn: Callable[[str], None]
    ) -> None:
        self._path, self._name, self._pace, self._clock, self._warn = path, name, pace, clock, warn
        self._alone = MemoryAccount(pace, clock, sent_today)
        self._sent_today = sent_today
        self._thread = ThreadPoolExecutor(1, "batchgen-account")
        self._usable_from_s, self._warned = 0.0, False

    async def lease(self, n: int) -> Lease:
        if self._clock.monotonic() >= self._usable_from_s:
            with self._falling_back():
                return await self._off_loop(self._lease, n)
        return await self._alone.lease(n)

    async def give_back(self, n: int) -> None:
        if self._clock.monotonic() >= self._usable_from_s:
            with self._falling_back():
                await self._off_loop(self._give_back, n)

    def close(self) -> None:
        self._thread.shutdown()

    async def _off_loop(self, work: Callable[[int], Lease], n: int) -> Lease:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, n)

    @contextmanager
    def _falling_back(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            self._usable_from_s = self._clock.monotonic() + REST_S
            if not self._warned:
                self._warned = True
                self._warn(f"{self._path} cannot be used ({error}); other runs with the same key are not counted")

    def _lease(self, n: int) -> Lease:
        with self._transaction() as connection:
            state, lease = grant(self._read(connection), self._pace, n, self._clock.utc())
            self._write(connection, state)
        return lease

    def _give_back(self, n: int) -> Lease:
        with self._transaction() as connection:
            state = self._read(connection)
            self._write(connection, replace(state, sent=max(0, state.sent - n)))
        return Lease(())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(0o700, parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")  # the job log survives power loss; this count may lag
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            yield connection
            connection.execute("COMMIT")

    def _read(self, connection: sqlite3.Connection) -> AccountState:
        row = connection.execute("SELECT state FROM account WHERE name = ?", (self._name,)).fetchone()
        state = msgspec.json.decode(row[0], type=AccountState) if row else AccountState()
        state, known = state.on(self._clock.utc().date().isoformat()), self._sent_today
        self._sent_today = 0
        return replace(state, sent=max(known, state.sent))

    def _write(self, connection: sqlite3.Connection, state: AccountState) -> None:
        # Should the file become unusable, this run goes on from what was known last.
        self._alone.state = state
        row = (self._name, msgspec.json.encode(state).decode())
        connection.execute("INSERT OR REPLACE INTO account VALUES (?, ?)", row)
