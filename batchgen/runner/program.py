"""The same as the command line, for notebooks and other programs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchgen.flags import Flags
from batchgen.manifest import Mistakes
from batchgen.model import Job, Problem, UsageError
from batchgen.runner import conduct
from batchgen.runner.context import Voice
from batchgen.runner.listeners import listening
from batchgen.runner.session import open_session
from batchgen.summary import Summary
from batchgen.telling import Telling


async def run_async(
    manifest: str | os.PathLike[str],
    *,
    api_key_file: str | os.PathLike[str] | None = None,
    quiet: bool = True,
    verbose: bool = False,
    ping: str | None = None,
    metrics_file: str | os.PathLike[str] | None = None,
    stamp: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Summary:
    """Make what is missing of `manifest`; `settings` are the long flags of `batchgen run` and the names of limits.

    What went wrong with jobs is in the Summary and its `exit_code`. Raises BatchgenError where nothing could be begun.
    """
    key_file = None if api_key_file is None else Path(api_key_file)
    voice, places = Voice(quiet, verbose), {name: settings.get(name) for name in ("output", "state")}
    telling = Telling.of(manifest, os.environ, **places, ping=ping, metrics_file=metrics_file, stamp=stamp)
    with listening(telling, voice) as listeners:
        session = open_session(Flags.of(manifest, **settings), os.environ, key_file)
        found = await conduct.run(session, voice, hear=listeners.hear)
        await asyncio.to_thread(listeners.ended, found)
    return found


def run(manifest: str | os.PathLike[str], **settings: Any) -> Summary:
    """`run_async` for programs without an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run_async(manifest, **settings))
    raise UsageError("an event loop is running here: use `await batchgen.run_async(...)`")


def read(manifest: str | os.PathLike[str], **settings: Any) -> Iterator[Job]:
    """The jobs of a manifest as a run would see them. Raises ManifestError after the last job."""
    mistakes = Mistakes()
    for job in open_session(Flags.of(manifest, **settings), os.environ).jobs():
        if isinstance(job, Problem):
            mistakes.add(job)
        elif not mistakes.count:
            yield job
    mistakes.check()
