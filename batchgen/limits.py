"""What a run and each of its endpoints may use: from flags, environment and manifest, for a shard, and all together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchgen import manifest, shards
from batchgen.manifest import LIMITS
from batchgen.model import Shard

PREFIX = "BATCHGEN_"


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


def variable(name: str) -> str:
    """The environment variable that says this."""
    return f"{PREFIX}{name.upper()}"


def limits_of(said: Mapping[str, Any], env: Mapping[str, str], flags: Mapping[str, Any], problems: list[str]) -> Limits:
    """What holds: a flag before a variable before what the manifest has `said`. Adds to `problems` what is wrong."""
    by_env = {name: value for name in LIMITS if (value := env.get(variable(name), "").strip())}
    by_flag = {name: value for name, value in flags.items() if value is not None}
    clean, complaints = manifest.check_each({**said, **by_env, **by_flag}, LIMITS)
    for limit, what, fix in complaints:
        source = f" in {variable(limit)}" if limit in by_env and limit not in by_flag else ""
        problems.append(f"{what}{source}" + (f"; {fix}" if fix else ""))
    return Limits(**clean)


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


def together(run: Limits, endpoints: Sequence[Limits]) -> Limits:
    """The run's limits with the sums of what its endpoints may be asked; no sum where one of them has no limit."""
    paces = [each.requests_per_minute for each in endpoints]
    days = [each.requests_per_day for each in endpoints]
    return replace(
        run,
        concurrency=sum(each.concurrency for each in endpoints),
        requests_per_minute=None if None in paces else sum(filter(None, paces)),
        requests_per_day=None if None in days else sum(filter(None, days)),
        timeout_s=max(each.timeout_s for each in endpoints),
    )
