"""batchgen check: what a run would do, cost and take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from batchgen.commands import common

if TYPE_CHECKING:
    from batchgen.runner.online import Offer
    from batchgen.runner.session import Session


ABOUT = """\
Validate MANIFEST and say what a run would do: every problem at once, with its place; then the jobs to be done, what
changed of them, money, time, nights and disk, each number with its source. Sends nothing paid, changes nothing.

  batchgen check jobs/animals.csv
  batchgen check jobs/animals.csv --online --rpm 60 --rpd 200
  batchgen check jobs/animals.csv --exit-code --json || batchgen run jobs/animals.csv
  batchgen check jobs/animals.csv --deps outputs/animals.stamp > outputs/animals.d

exit codes: 0 there is something to do, or nothing; 2 something said is wrong, 6 the key was refused (--online).
With --exit-code: 0 nothing to do, 10 work to do.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    common.manifest_arguments(parser)
    common.limit_arguments(parser)
    parser.add_argument("--diff", action="store_true", help="list the jobs to be done, and what changed of each")
    parser.add_argument(
        "--online", action="store_true", help="ask the API for models, prices and balance, with the key; nothing paid"
    )
    parser.add_argument(
        "--deps",
        nargs="*",
        metavar="TARGET",
        help="print only a rule for make: TARGET (default: outputs/NAME.stamp) depends on MANIFEST and all it names",
    )
    parser.add_argument("--exit-code", action="store_true", help="exit 10 where there is work to do, for make")


def act(arguments: argparse.Namespace) -> int:
    from batchgen.runner.check import check, render

    session = common.session(arguments)
    if arguments.deps is not None:
        return _deps(session, arguments)
    ask = (lambda: _ask(session)) if arguments.online else None
    found = check(session, ask, diff=arguments.diff, by_exit_code=arguments.exit_code)
    if arguments.json:
        common.print_json(found)
    else:
        common.tell("\n".join(render(found)))
    return found.exit_code


def _deps(session: Session, arguments: argparse.Namespace) -> int:
    from batchgen.model import UsageError
    from batchgen.runner.deps import deps

    if arguments.json or arguments.diff or arguments.online or arguments.exit_code:
        raise UsageError("--deps prints a rule for make and nothing else; use it without --json and its like")
    for line in deps(session, arguments.deps):
        common.tell(line)
    return 0


def _ask(session: Session) -> Offer:
    import asyncio

    from batchgen.runner import online

    return asyncio.run(online.ask(session.access))
