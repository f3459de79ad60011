"""batchgen verify: are the files what the log says?"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from batchgen.commands import common

ABOUT = """\
Hold the files of an output folder against its log: pictures that are missing, changed, broken or unreadable, and files
that no line of the log tells of (orphaned). Reads every picture; changes nothing unless told to, and deletes nothing.
Also while a run is at work there, but for --requeue and --tidy.

  batchgen verify outputs/animals
  batchgen verify jobs/animals.csv --quick --json
  batchgen verify outputs/animals --requeue; batchgen run jobs/animals.csv

exit codes: 0 all is as the log says (there may be orphans); 3 something was missing, changed, broken or unreadable,
also if --requeue has dealt with it; 2 something said is wrong, 5 a run is at work there, 7 storage failed
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="DIR|MANIFEST", help="an output folder, or a manifest")
    parser.add_argument("--quick", action="store_true", help="compare sizes only, and read nothing")
    parser.add_argument(
        "--requeue",
        action="store_true",
        help="move damaged pictures to superseded/, so that the next run makes their jobs again",
    )
    parser.add_argument(
        "--tidy",
        action="store_true",
        help="move to superseded/ what no line of the log tells of, and pictures whose job has left the manifest",
    )
    parser.add_argument(
        "--show", type=common.count, metavar="N", help="name the first N files of each kind (default 10; --json 1000)"
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object on standard output")


def act(arguments: argparse.Namespace) -> int:
    from batchgen import verify
    from batchgen.clock import SystemClock
    from batchgen.progress import Meter
    from batchgen.runner import verifying

    shown = arguments.show or (1000 if arguments.json else verify.SHOWN)
    wish = verifying.Wish(arguments.quick, arguments.requeue, arguments.tidy, shown)
    found = verifying.verify(arguments.path, os.environ, wish, Meter("job", SystemClock()))
    if arguments.json:
        common.print_json(found)
    else:
        common.tell("\n".join(verify.render(found)))
    return found.exit_code
