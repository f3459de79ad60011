"""Play many nights: `python -m nights 0 5000`; or one, told in full: `python -m nights 17`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from nights.scenario import scenario
from nights.shrink import play_apart, shrink, told

SHOWN = 5


def outcome(seed: int) -> tuple[int, int, Counter[str], bool]:
    """The seed, its executions, the faults in it, and whether a promise was broken."""
    story = play_apart(scenario(seed))
    return seed, len(story.played), story.faults, bool(story.broken)


def main(arguments: list[str]) -> int:
    """Play the seeds from the first number up to (not including) the second; 1 where a promise was broken."""
    first = int(arguments[0])
    if len(arguments) == 1:
        story = play_apart(scenario(first))
        print(told(story))
        return int(bool(story.broken))
    seeds, began_s = range(first, int(arguments[1])), time.monotonic()
    executions, faults, failing = 0, Counter[str](), []
    with ProcessPoolExecutor(2) as processes:
        for seed, played, met, broken in processes.map(outcome, seeds, chunksize=20):
            executions, faults = executions + played, faults + met
            failing += [seed] if broken else []
    print(f"{len(seeds)} nights, {executions} executions, {time.monotonic() - began_s:.0f} s; faults met:")
    for name, count in faults.most_common():
        print(f"  {count:7} {name}")
    for seed in failing[:SHOWN]:
        print("\n" + told(shrink(play_apart(scenario(seed)))))
    print(f"\n{len(failing)} nights broke a promise" + (f": {failing[:100]}" if failing else ""))
    return int(bool(failing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
