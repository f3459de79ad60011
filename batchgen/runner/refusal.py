"""Why a command ended without a result: its exit code and one line of words, for those who are told beside the user."""

from __future__ import annotations

from batchgen.model import BatchgenError, ExitCode, Interrupted, ManifestError
from batchgen.text import counted, printable


def exit_code_of(error: BaseException) -> int:
    """The exit code of a command that ends with this error."""
    if isinstance(error, BatchgenError | Interrupted):
        return int(error.exit_code)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(ExitCode.INTERNAL)
    return int(ExitCode.SIGINT if isinstance(error, KeyboardInterrupt) else ExitCode.INTERNAL)


def reason_of(error: BaseException) -> str:
    """Why, in one line."""
    if isinstance(error, ManifestError):
        first = f", the first: {error.problems[0]}" if error.problems else ""
        return printable(f"{counted(error.count, 'problem')} in the manifest{first}")
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "ended by a signal before anything was sent"
    if isinstance(error, BatchgenError):
        return printable(str(error))
    return printable(f"unexpected error: {type(error).__name__}: {error}")
