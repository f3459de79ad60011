"""batchgen status: where an output folder stands."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from batchgen.commands import common

ABOUT = """\
Where an output folder stands, from its log; also while a run is at work there.

  batchgen status outputs/animals
  batchgen status jobs/animals.csv --json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="DIR|MANIFEST", help="an output folder, or a manifest")
    parser.add_argument("--json", action="store_true", help="as one JSON object on standard output")


def act(arguments: argparse.Namespace) -> int:
    from batchgen.runner import look

    found = look.status(arguments.path, os.environ)
    if arguments.json:
        common.print_json(found)
    else:
        common.tell("\n".join(look.render(found)))
    return 0
