"""The answers that are wrong: refusals by kind, and success answers spoiled by kind. Bytes only, nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from batchgen.protocol import Drawn
from batchgen.protocol.nebula import encode_answer, encode_error

QUOTA_MESSAGE = "Daily request quota exceeded. The quota resets at 00:00 UTC."
BALANCE_MESSAGE = "Insufficient credits. Please top up your balance."
_CDN_STATUSES = range(520, 531)


@dataclass(frozen=True)
class Reply:
    """An answer before it is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def error(
    status: int,
    message: str,
    code: str | None = None,
    *,
    details: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    return Reply(status, encode_error(message, code, details), headers=headers or {})


def proxy_page(status: int, title: str) -> Reply:
    page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>\n"
    return Reply(status, page.encode(), "text/html")


_REFUSALS = {
    "quota": error(429, QUOTA_MESSAGE, "quota_exceeded"),
    "balance": error(402, BALANCE_MESSAGE, "insufficient_balance"),
    "refuse": error(400, "The prompt was rejected by the content policy.", "content_policy_violation"),
    "failed200": error(200, "Image generation failed"),
}


def refusal(kind: str) -> Reply | None:
    """The error for a fault that costs nothing, or None where `kind` is another sort of fault."""
    return _by_status(int(kind)) if kind.isdecimal() else _REFUSALS.get(kind)


def _by_status(status: int) -> Reply:
    known = status in HTTPStatus._value2member_map_
    phrase = HTTPStatus(status).phrase if known else "Web server is returning an unknown error"
    if status < 400:
        return Reply(status, b"", headers={"Location": "/elsewhere"})
    # A gateway's own errors come from the gateway, and that does not speak the API's JSON.
    if status in (502, 504) or status in _CDN_STATUSES:
        return proxy_page(status, f"{status} {phrase}")
    return error(status, phrase)


def _spoil_base64(model: str, drawn: Drawn) -> bytes:
    return encode_answer(model, [drawn]).replace(b'"b64_json":"', b'"b64_json":"*not*base64*')


def _with_data(model: str, drawn: Drawn, data: bytes) -> bytes:
    return encode_answer(model, [Drawn(data, drawn.index, drawn.inference_s)])


_SPOILED: dict[str, Callable[[str, Drawn], bytes]] = {
    "badjson": lambda model, drawn: encode_answer(model, [drawn])[:-40],
    "badbase64": _spoil_base64,
    "notimage": lambda model, drawn: _with_data(model, drawn, b"This is not a picture."),
    "cutimage": lambda model, drawn: _with_data(model, drawn, drawn.data[: len(drawn.data) * 9 // 10]),
    "empty": lambda model, drawn: encode_answer(model, []),
}


def answer(model: str, drawn: Drawn, kind: str | None = None) -> Reply:
    """The success answer, spoiled in the way `kind` says."""
    if kind == "html":
        return proxy_page(200, "Just a moment...")
    spoil = _SPOILED.get(kind or "")
    return Reply(200, spoil(model, drawn) if spoil else encode_answer(model, [drawn]))
