"""batchgen models: what the API offers, and prices."""

from __future__ import annotations

import argparse
from pathlib import Path

from batchgen.commands import common

ABOUT = """\
List the models that the API offers, with what they make and what a picture costs, as far as it tells. Asked with the
key, for free. MANIFEST says which API, if not the flags do.

  batchgen models
  batchgen models --api openai --api-url http://127.0.0.1:8000/v1
  batchgen models tonight.yaml --json

exit codes: 0 there is a list; 2 there is none, or something said is wrong; 6 the key was refused."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, nargs="?", metavar="MANIFEST", help="whose API to ask")
    common.api_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object on standard output")


def act(arguments: argparse.Namespace) -> int:
    import asyncio
    import os

    from batchgen.flags import Flags
    from batchgen.runner.models import list_models, render
    from batchgen.runner.session import open_access, open_session

    flags = Flags.of(arguments.manifest or Path(), api=arguments.api, api_url=arguments.api_url)
    key_file = arguments.api_key_file
    if arguments.manifest:
        access = open_session(flags, os.environ, key_file).access
    else:
        access = open_access(flags, os.environ, key_file)
    found = asyncio.run(list_models(access))
    if arguments.json:
        common.print_json(found)
    else:
        common.tell("\n".join(render(found)))
    return 0
