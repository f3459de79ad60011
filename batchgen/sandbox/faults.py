"""The answers that are wrong: refusals by kind, and success answers spoiled by kind. Bytes only, nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

from batchgen.protocol import Drawn
from batchgen.sandbox.shapes import Error, Reply

QUOTA_MESSAGE = "Daily request quota exceeded. The quota resets at 00:00 UTC."
BALANCE_MESSAGE = "Insufficient credits. Please top up your balance."
_CDN_STATUSES = range(520, 531)


def proxy_page(status: int, title: str) -> Reply:
    page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>\n"
    return Reply(status, page.encode(), "text/html")


_REFUSALS = {
    "quota": Error(429, QUOTA_MESSAGE, "quota_exceeded"),
    "balance": Error(402, BALANCE_MESSAGE, "insufficient_balance"),
    "refuse": Error(400, "The prompt was rejected by the content policy.", "content_policy_violation"),
    "failed200": Error(200, "Image generation failed"),
}


def refusal(kind: str) -> Error | Reply | None:
    """The error for a fault that costs nothing, or None where `kind` is another sort of fault."""
    return _by_status(int(kind)) if kind.isdecimal() else _REFUSALS.get(kind)


def _by_status(status: int) -> Error | Reply:
    known = status in HTTPStatus._value2member_map_
    phrase = HTTPStatus(status).phrase if known else "Web server is returning an unknown error"
    if status < 400:
        return Reply(status, b"", headers={"Location": "/elsewhere"})
    # A gateway's own errors come from the gateway, and that does not speak the API's JSON.
    if status in (502, 504) or status in _CDN_STATUSES:
        return proxy_page(status, f"{status} {phrase}")
    return Error(status, phrase)


Encode = Callable[[Sequence[Drawn]], bytes]


def _with_data(encode: Encode, drawn: Sequence[Drawn], change: Callable[[bytes], bytes]) -> bytes:
    return encode([Drawn(change(each.data), each.index, each.inference_s) for each in drawn])


_SPOILED: dict[str, Callable[[Encode, Sequence[Drawn]], bytes]] = {
    "badjson": lambda encode, drawn: encode(drawn)[:-40],
    "badbase64": lambda encode, drawn: encode(drawn).replace(b'"b64_json":"', b'"b64_json":"*not*base64*'),
    "notimage": lambda encode, drawn: _with_data(encode, drawn, lambda data: b"This is not a picture."),
    "cutimage": lambda encode, drawn: _with_data(encode, drawn, lambda data: data[: len(data) * 9 // 10]),
    "empty": lambda encode, drawn: encode([]),
}


def answer(encode: Encode, drawn: Sequence[Drawn], kind: str | None = None) -> Reply:
    """The success answer, as `encode` writes it, spoiled in the way `kind` says."""
    if kind == "html":
        return proxy_page(200, "Just a moment...")
    spoil = _SPOILED.get(kind or "")
    return Reply(200, spoil(encode, drawn) if spoil else encode(drawn))
