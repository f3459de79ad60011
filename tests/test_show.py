"""`batchgen show` and embedding in whole runs: pictures carry their history, and the log and the folder still agree."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, Place
from PIL import Image

import batchgen
from batchgen import images, metadata
from batchgen.cli import main
from batchgen.model import FileInput, UsageError
from batchgen.runner.show import show

PROMPT = 'a "red" fox: {x}\n- é 狐'


def jobs(**changes: Any) -> list[dict[str, Any]]:
    """A job of each format, two of them in the same folder."""
    return [
        {"id": f"night/{kind}", "prompt": PROMPT, "seed": 7, "params": {"output_format": kind}, **changes}
        for kind in ("png", "jpeg", "webp")
    ]


def run(manifest: Path, **settings: Any) -> None:
    found = batchgen.run(manifest, **({"api": "sandbox"} | settings))
    assert found.exit_code == 0, found.verdict


def written(place: Place, entry: dict[str, Any]) -> bytes:
    return (place.output / str(entry["images"][0]["file"])).read_bytes()


def test_a_run_embeds_and_the_log_has_both_digests(place: Place) -> None:
    """Every picture carries its job's exact request, and the log's digest and size are those of the file."""
    run(place.jobs(*jobs(), prices_usd={MODEL: 0.003}))
    for entry in place.log:
        data, kept = written(place, entry), entry["images"][0]
        made = metadata.made(metadata.carried(data, images.check(data).format))
        assert made and made.request == entry["request"]
        assert (made.job, made.fingerprint, made.api) == (entry["job"], entry["fingerprint"], "sandbox")
        assert kept["sha256"] == hashlib.sha256(data).hexdigest() != kept["received_sha256"]
        assert kept["size_bytes"] == len(data)


def test_without_embedding_the_servers_bytes_are_kept(place: Place) -> None:
    """`embed: false` writes what came, byte for byte; the same picture with embedding was received with that digest."""
    run(place.jobs(*jobs(), embed=False))
    assert [len(metadata.carried(written(place, e), e["images"][0]["format"]).xmp or b"") for e in place.log] == [0] * 3
    assert not any("received_sha256" in entry["images"][0] for entry in place.log)
    exact = {entry["job"]: entry["images"][0]["sha256"] for entry in place.log}
    run(place.jobs(*jobs(), embed=False), embed=True, redo=True)
    assert {entry["job"]: entry["images"][0]["received_sha256"] for entry in place.log[3:]} == exact


def test_embedding_makes_no_job_over(place: Place) -> None:
    """Whether pictures carry metadata does not change what a job is: another setting buys nothing again."""
    run(place.jobs("a"))
    run(place.jobs("a"), embed=False)
    assert len(place.log) == 1


def test_a_superseded_picture_comes_back(place: Place) -> None:
    """Making way and coming back go by the digest of the file as it was written."""
    before = place.jobs("a", "b")
    run(before)
    [first] = [written(place, entry) for entry in place.log if entry["job"] == "a"]
    run(place.jobs({"id": "a", "prompt": "other"}, "b"))
    [away] = place.files("superseded")
    assert (place.output / "superseded" / away).read_bytes() == first
    run(place.jobs("a", "b"))
    assert (place.output / "images/a.png").read_bytes() == first
    assert len(place.log) == 4


# Looking up


def test_a_picture_in_its_folder_is_told_by_the_log(place: Place) -> None:
    """Wherever in the folder it lies and whatever it is called, the log's entry is found by the picture's bytes."""
    run(place.jobs("a"))
    run(place.jobs({"id": "a", "prompt": "other"}))
    [away] = place.files("superseded")
    shutil.copy(place.output / "images/a.png", place.output / "images/renamed.png")
    found = [show(str(place.output / path)) for path in ("images/a.png", f"superseded/{away}", "images/renamed.png")]
    assert [one.source for one in found] == ["log"] * 3
    assert [one.made.request["prompt"] for one in found if one.made] == ["other", "a", "other"]
    assert [one.pictures[0].file for one in found] == ["images/a.png", f"superseded/{away}", "images/a.png"]
    assert found[1].others[0].files == ("images/a.png",)
    assert not any(one.notices for one in found)


def test_a_picture_that_went_away_tells_by_itself(place: Place, tmp_path: Path) -> None:
    """Without its folder the record in the picture answers; with the folder named, its log does."""
    run(place.jobs(*jobs()))
    away = tmp_path / "mail" / "fox.jpg"
    away.parent.mkdir()
    shutil.move(place.output / "images/night/jpeg.jpg", away)
    alone, with_folder = show(str(away)), show(str(away), place.root / "m.yaml")
    assert (alone.source, with_folder.source) == ("picture", "log")
    assert show("images/night/png.png", place.root / "m.yaml").entry == show("night/png", place.output).entry
    assert alone.made == with_folder.made and alone.made
    assert with_folder.pictures[0].file is None


def test_a_bare_picture_is_found_by_the_digest_of_either_form(place: Place, tmp_path: Path) -> None:
    """The server's own bytes are known to the log, too, though the file was written with metadata."""
    run(place.jobs("a"), embed=False)
    bare = tmp_path / "bare.png"
    shutil.copy(place.output / "images/a.png", bare)
    with pytest.raises(UsageError, match="carries no parameters, and it lies in no output folder"):
        show(str(bare))
    run(place.jobs("a"), redo=True)
    found = show(str(bare), place.output)
    assert found.source == "log" and found.entry and found.entry.job == "a"


