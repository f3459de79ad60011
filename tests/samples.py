"""Small values that several tests need: a job, an attempt, an entry, and strategies for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from batchgen.model import Attempt, BatchgenError, Billed, Counts, Entry, Failure, Job, Outcome, Picture, Timings

AT = "2026-11-22T12:00:00.000Z"
TIMINGS = Timings(
    queued_s=0.5, waited_s=0.0, first_byte_s=1.0, response_s=1.25, decode_s=0.01, save_s=0.02, total_s=2.0
)


def job(id: str = "a", fingerprint: str = "f1", model: str = "flux", **request: Any) -> Job:
    """A job that asks for a fox, unless told otherwise."""
    return Job(id, fingerprint, model, {"prompt": "a fox"} | request, {}, 1)


def attempt(n: int = 1, counts: Counts | None = None, **changes: Any) -> Attempt:
    """An attempt that was answered with a picture, unless told otherwise."""
    return msgspec.structs.replace(Attempt(n, AT, 1.0, Billed.YES, http=200, counts=counts), **changes)


def failed(failure: Failure, n: int = 1, billed: Billed = Billed.NO, **changes: Any) -> Attempt:
    """An attempt that ended in `failure`."""
    said: dict[str, Any] = {"http": None, "message": f"it was {failure}"}
    return attempt(n, failure=failure, billed=billed, **(said | changes))


def life(*counts: Counts | None) -> tuple[Attempt, ...]:
    """Failed attempts that took these allowances, one after another."""
    return tuple(failed(Failure.NO_ANSWER, n, counts=taken) for n, taken in enumerate(counts, 1))


def picture(index: int = 0, inference_s: float | None = 1.5, file: str = "images/a.png") -> Picture:
    """A saved picture."""
    return Picture(file, index, "png", 64, 32, 1000, "ab" * 32, inference_s)


def entry(**changes: Any) -> Entry:
    """The entry of a job that is done, unless told otherwise."""
    done = Entry(
        job="a",
        fingerprint="f1",
        outcome=Outcome.DONE,
        run="r",
        manifest="m.yaml",
        line=1,
        api="nebula",
        model="flux",
        request={"prompt": "a fox"},
        meta={},
        images=(picture(),),
        inference_s=1.5,
        timings=TIMINGS,
        attempts=(attempt(),),
        cost_usd=None,
        billed=Billed.YES,
        finished_at=AT,
    )
    return msgspec.structs.replace(done, **changes)


def told(ask: Callable[[bytes], Any], data: bytes) -> Any:
    """What `ask` answers, or its refusal in a form that can be compared; any other exception ends the test."""
    try:
        return ask(data)
    except BatchgenError as error:
        return type(error), str(error)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
finite = st.floats(0, 1e9, allow_nan=False)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
times = st.datetimes().map(lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.") + f"{t.microsecond // 1000:03d}Z")
attempts = st.builds(
    Attempt,
    n=st.integers(1, 70_000),
    at=times,
    elapsed_s=finite,
    billed=st.sampled_from(Billed),
    http=st.none() | st.integers(100, 599),
    failure=st.none() | st.sampled_from(Failure),
    code=st.none() | texts,
    message=st.none() | texts,
    counts=st.none() | st.sampled_from(Counts),
)
pictures = st.builds(
    Picture,
    file=texts,
    index=st.integers(0, 9),
    format=st.sampled_from(["png", "jpeg", "webp"]),
    width=st.integers(1, 9999),
    height=st.integers(1, 9999),
    size_bytes=st.integers(0, 2**40),
    sha256=texts,
    inference_s=st.none() | finite,
)
entries = st.builds(
    Entry,
    job=texts,
    fingerprint=texts,
    outcome=st.sampled_from(Outcome),
    run=texts,
    manifest=texts,
    line=st.integers(0, 10**9),
    api=texts,
    model=texts,
    request=st.dictionaries(texts, json_values, max_size=3),
    meta=st.dictionaries(texts, json_values, max_size=3),
    images=st.lists(pictures, max_size=2).map(tuple),
    inference_s=st.none() | finite,
    timings=st.just(TIMINGS),
    attempts=st.lists(attempts, max_size=3).map(tuple),
    cost_usd=st.none() | finite,
    billed=st.sampled_from(Billed),
    finished_at=times,
    exposure_usd=st.none() | finite,
    notes=st.lists(texts, max_size=2).map(tuple),
    axes=st.just(msgspec.UNSET) | st.dictionaries(texts, texts, min_size=1, max_size=2),
)
