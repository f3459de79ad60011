"""The OpenAI-compatible shape: `POST /images/generations`, as a form `POST /images/edits`, `GET /models`.

Many servers speak it, each with fields of its own: what a request holds beside the shape's fields is sent as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pybase64

from batchgen.model import BadAnswer, Body, Post
from batchgen.protocol import JSON, MALFORMED, Drawn, Model
from batchgen.protocol.multipart import encode_form

DEFAULT_URL = "https://api.openai.com/v1"
KEY_ENV = "OPENAI_API_KEY"
URL_ENV = "OPENAI_BASE_URL"
GENERATE_PATH = "/images/generations"
EDIT_PATH = "/images/edits"
MODELS_PATH = "/models"
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")
_EDITS = ("image", "mask")


def fields(model: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request: `width` and `height` become `size`, one picture is asked for, as base64.

    What the request says itself wins; a field that it says to be null is left out.
    """
    asked = dict(request)
    if "size" not in asked and asked.get("width") and asked.get("height"):
        asked["size"] = f"{asked['width']}x{asked['height']}"
    if asked.get("size") is not None:
        asked = {name: value for name, value in asked.items() if name not in ("width", "height")}
    whole = {"model": model, "n": 1, "response_format": "b64_json"} | asked
    return {name: value for name, value in whole.items() if value is not None}


def encode_post(model: str, request: Mapping[str, Any], files: Mapping[str, bytes]) -> Post:
    """A generation, or an edit where there are pictures to start from (`files`, by field name)."""
    asked = fields(model, request)
    if not files:
        return Post(GENERATE_PATH, JSON, msgspec.json.encode(asked))
    # A field that has its own text travels as that; everything else as JSON says it.
    texts = {name: value if isinstance(value, str) else _json(value) for name, value in asked.items()}
    form = encode_form(texts, files)
    return Post(EDIT_PATH, form.content_type, form.body)


def edit_path(generate_path: str) -> str:
    """Where edits go at a server that generates at this path.

    >>> edit_path("/deployments/x/images/generations?api-version=1"), edit_path("/draw")
    ('/deployments/x/images/edits?api-version=1', '/draw')
    """
    path, mark, query = generate_path.partition("?")
    return re.sub(r"/generations?\Z", "/edits", path) + mark + query


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def decode_size(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A request's fields with `size` taken apart into width and height, as far as it names them."""
    found = {name: value for name, value in asked.items() if name != "size"}
    if isinstance(size := asked.get("size"), str) and (match := _SIZE.fullmatch(size)):
        return found | {"width": int(match[1]), "height": int(match[2])}
    if size in (None, "auto"):
        return found
    raise ValueError(f"Invalid value: '{size}'. The size is written as in 1024x1024.")


def decode_texts(parts: Mapping[str, bytes]) -> dict[str, Any]:
    """The fields of a form: pictures (`image`, `image[]`, `mask`) as base64, numbers as numbers, the rest as texts."""
    found: dict[str, Any] = {}
    for name, data in parts.items():
        plain = name.removesuffix("[]")
        if plain in _EDITS:
            found[plain] = pybase64.b64encode(data).decode()
            continue
        text = data.decode("utf-8", "replace")
        try:
            value = msgspec.json.decode(text)
        except MALFORMED:
            value = text
        found[plain] = value if isinstance(value, int | float) and plain != "prompt" else text
    return found


def encode_answer(pictures: Iterable[Drawn | str], created: int, usage: Mapping[str, Any] | None = None) -> bytes:
    """The answer with these pictures; a text is the address of one."""
    data: list[dict[str, Any]] = []
    for picture in pictures:
        if isinstance(picture, str):
            data.append({"url": picture})
        else:
            revised = {} if picture.revised_prompt is None else {"revised_prompt": picture.revised_prompt}
            data.append({"b64_json": pybase64.b64encode(picture.data).decode(), **revised})
    return msgspec.json.encode({"created": created, "data": data} | ({"usage": usage} if usage else {}))


def encode_error(message: str, kind: str, code: str | None = None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def encode_models(names: Iterable[str]) -> bytes:
    listed = [{"id": name, "object": "model", "created": 0, "owned_by": "sandbox"} for name in names]
    return msgspec.json.encode({"object": "list", "data": listed})


def decode_models(body: Body) -> list[Model]:
    """The list of models; what in it is no model is left out. Raises BadAnswer where there is no list.

    Servers add a `type` to the shape, or leave the wrapping away; both are read.
    """
    try:
        value = msgspec.json.decode(body)
    except MALFORMED as error:
        raise BadAnswer("the answer is not the API's JSON") from error
    listed = value.get("data") if isinstance(value, dict) else value
    if not isinstance(listed, list):
        raise BadAnswer("the answer holds no list of models")
    found = []
    for item in listed:
        if isinstance(item, dict) and isinstance(name := item.get("id"), str):
            kind = item.get("type")
            found.append(Model(name, kind if isinstance(kind, str) and kind != "model" else None))
    return found
