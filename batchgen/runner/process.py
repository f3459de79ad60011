"""Which process a number means. Reads what the system tells of processes, and nothing else."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def mark(pid: int) -> str:
    """What tells this process from every other that had or will have its number; empty where the system does not say.

    It is the boot's identity and the process' start in clock ticks since then (proc(5), field 22 of `stat`).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{int(_stat(pid)[19])}"
    except (OSError, ValueError, IndexError):
        return ""


def _stat(pid: int) -> list[bytes]:
    """The fields of `stat` from the third on: before the last bracket is a name that may hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def is_there(pid: int, known_mark: str) -> bool:
    """Whether the process lives, as far as this machine can tell. Without a mark a number alone must do."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    with contextlib.suppress(OSError):
        if _stat(pid)[:1] == [b"Z"]:
            return False  # dead, only nobody has asked for its end yet
    now = mark(pid)
    return not (now and known_mark) or now == known_mark
