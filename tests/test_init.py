"""`batchgen init`: what it writes works as it is, by make and by cron, and nothing is ever overwritten."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from batchgen import schema
from batchgen.cli import main

pytestmark = pytest.mark.no_cover  # as in test_nights
NAMES = {"pictures.yaml", "batchgen.schema.json", "Makefile", "crontab.example"}
AWKWARD = "my pictures; 100% of $HOME #1 it's"


def make(folder: Path, *targets: str) -> str:
    found = subprocess.run(["make", "-s", "-C", folder, *targets], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    return found.stdout + found.stderr


def pictures(folder: Path) -> set[str]:
    """The pictures of the starter manifest, after a run in a folder that has no `outputs` above it."""
    images = folder / "outputs" / "pictures" / "images"
    return {str(path.relative_to(images).with_suffix("")) for path in images.rglob("*.png")}


@pytest.mark.parametrize("name", ["plain", AWKWARD], ids=["plain", "an awkward name"])
def test_the_makefile_makes_pictures(tmp_path: Path, name: str) -> None:
    """`make` in the new folder draws every picture, again has nothing to do, and plan and status tell."""
    folder = tmp_path / name
    assert main(["init", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == NAMES
    assert "3 to do" in make(folder, "plan")
    assert "3 of 3 jobs are done" in make(folder)
    drawn = pictures(folder)
    assert {"flying-cat", "teapots/copper"} < drawn and len(drawn) == 3
    assert make(folder) == ""
    assert "3 of 3 jobs done" in make(folder, "status")


def test_make_tells_a_mistake_once(tmp_path: Path) -> None:
    """A mistake in the manifest ends make with its place, said once, and leaves no rule that would hide its mending."""
    assert main(["init", str(tmp_path)]) == 0
    manifest = tmp_path / "pictures.yaml"
    manifest.write_text(manifest.read_text().replace("seed: 7", "seed: seven"))
    ended = subprocess.run(["make", "-s", "-C", tmp_path], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stderr.count("seed: expected") == 1
    assert not list((tmp_path / "outputs").glob("*.d")) and not list((tmp_path / "outputs").glob("*.stamp"))


@pytest.mark.parametrize("name", ["plain", AWKWARD], ids=["plain", "an awkward name"])
def test_the_crontab_line_works_in_crons_environment(tmp_path: Path, name: str) -> None:
    """What cron would run, by its shell and with nothing but its environment, makes the pictures and says nothing."""
    folder, home = tmp_path / name, tmp_path / "home"
    home.mkdir()
    assert main(["init", str(folder)]) == 0
    [line] = [x for x in (folder / "crontab.example").read_text().splitlines() if x and not x.startswith("#")]
    *times, command = line.split(" ", 5)
    assert times == ["30", "22", "*", "*", "*"]
    assert "%" not in command.replace("\\%", "")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "SHELL": "/bin/sh"}
    ended = subprocess.run(
        ["/bin/sh", "-c", command.replace("\\%", "%")], env=env, cwd=home, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert len(pictures(folder)) == 3


def test_the_current_folder_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a name the files are written here, and the next command is told."""
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == NAMES
    assert "`make`" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(NAMES))
def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """One file that is there stops everything, is named, and stays as it is; a link that leads nowhere counts."""
    (tmp_path / name).symlink_to("nowhere")
    assert main(["init", str(tmp_path)]) == 2
    assert str(tmp_path / name) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the place of the folder is a storage error, not one of batchgen."""
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file")]) == 7
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_an_editor_finds_the_schema(tmp_path: Path) -> None:
    """The manifest's first line leads to the schema beside it."""
    main(["init", str(tmp_path)])
    line = (tmp_path / "pictures.yaml").read_text().splitlines()[0]
    path = line.removeprefix("# yaml-language-server: $schema=")
    assert json.loads((tmp_path / path).read_text()) == schema.schema()


def test_real_pictures_are_a_word_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `api: nebula` the starter's plan is complete: price, budget, pace, and that the key is missing."""
    main(["init", str(tmp_path)])
    manifest = tmp_path / "pictures.yaml"
    manifest.write_text(manifest.read_text().replace("api: sandbox", "api: nebula"))
    monkeypatch.delenv("NEBULA_API_KEY", raising=False)
    capsys.readouterr()
    assert main(["check", str(manifest)]) == 0
    said = capsys.readouterr().out
    assert "$0.0090, $5.0000 left of $5" in said and "NEBULA_API_KEY" in said
    assert "warning" not in said
