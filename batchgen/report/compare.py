"""Is the server slower than in earlier runs? Said in words, and only where there are pictures enough to tell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from batchgen.report.numbers import Kind, RunNumbers
from batchgen.summary import percentile
from batchgen.text import counted

ENOUGH = 20
NOTABLE = 0.05


class Comparison(msgspec.Struct, frozen=True):
    """The server's seconds for one kind of picture, in the last run and in all earlier ones together.

    `change` is the part by which the median grew; 0 where it cannot be told from chance or is below 5 %.
    """

    kind: str
    now_p50: float
    before_p50: float
    now_count: int
    before_count: int
    before_runs: int
    change: float

    @property
    def word(self) -> str:
        return "slower" if self.change > 0 else "faster" if self.change < 0 else "as fast as before"

    def __str__(self) -> str:
        how = f"{abs(self.change):.0%} {self.word}" if self.change else self.word
        return (
            f"{self.kind}: {how}; p50 {self.now_p50:.2f} s over {counted(self.now_count, 'picture')}, "
            f"{self.before_p50:.2f} s over {self.before_count} in {counted(self.before_runs, 'earlier run')}"
        )


def compare(runs: Sequence[RunNumbers]) -> list[Comparison]:
    """The last of `runs` (the oldest first) against all before it, the kind with most pictures first."""
    if len(runs) < 2:
        return []
    *earlier, last = runs
    return sorted(_comparisons(last, earlier), key=lambda found: (-found.now_count, found.kind))


def _comparisons(last: RunNumbers, earlier: Sequence[RunNumbers]) -> Iterator[Comparison]:
    for kind, seconds in last.inference_s.items():
        with_kind = [run.inference_s[kind] for run in earlier if kind in run.inference_s]
        now, before = sorted(seconds), sorted(second for found in with_kind for second in found)
        if len(now) < ENOUGH or len(before) < ENOUGH:
            continue
        yield _comparison(kind, now, before, len(with_kind))


def _comparison(kind: Kind, now: Sequence[float], before: Sequence[float], runs: int) -> Comparison:
    now_p50, before_p50 = percentile(now, 0.5), percentile(before, 0.5)
    change = now_p50 / before_p50 - 1 if before_p50 > 0 else 0.0
    certain = abs(now_p50 - before_p50) > _notch(now) + _notch(before) and abs(change) >= NOTABLE
    return Comparison(str(kind), now_p50, before_p50, len(now), len(before), runs, change if certain else 0.0)


def _notch(ordered: Sequence[float]) -> float:
    """How far a median may be off: medians whose notches do not overlap differ at about 95 % confidence.

    Source: McGill, Tukey, Larsen, Variations of Box Plots, The American Statistician 32 (1978).
    """
    return 1.57 * (percentile(ordered, 0.75) - percentile(ordered, 0.25)) / math.sqrt(len(ordered))


def sentence(found: Sequence[Comparison]) -> str | None:
    """One sentence for the verdict; None where nothing can be compared."""
    if not found:
        return None
    slower, faster = [c for c in found if c.change > 0], [c for c in found if c.change < 0]
    if not slower and not faster:
        return "The server was as fast as in earlier runs."
    first = max(slower or faster, key=lambda c: abs(c.change))
    more = f" ({first.kind})" if len(found) > 1 else ""
    return (
        f"The server was {abs(first.change):.0%} {first.word} than in earlier runs: "
        f"p50 {first.now_p50:.2f} s, before {first.before_p50:.2f} s{more}."
    )
