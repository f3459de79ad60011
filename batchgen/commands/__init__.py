"""The commands, one module each: what it is for, its arguments, its act. They decide nothing that `runner` knows.

A module has ABOUT (what `--help` says), `arguments(parser)` and `act(arguments)`, which returns the exit code; it is
loaded only when its command is asked for, and loads what is heavy only inside its act.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import argparse

COMMANDS = {
    "run": "make what is missing",
    "check": "validate, plan, cost and time; sends nothing paid",
    "status": "where it stands",
    "report": "the page for people: verdict, pictures, failures, charts",
    "show": "what a picture or a job was made from",
    "verify": "are the files what the log says?",
    "export": "the pictures as a dataset",
    "models": "what the API offers, and prices",
    "sandbox": "the stand-in API, with faults on demand",
    "init": "a starter manifest, Makefile and crontab line",
    "schema": "the manifest's JSON Schema, for editors",
}

EXIT_CODES = """\
exit codes: 0 all selected jobs are done, 2 something said is wrong, 3 some jobs failed or are uncertain,
4 work is left (run the same command again), 5 another run is at work there, 6 the account was refused,
7 storage failed, 1 an error in batchgen, 129/130/143 ended by a signal
"""


class Command(Protocol):
    """What a module of this package has."""

    ABOUT: str

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def act(self, arguments: argparse.Namespace) -> int: ...


def load(name: str) -> Command:
    """The command of this name, which must be one of COMMANDS."""
    return cast("Command", import_module(f"{__name__}.{name}"))
