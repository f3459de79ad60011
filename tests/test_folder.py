"""The output folder over restarts: what is mended, adopted, set aside, brought back and refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest
from samples import AT, attempt, entry, failed, job

from batchgen import joblog
from batchgen.files import PosixFiles
from batchgen.folder import Folder, Records, State, locked, read_state, records
from batchgen.joblog import Ended, Intent
from batchgen.layout import superseded
from batchgen.model import (
    Billed,
    Counts,
    Entry,
    Failure,
    FolderBusy,
    Job,
    Outcome,
    Picture,
    Standing,
    StorageError,
    UsageError,
)

LATER = "2027-01-01T00:00:00.000Z"
LOG, ATTEMPTS = "log.jsonl", ".batchgen/attempts.jsonl"


@contextmanager
def opened(root: Path, load: bool = True) -> Iterator[Folder]:
    files = PosixFiles(root)
    folder = Folder(files)
    try:
        if load:
            folder.load()
        yield folder
    finally:
        folder.close()
        files.close_root()


@contextmanager
def looked_at(root: Path) -> Iterator[Records]:
    files = PosixFiles(root)
    records = Records(files)
    try:
        records.load()
        yield records
    finally:
        records.close()
        files.close_root()


def picture_of(data: bytes, file: str, index: int = 0) -> Picture:
    return Picture(file, index, "png", 8, 8, len(data), hashlib.sha256(data).hexdigest(), None)


def done(data: bytes = b"one", id: str = "a", fingerprint: str = "f1", n: int = 1, file: str | None = None) -> Entry:
    """The entry of a job whose picture has these bytes."""
    file = file or f"images/{id}.png"
    return entry(job=id, fingerprint=fingerprint, images=(picture_of(data, file),), attempts=(attempt(n),))


def ended(id: str, outcome: Outcome, fingerprint: str = "f1") -> Entry:
    return entry(job=id, fingerprint=fingerprint, outcome=outcome, images=(), attempts=(failed(Failure.BAD_REQUEST),))


def put(root: Path, file: str, data: bytes) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(data)


def log(root: Path, *entries: Entry) -> None:
    (root / ".batchgen").mkdir(parents=True, exist_ok=True)
    with (root / LOG).open("ab") as file:
        file.writelines(map(joblog.encode, entries))


def note(root: Path, *lines: bytes) -> None:
    (root / ".batchgen").mkdir(parents=True, exist_ok=True)
    with (root / ATTEMPTS).open("ab") as file:
        file.writelines(lines)


def intent(id: str = "a", n: int = 1, price_usd: float | None = None) -> bytes:
    return joblog.encode(Intent(id, "f1", n, AT, "r", price_usd))


def end(id: str = "a", n: int = 1, counts: Counts | None = None) -> bytes:
    return joblog.encode(Ended(id, "f1", failed(Failure.NO_ANSWER, n, Billed.MAYBE, counts=counts)))


def prepared(of: Entry) -> bytes:
    return joblog.prepared(of, joblog.encode(of))


def tree(root: Path) -> dict[str, bytes]:
    """All pictures, of `images` and of `superseded`, by path."""
    folders = [root / "images", root / "superseded"]
    return {str(p.relative_to(root)): p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file()}


# Torn tails and damage

LAST: dict[str, tuple[str, bytes, bytes]] = {
    "log": (LOG, joblog.encode(done(id="kept")), joblog.encode(done(id="töten"))),
    "attempts": (ATTEMPTS, intent("kept"), intent("töten")),
}


@pytest.mark.parametrize(("path", "kept", "last"), LAST.values(), ids=LAST.keys())
def test_a_line_cut_at_any_byte_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kept: bytes, last: bytes
) -> None:
    """However much of the last line was written, the file ends after the line before it, and the rest is kept."""
    # Durability is shown elsewhere, and hundreds of real syncs take seconds.
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr("os.fdatasync", lambda handle: None)
    (tmp_path / ".batchgen").mkdir()
    torn = tmp_path / ".batchgen" / f"{Path(path).name}.torn"
    for cut in range(len(last)):
        (tmp_path / path).write_bytes(kept + last[:cut])
        with opened(tmp_path) as folder:
            assert (tmp_path / path).read_bytes() == kept, cut
            assert len(folder.notices) == (cut > 0), cut
            assert folder.fold.jobs + len(folder.lives.ended()) == 1, cut
        assert (torn.read_bytes() if torn.exists() else None) == (last[:cut] + b"\n" if cut else None), cut
        torn.unlink(missing_ok=True)


@pytest.mark.parametrize("path", [LOG, ATTEMPTS])
def test_a_file_with_nothing_but_a_torn_line_is_emptied(tmp_path: Path, path: str) -> None:
    """A crash within the very first line leaves an empty file, and the whole line is kept beside it."""
    (tmp_path / ".batchgen").mkdir()
    (tmp_path / path).write_bytes(b'{"job":"hal')
    with opened(tmp_path) as folder:
        assert folder.fold.jobs == 0
    assert (tmp_path / path).read_bytes() == b""
    assert (tmp_path / f".batchgen/{Path(path).name}.torn").read_bytes() == b'{"job":"hal\n'


@pytest.mark.parametrize("chunk_bytes", [1, 7, 8, 1000])
@pytest.mark.parametrize("text", [b"", b"\n", b"one\n\nthree is longer\n", b"one\ntorn"], ids=repr)
def test_lines_are_whole_wherever_a_chunk_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, text: bytes
) -> None:
    """A file that is read in pieces has the lines, at the offsets, that it has as a whole."""
    monkeypatch.setattr(records, "_CHUNK_BYTES", chunk_bytes)
    (tmp_path / "file").write_bytes(text)
    files = PosixFiles(tmp_path)
    handle = files.open("file")
    found = list(records.lines(files, handle))
    files.close(handle)
    files.close_root()
    assert [line for _, line in found] == text.splitlines(keepends=True)
    assert all(text[offset:].startswith(line) for offset, line in found)
    assert [offset for offset, _ in found] == [sum(len(line) for _, line in found[:n]) for n in range(len(found))]


def test_a_mended_file_goes_on_with_whole_lines(tmp_path: Path) -> None:
    """What is appended after a repair begins on a line of its own, and nothing is left to mend the next time."""
    log(tmp_path, done(id="a"))
    with (tmp_path / LOG).open("ab") as file:
        file.write(b'{"job":"hal')
    with opened(tmp_path) as folder:
        folder.append_log(joblog.encode(done(id="b")))
    with opened(tmp_path) as folder:
        assert folder.fold.jobs == 2
        assert folder.notices == []


def test_tails_of_several_crashes_are_all_kept(tmp_path: Path) -> None:
    """A second torn line does not replace the first one in the .torn file."""
    for tail in (b'{"job":"one', b'{"job":"two'):
        log(tmp_path, done(id=tail[-3:].decode()))
        with (tmp_path / LOG).open("ab") as file:
            file.write(tail)
        with opened(tmp_path):
            pass
    assert (tmp_path / ".batchgen/log.jsonl.torn").read_bytes() == b'{"job":"one\n{"job":"two\n'


def test_a_reader_leaves_a_torn_tail_alone(tmp_path: Path) -> None:
    """Only the holder of the lock mends; a reader skips the tail and changes nothing."""
    log(tmp_path, done())
    with (tmp_path / LOG).open("ab") as file:
        file.write(b'{"job":"hal')
    before = (tmp_path / LOG).read_bytes()
    with looked_at(tmp_path) as records:
        assert records.fold.jobs == 1
    assert (tmp_path / LOG).read_bytes() == before
    assert not (tmp_path / ".batchgen/log.jsonl.torn").exists()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped byte": lambda line: b"[" + line[1:],
    "lost its end": lambda line: line[: len(line) // 2] + b"\n",
    "zeros": lambda line: b"\0" * (len(line) - 1) + b"\n",
    "two lines in one": lambda line: line[:40] + line,
    "other type": lambda line: b"[]\n",
}


@pytest.mark.parametrize("load", [opened, looked_at], ids=["writer", "reader"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("path", [LOG, ATTEMPTS])
def test_damage_before_the_tail_is_refused_with_its_place(
    tmp_path: Path, path: str, damage: Callable[[bytes], bytes], load: Callable[[Path], object]
) -> None:
    """To skip a damaged line could mean to pay again: whoever loads hears which line it is, and nothing is changed."""
    line = joblog.encode(done()) if path == LOG else intent()
    (tmp_path / ".batchgen").mkdir()
    data = line + damage(line) + line
    (tmp_path / path).write_bytes(data)
    told = f"{path}:2: .* to pay again, so mend or remove the line by hand first$"
    with pytest.raises(UsageError, match=told), load(tmp_path):  # type: ignore[attr-defined]
        pass
    assert (tmp_path / path).read_bytes() == data


@pytest.mark.parametrize(
    "change",
    [lambda data: data * 2, lambda data: data.replace(b"\n", b"\r\n"), lambda data: data.replace(b"\n", b"\n\n")],
    ids=["lines twice", "CRLF", "blank lines"],
)
def test_what_harms_nobody_is_read(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    """Repeated lines, other line ends and blank lines change nothing of what the log says."""
    put(tmp_path, "images/a.png", b"one")
    log(tmp_path, done(), ended("b", Outcome.FAILED))
    (tmp_path / LOG).write_bytes(change((tmp_path / LOG).read_bytes()))
    with opened(tmp_path) as folder:
        assert folder.standing(job("a")) is Standing.DONE
        assert folder.standing(job("b")) is Standing.FAILED
        assert folder.fold.counts()[Outcome.DONE] == 1
        kept = folder.entry("a", "f1")
        assert kept is not None and kept.job == "a"


# Standing


def standing(root: Path, of: Job) -> Standing:
    with opened(root) as folder:
        return folder.standing(of)


def test_a_job_that_nobody_knows_is_pending(tmp_path: Path) -> None:
    """Without a line in the log a job is to be done, even if a file bears its name."""
    put(tmp_path, "images/a.png", b"one")
    assert standing(tmp_path, job("a")) is Standing.PENDING


def test_a_job_with_a_line_and_its_picture_is_done(tmp_path: Path) -> None:
    """Line and picture together make a job done."""
    put(tmp_path, "images/a.png", b"one")
    log(tmp_path, done(b"one"))
    assert standing(tmp_path, job("a")) is Standing.DONE


def test_a_job_known_by_another_fingerprint_is_changed(tmp_path: Path) -> None:
    """Another request under the same id is another picture."""
    put(tmp_path, "images/a.png", b"one")
    log(tmp_path, done(b"one"))
    assert standing(tmp_path, job("a", "f2")) is Standing.CHANGED


@pytest.mark.parametrize("left", [None, b"", b"on"], ids=["deleted", "emptied", "cut"])
def test_a_done_job_without_its_whole_picture_is_missing(tmp_path: Path, left: bytes | None) -> None:
    """A picture that is gone, empty or shorter than it was does not count as there."""
    log(tmp_path, done(b"one"))
    if left is not None:
        put(tmp_path, "images/a.png", left)
    assert standing(tmp_path, job("a")) is Standing.MISSING


def test_one_missing_picture_of_several_makes_the_job_missing(tmp_path: Path) -> None:
    """All pictures of an answer belong to the job."""
    put(tmp_path, "images/a.png", b"one")
    second = picture_of(b"two", "images/a~1.png", 1)
    log(tmp_path, msgspec.structs.replace(done(b"one"), images=(*done(b"one").images, second)))
    assert standing(tmp_path, job("a")) is Standing.MISSING


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNCERTAIN])
def test_a_job_that_ended_without_a_picture_stands_so(tmp_path: Path, outcome: Outcome) -> None:
    """Failed and uncertain jobs are told apart from each other and from pending ones."""
    log(tmp_path, ended("a", outcome))
    assert standing(tmp_path, job("a")).value == outcome.value


def test_the_last_entry_of_a_job_is_the_one_that_was_written_last(tmp_path: Path) -> None:
    """Whatever its request was; a job that the log does not know has none."""
    log(tmp_path, done(fingerprint="f2"), done(b"two", fingerprint="f1"), done(id="b"))
    with looked_at(tmp_path) as records:
        assert records.last_entry("a") == done(b"two", fingerprint="f1")
        assert records.last_entry("nobody") is None


def test_jobs_that_only_the_log_knows_are_orphans(tmp_path: Path) -> None:
    """Each is named once, in the order of the log, however many entries it has."""
    log(tmp_path, done(id="c"), done(id="a"), done(id="b"), done(id="c", fingerprint="f2"))
    with looked_at(tmp_path) as records:
        assert records.orphans(["a", "new"]) == ["c", "b"]
        assert records.orphans("abc") == []


def test_a_log_can_be_read_again(tmp_path: Path) -> None:
    """Every whole line comes once more; a torn one does not, and what was damaged meanwhile is told with its place."""
    lines: list[bytes] = []
    with looked_at(tmp_path) as nothing:
        nothing.read_again(lines.append)
    assert lines == []
    log(tmp_path, done(id="a"), done(id="b"))
    whole = (tmp_path / LOG).read_bytes()
    with looked_at(tmp_path) as records:
        with (tmp_path / LOG).open("ab") as file:
            file.write(whole[:30])
        records.read_again(lines.append)
        assert lines == whole.splitlines(keepends=True)
        (tmp_path / LOG).write_bytes(b"x" + whole)
        with pytest.raises(UsageError, match=r"log\.jsonl:1: this line is damaged"):
            records.read_again(joblog.decode)  # type: ignore[arg-type]


def test_done_beats_a_later_failure_of_the_same_request(tmp_path: Path) -> None:
    """A picture that is there stays the job's, whatever a later try for the same request came to."""
    put(tmp_path, "images/a.png", b"one")
    log(tmp_path, done(b"one"), msgspec.structs.replace(ended("a", Outcome.FAILED), finished_at=LATER))
    assert standing(tmp_path, job("a")) is Standing.DONE


