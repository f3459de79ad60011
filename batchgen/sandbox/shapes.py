"""The API shapes that one sandbox speaks, by path: how a request is read, an answer and an error written. No HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from batchgen.protocol import Drawn, decode_request, nebula, openai
from batchgen.protocol.multipart import decode_form

# How the OpenAI shape calls what the other calls by another status or code.
_IN_OPENAI = {"insufficient_balance": (429, "insufficient_quota"), "quota_exceeded": (429, "rate_limit_exceeded")}
_CREATED = 1_700_000_000


@dataclass(frozen=True)
class Reply:
    """An answer before it is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Error:
    """A refusal before it has a shape."""

    status: int
    message: str
    code: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """One wire format, below `base`. `read` turns the type and the bytes of a request into the fields it asks with, and
    raises ValueError with words for the client; `answer` writes pictures (the second argument) of a model (the first),
    a text being the address of one."""

    base: str
    read: Callable[[str, bytes], dict[str, Any]]
    answer: Callable[[str, Sequence[Drawn | str]], bytes]
    write_error: Callable[[Error], bytes]
    rename: Callable[[Error], Error] = lambda error: error
    tells_limits: bool = False

    def error(self, error: Error) -> Reply:
        named = self.rename(error)
        return Reply(named.status, self.write_error(named), headers=named.headers)


def _nebula_answer(model: str, pictures: Sequence[Drawn | str]) -> bytes:
    drawn = [picture for picture in pictures if isinstance(picture, Drawn)]
    return nebula.encode_answer(model, drawn) if len(drawn) == len(pictures) else _openai_answer(model, pictures)


def _openai_answer(model: str, pictures: Sequence[Drawn | str]) -> bytes:
    return openai.encode_answer(pictures, _CREATED, {"total_tokens": 100 * len(pictures)} if pictures else None)


def _openai_request(content_type: str, body: bytes) -> dict[str, Any]:
    if content_type.lower().startswith("multipart/"):
        return openai.decode_size(openai.decode_texts(decode_form(content_type, body)))
    return openai.decode_size(decode_request(body))


def _openai_error(error: Error) -> bytes:
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    if error.status == 429:
        kind = error.code if error.code == "insufficient_quota" else "rate_limit_error"
    return openai.encode_error(error.message, kind, error.code)


def _openai_name(error: Error) -> Error:
    status, code = _IN_OPENAI.get(error.code or "", (error.status, error.code))
    return replace(error, status=status, code=code)


NEBULA = Shape(
    base="/api/v1",
    read=lambda content_type, body: decode_request(body),
    answer=_nebula_answer,
    write_error=lambda error: nebula.encode_error(error.message, error.code, error.details),
)
OPENAI = Shape(
    base="/v1",
    read=_openai_request,
    answer=_openai_answer,
    write_error=_openai_error,
    rename=_openai_name,
    tells_limits=True,
)


def shape_of(path: str) -> Shape:
    """The shape that is spoken below a path."""
    return OPENAI if path.startswith(OPENAI.base + "/") else NEBULA
