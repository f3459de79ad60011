"""The real file operations: everything stays below the folder, is the owner's alone, and is written whole."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchgen.files import PosixFiles
from batchgen.world import SyncFailed


@pytest.fixture
def files(tmp_path: Path) -> Iterator[PosixFiles]:
    found = PosixFiles(tmp_path / "out")
    yield found
    found.close_root()


def put(files: PosixFiles, path: str, data: bytes = b"data") -> None:
    handle = files.create(path)
    files.write(handle, data)
    files.close(handle)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


WRITES: dict[str, Callable[[PosixFiles], object]] = {
    "create": lambda files: put(files, "new"),
    "append": lambda files: files.close(files.append_to("new")),
    "make_dir": lambda files: files.make_dir("new/deep"),
    "rename": lambda files: files.rename("old", "new"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_what_is_written_follows_the_folder_when_it_is_moved_away(
    files: PosixFiles, tmp_path: Path, write: Callable[[PosixFiles], object]
) -> None:
    """A folder that is renamed during use, and replaced by another, is still the one that is written to."""
    put(files, "old")
    (tmp_path / "out").rename(tmp_path / "moved")
    (tmp_path / "out").mkdir()
    write(files)
    assert (tmp_path / "moved" / "new").exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_was_removed_takes_nothing_more(files: PosixFiles, tmp_path: Path) -> None:
    """Once the folder is gone, a write fails instead of making it again elsewhere."""
    (tmp_path / "out").rmdir()
    with pytest.raises(FileNotFoundError):
        files.create("new")
    assert list(tmp_path.iterdir()) == []


OPENINGS: dict[str, Callable[[PosixFiles], object]] = {
    "create": lambda files: files.create("link"),
    "append": lambda files: files.append_to("link"),
    "open": lambda files: files.open("link"),
    "read": lambda files: files.read("link"),
}


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS.keys())
def test_a_symbolic_link_is_never_followed(
    files: PosixFiles, tmp_path: Path, opening: Callable[[PosixFiles], object]
) -> None:
    """A link at a file's name is an error, and what it points to is neither read nor changed."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "out" / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError) as caught:
        opening(files)
    assert caught.value.errno in (errno.ELOOP, errno.EEXIST)
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "write",
    [
        lambda files: put(files, "sub/new"),
        lambda files: files.close(files.append_to("sub/new")),
        lambda files: files.rename("old", "sub/new"),
    ],
    ids=["create", "append", "rename"],
)
def test_a_folder_replaced_by_a_link_is_not_written_through(
    files: PosixFiles, tmp_path: Path, write: Callable[[PosixFiles], object]
) -> None:
    """A subfolder that became a link to elsewhere during a run leads nowhere."""
    put(files, "old")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        write(files)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_files_and_folders_are_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    """A umask of 000 opens nothing: files have mode 0600, folders 0700."""
    old = os.umask(0)
    try:
        files = PosixFiles(tmp_path / "out")
        files.make_dir("a/b")
        put(files, "a/b/file")
        files.close(files.append_to("log"))
        files.close_root()
    finally:
        os.umask(old)
    modes = {path.relative_to(tmp_path).as_posix(): mode(path) for path in (tmp_path / "out").rglob("*")}
    assert modes == {"out/a": 0o700, "out/a/b": 0o700, "out/a/b/file": 0o600, "out/log": 0o600}
    assert mode(tmp_path / "out") == 0o700


def test_short_writes_are_completed(files: PosixFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes three bytes at a time still gets every byte, once and in order."""
    real = os.write
    monkeypatch.setattr("os.write", lambda handle, data: real(handle, bytes(data)[:3]))
    put(files, "file", b"0123456789")
    assert (tmp_path / "out" / "file").read_bytes() == b"0123456789"


def test_an_existing_name_is_not_created_again(files: PosixFiles, tmp_path: Path) -> None:
    """`create` refuses a name that is taken and leaves what is there alone."""
    put(files, "file", b"first")
    with pytest.raises(FileExistsError):
        files.create("file")
    assert (tmp_path / "out" / "file").read_bytes() == b"first"


@pytest.mark.parametrize("depth", ["a", "a/b", "a/b/c"])
@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_make_dir_refuses_what_is_no_folder(files: PosixFiles, tmp_path: Path, kind: str, depth: str) -> None:
    """A file or a link anywhere on the way is an error; a link to a real folder is one too."""
    (tmp_path / "real").mkdir()
    in_the_way = tmp_path / "out" / depth
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        in_the_way.write_bytes(b"")
    else:
        in_the_way.symlink_to(tmp_path / ("real" if kind == "link" else "nowhere"))
    with pytest.raises(OSError):
        files.make_dir("a/b/c")
    assert list((tmp_path / "real").iterdir()) == []


def test_make_dir_makes_all_that_is_missing_and_may_be_repeated(files: PosixFiles, tmp_path: Path) -> None:
    """Parents are made as well, and folders that are there are kept with what they hold."""
    files.make_dir("a/b")
    put(files, "a/b/file")
    files.make_dir("a/b/c")
    assert (tmp_path / "out/a/b/file").exists() and (tmp_path / "out/a/b/c").is_dir()


def test_a_missing_root_is_made_with_its_parents(tmp_path: Path) -> None:
    """The folder may lie several levels below anything that exists."""
    PosixFiles(tmp_path / "a/b/c").close_root()
    assert (tmp_path / "a/b/c").is_dir()


def test_sizes_tell_files_from_everything_else(files: PosixFiles, tmp_path: Path) -> None:
    """A regular file has its size, a folder, a link and a pipe -1, nothing None, also below something that is no
    folder."""
    put(files, "file", b"12345")
    files.make_dir("folder")
    (tmp_path / "out/link").symlink_to("file")
    os.mkfifo(tmp_path / "out/pipe")
    names = ("file", "folder", "link", "pipe", "nothing", "file/below")
    assert [files.size_of(name) for name in names] == [5, -1, -1, -1, None, None]


def test_reading_a_pipe_does_not_wait_for_a_writer(files: PosixFiles, tmp_path: Path) -> None:
    """A pipe at a file's name yields nothing instead of hanging the run."""
    os.mkfifo(tmp_path / "out/pipe")
    assert files.read("pipe") == b""


def test_renaming_and_truncating_and_reading_do_what_they_say(files: PosixFiles) -> None:
    """The plain operations, one after another."""
    handle = files.append_to("old")
    files.write(handle, b"0123456789")
    assert files.read_at(handle, 3, 4) == b"3456"
    files.truncate(handle, 5)
    files.write(handle, b"x")
    assert files.size(handle) == 6
    files.sync(handle)
    files.close(handle)
    files.rename("old", "new")
    files.sync_dir(".")
    assert files.read("new") == b"01234x"
    assert files.names(".") == ["new"]
    files.remove("new")
    assert files.names(".") == []
    assert files.free_bytes() > 0


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_a_failed_sync_is_told_apart_from_other_errors(
    files: PosixFiles, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whoever asks for durability and does not get it hears SyncFailed, with the system's own reason."""

    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(SyncFailed, match="Input/output error") as caught:
        if call == "fsync":
            files.sync_dir(".")
        else:
            files.sync(files.append_to("file"))
    assert caught.value.errno == errno.EIO
