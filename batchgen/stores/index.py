"""Which objects there are, and how large: what one listing told, kept right afterwards. About 100 bytes an object."""

from __future__ import annotations

from collections.abc import Iterable

from batchgen.joblog import key

_FOLDER = -1


class Index:
    """Sizes by names, which are 60-bit hashes here; a name that only stands before others is a folder, of size -1."""

    def __init__(self, found: Iterable[tuple[str, int]]) -> None:
        self._sizes: dict[int, int] = {}
        last = ""
        for name, size_bytes in found:
            self._sizes[key(name)] = size_bytes
            folder = name.rpartition("/")[0]
            if folder != last:
                self._note_folders(folder)
                last = folder

    def _note_folders(self, folder: str) -> None:
        while folder:
            self._sizes.setdefault(key(folder), _FOLDER)
            folder = folder.rpartition("/")[0]

    def get(self, name: str) -> int | None:
        return self._sizes.get(key(name))

    def put(self, name: str, size_bytes: int) -> None:
        self._sizes[key(name)] = size_bytes
        self._note_folders(name.rpartition("/")[0])

    def remove(self, name: str) -> None:
        self._sizes.pop(key(name), None)
