"""The command line: what it says and where, its exit codes, and that no terminal, pipe or signal makes it lie."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from samples import entry, failed, job

import batchgen
from batchgen.cli import main
from batchgen.events import Finished, Left, Paced, Tried
from batchgen.folder import locked
from batchgen.model import ExitCode, Failure, Outcome
from batchgen.progress import LINE_EVERY_S, Progress

if TYPE_CHECKING:
    from conftest import Beside, Place

COMMAND = [sys.executable, "-m", "batchgen.cli"]
MODEL = "black-forest-labs/FLUX.1-schnell"
COMMANDS = ("run", "check", "status", "report", "show", "verify", "export", "sandbox", "init", "schema")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBULA_API_KEY", "sandbox-key")


def command(*arguments: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | settings
    return subprocess.run([*COMMAND, *map(str, arguments)], text=True, timeout=60, **streams)


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


# Help


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """The first page names every command, gives commands to try, says where the key belongs and what codes mean."""
    text = help_of(capsys)
    for name in COMMANDS:
        assert re.search(rf"^ +{name} +\w", text, re.MULTILINE), name
    assert "batchgen run jobs/demo.yaml --api sandbox" in text
    assert "NEBULA_API_KEY" in text
    codes = text.partition("exit codes:")[2]
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 129, 130, 143):
        assert re.search(rf"\b{code}\b", codes), code


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_says_what_it_does_and_what_each_option_is_for(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """No option stands there without a word about it."""
    text = help_of(capsys, name)
    about, _, options = text.partition("\noptions:\n")
    assert len(about.partition("\n\n")[2]) > 60
    entries = re.split(r"\n(?=  -)", "\n" + options)[1:]
    assert entries
    bare = [e for e in entries if len(re.sub(r"^  (-\S+(?: [A-Z{][^ ,]*)?(?:, )?)+", "", e).split()) < 2]
    assert bare == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_gives_an_example(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Behind usage and options there is a line that can be copied."""
    text = help_of(capsys, name)
    assert re.search(rf"^ *(?:\S+=\S+ )*batchgen {name} \S", text, re.MULTILINE)


def test_the_help_of_run_tells_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever writes a cron line looks at `batchgen run --help`."""
    assert "exit codes" in help_of(capsys, "run")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` says name and version."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"batchgen {batchgen.__version__}\n"


WRONG = {
    "nothing": ([], "COMMAND"),
    "unknown command": (["runn"], "runn"),
    "no manifest": (["run"], "MANIFEST"),
    "unknown option": (["run", "m.yaml", "--cheap"], "--cheap"),
    "shortened option": (["run", "m.yaml", "--verb"], "--verb"),
    "misspelt option": (["run", "m.yaml", "--shufle", "3"], "--shufle; did you mean --shuffle?"),
    "flag of another command": (["run", "m.yaml", "--diff"], "batchgen run: error: unknown argument --diff"),
    "short option": (["run", "m.yaml", "-k"], "unknown argument -k"),
    "second manifest": (["run", "m.yaml", "n.yaml"], "1 too many"),
    "key as argument": (["run", "m.yaml", "--api-key", "secret"], "--api-key"),
    "no number": (["run", "m.yaml", "--limit", "few"], "whole number"),
    "zero": (["run", "m.yaml", "--limit", "0"], "whole number"),
    "no time": (["run", "m.yaml", "--give-up-after", "soon"], "30m"),
    "negative time": (["run", "m.yaml", "--give-up-after", "-5"], "--give-up-after"),
    "no latency": (["sandbox", "--latency", "fast"], "0.5-2"),
    "unknown outcome": (["run", "m.yaml", "--retry", "done"], "failed"),
}


@pytest.mark.parametrize(("arguments", "told"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_named(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    """What cannot be understood ends with exit 2 and a message that names it."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert told in said.err and said.out == ""


# Exit codes, in process

CODES: dict[str, tuple[list[str], list[str], int, str]] = {
    "done": ([], [], 0, "3 jobs are done"),
    "one refused": (["refuse:x1"], [], 3, "without a picture for 1 of 3 jobs"),
    "quota": (["quota:x1"], [], 4, "run the same command again"),
    "budget": ([], ["--max-requests", "2"], 4, "--max-requests"),
    "wrong key": (["401:x1"], [], 6, "the account was refused"),
    "no balance": (["balance:x1"], [], 6, "Insufficient credits"),
    "moved": (["307:x1"], [], 2, "redirect"),
    "wrong model": (["404:x1"], [], 2, "not_found"),
}