@pytest.mark.parametrize("load", [opened, looked_at], ids=["writer", "reader"])
@pytest.mark.parametrize("length", [0, 4000, 4096, 5000, 16_384, 100_000])
def test_a_line_of_any_length_is_found_again(
    tmp_path: Path, length: int, load: Callable[[Path], AbstractContextManager[Records]]
) -> None:
    """Whoever looks at a folder reads back whole entries from the middle of its log, however long their prompts."""
    wanted = msgspec.structs.replace(done(), request={"prompt": "x" * length})
    put(tmp_path, "images/a.png", b"one")
    log(tmp_path, done(id="before"), wanted, done(id="after"))
    note(tmp_path, intent("b"))
    with load(tmp_path) as records:
        assert records.standing(job("a")) is Standing.DONE
        assert records.entry("a", "f1") == wanted
        assert records.entry("a", "f2") is None
        assert records.last_n("a", "f1") == 1
        assert len(records.lives.of("b", "f1")) == 1


def test_a_short_line_is_found_without_reading_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look up one entry costs a few kilobytes, however much of the log follows it."""
    put(tmp_path, "images/a.png", b"one")
    log(tmp_path, done(), *(done(id=f"after-{number}") for number in range(100)))
    asked_bytes: list[int] = []
    with looked_at(tmp_path) as records:
        read_at = records.files.read_at

        def counting(handle: int, offset: int, size: int) -> bytes:
            asked_bytes.append(size)
            return read_at(handle, offset, size)

        monkeypatch.setattr(records.files, "read_at", counting)
        assert records.standing(job("a")) is Standing.DONE
    assert 0 < sum(asked_bytes) <= 8192


def test_a_copy_among_the_superseded_does_not_hide_a_picture(tmp_path: Path) -> None:
    """A picture that is in its place, and that no other entry could have put there, is the job's."""
    put(tmp_path, "images/a.png", b"one")
    put(tmp_path, superseded("images/a.png", "f1", hashlib.sha256(b"one").hexdigest()), b"one")
    log(tmp_path, done(b"one"))
    assert standing(tmp_path, job("a")) is Standing.DONE


