"""The command with another durability, to see what the default costs: `variants.py {off,each} run ...`.

`off` makes nothing durable, `each` commits every picture by itself. The program has no such switches.
"""

from __future__ import annotations

import sys

from batchgen import writer
from batchgen.cli import main
from batchgen.files import PosixFiles


def off() -> None:
    for name in ("sync", "sync_dir"):
        setattr(PosixFiles, name, lambda self, what: None)


def each() -> None:
    writer.GROUP = 1


if __name__ == "__main__":
    {"off": off, "each": each}[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
