"""batchgen status: where an output folder stands."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.commands import common

if TYPE_CHECKING:
    from batchgen.runner.look import Status

ABOUT = """\
Where an output folder stands, from its log; while a run is at work there also what it does, how fast it is, when it
will be ready, what holds it up and what failed last.

  batchgen status outputs/animals
  batchgen status jobs/animals.csv --json
  batchgen status outputs/animals --watch && echo complete

exit codes: 0 the folder could be read, 2 there is nothing to look at. With --watch: that of the run (4 where it was
killed), 130 after Ctrl-C, which ends the watching and not the run."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="DIR|MANIFEST", help="an output folder, or a manifest")
    parser.add_argument(
        "--watch", action="store_true", help="look again every 2 s until the run has ended; without a terminal in lines"
    )
    parser.add_argument(
        "--json", action="store_true", help="as one JSON object on standard output; with --watch one a line"
    )


def act(arguments: argparse.Namespace) -> int:
    from batchgen.clock import SystemClock
    from batchgen.runner import look

    if arguments.watch:
        return _watch(arguments)
    clock = SystemClock()
    found = look.status(arguments.path, os.environ, clock)
    if arguments.json:
        common.print_json(found)
    else:
        common.tell("\n".join(look.render(found, clock.utc())))
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    import shutil
    import time

    from batchgen.clock import SystemClock
    from batchgen.progress import write_line
    from batchgen.runner import look, watch
    from batchgen.runner.archive import root_of

    clock, root = SystemClock(), root_of(arguments.path)
    glances = watch.Glances(
        count=lambda: look.status(arguments.path, os.environ, clock),
        now=lambda: look.now_at(root, clock),
        wait=time.sleep,
        clock=clock,
    )
    lines = watch.Lines(common.print_json if arguments.json else _print_line, clock)
    screen = watch.Screen(lambda text: write_line(text.removesuffix("\n"), sys.stdout), shutil.get_terminal_size)
    drawn = not arguments.json and sys.stdout is not None and sys.stdout.isatty()
    found: Status | None = None
    for found in glances:
        if drawn:
            screen.draw(list(look.render(found, clock.utc())))
        else:
            lines.draw(found)
    assert found is not None
    return watch.exit_code(found)


def _print_line(found: Status) -> None:
    from batchgen.runner import watch

    common.tell(watch.line(found))