# Superseded and brought back


def publish(folder: Folder, root: Path, of: Entry, data: bytes) -> None:
    """What a run does once a new picture is durable: room is made, the file gets its name, the log its line."""
    folder.make_way(of.job, [p.file for p in of.images])
    for p in of.images:
        put(root, p.file, data)
    folder.append_log(joblog.encode(of))


def again(of: Entry) -> Entry:
    return msgspec.structs.replace(of, attempts=(), notes=(*of.notes, "brought back"), finished_at=LATER)


@pytest.mark.parametrize("second", [b"two", b"2", b"a longer one"], ids=["same size", "shorter", "longer"])
def test_a_picture_whose_request_is_current_again_is_brought_back(tmp_path: Path, second: bytes) -> None:
    """From A to B and back to A: A's own bytes return to their name, B's are set aside, and the log says so."""
    first, other = done(b"one", fingerprint="fA"), done(second, fingerprint="fB")
    with opened(tmp_path) as folder:
        publish(folder, tmp_path, first, b"one")
    with opened(tmp_path) as folder:
        publish(folder, tmp_path, other, second)
    with opened(tmp_path) as folder:
        assert folder.standing(job("a", "fB")) is Standing.DONE
        assert folder.standing(job("a", "fA")) is Standing.SUPERSEDED
        folder.restore(job("a", "fA"), again)
        assert folder.standing(job("a", "fA")) is Standing.DONE
    with opened(tmp_path) as folder:
        assert folder.standing(job("a", "fA")) is Standing.DONE
        assert folder.standing(job("a", "fB")) is Standing.SUPERSEDED
        kept = folder.entry("a", "fA")
        assert kept is not None and kept.notes == ("brought back",)
        assert list(folder.entries()) == [kept]
        assert folder.fold.requests == 2
    found = tree(tmp_path)
    assert found.pop("images/a.png") == b"one"
    assert list(found.values()) == [second]


