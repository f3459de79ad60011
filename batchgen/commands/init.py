"""batchgen init: a starter manifest with all that belongs to it."""

from __future__ import annotations

import argparse
from pathlib import Path

from batchgen.commands import common

ABOUT = """\
Write a starter manifest, its JSON Schema for editors, a Makefile and an example of a crontab line into DIR. They work
as they are, with the built-in sandbox. Nothing is ever overwritten.

  batchgen init pictures && make -C pictures"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="where to (default: the current folder)"
    )


def act(arguments: argparse.Namespace) -> int:
    from batchgen.runner import starter

    for line in starter.write(arguments.folder):
        common.tell(line)
    return 0
