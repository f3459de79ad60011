"""What a picture or a job was made from, as people, programs and manifests read it. Decides nothing, opens nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from batchgen.manifest import FIELDS
from batchgen.metadata import Made
from batchgen.model import Attempt, Entry, Outcome
from batchgen.text import duration, printable, size

_SET_APART = ("id", "model", "params", "meta")
_INPUTS = ("image", "mask")
# Line ends to YAML, or characters that may not stand in it; JSON itself escapes those below a blank.
_NOT_IN_YAML = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")
_ANY_LENGTH = 1 << 30


class Whereabouts(msgspec.Struct, frozen=True):
    """One picture of an entry: where it lies now, relative to the output folder; None where it is missing."""

    file: str | None
    width: int
    height: int
    format: str
    size_bytes: int


class Other(msgspec.Struct, frozen=True):
    """Another entry of the same job: how it ended with other parameters, and where its pictures lie now."""

    outcome: Outcome
    fingerprint: str
    finished_at: str
    files: tuple[str | None, ...]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Where a picture or a job comes from. `source` is log or picture: what has told it.

    `made` is None where a picture carries nothing but the `infotext` of another program. `entry` is the log's, with the
    output folder, the whereabouts of its pictures and the job's other entries.
    """

    source: str
    made: Made | None
    file: str | None = None
    infotext: str | None = None
    output: str | None = None
    entry: Entry | None = None
    pictures: tuple[Whereabouts, ...] = ()
    others: tuple[Other, ...] = ()
    notices: tuple[str, ...] = ()
    v: int = 1


def made_of(entry: Entry) -> Made:
    return Made(entry.job, entry.fingerprint, entry.api, entry.model, entry.request)


def manifest_text(made: Made, meta: Mapping[str, Any]) -> str:
    """A manifest of one job: read as YAML it is the same request, with the same id and fingerprint."""
    request = made.request
    fields = {name: request[name] for name in FIELDS if name in request and name not in _SET_APART}
    for name in _INPUTS:
        if name in fields:
            fields[name] = fields[name]["path"]
    params = {name: value for name, value in request.items() if name not in fields}
    job = {"id": made.job, "model": made.model, **fields}
    job |= {name: value for name, value in (("params", params), ("meta", dict(meta))) if value}
    lines = [f"{name}: {_yaml(value)}" for name, value in job.items()]
    return "\n".join([f"api: {_yaml(made.api)}", "jobs:", f"  - {lines[0]}", *(f"    {line}" for line in lines[1:])])


def _yaml(value: Any) -> str:
    """JSON, which is YAML once a few characters have been escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def render(found: Shown) -> Iterator[str]:
    """What was found, for people, a line at a time."""
    rows = [(printable(name, 40), text) for name, text in _rows(found)]
    width = max((len(name) for name, _ in rows), default=0)
    entry, made = found.entry, found.made
    what = (made.job if made else found.file) or ""
    yield f"{printable(what, _ANY_LENGTH)}{f': {entry.outcome}' if entry else ''}"
    for name, text in rows:
        for number, line in enumerate(text.split("\n")):
            yield f"  {'' if number else name:<{width}}  {printable(line, _ANY_LENGTH)}".rstrip()


def _rows(found: Shown) -> Iterator[tuple[str, str]]:
    made, entry = found.made, found.entry
    if made:
        yield from _asked(made, entry)
    elif found.infotext:
        yield "parameters", found.infotext
    if entry:
        yield from _told(entry, found)
    if made:
        yield "fingerprint", made.fingerprint
    yield "told by", f"the log of {found.output}" if found.source == "log" else f"the picture itself, {found.file}"
    for notice in found.notices:
        yield "note", notice


def _asked(made: Made, entry: Entry | None) -> Iterator[tuple[str, str]]:
    """Every parameter, the prompts and the model first."""
    order = dict.fromkeys(["prompt", "negative_prompt"]) | made.request
    yield from ((name, _value(name, value)) for name, value in order.items() if value is not None)
    yield "model", made.model
    for name, value in (entry.meta if entry else {}).items():
        yield f"meta.{name}", _value(name, value)


def _value(name: str, value: Any) -> str:
    if name in _INPUTS and isinstance(value, dict) and "path" in value:
        return f"{value['path']} (relative to the manifest; sha256 {str(value.get('sha256'))[:16]}…)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _told(entry: Entry, found: Shown) -> Iterator[tuple[str, str]]:
    """What the log adds: pictures, time, money, attempts."""
    for picture in found.pictures:
        what = f"{picture.width} x {picture.height} {picture.format}, {size(picture.size_bytes)}"
        yield "picture", f"{picture.file or 'missing'} ({what})"
    place = f"line {entry.line} of {entry.file or entry.manifest}"
    api = f"api {entry.api}" + (f" at {entry.endpoint}" if entry.endpoint else "")
    yield "made" if entry.images else "ended", f"{entry.finished_at} by run {entry.run}, {place}, {api}"
    inference = f"{duration(entry.inference_s)} inference, " if entry.inference_s is not None else ""
    yield "time", f"{inference}{duration(entry.timings.total_s)} in all"
    if entry.cost_usd is not None:
        doubt = f" (and ${entry.exposure_usd:.4f} in doubt)" if entry.exposure_usd else ""
        yield "cost", f"${entry.cost_usd:.4f}{doubt}"
    for attempt in entry.attempts:
        yield f"attempt {attempt.n}", _attempt(attempt)
    for note in entry.notes:
        yield "note", note
    for other in found.others:
        files = ", ".join(file or "missing" for file in other.files)
        yield "otherwise", f"{other.outcome} {other.finished_at}, fingerprint {other.fingerprint[:8]} {files}".rstrip()


def _attempt(attempt: Attempt) -> str:
    parts = [attempt.at, attempt.endpoint or "", f"HTTP {attempt.http}" if attempt.http else "", attempt.failure or ""]
    said = f": {attempt.message}" if attempt.message else ""
    return f"{' '.join(filter(None, parts))}{said} ({duration(attempt.elapsed_s)}, billed: {attempt.billed})"