def test_superseded_pictures_are_named_by_request_and_content(tmp_path: Path) -> None:
    """An older picture moves to superseded/<id>~<fp8>~<sha8>.<ext>, in its folder, with all pictures of its answer."""
    two = entry(
        job="pets/fox",
        fingerprint="0123456789",
        images=(picture_of(b"one", "images/pets/fox.png"), picture_of(b"two", "images/pets/fox~1.png", 1)),
    )
    with opened(tmp_path) as folder:
        log(tmp_path, two)
        put(tmp_path, "images/pets/fox.png", b"one")
        put(tmp_path, "images/pets/fox~1.png", b"two")
    with opened(tmp_path) as folder:
        folder.make_way("pets/fox", ["images/pets/fox.jpg"])
    shas = {data: hashlib.sha256(data).hexdigest()[:8] for data in (b"one", b"two")}
    assert tree(tmp_path) == {
        f"superseded/pets/fox~01234567~{shas[b'one']}.png": b"one",
        f"superseded/pets/fox~1~01234567~{shas[b'two']}.png": b"two",
    }


def test_what_others_wrote_is_durable_before_it_is_relied_on(tmp_path: Path) -> None:
    """Logs and attempts of shards of another number are synced when they are read: a power cut later loses none."""
    synced: set[str] = set()

    class Watched(PosixFiles):
        def sync(self, handle: int) -> None:
            super().sync(handle)
            synced.add(str(Path(f"/proc/self/fd/{handle}").readlink().relative_to(tmp_path)))

    (tmp_path / ".batchgen").mkdir()
    (tmp_path / "log-1-of-2.jsonl").write_bytes(joblog.encode(done()))
    (tmp_path / ".batchgen/attempts-2-of-2.jsonl").write_bytes(joblog.encode(Intent("b", "f2", 1, AT, "r", 0.003)))
    files = Watched(tmp_path)
    folder = Folder(files)
    folder.load()
    folder.close()
    files.close_root()
    assert {"log-1-of-2.jsonl", ".batchgen/attempts-2-of-2.jsonl"} <= synced


