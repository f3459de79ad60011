"""`batchgen status --watch`: looks again and again until the run has ended. Terminal, clock and pause are handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from batchgen.model import ExitCode
from batchgen.progress import LINE_EVERY_S
from batchgen.runner.live import Now, RunState
from batchgen.runner.look import Status
from batchgen.text import duration, printable
from batchgen.world import Clock

LOOK_S = 2.0
COST = 20.0


@dataclass
class Glances:
    """Looks at a folder as often as is asked, and counts everything in it only as often as it can be afforded.

    `count` counts everything, `now` tells what goes on, `wait` waits for so many seconds.
    """

    count: Callable[[], Status]
    now: Callable[[], Now]
    wait: Callable[[float], None]
    clock: Clock
    _counted: Status | None = None
    _again_s: float = field(default=0.0)

    def __iter__(self) -> Iterator[Status]:
        """A status every two seconds, until no run is at work; the last one is counted afresh."""
        while True:
            found = self._look()
            yield found
            if not at_work(found):
                return
            self.wait(LOOK_S)

    def _look(self) -> Status:
        began_s = self.clock.monotonic()
        if self._counted and began_s < self._again_s and at_work(now := self.now()):
            return self._counted.at(now)
        self._counted = self.count()
        ended_s = self.clock.monotonic()
        # Of a large folder the counts may be a little old; looking must not take the run's machine from it.
        self._again_s = ended_s + COST * (ended_s - began_s)
        return self._counted


def at_work(found: Now) -> bool:
    """Whether there is something to wait for."""
    return found.run_state in (RunState.RUNNING, RunState.SILENT)


def exit_code(found: Now) -> int:
    """How the run that was watched ended; one that ended without a word left work to the same command."""
    if found.run_state is RunState.KILLED:
        return ExitCode.WORK_LEFT
    return found.last_exit_code or 0


@dataclass
class Screen:
    """Draws over what was drawn before, on a terminal of this size (columns, lines)."""

    write: Callable[[str], None]
    size: Callable[[], tuple[int, int]]
    _drawn: int = 0

    def draw(self, lines: list[str]) -> None:
        columns, rows = self.size()
        shown = [line[: columns - 1] for line in lines][: max(1, rows - 1)]
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self.write(up + "\x1b[J" + "\n".join(shown) + "\n")
        self._drawn = len(shown)


@dataclass
class Lines:
    """Elsewhere a line a minute, and whenever the run begins to do something else."""

    write: Callable[[Status], None]
    clock: Clock
    _last: tuple[str | None, RunState | None] | None = None
    _last_s: float = 0.0

    def draw(self, found: Status) -> None:
        what, now_s = (found.doing, found.run_state), self.clock.monotonic()
        if what != self._last or now_s - self._last_s >= LINE_EVERY_S:
            self._last, self._last_s = what, now_s
            self.write(found)


def line(found: Status) -> str:
    """A status in one line."""
    if not (work := found.work):
        return f"{found.done} of {found.total} done; {found.last_verdict or found.run_state}"
    parts = [f"{work.ended} of {work.to_do} ended", f"{found.failed} failed" if found.failed else ""]
    parts += [f"{work.in_flight} in flight"]
    parts += [f"{work.pictures_per_minute:.1f} a minute" if work.pictures_per_minute is not None else ""]
    parts += [f"about {duration(work.eta_s)} left" if work.eta_s else ""]
    said = ", ".join(filter(None, parts))
    return f"{said}; {printable(found.doing or '', 200)}"
