"""One connection, on which one request at a time is answered. Sockets and deadlines; judges nothing.

Every answer has a deadline of its own, whatever the server sends in the meantime.
"""

from __future__ import annotations

import asyncio
from typing import cast

from batchgen.client.incoming import Incoming
from batchgen.model import AttemptFailed, Failure

REFUSAL_BODY_S = 5.0
SCRATCH_BYTES = 1 << 16


class Connection(asyncio.BufferedProtocol):
    """An open connection; `first_byte_s` is when its last answer began, by the loop's time.

    What has no place yet is received into `scratch` and used up before anything else comes: all connections of one
    event loop may share it, but no others, for two loops receive at the same time.
    """

    def __init__(self, scratch: memoryview) -> None:
        self._loop, self._scratch = asyncio.get_running_loop(), scratch
        self._incoming: Incoming | None = None
        self.first_byte_s = 0.0
        self.closed = False

    async def ask(self, request: bytes, deadline_s: float) -> Incoming:
        """Send a request; its answer, which is whole, or a refusal as far as it came.

        Raises TimeoutError at `deadline_s` of the loop's time, OSError or AttemptFailed; the connection is closed then.
        """
        self._incoming, self._answered = Incoming(), self._loop.create_future()
        self._deadline = self._loop.call_at(deadline_s, self._fail, TimeoutError())
        self._transport.write(request)
        try:
            incoming: Incoming = await self._answered
        except BaseException:
            self._incoming = None
            self.close()
            raise
        finally:
            self._deadline.cancel()
            del self._answered  # which holds the answer
        if not incoming.keeps_alive or self._transport.get_write_buffer_size():
            self.close()  # who refuses a request before its end may never read the rest
        return incoming

    def close(self) -> None:
        self.closed = True
        self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # other loops' transports are none by descent

    def get_buffer(self, sizehint: int) -> memoryview:
        return (self._incoming and self._incoming.room) or self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        incoming = self._incoming
        if incoming is None:  # nobody has asked
            self.close()
        elif incoming.room:
            incoming.filled(nbytes)
            if incoming.whole:
                self._settle()
        else:
            self._read(incoming, self._scratch[:nbytes])

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)

    # What follows from it

    def _read(self, incoming: Incoming, data: memoryview) -> None:
        begun = incoming.status
        try:
            incoming.feed(data)
        except AttemptFailed as error:
            incoming.end()
            self._break_off(incoming, error)
            return
        if incoming.status and not begun:
            self.first_byte_s = self._loop.time()
            if incoming.status != 200:
                self._hurry()
        if incoming.whole:
            self._settle()

    def _hurry(self) -> None:
        """A refusal is one by its status, however little of its text arrives."""
        self._deadline.cancel()
        deadline_s = min(self._deadline.when(), self._loop.time() + REFUSAL_BODY_S)
        self._deadline = self._loop.call_at(deadline_s, self._give_up_on_text)

    def _give_up_on_text(self) -> None:
        if self._incoming:
            self._incoming.end()
            self._settle()

    def _end(self, error: Exception | None) -> None:
        self.closed = True
        if (incoming := self._incoming) is None:
            return
        if incoming.end() and error is None:
            self._settle()
        elif incoming.status:
            self._break_off(incoming, AttemptFailed(Failure.BAD_ANSWER, "the connection ended within the answer"))
        else:
            self._fail(error or ConnectionResetError("the server closed the connection without an answer"))

    def _break_off(self, incoming: Incoming, error: AttemptFailed) -> None:
        """Half a picture is none; half a refusal is one."""
        if incoming.status in (0, 200):
            self._fail(error)
        else:
            self._settle()

    def _settle(self) -> None:
        incoming, self._incoming = self._incoming, None
        if not self._answered.done():
            self._answered.set_result(incoming)

    def _fail(self, error: Exception) -> None:
        self._incoming = None
        if not self._answered.done():
            self._answered.set_exception(error)
