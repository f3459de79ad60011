"""Problems -> the few that are shown, and the count of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from batchgen.model import ManifestError, Problem

SHOWN = 100
SHOWN_ALIKE = 5


@dataclass
class Mistakes:
    """The problems of one walk over a manifest: all counted, and the first hundred held.

    Of one that many rows share a few are held, so that it does not hide the others.
    """

    count: int = 0
    held: list[Problem] = field(default_factory=list)
    _alike: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, problem: Problem) -> None:
        self.count += 1
        if len(self.held) >= SHOWN:
            return
        kind = problem.file, problem.what, problem.fix
        self._alike[kind] += 1
        if self._alike[kind] <= SHOWN_ALIKE:
            self.held.append(problem)

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Mistakes:
        mistakes = cls()
        for problem in problems:
            mistakes.add(problem)
        return mistakes

    def error(self) -> ManifestError:
        return ManifestError(self.held, self.count)

    def check(self) -> None:
        """Raises ManifestError if there were any."""
        if self.count:
            raise self.error()
