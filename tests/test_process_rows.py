"""The fault matrix of the reliability page, rows 62-71: real processes that are started twice, stopped, starved, told
to end; and clocks that jump, on virtual time.

Which row is shown where, in all the suite, is in MATRIX.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from world import Answer, SimClock, SimServer, World, between, most_in_window, says

import batchgen
from batchgen.folder import locked
from batchgen.model import ExitCode
from batchgen.runner.work import SECOND_SIGNAL_S
from batchgen.sandbox import SANDBOX_KEY, Sandbox

if TYPE_CHECKING:
    from conftest import Beside, Place
    from world import InstantDeliver

    from batchgen.pool import Pool

pytestmark = pytest.mark.no_cover  # most of these processes are ended before they could tell
ROOT = Path(batchgen.__file__).parents[1]
COMMAND = [sys.executable, "-m", "batchgen.cli"]
JOBS = tuple("abcd")
SOON_S = 60
LONG = os.environ.get("BATCHGEN_SOAK") == "1"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBULA_API_KEY", SANDBOX_KEY)


class Night:
    """A manifest and a sandbox for processes that are badly treated."""

    def __init__(self, place: Place, server: Sandbox, jobs: tuple[str, ...] = JOBS) -> None:
        self.place, self.server = place, server
        self.jobs, self.manifest = jobs, place.jobs(*jobs)

    @property
    def arguments(self) -> list[str]:
        return [*COMMAND, "run", str(self.manifest), "--api", "nebula", "--api-url", self.server.url, "-c", "2"]

    @property
    def ledger(self) -> Any:
        return self.server.ledger

    def begun(self) -> None:
        """Wait until the first request has come in."""
        assert self.ledger.begun.wait(SOON_S)

    def says(self, word: str) -> None:
        """Wait until the run's heartbeat says that it does this."""
        self.until(lambda: word in json.loads((self.place.output / ".batchgen/state.json").read_bytes())["doing"])

    def until(self, there: Callable[[], object]) -> None:
        """Wait until this is so."""
        for _ in range(SOON_S * 100):
            with contextlib.suppress(OSError):
                if there():
                    return
            time.sleep(0.01)
        raise AssertionError("it never came to this")

    def completes(self) -> None:
        """The same command finishes the work; no picture is bought twice."""
        ended = subprocess.run(self.arguments, capture_output=True, text=True, timeout=SOON_S)
        assert ended.returncode == 0, ended.stderr
        assert self.place.files() == {f"{job}.png" for job in self.jobs}
        assert sorted(entry["job"] for entry in self.place.log) == sorted(self.jobs)
        assert (self.ledger.pictures, self.ledger.bought_again) == (len(self.jobs), 0)


