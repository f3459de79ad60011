"""Answers as they come in: whatever way their bytes are cut into pieces, the same answer is read."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.client import incoming
from batchgen.client.incoming import Incoming, unpacked
from batchgen.model import AttemptFailed, Failure

BODY = bytes(range(256)) * 3
CHUNKS = b"%x\r\n%b\r\n%x;name=value\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (100, BODY[:100], 668, BODY[100:])
HEADERS = b"Date: Sun, 22 Nov 2026 22:00:00 GMT\r\nRetry-After: 7\r\nRETRY-AFTER: 9\r\nX-Other: dropped\r\n"
WHOLE = {
    "length": b"HTTP/1.1 200 OK\r\n%bContent-Length: 768\r\n\r\n%b" % (HEADERS, BODY),
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n%b" % (HEADERS, CHUNKS),
}
WHOLE["early hints"] = b"HTTP/1.1 103 Early\r\nContent-Length: 9\r\nDate: no\r\n\r\n" + WHOLE["length"]


def read(data: bytes, cuts: list[int]) -> Incoming:
    """`data` as a connection hands it over that receives it in these pieces."""
    answer, at = Incoming(), 0
    for end in sorted({*(cut % len(data) for cut in cuts), len(data)} - {0}):
        while at < end:
            if answer.room:
                taken = min(len(answer.room), end - at)
                answer.room[:taken] = data[at : at + taken]
                answer.filled(taken)
                at += taken
            else:
                answer.feed(memoryview(data)[at:end])
                at = end
    return answer


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
@given(cuts=st.lists(st.integers(min_value=1), max_size=5))
def test_an_answer_is_the_same_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    """Status, kept headers (the first of several) and body do not depend on how the network cuts an answer."""
    answer = read(data, cuts)
    assert (answer.whole, answer.keeps_alive, answer.status) == (True, True, 200)
    assert answer.headers == {"date": "Sun, 22 Nov 2026 22:00:00 GMT", "retry-after": "7"}
    assert answer.content() == BODY


def test_what_follows_a_chunked_body_changes_nothing_about_it() -> None:
    """Fields after the last chunk are passed over: the body was not compressed by them, and the wait is not theirs."""
    late = b"0\r\nContent-Encoding: br\r\nRetry-After: 9\r\n\r\n"
    answer = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + late, [])
    assert (answer.whole, answer.content(), answer.headers) == (True, b"ok", {})


def test_what_follows_a_chunked_body_has_a_bound() -> None:
    """Fields after the last chunk that never end fill no memory."""
    answer = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: ", [])
    with pytest.raises(AttemptFailed) as caught:
        for _ in range(incoming.MAX_HEAD_BYTES // 1000 + 1):
            answer.feed(memoryview(b"x" * 1000))
    assert caught.value.failure is Failure.BAD_ANSWER


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
@given(cut=st.integers(min_value=0, max_value=2000))
def test_no_part_of_an_answer_is_whole(data: bytes, cut: int) -> None:
    """However early the connection ends, half an answer with a length or chunks is never taken for a whole one."""
    half = data[: cut % len(data)]
    answer = read(half, []) if half else Incoming()
    assert not answer.whole
    assert answer.end() is False
    assert BODY.startswith(answer.so_far())


def test_without_a_length_the_end_of_the_connection_ends_the_answer() -> None:
    """An old server says neither length nor chunks: what came until it hung up is the answer."""
    answer = read(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, [30, 100])
    assert not answer.whole
    assert answer.end() is True
    assert answer.content() == BODY


@pytest.mark.parametrize("tail", [b"Connection: close\r\n", b""], ids=["said", "HTTP/1.0"])
def test_a_server_that_closes_is_believed(tail: bytes) -> None:
    """A connection whose server says that it closes it is not used again."""
    version = b"1.1" if tail else b"1.0"
    answer = read(b"HTTP/%b 200 OK\r\nContent-Length: 2\r\n%b\r\nok" % (version, tail), [])
    assert (answer.whole, answer.keeps_alive) == (True, False)


def test_what_follows_an_answer_unasked_spoils_the_connection() -> None:
    """Whatever comes behind an answer belongs to no request, so nothing more may be asked on that connection."""
    answer = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 500 No\r\n\r\nx", [])
    assert (answer.status, answer.whole, answer.keeps_alive, answer.content()) == (200, True, False, b"")


def test_an_announced_length_beyond_the_cap_takes_no_memory() -> None:
    """A server that announces a petabyte is refused at its word."""
    with pytest.raises(AttemptFailed) as caught:
        read(b"HTTP/1.1 200 OK\r\nContent-Length: 1125899906842624\r\n\r\n", [])
    assert caught.value.failure is Failure.BAD_ANSWER


CODED = {
    "gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "identity": BODY,
    "gzip, deflate": zlib.compress(gzip.compress(BODY)),
}


@pytest.mark.parametrize(("coding", "data"), CODED.items(), ids=CODED)
def test_compression_that_was_not_asked_for_is_undone(coding: str, data: bytes) -> None:
    """A picture that comes compressed was paid for, and is read."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(data))
    assert read(head + data, []).content() == BODY


@pytest.mark.parametrize(
    ("coding", "data"),
    [("br", b"\x1b"), ("gzip", b"nothing"), ("gzip", gzip.compress(BODY)[:-9]), ("deflate", b""), ("gzip,br", b"x")],
)
def test_compression_that_cannot_be_undone_is_a_bad_answer(coding: str, data: bytes) -> None:
    """What cannot be unpacked, or ends early, is of no use; a refusal stays one."""
    with pytest.raises(AttemptFailed) as caught:
        unpacked(data, coding)
    assert caught.value.failure is Failure.BAD_ANSWER
    head = b"HTTP/1.1 429 X\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(data))
    refused = read(head + data, [])
    assert (refused.status, refused.content()) == (429, b"")


def test_what_grows_beyond_the_cap_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb is unpacked up to the cap and no further."""
    monkeypatch.setattr(incoming, "MAX_ANSWER_BYTES", 1000)
    assert len(unpacked(gzip.compress(bytes(1000)), "gzip")) == 1000
    with pytest.raises(AttemptFailed, match="larger than"):
        unpacked(gzip.compress(bytes(1001)), "gzip")
