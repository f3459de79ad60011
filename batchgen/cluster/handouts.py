"""Which jobs are with whom, and what the attempts file says of them. A job is written down before it is handed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from batchgen import joblog
from batchgen.cluster.staff import Crew, Handed, Who
from batchgen.joblog import Intent, Lives, Withdrawn
from batchgen.model import Attempt
from batchgen.pool import Pending, Policy
from batchgen.world import Clock


class Handouts:
    """`note` writes lines to the attempts file, and may raise; `last_n` is what the log knows of a job."""

    def __init__(
        self, policy: Policy, clock: Clock, note: Callable[[bytes], None], last_n: Callable[[str, str], int]
    ) -> None:
        self._policy, self._clock, self._write = policy, clock, note
        self._lives = Lives(last_n)
        self.unfinished: set[Who] = set()

    def entrust(self, crew: Crew, jobs: Sequence[Pending]) -> None:
        """Write that these jobs may be sent from now on, before anybody can."""
        at, policy, intents = joblog.timestamp(self._clock.utc()), self._policy, []
        for pending in jobs:
            job, n = pending.job, (pending.life[-1].n if pending.life else pending.last_n) + 1
            intents.append(Intent(job.id, job.fingerprint, n, at, policy.run, policy.prices_usd.get(job.model)))
        self._note(b"".join(map(joblog.encode, intents)))
        for pending, intent in zip(jobs, intents, strict=True):
            crew.entrust(pending, intent.n, intent.price_usd)
            self.unfinished.add((intent.job, intent.fingerprint))

    def noted(self, crew: Crew, lines: bytes) -> None:
        """A worker tells of requests that leave, and of how attempts ended."""
        for note in map(joblog.decode_note, lines.splitlines()):
            if isinstance(note, Intent):
                crew.sends(note)
        self._note(lines)

    def close(self, who: Who, handed: Handed) -> None:
        """The worker has nothing to do with this job any more."""
        if not handed.sent:
            self._note(joblog.encode(Withdrawn(*who, handed.n)))

    def again(self, who: Who, pending: Pending) -> Pending:
        """The job as it is to be handed out again: with the attempts of earlier runs, then those of this one."""
        attempts: dict[int, Attempt] = {attempt.n: attempt for attempt in (*pending.life, *self._lives.of(*who))}
        return msgspec.structs.replace(pending, life=tuple(attempts[n] for n in sorted(attempts)))

    def finished(self, who: Who) -> None:
        """The log tells of this job from now on."""
        self._lives.forget(*who)
        self.unfinished.discard(who)

    def _note(self, lines: bytes) -> None:
        self._write(lines)
        for line in lines.splitlines(keepends=True):
            self._lives.add(line)
