"""What the API says when it is asked for free: its models and their prices, and the account's balance."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

import batchgen
from batchgen.model import AccountRefused, AttemptFailed, BadAnswer, Body, Secret, UsageError
from batchgen.protocol import Model, read_error
from batchgen.protocol.styles import Style
from batchgen.runner.session import Access, need_key
from batchgen.settings import Endpoint
from batchgen.text import printable

TIMEOUT_S = 10.0
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_NAME_CHARS = 80
_Found = TypeVar("_Found")


class Offer(msgspec.Struct, frozen=True):
    """What the API said: prices of its image models (None: not told), its other models, the account's balance, and in
    `notices` what could not be had. `lacking`: which of several endpoints do not list a model that others do.
    """

    models: dict[str, float | None] = {}
    other_models: frozenset[str] = frozenset()
    balance_usd: float | None = None
    notices: tuple[str, ...] = ()
    lacking: dict[str, list[str]] = {}

    @property
    def prices_usd(self) -> dict[str, float]:
        return {model: price for model, price in self.models.items() if price is not None}


@dataclass
class _Told:
    """What one endpoint said; None is what could not be had."""

    name: str
    models: list[Model] | None = None
    balance_usd: float | None = None
    notices: list[str] = field(default_factory=list)
    refused: AccountRefused | None = None

    @property
    def offer(self) -> Offer:
        models, of = self.models or (), f"{self.name}: " if self.name else ""
        return Offer(
            models={model.name: model.price_usd for model in models if model.makes_pictures},
            other_models=frozenset(model.name for model in models if not model.makes_pictures),
            balance_usd=self.balance_usd,
            notices=tuple(f"{of}{notice}" for notice in self.notices),
        )


async def ask(access: Access) -> Offer:
    """Ask every endpoint for models and balance. Raises UsageError without a key, AccountRefused where none
    answers and a key is wrong.

    Of several prices the highest holds; balances are added up.
    """
    told = await _ask_all(access, balance=access.style.credits_path is not None)
    offer = told[0].offer
    return offer if len(told) == 1 else _together(told)


async def ask_models(access: Access) -> tuple[list[Model], list[str]]:
    """Ask for the models alone: those of all endpoints, and what is to be said of them. Raises UsageError where there
    are none to be had, AccountRefused as `ask`.
    """
    told = await _ask_all(access, balance=False)
    offer = told[0].offer if len(told) == 1 else _together(told)
    if all(each.models is None for each in told):
        raise UsageError("; ".join(offer.notices))
    models: dict[str, Model] = {}
    for model in (model for each in told for model in each.models or ()):
        models.setdefault(model.name, model)
    lacking = [f"{', '.join(names)} does not list {printable(model, 80)}" for model, names in offer.lacking.items()]
    return list(models.values()), [*(offer.notices if len(told) > 1 else ()), *lacking]


async def _ask_all(access: Access, *, balance: bool) -> list[_Told]:
    need_key(access)
    told = list(await asyncio.gather(*(_ask(access.style, each, balance=balance) for each in access.endpoints)))
    refused = next((each.refused for each in told if each.refused), None)
    if refused and all(each.models is None for each in told):
        raise refused
    return told


async def _ask(style: Style, endpoint: Endpoint, *, balance: bool) -> _Told:
    told = _Told(endpoint.name)
    try:
        async with _way(style, endpoint, told.notices) as way:
            told.models = await way.get(style.models_path, style.decode_models, "the models")
            if balance and style.credits_path and style.decode_credits:
                told.balance_usd = await way.get(style.credits_path, style.decode_credits, "the balance")
    except AccountRefused as refused:
        told.refused = refused
        told.notices.append(str(refused))
    return told


def _together(told: Sequence[_Told]) -> Offer:
    """What several endpoints offer: never less money than a picture may cost, never more than is there."""
    prices: dict[str, float | None] = {}
    notices = [notice for each in told for notice in each.offer.notices]
    for model, price in (pair for each in told for pair in each.offer.models.items()):
        known = prices.setdefault(model, price)
        if known is not None and price is not None and price != known:
            notices.append(f"endpoints ask ${known:g} and ${price:g} for a picture of {printable(model, 80)}")
        prices[model] = max((each for each in (known, price) if each is not None), default=None)
    listing = [each for each in told if each.models is not None]
    balances = [each.balance_usd for each in told]
    return Offer(
        models=prices,
        other_models=frozenset().union(*(each.offer.other_models for each in told)) - prices.keys(),
        balance_usd=None if None in balances else sum(filter(None, balances)),
        notices=tuple(dict.fromkeys(notices)),
        lacking={
            model: names
            for model in prices
            if (names := [each.name for each in listing if model not in each.offer.models])
        },
    )


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
async def _way(style: Style, endpoint: Endpoint, notices: list[str]) -> AsyncIterator[_Way]:
    url, headers = endpoint.place.url, endpoint.place.headers
    if not style.stands_in:
        assert endpoint.key is not None
        yield _Way(url, endpoint.key, headers, notices)
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
        elif names := offer.lacking.get(model):
            yield f"{', '.join(names)}: does not list the model {name}; its jobs go to the others"
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
