"""Entries as the page's script reads them: compact JSON, one line a job, with what repeats kept in tables.

The names are short because there are ten thousand of each; `assets/data.js` is the other side and says what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from batchgen.layout import IMAGES
from batchgen.model import Attempt, Entry, Outcome, Picture, Standing
from batchgen.report.facts import Thumb
from batchgen.report.numbers import unix_s

OUTCOMES = tuple(outcome.value for outcome in Outcome)
BILLED = ("no", "maybe", "yes")
STATES = {Standing.CHANGED: "changed", Standing.MISSING: "missing", Standing.SUPERSEDED: "superseded"}
"""What may be said of an entry beside its outcome, by where its job stands."""
ORPHAN = "orphan"
_LARGEST = 2**53
_ALONE = ("prompt", "seed", "image", "mask")


@dataclass
class _Table:
    """Values that several rows share, each kept once; a row has its number."""

    values: list[bytes] = field(default_factory=list)
    _numbers: dict[bytes, int] = field(default_factory=dict)

    def number(self, value: Any) -> int:
        encoded = msgspec.json.encode(_exact(value))
        number = self._numbers.setdefault(encoded, len(self.values))
        if number == len(self.values):
            self.values.append(encoded)
        return number


@dataclass
class Rows:
    """Takes in the entry that holds for each job; keeps about 400 bytes of it."""

    rows: list[bytes] = field(default_factory=list)
    _tables: dict[str, _Table] = field(default_factory=dict)

    def _number(self, table: str, value: Any) -> int:
        return self._tables.setdefault(table, _Table()).number(value)

    def add(
        self,
        entry: Entry,
        thumbs: Sequence[Thumb],
        *,
        state: str | None = None,
        group: int | None = None,
        earlier: Sequence[Attempt] = (),
    ) -> None:
        """`thumbs` are of the entry's pictures, in their order; `group` is the number of its failure's group."""
        asked, numbers = entry.request, entry.timings
        rest = {name: value for name, value in asked.items() if name not in _ALONE}
        row: dict[str, Any] = {
            "i": entry.job,
            "o": OUTCOMES.index(entry.outcome.value) or None,
            "s": None if state is None else self._number("states", state),
            "m": self._number("models", entry.model),
            "r": self._number("runs", entry.run),
            "q": self._number("requests", rest) if rest else None,
            "p": asked.get("prompt"),
            "w": {name: _exact(asked[name]) for name in _ALONE[1:] if name in asked} or None,
            "e": self._number("metas", entry.meta) if entry.meta else None,
            "a": self._number("axes", entry.axes) if entry.axes else None,
            "t": _milliseconds(entry.finished_at),
            "f": entry.inference_s,
            "x": [_short(seconds) for seconds in msgspec.structs.astuple(numbers)],
            "c": entry.cost_usd,
            "u": entry.exposure_usd or None,
            "g": [self._picture(entry.job, *both) for both in zip(entry.images, thumbs, strict=True)] or None,
            "z": [self._attempt(attempt) for attempt in (*earlier, *entry.attempts)],
            "k": group,
            "l": entry.line,
            "d": self._number("files", entry.file or entry.manifest),
            "y": entry.notes or None,
        }
        self.rows.append(msgspec.json.encode({name: value for name, value in row.items() if value is not None}))

    def _picture(self, job: str, picture: Picture, thumb: Thumb) -> list[Any]:
        place = thumb.file or picture.file
        suffix = place.removeprefix(f"{IMAGES}/{job}")
        file = suffix if suffix != place and suffix[:1] in (".", "~") else f"/{place}"
        told = [file, thumb.name or 0, picture.width, picture.height, picture.size_bytes, picture.inference_s]
        return [*told, self._number("problems", thumb.problem)] if thumb.problem else told

    def _attempt(self, attempt: Attempt) -> list[Any]:
        billed = BILLED.index(attempt.billed.value)
        told: list[Any] = [attempt.n, _milliseconds(attempt.at), _short(attempt.elapsed_s), billed, attempt.http]
        if attempt.failure or attempt.message or attempt.code:
            told.append(self._number("causes", [attempt.failure, attempt.message, attempt.code]))
        if attempt.endpoint:
            told += [*[None] * (6 - len(told)), self._number("endpoints", attempt.endpoint)]
        return told

    def data(self, beside: Mapping[str, Any]) -> Iterator[str]:
        """The JSON of everything, in pieces, safe inside a script element."""
        tables = {name: list(map(msgspec.Raw, table.values)) for name, table in self._tables.items()}
        head = msgspec.json.encode({**beside, "outcomes": OUTCOMES, "billed": BILLED, "tables": tables})
        yield _safe(head[:-1] + b',"jobs":[')
        for start in range(0, len(self.rows), 500):
            yield _safe((b",\n" if start else b"") + b",\n".join(self.rows[start : start + 500]))
        yield "]}"


def _exact(value: Any) -> Any:
    """`value` with whole numbers that a script would round as `{"$int": digits}`."""
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    return {"$int": str(value)} if type(value) is int and abs(value) > _LARGEST else value


def _safe(data: bytes) -> str:
    """JSON that cannot end its script element: in JSON, `<` stands in texts only."""
    return data.replace(b"<", b"\\u003c").decode().replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _milliseconds(at: str) -> int | None:
    found = unix_s(at)
    return None if found is None else round(found * 1000)