def test_a_file_that_was_changed_is_told_by_its_name_with_a_note(place: Place) -> None:
    """An edited picture still bears its job's name; that its bytes are others is said."""
    run(place.jobs("a"))
    path = place.output / "images/a.png"
    with Image.open(path) as picture:
        picture.rotate(90).save(path)
    found = show(str(path))
    assert found.source == "log" and any("byte for byte" in notice for notice in found.notices)
    path.write_bytes(b"no picture")
    assert any("cannot be read" in notice for notice in show(str(path)).notices)


def test_an_edited_record_is_told(place: Place, tmp_path: Path) -> None:
    """A record whose fingerprint does not fit what it says is shown with a note."""
    run(place.jobs({"id": "a", "prompt": "p"}))
    data = (place.output / "images/a.png").read_bytes()
    made = metadata.made(metadata.carried(data, "png"))
    assert made
    forged = metadata.Made(made.job, "0" * 32, made.api, made.model, made.request)
    file = io.BytesIO()
    Image.new("RGB", (24, 16)).save(file, "PNG")
    path = tmp_path / "forged.png"
    path.write_bytes(metadata.embed(file.getvalue(), "png", (24, 16), forged, "x").data)
    assert any("edited" in notice for notice in show(str(path)).notices)


def test_another_programs_picture_is_shown_by_its_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters of another program are shown as they are, but are not enough for a manifest."""
    file = io.BytesIO()
    block = Image.Exif()
    block.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a fox\nSteps: 4".encode("utf-16-be")
    Image.new("RGB", (8, 8)).save(file, "WEBP", exif=block)
    path = tmp_path / "theirs.webp"
    path.write_bytes(file.getvalue())
    assert main(["show", str(path)]) == 0
    assert "a fox" in capsys.readouterr().out
    assert main(["show", str(path), "--manifest"]) == 2
    assert "not enough for a manifest" in capsys.readouterr().err


def logged(place: Place, job: str) -> dict[str, Any]:
    """The one line of the log for a job, whenever its answer came."""
    [line] = [line for line in place.log if line["job"] == job]
    return line


def test_an_id_is_looked_up_near_and_far(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By folder, by manifest, from inside the folder, and from beside its `outputs/`; a misspelt one is guessed."""
    run(place.jobs(*jobs()))
    for where in (place.output, place.root / "m.yaml"):
        assert show("night/png", where).entry
    for here in (place.output / "images/night", place.root):
        monkeypatch.chdir(here)
        assert main(["show", "night/png", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["v"], told["source"], told["made"]["job"]) == (1, "log", "night/png")
        assert told["entry"] == logged(place, "night/png")
    assert main(["show", "night/png", "--json", str(place.output)]) == 0
    assert main(["show", "night/pgn"]) == 2
    assert "did you mean 'night/png'?" in capsys.readouterr().err


def test_an_id_of_several_folders_needs_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two manifests have a job of one name, both folders are named."""
    run(place.jobs("a"))
    run(place.jobs("a", "b", name="n.yaml"), output=place.root / "outputs/n")
    assert show("b", here=place.root).output == str(place.root / "outputs/n")
    with pytest.raises(UsageError, match=r"several folders have a job 'a' .*outputs/m, .*outputs/n"):
        show("a", here=place.root)
    with pytest.raises(UsageError, match="'c' is no file, and no job of this name"):
        show("c", here=place.root)


def test_nothing_near_is_said(tmp_path: Path) -> None:
    """Without a picture and without any folder the message says what to name; a folder is no picture."""
    with pytest.raises(UsageError, match="is a folder; where it stands tells: batchgen status"):
        show(str(tmp_path))
    with pytest.raises(UsageError, match="no output folder near"):
        show("a", here=tmp_path)


def test_what_is_printed_makes_it_again(place: Place, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The manifest that `show --manifest` prints, from the log and from the picture alone, is the same job to a run."""
    picture = tmp_path / "in.png"
    Image.new("RGB", (32, 32), "blue").save(picture)
    run(place.jobs(*jobs(image="in.png", meta={"campaign": "spring"})))
    shutil.copy(place.output / "images/night/webp.webp", tmp_path / "away.webp")
    for what in ([str(tmp_path / "away.webp")], ["night/webp", str(place.output)]):
        assert main(["show", *what, "--manifest"]) == 0
        again = place.write("again.yaml", capsys.readouterr().out)
        [job] = batchgen.read(again)
        assert {"job": job.id, "fingerprint": job.fingerprint}.items() <= logged(place, "night/webp").items()
        assert isinstance(job.request["image"], FileInput)
        assert job.meta == ({} if len(what) == 1 else {"campaign": "spring"})
