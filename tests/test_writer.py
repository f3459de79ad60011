"""The writer: in which order a group becomes durable, what a failing disk does to it, and that nobody waits forever."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from samples import attempt, entry, job

from batchgen import images, joblog
from batchgen.files import PosixFiles
from batchgen.folder import Folder
from batchgen.joblog import Draft
from batchgen.layout import Books
from batchgen.metadata import Embedded
from batchgen.model import BadAnswer, Entry, Job, Outcome, Secret, ServerError, StorageError
from batchgen.protocol import Drawn, nebula
from batchgen.sink import LocalSink
from batchgen.world import Delivery, Result, SyncFailed, Verdict, Work
from batchgen.writer import HOPE_S, RETRY_S, Committer, Patience, Stager, Writer

KEY = Secret("canary-key-123")
TMP = ".batchgen/tmp"
ATTEMPTS = ".batchgen/attempts.jsonl"


def picture(colour: str = "red", size: tuple[int, int] = (8, 4), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def delivery(id: str = "a", *drawn: Drawn, body: bytes | None = None, **request: Any) -> Delivery:
    """An answer with these pictures, or with one."""
    found = body if body is not None else nebula.encode_answer("flux", drawn or [Drawn(picture(), 0, 1.5)])
    return Delivery(Draft(job(id, **request), "r", "m.yaml", "nebula", (attempt(),), ready_s=-10.0), found)


class FakeClock:
    """Time passes only when somebody pauses."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return datetime(2026, 11, 22, 12, tzinfo=UTC)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds


class Disk(PosixFiles):
    """The real files; every change is noted as `operation path`, and chosen ones fail."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.did: list[str] = []
        self.failing = ""
        self.errno = self.times = 0
        self.on: Callable[[str], None] = lambda operation: None
        self._paths: dict[int, str] = {}

    def fail(self, operation: str, code: int, times: int = 1) -> None:
        """The next `times` operations that begin so fail with this error number."""
        self.failing, self.errno, self.times = operation, code, times

    def _do(self, operation: str) -> None:
        self.did.append(operation)
        self.on(operation)
        if self.times and operation.startswith(self.failing):
            self.times -= 1
            raise OSError(self.errno, os.strerror(self.errno))

    def create(self, path: str) -> int:
        self._do(f"create {path}")
        return self._remember(super().create(path), path)

    def append_to(self, path: str) -> int:
        return self._remember(super().append_to(path), path)

    def _remember(self, handle: int, path: str) -> int:
        self._paths[handle] = path
        return handle

    def write(self, handle: int, data: bytes) -> None:
        try:
            self._do(f"write {self._paths[handle]}")
        except OSError:
            super().write(handle, data[: len(data) // 2])
            raise
        super().write(handle, data)

    def sync(self, handle: int) -> None:
        try:
            self._do(f"sync {self._paths[handle]}")
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror) from error

    def sync_dir(self, path: str) -> None:
        try:
            self._do(f"sync_dir {path}")
        except OSError as error:
            raise SyncFailed(error.errno, error.strerror) from error

    def make_dir(self, path: str) -> None:
        self._do(f"make_dir {path}")
        super().make_dir(path)

    def rename(self, old: str, new: str) -> None:
        self._do(f"rename {new}")
        super().rename(old, new)

    @property
    def story(self) -> list[str]:
        """What was done, without the temporary files' own names."""
        return [re.sub(f"(?<={TMP})/.*", "", did) for did in self.did]


