"""One attempt, from the job to what came of it: intent, request, answer, pictures. Decides nothing about the next."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec

from batchgen import failures, joblog
from batchgen.joblog import Ended, Intent
from batchgen.model import Attempt, AttemptFailed, BadAnswer, Billed, Counts, Entry, Failure, Post, Reply, ServerError
from batchgen.pacing import QUOTA_HINT_S, retry_after_s
from batchgen.pool.task import Fault, Policy, Sent, Task, Way
from batchgen.protocol import read_error
from batchgen.world import Clock, Deliver, Delivery


class Intents:
    """Lines that must be written before their requests leave: one write for all those of one turn of the loop."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []

    def add(self, line: bytes) -> asyncio.Future[None]:
        """Done when the line is written; raises what writing it raised. Who stops waiting leaves an intent behind."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        future = loop.create_future()
        self._waiting.append((line, future))
        return future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        failure: Exception | None = None
        try:
            self._write(b"".join([line for line, _ in waiting]))
        except Exception as error:
            failure = error
        for _, future in waiting:
            if future.done():
                continue
            if failure:
                future.set_exception(failure)
            else:
                future.set_result(None)


class Sender:
    """Sends attempts one way; `fastest_s` remembers the quickest success of each model there."""

    def __init__(self, policy: Policy, way: Way, *, deliver: Deliver, intents: Intents, clock: Clock) -> None:
        self._policy, self._way, self._transport, self._deliver = policy, way, way.transport, deliver
        self._intents, self._clock = intents, clock
        self._fastest_s: dict[str, float] = {}

    async def attempt(
        self, task: Task, post: Post, answered: Callable[[Reply | None], None]
    ) -> tuple[Sent, Entry | Fault]:
        """Send one request for the task and save what comes; `answered` is called when the network is done with.

        Raises StorageError or OSError where intent or pictures cannot be written.
        """
        job, policy = task.job, self._policy
        sent = self.now(task)
        intent = Intent(job.id, job.fingerprint, sent.n, sent.at, policy.run, task.price_usd, sent.endpoint)
        await self._intents.add(joblog.encode(intent))
        reply = None
        try:
            reply = await self._transport.send(post, self._way.timeout_s)
        except AttemptFailed as error:
            return sent, Fault(error.failure, str(error))
        except Exception as error:  # whatever the transport lets slip concerns this job alone
            return sent, _internal(error)
        finally:
            answered(reply)
        if reply.status != 200:
            return sent, self._refusal(task, reply, read_error(policy.key.hide_bytes(reply.body)))
        if reply.links:
            await self._intents.add(joblog.encode(_linked(task, sent, reply)))
            try:
                reply = await self._transport.fetch(reply)
            except Exception as error:  # whatever it was: the picture is paid for, and may still be fetched by hand
                return sent, Fault(Failure.DOWNLOAD, str(error), reply.status, urls=reply.links)
        saved = self._deliver.submit(Delivery(task.draft(policy, sent, reply), reply.body))
        reply = msgspec.structs.replace(reply, body=b"")  # the writer alone holds the answer, and lets it go
        return sent, self._outcome(task, reply, await saved)

    def now(self, task: Task) -> Sent:
        """The task's next attempt, begun at this moment."""
        at, now_s = joblog.timestamp(self._clock.utc()), self._clock.monotonic()
        return Sent(task.next_n, at, now_s, self._way.name or None)

    def _outcome(self, task: Task, reply: Reply, result: Entry | ServerError | Exception) -> Entry | Fault:
        match result:
            case Entry():
                model = task.job.model
                self._fastest_s[model] = min(reply.response_s, self._fastest_s.get(model, math.inf))
                return result
            case ServerError():
                return self._refusal(task, reply, result)
            case BadAnswer():
                return Fault(Failure.BAD_ANSWER, str(result), reply.status)
        return _internal(result)

    def _refusal(self, task: Task, reply: Reply, error: ServerError) -> Fault:
        fastest_s = self._fastest_s.get(task.job.model)
        failure = failures.classify(reply.status, error, elapsed_s=reply.response_s, fastest_s=fastest_s)
        asked_s = retry_after_s(reply.headers, self._clock.utc())
        if failure is Failure.RATE_LIMITED and asked_s is not None and asked_s > QUOTA_HINT_S:
            failure = Failure.QUOTA_SPENT
        message = error.message
        if failure is Failure.REDIRECT and (place := reply.headers.get("location")):
            message = f"to {place}, which is not followed"
        return Fault(failure, message, reply.status, error.code, asked_s)


def _linked(task: Task, sent: Sent, reply: Reply) -> Ended:
    """What is known of the attempt before its pictures are fetched: should the process end now, the log will tell where
    they are."""
    attempt = Attempt(
        n=sent.n,
        at=sent.at,
        elapsed_s=round(reply.response_s, 6),
        billed=Billed.YES,
        http=reply.status,
        failure=Failure.IN_DOUBT,
        message="its pictures were still to be fetched",
        counts=Counts.DOUBT,
        urls=reply.links,
        endpoint=sent.endpoint,
    )
    return Ended(task.job.id, task.job.fingerprint, attempt, task.price_usd)


def _internal(error: Exception) -> Fault:
    return Fault(Failure.INTERNAL, f"{type(error).__name__}: {error}")
