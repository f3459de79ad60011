"""What servers say of their limits in headers, and that nothing is sent beyond it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.pacing import Allotment, Hold, Told, retry_after_s, span_s, told

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
BEGIN = "x-ratelimit-"

SPANS = [
    ("1s", 1.0),
    ("6m0s", 360.0),
    ("20ms", 0.02),
    ("1.5s", 1.5),
    ("2m59.56s", 179.56),
    ("1h2m3s", 3723.0),
    ("1d", 86400.0),
    ("12", 12.0),
    (" 7s ", 7.0),
    ("", None),
    ("s", None),
    ("-1s", None),
    ("1x", None),
    ("1s later", None),
    ("nan", None),
    ("1..5s", None),
    ("2026-11-22T12:00:00Z", None),
]


@pytest.mark.parametrize(("text", "seconds"), SPANS)
def test_spans_of_time(text: str, seconds: float | None) -> None:
    """The ways in which servers write how long something lasts; everything else is none."""
    found = span_s(text)
    assert found is None if seconds is None else found == pytest.approx(seconds)


def headers(remaining: str | None = None, reset: str | None = None, limit: str | None = None) -> dict[str, str]:
    said = {"remaining": remaining, "reset": reset, "limit": limit}
    return {f"x-ratelimit-{name}-requests": text for name, text in said.items() if text is not None}


TOLD = [
    (headers("3", "10s"), Told(3, 10.0)),
    (headers("0", "1s", "60"), Told(0, 1.0)),
    (headers("900", "1s", "60"), Told(60, 1.0)),
    (headers("3", "10s", "many"), Told(3, 10.0)),
    (headers("3", "1h"), Told(3, 3600.0)),
    (headers("3", "1h1s"), None),
    (headers("3", "0s"), None),
    (headers("3"), None),
    (headers(None, "10s"), None),
    (headers("-1", "10s"), None),
    (headers("1e3", "10s"), None),
    ({}, None),
]


@pytest.mark.parametrize(("said", "meant"), TOLD, ids=[str(row[0].values()) for row in TOLD])
def test_what_headers_tell(said: dict[str, str], meant: Told | None) -> None:
    """Remaining and reset count together, as far as they are sensible and speak of the minute."""
    assert told(said) == meant


def test_a_refusal_without_a_pause_of_its_own_names_the_reset() -> None:
    """Where nothing remains the reset is the pause that is asked for, unless there is a better word for it."""
    assert retry_after_s(headers("0", "20s"), NOON) == 20.0
    assert retry_after_s(headers("1", "20s"), NOON) is None
    assert retry_after_s({"retry-after": "3"} | headers("0", "20s"), NOON) == 3.0
    assert retry_after_s({"retry-after": "soon"} | headers("0", "20s"), NOON) == 20.0


def test_nothing_left_waits_for_the_reset() -> None:
    """After a word of nothing left nothing is sent until the limit is reset, and then freely."""
    gate = Allotment()
    assert gate.hold(0) is None
    gate.hear(Told(0, 10), sent_s=1, now_s=2)
    assert gate.hold(2) == Hold(10, "the server's own limit")
    assert gate.hold(11.5) == Hold(0.5, "the server's own limit")
    assert gate.hold(12) is None
    gate.sent(12)
    assert gate.hold(12) is None


def test_what_was_sent_since_counts() -> None:
    """Of what remains, requests take their part that were sent after the one that was answered."""
    gate = Allotment()
    gate.hear(Told(2, 60), sent_s=0, now_s=1)
    gate.sent(1)
    assert gate.hold(1) is None
    gate.sent(2)
    assert gate.hold(2) is not None
    gate.hear(Told(1, 60), sent_s=1, now_s=3)  # says nothing of the one of second 2
    assert gate.hold(3) is not None
    gate.hear(Told(1, 60), sent_s=2, now_s=4)
    assert gate.hold(4) is None


def test_an_older_request_says_nothing_new() -> None:
    """Answers come in any order; the one to the latest request holds."""
    gate = Allotment()
    gate.hear(Told(0, 60), sent_s=5, now_s=6)
    gate.hear(Told(50, 60), sent_s=4, now_s=7)
    assert gate.hold(7) == Hold(59, "the server's own limit")


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 5), st.floats(0.1, 60)), max_size=20))
def test_it_always_opens_again(said: list[tuple[float, int, float]]) -> None:
    """Whatever servers say, no hold is longer than the longest reset."""
    gate, now_s = Allotment(), 0.0
    for step_s, remaining, reset_s in said:
        now_s += step_s
        gate.sent(now_s)
        gate.hear(Told(remaining, reset_s), now_s - 1, now_s)
        hold = gate.hold(now_s)
        assert hold is None or 0 < hold.wait_s <= 60
    assert gate.hold(now_s + 60) is None
