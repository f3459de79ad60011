"""Nebula Block's own image API: `POST /images/generation` and what stands beside it.

Field names and shapes come from the service's public reference; where its pages disagree the choice is noted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Annotated, Any

import msgspec
import pybase64

from batchgen.model import BadAnswer, Body, ServerError
from batchgen.protocol import MALFORMED, Answer, Drawn, decode_base64, error_in, looks_like_html, read_error
from batchgen.protocol.cut import MAX_VALUES, Parts, crowded, cut

DEFAULT_URL = "https://api.nebulablock.com/api/v1"
KEY_ENV = "NEBULA_API_KEY"
URL_ENV = "NEBULA_API_URL"
# One documented example uses GET and repeats `/api/v1`; the heading and every guide use POST and this path.
GENERATE_PATH = "/images/generation"
MODELS_PATH = "/serverless/models"
CREDITS_PATH = "/users/credits"
SUCCESS_MESSAGE = "Image generated successfully"
MAX_INDEX = 10_000
_FAILED = ("failed", "error")
_Duration = Annotated[float, msgspec.Meta(ge=0)]


class Model(msgspec.Struct, frozen=True):
    """One model of the API's list; the price is in US dollars a picture, None where the list gives no sensible one."""

    name: str
    makes_pictures: bool
    price_usd: float | None


class _AnswerBody(msgspec.Struct):
    data: Any = None
    status: Any = None
    message: Any = None
    error: Any = None
    detail: Any = None


class _Timings(msgspec.Struct, gc=False):
    inference: _Duration | None = None


class _Cut(msgspec.Struct, gc=False):
    """A picture as documented, its text cut out."""

    b64_json: str
    index: Annotated[int, msgspec.Meta(ge=0, lt=MAX_INDEX)] | None = None
    timings: _Timings | None = None


class _Documented(msgspec.Struct, gc=False):
    data: list[_Cut]
    status: str | None = None


_answer_body = msgspec.json.Decoder(_AnswerBody)
_documented = msgspec.json.Decoder(_Documented)


def encode_request(model: str, request: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The body of a generation request; `files` holds the bytes of the request's pictures by field name."""
    # The guide's table calls the pictures `input_image` and `mask_image`; every request example sends these names.
    pictures = {field: pybase64.b64encode(data).decode() for field, data in files.items()}
    return msgspec.json.encode({"model": model, **request, **pictures})


def decode_request(body: bytes) -> dict[str, Any]:
    """What a client asks for, as a JSON object. Raises ValueError with a message for the client."""
    try:
        value = msgspec.json.decode(body)
    except MALFORMED as error:
        raise ValueError("The request body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise ValueError("The request body must be a JSON object.")
    return value


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


def decode_answer(body: Body) -> Answer | ServerError:
    """The pictures of a 200 answer, or the error that the API sometimes reports with status 200.

    Raises BadAnswer where there is neither.
    """
    parts = cut(body)
    if crowded(parts.rest) and not looks_like_html(body):
        raise BadAnswer(f"the answer holds more than {MAX_VALUES:,} values")
    return _read_parts(parts) or _read_whole(body)


def _read_parts(parts: Parts) -> Answer | None:
    """The short road, for an answer as documented: None where it is not surely one, and `_read_whole` decides.

    Without a backslash every quote begins or ends a text, so the base64 was cut exactly where a JSON reader sees it.
    As many empty texts as cuts, one in each picture, are then those cuts in their order.
    """
    if b"\\" in parts.rest:
        return None
    try:
        answer = _documented.decode(parts.rest)
        if answer.status in _FAILED or not 0 < len(answer.data) == len(parts.texts):
            return None
        if any(item.b64_json for item in answer.data):
            return None
        return _in_order([_drawn_as_said(*both) for both in zip(answer.data, parts.texts, count())])
    except MALFORMED:
        return None


def _drawn_as_said(item: _Cut, text: memoryview, position: int) -> Drawn:
    index = position if item.index is None else item.index
    return Drawn(pybase64.b64decode(text, validate=True), index, item.timings.inference if item.timings else None)


def _read_whole(body: Body) -> Answer | ServerError:
    """The long road, for any answer: everything is read as JSON, and odd base64 is forgiven."""
    try:
        answer = _decode(body)
    except MALFORMED as error:
        if looks_like_html(body):
            return read_error(body)
        raise BadAnswer("the answer is not the API's JSON") from error
    if answer.status in _FAILED:
        return error_in(msgspec.structs.asdict(answer)) or ServerError(f"status {answer.status}", shaped=True)
    if not isinstance(answer.data, list) or not answer.data:
        raise BadAnswer("the answer holds no picture")
    data = [_bytes_of(item, position) for position, item in enumerate(answer.data)]
    return _in_order([_drawn(*both) for both in zip(answer.data, data, count())])


def _decode(body: Body) -> _AnswerBody:
    try:
        return _answer_body.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # The lenient reader: a byte order mark, a message in another encoding, or a timing that is NaN must not cost a
        # picture that was paid for.
        return msgspec.convert(json.loads(body.decode("utf-8-sig", "replace")), _AnswerBody)


def _has_text(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("b64_json"), str)


def _bytes_of(item: Any, position: int) -> bytes:
    if not _has_text(item):
        raise BadAnswer(f"picture {position} of the answer has no b64_json text")
    return decode_base64(item["b64_json"])


def _in_order(pictures: list[Drawn]) -> Answer:
    """The pictures by their indices; by their places, where two say the same index."""
    if len(pictures) > 1:
        if len({picture.index for picture in pictures}) < len(pictures):
            pictures = [msgspec.structs.replace(picture, index=i) for i, picture in enumerate(pictures)]
        pictures.sort(key=lambda picture: picture.index)
    return Answer(tuple(pictures))


def _drawn(item: dict[str, Any], data: bytes, position: int) -> Drawn:
    index, timings = item.get("index"), item.get("timings")
    return Drawn(
        data,
        index if type(index) is int and 0 <= index < MAX_INDEX else position,
        _not_negative(timings.get("inference") if isinstance(timings, dict) else None),
    )


def _not_negative(value: Any) -> float | None:
    """A duration or price as the server gives it; a missing or senseless one is None, never invented."""
    sensible = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if sensible else None


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
            price = item.get("price")
            found.append(Model(name, not isinstance(kind, str) or kind.lower() == "image", _not_negative(price)))
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