@contextmanager
def started(arguments: list[str], **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the test."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | settings
    with subprocess.Popen(arguments, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


# Row 62, 63: who may write


def test_row62_two_starts_at_once(place: Place, beside: Beside) -> None:
    """Of two starts in the same instant one does the work and the other ends with exit code 5; nothing is bought
    twice."""
    server = beside.held()
    night = Night(place, server)
    with started(night.arguments) as first, started(night.arguments) as second:
        night.until(lambda: {first.poll(), second.poll()} != {None})
        server.let_go()
        said = [process.communicate(timeout=SOON_S)[1] for process in (first, second)]
        codes = [first.returncode, second.returncode]
    assert sorted(codes) == [0, 5], said
    assert "nothing was touched" in said[codes.index(5)]
    assert (night.ledger.pictures, night.ledger.requests) == (len(JOBS), len(JOBS))


def test_row62_a_start_while_another_drains(place: Place, beside: Beside) -> None:
    """A run that was told to end holds its folder until its last answer is saved."""
    server = beside.held()
    night = Night(place, server)
    with started(night.arguments) as first:
        night.begun()
        first.send_signal(signal.SIGTERM)
        assert first.stderr
        while "no new requests" not in first.stderr.readline():
            pass
        second = subprocess.run(night.arguments, capture_output=True, text=True, timeout=SOON_S)
        assert second.returncode == 5
        server.let_go()
        first.communicate(timeout=SOON_S)
    assert first.returncode == 143
    assert night.ledger.requests == place.summary["done"] == 1


HOLD = """
import pathlib, subprocess, sys
from batchgen.folder import locked
with locked(pathlib.Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    print(child.pid, flush=True)
    sys.stdin.read()
"""


def test_row63_a_lock_is_free_although_a_child_outlives_its_holder(tmp_path: Path) -> None:
    """When the holder is killed its lock is free at once, whatever it had started."""
    arguments = [sys.executable, "-c", HOLD, str(tmp_path)]
    with started(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        child = int(holder.stdout.readline())
        try:
            holder.kill()
            holder.wait(SOON_S)
            os.kill(child, 0)
            with locked(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


# Row 64: SIGTERM at every stage


def test_row64_before_anything_was_sent(place: Place, beside: Beside) -> None:
    """SIGTERM while a large manifest is read ends the process soon; nothing was sent and nothing is locked."""
    night = Night(place, beside())
    lines = "\n".join(f'{{"id": "j{n}", "prompt": "p", "model": "m/x"}}' for n in range(300_000))
    night.manifest = place.write("big.jsonl", lines)
    output = place.root / "big"
    with started([*night.arguments, "-o", str(output)]) as process:
        # Linux tells which files a process has open.
        night.until(lambda: night.manifest in [p.readlink() for p in Path(f"/proc/{process.pid}/fd").iterdir()])
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SOON_S)
    assert process.returncode in (143, -signal.SIGTERM), "to a shell both are 143"
    assert night.ledger.requests == 0
    with locked(output):
        pass


def test_row64_in_a_pause_after_a_rate_limit(place: Place, beside: Beside) -> None:
    """SIGTERM while everybody waits for the rate limit is heard at once, and the job is pending."""
    night = Night(place, beside("429"))
    with started([*night.arguments, "--verbose"]) as process:
        assert process.stderr
        while "pauses" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SOON_S)
    assert process.returncode == 143 == place.summary["exit_code"]
    assert (place.summary["pending"], place.summary["in_doubt"]) == (len(JOBS), 0)
    night.server = beside()
    night.completes()


def test_row64_while_it_waits_for_the_next_day(place: Place, beside: Beside) -> None:
    """SIGTERM while a run waits for the quota of the next day is heard at once, and its jobs are pending."""
    night = Night(place, beside("quota"))
    with started([*night.arguments, "--on-quota", "wait"]) as process:
        night.begun()
        night.until(lambda: (place.output / ".batchgen/attempts.jsonl").read_bytes().count(b'"ended"'))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SOON_S)
    assert process.returncode == 143 == place.summary["exit_code"]
    assert (place.summary["pending"], place.summary["in_doubt"]) == (len(JOBS), 0)
    night.server = beside()
    night.completes()


# Row 65: the signal goes to whoever started it


def makefile(night: Night) -> list[str]:
    """`make` whose target is the job log itself, which make would like to delete."""
    recipe = " ".join(night.arguments)
    file = night.place.write("Makefile", f"outputs/m/log.jsonl: m.yaml\n\t{recipe}\n.PRECIOUS: outputs/m/log.jsonl\n")
    return ["make", "-C", str(file.parent), "-f", str(file)]


WRAPPERS: dict[str, Callable[[Night], list[str]]] = {
    "make": makefile,
    "sh": lambda night: ["sh", "-c", '"$@"; true', "sh", *night.arguments],
    "timeout": lambda night: ["timeout", "300", *night.arguments],
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=[f"row65-{name}" for name in WRAPPERS])
def test_row65_a_signal_to_the_wrapper_alone(place: Place, beside: Beside, wrap: Callable[[Night], list[str]]) -> None:
    """Whether the wrapper hands SIGTERM on or dies of it, what is in flight is saved, the log is whole, and the same
    command completes without buying anything twice."""
    night = Night(place, beside(latency_s=0.2))
    with started(wrap(night), stderr=subprocess.DEVNULL) as wrapper:
        night.begun()
        wrapper.send_signal(signal.SIGTERM)
        wrapper.communicate(timeout=SOON_S)
    night.until(lambda: place.summary)
    night.until(lambda: json.loads((place.output / ".batchgen/state.json").read_bytes())["doing"] == "ended")
    assert len(place.log) == place.summary["done"] == night.ledger.pictures >= 1
    night.until(lambda: _free(place.output))
    night.completes()


def _free(output: Path) -> bool:
    try:
        with locked(output):
            return True
    except batchgen.BatchgenError:
        return False


# Row 66: other signals


def test_row66_a_second_sigint_ends_at_once(place: Place, beside: Beside) -> None:
    """The first SIGINT drains; one that comes later than two seconds after it lets go of what hangs, which is in
    doubt."""
    night = Night(place, beside("hang"))
    with started(night.arguments) as process:
        night.begun()
        process.send_signal(signal.SIGINT)
        assert process.stderr
        while "no new requests" not in process.stderr.readline():
            pass
        time.sleep(SECOND_SIGNAL_S + 0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SOON_S)
    assert process.returncode == 130 == place.summary["exit_code"]
    assert (place.summary["in_doubt"], place.summary["pending"]) == (1, len(JOBS))
    notes = (place.output / ".batchgen/attempts.jsonl").read_text().splitlines()
    assert [json.loads(note)["attempt"]["failure"] for note in notes] == ["in_doubt"]
    night.server = beside()
    night.completes()


def test_row66_two_sigints_in_one_breath_are_one(place: Place, beside: Beside) -> None:
    """An impatient double Ctrl-C (or a terminal and a wrapper that both pass it on) still drains."""
    server = beside.held()
    night = Night(place, server)
    with started(night.arguments) as process:
        night.begun()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        server.let_go()
        process.communicate(timeout=SOON_S)
    assert process.returncode == 130
    assert place.summary["done"] == night.ledger.pictures >= 1
    assert place.summary["in_doubt"] == 0


def test_row66_a_terminal_that_is_closed(place: Place, beside: Beside) -> None:
    """A hangup with nowhere left to write to drains like any other: exit code 129, everything bought is saved."""
    server = beside.held()
    night = Night(place, server)
    pid, screen = pty.fork()
    if not pid:
        os.execv(sys.executable, night.arguments)
    night.begun()
    os.close(screen)
    server.let_go()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 129 == place.summary["exit_code"]
    assert place.summary["done"] == night.ledger.pictures >= 1
    night.completes()


def test_row66_a_run_that_was_stopped_goes_on(place: Place, beside: Beside) -> None:
    """SIGSTOP and SIGCONT, with answers that came meanwhile: nothing is lost and nothing bought twice."""
    night = Night(place, beside(latency_s=0.1))
    with started(night.arguments) as process:
        night.begun()
        process.send_signal(signal.SIGSTOP)
        night.until(lambda: not night.ledger.in_flight)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=SOON_S)
    assert process.returncode == 0
    night.completes()