def test_a_foreign_file_at_a_final_name_is_moved_aside(tmp_path: Path) -> None:
    """A file that no log line speaks of is neither overwritten nor lost."""
    put(tmp_path, "images/a.png", b"somebody's own")
    with opened(tmp_path) as folder:
        publish(folder, tmp_path, done(b"one"), b"one")
    sha8 = hashlib.sha256(b"somebody's own").hexdigest()[:8]
    assert tree(tmp_path) == {"images/a.png": b"one", f"superseded/a~00000000~{sha8}.png": b"somebody's own"}


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_file_at_a_final_name_is_an_error(tmp_path: Path, kind: str) -> None:
    """A folder, link or pipe in a picture's place is left alone and named."""
    in_the_way = tmp_path / "images/a.png"
    in_the_way.parent.mkdir()
    if kind == "folder":
        in_the_way.mkdir()
    elif kind == "link":
        in_the_way.symlink_to("elsewhere")
    else:
        subprocess.run(["mkfifo", in_the_way], check=True)
    with opened(tmp_path) as folder, pytest.raises(StorageError, match=r"images/a\.png is not a regular file"):
        folder.make_way("a", ["images/a.png"])
    assert in_the_way.is_symlink() or in_the_way.exists()


# Adoption


@pytest.mark.parametrize("where", ["final", "temporary"])
def test_a_picture_that_lost_only_its_line_is_adopted(tmp_path: Path, where: str) -> None:
    """After a crash the very line that was prepared enters the log, and the job is done without another request."""
    of = done(b"one", id="deep/a")
    with opened(tmp_path):
        pass
    note(tmp_path, intent("deep/a"), prepared(of))
    sha = of.images[0].sha256
    put(tmp_path, of.images[0].file if where == "final" else f".batchgen/tmp/{sha[:32]}-7", b"one")
    with opened(tmp_path) as folder:
        assert folder.standing(job("deep/a")) is Standing.DONE
        assert folder.lives.of("deep/a", "f1") == ()
        assert len(folder.notices) == 1 and "deep/a" in folder.notices[0]
    assert (tmp_path / LOG).read_bytes() == joblog.encode(of)
    assert tree(tmp_path) == {"images/deep/a.png": b"one"}
    with opened(tmp_path) as folder:
        assert folder.notices == []
    assert (tmp_path / LOG).read_bytes() == joblog.encode(of)


