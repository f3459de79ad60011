"""The pictures that jobs send: their digests, kept small and read once."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchgen.inputs import Digests, Inputs

PATHS = st.lists(st.text(max_size=20), unique=True, max_size=50)


@given(PATHS, st.text(max_size=20))
def test_digests_are_found_by_their_paths(paths: list[str], other: str) -> None:
    """Each path gives back its own digest, whatever was added before and after; any other gives none."""
    digests = Digests()
    expected = {path: hashlib.sha256(path.encode()).digest() for path in paths}
    for path, digest in expected.items():
        assert digests.get(path) is None
        digests.add(path, digest)
    assert {path: digests.get(path) for path in [*paths, other]} == {other: None} | expected


def test_a_million_pictures_fit_into_memory() -> None:
    """A picture's digest takes at most 70 bytes, however long its path is and wherever the table is in its growth."""
    tracemalloc.start()
    try:
        digests = Digests()
        for number in range(20_001):
            digests.add(f"{'folder/' * 10}{number}.png", number.to_bytes(32))
            if number % 1000 == 0:
                assert tracemalloc.get_traced_memory()[0] <= 70 * number + 10_000
    finally:
        tracemalloc.stop()
    assert all(digests.get(f"{'folder/' * 10}{n}.png") == n.to_bytes(32) for n in range(20_001))


def test_a_picture_is_read_once_a_plan(tmp_path: Path) -> None:
    """What many jobs share is digested once, so a plan stays that of one moment."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    (tmp_path / "x.png").write_bytes(data.getvalue())
    inputs = Inputs(tmp_path)
    first = inputs.digest("x.png")
    (tmp_path / "x.png").unlink()
    assert inputs.digest("x.png") == first
    assert (first.path, first.sha256) == ("x.png", hashlib.sha256(data.getvalue()).hexdigest())
