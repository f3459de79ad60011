"""Files against the log: what is told of each kind of damage, what is moved where, and what a run beside it changes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightwork import LATER, Leavings, png, tree
from samples import entry, failed, picture

from batchgen import joblog, layout
from batchgen.cli import main
from batchgen.clock import SystemClock
from batchgen.files import PosixFiles
from batchgen.folder import locked
from batchgen.model import Failure, FolderBusy, Outcome, StorageError, UsageError
from batchgen.progress import LINE_EVERY_S, Meter
from batchgen.runner import pictures
from batchgen.runner.verifying import Wish, verify
from batchgen.verify import Kind, Verification, render

if TYPE_CHECKING:
    from conftest import Place

MANY = 30


@pytest.fixture
def left(tmp_path: Path) -> Leavings:
    """Three jobs of the manifest, all done: `a`, `deep/b`, and `c` with two pictures."""
    left = Leavings(tmp_path / "out")
    left.manifest("a", "deep/b", "c")
    left.done("a", png(1))
    left.done("deep/b", png(2))
    left.done("c", png(3), png(4))
    return left


def seen(left: Leavings, **wish: Any) -> Verification:
    return verify(left.root, os.environ, Wish(**wish), Meter("job", SystemClock()))


def told(found: Verification) -> list[tuple[Kind, str, str | None]]:
    return sorted((f.kind, f.file, f.job) for f in found.findings)


# Without moving anything


def test_a_whole_folder_is_found_whole(left: Leavings) -> None:
    """Everything is there: exit 0, and pictures and bytes are counted."""
    before = tree(left.root)
    found = seen(left)
    assert (found.exit_code, found.findings, found.notices) == (0, [], [])
    assert (found.jobs, found.pictures, found.size_bytes) == (3, 4, 4 * len(png()))
    assert tree(left.root) == before


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


DAMAGE: dict[str, tuple[Callable[[Path], Any], Kind, bool]] = {
    "gone": (Path.unlink, Kind.MISSING, True),
    "a flipped bit": (flip, Kind.BROKEN, False),
    "another picture of that size": (lambda path: path.write_bytes(png(9)), Kind.CHANGED, False),
    "another picture": (lambda path: path.write_bytes(png(9, size=9)), Kind.CHANGED, True),
    "cut short": (lambda path: path.write_bytes(png(1)[:50]), Kind.BROKEN, True),
    "empty": (lambda path: path.write_bytes(b""), Kind.BROKEN, True),
    "a link": (dangle, Kind.CHANGED, True),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_every_damage_is_told_by_its_kind(left: Leavings, what: str) -> None:
    """Exit 3, with the file and its job; `--quick` tells those that another size gives away."""
    damage, kind, by_size = DAMAGE[what]
    damage(left.root / "images/deep/b.png")
    found = seen(left)
    assert (found.exit_code, told(found)) == (3, [(kind, "images/deep/b.png", "deep/b")])
    assert seen(left, quick=True).exit_code == (3 if by_size else 0)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_what_cannot_be_read_is_told_with_the_reason(
    left: Leavings, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A picture that the disk does not give is unreadable, not missing; the others are looked at all the same."""
    real = PosixFiles.open

    def refuse(files: PosixFiles, path: str) -> int:
        if path == "images/a.png":
            raise OSError(code, os.strerror(code), path)
        return real(files, path)

    monkeypatch.setattr(PosixFiles, "open", refuse)
    found = seen(left)
    assert told(found) == [(Kind.UNREADABLE, "images/a.png", "a")]
    assert os.strerror(code) in found.findings[0].what


def test_a_log_that_points_out_of_the_folder_is_not_followed(left: Leavings) -> None:
    """A name with `..` in a log is told, and nothing outside is read."""
    of = left.log(entry(job="x", images=(picture(file="images/../../m.yaml"),)))
    left.manifest("a", "deep/b", "c", "x")
    for wish in ({}, {"requeue": True}):
        assert told(seen(left, **wish)) == [(Kind.UNREADABLE, of.images[0].file, "x")]


STRANGERS = ["notes.txt", "README", ".DS_Store", "a~7.png", "deep/x/y.png", "c.jpg"]


def test_files_that_no_line_tells_of_are_orphans_and_no_fault(left: Leavings) -> None:
    """They are told, and the exit code stays 0."""
    for name in STRANGERS:
        left.put(f"images/{name}", b"?")
    found = seen(left)
    assert found.exit_code == 0
    assert told(found) == sorted((Kind.ORPHANED, f"images/{name}", None) for name in STRANGERS)