def test_a_prepared_picture_replaces_the_older_one_of_its_job(tmp_path: Path) -> None:
    """Adoption makes way like a run does: the picture of the former request is set aside."""
    put(tmp_path, "images/a.png", b"old")
    log(tmp_path, done(b"old", fingerprint="f0"))
    new = done(b"new")
    note(tmp_path, intent(), prepared(new))
    put(tmp_path, f".batchgen/tmp/{new.images[0].sha256[:32]}-0", b"new")
    with opened(tmp_path) as folder:
        assert folder.standing(job("a")) is Standing.DONE
        assert folder.standing(job("a", "f0")) is Standing.SUPERSEDED
    assert tree(tmp_path)["images/a.png"] == b"new"


@pytest.mark.parametrize("where", ["final", "temporary"])
def test_other_bytes_are_not_adopted(tmp_path: Path, where: str) -> None:
    """A file of the right name and size but with another digest proves nothing: the job stays in doubt."""
    of = done(b"one")
    with opened(tmp_path):
        pass
    note(tmp_path, intent(), prepared(of))
    put(tmp_path, "images/a.png" if where == "final" else f".batchgen/tmp/{of.images[0].sha256[:32]}-0", b"eno")
    with opened(tmp_path) as folder:
        assert folder.standing(job("a")) is Standing.PENDING
        assert len(folder.lives.doubtful()) == 1
    assert (tmp_path / LOG).read_bytes() == b""


