"""Who hears of a run beside its user, as it was said. Reads no file and no variable: the environment is an argument."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from batchgen.address import local_folder
from batchgen.model import Secret, UsageError

PING = "BATCHGEN_PING"


@dataclass(frozen=True)
class Telling:
    """Who hears of a run of `manifest` beside its user: a URL, a metrics file, make's stamp."""

    manifest: Path
    output: Path | None = None
    ping: Secret | None = None
    metrics_file: Path | None = None
    stamp: Path | None = None

    def __bool__(self) -> bool:
        return any((self.ping, self.metrics_file, self.stamp))

    @classmethod
    def of(
        cls,
        manifest: str | os.PathLike[str],
        env: Mapping[str, str],
        *,
        output: str | os.PathLike[str] | None = None,
        state: str | os.PathLike[str] | None = None,
        ping: str | None = None,
        metrics_file: str | os.PathLike[str] | None = None,
        stamp: str | os.PathLike[str] | None = None,
    ) -> Telling:
        """Raises UsageError for a URL that cannot be one; it may hold a token and is not shown."""
        url = (ping if ping is not None else env.get(PING, "")).strip()
        if ping == "":
            raise UsageError("--ping is empty; was a shell variable not set?")
        folder = local_folder(output, state)
        return cls(
            Path(manifest),
            None if folder is None else Path(folder),
            _ping(url) if url else None,
            None if metrics_file is None else Path(metrics_file),
            None if stamp is None else Path(stamp),
        )


def _ping(url: str) -> Secret:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        good = good and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or parts.fragment:
        raise UsageError("--ping (or BATCHGEN_PING): expected https://HOST/PATH, without a user and without a # part")
    return Secret(url)
