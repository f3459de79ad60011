"""One frozen Settings from four places: flag, environment, manifest, default, in this order of precedence.

Reads no file and no variable by itself: environment and key arrive as arguments. All mistakes are told at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

from batchgen import address, endpoint, manifest, shards
from batchgen.address import Address
from batchgen.endpoint import Place
from batchgen.manifest import LIMITS, SWITCHES
from batchgen.model import Api, Header, Outcome, Secret, Selection, Shard, UsageError
from batchgen.protocol.styles import STYLES, Style
from batchgen.text import printable

_PREFIX = "BATCHGEN_"
DEFAULT_PATIENCE_S = 1800.0
MAX_NIGHT = timedelta(hours=16)


@dataclass(frozen=True)
class Limits:
    """What a run may use; None is no limit. `timeout_s` is the longest wait for one answer."""

    concurrency: int = 8
    requests_per_minute: float | None = None
    requests_per_day: int | None = None
    max_cost_usd: float | None = None
    max_requests: int | None = None
    attempts: int = 4
    uncertain_retries: int = 1
    timeout_s: float = 180.0


CHOICES = {"on_quota": ("stop", "wait"), "check": ("structure", "full")}
"""What flags that are one of a few words may say; the first is the default."""

_OWN_FLAGS = (
    *("format", "api", "api_url", "give_up_after_s", "max_runtime_s", "until", "on_quota", "check", "embed"),
    "shared_account",
)


@dataclass(frozen=True)
class Flags:
    """What was said on the command line or by a calling program; None and empty are not said.

    `output` is the folder of log and state, where `store` does not say otherwise also that of the pictures.
    """

    manifest: Path
    output: Path | None = None
    store: str | None = None
    format: str | None = None
    api: str | None = None
    api_url: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    defaults: Sequence[str] = ()
    prices: Sequence[str] = ()
    selection: Selection = field(default_factory=Selection)
    give_up_after_s: float | None = None
    max_runtime_s: float | None = None
    until: str | None = None
    on_quota: str = "stop"
    check: str = "structure"
    shared_account: bool = False
    embed: bool | None = None

    @classmethod
    def of(
        cls,
        manifest: str | os.PathLike[str],
        *,
        output: str | os.PathLike[str] | None = None,
        state: str | os.PathLike[str] | None = None,
        defaults: Sequence[str] | Mapping[str, Any] = (),
        prices: Sequence[str] | Mapping[str, float] = (),
        retry: Iterable[str] = (),
        redo: bool = False,
        redo_missing: bool = False,
        only: Iterable[str] = (),
        limit: int | None = None,
        shuffle: str | int | None = None,
        shard: str | None = None,
        **others: Any,
    ) -> Flags:
        """Flags as the command line and Python programs name them; what is not a flag by itself is a limit."""
        own = {name: others.pop(name) for name in _OWN_FLAGS if name in others}
        outcomes = (retry,) if isinstance(retry, str) else tuple(retry)
        if unknown := set(outcomes) - {Outcome.FAILED, Outcome.UNCERTAIN}:
            raise UsageError(f"retry {', '.join(sorted(unknown))}: expected failed or uncertain")
        for name, choices in CHOICES.items():
            if (said := own.get(name, choices[0])) not in choices:
                raise UsageError(f"{name} {said}: expected {' or '.join(choices)}")
        patterns = (only,) if isinstance(only, str) else tuple(only)
        seed = None if shuffle is None else str(shuffle)
        store = str(output) if output is not None and address.is_store(str(output)) else None
        if state is not None and store is None:
            raise UsageError("--state goes with an object store: -o s3://BUCKET/PREFIX --state DIR")
        folder = address.local_folder(output, state)
        return cls(
            manifest=Path(manifest),
            output=None if folder is None else Path(folder),
            store=store,
            limits=others,
            defaults=[f"{k}={v}" for k, v in defaults.items()] if isinstance(defaults, Mapping) else defaults,
            prices=[f"{k}={v}" for k, v in prices.items()] if isinstance(prices, Mapping) else prices,
            selection=Selection(
                frozenset(map(Outcome, outcomes)), redo, redo_missing, patterns, limit, seed, shard=_shard(shard)
            ),
            **own,
        )


@dataclass(frozen=True)
class Settings:
    """Everything that a run was told."""

    manifest: Path
    output: Path
    output_given: bool
    api: Style
    place: Place
    key: Secret | None
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
        return self.place.url

    @property
    def in_process(self) -> bool:
        """Whether the run brings its own server."""
        return self.api.stands_in and not self.url


def style_of(flags: Flags, env: Mapping[str, str], header: Header) -> str:
    """The API style that holds."""
    api = header.api or Api()
    style = flags.api or env.get("BATCHGEN_API") or api.style
    if style not in STYLES:
        *others, last = STYLES
        raise UsageError(f"api {printable(style, 40)!r} is not known; use {', '.join(others)} or {last}")
    return style


def api_of(style: Style, header: Header) -> Api:
    """What the manifest says of its server; that belongs to the manifest's own style."""
    api = header.api or Api()
    return api if api.style == style.name else Api(style.name)