def test_a_name_that_is_no_utf8_is_told_and_moved(left: Leavings) -> None:
    """Such a name is escaped in what is told, and the file keeps it in superseded/."""
    (left.root / "images").joinpath(os.fsdecode(b"bad\xff.png")).write_bytes(b"?")
    found = seen(left, tidy=True)
    assert told(found) == [(Kind.ORPHANED, r"images/bad\xff.png", None)]
    assert b'"orphaned":1' in msgspec.json.encode(found)
    assert [os.fsencode(p.name).startswith(b"bad\xff~") for p in (left.root / "superseded").iterdir()] == [True]


def test_pictures_of_jobs_that_left_the_manifest_are_orphans(left: Leavings) -> None:
    """The log knows them, the manifest does not any more; gone altogether, nobody misses them."""
    left.manifest("a", "deep/b")
    (left.root / "images/c~1.png").unlink()
    found = seen(left)
    assert (found.exit_code, found.jobs_gone, found.jobs) == (0, 1, 2)
    assert told(found) == [(Kind.ORPHANED, "images/c.png", "c")]


@pytest.mark.parametrize("wrong", ["gone", "a mistake"])
def test_without_a_readable_manifest_the_files_are_looked_at_all_the_same(left: Leavings, wrong: str) -> None:
    """Which jobs have left it is then not known, and that is said."""
    path = left.manifest("a")
    path.unlink() if wrong == "gone" else path.write_text("jobs: [{prompt: 3}")
    found = seen(left)
    assert (found.exit_code, found.jobs_gone, found.findings) == (0, None, [])
    assert "left" in " ".join(found.notices)


def test_the_picture_of_a_changed_job_that_has_failed_since_still_belongs_to_it(left: Leavings) -> None:
    """It stays under its name until the new one is there: neither orphan nor fault."""
    gone = failed(Failure.BAD_REQUEST)
    left.log(entry(job="a", fingerprint="new", outcome=Outcome.FAILED, images=(), attempts=(gone,), finished_at=LATER))
    assert (seen(left).findings, seen(left).exit_code) == ([], 0)


def test_superseded_pictures_are_held_against_their_names(left: Leavings) -> None:
    """Their names promise their sha256; what was put there without a promise is nobody's business."""
    good, bad = hashlib.sha256(png(7)).hexdigest(), "12345678"
    left.put(f"superseded/a~f1f1f1f1~{good[:8]}.png", png(7))
    left.put(f"superseded/deep/b~f1f1f1f1~{bad}.png", png(7))
    left.put("superseded/holiday.png", png(7))
    found = seen(left)
    assert told(found) == [(Kind.CHANGED, f"superseded/deep/b~f1f1f1f1~{bad}.png", None)]
    assert (found.superseded, found.exit_code) == (3, 3)


def test_a_picture_that_waits_in_superseded_is_not_missing(left: Leavings) -> None:
    """A run brings it back: exit 0."""
    data = png(1)
    (left.root / "images/a.png").unlink()
    left.put(layout.superseded("images/a.png", "f" * 32, hashlib.sha256(data).hexdigest()), data)
    found = seen(left)
    assert (found.exit_code, found.set_aside, found.findings) == (0, 1, [])


def test_only_the_first_of_each_kind_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    """Ten by default, told with how to see more; memory does not grow with the damage."""
    left = Leavings(tmp_path / "out")
    for n in range(MANY):
        left.done(f"j{n}", png(n))
        (left.root / f"images/j{n}.png").unlink()
    found = seen(left)
    assert (found.counts["missing"], len(found.findings)) == (MANY, 10)
    text = "\n".join(render(found))
    assert f"and {MANY - 10} more (--show {MANY} lists them)" in text
    assert len(seen(left, shown=MANY).findings) == MANY


# While a run is at work


def test_pictures_that_a_run_is_just_saving_are_no_orphans(left: Leavings) -> None:
    """Neither a prepared one whose line is to come nor one that came after the look began is judged."""
    of = left.done("a", png(5), fingerprint="new", finished_at=LATER)
    lines = (left.root / "log.jsonl").read_bytes().splitlines(keepends=True)
    (left.root / "log.jsonl").write_bytes(b"".join(lines[:-1]))
    left.note(joblog.prepared(of, lines[-1]).replace(b'"n":1', b'"n":2'))
    found = seen(left)
    assert (found.exit_code, found.findings, found.unsettled) == (0, [], 1)


