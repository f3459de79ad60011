"""Reading the answers that hold pictures: one reader for all styles, because servers mix their shapes.

Base64 (`b64_json`), `data:` addresses and, once they have been fetched, pictures that an answer only links to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import count
from typing import Annotated, Any

import msgspec
import pybase64

from batchgen.model import BadAnswer, Body, ServerError
from batchgen.protocol import (
    MALFORMED,
    Answer,
    Drawn,
    decode_base64,
    error_in,
    looks_like_html,
    read_error,
    sensible_number,
)
from batchgen.protocol.cut import MAX_VALUES, Parts, crowded, cut

MAX_INDEX = 10_000
MAX_LINKS = 16
_MAX_LINK_CHARS = 8192
_MAX_LINKING_BYTES = 256 << 10
_FAILED = ("failed", "error")
_MAX_REVISED_CHARS = 10_000
_MAX_COUNTS = 32
_Duration = Annotated[float, msgspec.Meta(ge=0)]


class _AnswerBody(msgspec.Struct):
    data: Any = None
    status: Any = None
    message: Any = None
    error: Any = None
    detail: Any = None
    usage: Any = None


class _Timings(msgspec.Struct, gc=False):
    inference: _Duration | None = None


class _Cut(msgspec.Struct, gc=False):
    """A picture as documented, its text cut out."""

    b64_json: str
    index: Annotated[int, msgspec.Meta(ge=0, lt=MAX_INDEX)] | None = None
    timings: _Timings | None = None
    revised_prompt: str | None = None


class _Documented(msgspec.Struct, gc=False):
    data: list[_Cut]
    status: str | None = None
    usage: Any = None


_answer_body = msgspec.json.Decoder(_AnswerBody)
_documented = msgspec.json.Decoder(_Documented)


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
        drawn = [_drawn_as_said(*both) for both in zip(answer.data, parts.texts, count())]
        return _in_order(drawn, answer.usage)
    except MALFORMED:
        return None


def _drawn_as_said(item: _Cut, text: memoryview, position: int) -> Drawn:
    index = position if item.index is None else item.index
    seconds = item.timings.inference if item.timings else None
    return Drawn(pybase64.b64decode(text, validate=True), index, seconds, _revised(item.revised_prompt))


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
        if answer.error or answer.detail:
            return error_in(msgspec.structs.asdict(answer)) or ServerError("an error without words", shaped=True)
        raise BadAnswer("the answer holds no picture")
    data = [_bytes_of(item, position) for position, item in enumerate(answer.data)]
    return _in_order([_drawn(*both) for both in zip(answer.data, data, count())], answer.usage)


def _decode(body: Body) -> _AnswerBody:
    try:
        return _answer_body.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # The lenient reader: a byte order mark, a message in another encoding, or a timing that is NaN must not cost a
        # picture that was paid for.
        return msgspec.convert(json.loads(body.decode("utf-8-sig", "replace")), _AnswerBody)


def _bytes_of(item: Any, position: int) -> bytes:
    fields = item if isinstance(item, dict) else {}
    if isinstance(text := fields.get("b64_json"), str) and (text or not fields.get("url")):
        return decode_base64(text)
    if isinstance(url := fields.get("url"), str) and url[:5].lower() == "data:":
        return decode_base64(url)
    raise BadAnswer(f"picture {position} of the answer has no b64_json text")


def _in_order(pictures: list[Drawn], usage: Any) -> Answer:
    """The pictures by their indices; by their places, where two say the same index."""
    if len(pictures) > 1:
        if len({picture.index for picture in pictures}) < len(pictures):
            pictures = [msgspec.structs.replace(picture, index=i) for i, picture in enumerate(pictures)]
        pictures.sort(key=lambda picture: picture.index)
    return Answer(tuple(pictures), _counts(usage) if usage else None)


def _drawn(item: dict[str, Any], data: bytes, position: int) -> Drawn:
    index, timings = item.get("index"), item.get("timings")
    return Drawn(
        data,
        index if type(index) is int and 0 <= index < MAX_INDEX else position,
        sensible_number(timings.get("inference") if isinstance(timings, dict) else None),
        _revised(item.get("revised_prompt")),
    )


def _revised(prompt: Any) -> str | None:
    # What the lenient reader lets through need not be Unicode, and the log is.
    return prompt[:_MAX_REVISED_CHARS].encode("utf-8", "replace").decode() if isinstance(prompt, str) else None


def _counts(usage: Any, depth: int = 0) -> dict[str, Any] | None:
    """The numbers of what a server says it used, by their names; None where it says nothing of the kind."""
    if not isinstance(usage, dict) or depth > 2:
        return None
    found: dict[str, Any] = {}
    for name, value in list(usage.items())[:_MAX_COUNTS]:
        inner = _counts(value, depth + 1)
        number = type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e15
        if (said := value if number else inner) is not None:
            found[name[:100].encode("utf-8", "replace").decode()] = said
    return found or None


def links(body: Body) -> tuple[str, ...]:
    """Where the pictures of a 200 answer lie, if it holds none itself but says where all of them are; else nothing."""
    if len(body) > _MAX_LINKING_BYTES:
        return ()
    parts = cut(body)
    if any(map(len, parts.texts)) or b'"url"' not in parts.rest or crowded(parts.rest):
        return ()
    try:
        items = _decode(body).data
    except MALFORMED:
        return ()
    if not isinstance(items, list) or len(items) > MAX_LINKS:
        return ()
    found = [item.get("url") if isinstance(item, dict) else None for item in items]
    good = tuple(url for url in found if isinstance(url, str) and _is_link(url))
    return good if len(good) == len(found) else ()


def _is_link(url: str) -> bool:
    # The log tells it where it cannot be fetched, so it has to be text of a sensible length.
    return 0 < len(url) <= _MAX_LINK_CHARS and url.isprintable() and url[:5].lower() != "data:"


def filled(body: Body, pictures: Sequence[bytes]) -> bytes:
    """The answer with the pictures that its `links` lead to in their places."""
    value = json.loads(body.decode("utf-8-sig", "replace"))
    for item, picture in zip(value["data"], pictures, strict=True):
        item["b64_json"] = pybase64.b64encode(picture).decode()
    return json.dumps(value).encode()
