"""One frozen Settings from four places: flag, environment, manifest, default, in this order of precedence.

Reads no file and no variable by itself: environment and key arrive as arguments. All mistakes are told at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

from batchgen import address, endpoint, manifest
from batchgen.address import Address
from batchgen.endpoint import Place
from batchgen.flags import Flags
from batchgen.limits import PREFIX, Limits, limits_of, part_of, together, variable
from batchgen.manifest import LIMITS, SWITCHES
from batchgen.model import Api, Header, Secret, Selection, Shard, UsageError
from batchgen.protocol.styles import STYLES, Style
from batchgen.text import printable

DEFAULT_PATIENCE_S = 1800.0
MAX_NIGHT = timedelta(hours=16)


@dataclass(frozen=True)
class Endpoint:
    """One of the servers that a run may ask, with a key for it: what the manifest says of it (`api`), its own limits,
    and the `whole` of them where these are a shard's part. It has a `name` only beside others.

    `withheld`: the key's variable is set, but its value may not go there.
    """

    api: Api
    place: Place
    key: Secret | None
    limits: Limits
    whole: Limits
    key_variable: str
    withheld: bool = False
    name: str = ""


@dataclass(frozen=True)
class Settings:
    """Everything that a run was told; of `limits`, what belongs to endpoints is the sum of theirs."""

    manifest: Path
    output: Path
    output_given: bool
    api: Style
    endpoints: tuple[Endpoint, ...]
    limits: Limits
    overrides: Mapping[str, Any]
    defaults: Mapping[str, Any]
    prices_usd: Mapping[str, float]
    selection: Selection
    give_up_after_s: float
    wait_for_quota: bool
    check_pixels: bool = False
    max_runtime_s: float | None = None
    until: datetime | None = None
    embed: bool = True
    shared_account: bool = False
    store: Address | None = None
    engine: str = "local"
    ray_address: str | None = None
    whole: Limits | None = None

    @property
    def shard(self) -> Shard | None:
        return self.selection.shard

    @property
    def style(self) -> str:
        """The name of the API style."""
        return self.api.name

    @property
    def url(self) -> str:
        """Where the only endpoint, or the first, is."""
        return self.endpoints[0].place.url

    @property
    def in_process(self) -> bool:
        """Whether the run brings its own server."""
        return self.api.stands_in and not self.url


def style_of(flags: Flags, env: Mapping[str, str], header: Header) -> str:
    """The API style that holds."""
    style = flags.api or env.get("BATCHGEN_API") or (header.apis or (Api(),))[0].style
    if style not in STYLES:
        *others, last = STYLES
        raise UsageError(f"api {printable(style, 40)!r} is not known; use {', '.join(others)} or {last}")
    return style


def apis_of(flags: Flags, env: Mapping[str, str], header: Header) -> tuple[Api, ...]:
    """The endpoints that hold: the manifest's, which belong to its own style; one where an address is said apart."""
    style = STYLES[style_of(flags, env, header)]
    apis = header.apis if header.apis and header.apis[0].style == style.name else (Api(style.name),)
    said = flags.api_url is not None or env.get(style.url_env)
    return (Api(style.name),) if said and len(apis) > 1 else apis


def resolve(
    flags: Flags,
    env: Mapping[str, str],
    header: Header,
    *,
    output: Path,
    find_key: Callable[[Api, Place], str | None],
    now: datetime,
) -> Settings:
    """All that a run needs to know at the moment `now` (UTC); `find_key` knows the key for an endpoint's place.

    Raises UsageError with every mistake.
    """
    problems: list[str] = []
    style = STYLES[style_of(flags, env, header)]
    endpoints = _endpoints(flags, env, header, find_key, problems)
    whole = limits_of(header.limits, env, flags.limits, problems)
    run = _part(whole, flags, problems)
    _check_variables(env, problems)
    settings = Settings(
        manifest=flags.manifest,
        output=output,
        output_given=flags.output is not None,
        api=style,
        endpoints=endpoints,
        limits=together(run, [each.limits for each in endpoints]),
        overrides=_overrides(flags, problems),
        defaults=header.defaults,
        prices_usd=dict(header.prices_usd) | _prices(flags, problems),
        selection=flags.selection,
        give_up_after_s=flags.give_up_after_s or DEFAULT_PATIENCE_S,
        wait_for_quota=flags.on_quota == "wait",
        check_pixels=flags.check == "full",
        max_runtime_s=flags.max_runtime_s,
        until=_until(flags.until, now, problems) if flags.until else None,
        shared_account=flags.shared_account,
        engine=flags.engine,
        ray_address=flags.ray_address,
        embed=_embed(flags, env, header, problems),
        store=None if flags.store is None else address.resolve(flags.store, env, problems),
        whole=whole,
    )
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    return settings


