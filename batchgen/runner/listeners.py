"""Who hears of a run beside its user: a ping URL, a metrics file, make's stamp. Wraps a run; decides nothing in it."""

from __future__ import annotations

import contextlib
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import batchgen
from batchgen import metrics, summary
from batchgen.clock import SystemClock
from batchgen.files import replace_file
from batchgen.model import ExitCode, StorageError, UsageError
from batchgen.progress import say
from batchgen.runner.archive import last_change_ns
from batchgen.runner.conduct import interruptible
from batchgen.runner.context import Voice
from batchgen.runner.refusal import exit_code_of, reason_of
from batchgen.runner.session import default_output
from batchgen.sources import STANDARD_INPUT
from batchgen.summary import Summary
from batchgen.telling import Telling
from batchgen.world import Clock

if TYPE_CHECKING:
    from batchgen.ping import Ping

PATIENT_S = 2.0


@contextlib.contextmanager
def listening(telling: Telling, voice: Voice) -> Iterator[Listeners]:
    """Tell them that a run begins, and how it ended: call `ended` with its summary. What leaves the block by an
    exception is a run that could not begin, and is told as that."""
    listeners = Listeners(telling, voice)
    if not telling:
        yield listeners
        return
    with interruptible():
        try:
            listeners.begin()
            yield listeners
        except BaseException as error:
            listeners.refused(error)
            raise


@dataclass
class Listeners:
    """Those who hear of one run."""

    telling: Telling
    voice: Voice
    clock: Clock = field(default_factory=SystemClock)
    _ping: Ping | None = None

    def begin(self) -> None:
        """Raises UsageError where one of the files could not be written."""
        telling = self.telling
        if telling.ping:
            from batchgen.ping import Ping

            self._ping = Ping(telling.ping, str(uuid.uuid4()), f"batchgen/{batchgen.__version__}")
            self._ping.begin()
        for flag, path in (("--metrics-file", telling.metrics_file), ("--stamp", telling.stamp)):
            # Never made here: a new `outputs/` would be where the next run looks for its pictures.
            if path and not path.absolute().parent.is_dir():
                raise UsageError(f"{flag} {path}: there is no folder {path.absolute().parent}; make it first")
            if path and path.exists() and not path.is_file():
                raise UsageError(f"{flag} {path}: this is no file")

    @property
    def hear(self) -> Callable[[Summary], None] | None:
        """Who hears of the run's numbers while it is at work."""
        return self._at_work if self.telling.metrics_file else None

    def _at_work(self, found: Summary) -> None:
        self._measure(lambda before, of: metrics.of_run(found, before, of, self.clock.utc(), running=True))

    def ended(self, found: Summary) -> None:
        """Tell how the run ended. Raises StorageError where the stamp that was due cannot be written."""
        with _impatience(self.clock) as impatient:
            if self.telling.stamp and found.exit_code == ExitCode.OK and found.done == found.total:
                self._stamp(self.telling.stamp, found)
            self._measure(lambda before, of: metrics.of_run(found, before, of, self.clock.utc(), running=False))
            self._tell_end(found.exit_code, "\n".join(summary.render(found)), impatient)

    def refused(self, error: BaseException) -> None:
        """Tell that the run could not begin."""
        code = exit_code_of(error)
        with _impatience(self.clock) as impatient:
            if code != ExitCode.BUSY:  # the run that is at work there tells by itself
                self._measure(lambda before, of: metrics.of_refusal(code, before, of, self.clock.utc()))
            self._tell_end(code, f"the run could not begin or ended early: {reason_of(error)}", impatient)

    def _stamp(self, path: Path, found: Summary) -> None:
        """Make sees a change where there was one: a stamp that is newer than the log's last line stays as it is."""
        try:
            if path.is_file() and path.stat().st_mtime_ns >= last_change_ns(Path(found.output)):
                return
            replace_file(path, f"{found.run}: {found.verdict}\n".encode())
        except OSError as error:
            raise StorageError(f"--stamp {path}: {error.strerror or error}; all pictures are there") from error

    def _measure(self, samples: Callable[[metrics.Samples, str], metrics.Samples]) -> None:
        if not (path := self.telling.metrics_file):
            return
        of = _labels(self.telling)
        try:
            before = metrics.parse(path.read_text("utf-8"), of) if path.exists() else {}
            replace_file(path, metrics.render(samples(before, of)).encode())
        except (OSError, ValueError) as error:
            self.voice.say(f"note: --metrics-file {path}: {getattr(error, 'strerror', None) or error}")

    def _tell_end(self, code: int, text: str, impatient: Callable[[], bool]) -> None:
        if self._ping is None:
            return
        self._ping.end(code, text, impatient)
        for what, failure in self._ping.failures.items():
            # A wrong address stays wrong, and who waits for it would never know.
            tell = say if self._ping.refused else self.voice.say
            tell(f"note: the ping ({what}) was not taken: {failure}")


def _labels(telling: Telling) -> str:
    manifest, output = telling.manifest, telling.output
    if manifest == STANDARD_INPUT:
        return metrics.labels(manifest="-", output=str(output.absolute()) if output else "")
    return metrics.labels(
        manifest=str(manifest.absolute()), output=str((output or default_output(manifest)).absolute())
    )


@contextlib.contextmanager
def _impatience(clock: Clock) -> Iterator[Callable[[], bool]]:
    """Whether a signal came two seconds after the beginning or later (make and systemd send two at once)."""
    began_s, told = clock.monotonic(), False

    def note(number: int, frame: object) -> None:
        nonlocal told
        told = told or clock.monotonic() - began_s >= PATIENT_S

    before = {}
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # not the main thread: the program around us decides
                before[number] = signal.signal(number, note)
    try:
        yield lambda: told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
