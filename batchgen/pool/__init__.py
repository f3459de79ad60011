"""The pool: which job's attempt is sent when, and what follows from how it ended. One event loop, at most C attempts.

What a failure means is decided in `failures`, when something may be sent in `pacing`; here both are obeyed. The pool
opens no file and no socket and reads no clock of its own.
"""

from batchgen.pool.lane import Lane
from batchgen.pool.scheduler import ABORT_S, Pool
from batchgen.pool.task import Deadline, Pending, Policy, Stop, Way, cost_usd

__all__ = ["ABORT_S", "Deadline", "Lane", "Pending", "Policy", "Pool", "Stop", "Way", "cost_usd"]
