"""Where an output's pictures are: in its folder, or in the store that folder and session agree on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from batchgen import address
from batchgen.address import Address
from batchgen.files import PosixFiles
from batchgen.model import UsageError
from batchgen.settings import Settings
from batchgen.stores import Objects, Store, StoreFiles, owner, probe, read_mark
from batchgen.world import Files

OutputFiles = PosixFiles | StoreFiles


def store_of(
    settings: Settings,
    local: Files,
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
    connect: Callable[[Address], Objects] = Objects,
) -> Store | None:
    """The store that the session names, None where pictures are files. `alone` keeps other shards away.

    Raises UsageError where folder and store do not belong together, StoreFailed where the store cannot be asked.
    """
    if settings.store:
        store = Store(settings.store, local, alone, connect)
        store.check(redo_missing=settings.selection.redo_missing)
        return store
    if mark := read_mark(local):
        raise UsageError(
            f"{settings.output}: the pictures of this output are in {mark.store}; add -o {mark.store} --state"
            f" {settings.output}, or choose another folder with -o"
        )
    return None


def check_store(settings: Settings, files: Files) -> None:
    """`store_of` for one who only looks, at the files of a folder where a run has been."""
    store_of(settings, files.local if isinstance(files, StoreFiles) else files)


def try_store(place: Address, *, new: bool) -> None:
    """Put, look at, get and delete an object; for a `new` output also look whether the prefix is somebody else's."""
    objects = Objects(place)
    if new:
        owner(objects, None)
    probe(objects, f"check-{os.getpid()}")


def files_of(local: PosixFiles, env: Mapping[str, str]) -> OutputFiles:
    """An output folder as one who only reads it sees it, pictures and all; the store is asked when it is needed."""
    mark = read_mark(local)
    return local if mark is None else StoreFiles(local, mark.store, lambda: Objects(address.at(mark.store, env)))