class Desk:
    """A committer over a real folder on a disk that can be told to fail."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock = root, FakeClock()
        self.disk = Disk(root)
        self.folder = Folder(self.disk)
        self.folder.load()
        self.disk.did.clear()
        sink = LocalSink(self.disk, Books().tmp)
        self.patience = Patience(self.clock, self.clock.pause)
        self.stager = Stager(
            decode=nebula.decode_answer,
            check=images.check,
            sink=sink,
            clock=self.clock,
            patience=self.patience,
            key=KEY,
            quarantine=self.folder.quarantine,
        )
        self.committer = Committer(self.stager.written, sink, self.folder, self.patience)

    def commit(self, *group: Work) -> list[Result]:
        return self.committer.commit(group)

    @property
    def log(self) -> list[Entry]:
        return [joblog.decode(line) for line in (self.root / "log.jsonl").read_bytes().splitlines()]

    @property
    def pictures(self) -> set[str]:
        return {str(p.relative_to(self.root)) for p in (self.root / "images").rglob("*") if p.is_file()}

    def left_over(self) -> list[Path]:
        return list((self.root / TMP).iterdir())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    found.folder.close()
    found.disk.close_root()


# The order


def test_a_group_becomes_durable_in_one_order(desk: Desk) -> None:
    """Pictures, then their entries in the attempts file, then the names, then the log lines: each synced before the
    next begins."""
    results = desk.commit(delivery("a"), delivery("b", Drawn(picture("blue"))))
    steps = [did for did in desk.disk.story if not did.startswith("make_dir")]
    assert steps == [
        *[f"create {TMP}", f"write {TMP}"] * 2,
        *[f"sync {TMP}"] * 2,
        *[f"write {ATTEMPTS}", f"sync {ATTEMPTS}"],
        *["rename images/a.png", "rename images/b.png", "sync_dir images"],
        *["write log.jsonl", "sync log.jsonl"],
    ]
    assert [r.job for r in results if isinstance(r, Entry)] == ["a", "b"]


def test_what_is_prepared_is_the_log_line_itself(desk: Desk) -> None:
    """The entry that the attempts file gets before the renames is, byte for byte, the line of the log."""
    desk.commit(delivery("a"))
    log = (desk.root / "log.jsonl").read_bytes()
    assert joblog.prepared(joblog.decode(log), log) == (desk.root / ATTEMPTS).read_bytes()


def test_every_folder_that_got_a_name_is_synced(desk: Desk) -> None:
    """Ids with folders have their names made durable too, before the log tells of them."""
    desk.commit(delivery("pets/fox"), delivery("pets/big/bear"))
    before_log = desk.disk.did[: desk.disk.did.index("write log.jsonl")]
    assert {"sync_dir images/pets", "sync_dir images/pets/big"} <= set(before_log)
    assert desk.pictures == {"images/pets/fox.png", "images/pets/big/bear.png"}


def test_a_verdict_needs_no_picture(desk: Desk) -> None:
    """A job that ended without a picture is a log line, durable when the call returns, and nothing else."""
    [result] = desk.commit(Verdict(delivery().draft, Outcome.FAILED))
    assert isinstance(result, Entry) and (result.outcome, result.images) == (Outcome.FAILED, ())
    assert desk.disk.story == [f"sync {ATTEMPTS}", "write log.jsonl", "sync log.jsonl"]
    assert desk.log == [result]


async def test_nobody_hears_of_a_job_before_its_line_is_durable(desk: Desk) -> None:
    """The future of a job is still open while the log is being synced."""
    writer = Writer(desk.committer, asyncio.get_running_loop())
    seen = []
    desk.disk.on = lambda operation: seen.append(future.done()) if operation == "sync log.jsonl" else None
    future = writer.submit(delivery("a"))
    assert isinstance(await future, Entry)
    assert seen == [False]
    assert writer.close()


# What an entry says


def test_an_entry_tells_what_the_server_and_the_clock_said(desk: Desk) -> None:
    """Dimensions and format come from the bytes, the inference time from the server, the total from the start."""
    data = picture(size=(9, 7), kind="JPEG")
    [result] = desk.commit(delivery("a", Drawn(data, 0, 2.25), width=9, height=7))
    assert isinstance(result, Entry)
    [kept] = result.images
    assert (kept.file, kept.format, kept.width, kept.height) == ("images/a.jpg", "jpeg", 9, 7)
    assert kept.size_bytes == len(data) and (desk.root / kept.file).read_bytes() == data
    assert result.inference_s == kept.inference_s == 2.25
    assert result.timings.total_s == 10.0
    assert result.notes == ()


@pytest.mark.parametrize(
    ("indices", "told"),
    [((0, 1), {0: "red", 1: "blue"}), ((2, 0), {0: "blue", 2: "red"}), ((4, 4), {0: "red", 1: "blue"})],
    ids=["in order", "out of order", "all the same"],
)
def test_several_pictures_of_one_answer_are_all_kept(
    desk: Desk, indices: tuple[int, int], told: dict[int, str]
) -> None:
    """The first bears the id, the others their index behind a tilde; the log tells them in order, and that they are
    many."""
    [result] = desk.commit(delivery("a", Drawn(picture("red"), indices[0]), Drawn(picture("blue"), indices[1])))
    assert isinstance(result, Entry)
    assert [p.index for p in result.images] == list(told)
    assert [p.file for p in result.images] == ["images/a.png", f"images/a~{max(told)}.png"]
    assert [(desk.root / p.file).read_bytes() for p in result.images] == [picture(told[i]) for i in told]
    assert result.notes == ("2 pictures came for one request",)


def test_pictures_that_were_asked_for_need_no_note(desk: Desk) -> None:
    """Who asks for n pictures is not told that several came."""
    [result] = desk.commit(delivery("a", Drawn(picture(), 0), Drawn(picture("blue"), 1), n=2))
    assert isinstance(result, Entry) and result.notes == ()


@pytest.mark.parametrize(
    ("asked", "noted"),
    [
        ({"width": 8, "height": 4}, False),
        ({"width": 8}, False),
        ({}, False),
        ({"width": 16, "height": 4}, True),
        ({"height": 5}, True),
    ],
    ids=str,
)
def test_a_picture_of_another_size_is_kept_and_noted(desk: Desk, asked: dict[str, Any], noted: bool) -> None:
    """It was paid for: a wrong size is a note in the log, not a failure."""
    [result] = desk.commit(delivery("a", **asked))
    assert isinstance(result, Entry) and result.outcome is Outcome.DONE
    assert [note.startswith("the picture is 8 x 4, asked for was") for note in result.notes] == [True] * noted


# What is put into pictures


def test_the_log_tells_of_the_file_and_of_what_was_received(desk: Desk) -> None:
    """Where a picture is finished before it is written, size and digest are the file's, which is what adoption and
    verification compare; the digest of the server's bytes stands beside them, and notes are kept."""
    desk.stager.finish = lambda data, facts, job: Embedded(data + f" of {job.id}".encode(), ("a note",))
    [result] = desk.commit(delivery("a"))
    assert isinstance(result, Entry) and result.notes == ("a note",)
    [kept] = result.images
    written = (desk.root / kept.file).read_bytes()
    assert written == picture() + b" of a"
    assert (kept.size_bytes, kept.sha256) == (len(written), hashlib.sha256(written).hexdigest())
    assert kept.received_sha256 == hashlib.sha256(picture()).hexdigest()
    assert desk.log == [result]


