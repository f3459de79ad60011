"""What the API offers: its models, what they make and what a picture costs. Asked for free; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from batchgen.protocol import Model
from batchgen.runner import online
from batchgen.runner.session import Access
from batchgen.text import printable

_NAME_CHARS = 100


class Listing(msgspec.Struct, frozen=True):
    """The models of all endpoints together; `kind` and `price_usd` of one are None where the API does not tell. `url`
    names every address that was asked.
    """

    api: str
    url: str
    models: list[Model]
    notices: list[str]
    v: int = 1


async def list_models(access: Access) -> Listing:
    """Ask the API. Raises UsageError where it tells no list, AccountRefused where the key is wrong."""
    found, notices = await online.ask_models(access)
    models = sorted(found, key=lambda model: (not model.makes_pictures, model.name.lower()))
    url = ", ".join(dict.fromkeys(each.place.url for each in access.endpoints))
    return Listing(access.style.name, url, models, [*access.notices, *notices])


def render(found: Listing) -> Iterator[str]:
    """The list for people, a line at a time; models that make pictures come first."""
    rows = [
        (printable(model.name, _NAME_CHARS), printable(model.kind or "-", 20), _price(model)) for model in found.models
    ]
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, kind, price in rows:
        yield f"{name:<{width}}  {kind:<10}  {price}"
    if not rows:
        yield "the API lists no models"
    yield from (f"note: {notice}" for notice in found.notices)


def _price(model: Model) -> str:
    if model.price_usd is None:
        return "-"
    return f"${model.price_usd:g}" + (" a picture" if model.makes_pictures else "")
