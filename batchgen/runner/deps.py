"""`check --deps`: the files that a manifest's jobs depend on, as a rule for make. Pictures need not be there yet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from batchgen import makerule
from batchgen.inputs import Inputs
from batchgen.manifest import Mistakes
from batchgen.model import FileInput, Problem, UsageError
from batchgen.runner.session import Session
from batchgen.sources import STANDARD_INPUT


@dataclass
class _Named(Inputs):
    """Takes down which pictures are named, and reads none: another rule of the Makefile may have yet to make them."""

    paths: dict[str, None] = field(default_factory=dict)

    def digest(self, path: str) -> FileInput:
        self.paths[path] = None
        return FileInput(path, "")


def deps(session: Session, targets: Sequence[str]) -> Iterator[str]:
    """The rule, a line at a time; without `targets` for the stamp beside the output folder.

    Raises ManifestError with all problems of the manifest, and UsageError, before the first line.
    """
    source = session.source
    if source.path == STANDARD_INPUT:
        raise UsageError("make cannot look at standard input; --deps needs a manifest that is a file")
    named, mistakes = _Named(session.inputs.base), Mistakes()
    for job in replace(session, inputs=named).jobs():
        if isinstance(job, Problem):
            mistakes.add(job)
    mistakes.check()
    pictures = (source.path.parent / path for path in named.paths)
    files = dict.fromkeys(os.path.normpath(path) for path in (*source.files, *pictures))
    return makerule.rule(targets or [_stamp(session)], list(files))


def _stamp(session: Session) -> str:
    """`outputs/NAME.stamp`, seen from the current folder where it is below it."""
    stamp = Path(f"{os.path.normpath(session.settings.output.absolute())}.stamp")
    return str(stamp.relative_to(Path.cwd()) if stamp.is_relative_to(Path.cwd()) else stamp)
