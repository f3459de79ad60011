"""batchgen run: make what is missing."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path

from batchgen.commands import EXIT_CODES, common

ABOUT = f"""\
Make every picture of MANIFEST that is not there yet. The same command starts a run, resumes it after anything, and does
nothing when nothing is left to do. Every flag beats the environment, the environment beats the manifest.

  batchgen run jobs/animals.csv --max-cost 5 --price black-forest-labs/FLUX.1-schnell=0.003 --until 06:30
  batchgen run prompts.txt -D model=black-forest-labs/FLUX.1-schnell --limit 5
  generate-prompts | batchgen run - --format jsonl -o outputs/tonight
  batchgen run jobs/animals.csv -o s3://my-bucket/animals

{EXIT_CODES}"""


def arguments(parser: argparse.ArgumentParser) -> None:
    common.manifest_arguments(parser)
    common.limit_arguments(parser)
    parser.add_argument(
        "--check",
        choices=["structure", "full"],
        default="structure",
        help="what a picture must pass to be kept: its structure (default), or also the decoding of every pixel",
    )
    where = parser.add_argument_group("where the work is done")
    where.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="in this process (default), or by a worker on each machine of a Ray cluster (pip install 'batchgen[ray]')",
    )
    where.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="the cluster (default: RAY_ADDRESS, else this machine's); --concurrency then counts for each machine",
    )
    voice = parser.add_argument_group("what is said")
    voice.add_argument("--quiet", action="store_true", help="say nothing unless somebody is needed")
    voice.add_argument("--verbose", action="store_true", help="say every failed attempt")
    machines = parser.add_argument_group("who else hears of it")
    machines.add_argument(
        "--ping",
        metavar="URL",
        help="a dead man's switch: URL/start, then URL/<exit code>; it may hold a token, so better in BATCHGEN_PING",
    )
    machines.add_argument(
        "--metrics-file", type=Path, metavar="FILE", help="numbers for Prometheus (node_exporter's textfile collector)"
    )
    machines.add_argument(
        "--stamp",
        type=Path,
        metavar="FILE",
        help="for make: written when every job of MANIFEST is done, left alone when nothing was to do",
    )


def act(arguments: argparse.Namespace) -> int:
    import asyncio

    from batchgen import summary
    from batchgen.model import StorageError
    from batchgen.progress import say
    from batchgen.runner import conduct
    from batchgen.runner.context import Voice
    from batchgen.runner.listeners import listening
    from batchgen.telling import Telling

    voice = Voice(arguments.quiet, arguments.verbose)
    names = ("output", "state", "ping", "metrics_file", "stamp")
    telling = Telling.of(arguments.manifest, os.environ, **{name: getattr(arguments, name) for name in names})
    with listening(telling, voice) as listeners:
        found = asyncio.run(conduct.run(common.session(arguments), voice, hear=listeners.hear))
        if not arguments.quiet or found.exit_code:
            say("\n".join(summary.render(found)))
        listeners.ended(found)
    if arguments.json:
        with contextlib.suppress(StorageError):  # the same is in summary.json, and the exit code is the run's
            common.print_json(found)
    return found.exit_code
