"""What a manifest may say of its endpoints: the table of an entry of `api`, and what holds between several of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from batchgen import text
from batchgen.manifest.fields import ENDPOINT_LIMITS, Field
from batchgen.model import Api

_STYLE = Field("style", Literal["nebula", "sandbox", "openai"], "nebula, sandbox or openai", "the wire format")
API = {
    "style": _STYLE,
    "url": Field("url", Annotated[str, Meta(pattern=r"\Ahttps?://\S+\Z")], "a URL with http:// or https://", "server"),
    "key_env": Field(
        "key_env",
        Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\Z")],
        "the name of the environment variable that holds the key (never the key)",
        "where the key is",
        hidden=True,
    ),
    "path": Field(
        "path",
        Annotated[str, Meta(pattern=r"\A/[^\s#]*\Z")],
        "a path that begins with /, such as /images/generations",
        "where pictures are generated below the url, if not at the style's own path",
    ),
    "headers": Field(
        "headers",
        dict[str, str],
        "a mapping of names to texts",
        "headers of every request; $NAME stands for the environment variable of that name, as in {api-key: $MY_KEY}",
        hidden=True,
    ),
    "limits": Field(
        "limits",
        dict[str, Any],
        f"a mapping with {', '.join(ENDPOINT_LIMITS)}",
        "what this endpoint may be asked, where that differs from the manifest's limits",
    ),
    "name": Field(
        "name",
        Annotated[str, Meta(pattern=r"\A[\x21-\x7e]([\x20-\x7e]{0,58}[\x21-\x7e])?\Z")],
        "up to 60 printable ASCII characters",
        "what log and messages call this endpoint (default: its host)",
        is_text=True,
    ),
}


def odd_one(api: Api, before: Sequence[Api], *, several: bool) -> tuple[str, str] | None:
    """What is wrong with an endpoint beside those `before` it, and what to do."""
    if several and api.style == "sandbox" and not api.url:
        return "several sandboxes need an address each", "start them with batchgen sandbox, and add url"
    if before and api.style != before[0].style:
        what = f"the endpoints of one manifest have one style; this one is {api.style}, the first is {before[0].style}"
        return what, "make a manifest for each style"
    if any(_identity(api) == _identity(other) for other in before):
        return "the same url with the same key twice", "name another url or key_env, or raise its concurrency"
    if api.name and any(api.name == other.name for other in before):
        return f"two endpoints are called {text.printable(api.name, 60)!r}", "give each its own name"
    return None


def _identity(api: Api) -> tuple[str, str | None, str | None, dict[str, str]]:
    return (api.url or "").rstrip("/"), api.key_env, api.path, api.headers
