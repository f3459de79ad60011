"""A store as a run uses it: does it belong to this folder, does it do what is needed, copies of log and summary."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from batchgen.address import Address
from batchgen.layout import PRIVATE, books_among
from batchgen.model import UsageError
from batchgen.stores.files import StoreFiles
from batchgen.stores.mark import MARK, Mark, decode_mark, read_mark, write_mark
from batchgen.stores.objects import Objects
from batchgen.world import Files, StoreFailed

_PROBE = b"batchgen looks whether it may write, read and delete here\n"


class Store:
    """The pictures' place. `files` is the whole output folder, pictures and all."""

    def __init__(
        self,
        address: Address,
        local: Files,
        alone: Callable[[], AbstractContextManager[None]] = nullcontext,
        connect: Callable[[Address], Objects] = Objects,
    ) -> None:
        self.address, self._alone = address, alone
        self.files = StoreFiles(local, str(address), lambda: connect(address))

    def check(self, *, redo_missing: bool = False) -> None:
        """Raises UsageError where the folder's pictures are elsewhere, or the store's log is."""
        with self._alone():
            mine = self._check_folder()
            theirs = owner(self.files.objects, mine)
        if mine and not theirs and self._has_log() and not redo_missing:
            raise UsageError(
                f"{self.address} does not hold {MARK}, which earlier runs put there: is it another server, or was it"
                " emptied? Look at the endpoint, or add --redo-missing to make what is gone, and pay for it, again"
            )

    def _check_folder(self) -> Mark | None:
        mark = read_mark(self.files.local)
        if mark and mark.store != str(self.address):
            raise UsageError(
                f"this output's pictures are in {mark.store}, not in {self.address}; use that with -o, or name another"
                " folder for log and state with --state"
            )
        if mark is None and self._has_log():
            raise UsageError(
                f"this output has its pictures in the folder itself, not in {self.address}; name another folder for log"
                " and state with --state"
            )
        return mark

    def _has_log(self) -> bool:
        local = self.files.local
        return any(local.size_of(books.log) for books in books_among(local.names(".")))

    def claim(self, mark: Mark) -> None:
        """Probe the store, list it, and leave a mark in the local folder and in it, `mark` where there is none yet.

        Raises UsageError where another machine that began at the same instant was quicker.
        """
        probe(self.files.objects, mark.id)
        self.files.look()
        with self._alone():
            known = read_mark(self.files.local)
            if known is None:
                write_mark(self.files.local, mark)
            try:
                self._claim(known or mark)
            except UsageError:
                if known is None:
                    self.files.local.remove(MARK)
                raise

    def _claim(self, mark: Mark) -> None:
        objects = self.files.objects
        if owner(objects, mark) is None:
            objects.create(MARK, mark.encode(), {"Content-Type": "application/json"})
            if owner(objects, mark) is None:
                raise StoreFailed(f"{self.address}: {MARK} was just put and is not there")

    def is_newer(self, path: str) -> bool:
        """Whether a local file differs from its copy: a log by its size, for it only grows; another always."""
        size_bytes = self.files.local.size_of(path)
        grows = path.endswith(".jsonl")
        return size_bytes is not None and not (grows and self.files.objects.size(path) == size_bytes)


def owner(objects: Objects, mine: Mark | None) -> Mark | None:
    """The mark that lies in the store. Raises UsageError where it is another folder's than that of `mine`."""
    try:
        theirs = decode_mark(objects.get(MARK))
    except FileNotFoundError:
        return None
    if theirs and theirs.id != (mine.id if mine else ""):
        raise UsageError(
            f"{objects.address} holds the pictures of {theirs.manifest}, whose log is in {theirs.folder} on"
            f" {theirs.host}: use that folder (--state), choose another prefix, or, if that folder is lost, bring"
            f" its log.jsonl and {MARK} back from the copies below this prefix"
        )
    return theirs


def probe(objects: Objects, id: str) -> None:
    """Put, look at, get and delete one tiny object. Raises StoreFailed where one of them does not work."""
    place, name = objects.address, f"{PRIVATE}/probe-{id}"
    try:
        objects.put(name, _PROBE)
        size_bytes, data = objects.size(name), objects.get(name)
    except FileNotFoundError as error:
        raise StoreFailed(f"{place}: an object that was just put is not there") from error
    if size_bytes != len(_PROBE) or data != _PROBE:
        raise StoreFailed(f"{place}: the store returns something else than what was put")
    objects.delete(name)
    if objects.size(name) is not None:
        raise StoreFailed(f"{place}: the store keeps objects that were deleted")
