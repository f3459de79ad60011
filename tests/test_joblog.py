"""The lines of the job log and the attempts file: both ways, and what many of them add up to."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import AT, attempt, attempts, entries, entry, failed, job, picture, texts, times

from batchgen.joblog import (
    BAD_LINE,
    Draft,
    Ended,
    Fold,
    Intent,
    Lives,
    Note,
    Prepared,
    Saved,
    Withdrawn,
    decode,
    decode_note,
    decode_seen,
    encode,
    key,
    prepared,
    timestamp,
)
from batchgen.model import Attempt, Billed, Counts, Entry, Failure, Outcome

DONE, FAILED, UNCERTAIN = Outcome.DONE, Outcome.FAILED, Outcome.UNCERTAIN
NASTY = 'a\u2028b\u2029c\nd\re\x00f\x85g"h\\i\u202e\ufeff🐈'

notes: st.SearchStrategy[Note] = st.builds(
    Intent, job=texts, fingerprint=texts, n=st.integers(1, 99), at=times, run=texts, price_usd=st.none() | st.just(0.5)
) | st.builds(Ended, job=texts, fingerprint=texts, attempt=attempts, price_usd=st.none() | st.just(0.5))
notes |= st.builds(Withdrawn, job=texts, fingerprint=texts, n=st.integers(1, 99))


# Lines


@given(entries)
def test_an_entry_comes_back_from_its_line(written: Entry) -> None:
    """What is written to the job log is read back the same, and folding sees the same of it."""
    line = encode(written)
    assert decode(line) == written
    seen = decode_seen(line)
    for name in ("job", "fingerprint", "outcome", "finished_at", "api", "cost_usd", "exposure_usd"):
        assert getattr(seen, name) == getattr(written, name)
    assert [(a.n, a.at) for a in seen.attempts] == [(a.n, a.at) for a in written.attempts]
    assert [(p.file, p.index, p.size_bytes, p.sha256) for p in seen.images] == [
        (p.file, p.index, p.size_bytes, p.sha256) for p in written.images
    ]


@given(notes)
def test_a_note_comes_back_from_its_line(written: Note) -> None:
    """Intents, ends and what takes an intent back are read as what they were."""
    assert decode_note(encode(written)) == written


@given(entries)
def test_a_prepared_entry_keeps_its_log_line(written: Entry) -> None:
    """The attempts file holds the log line of an entry byte for byte."""
    line = encode(written)
    note = decode_note(prepared(written, line))
    assert isinstance(note, Prepared)
    assert (note.job, note.fingerprint) == (written.job, written.fingerprint)
    assert bytes(note.entry) + b"\n" == line


@given(entries | notes)
def test_a_line_is_one_line(written: Entry | Note) -> None:
    """Whatever a text holds, the line ends where it ends, for readers that know more line ends than one."""
    line = encode(written)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    for separator in (b"\r", "\u2028".encode(), "\u2029".encode()):
        assert separator not in line


def test_nasty_text_survives_on_one_line() -> None:
    """Line separators, control characters and quotes of a prompt come back as they went in."""
    written = entry(request={"prompt": NASTY}, notes=(NASTY,))
    line = encode(written)
    assert b"\\u2028" in line
    assert b"\\u2029" in line
    assert decode(line).request == {"prompt": NASTY}
    assert decode(line).notes == (NASTY,)
    whole = prepared(written, line)
    assert whole.count(b"\n") == 1
    assert "\u2028".encode() not in whole


def test_newer_fields_are_skipped() -> None:
    """A line with fields of a later version is still read; one without the optional ones too."""
    line = encode(entry())
    assert decode(line[:-2] + b',"later":{"x":[1]}}\n') == entry()
    bare = b'{"job":"a","fingerprint":"f","outcome":"done","finished_at":"2026"}'
    assert decode_seen(bare).attempts == ()


def test_a_line_tells_its_version() -> None:
    """Every line of the log says its format's version, so that a later reader can refuse or convert it."""
    assert msgspec.json.decode(encode(entry()))["v"] == 1


