"""An answer as it comes in: bytes -> status, headers, body. No sockets, no time; judges nothing.

Where the length is announced, the bytes that follow the head are received where they stay: nothing is copied or joined.
"""

from __future__ import annotations

import zlib

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from batchgen.model import AttemptFailed, Body, Failure

MAX_ANSWER_BYTES = 64 << 20
MAX_HEAD_BYTES = 64 << 10
_KEPT_HEADERS = frozenset(
    (
        *(b"retry-after", b"retry-after-ms", b"date", b"location"),
        *(b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
    )
)
_NOTHING = memoryview(bytearray())
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Incoming:
    """One answer, fed with bytes until it is `whole`. Also what the parser calls back.

    `status` is 0 until the head is complete. `room` is where the rest of the body belongs, where its length is known.
    """

    def __init__(self) -> None:
        # The two hold each other, so the parser is let go when it has done its part: bodies must not outlive their use.
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # An answer that was paid for is read wherever it can be understood.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.room = _NOTHING
        self.whole = self.keeps_alive = False
        self._beside_bytes, self._length, self._chunked, self._encoding = 0, -1, False, ""

    def feed(self, data: memoryview) -> None:
        """Take in what was received. Raises AttemptFailed where it is no HTTP, or larger than any answer."""
        size_bytes = len(self.body)
        try:
            self._parse(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if self.whole:  # what follows an answer belongs to no request
                self.keeps_alive = False
                return
            if self.status:
                raise AttemptFailed(Failure.BAD_ANSWER, f"the answer breaks off in nonsense ({error})") from None
            raise AttemptFailed(Failure.UNCLASSIFIED, f"what came is not HTTP ({error})") from None
        if max(len(self.body), self._length) > MAX_ANSWER_BYTES:
            raise too_large()
        self._beside_bytes = 0 if len(self.body) > size_bytes else self._beside_bytes + len(data)
        if self._beside_bytes > MAX_HEAD_BYTES and not self.whole:
            failure = Failure.BAD_ANSWER if self.status else Failure.UNCLASSIFIED
            raise AttemptFailed(failure, f"the answer has over {MAX_HEAD_BYTES >> 10} KiB of headers")

    def _parse(self, data: memoryview) -> None:
        assert self._parser is not None, "an answer is fed until it is whole"
        try:
            self._parser.feed_data(data)
        finally:
            if self.whole or self.room:
                self._parser = None

    def filled(self, n: int) -> None:
        """`n` bytes were received into `room`."""
        self.room = self.room[n:]
        self.whole = not self.room

    def end(self) -> bool:
        """Nothing more will come; whether that is the end of the answer, which had no other."""
        self.whole = self.whole or bool(self.status and self._length < 0 and not self._chunked)
        self.keeps_alive, self._parser = False, None
        return self.whole

    def so_far(self) -> Body:
        """What there is of the body."""
        return self.body[: len(self.body) - len(self.room)] if self.room else self.body

    def content(self) -> Body:
        """The body without the compression that was not asked for.

        Raises AttemptFailed where that is impossible; a refusal is one by its status, whatever its text.
        """
        if not self._encoding:
            return self.so_far()
        try:
            return unpacked(self.so_far(), self._encoding)
        except AttemptFailed:
            if self.status == 200:
                raise
            return b""

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # what follows a chunked body changes nothing about it
        name = name.lower()
        if name in _KEPT_HEADERS:
            self.headers.setdefault(name.decode(), value.decode("latin-1"))
        elif name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._chunked = True
        elif name == b"content-encoding":
            self._encoding += "," + value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:  # "continue" and its like: the answer comes after it
            self.headers, self._length, self._chunked, self._encoding = {}, -1, False, ""
            return
        self.status, self.keeps_alive = status, self._parser.should_keep_alive()
        if 0 < self._length <= MAX_ANSWER_BYTES and not self._chunked:
            self.body = bytearray(self._length)
            self.room = memoryview(self.body)

    def on_body(self, data: bytes) -> None:
        if self.room:
            self.room[: len(data)] = data
            self.room = self.room[len(data) :]
        else:
            self.body += data

    def on_message_begin(self) -> None:
        if self.whole:
            raise ValueError("a second answer to one request")

    def on_message_complete(self) -> None:
        self.whole = bool(self.status)


def too_large() -> AttemptFailed:
    return AttemptFailed(Failure.BAD_ANSWER, f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MiB")


def unpacked(body: Body, encodings: str) -> Body:
    """`body` without its content codings, the last one first (RFC 9110 section 8.4)."""
    for name in reversed([one.strip() for one in encodings.split(",")]):
        if name.lower() in ("gzip", "x-gzip", "deflate"):
            body = _inflated(body)
        elif name.lower() not in ("", "identity"):
            # As it came, so that a key in it is found and hidden; whoever shows it cuts it.
            raise AttemptFailed(Failure.BAD_ANSWER, f"the answer is compressed by {name!r}, unasked")
    return body


def _inflated(body: Body) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        data = unpacker.decompress(body, MAX_ANSWER_BYTES + 1)
    except zlib.error as error:
        raise AttemptFailed(Failure.BAD_ANSWER, f"the answer is badly compressed ({error})") from None
    if len(data) > MAX_ANSWER_BYTES:
        raise too_large()
    if not unpacker.eof:
        raise AttemptFailed(Failure.BAD_ANSWER, "the answer is badly compressed (it breaks off)")
    return data