def test_lines_that_come_while_it_looks_are_read_before_a_picture_is_called_wrong(
    left: Leavings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was made again during the look has another picture now, and that is no damage."""
    real, once = pictures.look, set[bool]()

    def meanwhile(*args: Any, **named: Any) -> Any:
        if not once:
            once.add(True)
            left.done("a", png(6), fingerprint="new", finished_at=LATER)
            left.done("new/one", png(7))
        return real(*args, **named)

    monkeypatch.setattr(pictures, "look", meanwhile)
    found = seen(left)
    assert (found.exit_code, found.findings, found.unsettled) == (0, [], 1)


@pytest.mark.parametrize("flag", ["requeue", "tidy"])
def test_nothing_is_moved_while_somebody_else_holds_the_folder(left: Leavings, flag: str) -> None:
    """A plain look goes on beside a run; what moves files is refused."""
    with locked(left.root):
        assert seen(left).exit_code == 0
        with pytest.raises(FolderBusy):
            seen(left, **{flag: True})


# Moving


@pytest.mark.parametrize("what", DAMAGE)
def test_requeued_damage_is_moved_aside_and_kept(left: Leavings, what: str) -> None:
    """The name is free for the next run, the bytes are in superseded/, and a second look finds the job missing."""
    damage, kind, _ = DAMAGE[what]
    damage(path := left.root / "images/deep/b.png")
    data = None if kind is Kind.MISSING or path.is_symlink() else path.read_bytes()
    found = seen(left, requeue=True)
    assert (found.exit_code, found.to_make) == (3, 1)
    assert not path.exists() and not path.is_symlink()
    if data is not None:
        [moved] = [f.moved_to for f in found.findings]
        assert moved and (left.root / moved).read_bytes() == data
        assert moved == layout.superseded("images/deep/b.png", "0" * 8, hashlib.sha256(data).hexdigest())
    assert told(seen(left)) == [(Kind.MISSING, "images/deep/b.png", "deep/b")]


def test_a_superseded_picture_that_is_damaged_is_renamed_so_that_it_is_not_brought_back(left: Leavings) -> None:
    """Under its old name a run would take it for the job's picture."""
    data = png(1)
    name = layout.superseded("images/a.png", "f" * 32, hashlib.sha256(data).hexdigest())
    (left.root / "images/a.png").unlink()
    left.put(name, png(9))
    found = seen(left, requeue=True)
    assert found.findings[0].moved_to == f"superseded/a~00000000~{hashlib.sha256(png(9)).hexdigest()[:8]}.png"
    assert told(seen(left)) == [(Kind.MISSING, "images/a.png", "a")]


def test_tidying_moves_orphans_and_loses_nothing(left: Leavings) -> None:
    """Strangers and pictures without a job in the manifest lie in superseded/ afterwards; names do not collide."""
    left.manifest("a", "deep/b")
    for name in STRANGERS:
        left.put(f"images/{name}", b"one of " + name.encode())
    digest = hashlib.sha256(b"one of notes.txt").hexdigest()
    left.put(f"superseded/notes~00000000~{digest[:8]}.txt", b"one of notes.txt")
    left.put(".batchgen/tmp/0123-1", b"half a picture")
    before = sorted(data for name, data in tree(left.root).items() if name.startswith(("images", "superseded")))
    found = seen(left, tidy=True)
    assert found.exit_code == 0
    assert left.files("images") == {"a.png", "deep/b.png"}
    after = sorted(data for name, data in tree(left.root).items() if name.startswith(("images", "superseded")))
    assert after == before
    assert f"notes~00000000~{digest[:8]}~2.txt" in left.files("superseded")
    assert left.files(".batchgen/tmp") == set()
    again = seen(left)
    assert (again.exit_code, again.findings, again.set_aside) == (0, [], 2)


def test_a_tidied_picture_comes_back_with_its_job(left: Leavings) -> None:
    """It bears the name under which a run looks for it."""
    of = left.done("c", png(3), png(4))
    left.manifest("a", "deep/b")
    seen(left, tidy=True)
    expected = {layout.superseded(p.file, of.fingerprint, p.sha256).removeprefix("superseded/") for p in of.images}
    assert left.files("superseded") == expected


def test_the_counsel_fits_what_a_run_will_do(left: Leavings) -> None:
    """Same-sized damage needs --requeue; many lost ones need --redo-missing, as `run` asks for it."""
    flip(left.root / "images/a.png")
    assert "--requeue" in " ".join(seen(left).notices)
    for n in range(MANY):
        left.done(f"j{n}", png(n))
        (left.root / f"images/j{n}.png").unlink()
    left.manifest("a", "deep/b", "c", *(f"j{n}" for n in range(MANY)))
    assert "--redo-missing" in " ".join(seen(left).notices)


def test_the_command_to_go_on_says_what_the_last_run_was_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that is advised makes the same jobs: in the morning it is copied, and nobody knows the flags."""
    manifest = place.write("rows.txt", "a fox\n")
    said = [str(manifest), "--api", "sandbox", "-D", "model=black-forest-labs/FLUX.1-schnell"]
    assert main(["run", *said, "--quiet"]) == 0
    for path in (place.root / "outputs/rows/images").iterdir():
        path.unlink()
    for refused in (["-D", "model=another", "--max-cost", "1"], [], ["-D", "width=x"]):
        assert main(["run", str(manifest), *refused]) == 2
    assert main(["verify", str(manifest)]) == 3
    assert f"batchgen run {' '.join(said)}\n" in capsys.readouterr().out
    assert main(["run", *said, "--quiet"]) == 0


def test_damage_is_found_requeued_and_made_again(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The way of a user: a night, a bad disk, `verify --requeue`, the same run again, and all is as the log says."""
    manifest = place.jobs(*(f"job-{n}" for n in range(8)))
    assert main(["run", str(manifest), "--api", "sandbox", "--quiet"]) == 0
    flip(place.output / "images/job-3.png")
    (place.output / "images/job-5.png").unlink()
    assert main(["verify", str(manifest)]) == 3
    assert main(["verify", str(place.output), "--requeue", "--json"]) == 3
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["v"], found["counts"]["missing"], found["counts"]["broken"], found["to_make"]) == (1, 1, 1, 2)
    assert main(["run", str(manifest), "--api", "sandbox", "--quiet"]) == 0
    assert place.summary["made"] == 2
    assert main(["verify", str(manifest)]) == 0
    assert len(place.files()) == 8 and len(place.files("superseded")) == 1


