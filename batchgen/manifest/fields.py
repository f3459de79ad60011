"""The data tables of job fields and limits, and the checking of values against them. No files, formats or positions.

A value passes the fast check of the whole row at once; only when that fails is every field looked at by itself, so
that all the mistakes of a row are told together.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from batchgen import text
from batchgen.manifest.scalars import MAX_DEPTH, resolve
from batchgen.model import UsageError

_CONTROL = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff"
_NO_UNICODE = re.compile("[\ud800-\udfff]")
_Prose = Annotated[str, Meta(pattern=rf"\A[^{_CONTROL}]*\Z")]
_Prompt = Annotated[str, Meta(pattern=rf"\A(?=\s*\S)[^{_CONTROL}]*\Z")]
_Name = Annotated[str, Meta(pattern=rf"\A(?=\s*\S)[^{_CONTROL}\t\n\r]*\Z")]
_Pixels = Annotated[int, Meta(ge=1, le=65536)]
_Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]
_NotNegative = Annotated[float, Meta(ge=0, le=1e300)]


class Field(NamedTuple):
    """One thing that may be said: its type, the type in words for an error, and what it is for."""

    name: str
    type: Any
    expects: str
    help: str
    is_text: bool = False
    hidden: bool = False  # never show the value: it may be a key pasted into the wrong place


class Complaint(NamedTuple):
    """What is wrong with one field, without its place."""

    field: str
    what: str
    fix: str = ""


class Wrong(Exception):
    """Values that do not fit their table: all the `complaints`, and in `clean` what is right."""

    def __init__(self, complaints: list[Complaint], clean: dict[str, Any]) -> None:
        self.complaints = complaints
        self.clean = clean
        super().__init__("; ".join(c.what for c in complaints))


def _table(*fields: Field) -> dict[str, Field]:
    return {field.name: field for field in fields}


MAX_SEED = 2**63 - 1
MAX_REPEAT = 100_000_000

_PIXELS = "a whole number of pixels from 1 to 65536"
_PATH = "a path relative to the manifest"
_NO_CONTROL = "without control characters"

FIELDS = _table(
    Field("id", str, "text", "the job's name, unique in the manifest; derived from the row when left out", True),
    Field("prompt", _Prompt, f"text that is not blank, {_NO_CONTROL}", "what to draw, sent exactly as written", True),
    Field("negative_prompt", _Prose, f"text {_NO_CONTROL}", "what to keep out of the picture", True),
    Field("model", _Name, f"the name of a model, {_NO_CONTROL}", "which model draws it", True),
    Field("width", _Pixels, _PIXELS, "width of the picture in pixels"),
    Field("height", _Pixels, _PIXELS, "height of the picture in pixels"),
    Field("num_steps", Annotated[int, Meta(ge=1, le=10000)], "a whole number from 1 to 10000", "denoising steps"),
    Field("guidance_scale", _Finite, "a finite number", "how closely to follow the prompt"),
    Field(
        "seed",
        Annotated[int, Meta(ge=-1, le=MAX_SEED)] | Literal["auto"],
        "auto, -1 (random) or a whole number from 0 to 2**63-1",
        "which of the possible pictures; auto derives it from the job's id",
    ),
    Field("image", _Name, _PATH, "picture to start from, a path relative to the manifest", True),
    Field("mask", _Name, _PATH, "white where the picture may change, a path relative to the manifest", True),
    Field("params", dict[str, Any], "a mapping of names to values", "anything else the API takes, sent as it is"),
    Field("meta", dict[str, Any], "a mapping of names to values", "anything of your own, carried into the log"),
)
"""The fields of a job, in the order in which a request holds them."""

EXPANDING = _table(
    Field(
        "matrix",
        dict[str, Any],
        "a mapping of axes to lists of values",
        "axes with their values: a job for every combination",
    ),
    Field("exclude", list[Any], "a list of combinations of axis values", "combinations of the matrix to leave out"),
    Field(
        "repeat",
        Annotated[int, Meta(ge=1, le=MAX_REPEAT)],
        f"a whole number from 1 to {MAX_REPEAT}",
        "pictures of each; with a seed: seed, seed+1, ...",
    ),
)
"""What makes several jobs of one row; stands beside its fields."""

VALUE = Field("value", _Prose | int | float | bool, f"text {_NO_CONTROL}, or a number", "what a variable says", True)

LIMITS = _table(
    Field("concurrency", Annotated[int, Meta(ge=1, le=10000)], "a whole number from 1 to 10000", "requests in flight"),
    Field("requests_per_minute", Annotated[float, Meta(gt=0, le=1e300)], "a number above 0", "pace of the account"),
    Field(
        "requests_per_day", Annotated[int, Meta(ge=1)], "a whole number from 1 up", "quota of the account, by UTC day"
    ),
    Field("max_cost_usd", _NotNegative, "a number of dollars from 0 up", "money this output may ever cost"),
    Field("max_requests", Annotated[int, Meta(ge=1)], "a whole number from 1 up", "requests this output may ever take"),
    Field("attempts", Annotated[int, Meta(ge=1, le=100)], "a whole number from 1 to 100", "tries for a job in a run"),
    Field(
        "uncertain_retries",
        Annotated[int, Meta(ge=0, le=10)],
        "a whole number from 0 to 10",
        "tries that may pay twice",
    ),
    Field("timeout_s", Annotated[float, Meta(ge=1, le=86400)], "seconds from 1 to 86400", "longest wait for an answer"),
)
"""What `limits` of a manifest, and the flags of the same names, may hold."""

ENDPOINT_LIMITS = {
    name: LIMITS[name] for name in ("concurrency", "requests_per_minute", "requests_per_day", "timeout_s")
}
"""Those of them that an endpoint may have for itself; money and tries are the run's."""