def _endpoints(
    flags: Flags,
    env: Mapping[str, str],
    header: Header,
    find_key: Callable[[Api, Place], str | None],
    problems: list[str],
) -> tuple[Endpoint, ...]:
    apis = apis_of(flags, env, header)
    style = STYLES[apis[0].style]
    places = [endpoint.find_place(style, api, flags.api_url, env, problems) for api in apis]
    names = endpoint.names(style, list(zip(apis, places, strict=True)))
    found = []
    for api, place, name in zip(apis, places, names, strict=True):
        key_problems: list[str] = []
        key = _key(find_key(api, place), key_problems)
        problems += [*filter(None, [endpoint.exposed(place, style, key)]), *key_problems]
        whole = limits_of({**header.limits, **api.limits}, env, flags.limits, problems)
        found.append(
            Endpoint(
                api=api,
                place=place,
                key=endpoint.key_for(place, style, api, key),
                limits=_part(whole, flags, problems),
                whole=whole,
                key_variable=(key_variable := endpoint.key_variable(style, api)),
                withheld=place.by_manifest and bool(env.get(key_variable)),
                name=name if len(apis) > 1 else "",
            )
        )
    problems += _twice(found)
    return tuple(found)


def _part(whole: Limits, flags: Flags, problems: list[str]) -> Limits:
    """The limits of this shard, so that all shards together keep what was said."""
    shard = flags.selection.shard
    if shard is None:
        return whole
    found = part_of(whole, shard, shared_account=flags.shared_account)
    for name in ("max_requests", "requests_per_minute", "requests_per_day"):
        if getattr(found, name) == 0:
            fix = "use fewer shards" + ("" if name == "max_requests" else ", or --shared-account on one machine")
            problems.append(f"{name} {math.floor(getattr(whole, name))} leaves nothing for shard {shard}; {fix}")
    return found


def _twice(endpoints: Sequence[Endpoint]) -> Iterator[str]:
    """Two that are one server and one account would be asked twice as fast as its limits allow."""
    first: dict[tuple[str, str | None, str, tuple[tuple[str, str], ...]], Endpoint] = {}
    for each in endpoints:
        if each.key is None or not each.place.url:
            continue
        place = each.place
        same = first.setdefault((place.url, place.path, each.key.reveal(), (*sorted(place.headers.items()),)), each)
        if same is not each:
            what = f"{same.key_variable} and {each.key_variable} hold the same key for {printable(place.url, 100)}"
            yield f"{what}; name another one, or leave one endpoint out and raise the other's limits"


def _check_variables(env: Mapping[str, str], problems: list[str]) -> None:
    known = {variable(name): name for name in ("api", "api_url", *SWITCHES, *LIMITS, "ping")}
    for name in env:
        if name.startswith(PREFIX) and name not in known:
            near = manifest.nearest_limit(name.removeprefix(PREFIX), known.values())
            fix = f"did you mean {variable(near)}?" if near else f"known: {', '.join(known)}"
            problems.append(f"{name} is not a known variable; {fix}")


def _embed(flags: Flags, env: Mapping[str, str], header: Header, problems: list[str]) -> bool:
    by_env, complaints = manifest.check_each({"embed": env.get(variable("embed"), "").strip() or None}, SWITCHES)
    problems += [f"{what} in {variable('embed')}" for _, what, _ in complaints]
    said = (flags.embed, by_env.get("embed"), header.embed)
    return next((value for value in said if value is not None), True)


def _overrides(flags: Flags, problems: list[str]) -> dict[str, Any]:
    try:
        return manifest.overrides(flags.defaults)
    except UsageError as error:
        problems.append(str(error))
        return {}


def _prices(flags: Flags, problems: list[str]) -> dict[str, float]:
    """What `--price MODEL=USD` says."""
    found = {}
    for said in flags.prices:
        model, equals, amount = said.rpartition("=")
        try:
            if not (equals and model and 0 <= (price := float(amount)) < math.inf):
                raise ValueError
            found[model] = price
        except ValueError:
            problems.append(f"--price {printable(said, 60)}: expected MODEL=USD, such as my/model=0.003")
    return found


def _key(key: str | None, problems: list[str]) -> str | None:
    key = (key or "").strip()
    if key and (not key.isascii() or not key.isprintable() or any(c in key for c in " \"'")):
        problems.append("the API key holds blanks, quotes or other characters that no key has; look at its source")
    return key or None


def _until(text: str, now: datetime, problems: list[str]) -> datetime | None:
    """The next moment at which clocks (local ones; with `Z`, UTC's) show this time of day."""
    try:
        clock = time.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        clock = None
    if clock is None or clock.tzinfo is not None:
        problems.append(f"--until {printable(text, 40)!r}: expected a time of day such as 06:30, or 04:30Z for UTC")
        return None
    zone = UTC if text.endswith("Z") else None
    today = now.astimezone(zone).date()
    # Combined day by day, so that a night in which the clocks change ends when the clock on the wall says so.
    moments = (datetime.combine(today + timedelta(days=d), clock, zone).astimezone(UTC) for d in (0, 1))
    moment = next(moment for moment in moments if moment > now)
    if moment - now > MAX_NIGHT:
        problems.append(f"--until {text}: that is more than 16 hours away, so this start comes too late (or too early)")
    return moment