DAMAGED = [
    pytest.param(b"", id="empty"),
    pytest.param(b"\n", id="blank"),
    pytest.param(b"\0" * 50, id="NUL run"),
    pytest.param(b"[]", id="another shape"),
    pytest.param(b"null", id="null"),
    pytest.param(encode(entry())[:-20], id="cut"),
    pytest.param(encode(entry()) * 2, id="two lines in one"),
    pytest.param(encode(entry()).replace(b'"done"', b'"gone"'), id="unknown outcome"),
    pytest.param(encode(entry()).replace(b"fox", b"f\xff\xfe"), id="not UTF-8"),
    pytest.param(b"[" * 100_000, id="deep"),
]


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_is_told_in_one_way(line: bytes) -> None:
    """Damage of any kind is one of the errors that readers expect."""
    with pytest.raises(BAD_LINE):
        decode(line)
    with pytest.raises(BAD_LINE):
        decode_note(line)


@given(st.binary(max_size=80), st.integers(0, 400), st.integers(0, 255))
def test_no_damage_surprises(noise: bytes, at: int, byte: int) -> None:
    """Arbitrary bytes, and a good line with any byte changed, are read or told as damaged."""
    line = bytearray(encode(entry()))
    line[at % len(line)] = byte
    for data in (noise, bytes(line)):
        for read in (decode, decode_seen, decode_note):
            with contextlib.suppress(*BAD_LINE):
                read(data)


@pytest.mark.parametrize(
    ("utc", "text"),
    [
        (datetime(2026, 11, 22, 22, 0, 1, 123456, tzinfo=UTC), "2026-11-22T22:00:01.123Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 999, tzinfo=UTC), "2026-01-02T03:04:05.000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), "2026-01-02T03:04:05.999Z"),
    ],
    ids=["milliseconds", "microseconds are cut", "never rounded up"],
)
def test_timestamps(utc: datetime, text: str) -> None:
    """Times are ISO 8601 in UTC with exactly three decimals, so that they sort as text."""
    assert timestamp(utc) == text


def test_keys_keep_parts_apart() -> None:
    """A key is small, and what belongs to the id never counts as fingerprint."""
    assert key("a", "b") != key("ab") != key("", "ab")
    assert key("a", "b") != key("ab", "")
    assert key("a", "b") == key("a", "b")
    assert all(0 <= key(str(n)) < 2**60 for n in range(1000))


# A draft becomes an entry


def draft(*tried: Attempt, price_usd: float | None = 0.5, **changes: Any) -> Draft:
    times = {"ready_s": 100.0, "queued_s": 1.5, "waited_s": 2.5, "first_byte_s": 3.5, "response_s": 4.5}
    return Draft(job(meta_is="x"), "r", "m.yaml", "nebula", tried, price_usd=price_usd, **(times | changes))


def finished(made: Draft, outcome: Outcome = DONE, saved: Saved | None = None, now_s: float = 110.0) -> Entry:
    return made.entry(outcome, saved or Saved(), now_s, "2026-11-22T22:00:00.000Z")


def test_an_entry_says_what_the_draft_knows() -> None:
    """Job, run, times and pictures of the draft stand in the entry, each at its place."""
    saved = Saved((picture(),), decode_s=0.25, save_s=0.125, notes=("two came",))
    made = finished(draft(attempt()), DONE, saved)
    assert (made.job, made.fingerprint, made.model, made.line) == ("a", "f1", "flux", 1)
    assert (made.run, made.manifest, made.api, made.outcome) == ("r", "m.yaml", "nebula", DONE)
    assert made.request == {"prompt": "a fox", "meta_is": "x"}
    assert (made.images, made.notes, made.attempts) == ((picture(),), ("two came",), (attempt(),))
    assert msgspec.structs.astuple(made.timings) == (1.5, 2.5, 3.5, 4.5, 0.25, 0.125, 10.0)
    assert made.finished_at == "2026-11-22T22:00:00.000Z"


