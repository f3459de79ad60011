"""Rules as GNU make reads them: which files a target depends on. Pure text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from batchgen.model import UsageError
from batchgen.text import printable

_SPECIAL = re.compile(r"(\\*)([ #:*?\[])")
_PERCENT = re.compile(r"(\\*)%")
# What would end the rule, split the name or make it a member of an archive or somebody's home, however it is quoted.
_UNSPEAKABLE = re.compile(r"^~|[;|\t\n\r]|\\$|\(.*\)$")


def rule(targets: Sequence[str], files: Sequence[str]) -> Iterator[str]:
    """The rule, a line at a time, and an empty one for each file, so that make goes on where one of them is gone.

    Raises UsageError for a name that cannot be said to make.
    """
    names = [_name(file) for file in files]
    heads = [_as_target(_name(target)) for target in targets]
    yield " \\\n  ".join([" ".join(heads) + ":", *names])
    for name in names:
        yield f"{_as_target(name)}:"


def _name(path: str) -> str:
    """The name as a prerequisite: backslashes before what has a meaning, and themselves there; `$` doubled."""
    if _UNSPEAKABLE.search(path):
        raise UsageError(f"make cannot be told of a file named {printable(path, 200)!r}; rename it")
    # An equals sign could make a variable of the rule, and cannot be quoted.
    return _SPECIAL.sub(r"\1\1\\\2", path).replace("$", "$$").replace("=", "$(subst ,,=)")


def _as_target(name: str) -> str:
    """In a target a percent sign has a meaning too."""
    return _PERCENT.sub(r"\1\1\\%", name)
