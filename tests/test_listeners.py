"""Who hears of a run beside its user: at its end, at its refusal, at a signal; and what of it may be seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as families
from test_ping import TOKEN, Switch, switch

import batchgen
from batchgen.cli import main
from batchgen.folder import locked
from batchgen.model import UsageError
from batchgen.telling import Telling

if TYPE_CHECKING:
    from conftest import Beside, Place

__all__ = ["switch"]


def values(path: Path) -> dict[str, float]:
    return {s.name + s.labels.get("state", ""): s.value for f in families(path.read_text()) for s in f.samples}


# Pings


def test_a_run_pings_and_nothing_keeps_the_address(
    place: Place, switch: type[Switch], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The environment names the URL, the end carries the summary, and no file and no message holds the token."""
    server = switch()
    monkeypatch.setenv("BATCHGEN_PING", server.url)
    assert main(["run", str(place.jobs("a", "b", api="sandbox")), "--verbose"]) == 0
    assert server.steps == ["start", "0"]
    assert len({rid for _, _, rid, _ in server.heard}) == 1
    assert server.heard[1][3].startswith(b"2 of 2 jobs are done\n")
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
    assert not [path for path in place.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


REFUSALS = {
    "a mistake in the manifest": (["--only", "zebra"], {}, 2, "none of the 2 jobs"),
    "a limit that is none": (["-c", "many"], {}, 2, "concurrency"),
    "no key": (["--api", "nebula"], {}, 2, "there is no API key"),
    "no manifest": ([], {"name": "gone.yaml"}, 2, "cannot be read"),
}


@pytest.mark.parametrize(("flags", "where", "code", "told"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_run_that_cannot_begin_is_told(
    place: Place, switch: type[Switch], flags: list[str], where: dict[str, str], code: int, told: str
) -> None:
    """A dead man's switch hears of a refusal, and why."""
    server = switch()
    manifest = place.jobs("a", "b", api="sandbox").with_name(where.get("name", "m.yaml"))
    assert main(["run", str(manifest), "--ping", server.url, *flags]) == code
    assert server.steps == ["start", str(code)] and told in server.heard[1][3].decode()


def test_a_busy_folder_is_told_and_leaves_the_metrics_to_the_run_that_is_there(
    place: Place, switch: type[Switch]
) -> None:
    """Exit code 5 is pinged; the metrics file belongs to the run at work."""
    server, file = switch(), place.root / "m.prom"
    arguments = ["run", str(place.jobs("a", api="sandbox")), "--quiet", "--metrics-file", str(file)]
    main(arguments)
    before = file.read_bytes()
    with locked(place.output):
        assert main([*arguments, "--ping", server.url]) == 5
    assert server.steps == ["start", "5"] and file.read_bytes() == before


def test_a_refused_account_is_told(place: Place, switch: type[Switch], beside: Beside) -> None:
    """A wrong key is a night that did not happen."""
    server, wrong = switch(), beside("401:x1")
    arguments = ["run", str(place.jobs("a", "b", api="sandbox")), "--api-url", wrong.url, "--quiet"]
    assert main([*arguments, "--ping", server.url]) == 6
    assert server.steps == ["start", "6"]


@pytest.mark.parametrize("draining", [True, False], ids=["at work", "before anything was sent"])
def test_a_signal_is_told(place: Place, switch: type[Switch], beside: Beside, draining: bool) -> None:
    """SIGTERM ends the run, not the telling: exit code 143 reaches the switch, in words too."""
    server, api = switch(), beside(latency_s=0.3)
    ledger: Any = api.ledger
    manifest = place.jobs(*"abcdef") if draining else Path("-")
    flags = [] if draining else ["--format", "jsonl", "-o", str(place.root / "out")]
    command = [sys.executable, "-m", "batchgen.cli", "run", str(manifest), "--api", "sandbox", *flags]
    env = os.environ | {"BATCHGEN_PING": server.url, "BATCHGEN_API_URL": api.url}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if draining:
            assert ledger.begun.wait(60)
        else:
            heard = threading.Event()
            while not server.heard and process.poll() is None:
                heard.wait(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert server.steps == ["start", "143"]
    assert ("ended by SIGTERM" if draining else "by a signal") in server.heard[1][3].decode()


def test_a_failed_ping_changes_nothing(place: Place, switch: type[Switch], capsys: pytest.CaptureFixture[str]) -> None:
    """The run ends as it would have; a wrong address is said even by `--quiet`, for nobody else would know."""
    server = switch(404, 404)
    assert main(["run", str(place.jobs("a", api="sandbox")), "--ping", server.url, "--quiet"]) == 0
    assert "the ping (0) was not taken: HTTP 404" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["", "ftp://h/x", f"https://user@h/{TOKEN}", f"//{TOKEN}", f"https://h/{TOKEN}#x", f"https://h:x/{TOKEN}"]
)
def test_an_address_that_cannot_be_is_refused_unseen(
    place: Place, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    """What is no URL is a usage error that does not show it."""
    assert main(["run", str(place.jobs("a", api="sandbox")), f"--ping={url}"]) == 2
    said = capsys.readouterr().err
    assert "--ping" in said and TOKEN not in said


def test_settings_do_not_show_the_address() -> None:
    """Whoever prints what a run was told prints no token."""
    assert TOKEN not in repr(Telling.of("m.yaml", {"BATCHGEN_PING": f"https://h/{TOKEN}"}))


async def test_python_programs_ping_too(place: Place, switch: type[Switch]) -> None:
    """`batchgen.run_async(..., ping=, metrics_file=, stamp=)` does the same."""
    server = switch()
    numbers, stamp = place.root / "m.prom", place.root / "m.stamp"
    await batchgen.run_async(place.jobs("a", api="sandbox"), ping=server.url, metrics_file=numbers, stamp=stamp)
    assert server.steps == ["start", "0"]
    assert values(numbers)["batchgen_jobsdone"] == 1 and stamp.exists()
    with pytest.raises(UsageError):
        await batchgen.run_async(place.jobs("a", api="sandbox"), ping=server.url, only="zebra")
    assert server.steps[2:] == ["start", "2"]


# Metrics


def test_metrics_of_a_run_and_of_a_refusal(place: Place) -> None:
    """The file is whole, readable by others, alone in its folder; a refusal changes the code and keeps the rest."""
    folder = place.root / "prom"
    folder.mkdir()
    arguments = ["run", str(place.jobs("a", "b", api="sandbox")), "--quiet", "--metrics-file", str(folder / "m.prom")]
    assert main(arguments) == 0
    found = values(folder / "m.prom")
    assert (found["batchgen_jobsdone"], found["batchgen_last_exit_code"], found["batchgen_running"]) == (2, 0, 0)
    assert main([*arguments, "--only", "zebra"]) == 2
    again = values(folder / "m.prom")
    assert (again["batchgen_jobsdone"], again["batchgen_last_exit_code"]) == (2, 2)
    assert again["batchgen_last_success_timestamp_seconds"] == found["batchgen_last_success_timestamp_seconds"]
    assert [path.name for path in folder.iterdir()] == ["m.prom"]
    assert (folder / "m.prom").stat().st_mode & 0o044 == 0o044 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_metrics_while_a_run_is_at_work(place: Place, beside: Beside) -> None:
    """With the first heartbeat the file says that a run is at work, and how many jobs are left."""
    server, file = beside(), place.root / "m.prom"
    seen: list[dict[str, float]] = []
    ledger: Any = server.ledger

    def look(number: int) -> None:
        for _ in range(500):
            if file.exists():
                break
            threading.Event().wait(0.01)
        seen.append(values(file))

    ledger.on_request = look
    flags = ["--api", "sandbox", "--api-url", server.url, "--quiet", "--metrics-file", str(file)]
    assert main(["run", str(place.jobs("a", "b")), *flags]) == 0
    assert seen[0]["batchgen_running"] == 1 and seen[0]["batchgen_jobspending"] == 2
    assert "batchgen_last_exit_code" not in seen[0]


@pytest.mark.parametrize("flag", ["--metrics-file", "--stamp"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_sent(
    place: Place, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    """A folder that is not there is a usage error: for a stamp none is made, it could change where pictures go."""
    manifest = place.jobs("a", api="sandbox")
    assert main(["run", str(manifest), flag, str(place.root / "none" / "x")]) == 2
    assert main(["run", str(manifest), flag, str(place.root)]) == 2
    said = capsys.readouterr().err
    assert f"{flag} {place.root}/none/x: there is no folder" in said and "this is no file" in said
    assert sorted(path.name for path in place.root.iterdir()) == ["m.yaml"]


def test_metrics_that_cannot_be_written_are_only_noted(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures are worth more than their numbers."""
    file = place.root / "m.prom"
    file.write_bytes(b"\xff")
    assert main(["run", str(place.jobs("a", api="sandbox")), "--metrics-file", str(file)]) == 0
    assert f"note: --metrics-file {file}" in capsys.readouterr().err


# The stamp


def age(path: Path, by_s: float) -> int:
    """Make a file older; its time in nanoseconds."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - int(by_s * 1e9)))
    return path.stat().st_mtime_ns


def test_the_stamp_moves_when_something_was_made_and_only_then(place: Place) -> None:
    """Written when all is done, left alone when nothing was to do, renewed when a job was added."""
    stamp = place.root / "m.stamp"

    def run(*jobs: str) -> int:
        return main(["run", str(place.jobs(*jobs, api="sandbox")), "--quiet", "--stamp", str(stamp)])

    assert run("a") == 0
    age(place.output / "log.jsonl", 100)
    old = age(stamp, 50)
    assert run("a") == 0 and stamp.stat().st_mtime_ns == old
    assert run("a", "b") == 0 and stamp.stat().st_mtime_ns > old


def test_a_stamp_is_renewed_for_what_was_made_without_it(place: Place) -> None:
    """A run without `--stamp`, or one that died before its end, leaves work that make has not seen."""
    stamp, manifest = place.root / "m.stamp", str(place.jobs("a", api="sandbox"))
    stamp.write_text("")
    old = age(stamp, 50)
    assert main(["run", manifest, "--quiet"]) == 0 and stamp.stat().st_mtime_ns == old
    assert main(["run", manifest, "--quiet", "--stamp", str(stamp)]) == 0 and stamp.stat().st_mtime_ns > old


@pytest.mark.parametrize("flags", [["--only", "a"], ["--limit", "1"], ["--only", "c", "--api", "nebula"]])
def test_no_stamp_before_every_job_is_done(place: Place, flags: list[str]) -> None:
    """Neither a part of the jobs, however well it went, nor a refusal makes one."""
    stamp = place.root / "m.stamp"
    main(["run", str(place.jobs("a", "b", "c", api="sandbox")), "--quiet", "--stamp", str(stamp), *flags])
    assert not stamp.exists()


def test_no_stamp_where_a_job_failed(place: Place, beside: Beside) -> None:
    """A stamp says that every picture is there; an old one stays as old as it is."""
    stamp, server = place.root / "m.stamp", beside("refuse:x1")
    stamp.write_text("old")
    flags = ["--api", "sandbox", "--api-url", server.url, "--quiet", "--stamp", str(stamp)]
    assert main(["run", str(place.jobs("a", "b")), *flags]) == 3
    assert stamp.read_text() == "old"


# What a refusal leaves behind


def test_a_refusal_leaves_the_summary_and_tells_the_state(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """`summary.json` stays that of the run that it names; `status` tells how the later one ended."""
    manifest = str(place.jobs("a", "b", api="sandbox"))
    main(["run", manifest, "--quiet"])
    before = (place.output / "summary.json").read_bytes()
    assert main(["run", manifest, "--only", "zebra"]) == 2
    assert (place.output / "summary.json").read_bytes() == before
    capsys.readouterr()
    assert main(["status", manifest, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["last_exit_code"] == 2 and "none of the 2 jobs" in found["last_verdict"]
    assert found["run_state"] == "ended" and found["run"] != json.loads(before)["run"]
