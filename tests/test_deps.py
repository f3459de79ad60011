"""`check --deps`: what make makes of the rule, with real make and with names as people give them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchgen.cli import main
from batchgen.makerule import rule
from batchgen.model import UsageError

if TYPE_CHECKING:
    from conftest import Place

NAMES = [
    "plain.csv",
    "two  blanks.png",
    "a#b",
    "$a $$b $(c) ${d}",
    "50%.png",
    "a:b",
    "x=y",
    "a+=b",
    "*.csv",
    "what?",
    "cat [1].png",
    "cat (1).png",
    "a~b",
    r"back\slash",
    r"back\ blank",
    r"back\#mark",
    r"back\%part",
    'it\'s "quoted"',
    "a,b!c",
    "日本.png",
    "-x",
    "@x",
    "include",
]


def make(folder: Path) -> str:
    ended = subprocess.run(["make", "-s"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def set_age(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def test_make_looks_at_each_file_whatever_its_name(tmp_path: Path) -> None:
    """Untouched files rebuild nothing, a touched one rebuilds, and one that is gone rebuilds and breaks nothing."""
    for name in NAMES:
        (tmp_path / name).write_text("")
        set_age(tmp_path / name, 100)
    text = "\n".join(rule(["the target=1"], NAMES))
    head = f'{text.partition(":")[0]}: ; @echo made; touch "$@"\n'
    (tmp_path / "Makefile").write_text(f"{head}{text}\n")
    assert make(tmp_path) == "made\n"
    for name in NAMES:
        set_age(tmp_path / "the target=1", 50)
        assert make(tmp_path) == "", name
        set_age(tmp_path / name, 10)
        assert make(tmp_path) == "made\n", name
        set_age(tmp_path / name, 100)
    (tmp_path / NAMES[4]).unlink()
    assert make(tmp_path) == "made\n"


@pytest.mark.parametrize("name", ["a;b", "a|b", "a\tb", "a\nb", "back\\", "lib(member)", "~root"])
def test_a_name_that_make_cannot_take_is_told(name: str) -> None:
    """Better no rule than one that looks at another file."""
    with pytest.raises(UsageError, match="rename it"):
        list(rule(["t"], ["m.csv", name]))


def test_a_manifest_of_one_letter_and_a_sign(tmp_path: Path) -> None:
    """A first file with an equals sign is no variable of the target."""
    (tmp_path / "x=y").write_text("")
    text = "\n".join(rule(["t"], ["x=y"]))
    (tmp_path / "Makefile").write_text(f"t: ; @echo made\n{text}\n")
    assert make(tmp_path) == "made\n"


def test_everything_that_a_manifest_names_once(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest, the files of its rows, and the pictures of all jobs, also those that are yet to be made; by default
    for the stamp beside the output folder, seen from here."""
    place.write("jobs/rows.csv", "prompt,image\none,in/a b.png\ntwo,../in/c.png\n")
    place.jobs({"from": "rows.csv"}, {"prompt": "x", "image": "in/a b.png", "mask": "in/m.png"}, name="jobs/m.yaml")
    monkeypatch.chdir(place.root)
    assert main(["check", "jobs/m.yaml", "--deps"]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = ["jobs/m.yaml", "jobs/rows.csv", r"jobs/in/a\ b.png", "in/c.png", "jobs/in/m.png"]
    assert lines[0] == "jobs/outputs/m.stamp: \\"
    assert [line.strip(" \\") for line in lines[1:6]] == [name.strip(" \\") for name in files]
    assert lines[6:] == [f"{name}:" for name in files]
    assert main(["check", "jobs/m.yaml", "--deps", "x.stamp", "x.d"]) == 0
    assert capsys.readouterr().out.startswith("x.stamp x.d: \\\n")


def test_a_manifest_with_mistakes_has_no_rule(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a rule would let make believe that it is whole."""
    assert main(["check", str(place.jobs("a", "a")), "--deps"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "1 problem in the manifest" in said.err


def test_rules_stand_alone(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """What make reads holds nothing else; and standard input is no file."""
    assert main(["check", str(place.jobs("a")), "--deps", "--json"]) == 2
    assert main(["check", str(place.jobs("a")), "--deps", "t", "--exit-code"]) == 2
    assert "--deps prints a rule for make and nothing else" in capsys.readouterr().err