def test_half_an_answer_is_not_adopted(tmp_path: Path) -> None:
    """Where one of several pictures is missing, none enters the log."""
    of = entry(images=(picture_of(b"one", "images/a.png"), picture_of(b"two", "images/a~1.png", 1)))
    note(tmp_path, intent(), prepared(of))
    put(tmp_path, "images/a.png", b"one")
    with opened(tmp_path) as folder:
        assert folder.standing(job("a")) is Standing.PENDING


def test_an_entry_that_is_in_the_log_is_not_adopted_again(tmp_path: Path) -> None:
    """A prepared line whose log line was written is old news."""
    put(tmp_path, "images/a.png", b"one")
    log(tmp_path, done(b"one"))
    note(tmp_path, intent(), prepared(done(b"one")))
    with opened(tmp_path) as folder:
        assert folder.notices == []
    assert (tmp_path / LOG).read_bytes() == joblog.encode(done(b"one"))


def test_two_equal_pictures_of_one_answer_are_adopted(tmp_path: Path) -> None:
    """An answer that holds the same picture twice survives a crash before its files got their names."""
    of = entry(images=(picture_of(b"one", "images/a.png"), picture_of(b"one", "images/a~1.png", 1)))
    with opened(tmp_path):
        pass
    note(tmp_path, intent(), prepared(of))
    sha = of.images[0].sha256
    put(tmp_path, f".batchgen/tmp/{sha[:32]}-0", b"one")
    put(tmp_path, f".batchgen/tmp/{sha[:32]}-1", b"one")
    with opened(tmp_path) as folder:
        assert folder.standing(job("a")) is Standing.DONE


def test_temporary_files_of_a_dead_run_are_swept_up(tmp_path: Path) -> None:
    """What belongs to no prepared entry does not pile up."""
    put(tmp_path, ".batchgen/tmp/left-over", b"half a picture")
    with opened(tmp_path):
        pass
    assert list((tmp_path / ".batchgen/tmp").iterdir()) == []


# The attempts file


def test_compacting_keeps_exactly_the_attempts_of_open_jobs(tmp_path: Path) -> None:
    """Attempts of jobs that are finished go, those of jobs that are not stay, each with how it ended."""
    put(tmp_path, "images/done.png", b"one")
    log(tmp_path, done(b"one", id="done", n=2))
    with opened(tmp_path) as folder:
        for line in (intent("done"), end("done"), intent("done", 2), prepared(done(b"one", id="done", n=2))):
            folder.append_attempts(line)
        for line in (intent("open"), end("open", counts=Counts.RATION), intent("open", 2), intent("closed")):
            folder.append_attempts(line)
        folder.compact({("open", "f1"), ("done", "f1")})
        folder.append_attempts(intent("later"))
    lines = (tmp_path / ATTEMPTS).read_bytes().splitlines(keepends=True)
    assert lines[0] == end("open", counts=Counts.RATION)
    assert lines[2] == intent("later")
    assert len(lines) == 3
    with opened(tmp_path) as folder:
        life = folder.lives.of("open", "f1")
        assert [(a.n, a.failure, a.counts) for a in life] == [
            (1, Failure.NO_ANSWER, Counts.RATION),
            (2, Failure.IN_DOUBT, Counts.DOUBT),
        ]
        assert folder.lives.of("done", "f1") == folder.lives.of("closed", "f1") == ()
    assert list((tmp_path / ".batchgen/tmp").iterdir()) == []


def test_an_intent_without_an_end_is_in_doubt(tmp_path: Path) -> None:
    """A request that was about to leave when the process died may have been paid for, and counts so."""
    note(tmp_path, intent("a", price_usd=0.5), intent("b"), end("b"))
    with opened(tmp_path) as folder:
        assert len(folder.lives.doubtful()) == 1
        assert folder.lives.exposure_usd() == 0.5
        assert folder.standing(job("a")) is Standing.PENDING


# Quarantine, state


def test_a_useless_answer_is_kept_in_part_for_whoever_wants_to_know(tmp_path: Path) -> None:
    """The first MiB of a bad answer lies in quarantine under its job and attempt; a second try overwrites nothing."""
    with opened(tmp_path) as folder:
        folder.quarantine("pets/fox", 2, b"x" * (2 << 20))
        folder.quarantine("pets/fox", 2, b"other")
    found = list((tmp_path / ".batchgen/quarantine").iterdir())
    assert [path.name for path in found] == ["pets~fox~2.body"]
    assert found[0].read_bytes() == b"x" * (1 << 20)