# Row 49, 68, 71: little room


def test_row49_32_descriptors_are_enough(place: Place, beside: Beside) -> None:
    """Under `ulimit -n 32` and with more workers than that, every picture is bought once and saved."""
    # Only the long form comes so far that connections are refused, because then it waits.
    night = Night(place, beside(latency_s=0.05), jobs=tuple(f"j{n}" for n in range(60 if LONG else 28)))
    arguments = ["sh", "-c", 'ulimit -n 32; exec "$@"', "sh", *night.arguments, "-c", "40"]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=SOON_S)
    assert ended.returncode == 0, ended.stderr
    assert night.ledger.pictures == place.summary["done"], "what was paid for is saved"
    night.completes()


def test_row71_too_little_memory(place: Place, beside: Beside) -> None:
    """However a run dies for want of memory, the next one completes, with at most C pictures bought again."""
    night = Night(place, beside(latency_s=0.05))
    for mebibytes in (140, 220):
        limit = mebibytes << 20
        subprocess.run(
            [*night.arguments, "--give-up-after", "2s"],  # without memory for a thread no name is looked up
            capture_output=True,
            timeout=SOON_S,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_AS, (limit, limit)),
        )
    ended = subprocess.run(night.arguments, capture_output=True, text=True, timeout=SOON_S)
    assert ended.returncode == 0, ended.stderr
    assert night.ledger.bought_again <= 2 * 2
    assert place.files() == {f"{job}.png" for job in JOBS}


def test_row68_without_home_and_with_umask_000(place: Place, beside: Beside) -> None:
    """Without HOME and XDG_STATE_HOME a paid run works, and what it leaves in its folder is the owner's alone."""
    night = Night(place, beside())
    env = {"PATH": os.environ["PATH"], "NEBULA_API_KEY": SANDBOX_KEY, "PYTHONPATH": str(ROOT)}
    script = "import os, pwd, sys; pwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid)); "
    script += "from batchgen.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", script, *night.arguments[len(COMMAND) :]]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=SOON_S, env=env, umask=0, cwd="/")
    assert ended.returncode == 0, ended.stderr
    assert {p.stat().st_mode & 0o777 for p in place.output.rglob("*")} == {0o600, 0o700}