# Refusals and names


def test_where_no_run_has_been_there_is_nothing_to_verify(tmp_path: Path) -> None:
    """Neither a folder of pictures nor a path that leads nowhere is taken for an output folder, and none is made."""
    for path in (tmp_path, tmp_path / "nowhere"):
        for wish in (Wish(), Wish(tidy=True)):
            with pytest.raises(UsageError):
                verify(path, os.environ, wish, Meter("job", SystemClock()))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_while_files_are_moved_is_told_as_that(
    left: Leavings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 7, not an unexpected error."""

    def fail(*args: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "images/a.png")

    flip(left.root / "images/a.png")
    monkeypatch.setattr(PosixFiles, "rename", fail)
    with pytest.raises(StorageError, match=r"images/a\.png: Read-only"):
        seen(left, requeue=True)


NAMES = [
    ("images/a.png", "superseded/a~aaaaaaaa~bbbbbbbb.png", "a"),
    ("images/v1.5/x~2.webp", "superseded/v1.5/x~2~aaaaaaaa~bbbbbbbb.webp", "v1.5/x"),
    ("images/v1.5/README", "superseded/v1.5/README~aaaaaaaa~bbbbbbbb", "v1.5/README"),
    ("images/.DS_Store", "superseded/.DS_Store~aaaaaaaa~bbbbbbbb", ".DS_Store"),
]


@pytest.mark.parametrize(("file", "name", "job"), NAMES)
def test_names_in_superseded_tell_what_they_were(file: str, name: str, job: str) -> None:
    """Marks stand before the extension, whatever dots the folders have; they can be read back."""
    assert layout.superseded(file, "a" * 32, "b" * 64) == name
    assert layout.job_of(file) == job
    for promised in (name, layout.copy_of(name, 2)):
        assert layout.promised_sha8(promised) == "b" * 8
        assert layout.promised_sha8(layout.renamed(promised, "c" * 64)) == "c" * 8


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_a_name_in_superseded_is_never_too_long(name: str) -> None:
    """Whatever a file is called, there is room for its marks."""
    assert len(layout.superseded(f"images/{name[:200]}", "a" * 32, "b" * 64).encode()) <= 255 + len("superseded/") * 2


def test_a_long_look_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Not on a terminal: a plain line a minute."""

    class Clock(SystemClock):
        now_s = 0.0

        def monotonic(self) -> float:
            self.now_s += LINE_EVERY_S / 2
            return self.now_s

    meter = Meter("picture", Clock())
    meter.expect(7)
    for _ in range(4):
        meter.tick()
    meter.close()
    assert "2 of 7 pictures looked at" in capsys.readouterr().err
