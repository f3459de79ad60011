"""Which parameters make a job another one than its last entry in the log. Compares; reads no log by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from batchgen.manifest import canonical
from batchgen.model import Entry, FileInput, Job
from batchgen.text import printable

_SHOWN_CHARS = 60
_CONTEXT_CHARS = 15


class Change(msgspec.Struct, frozen=True):
    """One parameter that differs; None stands for one that is not given."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        before, after = self.before, self.after
        if _is_file(before) and _is_file(after) and before["path"] == after["path"]:
            return f"{self.name} (content)"
        if isinstance(before, str) and isinstance(after, str):
            return f"{self.name} {_excerpt(before, after)} -> {_excerpt(after, before)}"
        return f"{self.name} {_shown(before)} -> {_shown(after)}"


def changes(job: Job, style: str, entry: Entry) -> list[Change]:
    """What the job asks for otherwise than `entry` did, API style and model first."""
    now = {"api": style, "model": job.model, **_plain(job.request)}
    then = {"api": entry.api, "model": entry.model, **entry.request}
    names = [*now, *(name for name in then if name not in now)]
    return [Change(name, then.get(name), now.get(name)) for name in names if _differ(then, now, name)]


def _plain(request: Mapping[str, Any]) -> dict[str, Any]:
    return {n: msgspec.to_builtins(v) if isinstance(v, FileInput) else v for n, v in request.items()}


def _differ(then: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    if (name in then) != (name in now):
        return True
    before, after = then[name], now[name]
    if _is_file(before) and _is_file(after):
        return bool(before["sha256"] != after["sha256"])
    return canonical(before) != canonical(after)


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"path", "sha256"}


def _excerpt(text: str, other: str) -> str:
    """`text` from shortly before the place where it begins to differ."""
    same = next((at for at, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    start = same - _CONTEXT_CHARS if same > _SHOWN_CHARS - _CONTEXT_CHARS else 0
    return f'"{"…" * (start > 0)}{printable(text[start:], _SHOWN_CHARS)}"'


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    if _is_file(value):
        return printable(value["path"], _SHOWN_CHARS)
    if isinstance(value, str):
        return f'"{printable(value, _SHOWN_CHARS)}"'
    return printable(msgspec.json.encode(value).decode(), _SHOWN_CHARS)


def summed(counts: Mapping[str, int]) -> Iterator[str]:
    """`num_steps (12)`, `seed (3)`: the parameters that changed, the most frequent first."""
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield f"{printable(name, _SHOWN_CHARS)} ({count})"
