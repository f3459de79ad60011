"""The real command in a process that dies, by SIGKILL and in the middle of it, at a chosen file operation.

    python tests/crashing.py N ARGUMENT...

N counts the changing operations below the output folder from 1; with 0 nothing happens and their number is printed.
`remove:2` is the second one of this name. A
write that is the chosen one is done by half. What an attacker of the promises would do by hand, exactly repeatable.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from batchgen import cli, failures
from batchgen.files import PosixFiles
from batchgen.runner import outside

CHANGING = ("make_dir", "create", "append_to", "truncate", "sync", "sync_dir", "rename", "remove")


class CrashingFiles(PosixFiles):
    """File operations of which one is the last."""

    crash_at = 0
    only = ""
    count = 0

    def step(self, name: str) -> bool:
        """Count an operation; True where it is the last."""
        if CrashingFiles.only not in ("", name):
            return False
        CrashingFiles.count += 1
        return CrashingFiles.count == CrashingFiles.crash_at

    def write(self, handle: int, data: bytes) -> None:
        if self.step("write"):
            os.write(handle, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(handle, data)


def _deadly(name: str) -> Callable[..., Any]:
    def operation(self: CrashingFiles, *arguments: Any) -> Any:
        if self.step(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return getattr(PosixFiles, name)(self, *arguments)

    return operation


for _name in CHANGING:
    setattr(CrashingFiles, _name, _deadly(_name))


def main() -> int:
    """Run the command; the first argument is the operation at which to die."""
    CrashingFiles.only, _, number = sys.argv[1].rpartition(":")
    CrashingFiles.crash_at = int(number)
    setattr(outside, "PosixFiles", CrashingFiles)  # noqa: B010 - the name is another module's
    if cap := os.environ.get("TEST_LIFETIME_DOUBTS"):
        failures.LIFETIME_DOUBTS = int(cap)
    code = cli.main(sys.argv[2:])
    if not CrashingFiles.crash_at:
        sys.stdout.write(str(CrashingFiles.count))
    return code


if __name__ == "__main__":
    sys.exit(main())