def test_a_picture_that_is_written_as_it_came_has_one_digest(desk: Desk) -> None:
    """Without embedding the log says nothing twice."""
    desk.commit(delivery("a"))
    assert b"received" not in (desk.root / "log.jsonl").read_bytes()


def test_what_cannot_be_finished_is_saved_as_it_came(desk: Desk) -> None:
    """A paid picture is never lost over its metadata: the server's bytes are written, and the entry notes it."""

    def fail(data: bytes, facts: images.ImageFacts, job: Job) -> Embedded:
        raise IndexError("odd\npicture")

    desk.stager.finish = fail
    [result] = desk.commit(delivery("a"))
    assert isinstance(result, Entry) and result.outcome is Outcome.DONE
    assert result.notes == ("no metadata was embedded: odd picture",)
    assert (desk.root / "images/a.png").read_bytes() == picture()


# Bad company


BAD = b'{"data": [{"b64_json": "bm8gcGljdHVyZQ=="}], "echo": "Bearer canary-key-123"}'


def test_a_bad_answer_hurts_nobody_else_and_is_kept_without_the_key(desk: Desk) -> None:
    """Of a group with one useless answer the others are saved; its body goes to quarantine, the key hidden."""
    results = desk.commit(delivery("a"), delivery("bad", body=BAD), delivery("b"))
    assert [type(r) for r in results] == [Entry, BadAnswer, Entry]
    assert [e.job for e in desk.log] == ["a", "b"]
    [kept] = (desk.root / ".batchgen/quarantine").iterdir()
    assert kept.name == "bad~1.body"
    assert b"canary" not in kept.read_bytes() and b'"Bearer ***"' in kept.read_bytes()


def test_an_error_in_a_success_answer_is_handed_back(desk: Desk) -> None:
    """An answer with status 200 that is an error after all ends no job here, and writes nothing."""
    [result] = desk.commit(delivery("a", body=nebula.encode_error("no such luck")))
    assert isinstance(result, ServerError) and result.message == "no such luck"
    assert desk.disk.did == []