def test_times_are_rounded_and_never_negative() -> None:
    """Durations have six decimals; one that came out negative is none; an unknown one stays unknown."""
    made = finished(draft(first_byte_s=None, response_s=None, queued_s=0.12345678, waited_s=-1.0), FAILED, now_s=99.0)
    assert (made.timings.first_byte_s, made.timings.response_s) == (None, None)
    assert (made.timings.queued_s, made.timings.waited_s, made.timings.total_s) == (0.123457, 0.0, 0.0)


PAID, MAYBE, FREE = attempt(), failed(Failure.NO_ANSWER, billed=Billed.MAYBE), failed(Failure.RATE_LIMITED)
WASTED = failed(Failure.BAD_ANSWER, billed=Billed.YES)
MONEY = [
    pytest.param((), 0, 0.0, 0.0, Billed.NO, id="never sent"),
    pytest.param((PAID,), 1, 0.5, 0.0, Billed.YES, id="one picture"),
    pytest.param((PAID,), 3, 1.5, 0.0, Billed.YES, id="three pictures of one answer"),
    pytest.param((FREE, PAID), 1, 0.5, 0.0, Billed.YES, id="refused once"),
    pytest.param((MAYBE, PAID), 1, 0.5, 0.5, Billed.YES, id="one answer lost"),
    pytest.param((WASTED, PAID), 1, 1.0, 0.0, Billed.YES, id="one answer useless"),
    pytest.param((MAYBE, MAYBE), 0, 0.0, 1.0, Billed.MAYBE, id="two answers lost"),
    pytest.param((WASTED, MAYBE), 0, 0.5, 0.5, Billed.YES, id="paid for nothing, perhaps twice"),
    pytest.param((FREE, FREE), 0, 0.0, 0.0, Billed.NO, id="refused"),
    pytest.param((FREE, MAYBE), 0, 0.0, 0.5, Billed.MAYBE, id="refused, then lost"),
]


@pytest.mark.parametrize(("tried", "pictures", "cost_usd", "exposure_usd", "billed"), MONEY)
def test_what_a_job_cost(
    tried: tuple[Attempt, ...], pictures: int, cost_usd: float, exposure_usd: float, billed: Billed
) -> None:
    """Certain and possible cost are told apart, and the dearest attempt says whether the job was billed."""
    saved = Saved(tuple(picture(index) for index in range(pictures)))
    made = finished(draft(*tried), DONE if pictures else UNCERTAIN, saved)
    assert (made.cost_usd, made.exposure_usd, made.billed) == (cost_usd, exposure_usd, billed)
    unpriced = finished(draft(*tried, price_usd=None), UNCERTAIN, saved)
    assert (unpriced.cost_usd, unpriced.exposure_usd, unpriced.billed) == (None, None, billed)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [([1.5], 1.5), ([1.5, 2.5, None], 2.5), ([None], None), ([], None), ([0.0], 0.0)],
    ids=["one", "the longest", "unknown", "no picture", "zero is a number"],
)
def test_the_servers_seconds(seconds: list[float | None], told: float | None) -> None:
    """`inference_s` is the server's number, the longest of several pictures, and never invented."""
    saved = Saved(tuple(picture(index, s) for index, s in enumerate(seconds)))
    assert finished(draft(PAID), DONE, saved).inference_s == told


# Folding the log


def at(second: int) -> str:
    return f"2026-11-22T12:{second // 60:02d}:{second % 60:02d}.000Z"


def fold_of(*lines: tuple[bytes, int]) -> Fold:
    fold = Fold()
    for line, offset in lines:
        fold.add(line, offset)
    return fold


def facts(fold: Fold) -> Any:
    """All that a fold can be asked about two jobs with two fingerprints each."""
    rows = {(j, f): fold.row(j, f) for j in "ab" for f in "xy"}
    known = {j: sorted(fold.rows(j), key=lambda row: row.offset) for j in "ab"}
    sums = (fold.requests, fold.spent_usd, fold.exposure_usd, fold.bought, fold.drawn, fold.requests_by_day)
    return rows, known, sums, fold.jobs, fold.counts()