def test_the_longest_legal_id_can_be_quarantined(tmp_path: Path) -> None:
    """An id of several long parts is legal, so a bad answer for it must not fail for its name."""
    with opened(tmp_path) as folder:
        folder.quarantine("/".join(["x" * 180] * 4), 1, b"body")
    assert len(list((tmp_path / ".batchgen/quarantine").rglob("*"))) > 0


def test_the_state_is_replaced_whole(tmp_path: Path) -> None:
    """What was written last is what is read, and what cannot be read is no state."""
    with opened(tmp_path) as folder:
        assert read_state(folder.files) is None
        folder.write_state(State("m.yaml", run="run-1", pid=7))
        folder.write_state(State("m.yaml", run="run-2"))
        assert read_state(folder.files) == State("m.yaml", run="run-2")
        for damaged in (b'{"manifest": 3}', b'{"manifest": "\xff"}', b'{"x": ' + b"[" * 100_000, b"\0" * 9, b""):
            put(tmp_path, ".batchgen/state.json", damaged)
            assert read_state(folder.files) is None


# The lock, and others at work

HOLD = """
import sys, pathlib
from batchgen.folder import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the folder's lock."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        try:
            yield other
        finally:
            other.kill()


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    """The refusal names run, process and host, and the folder is free again once the holder was killed."""
    with opened(tmp_path) as folder:
        folder.write_state(State("m.yaml", run="20261122T220000Z-7f3a", pid=4711, host="nightly", started_at=AT))
    with held(tmp_path) as other:
        with pytest.raises(FolderBusy, match=r"20261122T220000Z-7f3a .*4711.* nightly.*nothing was touched"):
            locked(tmp_path).__enter__()
        other.kill()
        other.wait(30)
        with locked(tmp_path):
            pass


def test_a_holder_that_has_not_said_who_it_is_is_still_a_holder(tmp_path: Path) -> None:
    """Without a readable state the refusal names no run."""
    put(tmp_path, ".batchgen/state.json", b'{"manifest": "\xff"}')
    with held(tmp_path), pytest.raises(FolderBusy, match="another run is at work here"):
        locked(tmp_path).__enter__()


def rotate(path: Path) -> None:
    path.rename(path.with_suffix(".1"))
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


TAMPERING: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(b""),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"{}\n"),
    "removed": lambda path: path.unlink(),
    "moved away": lambda path: path.rename(path.with_suffix(".1")),
    "rotated": rotate,
    "replaced by a folder": make_folder,
}


@pytest.mark.parametrize("tamper", TAMPERING.values(), ids=TAMPERING.keys())
@pytest.mark.parametrize("path", [LOG, ATTEMPTS])
def test_a_file_that_somebody_else_changes_is_written_to_no_more(
    tmp_path: Path, path: str, tamper: Callable[[Path], object]
) -> None:
    """A log that was cut, rotated, moved or appended to by others stops the run instead of losing lines."""
    log(tmp_path, done())
    note(tmp_path, intent("open"))
    with opened(tmp_path) as folder:
        append = folder.append_log if path == LOG else folder.append_attempts
        append(intent() if path == ATTEMPTS else joblog.encode(done()))
        tamper(tmp_path / path)
        with pytest.raises(StorageError, match=path):
            append(b"{}\n")


def test_a_log_replaced_by_a_copy_of_itself_is_noticed_at_once(tmp_path: Path) -> None:
    """A file of the same size under the log's name is not the log: the next line must not go to the old one."""
    log(tmp_path, done())
    with opened(tmp_path) as folder:
        copy = tmp_path / "copy"
        copy.write_bytes((tmp_path / LOG).read_bytes())
        copy.rename(tmp_path / LOG)
        with pytest.raises(StorageError):
            folder.append_log(joblog.encode(done(id="b")))