def test_an_unexpected_error_over_one_answer_is_that_answers_alone(desk: Desk) -> None:
    """Whatever decoding or checking raises is handed back for that job; the group goes on."""

    def check(data: bytes) -> images.ImageFacts:
        if data == picture("blue"):
            raise RecursionError("too deep")
        return images.check(data)

    desk.stager.check = check
    results = desk.commit(delivery("a"), delivery("bad", Drawn(picture("blue"))), delivery("b"))
    assert [type(r) for r in results] == [Entry, RecursionError, Entry]
    assert desk.pictures == {"images/a.png", "images/b.png"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENAMETOOLONG], ids=["disk full", "name too long"])
def test_a_quarantine_that_fails_costs_no_paid_picture(desk: Desk, code: int) -> None:
    """Keeping a useless answer is a courtesy: where it is impossible, the good answers beside it are saved."""
    desk.disk.fail("create .batchgen/quarantine", code)
    results = desk.commit(delivery("a"), delivery("bad", body=BAD))
    assert [type(r) for r in results] == [Entry, BadAnswer]


# A failing disk

STEPS = [
    f"create {TMP}",
    f"write {TMP}",
    f"write {ATTEMPTS}",
    "make_dir images",
    "rename images/b.png",
    "write log.jsonl",
]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_is_waited_for(desk: Desk, step: str, code: int) -> None:
    """Wherever room runs out, the step is done again after a pause, and what is there at the end is there once."""
    desk.disk.fail(step, code, times=2)
    results = desk.commit(delivery("a"), delivery("b", Drawn(picture("blue"))))
    assert desk.clock.pauses == [RETRY_S, RETRY_S]
    assert desk.log == results
    assert desk.pictures == {"images/a.png", "images/b.png"}
    assert (desk.root / "images/b.png").read_bytes() == picture("blue")
    assert desk.left_over() == []
    assert not (desk.root / "superseded").exists()
    prepared = [joblog.decode_note(line) for line in (desk.root / ATTEMPTS).read_bytes().splitlines()]
    assert [note.job for note in prepared] == ["a", "b"]


@pytest.mark.parametrize("step", STEPS)
def test_while_the_disk_is_full_nothing_is_half_visible(desk: Desk, step: str) -> None:
    """At every pause the log holds whole lines only, and pictures under their names are whole ones."""
    seen = 0

    def pause(seconds: float) -> None:
        nonlocal seen
        seen += 1
        assert desk.log == []
        for name in desk.pictures:
            images.check((desk.root / name).read_bytes())

    desk.patience.pause = pause
    desk.disk.fail(step, errno.ENOSPC)
    desk.commit(delivery("a"), delivery("b", Drawn(picture("blue"))))
    assert seen == 1


def test_hope_for_room_ends(desk: Desk) -> None:
    """After ten minutes without room the error is told, and the log holds nothing of the group."""
    desk.disk.fail(f"write {TMP}", errno.ENOSPC, times=10_000)
    with pytest.raises(OSError, match="No space left"):
        desk.commit(delivery("a"))
    assert sum(desk.clock.pauses) == HOPE_S
    assert desk.log == [] and desk.pictures == set() and desk.left_over() == []


@pytest.mark.parametrize(
    "step", [f"sync {TMP}", f"sync {ATTEMPTS}", "sync_dir images", "sync log.jsonl"], ids=lambda step: step
)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_failed_sync_is_never_tried_again(desk: Desk, step: str, code: int) -> None:
    """After a failed sync the data may be gone, and another one that succeeds would prove nothing: no pause, no
    second try, no result."""
    desk.disk.fail(step, code)
    with pytest.raises(SyncFailed):
        desk.commit(delivery("a"))
    assert desk.clock.pauses == []
    assert len([did for did in desk.disk.did if did.startswith(step)]) == 1