SWITCHES = _table(
    Field("embed", bool, "true or false", "whether pictures carry their parameters; false: the server's bytes exactly"),
)
"""What else a manifest says of the whole run."""

SHORT = {"rpm": "requests_per_minute", "rpd": "requests_per_day"}
"""Limits as the flags call them."""

TEXT_FIELDS = frozenset(name for name, field in FIELDS.items() if field.is_text)
NESTED = ("params", "meta")

_Given = msgspec.defstruct(
    "_Given",
    [(f.name, f.type | None, None) for f in FIELDS.values()],
    forbid_unknown_fields=True,
    omit_defaults=True,
    gc=False,
)


def check(values: dict[str, Any]) -> dict[str, Any]:
    """`values` of a row with their right types, in the order of the table, without what is null. Raises Wrong."""
    complaints: list[Complaint] = []
    try:
        clean: dict[str, Any] = msgspec.to_builtins(msgspec.convert(values, _Given, strict=False))
    except (msgspec.ValidationError, RecursionError):
        clean, complaints = check_each(values, FIELDS)
    for name in NESTED:
        if name in clean and not _only_text(clean[name]):
            complaints += _unsendable(clean[name], name)
    if "params" in clean:
        complaints += _misplaced(clean["params"])
    if complaints:
        raise Wrong(complaints, clean)
    return clean


def merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Both, where `high` wins; params and meta are merged name by name, where both are mappings."""
    both = low | high
    for name in NESTED:
        if name in low and name in high and isinstance(low[name], dict) and isinstance(high[name], dict):
            both[name] = low[name] | high[name]
    return both


def check_each(values: Mapping[str, Any], table: Mapping[str, Field]) -> tuple[dict[str, Any], list[Complaint]]:
    """What of `values` fits `table`, rightly typed and in its order, and a complaint for each that does not."""
    clean: dict[str, Any] = {}
    complaints: list[Complaint] = []
    for name, value in values.items():
        if name not in table:
            complaints.append(_unknown(name, table))
        elif value is not None:
            try:
                if (converted := _converted(value, table[name])) is not None:
                    clean[name] = converted
            except msgspec.ValidationError:
                got = "" if table[name].hidden else f", got {shown(value)}"
                complaints.append(Complaint(name, f"{name}: expected {table[name].expects}{got}"))
    return {name: clean[name] for name in table if name in clean}, complaints


def _converted(value: Any, field: Field) -> Any:
    if isinstance(value, str) and value and not field.is_text:
        value = resolve(value.strip())
    return msgspec.convert(value, field.type | None, strict=False)


def _unknown(name: str, table: Mapping[str, Field]) -> Complaint:
    if name in EXPANDING and table is FIELDS:
        return Complaint(name, f"'{name}' is no default", "write it into a job")
    if table is ENDPOINT_LIMITS and name in LIMITS:
        return Complaint(name, f"'{name}' is no limit of one endpoint", "write it into the manifest's own limits")
    guess = nearest(name, [*table, *EXPANDING], cutoff=0.6) if table is FIELDS else nearest_limit(name, table)
    shown_name = f"'{text.printable(name, 60)}'"
    if guess:
        return Complaint(name, f"{shown_name} is not a known field", f"did you mean '{guess}'?")
    if "limits" in table and (limit := nearest_limit(name, LIMITS)):
        return Complaint(name, f"{shown_name} is not a known field", f"write '{limit}' under 'limits' here")
    fix = "what the API takes beside the known fields goes under 'params', your own under 'meta'"
    if " " in name:
        fix = "a prompt with ': ' in it needs quotes around it; " + fix
    return Complaint(
        name, f"{shown_name} is not a known field", fix if table is FIELDS else f"known: {', '.join(table)}"
    )


def nearest_limit(name: str, table: Collection[str]) -> str | None:
    """The name of a limit, or of another setting in `table`, that `name` was probably meant to be."""
    short = SHORT.get(name.casefold())
    return short if short and short in table else nearest(name, table, cutoff=0.6)


def nearest(name: str, table: Iterable[str], cutoff: float = 0.8) -> str | None:
    """The name in `table` that `name` was probably meant to be; nothing comes near names of two letters."""
    found = difflib.get_close_matches(name.casefold(), [known for known in table if len(known) > 2], n=1, cutoff=cutoff)
    return found[0] if found else None


def shown(value: Any) -> str:
    """`value` as a message may show it: one harmless line of at most about 60 characters."""
    match value:
        case str():
            return f"'{text.printable(value, 60)}'"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
    return text.printable(repr(value), 60)


def _misplaced(params: dict[str, Any]) -> Iterator[Complaint]:
    for name in params:
        if name in FIELDS:
            yield Complaint(
                f"params.{name}", f"params: '{name}' is a field of its own", f"write '{name}' beside params"
            )


def _only_text(value: dict[str, Any]) -> bool:
    """Whether this is a flat mapping of sound texts, as the rows of tables have it: the common case, for speed."""
    try:
        "".join([*value, *value.values()]).encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return True


def _unsendable(value: Any, path: str, depth: int = 0) -> Iterator[Complaint]:
    """What JSON cannot say, or no reader would survive: numbers that are not finite, text that is no Unicode, depth."""
    if depth > MAX_DEPTH:
        yield Complaint(path, f"{_path(path)}: more than {MAX_DEPTH} levels inside each other")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _unsendable(name, path)
            yield from _unsendable(inner, f"{path}.{name}", depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _unsendable(inner, path, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        yield Complaint(path, f"{_path(path)}: expected a finite number, got {value}")
    elif isinstance(value, str) and not value.isascii() and _NO_UNICODE.search(value):
        yield Complaint(path, f"{_path(path)}: not valid Unicode text, got {shown(value)}")


def _path(path: str) -> str:
    return text.printable(path, 60)


def overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """`FIELD=VALUE` arguments (`width=512`, `params.scheduler=ddim`, `meta.night=3`) as checked values of job fields.

    Raises UsageError with every mistake. The last of several values for one field counts.
    """
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        name, _, key = path.partition(".")
        if _NO_UNICODE.search(assignment):  # what a shell passes on of bytes that are no UTF-8
            mistakes.append(f"-D {text.printable(assignment, 60)}: not valid Unicode text")
        elif not equals or not path:
            mistakes.append(f"-D {text.printable(assignment, 60)}: expected FIELD=VALUE")
        elif name == "id":
            mistakes.append("-D id: every job would get the same id")
        elif name in NESTED and not key:
            mistakes.append(f"-D {name}: expected {name}.NAME=VALUE")
        elif name in NESTED:
            values.setdefault(name, {})[key] = resolve(value) if name == "params" else value
        else:
            values[path] = value
    try:
        clean = check(values)
    except Wrong as wrong:
        mistakes += [f"-D {c.what}" + (f"; {c.fix}" if c.fix else "") for c in wrong.complaints]
    if mistakes:
        raise UsageError("\n".join(mistakes))
    return clean
