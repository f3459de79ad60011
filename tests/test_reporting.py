"""Making the page of a folder: thumbnails, what happens to broken pictures, where things are written, what is said."""

from __future__ import annotations

import errno
import html
import io
import os
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from folders import RUN, drawing, made, write_folder
from PIL import Image
from samples import attempt, failed, picture
from test_report import data_of

import batchgen
from batchgen import files, images
from batchgen.cli import main
from batchgen.folder import locked
from batchgen.joblog import PaceNote
from batchgen.layout import Books, superseded
from batchgen.model import Failure, Outcome, Shard, StorageError, UsageError
from batchgen.runner import reporting, thumbs
from batchgen.runner.reporting import Reported

if TYPE_CHECKING:
    from conftest import Place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "m"


def report(path: Path) -> Reported:
    return reporting.report(path, {}, lambda said: None)


def page(root: Path) -> str:
    return (root / "report.html").read_text("utf-8")


def small(root: Path) -> set[str]:
    return {path.name for path in (root / "thumbs").iterdir()}


def problems(root: Path) -> list[str]:
    """What the page says of the pictures that it cannot show."""
    found: list[str] = data_of(page(root))["tables"].get("problems", [])
    return found


# Thumbnails


@pytest.mark.parametrize(
    ("data", "mode"),
    [
        (drawing(size=(1024, 512)), "RGB"),
        (drawing(kind="JPEG", size=(600, 900)), "RGB"),
        (drawing(kind="WEBP"), "RGB"),
    ],
    ids=["png", "jpeg", "webp"],
)
def test_a_thumbnail_is_a_small_webp(data: bytes, mode: str) -> None:
    """At most 256 pixels a side, in the picture's proportions, never larger than the picture."""
    before = images.check(data)
    with Image.open(io.BytesIO(thumbs.shrink(data))) as found:
        assert (found.format, found.mode, max(found.size)) == ("WEBP", mode, min(256, max(before.width, before.height)))
        assert found.width / found.height == pytest.approx(before.width / before.height, rel=0.02)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_pictures_of_every_kind_of_pixel_have_a_thumbnail(mode: str) -> None:
    """Grey, palette, transparent, 16 bits, and the four colours of print."""
    out = io.BytesIO()
    Image.new(mode, (32, 32)).save(out, "JPEG" if mode == "CMYK" else "PNG")
    with Image.open(io.BytesIO(thumbs.shrink(out.getvalue()))) as found:
        assert found.mode == ("RGBA" if mode in ("LA", "RGBA") else "RGB")


def test_a_thumbnail_keeps_nothing_of_the_pictures_metadata() -> None:
    """Prompts that a picture carries are not handed on with its small form."""
    exif = Image.Exif()
    exif[0x010E] = "a secret prompt"
    assert b"secret" not in thumbs.shrink(drawing(kind="JPEG", exif=exif.tobytes()))


def test_a_report_makes_a_page_and_thumbnails_once(root: Path) -> None:
    """The second report finds them there; two jobs with the same picture share one."""
    write_folder(root, [made(root, "a"), made(root, "b"), made(root, "c", drawing(1))])
    first, second = report(root), report(root)
    assert (first.jobs, first.pictures, first.problems) == (3, 3, 0)
    assert (first.page, first.size_bytes) == (str(root / "report.html"), len(page(root).encode()))
    assert second.thumbs_made == 0
    shown = [row["g"][0][1] for row in data_of(page(root))["jobs"]]
    assert shown[0] == shown[1] != shown[2]
    assert set(shown) == small(root)


def test_a_changed_picture_has_another_thumbnail_and_the_old_one_goes(root: Path) -> None:
    """Names are the digest of what they show; what is not ours in the folder is left alone."""
    write_folder(root, [made(root, "a")])
    report(root)
    before = small(root)
    (root / "thumbs" / "mine.webp").write_bytes(b"x")
    write_folder(root, [made(root, "a", drawing(5), finished_at="2026-11-23T00:00:00.000Z")])
    found = report(root)
    assert (found.thumbs_made, found.thumbs_removed) == (1, 1)
    assert small(root) & before == set()
    assert "mine.webp" in small(root)


