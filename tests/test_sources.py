"""Manifests on disk and from standard input: files named by `from`, edits during a run, notes, and what is said."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conftest import MODEL

import batchgen
from batchgen import sources
from batchgen.cli import main
from batchgen.manifest import Row
from batchgen.model import ManifestChanged, Problem, StorageError, UsageError
from batchgen.sources import open_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Place

GENERAL = ("--api", "sandbox", "-D", f"model={MODEL}", "-D", "width=16", "-D", "height=16")


class FakeInput:
    """Standard input with these bytes."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts bytes on standard input."""

    def put(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", FakeInput(data))

    return put


def prompts(path: Path, **settings: Any) -> list[str]:
    """The prompts of a manifest."""
    jobs = batchgen.read(path, **{"api": "sandbox", "defaults": {"model": MODEL}} | settings)
    return [job.prompt for job in jobs]


# --- files named by `from`


def test_a_manifest_of_files_is_run_to_the_end(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A YAML manifest that gathers a table, batch lines and a text is made whole, once, from wherever it is started."""
    place.write("sets/p.csv", 'sep=;\r\nPrompts;Category\r\n"a; fox";animals\r\n')
    place.write("sets/b.jsonl", json.dumps({"custom_id": "r/1", "body": {"prompt": "a cat", "size": "32x16"}}))
    place.write("sets/t.txt", "a dog\r\na dog")
    manifest = place.write("m.yaml", f"""
defaults: {{model: {MODEL}, width: 16, height: 16}}
jobs:
  - from: sets/p.csv
    meta: {{night: 1}}
  - from: sets/b.jsonl
  - {{from: sets/t.txt, seed: 3, repeat: 1}}
  - a bird
""")  # fmt: skip
    assert main(["run", str(manifest), "--api", "sandbox"]) == 0
    said = capsys.readouterr().err
    assert f"note: {place.root}/sets/p.csv: the column 'Prompts' is taken for the prompt" in said
    done = {entry["request"]["prompt"]: entry for entry in place.log}
    assert done["a; fox"]["meta"] == {"Category": "animals", "night": 1}
    assert (done["a cat"]["job"], done["a cat"]["request"]["width"]) == ("r/1", 32)
    places = sorted((entry.get("file", "m.yaml"), entry["line"]) for entry in place.log)
    assert places == [("m.yaml", 8), ("sets/b.jsonl", 1), ("sets/p.csv", 3), ("sets/t.txt", 1), ("sets/t.txt", 2)]
    assert len(place.log) == 5 and len(place.files()) == 5
    assert "is taken for the prompt" in place.summary["notices"][0]
    assert main(["run", str(manifest), "--api", "sandbox"]) == 0
    assert place.summary["requests"] == 0


def test_check_says_what_was_guessed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` tells a guessed column to people and programs alike."""
    manifest = place.write("p.tsv", 'Prompts\tCategory\n"GO" in neon\tsigns\n')
    note = f"{manifest}: the column 'Prompts' is taken for the prompt"
    assert main(["check", str(manifest), *GENERAL]) == 0
    assert f"  note       {note}\n" in capsys.readouterr().out
    assert main(["check", str(manifest), *GENERAL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notices"] == [note]


def test_problems_of_all_files_are_told_at_once(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file's mistakes are told under its own name, those of the manifest under the manifest's."""
    place.write("p.csv", "prompt,width\na,wide\n")
    place.write("o.json", '[\n{"prompt": "x", "num_step": 1}]')
    (place.root / "folder.csv").mkdir()
    manifest = place.write("m.yaml", "- {from: p.csv}\n- {from: o.json}\n- {from: gone.csv}\n- {from: folder.csv}\n")
    assert main(["check", str(manifest), *GENERAL]) == 2
    said = capsys.readouterr().err
    root = place.root
    assert f"{root}/p.csv:2:3: width: expected" in said
    assert f"{root}/o.json:2:29: key 'num_step' looks like the field 'num_steps'" in said
    assert f"{root}/m.yaml:3:10: from: {root}/gone.csv cannot be read: there is no such file" in said
    assert f"{root}/m.yaml:4:10: from: {root}/folder.csv cannot be read: this is no file" in said
    assert "4 problems" in said


def test_pictures_of_a_files_rows_are_relative_to_the_manifest(place: Place) -> None:
    """A path in a file of another folder is looked for beside the manifest."""
    place.write("sets/p.csv", "prompt,image\na,inputs/x.png\n")
    manifest = place.write("m.yaml", "- {from: sets/p.csv}\n")
    with pytest.raises(batchgen.ManifestError, match=rf"looked for {place.root}/inputs/x\.png"):
        prompts(manifest)


def test_a_file_that_changes_between_two_walks_is_noticed(place: Place) -> None:
    """What was checked is what is made: an edited, replaced or missing file stops the walk and says which."""
    part = place.write("p.csv", "prompt\na\nb\n")
    source = open_manifest(place.write("m.yaml", "- first\n- {from: p.csv}\n"))
    source.header()
    assert len(list(source.rows())) == 3
    source.check_unchanged()
    part.write_text("prompt\na\nb\nc\n")
    with pytest.raises(ManifestChanged, match=r"p\.csv was edited"):
        source.check_unchanged()
    with pytest.raises(ManifestChanged, match=r"p\.csv was edited"):
        list(source.rows())
    part.unlink()
    with pytest.raises(ManifestChanged):
        source.check_unchanged()


def test_a_file_that_changes_while_it_is_read_is_noticed(place: Place) -> None:
    """An edit in the middle of the very first walk ends it."""
    part = place.write("p.csv", "prompt\na\nb\n")
    source = open_manifest(place.write("m.yaml", "- {from: p.csv}\n"))
    source.header()
    rows = source.rows()
    assert isinstance(next(rows), Row)
    os.utime(part, (1, 1))
    with pytest.raises(ManifestChanged):
        list(rows)


def test_a_file_named_twice_is_read_twice(place: Place) -> None:
    """One list of prompts may be drawn by two models; the ids tell the two apart, whatever their order."""
    place.write("p.txt", "a\nb\n")
    one, two = "- {from: p.txt, model: x/one}\n", "- {from: p.txt, model: x/two}\n"
    ids = []
    for text in (one + two, two + one):
        jobs = list(batchgen.read(place.write("m.yaml", text), api="sandbox"))
        assert len(jobs) == 4
        ids.append({(job.model, job.prompt): job.id for job in jobs})
    assert ids[0] == ids[1]


def test_notes_do_not_grow_with_the_file(place: Place) -> None:
    """A file with an unknown option in every line is told of in a few notes."""
    source = open_manifest(place.write("p.txt", "".join(f"--prompt x --option{n} 1\n" for n in range(100))))
    source.header()
    assert len(list(source.rows())) == 100
    assert len(source.notices) == sources.MAX_NOTICES
    assert len(list(source.rows())) == 100
    assert len(source.notices) == sources.MAX_NOTICES


# --- standard input


def test_standard_input_is_a_manifest(place: Place, say: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """`-` is run and checked like a file, walked as often as it takes, and resumed by the same command."""
    output = place.root / "outputs" / "m"
    for made in (2, 0):
        say(b"a fox\r\na cat")
        assert main(["run", "-", "--format", "txt", "-o", str(output), *GENERAL]) == 0
        assert place.summary["made"] == made
    say(b"a fox\na dog\n")
    assert main(["check", "-", "--format", "txt", "-o", str(output), *GENERAL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["standings"] == {"done": 1, "pending": 1}
    assert {entry["manifest"] for entry in place.log} == {"-"}


def test_problems_of_standard_input_have_a_name(place: Place, say: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in what was piped in is told with its line and column."""
    say(b"prompt,width\na,wide\n")
    assert main(["check", "-", "--format", "csv", "-o", str(place.root / "o"), *GENERAL]) == 2
    assert capsys.readouterr().err.startswith("<stdin>:2:3: width: expected")


def test_files_named_by_standard_input_lie_in_the_current_folder(
    place: Place, say: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piped manifest has no folder of its own, so relative paths start where the command was given."""
    place.write("p.txt", "a\n")
    monkeypatch.chdir(place.root)
    say(b"- {from: p.txt}\n")
    assert prompts(sources.STANDARD_INPUT, format="yaml", output="o") == ["a"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-", "--format", "csv"], "needs an output folder; name one with -o"),
        (["-", "-o", "x"], "name it with --format, one of yaml, csv"),
        (["-", "--format", "excel", "-o", "x"], "format 'excel' is not known; use one of yaml"),
    ],
)
def test_standard_input_needs_to_be_told_more(
    say: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    """What the name of a file would have told must be said, before anything is read."""
    say(b"prompt\nx\n")
    assert main(["check", *arguments, *GENERAL]) == 2
    assert told in capsys.readouterr().err
    assert sys.stdin.buffer.read()


def test_without_standard_input_there_is_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose standard input is closed is told so."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="there is no standard input"):
        open_manifest(sources.STANDARD_INPUT, "txt")


def test_two_walks_over_standard_input_do_not_disturb_each_other(say: Any) -> None:
    """A walk that begins while another is under way starts at the first row, and both see all."""
    say(b"a\nb\nc\n")
    source = open_manifest(sources.STANDARD_INPUT, "txt")
    source.header()
    first = source.rows()
    next(first)
    for walk, left in ((source.rows(), 3), (first, 2)):
        assert len([row for row in walk if not isinstance(row, Problem)]) == left


def test_standard_input_that_does_not_fit_is_a_matter_of_storage(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full temporary folder is told as one, with what to do."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    say(b"a\n")
    with pytest.raises(StorageError, match=r"No space left on device\); set TMPDIR"):
        open_manifest(sources.STANDARD_INPUT, "txt")


# --- formats that names do not tell


def test_the_format_may_be_said(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with an odd name is read as it is said to be written, and `status` remembers how."""
    manifest = place.write("m.data", "prompt\na fox\n")
    with pytest.raises(UsageError, match=r"name it with --format"):
        prompts(manifest)
    assert main(["run", str(manifest), "--format", "csv", *GENERAL]) == 0
    capsys.readouterr()
    for named in (manifest, place.output):
        assert main(["status", str(named), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["total"] == 1


def test_a_pipe_is_no_manifest(place: Place) -> None:
    """What can be read only once is refused by name, with the way to pipe a manifest in."""
    os.mkfifo(place.root / "p.csv")
    with pytest.raises(UsageError, match=r"p\.csv is no file; to read from a pipe, name the manifest '-'"):
        open_manifest(place.root / "p.csv")