@pytest.mark.parametrize(("faults", "flags", "code", "told"), CODES.values(), ids=CODES.keys())
def test_exit_codes_tell_the_truth(
    place: Place,
    beside: Beside,
    capsys: pytest.CaptureFixture[str],
    faults: list[str],
    flags: list[str],
    code: int,
    told: str,
) -> None:
    """Code, summary.json and the last words on standard error agree; standard output stays empty."""
    server = beside(*faults)
    arguments = ["run", str(place.jobs("a", "b", "c")), "--api", "nebula", "--api-url", server.url, *flags]
    assert main(arguments) == code
    said = capsys.readouterr()
    assert place.summary["exit_code"] == code
    assert place.summary["verdict"] in said.err and told in said.err
    assert said.out == ""


def test_mistakes_in_a_manifest_exit_2_with_places_and_a_count(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every mistake has a line of its own, the last line counts them, and nothing is made."""
    manifest = place.jobs("a", "a", {"id": "c"}, api="sandbox")
    assert main(["run", str(manifest)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"{manifest}:1:") for line in lines] == [True, True, False]
    assert lines[-1] == "batchgen: 2 problems in the manifest; nothing was sent"
    assert not (place.root / "outputs").exists()


def test_a_hundred_problems_are_shown_and_all_are_counted(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is wrong throughout does not fill the screen, but says how wrong it is."""
    manifest = place.write("m.csv", "prompt,model,seed\n" + "".join(f"one,flux,x{n}\n" for n in range(149)))
    assert main(["check", str(manifest)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 101
    shown = "100 are shown, at most 5 that say the same"
    assert lines[-1] == f"batchgen: 149 problems in the manifest ({shown}); nothing was sent"


def test_a_mistake_that_all_rows_share_hides_no_other(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A set of prompts for which nobody names a model says so a few times, and then what else is wrong."""
    manifest = place.write("m.csv", "prompt,seed\n" + "one,1\n" * 200 + "two,soon\n")
    assert main(["check", str(manifest), "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["count"] == 202
    assert [(p["line"], p["field"]) for p in said["problems"]] == [
        *((line, "model") for line in range(2, 7)),
        (202, "seed"),
    ]


def test_a_busy_folder_exits_5(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run on the same folder says who is there and touches nothing."""
    manifest = place.jobs("a", api="sandbox")
    main(["run", str(manifest), "--quiet"])
    before = tree(place.output)
    with locked(place.output):
        assert main(["run", str(manifest)]) == 5
    assert "is at work here; nothing was touched" in capsys.readouterr().err
    assert tree(place.output) == before


@pytest.mark.parametrize("path", [".", "images", ".batchgen"])
def test_an_output_that_is_no_folder_exits_7(place: Place, capsys: pytest.CaptureFixture[str], path: str) -> None:
    """A file in the place of a folder is a storage error with its name, not an error in batchgen."""
    place.write(f"outputs/m/{path}", "in the way")
    assert main(["run", str(place.jobs("a", api="sandbox"))]) == 7
    said = capsys.readouterr().err
    assert str(place.output) in said and "unexpected" not in said


def test_an_output_that_is_a_file_is_named_once(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was named as the output folder, relative to where the user is, is told as what it is."""
    manifest = place.jobs("a", api="sandbox")
    monkeypatch.chdir(place.root)
    assert main(["run", str(manifest), "-o", "m.yaml"]) == 7
    said = capsys.readouterr().err
    assert f"batchgen: {manifest}: File exists; a folder is needed there" in said and "-o" in said


def test_a_damaged_log_exits_2_with_its_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A log with a bad line in the middle is named, and stays as it is."""
    manifest = place.jobs("a", "b", api="sandbox")
    main(["run", str(manifest), "--quiet"])
    log = place.output / "log.jsonl"
    log.write_bytes(b"{" + log.read_bytes())
    damaged = log.read_bytes()
    assert main(["run", str(manifest)]) == 2
    assert "log.jsonl:1: this line is damaged" in capsys.readouterr().err
    assert log.read_bytes() == damaged


def test_an_unexpected_error_is_told_as_one(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in batchgen itself exits 1 and asks for a report; --verbose adds where it was."""

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("seven by zero")

    monkeypatch.setattr("batchgen.runner.session.open_manifest", broken)
    manifest = place.jobs("a", api="sandbox")
    assert main(["run", str(manifest)]) == 1
    short = capsys.readouterr().err
    assert "unexpected error: ZeroDivisionError: seven by zero" in short and "Traceback" not in short
    assert main(["run", str(manifest), "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


# What goes where


@pytest.mark.parametrize("name", ["run", "check", "status"])
def test_json_is_one_object_on_standard_output_and_nothing_else(
    place: Place, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """`--json` prints one line that is one object."""
    manifest = place.jobs("a", "b", api="sandbox")
    main(["run", str(manifest), "--quiet"])
    capsys.readouterr()
    assert main([name, str(manifest), "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["total"], found["v"]) == (2, 1)


def test_quiet_is_silent_on_success_and_only_then(
    place: Place, capsys: pytest.CaptureFixture[str], beside: Beside
) -> None:
    """A cron job that went well says nothing at all; one that needs somebody says what for."""
    manifest = place.jobs("a", "b", api="sandbox")
    for _ in range(2):
        assert main(["run", str(manifest), "--quiet"]) == 0
        assert capsys.readouterr() == ("", "")
    manifest = place.jobs("a", name="n.yaml")
    assert main(["run", str(manifest), "--quiet", "--api-url", beside("refuse").url]) == 3
    assert "without a picture for 1 of 1 jobs" in capsys.readouterr().err


def test_check_sends_nothing_and_makes_nothing(
    place: Place, capsys: pytest.CaptureFixture[str], beside: Beside
) -> None:
    """A check before the first run leaves no folder, a later one changes no file; it tells what a run would do."""
    server = beside()
    flags = ["--api", "nebula", "--api-url", server.url]
    assert main(["check", str(place.jobs("a", "b")), *flags]) == 0
    assert "2 to do" in capsys.readouterr().out
    assert sorted(p.name for p in place.root.iterdir()) == ["m.yaml"]
    main(["run", str(place.jobs("a", "b")), *flags, "--quiet"])
    sent, before = server.ledger.requests, tree(place.output)
    assert main(["check", str(place.jobs({"id": "a", "prompt": "new"}, "b", "c")), *flags]) == 0
    said = capsys.readouterr().out
    assert all(part in said for part in ("1 done", "1 changed", "1 to do", f"2 x {MODEL}"))
    assert server.ledger.requests == sent
    assert tree(place.output) == before


def test_check_counts_what_is_too_much_to_build(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A grid of ten million jobs is checked at once, with its cost; a mistake in it is one line."""
    axes = {name: [f"{name}{n}" for n in range(count)] for name, count in (("a", 100), ("b", 100), ("c", 1000))}
    row = {"id": "{a}/{b}/{c}", "prompt": "{a} {b} {c}", "matrix": axes}
    assert main(["check", str(place.jobs(row, "another", prices_usd={MODEL: 0.25})), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["total"], found["to_do"]) == (10_000_001, {MODEL: 10_000_001})
    assert found["estimate"]["money"]["cost_usd"] == 2_500_000.25
    assert 9_990_000 < found["counted"] < 10_000_000
    assert main(["check", str(place.jobs(row | {"width": "wide"}))]) == 2
    assert capsys.readouterr().err.count("width: expected a whole number") == 1


def test_check_needs_no_key(place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest may be checked by who has no key, with cost where prices are known."""
    monkeypatch.delenv("NEBULA_API_KEY")
    assert main(["check", str(place.jobs("a", "b", prices_usd={MODEL: 0.25}))]) == 0
    assert "$0.5000" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "output"), [("m\udcff.yaml", "out"), ("m.yaml", "out\udcff")])
def test_paths_that_are_no_text(place: Place, capsys: pytest.CaptureFixture[str], name: str, output: str) -> None:
    """A path that the log could not tell is refused before anything is made, and shown in a form that can be."""
    manifest = place.jobs("a", name=name, api="sandbox")
    assert main(["run", str(manifest), "-o", str(place.root / output)]) == 2
    assert "\\udcff" in capsys.readouterr().err
    assert [path.name for path in place.root.iterdir()] == [name]


def test_status_of_an_idle_folder(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, requests and the last verdict, by folder as by manifest; looking changes nothing."""
    manifest = place.jobs("a", "b", api="sandbox")
    main(["run", str(manifest), "--quiet", "--only", "a"])
    before = tree(place.output)
    capsys.readouterr()
    for path in (manifest, place.output):
        assert main(["status", str(path)]) == 0
        said = capsys.readouterr().out
        assert f"{place.output}: 1 of 2 jobs done" in said
        assert "pending    1" in said and "requests   1" in said and "last run   " in said
        assert "last heard" not in said
    assert tree(place.output) == before


def test_status_tells_pictures_that_are_gone(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture that somebody deleted is a pending job, and is told as one that was done."""
    manifest = str(place.jobs("a", "b", api="sandbox"))
    assert main(["run", manifest, "--quiet"]) == 0
    (place.output / "images/a.png").unlink()
    capsys.readouterr()
    assert main(["status", manifest]) == 0
    said = capsys.readouterr().out
    assert "1 of 2 jobs done" in said and "missing    1 were done" in said and "batchgen verify" in said


def test_status_after_a_crash(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that was killed is not said to be at work: nobody holds the folder's lock."""
    manifest = place.jobs("a", api="sandbox")
    main(["run", str(manifest), "--quiet"])
    state = place.output / ".batchgen/state.json"
    state.write_text(json.dumps(json.loads(state.read_bytes()) | {"pid": 4_000_000, "doing": "working"}))
    assert main(["status", str(place.output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["running"] is False


@pytest.mark.parametrize(
    "damage",
    [b'{"run": "\xff"}', b'{"manifest": "m.yaml", "pid": 1%030d}' % 0, b'{"x":' + b"[" * 99_999],
    ids=["not UTF-8", "a process that cannot be", "deep"],
)
def test_status_where_small_files_are_damaged(place: Place, capsys: pytest.CaptureFixture[str], damage: bytes) -> None:
    """Neither a state nor a summary that cannot be read keeps anybody from hearing what the log says."""
    main(["run", str(place.jobs("a", api="sandbox")), "--quiet"])
    for name in (".batchgen/state.json", "summary.json"):
        (place.output / name).write_bytes(damage)
    assert main(["status", str(place.output)]) == 0
    assert "1 jobs done" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["for people", "json"])
def test_watching_a_run_that_has_ended(place: Place, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    """Nothing is waited for: one line, and the exit code of the run."""
    manifest = place.jobs("a", "b", api="sandbox")
    assert main(["run", str(manifest), "--quiet", "--max-requests", "1"]) == 4
    capsys.readouterr()
    assert main(["status", str(manifest), "--watch", *flags]) == 4
    [line] = capsys.readouterr().out.splitlines()
    assert "1 of 2 jobs are left" in line and line.startswith("{" if flags else "1 of 2 done; ")


def test_a_terminal_is_drawn_over_while_a_run_is_watched(place: Place, beside: Beside) -> None:
    """On a terminal the whole status stands where it stood, until the run ends; its code is the watcher's."""
    server = beside(latency_s=1.0)
    ledger: Any = server.ledger
    arguments = ["run", str(place.jobs("a", "b")), "--api", "sandbox", "--api-url", server.url, "-c", "1", "--quiet"]
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    with subprocess.Popen([*COMMAND, *arguments]) as run:
        assert ledger.begun.wait(60)
        watching = subprocess.run([*COMMAND, "status", str(place.output), "--watch"], stdout=terminal, timeout=60)
    os.close(terminal)
    seen = os.read(screen, 1 << 16)
    os.close(screen)
    assert (run.returncode, watching.returncode) == (0, 0)
    assert b"this run" in seen and b"F\x1b[J" in seen and b"2 of 2 jobs are done" in seen.rpartition(b"\x1b[J")[2]


def test_status_where_the_manifest_has_mistakes(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """What is done is told also while somebody edits the manifest, and what is wrong with it."""
    manifest = place.jobs("a", api="sandbox")
    main(["run", str(manifest), "--quiet"])
    place.jobs("a", "a", api="sandbox")
    assert main(["status", str(place.output)]) == 0
    said = capsys.readouterr().out
    assert "1 jobs done" in said and "1 problem in the manifest" in said


def test_status_where_nothing_was_done(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first run there is no status, and the message says how to begin."""
    manifest = place.jobs("a")
    assert main(["status", str(manifest)]) == 2
    assert f"no run has been here yet; start one with: batchgen run {manifest}\n" in capsys.readouterr().err
    assert not (place.root / "outputs").exists()


@pytest.mark.parametrize("beside", ["outputs", "outputs/m/images", "outputs/m/log.jsonl"])
def test_status_beside_an_output_folder(place: Place, capsys: pytest.CaptureFixture[str], beside: str) -> None:
    """Whoever names the folder of all outputs, or something within one, is told the folder that was meant."""
    main(["run", str(place.jobs("a", api="sandbox")), "--quiet"])
    assert main(["status", str(place.root / beside)]) == 2
    assert f"{beside}: no run has been here, but in {place.output}\n" in capsys.readouterr().err


def test_status_without_its_manifest(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the manifest has gone the log still tells what is done."""
    manifest = place.jobs("a", "b", api="sandbox")
    main(["run", str(manifest), "--quiet"])
    manifest.unlink()
    assert main(["status", str(place.output)]) == 0
    said = capsys.readouterr().out
    assert "2 jobs done" in said and f"not at {manifest}; pending jobs cannot be counted" in said


def test_status_of_a_run_whose_defaults_were_flags(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A manifest that needs `-D model=` to be run has a status all the same."""
    manifest = place.write("m.txt", "one\ntwo\n")
    flags = ["-D", f"model={MODEL}", "-D", "width=16", "-D", "height=16"]
    assert main(["run", str(manifest), "--api", "sandbox", "--quiet", *flags]) == 0
    assert main(["status", str(place.output)]) == 0
    assert "2 of 2 jobs done" in capsys.readouterr().out


# In a process of its own: streams, places, terminals


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    """`batchgen --help` must be quick: HTTP, YAML, pictures, bars and codecs are imported inside the commands."""
    code = "import sys, batchgen.cli; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"aiohttp", "yaml", "PIL", "tqdm", "msgspec", "tenacity", "asyncio"} & set(found) == set()


def broken_pipe() -> int:
    """The writing end of a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def nowhere() -> int:
    return os.open(os.devnull, os.O_RDWR)


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (nowhere, broken_pipe),
        (nowhere, full),
        (broken_pipe, broken_pipe),
        (full, nowhere),
    ],
    ids=["no reader of stderr", "stderr full", "no reader at all", "stdout full"],
)
def test_no_stream_stops_a_run(place: Place, out: Callable[[], int], error: Callable[[], int]) -> None:
    """A reader that has gone, or a full disk under a redirection, changes neither pictures nor exit code."""
    streams = {"stdout": out(), "stderr": error()}
    try:
        ended = command("run", place.jobs("a", "b", api="sandbox"), "--json", "--verbose", **streams)
    finally:
        for stream in streams.values():
            os.close(stream)
    assert place.files() == {"a.png", "b.png"}
    assert place.summary["exit_code"] == ended.returncode == 0


@pytest.mark.parametrize(
    ("out", "code"), [(full, ExitCode.STORAGE), (broken_pipe, ExitCode.OK)], ids=["full", "no reader"]
)
def test_what_was_asked_for_is_not_lost_in_silence(out: Callable[[], int], code: ExitCode) -> None:
    """`batchgen schema > FILE` on a full disk fails and says so; a reader who has seen enough is no failure."""
    stdout = out()
    ended = command("schema", stdout=stdout)
    os.close(stdout)
    assert ended.returncode == code
    assert ("standard output cannot be written" in ended.stderr) == (code is ExitCode.STORAGE)


def test_a_reader_that_has_gone_does_not_turn_failure_into_success(place: Place, beside: Beside) -> None:
    """`batchgen run --json | head -0` of a run with failed jobs still exits 3."""
    stdout = broken_pipe()
    manifest = place.jobs("a")
    ended = command("run", manifest, "--json", "--api-url", beside("refuse").url, stdout=stdout)
    os.close(stdout)
    assert place.summary["exit_code"] == 3
    assert ended.returncode == 3


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_stop_no_run(place: Place, closed: str) -> None:
    """A daemon's closed descriptors change neither pictures nor exit code, and no file takes their place as output."""
    script = f'exec "$@" {closed}'
    manifest = place.jobs("a", "b", api="sandbox")
    ended = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "run", str(manifest), "--json"], capture_output=True, timeout=60
    )
    assert ended.returncode == 0
    assert place.files() == {"a.png", "b.png"}
    assert len(place.log) == 2
    assert (place.output / ".batchgen/lock").read_bytes() == b""


def test_without_standard_error_standard_output_stays_clean(place: Place) -> None:
    """With `2>&-` what is for people goes nowhere, not between the JSON."""
    script = 'exec "$@" 2>&-'
    arguments = ["run", str(place.jobs("a", api="sandbox")), "--json"]
    ended = subprocess.run(["sh", "-c", script, "sh", *COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    assert json.loads(ended.stdout)["done"] == 1


@pytest.mark.parametrize("name", ["check", "status"])
def test_looking_into_a_pipe_that_was_closed_is_no_error(place: Place, name: str) -> None:
    """`batchgen check m.yaml | head -1` says nothing about broken pipes."""
    manifest = place.jobs("a", api="sandbox")
    main(["run", str(manifest), "--quiet"])
    stdout = broken_pipe()
    ended = command(name, manifest, stdout=stdout)
    os.close(stdout)
    assert "Traceback" not in ended.stderr and "unexpected" not in ended.stderr


def test_the_first_line_is_enough(place: Place) -> None:
    """A run whose JSON is read by `head -1` ends well."""
    script = '"$@" --json | head -1'
    arguments = [*COMMAND, "run", str(place.jobs("a", api="sandbox"))]
    ended = subprocess.run(["sh", "-c", script, "sh", *arguments], capture_output=True, text=True, timeout=60)
    assert json.loads(ended.stdout)["done"] == 1


def test_an_empty_environment_and_foreign_letters(place: Place) -> None:
    """env -i with LANG=C, no HOME, the root as current folder, umask 000 and ids beyond ASCII: pictures, mode 0600."""
    manifest = place.jobs("schön/日本", "Ünï-кот", api="sandbox")
    env = {"PATH": "/usr/bin:/bin", "LANG": "C", "XDG_STATE_HOME": str(place.root / "state")}
    ended = command("run", manifest, "--json", "--verbose", env=env, cwd="/", umask=0)
    assert ended.returncode == 0, ended.stderr
    assert place.files() == {"schön/日本.png", "Ünï-кот.png"}
    assert json.loads(ended.stdout)["output"] == str(place.output)
    modes = {p.stat().st_mode & 0o777 for p in [place.output, *place.output.rglob("*")]}
    assert modes == {0o600, 0o700}
    assert command("status", place.output, env=env, cwd="/").returncode == 0


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["for people", "json"])
def test_an_output_that_cannot_show_every_letter_still_says_what_it_can(place: Place, flags: list[str]) -> None:
    """Where the terminal or pipe knows only ASCII, other letters are escaped; what was asked for is not lost."""
    manifest = place.jobs("a", name="prüfen/m.yaml", defaults={"model": "flüx"}, api="sandbox")
    ended = command("check", manifest, *flags, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 0
    assert "1" in ended.stdout


def test_without_a_terminal_nothing_controls_one(place: Place, beside: Beside) -> None:
    """Redirected output holds plain lines: no bar, no carriage return, no escape."""
    url = beside("refuse:x1").url
    ended = command("run", place.jobs(*"abcdef"), "--api-url", url, "--verbose", "-c", "1")
    assert ended.returncode == 3
    assert re.findall(r"[^\n\x20-\x7e]", ended.stderr + ended.stdout) == []
    assert "it/s" not in ended.stderr and "job/s" not in ended.stderr


def test_on_a_terminal_there_is_a_bar(place: Place) -> None:
    """A person at a terminal sees how far it is, and the summary below."""
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    arguments = [*COMMAND, "run", str(place.jobs("a", "b", "c", api="sandbox"))]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        seen = b""
        while True:
            try:
                piece = os.read(screen, 4096)
            except OSError:  # how a terminal says that its last user has gone
                break
            if not piece:
                break
            seen += piece
        os.close(screen)
    assert process.returncode == 0
    assert b"\r" in seen and b"3/3" in seen
    assert b"3 jobs are done" in seen.rpartition(b"3/3")[2]


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_drains_and_the_same_command_goes_on(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """What is in flight is finished and kept, nothing new is sent, the code names the signal, and a rerun completes
    without buying anything twice."""
    server = beside.held()
    ledger: Any = server.ledger
    arguments = ["run", str(place.jobs(*"abcdefgh")), "--api", "nebula", "--api-url", server.url]
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert ledger.begun.wait(60)
        if number is signal.SIGTERM:
            assert main(["status", str(place.output)]) == 0
            assert "last heard of" in capsys.readouterr().out
        process.send_signal(number)
        server.let_go()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number == place.summary["exit_code"]
    assert f"{number.name}: no new requests" in said and f"ended by {number.name}" in said
    made = place.summary["done"]
    assert 1 <= made == ledger.pictures == len(place.log) < 8
    assert place.summary["pending"] == 8 - made and place.summary["in_doubt"] == 0
    if number is signal.SIGTERM:
        assert main([*arguments, "--quiet"]) == 0
        assert (ledger.pictures, ledger.bought_again, len(place.files())) == (8, 0, 8)


def test_a_hangup_that_is_ignored_stays_ignored(place: Place, beside: Beside) -> None:
    """Under nohup a run outlives its terminal."""
    server = beside(latency_s=0.1)
    ledger: Any = server.ledger
    arguments = [*COMMAND, "run", str(place.jobs(*"abcd")), "--api-url", server.url]
    script = "trap '' HUP; exec \"$@\""
    with subprocess.Popen(["sh", "-c", script, "sh", *arguments], stderr=subprocess.DEVNULL) as process:
        assert ledger.begun.wait(60)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert len(place.files()) == 4


# The sandbox command


def test_the_sandbox_serves_until_it_is_told_to_stop(place: Place) -> None:
    """It says its address, sells pictures with the faults that were asked for, and ends with 0."""
    arguments = ["sandbox", "--port", "0", "--latency", "0", "--fail", "refuse:x1", "--format", "webp"]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        name, _, url = process.stdout.readline().strip().partition("=")
        assert name == "NEBULA_API_URL"
        assert main(["run", str(place.jobs("a", "b")), "--api-url", url, "-c", "1", "--quiet"]) == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert place.files() == {"b.webp"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fail", "tired:0.5"], "unknown fault 'tired'"),
        (["--fail", "503:2"], "probability"),
        (["--latency", "2-1"], "latency"),
        (["--port", "70000"], "70000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_sandbox_that_cannot_be_says_why(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    """A senseless script or port is a usage error."""
    assert main(["sandbox", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_port_that_is_taken_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Two sandboxes cannot share a port, and the second says which."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["sandbox", "--port", str(port)]) == 2
    assert f"port {port} cannot be used" in capsys.readouterr().err


# How a run looks


class Ticking:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def utc(self) -> Any:
        raise AssertionError("progress needs no date")


def test_a_plain_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """Elsewhere than on a terminal a line a minute says how far it is, how fast, and how long it will take."""
    clock = Ticking()
    progress, silent = (Progress(10, clock, quiet=quiet, verbose=False) for quiet in (False, True))
    for second in range(1, 121):
        clock.now_s = second
        if second % 30 == 0:
            progress(Finished(entry()))
        progress.tick()
        silent.tick()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 120 // LINE_EVERY_S
    assert lines[0] == "2 of 10 ended, 0 in flight, 2.0 a minute, about 4 min 00 s left"
    progress.close()


@pytest.mark.parametrize(
    ("quiet", "verbose", "said"),
    [
        (True, False, []),
        (False, False, ["loud", "failed"]),
        (False, True, ["loud", "routine", "try", "left", "failed"]),
    ],
    ids=["quiet", "normal", "verbose"],
)
def test_how_much_is_said(capsys: pytest.CaptureFixture[str], quiet: bool, verbose: bool, said: list[str]) -> None:
    """Quiet says nothing, normal what needs attention, verbose every failed attempt."""
    progress = Progress(3, Ticking(), quiet=quiet, verbose=verbose)
    bad = failed(Failure.BAD_REQUEST)
    progress(Paced("loud"))
    progress(Paced("routine", routine=True))
    progress(Tried(job("tried"), bad, None))
    progress(Left(job("left"), Failure.GATEWAY, "bad gateway"))
    progress(Finished(entry(job="failed", outcome=Outcome.FAILED, attempts=(bad,), images=())))
    lines = capsys.readouterr().err.splitlines()
    starts = {
        "try": "tried: attempt 1: bad_request",
        "left": "left: left for another run",
        "failed": "failed: failed (",
    }
    assert len(lines) == len(said)
    for line, name in zip(lines, said, strict=True):
        assert line.startswith(starts.get(name, name))