logs = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(Outcome), st.integers(1, 3), st.booleans()),
    max_size=8,
).flatmap(
    lambda rows: st.permutations(range(len(rows))).map(
        lambda seconds: [
            (
                encode(
                    entry(
                        job=j,
                        fingerprint=f,
                        outcome=outcome,
                        api="sandbox" if sandbox else "nebula",
                        finished_at=at(second),
                        attempts=tuple(attempt(n + 1) for n in range(count)),
                        cost_usd=0.5,
                        exposure_usd=0.25,
                    )
                ),
                1000 * number,
            )
            for number, ((j, f, outcome, count, sandbox), second) in enumerate(zip(rows, seconds, strict=True))
        ]
    )
)


@given(logs, st.randoms())
def test_folding_ignores_order(lines: list[tuple[bytes, int]], order: Any) -> None:
    """The lines of a log mean the same in any order, so files may be concatenated."""
    shuffled = list(lines)
    order.shuffle(shuffled)
    assert facts(fold_of(*shuffled)) == facts(fold_of(*lines))


@given(logs)
def test_a_line_twice_changes_no_row(lines: list[tuple[bytes, int]]) -> None:
    """Reading a line again changes neither which entry holds nor what was paid."""
    assert facts(fold_of(*lines, *lines)) == facts(fold_of(*lines))


def test_a_line_twice_costs_nothing() -> None:
    """A duplicated line, as when a log is concatenated with itself, is harmless: money and requests count once."""
    line = encode(entry(cost_usd=0.5, exposure_usd=0.25))
    twice = fold_of((line, 0), (line, len(line)))
    assert (twice.requests, twice.spent_usd, twice.exposure_usd) == (1, 0.5, 0.25)
    assert twice.requests_by_day == {"2026-11-22": 1}


