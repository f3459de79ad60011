"""What makes a job another one than its last entry, and how that is said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import entry, job, json_values

from batchgen import joblog
from batchgen.changes import changes, summed
from batchgen.manifest import fingerprint
from batchgen.model import FileInput, Job

HEAD, FACE = FileInput("head.jpg", "ab" * 32), FileInput("face.jpg", "cd" * 32)
LONG = "a fox in a very long prompt that goes on and on and on until the very end of it, "

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "nothing": ({"seed": 1}, {"seed": 1}, ""),
    "a number": ({"num_steps": 4}, {"num_steps": 8}, "num_steps 4 -> 8"),
    "a text": ({"prompt": "a"}, {"prompt": "b\x1b"}, 'prompt "a" -> "b\\x1b"'),
    "the end of a long text": (
        {"prompt": LONG + "red"},
        {"prompt": LONG + "blue"},
        'prompt "…ery end of it, red" -> "…ery end of it, blue"',
    ),
    "given": ({}, {"seed": 7}, "seed not given -> 7"),
    "not given any more": ({"negative_prompt": "x"}, {}, 'negative_prompt "x" -> not given'),
    "two things": ({"width": 1, "seed": 1}, {"seed": 2, "width": 2}, "seed 1 -> 2; width 1 -> 2"),
    "a kind": ({"hires": 1}, {"hires": True}, "hires 1 -> true"),
    "a number written otherwise": ({"guidance_scale": 4}, {"guidance_scale": 4.0}, ""),
    "another picture": ({"image": HEAD}, {"image": FACE}, "image head.jpg -> face.jpg"),
    "the same picture elsewhere": ({"image": HEAD}, {"image": FileInput("x/head.jpg", HEAD.sha256)}, ""),
    "a picture's content": ({"image": HEAD}, {"image": FileInput("head.jpg", "00" * 32)}, "image (content)"),
    "a picture given": ({}, {"image": HEAD}, "image not given -> head.jpg"),
    "a mapping": ({"lora": {"a": 1}}, {"lora": {"a": 2}}, 'lora {"a":1} -> {"a":2}'),
}


def logged(before: Job, api: str = "nebula") -> Any:
    """The entry of a job as it is read back from the log."""
    return joblog.decode(joblog.encode(entry(api=api, model=before.model, request=before.request)))


@pytest.mark.parametrize(("before", "after", "said"), CASES.values(), ids=CASES.keys())
def test_what_changed(before: dict[str, Any], after: dict[str, Any], said: str) -> None:
    """Each parameter that was given, taken away or altered is told with both values, on one harmless line."""
    found = changes(job(**after), "nebula", logged(job(**before)))
    assert "; ".join(map(str, found)) == said


def test_another_model_and_style() -> None:
    """Model and API style are parameters like others."""
    found = changes(job(model="b"), "nebula", logged(job(model="a"), "sandbox"))
    assert [str(change) for change in found] == ['api "sandbox" -> "nebula"', 'model "a" -> "b"']


REQUESTS = st.dictionaries(st.sampled_from("abc"), json_values, max_size=3)


@given(REQUESTS, REQUESTS)
def test_something_changed_exactly_when_the_fingerprint_did(before: dict[str, Any], after: dict[str, Any]) -> None:
    """A changed job always names its reason, and an unchanged one has none."""
    same = fingerprint("nebula", "m", before) == fingerprint("nebula", "m", after)
    old = entry(api="nebula", model="m", request=msgspec.json.decode(msgspec.json.encode(before)))
    assert (not changes(Job("a", "f", "m", after, {}, 1), "nebula", old)) == same


def test_the_most_frequent_reason_comes_first() -> None:
    """Sums by parameter are sorted by how many jobs they concern."""
    assert list(summed({"seed": 3, "num_steps": 12, "a\nb": 3})) == ["num_steps (12)", "a b (3)", "seed (3)"]