# Row 69, 70, and 66 at full length: clocks that jump, on virtual time

MIDNIGHT_S = 12 * 3600.0
QUOTA = says(429, "Daily request quota exceeded", "quota_exceeded")


def clock_of(deliver: InstantDeliver) -> SimClock:
    return deliver._clock


def when(at_s: float, do: Callable[[SimClock], object]) -> Callable[[Pool, SimServer, InstantDeliver], Any]:
    """Beside the run: at this second, do something to its clock."""

    async def during(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        await asyncio.sleep(at_s)
        do(clock_of(deliver))

    return during


def step(clock: SimClock, seconds: float) -> None:
    clock.skew += timedelta(seconds=seconds)


@pytest.mark.parametrize("hours", [-24, -1, 1, 24], ids=lambda hours: f"row69-{hours:+d}h")
def test_row69_a_wall_clock_that_is_set_changes_nothing_while_work_goes_on(hours: int) -> None:
    """A step of the wall clock neither stops the run nor lets more requests a minute leave, and nothing spins."""
    world = World(jobs=200, requests_per_minute=30)
    night = world.run(during=when(100, lambda clock: step(clock, hours * 3600)))
    assert night.outcomes() == {"done": 200}
    assert most_in_window([a.at_s for a in night.arrivals], 60.0) <= 30
    assert night.lasted_s < 2 * 200 * 60 / 30
    assert night.turns < 100 * 200
    assert not night.crashes


@pytest.mark.parametrize("hours", [-24, -1, 24], ids=lambda hours: f"row69-{hours:+d}h")
def test_row69_a_wall_clock_that_is_set_while_the_day_is_spent(hours: int) -> None:
    """Waiting for the next day, a step back waits longer and a step on asks with at most C requests; no spinning."""
    world = World(between(100, MIDNIGHT_S, QUOTA), jobs=60, wait_for_quota=True)
    night = world.run(during=when(3600, lambda clock: step(clock, hours * 3600)))
    assert night.outcomes() == {"done": 60}
    early = [a for a in night.arrivals if 3600 < a.at_s < MIDNIGHT_S]
    assert len(early) <= (8 if hours > 0 else 0)
    assert night.turns < 5 * 24 * 3600 / 5, "waiting is not spinning"
    assert not night.crashes


def test_row69_the_29th_of_february_is_a_day() -> None:
    """The quota of 28 February 2028 opens again on the 29th."""
    begin = datetime(2028, 2, 28, 12, tzinfo=UTC)
    world = World(between(100, MIDNIGHT_S, QUOTA), jobs=60, wait_for_quota=True, begin=begin)
    night = world.run()
    assert night.outcomes() == {"done": 60}
    after = min(a.at_s for a in night.arrivals if a.at_s >= 1000)
    assert MIDNIGHT_S + 30 <= after <= MIDNIGHT_S + 400
    assert any(entry.attempts[-1].at.startswith("2028-02-29T00:0") for entry in night.entries.values())


def test_row70_a_suspended_machine_notices_the_new_day_within_a_minute() -> None:
    """When the wall clock jumps over midnight while the monotonic one stood still, work goes on within 60 s."""
    woken_s = 3600.0
    jump_s = MIDNIGHT_S - woken_s + 600
    world = World(between(100, woken_s, QUOTA), jobs=60, wait_for_quota=True)
    night = world.run(during=when(woken_s, lambda clock: step(clock, jump_s)))
    assert night.outcomes() == {"done": 60}
    first = min(a.at_s for a in night.arrivals if a.at_s > 200)
    assert woken_s <= first <= woken_s + 60


def test_row66_no_burst_after_ten_minutes_of_standstill() -> None:
    """After SIGSTOP for ten minutes and SIGCONT the requests that could not leave do not leave all at once."""
    world = World(Answer(after_s=1.0), jobs=200, requests_per_minute=60)

    async def during(pool: Pool, server: SimServer, deliver: InstantDeliver) -> None:
        await asyncio.sleep(60)
        loop: Any = asyncio.get_running_loop()
        loop.jump(600)

    night = world.run(during=during)
    assert night.outcomes()["done"] >= 199 - 8
    assert night.outcomes()["failed"] == 0
    assert most_in_window([a.at_s for a in night.arrivals], 60.0) <= 60
    assert night.exit_code in (ExitCode.OK, ExitCode.INCOMPLETE)