@pytest.fixture
def tokyo() -> Iterator[None]:
    """A machine whose clock on the wall is not UTC's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


def test_two_entries_of_one_instant_are_two() -> None:
    """Entries of two runs for the same job with the same outcome and time are no repeated line: both were paid for."""
    one, other, more = (
        encode(entry(run=run, cost_usd=0.5, attempts=tuple(attempt(n + 1) for n in range(count))))
        for run, count in (("r1", 1), ("r2", 1), ("r2", 2))
    )
    for lines in ((one, other, one, other, more), (more, other, one, more)):
        fold = fold_of(*((line, 100 * number) for number, line in enumerate(lines)))
        assert (fold.requests, fold.spent_usd, fold.jobs) == (4, 1.5, 1)


def test_a_time_that_is_none_is_damage(tokyo: None) -> None:
    """A line whose end nobody can date is told like any other damage; a time without a zone is UTC, wherever we are."""
    with pytest.raises(BAD_LINE):
        fold_of((encode(entry(finished_at="soon")), 0))
    bare, zoned = (encode(entry(finished_at=f"2026-11-22T12:00:0{end}")) for end in ("1", "0Z"))
    for lines in ((bare, zoned), (zoned, bare)):
        row = fold_of(*((line, len(line)) for line in lines)).row("a", "f1")
        assert row is not None
        assert row.offset == len(bare)


def test_a_fold_is_small() -> None:
    """A job of the log takes at most 200 bytes, so that a million of them fit into 300 MB."""
    line, fold, jobs = encode(entry()), Fold(), 11_000
    tracemalloc.start()
    try:
        for number in range(jobs):  # a little more than fit into a table that has just doubled
            fold.add(line.replace(b'"a"', b'"job-%d"' % number, 1), number)
        assert tracemalloc.get_traced_memory()[0] <= 200 * jobs
    finally:
        tracemalloc.stop()
    assert fold.jobs == jobs


def test_rivals_are_told() -> None:
    """A job has rivals when the log knows it with several fingerprints, and not when it only has several entries."""
    again = [(encode(entry(finished_at=at(second))), second) for second in (1, 2)]
    assert not fold_of(*again).has_rivals("a")
    assert fold_of(*again, (encode(entry(fingerprint="x")), 3)).has_rivals("a")


RANKED = [
    pytest.param([(DONE, 1), (FAILED, 2)], 0, id="done beats a later failed"),
    pytest.param([(DONE, 1), (UNCERTAIN, 2)], 0, id="done beats a later uncertain"),
    pytest.param([(UNCERTAIN, 2), (FAILED, 1)], 1, id="failed beats a later uncertain"),
    pytest.param([(DONE, 2), (DONE, 1)], 0, id="later done beats earlier"),
    pytest.param([(FAILED, 1), (FAILED, 2)], 1, id="later failed beats earlier"),
    pytest.param([(FAILED, 1), (DONE, 2), (UNCERTAIN, 3)], 1, id="all three"),
]


@pytest.mark.parametrize(("ended", "best"), RANKED)
def test_which_entry_holds(ended: list[tuple[Outcome, int]], best: int) -> None:
    """For one job and fingerprint done beats failed beats uncertain, and the later beats the earlier."""
    lines = [
        (encode(entry(outcome=outcome, finished_at=at(second))), 100 * number)
        for number, (outcome, second) in enumerate(ended)
    ]
    for order in (lines, lines[::-1]):
        row = fold_of(*order).row("a", "f1")
        assert row is not None
        assert (row.outcome, row.offset) == (ended[best][0], 100 * best)


def test_milliseconds_decide() -> None:
    """Of two entries of the same second the later one holds."""
    early, late = ((encode(entry(finished_at=f"2026-11-22T12:00:00.{ms}Z")), int(ms)) for ms in ("001", "010"))
    for lines in ((early, late), (late, early)):
        row = fold_of(*lines).row("a", "f1")
        assert row is not None
        assert row.offset == 10


def test_fingerprints_are_kept_apart() -> None:
    """A job whose request changed has a row for each request; an unknown one has none."""
    fold = fold_of(
        (encode(entry(fingerprint="x", outcome=FAILED)), 0),
        (encode(entry(fingerprint="y")), 100),
        (encode(entry(job="b", fingerprint="x")), 200),
    )
    assert {(row.outcome, row.offset) for row in fold.rows("a")} == {(FAILED, 0), (DONE, 100)}
    assert fold.row("a", "z") is None
    assert fold.rows("c") == []
    assert fold.jobs == 2
    assert fold.counts() == {DONE: 2, FAILED: 0, UNCERTAIN: 0}


def test_attempts_are_numbered_over_a_life() -> None:
    """The row knows the highest attempt number that the log tells, whichever entry holds."""
    fold = fold_of(
        (encode(entry(attempts=(attempt(1), attempt(2)))), 0),
        (encode(entry(outcome=FAILED, attempts=(attempt(3), attempt(7)))), 100),
        (encode(entry(outcome=UNCERTAIN, attempts=())), 200),
    )
    row = fold.row("a", "f1")
    assert row is not None
    assert (row.outcome, row.last_n) == (DONE, 7)
    never = fold_of((encode(entry(attempts=())), 0)).row("a", "f1")
    assert never is not None
    assert never.last_n == 0
    huge = fold_of((encode(entry(attempts=(attempt(10**9),))), 0)).row("a", "f1")
    assert huge is not None
    assert huge.last_n == 0xFFFF


def test_a_senseless_attempt_number_is_damage() -> None:
    """A line with an impossible attempt number is told like any other damage, or read."""
    with contextlib.suppress(*BAD_LINE):
        fold_of((encode(entry(attempts=(attempt(-1),))), 0))


def test_sums() -> None:
    """Requests, money, days and what drew the pictures add up over all entries, of whatever outcome."""
    fold = fold_of(
        (encode(entry(cost_usd=0.5, attempts=(attempt(1, at="2026-11-21T23:59:59.999Z"), attempt(2)))), 0),
        (encode(entry(job="b", outcome=FAILED, exposure_usd=0.25, api="sandbox")), 100),
        (encode(entry(job="c", outcome=UNCERTAIN, cost_usd=1.0, exposure_usd=1.0, attempts=())), 200),
    )
    assert (fold.requests, fold.spent_usd, fold.exposure_usd) == (3, 1.5, 1.25)
    assert fold.requests_by_day == {"2026-11-21": 1, "2026-11-22": 2}
    assert (fold.bought, fold.drawn) == (True, False)
    assert fold.counts() == {DONE: 1, FAILED: 1, UNCERTAIN: 1}
    drawn = fold_of((encode(entry(api="sandbox")), 0))
    assert (drawn.bought, drawn.drawn) == (False, True)


def test_damage_leaves_no_trace_in_rows() -> None:
    """A damaged line is told and adds no row."""
    fold = Fold()
    with pytest.raises(BAD_LINE):
        fold.add(encode(entry())[:-10], 0)
    assert (fold.jobs, fold.requests) == (0, 0)


# Attempts of jobs that are not finished


def lives_of(*written: Note | bytes, logged: int = 0) -> Lives:
    lives = Lives(lambda job, fingerprint: logged if (job, fingerprint) == ("a", "f1") else 0)
    for note in written:
        lives.add(note if isinstance(note, bytes) else encode(note))
    return lives


def intent(n: int, job: str = "a", price_usd: float | None = 0.5) -> Intent:
    return Intent(job, "f1", n, AT, "r", price_usd)


def ended(n: int, failure: Failure = Failure.NO_ANSWER, billed: Billed = Billed.MAYBE, job: str = "a") -> Ended:
    return Ended(job, "f1", failed(failure, n, billed, counts=Counts.RATION), 0.5)


def test_an_intent_without_end_is_in_doubt() -> None:
    """A request whose end nobody wrote may have been paid for and counts as a doubt."""
    (doubt,) = lives_of(intent(1)).of("a", "f1")
    assert (doubt.n, doubt.at, doubt.failure, doubt.message) == (1, AT, Failure.IN_DOUBT, "no end is known")
    assert (doubt.billed, doubt.counts, doubt.elapsed_s) == (Billed.MAYBE, Counts.DOUBT, 0.0)
    assert len(lives_of(intent(1)).doubtful()) == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0)])
def test_an_end_takes_the_doubt_away(order: tuple[int, ...]) -> None:
    """An intent with an end is not in doubt, in whichever order and however often the lines stand."""
    lines = (intent(1), ended(1))
    lives = lives_of(*(lines[number] for number in order))
    assert lives.of("a", "f1") == (ended(1).attempt,)
    assert len(lives.doubtful()) == 0
    assert lives.exposure_usd() == 0.5


def withdrawn(n: int, job: str = "a") -> Withdrawn:
    return Withdrawn(job, "f1", n)


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ([intent(1), withdrawn(1)], []),
        ([intent(1), withdrawn(1), withdrawn(1)], []),
        ([withdrawn(1)], []),
        ([withdrawn(1), intent(1)], [1]),
        ([intent(1), withdrawn(1), intent(1)], [1]),
        ([intent(1), withdrawn(2)], [1]),
        ([intent(1), withdrawn(1, "b")], [1]),
        ([ended(1), intent(2), withdrawn(2)], [1]),
        ([intent(1), ended(1), withdrawn(1)], [1]),
        ([intent(1), withdrawn(1), intent(2)], [2]),
    ],
    ids=str,
)
def test_an_intent_that_was_taken_back_is_no_doubt(written: list[Note], left: list[int]) -> None:
    """A request that never left counts for nothing; what ended, what came later and other jobs are not touched."""
    lives = lives_of(*written)
    assert [attempt.n for attempt in lives.of("a", "f1")] == left
    assert lives.unfinished() == ({("a", "f1")} if left else set()) == {(e.job, "f1") for e in lives.ended()}
    assert lives.exposure_usd() == 0.5 * len(left)
    assert bool(lives.doubtful()) is any(a.failure is Failure.IN_DOUBT for a in lives.of("a", "f1"))


def test_attempts_stand_in_their_order() -> None:
    """A life is told by number; the last attempt says whether the job is in doubt; other jobs are apart."""
    lives = lives_of(intent(3), ended(1), intent(2), ended(2), intent(1, "b"), ended(1, job="b"), intent(1, "c"))
    assert [a.n for a in lives.of("a", "f1")] == [1, 2, 3]
    assert [a.failure for a in lives.of("a", "f1")] == [Failure.NO_ANSWER, Failure.NO_ANSWER, Failure.IN_DOUBT]
    assert len(lives.doubtful()) == 2
    assert lives.of("a", "f2") == ()
    assert not lives_of(intent(1), ended(2)).doubtful()


def test_what_the_log_tells_is_skipped() -> None:
    """Attempts up to the last one that the log tells are not told again; later ones are."""
    lives = lives_of(intent(1), intent(2), ended(2), intent(3), intent(1, "b"), logged=2)
    assert [a.n for a in lives.of("a", "f1")] == [3]
    assert [a.n for a in lives.of("b", "f1")] == [1]


@pytest.mark.parametrize(
    ("logged", "kept"), [(0, True), (1, True), (2, False), (3, False)], ids=["new", "newer", "same", "older"]
)
def test_prepared_entries(logged: int, kept: bool) -> None:
    """A prepared entry is kept as its log line as long as the log does not tell of it."""
    written = entry(attempts=(attempt(1), attempt(2)))
    lives = lives_of(prepared(written, encode(written)), logged=logged)
    assert lives.prepared == ({("a", "f1"): encode(written)} if kept else {})
    assert lives.of("a", "f1") == ()


def test_a_prepared_entry_without_attempts_is_no_news() -> None:
    """An entry that tells of no request, as of a picture brought back, cannot have lost its log line."""
    written = entry(attempts=())
    assert lives_of(prepared(written, encode(written))).prepared == {}


def test_a_finished_job_is_forgotten() -> None:
    """What belongs to a finished job is dropped, and only that."""
    written = entry()
    lives = lives_of(intent(1), prepared(written, encode(written)), intent(1, "b"))
    lives.forget("a", "f1")
    lives.forget("nobody", "f1")
    assert (lives.of("a", "f1"), lives.prepared, len(lives.of("b", "f1"))) == ((), {}, 1)


def test_exposure_of_unfinished_jobs() -> None:
    """What may have been paid counts, doubts included; what surely was not, and unknown prices, do not."""
    lives = lives_of(
        intent(1),
        ended(2, Failure.RATE_LIMITED, Billed.NO),
        ended(3, Failure.BAD_ANSWER, Billed.YES),
        intent(1, "b", None),
    )
    assert lives.exposure_usd() == 1.0


MAKE: dict[str, Callable[[int, str], Note]] = {
    "intent": intent,
    "ended": lambda n, job: ended(n, job=job),
    "withdrawn": withdrawn,
}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.sampled_from(list(MAKE))), max_size=12),
    st.randoms(),
)
def test_compacting_loses_nothing(events: list[tuple[str, int, str]], order: Any) -> None:
    """The lines of a compacted file tell the same lives, in any order, and compact to themselves."""
    lives = lives_of(*(MAKE[kind](n, j) for j, n, kind in events))
    lines = [encode(note) for note in lives.ended()]
    again = lives_of(*lines)
    order.shuffle(lines)
    for other in (again, lives_of(*lines)):
        assert [other.of(j, "f1") for j in "ab"] == [lives.of(j, "f1") for j in "ab"]
        assert (other.doubtful(), other.exposure_usd()) == (lives.doubtful(), lives.exposure_usd())
    assert again.ended() == lives.ended()


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_note_is_told(line: bytes) -> None:
    """Damage in the attempts file is told in the same way as in the log, and adds nothing."""
    lives = Lives(lambda job, fingerprint: 0)
    with pytest.raises(BAD_LINE):
        lives.add(line)
    assert lives.ended() == []
