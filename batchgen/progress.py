"""How a run looks while it goes on: a bar on a terminal, a plain line now and then elsewhere. Never stops a run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from batchgen.events import Event, Finished, Left, Paced, Tried
from batchgen.model import Entry, Outcome, StorageError
from batchgen.text import duration
from batchgen.world import Clock

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY_S = 60.0


def say(message: str) -> None:
    """A line to people, on standard error."""
    write_line(message, sys.stderr)


def write_line(line: str, stream: TextIO | None) -> None:
    """A line that may be lost: a reader that has gone away or a full disk is no reason to stop, and no failure."""
    with contextlib.suppress(OSError, ValueError):
        _print(line, stream)


def hand_over(text: str, stream: TextIO | None) -> None:
    """What was asked for. Raises StorageError where it cannot be kept; a reader who has enough of it is no failure."""
    try:
        with contextlib.suppress(BrokenPipeError, ValueError):
            _print(text, stream)
    except OSError as error:
        raise StorageError(f"standard output cannot be written: {error.strerror or error}") from error


def _print(text: str, stream: TextIO | None) -> None:
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        print(text.encode("ascii", "backslashreplace").decode(), file=stream, flush=True)


class Progress:
    """An observer of the pool that shows how far it is."""

    def __init__(self, remaining: int, clock: Clock, *, quiet: bool, verbose: bool) -> None:
        self._remaining, self._clock, self._quiet, self._verbose = remaining, clock, quiet, verbose
        self._began_s = self._last_line_s = clock.monotonic()
        self._ended = self._failed = 0
        self.in_flight: Callable[[], int] = lambda: 0
        self._bar = None if quiet else _bar(remaining)

    def __call__(self, event: Event) -> None:
        match event:
            case Finished(entry=entry):
                self._finished(entry)
            case Paced(message=message, routine=routine) if self._verbose or not routine:
                self._write(message)
            case Tried(job=job, attempt=attempt) if self._verbose and attempt.failure:
                self._write(f"{job.id}: attempt {attempt.n}: {attempt.failure} ({attempt.message})")
            case Left(job=job, message=message) if self._verbose:
                self._write(f"{job.id}: left for another run ({message})")
        self.tick()

    def _finished(self, entry: Entry) -> None:
        self._ended += 1
        self._failed += entry.outcome is not Outcome.DONE
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                if self._failed:
                    self._bar.set_postfix_str(f"{self._failed} without a picture", refresh=False)
                self._bar.update()
        if entry.outcome is not Outcome.DONE:
            last = entry.attempts[-1] if entry.attempts else None
            self._write(f"{entry.job}: {entry.outcome} ({last.failure}: {last.message})" if last else entry.job)

    def tick(self) -> None:
        """Say how far it is, if that has not been said for a minute and no bar shows it."""
        now_s = self._clock.monotonic()
        if self._bar is None and not self._quiet and now_s - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = now_s
            say(self._line(now_s))

    def _line(self, now_s: float) -> str:
        elapsed_s = now_s - self._began_s
        rate = self._ended / elapsed_s if elapsed_s else 0.0
        eta = f", about {duration((self._remaining - self._ended) / rate)} left" if rate else ""
        failed = f", {self._failed} without a picture" if self._failed else ""
        return (
            f"{self._ended} of {self._remaining} ended{failed}, {self.in_flight()} in flight,"
            f" {rate * 60:.1f} a minute{eta}"
        )

    def _write(self, message: str) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.write(message, file=sys.stderr)
        elif not self._quiet:
            say(message)

    def close(self) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.close()


class Meter:
    """How far a long look over many files is: a bar on a terminal, elsewhere a line a minute."""

    def __init__(self, noun: str, clock: Clock) -> None:
        self._noun, self._clock = noun, clock
        self._done, self._total, self._last_line_s = 0, 0, clock.monotonic()
        self._bar: tqdm[Any] | None = None

    def expect(self, total: int) -> None:
        """So many are to come; before the first."""
        self._total, self._bar = total, _bar(total, self._noun)

    def tick(self) -> None:
        self._done += 1
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.update()
        elif self._clock.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = self._clock.monotonic()
            say(f"{self._done} of {self._total} {self._noun}s looked at")

    def close(self) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.close()


def _bar(total: int, unit: str = "job") -> tqdm[Any] | None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            from tqdm import tqdm

            return tqdm(total=total, unit=unit, dynamic_ncols=True, smoothing=0.05, mininterval=0.5, disable=None)
    return None
