"""Nebula Block's own image API: `POST /images/generation` and what stands beside it.

Field names and shapes come from the service's public reference; where its pages disagree the choice is noted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pybase64

from batchgen.model import BadAnswer, Body, Post
from batchgen.protocol import JSON, MALFORMED, Drawn, Model, decode_request, sensible_number
from batchgen.protocol.answers import decode_answer

__all__ = [
    "CREDITS_PATH",
    "DEFAULT_URL",
    "GENERATE_PATH",
    "KEY_ENV",
    "MODELS_PATH",
    "SUCCESS_MESSAGE",
    "URL_ENV",
    "decode_answer",
    "decode_credits",
    "decode_models",
    "decode_request",
    "encode_answer",
    "encode_credits",
    "encode_error",
    "encode_models",
    "encode_post",
    "encode_request",
]

DEFAULT_URL = "https://api.nebulablock.com/api/v1"
KEY_ENV = "NEBULA_API_KEY"
URL_ENV = "NEBULA_API_URL"
# One documented example uses GET and repeats `/api/v1`; the heading and every guide use POST and this path.
GENERATE_PATH = "/images/generation"
MODELS_PATH = "/serverless/models"
CREDITS_PATH = "/users/credits"
SUCCESS_MESSAGE = "Image generated successfully"


def encode_request(model: str, request: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The body of a generation request; `files` holds the bytes of the request's pictures by field name."""
    # The guide's table calls the pictures `input_image` and `mask_image`; every request example sends these names.
    pictures = {field: pybase64.b64encode(data).decode() for field, data in files.items()}
    return msgspec.json.encode({"model": model, **request, **pictures})


def encode_post(model: str, request: Mapping[str, Any], files: Mapping[str, bytes]) -> Post:
    return Post(GENERATE_PATH, JSON, encode_request(model, request, files))


def encode_answer(model: str, pictures: Iterable[Drawn]) -> bytes:
    data = [
        {
            "timings": {"inference": picture.inference_s},
            "index": picture.index,
            "b64_json": pybase64.b64encode(picture.data).decode(),
        }
        for picture in pictures
    ]
    return msgspec.json.encode(
        {"model": model, "object": "list", "data": data, "message": SUCCESS_MESSAGE, "status": "success"}
    )


def encode_error(message: str, code: str | None = None, details: Mapping[str, Any] | None = None) -> bytes:
    """The documented error shapes: the short one without a code, the long one with."""
    if code is None:
        return msgspec.json.encode({"status": "failed", "message": message})
    return msgspec.json.encode(
        {"status": "error", "error": {"code": code, "message": message, "details": dict(details or {})}}
    )


def encode_models(models: Iterable[Mapping[str, Any]]) -> bytes:
    return msgspec.json.encode({"data": {"models": list(models)}, "message": "Models retrieved", "status": "success"})


def encode_credits(balance_usd: float) -> bytes:
    """The balance travels as a string with five decimals."""
    return msgspec.json.encode(
        {"data": {"available_balance": f"{balance_usd:.5f}"}, "message": "Credits retrieved", "status": "success"}
    )


def decode_models(body: Body) -> list[Model]:
    """The list of models; what in it is no model is left out. Raises BadAnswer where there is no list."""
    models = _inside(body, "models")
    if not isinstance(models, list):
        raise BadAnswer("the answer holds no list of models")
    found = []
    for item in models:
        if isinstance(item, dict) and isinstance(name := item.get("model_name"), str):
            kind = item.get("model_type")
            found.append(Model(name, kind if isinstance(kind, str) else None, sensible_number(item.get("price"))))
    return found


def decode_credits(body: Body) -> float:
    """The balance in US dollars. Raises BadAnswer where there is none."""
    balance = _inside(body, "available_balance")
    try:
        if not isinstance(balance, bool) and math.isfinite(amount := float(balance)):
            return amount
    except (TypeError, ValueError):
        pass
    raise BadAnswer("the answer holds no balance")


def _inside(body: Body, name: str) -> Any:
    """`data.<name>` of an answer, or `<name>` where it is not wrapped."""
    try:
        value = msgspec.json.decode(body)
    except MALFORMED as error:
        raise BadAnswer("the answer is not the API's JSON") from error
    data = value.get("data", value) if isinstance(value, dict) else None
    return data.get(name) if isinstance(data, dict) else None
