"""The base64 of an answer cut out of its raw bytes, so that a JSON reader meets only the little that is left.

Bytes alone: what the pieces mean, and whether the cuts were right, is decided by the module of the wire format.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from batchgen.model import Body

MAX_VALUES = 100_000

_OPENING = re.compile(rb'"b64_json"\s*:\s*"')


class Parts(NamedTuple):
    """An answer in pieces: what stands between the quotes of each `b64_json`, and all the rest in one."""

    texts: list[memoryview]
    rest: bytes


def cut(body: Body) -> Parts:
    """The parts of `body`, which need not be JSON: a cut lies within one text of it, or behind its first mistake."""
    view, at = memoryview(body), 0
    texts: list[memoryview] = []
    kept: list[memoryview] = []
    while len(texts) <= MAX_VALUES and (opening := _OPENING.search(body, at)):
        if (end := body.find(b'"', opening.end())) < 0:
            break
        kept.append(view[at : opening.end()])
        texts.append(view[opening.end() : end])
        at = end
    return Parts(texts, b"".join([*kept, view[at:]]))


def crowded(text: Body) -> bool:
    """Whether `text`, read as JSON, could hold over MAX_VALUES values: far more than any answer, and each of them
    costs up to a hundred times its two bytes."""
    # Every value stands behind one of these, or behind a key that does.
    return len(text) > MAX_VALUES and sum(map(text.count, (b",", b"[", b"{"))) > MAX_VALUES
