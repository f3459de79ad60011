"""What is raised on purpose and what it says: exit codes, errors, mistakes in a manifest, refusals."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from batchgen.model.entries import Failure


class ExitCode(IntEnum):
    """What a command's exit status says (DESIGN.md section 6)."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    INCOMPLETE = 3
    WORK_LEFT = 4
    BUSY = 5
    ACCOUNT = 6
    STORAGE = 7
    TO_DO = 10
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


class BatchgenError(Exception):
    """Root of the errors that batchgen raises on purpose; `exit_code` says whose fault it is."""

    exit_code = ExitCode.INTERNAL


class UsageError(BatchgenError):
    """The command, the manifest or the configuration is wrong; nothing was sent."""

    exit_code = ExitCode.USAGE


class FolderBusy(BatchgenError):
    """Another run holds the output folder."""

    exit_code = ExitCode.BUSY


class AccountRefused(BatchgenError):
    """The account was refused: its key is wrong."""

    exit_code = ExitCode.ACCOUNT


class StorageError(BatchgenError):
    """The disk failed: full, read-only, damaged or gone."""

    exit_code = ExitCode.STORAGE


class InputChanged(BatchgenError):
    """An image or mask is no longer the file that was read when the run was planned."""

    exit_code = ExitCode.WORK_LEFT


class BudgetSpent(BatchgenError):
    """A request was not let out, because it would break a limit of money or requests that others count too."""

    exit_code = ExitCode.WORK_LEFT


class ManifestChanged(BatchgenError):
    """The manifest was edited while a run was reading it."""

    exit_code = ExitCode.WORK_LEFT


class Interrupted(SystemExit):
    """A signal came before anything was sent; `code` says which.

    No Exception: it is raised wherever the program happens to be, and nothing on the way out may take it for its own.
    """

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__(int(exit_code))
        self.exit_code = exit_code


class Problem(msgspec.Struct, frozen=True):
    """One mistake in a manifest and where it stands; lines and columns count from 1, 0 is unknown.

    `field` is what the mistake is in and `value` what was given there, as far as they are known.
    """

    file: str
    line: int
    column: int
    what: str
    fix: str = ""
    job: str | None = None
    field: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        place = ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])
        job = f" job {self.job!r}:" if self.job else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{place}:{job} {self.what}{fix}"


class ManifestError(UsageError):
    """A manifest with mistakes: the first of them in `problems`, all of them counted in `count`."""

    def __init__(self, problems: list[Problem], count: int | None = None) -> None:
        self.problems = problems
        self.count = len(problems) if count is None else count
        super().__init__("\n".join(map(str, problems)))


class Refusal(msgspec.Struct, frozen=True):
    """Why a command ended before it began, as `--json` tells it: the first `problems` of `count` in a manifest."""

    error: str
    exit_code: int
    problems: tuple[Problem, ...] = ()
    count: int = 0
    v: int = 1


class AttemptFailed(BatchgenError):
    """An attempt that ended without a readable answer; `failure` says which way."""

    def __init__(self, failure: Failure, message: str) -> None:
        self.failure = failure
        super().__init__(message)


class BadAnswer(BatchgenError):
    """An answer that was paid for and holds no usable picture."""