def test_thumbnails_are_given_in_the_order_of_their_pictures(root: Path) -> None:
    """However many are made at the same time."""
    jobs = [f"j{n}" for n in range(40)]
    write_folder(root, [made(root, job, drawing(n, size=(8 + n, 8))) for n, job in enumerate(jobs)])
    report(root)
    rows = data_of(page(root))["jobs"]
    assert [row["i"] for row in rows] == jobs
    for n, row in enumerate(rows):
        with Image.open(root / "thumbs" / row["g"][0][1]) as found:
            assert found.width == 8 + n


def test_a_picture_in_superseded_is_shown_from_there(root: Path) -> None:
    """A job that was changed and changed back has its picture, and its page knows where."""
    one = made(root, "fox/a")
    write_folder(root, [one])
    away = root / superseded("images/fox/a.png", one.fingerprint, one.images[0].sha256)
    away.parent.mkdir(parents=True)
    (root / "images/fox/a.png").rename(away)
    for _ in range(2):  # made, and found there
        assert report(root).problems == 0
        assert data_of(page(root))["jobs"][0]["g"][0][0] == f"/{away.relative_to(root)}"


# Broken pictures


def instead(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def breaking(path: Path) -> None:
        path.unlink()
        make(path)

    return breaking


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: path.unlink(), "not in the folder"),
    "empty": (lambda path: path.write_bytes(b""), "not a PNG, JPEG or WebP picture"),
    "cut": (lambda path: path.write_bytes(drawing()[:-20]), "cut short"),
    "text": (lambda path: path.write_bytes(b"<html>"), "not a PNG, JPEG or WebP picture"),
    "folder": (instead(Path.mkdir), "not a regular file"),
    "link": (instead(lambda path: path.symlink_to("/etc/hostname")), "not a regular file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_told_of_and_the_others_are_shown(root: Path, name: str) -> None:
    """No picture can keep a page from being made; its place says what is wrong."""
    breaking, said = BROKEN[name]
    write_folder(root, [made(root, "a"), made(root, "b", drawing(1))])
    breaking(root / "images" / "a.png")
    found = report(root)
    assert (found.problems, len(small(root))) == (1, 1)
    assert said in problems(root)[0]
    assert "1 picture cannot be shown" in page(root)


def test_a_picture_that_was_edited_is_shown_as_it_is_and_says_so(root: Path) -> None:
    """Another picture under its name is not what the log tells of."""
    write_folder(root, [made(root, "a")])
    (root / "images" / "a.png").write_bytes(drawing(7))
    found = report(root)
    assert (found.problems, problems(root)) == (0, ["not the picture that the log tells of"])
    assert len(small(root)) == 1


OUTSIDE = ["../../secret.png", "/etc/hostname", "images/../../secret.png", "images/away/x.png", "images/\0.png"]


@pytest.mark.parametrize("file", OUTSIDE)
def test_no_picture_is_looked_for_outside_the_folder(root: Path, file: str) -> None:
    """Neither a path in the log nor a linked folder leads elsewhere."""
    away = root.parent / "away"
    away.mkdir(parents=True)
    for place in (away / "x.png", root.parent / "secret.png", root.parent.parent / "secret.png"):
        place.write_bytes(drawing())
    one = made(root, "a", images=(picture(file=file),))
    (root / "images" / "away").symlink_to(away)
    write_folder(root, [one])
    assert report(root).problems == 1
    assert small(root) == set()


@pytest.mark.parametrize("size", [(20_000, 20_000), (60_000, 5_000)])
def test_a_picture_of_very_many_pixels_is_not_decoded(size: tuple[int, int]) -> None:
    """A file of a few hundred bytes could claim gigabytes."""
    data = bytearray(drawing())
    width, height = size
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(thumbs.Unusable, match=r"too large|claims"):
        thumbs.shrink(bytes(data))


def test_whole_structure_with_damaged_pixels_is_no_failure() -> None:
    """A decoder's own complaint is a picture's problem, not the report's."""
    data = drawing(size=(64, 64))
    start = data.index(b"IDAT")
    broken = bytearray(data)
    size = int.from_bytes(data[start - 4 : start], "big")
    broken[start + 4 : start + 4 + size] = b"\xff" * size
    broken[start + 4 + size : start + 8 + size] = zlib.crc32(broken[start : start + 4 + size]).to_bytes(4, "big")
    with pytest.raises(thumbs.Unusable, match="cannot be decoded"):
        thumbs.shrink(bytes(broken))


# Writing


def test_a_report_is_made_while_a_run_is_at_work(root: Path) -> None:
    """No lock is asked for; the page says that the run goes on, and a half-written line is left out."""
    state: dict[str, Any] = {
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "doing": "working",
        "heartbeat_at": "2026-11-22T12:00:30.000Z",
    }
    write_folder(root, [made(root, "a")], **state)
    with (root / "log.jsonl").open("ab") as log:
        log.write(b'{"v":1,"job":"b"')
    with locked(root):
        assert report(root).jobs == 1
    assert "A run is at work: working, last heard of at 2026-11-22 12:00 UTC." in page(root)


def test_a_page_is_whole_or_the_one_before(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails halfway leaves the earlier page and nothing half-done; the exit code is 7."""
    write_folder(root, [made(root, "a")])
    report(root)
    before, names = page(root), sorted(path.name for path in root.iterdir())

    def full(self: files.PosixFiles, handle: int, data: bytes) -> None:
        os.write(handle, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.PosixFiles, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        report(root)
    assert (page(root), sorted(path.name for path in root.iterdir())) == (before, names)


def test_what_a_killed_report_left_is_swept_up(root: Path) -> None:
    """Drafts of processes that are gone; one that is still at work keeps its own."""
    write_folder(root, [made(root, "a")])
    (root / "thumbs").mkdir()
    alive = os.getppid()
    for draft in (f".report.html.{2**30}.part", f"thumbs/{'ab' * 12}.webp.{2**30}.part"):
        (root / draft).write_bytes(b"half")
    (root / "thumbs" / f"{'cd' * 12}.webp.{alive}.part").write_bytes(b"half")
    report(root)
    assert [path.name for path in root.glob(".report*")] == []
    assert [path for path in small(root) if "part" in path] == [f"{'cd' * 12}.webp.{alive}.part"]


@pytest.mark.parametrize("where", ["thumbs", "report.html"])
def test_a_link_in_the_place_of_what_is_written_leads_nowhere(root: Path, where: str) -> None:
    """A linked folder is refused; a linked page is replaced, and what it pointed to stays."""
    write_folder(root, [made(root, "a")])
    away = root.parent / "away"
    away.mkdir()
    (away / "precious").write_text("mine")
    (root / where).symlink_to(away if where == "thumbs" else away / "precious")
    if where == "thumbs":
        with pytest.raises(StorageError, match="thumbs"):
            report(root)
    else:
        report(root)
        assert not (root / where).is_symlink()
    assert [path.name for path in away.iterdir()] == ["precious"]
    assert (away / "precious").read_text() == "mine"


# What the page tells of the folder


def test_jobs_of_the_manifest_that_are_not_done_are_counted(place: Place) -> None:
    """With the manifest at hand the page knows what is pending, what has left it, and the order of its axes."""
    matrix = {
        "id": "{animal}-{look}",
        "prompt": "a {look} {animal}",
        "matrix": {"animal": ["fox", "cat"], "look": ["old", "new"]},
    }
    place.jobs(matrix, api="nebula")
    write_folder(place.output, [made(place.output, "gone")])
    report(place.root / "m.yaml")
    assert "0 of 4 jobs are done." in page(place.output)
    data = data_of(page(place.output))
    assert data["axes"] == {"animal": ["fox", "cat"], "look": ["old", "new"]}
    assert data["tables"]["states"] == ["orphan"]


@pytest.mark.parametrize("text", [None, "jobs: ["], ids=["gone", "broken"])
def test_without_a_manifest_the_log_has_to_do(place: Place, text: str | None) -> None:
    """A manifest that was moved or is being edited is no reason for no page."""
    if text:
        place.write("m.yaml", text)
    write_folder(place.output, [made(place.output, "a")])
    report(place.output)
    assert "1 of 1 jobs is done." in page(place.output)
    assert "not counted" in page(place.output)


def test_a_command_to_go_on_says_what_the_last_run_was_told(place: Place) -> None:
    """Without the same API and defaults the jobs would be others."""
    (job,) = batchgen.read(place.jobs("a"), api="sandbox", defaults=["num_steps=9"])
    elsewhere = place.root / "else where"
    no = (failed(Failure.REFUSED_CONTENT),)
    lost = made(elsewhere, "a", fingerprint=job.fingerprint, outcome=Outcome.FAILED, images=(), attempts=no)
    write_folder(elsewhere, [lost], manifest="../m.yaml", api="sandbox", defaults=("num_steps=9",))
    report(elsewhere)
    said = f"batchgen run {place.root}/m.yaml -o '{elsewhere}' --api sandbox -D num_steps=9 --retry failed --only a"
    assert said in html.unescape(page(elsewhere))


def test_changes_of_pace_reach_the_timeline(root: Path) -> None:
    """A damaged note is left out; nothing depends on it."""
    write_folder(root, [made(root, "a"), made(root, "b", finished_at="2026-11-22T12:01:00.000Z")])
    note = PaceNote("2026-11-22T12:00:10.000Z", RUN, "rate limited", 3, 22.0)
    (root / Books().pace).write_bytes(msgspec.json.encode(note) + b"\n{half")
    report(root)
    assert "2 pictures in 1 min 00 s, 1 pause" in page(root)


def test_shards_are_one_page(root: Path) -> None:
    """Jobs, runs and pace of all who wrote to the folder; the runs stand beside each other."""
    for i, job in enumerate("ab", 1):
        run = f"20261122T12000{i}Z-aaaa"
        write_folder(root, [made(root, job, drawing(i), run=run)], Shard(i, 2), run=run)
    assert report(root).jobs == 2
    data = data_of(page(root))
    assert sorted(data["tables"]["runs"]) == ["20261122T120001Z-aaaa", "20261122T120002Z-aaaa"]


def test_a_job_that_was_tried_again_shows_all_its_attempts(root: Path) -> None:
    """The earlier entry's attempts stand before the later one's."""
    first = made(root, "a", outcome=Outcome.FAILED, images=(), attempts=(failed(Failure.SERVER_ERROR),))
    last = made(root, "a", attempts=(attempt(2),), finished_at="2026-11-23T12:00:00.000Z")
    write_folder(root, [first, last])
    report(root)
    (row,) = data_of(page(root))["jobs"]
    assert [told[0] for told in row["z"]] == [1, 2]


def test_a_summary_of_another_version_is_none(root: Path) -> None:
    """The page is made from the log; the last run's words are only added."""
    write_folder(root, [made(root, "a")])
    (root / "summary.json").write_text('{"verdict": 3}')
    assert report(root).jobs == 1


# The command


def test_the_command_says_where_the_page_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its path on standard output, and nothing else; as JSON, with numbers."""
    write_folder(root, [made(root, "a"), made(root, "b", drawing(1))])
    (root / "images" / "b.png").unlink()
    assert main(["report", str(root)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{root}/report.html\n"
    assert "1 picture cannot be shown" in said.err
    assert main(["report", str(root), "--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=Reported)
    assert (found.jobs, found.pictures, found.problems, found.v) == (2, 2, 1, 1)


def test_where_no_run_has_been_there_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, and nothing is written."""
    assert main(["report", str(tmp_path)]) == 2
    assert "no run has been here yet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError):
        report(tmp_path / "nowhere")


def test_a_long_report_says_how_far_it_is(root: Path) -> None:
    """Ten thousand thumbnails take a minute; silence would look like a fault."""

    class Hasty:
        now_s = 0.0

        def monotonic(self) -> float:
            Hasty.now_s += 6.0
            return Hasty.now_s

        def utc(self) -> datetime:
            return datetime(2026, 11, 23, 8, tzinfo=UTC)

    write_folder(root, [made(root, job) for job in "abcdef"])
    said: list[str] = []
    reporting.report(root, {}, said.append, Hasty())
    assert said[0].endswith("thumbnails made")