def resolve(
    flags: Flags,
    env: Mapping[str, str],
    header: Header,
    *,
    output: Path,
    find_key: Callable[[Place], str | None],
    now: datetime,
) -> Settings:
    """All that a run needs to know at the moment `now` (UTC); `find_key` knows the key for a place.

    Raises UsageError with every mistake in what was said.
    """
    style = STYLES[style_of(flags, env, header)]
    problems: list[str] = []
    whole = _limits(flags, env, header, problems)
    place = endpoint.find_place(style, api_of(style, header), flags.api_url, env, problems)
    key_problems: list[str] = []
    key = _key(find_key(place), key_problems)
    problems += [*filter(None, [endpoint.exposed(place, style, key)]), *key_problems]
    settings = Settings(
        manifest=flags.manifest,
        output=output,
        output_given=flags.output is not None,
        api=style,
        place=place,
        key=endpoint.key_for(place, style, key),
        limits=_part(whole, flags, problems),
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
        embed=_embed(flags, env, header, problems),
        store=None if flags.store is None else address.resolve(flags.store, env, problems),
        whole=whole,
    )
    if problems:
        raise UsageError("\n".join(problems))
    return settings


def _limits(flags: Flags, env: Mapping[str, str], header: Header, problems: list[str]) -> Limits:
    by_env = {name: value for name in LIMITS if (value := env.get(_variable(name), "").strip())}
    by_flag = {name: value for name, value in flags.limits.items() if value is not None}
    known = {_variable(name): name for name in ("api", "api_url", *SWITCHES, *LIMITS, "ping")}
    for variable in env:
        if variable.startswith(_PREFIX) and variable not in known:
            near = manifest.nearest_limit(variable.removeprefix(_PREFIX), known.values())
            fix = f"did you mean {_variable(near)}?" if near else f"known: {', '.join(known)}"
            problems.append(f"{variable} is not a known variable; {fix}")
    clean, complaints = manifest.check_each({**header.limits, **by_env, **by_flag}, LIMITS)
    for limit, what, fix in complaints:
        source = f" in {_variable(limit)}" if limit in by_env and limit not in by_flag else ""
        problems.append(f"{what}{source}" + (f"; {fix}" if fix else ""))
    return Limits(**clean)


def _shard(text: str | None) -> Shard | None:
    try:
        return None if text is None else shards.parse(text)
    except ValueError as error:
        raise UsageError(f"--shard {printable(text or '', 40)!r}: {error}") from None


def _part(limits: Limits, flags: Flags, problems: list[str]) -> Limits:
    """The limits of this shard, so that all shards together keep what was said."""
    shard = flags.selection.shard
    if shard is None:
        return limits
    found = part_of(limits, shard, shared_account=flags.shared_account)
    for name in ("max_requests", "requests_per_minute", "requests_per_day"):
        if getattr(found, name) == 0:
            fix = "use fewer shards" + ("" if name == "max_requests" else ", or --shared-account on one machine")
            problems.append(f"{name} {math.floor(getattr(limits, name))} leaves nothing for shard {shard}; {fix}")
    return found


def part_of(limits: Limits, shard: Shard, *, shared_account: bool) -> Limits:
    """What a shard may use of `limits`; pace and day stay whole where the shards share an account."""
    counted = {"max_requests": limits.max_requests}
    if not shared_account:
        pace = limits.requests_per_minute
        counted |= {
            "requests_per_minute": None if pace is None else math.floor(pace),
            "requests_per_day": limits.requests_per_day,
        }
    parts = {name: shards.part(shard, whole) for name, whole in counted.items() if whole is not None}
    cost_usd = limits.max_cost_usd
    return replace(limits, **parts, max_cost_usd=None if cost_usd is None else cost_usd / shard.n)


def _embed(flags: Flags, env: Mapping[str, str], header: Header, problems: list[str]) -> bool:
    variable = _variable("embed")
    by_env, complaints = manifest.check_each({"embed": env.get(variable, "").strip() or None}, SWITCHES)
    problems += [f"{what} in {variable}" for _, what, _ in complaints]
    said = (flags.embed, by_env.get("embed"), header.embed)
    return next((value for value in said if value is not None), True)


def _variable(name: str) -> str:
    return f"{_PREFIX}{name.upper()}"


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