@pytest.mark.parametrize("path", ["log.jsonl", ATTEMPTS])
def test_a_file_whose_sync_failed_takes_nothing_more(desk: Desk, path: str) -> None:
    """What follows a failed sync of log or attempts is refused, not written on top of what may be lost."""
    desk.disk.fail(f"sync {path}", errno.EIO)
    with pytest.raises(SyncFailed):
        desk.commit(delivery("a"))
    size = (desk.root / path).stat().st_size
    with pytest.raises(StorageError, match=path):
        desk.commit(delivery("b"))
    assert (desk.root / path).stat().st_size == size


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_a_broken_disk_is_not_waited_for(desk: Desk, step: str, code: int) -> None:
    """An input/output error or a read-only disk gets no better by waiting."""
    desk.disk.fail(step, code)
    with pytest.raises(OSError) as caught:
        desk.commit(delivery("a"), delivery("b"))
    assert caught.value.errno == code
    assert desk.clock.pauses == []
    assert desk.log == []


def test_a_folder_in_a_pictures_place_is_an_error_and_stays(desk: Desk) -> None:
    """What is no file at a final name is neither replaced nor removed, and the log does not lie."""
    (desk.root / "images/a.png").mkdir()
    with pytest.raises(StorageError, match=r"images/a\.png is not a regular file"):
        desk.commit(delivery("a"))
    assert (desk.root / "images/a.png").is_dir() and desk.log == []


# The thread


def test_one_answer_at_a_time_is_open(desk: Desk) -> None:
    """The next answer is taken when the pictures of the one before it are written: a group is never in memory whole."""
    sink = desk.committer.sink
    assert isinstance(sink, LocalSink)
    written = []

    def works() -> Iterator[Work]:
        for name in "abc":
            written.append(len(sink.files.names(sink.tmp)))
            yield delivery(name)

    assert len(desk.committer.commit(works())) == 3
    assert written == [0, 1, 2]


class Stub:
    """A committer that only calls what it was given."""

    def __init__(self, commit: Callable[[Sequence[Work]], list[Result]]) -> None:
        self._does = commit

    def commit(self, group: Iterable[Work]) -> list[Result]:
        return self._does(list(group))

    def salvage(self, group: Iterable[Work]) -> None:
        list(group)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("oops"), MemoryError(), OSError(errno.EIO, "Input/output error"), StorageError("the log was moved")],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_goes_wrong_every_future_ends(error: Exception) -> None:
    """An error of any kind resolves the futures of its group and of all that follow with a StorageError, and the thread
    still ends when told to."""
    calls = 0

    def fail(group: Sequence[Work]) -> list[Result]:
        nonlocal calls
        calls += 1
        raise error

    writer = Writer(Stub(fail), asyncio.get_running_loop())
    results = await asyncio.gather(*(writer.submit(delivery(str(n))) for n in range(3)), return_exceptions=True)
    results.append((await asyncio.gather(writer.submit(delivery("late")), return_exceptions=True))[0])
    assert all(isinstance(result, StorageError) for result in results)
    assert str(error) in str(results[0])
    before = calls
    await asyncio.gather(writer.submit(delivery("later")), return_exceptions=True)
    assert calls == before, "after a failure nothing more is tried"
    assert writer.close()


async def test_results_come_back_to_the_work_they_belong_to() -> None:
    """However the thread groups what waits, each future gets the result of its own work."""

    def commit(group: Sequence[Work]) -> list[Result]:
        return [entry(job=work.draft.job.id) for work in group]

    writer = Writer(Stub(commit), asyncio.get_running_loop())
    results = await asyncio.gather(*(writer.submit(delivery(str(n))) for n in range(100)))
    assert [r.job for r in results if isinstance(r, Entry)] == [str(n) for n in range(100)]
    assert writer.close()


async def test_closing_writes_what_still_waits(desk: Desk) -> None:
    """Answers that were handed over before the end are in the log after it."""
    writer = Writer(desk.committer, asyncio.get_running_loop())
    futures = [writer.submit(delivery(f"j{n}")) for n in range(40)]
    assert writer.close()
    assert [e.job for e in desk.log] == [f"j{n}" for n in range(40)]
    await asyncio.gather(*futures)


async def test_a_cancelled_future_does_not_stop_the_others(desk: Desk) -> None:
    """Who no longer waits for a result loses only that: it is written, and the others are told theirs."""
    writer = Writer(desk.committer, asyncio.get_running_loop())
    given_up, kept = writer.submit(delivery("a")), writer.submit(delivery("b"))
    given_up.cancel()
    assert isinstance(await kept, Entry)
    assert writer.close()
    assert [e.job for e in desk.log] == ["a", "b"]
