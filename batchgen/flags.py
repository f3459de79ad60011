"""What was said on the command line or by a calling program, as it was said, whatever environment and manifest say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen import address, shards
from batchgen.model import Outcome, Selection, Shard, UsageError
from batchgen.text import printable

CHOICES = {"on_quota": ("stop", "wait"), "check": ("structure", "full"), "engine": ("local", "ray")}
"""What flags that are one of a few words may say; the first is the default."""

_OWN_FLAGS = (
    *("format", "api", "api_url", "give_up_after_s", "max_runtime_s", "until", "on_quota", "check", "embed"),
    *("shared_account", "engine", "ray_address"),
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
    engine: str = "local"
    ray_address: str | None = None

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


def _shard(text: str | None) -> Shard | None:
    try:
        return None if text is None else shards.parse(text)
    except ValueError as error:
        raise UsageError(f"--shard {printable(text or '', 40)!r}: {error}") from None
