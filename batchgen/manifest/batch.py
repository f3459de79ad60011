"""Lines of the OpenAI Batch API -> what they say as fields of a job. Pure translation of one decoded line."""

from __future__ import annotations

import re
from typing import Any

from batchgen.manifest.fields import FIELDS, NESTED, Complaint, shown

_ENVELOPE = ("custom_id", "method", "url", "body")
_MAKES_PICTURES = "/images/generations"
_SIZE = re.compile(r"([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})")
_FIELDS = frozenset(FIELDS) - {"id", *NESTED}


def is_batch(said: dict[str, Any]) -> bool:
    """Whether an object is a request of a batch, and no job by itself."""
    return "body" in said and ("url" in said or "custom_id" in said) and "prompt" not in said


def batch_values(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[Complaint]]:
    """The fields that a request of a batch says, under which of its paths each was said, and what is wrong with it."""
    body = said["body"]
    wrong = _envelope(said)
    if not isinstance(body, dict):
        return {}, {}, [*wrong, Complaint("body", f"body: expected an object, got {shown(body)}")]
    values: dict[str, Any] = {} if said.get("custom_id") is None else {"id": said["custom_id"]}
    paths = {"id": "custom_id", "width": "body.size", "height": "body.size"}
    params: dict[str, Any] = {}
    for name, value in body.items():
        if name == "size":
            values |= _size(value, wrong)
        elif name in _FIELDS:
            values[name] = value
            paths[name] = f"body.{name}"
        elif (name, value) != ("n", 1):
            params[name] = value
            paths[f"params.{name}"] = f"body.{name}"
    meta = {name: value for name, value in said.items() if name not in _ENVELOPE}
    values |= {"params": params} if params else {}
    values |= {"meta": meta} if meta else {}
    return values, paths, wrong


def _envelope(said: dict[str, Any]) -> list[Complaint]:
    wrong = []
    url, method = said.get("url"), said.get("method")
    if url is not None and not (isinstance(url, str) and url.rstrip("/").endswith(_MAKES_PICTURES)):
        wrong.append(Complaint("url", f"url: expected /v1{_MAKES_PICTURES}, got {shown(url)}"))
    if method not in (None, "POST"):
        wrong.append(Complaint("method", f"method: expected POST, got {shown(method)}"))
    return wrong


def _size(value: Any, wrong: list[Complaint]) -> dict[str, Any]:
    """Width and height; none where the server shall choose."""
    if value in (None, "auto"):
        return {}
    if isinstance(value, str) and (size := _SIZE.fullmatch(value.strip())):
        return {"width": int(size[1]), "height": int(size[2])}
    wrong.append(Complaint("body.size", f"size: expected WIDTHxHEIGHT such as 1024x1024, got {shown(value)}"))
    return {}
