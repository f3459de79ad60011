"""The wire formats, both directions, one module per style; client and sandbox use the same ones.

Bytes in, values out, and back; `cut` finds the pictures of an answer without reading it as JSON. Nothing here sends,
waits, judges whether to retry, or looks at pixels.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any

import msgspec
import pybase64

from batchgen.model import BadAnswer, Body, ServerError
from batchgen.protocol.cut import crowded
from batchgen.text import printable

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_DATA_PREFIX = re.compile(r"data:[\w/+.;=-]{0,100}?,")
_TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
JSON = "application/json"
MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)


class Drawn(msgspec.Struct, frozen=True):
    """One picture of an answer: its encoded bytes, and what the server says of it."""

    data: bytes
    index: int = 0
    inference_s: float | None = None
    revised_prompt: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """A success answer: at least one picture, in the order of their indices."""

    pictures: tuple[Drawn, ...]
    usage: dict[str, Any] | None = None


class Model(msgspec.Struct, frozen=True):
    """One model of an API's list.

    `kind` is what it makes in the server's word, None where the list does not say; the price is in US dollars a
    picture, None where the list gives no sensible one.
    """

    name: str
    kind: str | None = None
    price_usd: float | None = None

    @property
    def makes_pictures(self) -> bool:
        """Whether it does, as far as the list says."""
        return self.kind is None or self.kind.lower() == "image"


def decode_base64(text: str) -> bytes:
    """The bytes behind `text`, strictly; a `data:` prefix, white space, the url-safe alphabet and missing padding are
    forgiven, because the picture was paid for and its own structure is checked afterwards.

    Raises BadAnswer for anything else.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass
    prefix = _DATA_PREFIX.match(text)
    try:
        raw = b"".join(text[prefix.end() if prefix else 0 :].encode("ascii").split()).translate(_URL_SAFE)
        return pybase64.b64decode(raw.rstrip(b"=") + b"=" * (-len(raw.rstrip(b"=")) % 4), validate=True)
    except ValueError as error:
        raise BadAnswer(f"the picture is not valid base64 ({len(text)} characters)") from error


def decode_request(body: Body) -> dict[str, Any]:
    """What a client asks for, as a JSON object. Raises ValueError with a message for the client."""
    try:
        value = msgspec.json.decode(body)
    except MALFORMED as error:
        raise ValueError("The request body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise ValueError("The request body must be a JSON object.")
    return value


def sensible_number(value: Any) -> float | None:
    """A duration or price as the server gives it; a missing or senseless one is None, never invented."""
    sensible = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if sensible else None


def looks_like_html(body: Body) -> bool:
    """Whether a proxy's page came instead of the API's answer."""
    return body.lstrip()[:1] == b"<"


def read_error(body: Body) -> ServerError:
    """The error in `body`, whatever shape it has: the API's, `detail`, plain text, a proxy's page, nothing.

    Never raises; the message is printable and short.
    """
    if crowded(body):
        body = body[:4000]  # no JSON any more: told as text
    try:
        value = msgspec.json.decode(body.decode("utf-8", "replace"))
    except MALFORMED:
        text = body[:4000].decode("utf-8", "replace")
        return ServerError(printable(_TAG.sub(" ", text)) or "an empty answer")
    return error_in(value) or ServerError(printable(body[:2000].decode("utf-8", "replace")))


def error_in(value: Any) -> ServerError | None:
    """The error that a decoded JSON answer holds, or None where it holds no message and no code."""
    if not isinstance(value, dict):
        return None
    inner = value.get("error")
    detail = value.get("detail")
    source = next((part for part in (inner, detail) if isinstance(part, dict)), value)
    code = _code(source)
    told = (source.get("message"), value.get("message"), _complaints(detail), inner, source.get("error"))
    message = next((m for m in map(_short, told) if m), None)
    if message is None and code is None:
        return None
    return ServerError(message or f"error {code}", code, shaped=True)


def _code(source: dict[str, Any]) -> str | None:
    """The word for what went wrong. A code that is a number only repeats the status; then the type says more."""
    code, kind = _short(source.get("code")), _short(source.get("type"))
    return kind if kind and (code is None or code.isdecimal()) else code


def _complaints(detail: Any) -> Any:
    """What is wrong with each field of a request, in words, where `detail` is a list of that."""
    if not isinstance(detail, list):
        return detail
    said = []
    for item in detail[:20]:
        if not isinstance(item, dict) or not isinstance(words := item.get("msg"), str):
            return detail
        place = item.get("loc")
        path = ".".join(map(str, place)) if isinstance(place, list) else ""
        said.append(f"{path}: {words}" if path else words)
    return "; ".join(said)


def _short(value: Any) -> str | None:
    match value:
        case str() if value.strip():
            return printable(value)
        case bool() | None | "":
            return None
        case int():
            return printable(str(value))
        case list() | dict() if value:
            with contextlib.suppress(*MALFORMED):
                return printable(msgspec.json.encode(value)[:2000].decode("utf-8", "replace"))
            return "an error nested too deeply to be told"
    return None
