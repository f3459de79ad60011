"""The JSON Schema of YAML manifests, for editors: built from the tables that the reader itself uses.

It accepts what the reader accepts. The reader alone sees what only holds across jobs (ids, prompts and models that come
from nowhere), files, the letters of ids, characters that may not be sent, and quoted numbers that are out of range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from batchgen.manifest import EXPANDING, FIELDS, LIMITS, SWITCHES, Field, Format
from batchgen.manifest.document import PRICE
from batchgen.manifest.endpoints import API
from batchgen.manifest.fields import ENDPOINT_LIMITS

# The newest draft that every editor's YAML support knows.
DRAFT = "http://json-schema.org/draft-07/schema#"
FILE = "batchgen.schema.json"

_Schema = dict[str, Any]
_SCALAR: _Schema = {"type": ["string", "number", "boolean"]}
_WHATEVER = 1e300
_PATH = "a job for every row of this file; what stands beside it is the default of the rows"


def schema() -> _Schema:
    """The whole schema: a list of jobs, or a mapping with `jobs`."""
    return {
        "$schema": DRAFT,
        "title": "batchgen manifest",
        "if": {"type": "array"},
        "then": {"$ref": "#/definitions/jobs"},
        "else": {
            "type": "object",
            "required": ["jobs"],
            "additionalProperties": False,
            "properties": {
                "api": _api(),
                "limits": _mapping("what a run may use", _fields(LIMITS)),
                "prices_usd": {
                    "description": "US dollars a picture, by model",
                    "type": ["object", "null"],
                    "additionalProperties": _field(PRICE),
                },
                **_fields(SWITCHES),
                "defaults": _mapping("what holds for every job that does not say otherwise", _job_fields(own=False)),
                "jobs": {"$ref": "#/definitions/jobs"},
            },
        },
        "definitions": {
            "api": _endpoint(),
            "jobs": {"description": "what to make", "type": "array", "items": {"$ref": "#/definitions/job"}},
            "job": {
                "if": {"type": "object"},
                "then": _mapping("one picture, or with matrix, repeat or from several", _job_fields(own=True)),
                "else": {"description": "a job that is just its prompt", **_SCALAR},
            },
        },
    }


def text() -> str:
    """The schema as the file that editors read."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


def _mapping(description: str, properties: _Schema) -> _Schema:
    return {
        "description": description,
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": properties,
    }


def _api() -> _Schema:
    one = {"$ref": "#/definitions/api"}
    several = {"type": "array", "minItems": 1, "items": one}
    return {"description": "which API to ask", "if": {"type": "array"}, "then": several, "else": one}


def _endpoint() -> _Schema:
    styles = msgspec.json.schema(API["style"].type)["enum"]
    own = _mapping(API["limits"].help, _fields(ENDPOINT_LIMITS))
    return {
        "if": {"type": "object"},
        "then": _mapping("its style, and where it is", _fields(API) | {"limits": own}),
        "else": {"enum": [*styles, None]},
    }


def _job_fields(*, own: bool) -> _Schema:
    """The fields of a job, `own` ones that no default can give among them."""
    found = _fields(FIELDS)
    found["params"]["propertyNames"] = {"not": {"enum": list(FIELDS)}}
    seed = _number(next(kind for kind in _kinds(FIELDS["seed"]) if kind.get("type") == "integer"))
    seeds = [*seed["anyOf"], {"const": "auto"}]
    if own:
        seeds.append({"type": "array", "minItems": 1, "items": seed})
        found |= _expanding()
    else:
        del found["id"]
    help = "a number, auto (derived from the job's id), or in a job a list: one picture for each"
    return found | {"seed": {"description": help, "anyOf": seeds}}


def _expanding() -> _Schema:
    """What makes several jobs of one entry."""
    values = {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean", "object"]}}
    return {
        "matrix": {
            "description": f"{EXPANDING['matrix'].help}; {{axis}} stands for the value",
            "type": ["object", "null"],
            "minProperties": 1,
            "additionalProperties": values,
        },
        "exclude": {
            "description": EXPANDING["exclude"].help,
            "type": ["array", "null"],
            "items": {"type": "object", "additionalProperties": _SCALAR},
        },
        "repeat": _field(EXPANDING["repeat"]),
        "from": {"description": _PATH, "type": ["string", "null"], "pattern": r"\S"},
        "columns": {
            "description": "with from: which column is which field, as in {prompt: Caption}",
            "type": ["object", "null"],
            "additionalProperties": {"type": "string"},
        },
        "format": {"description": "with from: the kind of file", "enum": [*Format, None]},
    }


def _fields(table: Mapping[str, Field]) -> _Schema:
    return {name: _field(field) for name, field in table.items()}


def _kinds(field: Field) -> list[_Schema]:
    """The types that a field may have."""
    plain = msgspec.json.schema(field.type)
    kinds: list[_Schema] = plain.get("anyOf", [plain])
    return kinds


def _field(field: Field) -> _Schema:
    described = {"description": f"{field.help}; {field.expects}"}
    plain = msgspec.json.schema(field.type)
    if field.is_text:
        # A text is what was written, numbers and `no` included.
        blank = r"(?=\s*\S)" in plain.get("pattern", "")
        return described | {"type": [*_SCALAR["type"], "null"]} | ({"pattern": r"\S"} if blank else {})
    if "enum" in plain:
        return described | {"enum": [*plain["enum"], None]}
    if plain.get("type") in ("integer", "number"):
        return described | _number(plain)
    if "pattern" in plain:
        plain["pattern"] = plain["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
    return described | plain | ({"type": [plain["type"], "null"]} if "type" in plain else {})


def _number(plain: _Schema) -> _Schema:
    """A number; it may be quoted, or a template that becomes one."""
    bounds = {name: value for name, value in plain.items() if name == "type" or abs(value) < _WHATEVER}
    return {"anyOf": [bounds, {"type": "null"}, {"type": "string", "pattern": "[0-9{]"}]}
