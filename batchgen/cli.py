"""The command line: which command acts, what is said when it cannot, exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchgen.commands import load
from batchgen.parser import Misused, make_parser

if TYPE_CHECKING:
    import argparse

    from batchgen.model import Problem


def entry() -> None:
    """The installed command."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        # What a full disk or a reader that has gone keeps in a buffer must not change the exit code.
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        arguments = make_parser().parse_args(argv)
    except Misused as error:
        if "--json" in argv:
            _print_refusal(error.message, 2)
        raise
    try:
        return int(load(arguments.command).act(arguments))
    except KeyboardInterrupt:
        return 130
    except SystemExit as interrupted:
        return _ended_early(int(interrupted.code or 0), arguments)
    except Exception as error:
        return _explain(error, arguments)


def _ended_early(code: int, arguments: argparse.Namespace) -> int:
    from batchgen.progress import say

    message = "ended by a signal before anything was sent"
    say(f"batchgen: {message}")
    if getattr(arguments, "json", False):
        _print_refusal(message, code)
    return code


def _explain(error: Exception, arguments: argparse.Namespace) -> int:
    """Say what went wrong, to people and, where it was asked for, to programs; the exit code."""
    from batchgen.model import BatchgenError, ExitCode, ManifestError
    from batchgen.progress import say

    problems: Sequence[Problem] = ()
    message, code, count = str(error), ExitCode.INTERNAL, 0
    if isinstance(error, ManifestError):
        from batchgen.manifest import SHOWN_ALIKE

        say(message)
        problems, code, count = error.problems, error.exit_code, error.count
        more = f" ({len(problems)} are shown, at most {SHOWN_ALIKE} that say the same)" if count > len(problems) else ""
        message = f"{count} problem{'s' * (count != 1)} in the manifest{more}; nothing was sent"
    elif isinstance(error, BatchgenError):
        code = error.exit_code
    else:
        if getattr(arguments, "verbose", False):
            import traceback

            say("".join(traceback.format_exception(error)))
        message = f"unexpected error: {type(error).__name__}: {error} (please report it; --verbose shows where)"
    say(f"batchgen: {message}")
    if getattr(arguments, "json", False):
        _print_refusal(message, code, problems, count)
    return code


def _print_refusal(error: str, code: int, problems: Sequence[Problem] = (), count: int = 0) -> None:
    from batchgen.commands.common import print_json
    from batchgen.model import Refusal, StorageError

    with contextlib.suppress(StorageError):  # the exit code already says that this failed, and why is on standard error
        print_json(Refusal(error, code, tuple(problems), count))


if __name__ == "__main__":
    entry()
