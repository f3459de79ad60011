"""batchgen report: the page for people."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from batchgen.commands import common

ABOUT = """\
Make report.html in an output folder: the verdict, all pictures with everything known of them, failures by cause with
the commands that try them again, charts, and the last run beside earlier ones. Small pictures go to thumbs/; what is
there already is not made again. Needs no network, neither now nor when it is read. Also while a run is at work there.
Prints where the page is.

  batchgen report outputs/animals
  batchgen report jobs/animals.csv --json

exit codes: 0 the page is there (also where pictures are missing or damaged: it says so), 2 something said is wrong,
7 the folder cannot be written to."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="DIR|MANIFEST", help="an output folder, or a manifest")
    parser.add_argument("--json", action="store_true", help="what was made, as one JSON object on standard output")


def act(arguments: argparse.Namespace) -> int:
    from batchgen.progress import say
    from batchgen.runner import reporting
    from batchgen.text import counted

    found = reporting.report(arguments.path, os.environ, say)
    if found.problems:
        say(f"note: {counted(found.problems, 'picture')} cannot be shown; `batchgen verify` names them and says why")
    if found.copy:
        say(f"note: its copy beside the pictures, where links to them work: {found.copy}")
    if arguments.json:
        common.print_json(found)
    else:
        common.tell(found.page)
    return 0
