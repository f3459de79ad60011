"""Where things stand in JSON text: its members, their places, keys said twice. Knows nothing of jobs.

The quick decoder tells no places, so the text is read again, by the standard one, once a problem asks for a place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_BLANK = re.compile(r"[ \t\r\n]*")


class Piece(NamedTuple):
    """The JSON text of one job, where it starts, and its name in a map of jobs."""

    line: int
    column: int
    text: str
    key: str | None = None

    def at(self, offset: int) -> tuple[int, int]:
        """The place of one of its characters."""
        before = self.text[:offset]
        lines = before.count("\n")
        return self.line + lines, offset - before.rfind("\n") if lines else self.column + offset

    def place(self, path: str) -> tuple[int, int]:
        """The place of the value at `path`, of the object that holds it if there is none."""
        offset = 0
        while path:
            spots = _spots(self.text, offset)
            name, _, rest = (path, "", "") if path in spots else path.partition(".")
            if name not in spots:
                break
            offset, path = spots[name], rest
        return self.at(offset)


# A number of any length is no error here: what it means is decided elsewhere.
_decoder = json.JSONDecoder(parse_int=float)


def members(document: str, at: int, *, alone: bool = False) -> Iterator[tuple[str | None, int, int]]:
    """Key, start and end of each value in the array or object that starts at `at`; `alone`: nothing may follow it.

    Raises JSONDecodeError, and RecursionError for what is nested too deep.
    """
    opening, closing = document[at], {"[": "]", "{": "}"}[document[at]]
    at = after_blanks(document, at + 1)
    more = document[at : at + 1] != closing
    while more:
        key = None
        if opening == "{":
            if document[at : at + 1] != '"':
                raise json.JSONDecodeError("expected a key in double quotes", document, at)
            key, at = _decoder.raw_decode(document, at)
            at = _expect(document, at, ":")
        start = at
        _, at = _decoder.raw_decode(document, start)
        yield key, start, at
        at = after_blanks(document, at)
        more = document[at : at + 1] != closing
        if more:
            at = _expect(document, at, ",")
    if alone and (rest := after_blanks(document, at + 1)) < len(document):
        raise json.JSONDecodeError("Extra data", document, rest)


def _spots(document: str, at: int) -> dict[str, int]:
    """Where the values of the object at `at` start; nothing if there is no object."""
    at = after_blanks(document, at)
    try:
        return {key: start for key, start, _ in members(document, at) if key is not None} if document[at] == "{" else {}
    except (json.JSONDecodeError, RecursionError):
        return {}


class _Twice(Exception):
    """A key that stands twice in one object."""


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))


_strict_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_int=float)


def said_twice(document: str) -> tuple[str, int] | None:
    """A key that stands twice in an object, and where the second stands if that is the outermost object."""
    try:
        _strict_decoder.decode(document)
    except _Twice as twice:
        key = str(twice)
        spots = [start for name, start, _ in members(document, after_blanks(document, 0)) if name == key]
        return key, spots[1] if len(spots) > 1 else 0
    except RecursionError:  # told by the check of values
        pass
    return None


def _expect(document: str, at: int, char: str) -> int:
    at = after_blanks(document, at)
    if document[at : at + 1] != char:
        raise json.JSONDecodeError(f"expected {char!r}", document, at)
    return after_blanks(document, at + 1)


def after_blanks(document: str, at: int) -> int:
    found = _BLANK.match(document, at)
    assert found
    return found.end()
