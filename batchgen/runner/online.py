"""What the API says when it is asked for free: its models and their prices, and the account's balance."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import msgspec

import batchgen
from batchgen.model import AccountRefused, AttemptFailed, BadAnswer, Body, Secret, UsageError
from batchgen.protocol import Model, read_error
from batchgen.runner.session import Access, need_key
from batchgen.text import printable

TIMEOUT_S = 10.0
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_NAME_CHARS = 80
_Found = TypeVar("_Found")


class Offer(msgspec.Struct, frozen=True):
    """What the API said: prices of its image models (None: not told), its other models, the account's balance, and in
    `notices` what could not be had.
    """

    models: dict[str, float | None] = {}
    other_models: frozenset[str] = frozenset()
    balance_usd: float | None = None
    notices: tuple[str, ...] = ()

    @property
    def prices_usd(self) -> dict[str, float]:
        return {model: price for model, price in self.models.items() if price is not None}


async def ask(access: Access) -> Offer:
    """Ask for models and balance. Raises UsageError without a key, AccountRefused where the key is wrong."""
    style, balance = access.style, None
    notices: list[str] = []
    async with _way(access, notices) as way:
        models = await way.get(style.models_path, style.decode_models, "the models")
        if style.credits_path and style.decode_credits:
            balance = await way.get(style.credits_path, style.decode_credits, "the balance")
    return Offer(
        models={model.name: model.price_usd for model in models or () if model.makes_pictures},
        other_models=frozenset(model.name for model in models or () if not model.makes_pictures),
        balance_usd=balance,
        notices=tuple(notices),
    )


async def ask_models(access: Access) -> list[Model]:
    """Ask for the list of models alone. Raises UsageError where there is none to be had, AccountRefused as `ask`."""
    notices: list[str] = []
    async with _way(access, notices) as way:
        models = await way.get(access.style.models_path, access.style.decode_models, "the models")
    if models is None:
        raise UsageError("; ".join(notices))
    return models


@dataclass(frozen=True)
class _Way:
    """The way to the API's free answers; what cannot be had is told in `notices`."""

    url: str
    key: Secret
    headers: Mapping[str, str]
    notices: list[str]

    async def get(self, path: str, decode: Callable[[Body], _Found], what: str) -> _Found | None:
        from batchgen.client import ask as get

        try:
            agent = f"batchgen/{batchgen.__version__}"
            reply = await get(self.url + path, self.key, TIMEOUT_S, user_agent=agent, headers=self.headers)
            if reply.status == _UNAUTHORIZED:
                said = self.key.hide(read_error(reply.body).message)
                raise AccountRefused(f"the API refused the key: {said}")
            if reply.status != 200:
                hint = "; look at the API address" if reply.status == _NOT_FOUND else ""
                self.notices.append(f"{what} could not be asked for: status {reply.status}{hint}")
                return None
            return decode(reply.body)
        except (AttemptFailed, BadAnswer) as error:
            self.notices.append(f"{what} could not be asked for: {error}")
            return None


@asynccontextmanager
async def _way(access: Access, notices: list[str]) -> AsyncIterator[_Way]:
    need_key(access)
    url, headers = access.place.url, access.place.headers
    if not access.style.stands_in:
        assert access.key is not None
        yield _Way(url, access.key, headers, notices)
        return
    from batchgen.sandbox import SANDBOX_KEY, Sandbox

    # A stand-in, wherever it is, never sees the real key.
    key = Secret(SANDBOX_KEY)
    if url:
        yield _Way(url, key, headers, notices)
        return
    async with Sandbox() as sandbox:
        yield _Way(sandbox.url, key, headers, notices)


def against(offer: Offer, models: Iterable[str], prices_usd: Mapping[str, float]) -> Iterator[str]:
    """What the API's own list says against the models that are to be used and the prices that were given."""
    yield from offer.notices
    for model in sorted(models) if offer.models else ():
        name, said = printable(model, _NAME_CHARS), prices_usd.get(model)
        if model in offer.other_models:
            yield f"the model {name} makes no pictures, by the API's list"
        elif model not in offer.models:
            near = nearest(model, offer.models)
            yield f"the API does not list the model {name}" + (f"; did you mean {near}?" if near else "")
        elif said is not None and (asked := offer.models[model]) is not None and said != asked:
            yield f"the API asks ${asked:g} for a picture of {name}, you said ${said:g}"


def nearest(model: str, known: Iterable[str]) -> str | None:
    """The known model that was probably meant: by its whole name, or by what stands behind the last `/`.

    >>> nearest("flux.1-schnel", ["black-forest-labs/FLUX.1-schnell", "other/sdxl"])
    'black-forest-labs/FLUX.1-schnell'
    """
    names = {form: name for name in known for form in (name.casefold(), name.rpartition("/")[2].casefold())}
    for said in (model.casefold(), model.rpartition("/")[2].casefold()):
        if found := difflib.get_close_matches(said, names, n=1, cutoff=0.7):
            return printable(names[found[0]], _NAME_CHARS)
    return None
