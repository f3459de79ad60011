"""The arithmetic of when: pace, cooldown, adaptive concurrency, outage breaker, retry budget, quota day, backoff.

Each gate is a small machine fed with the time it should believe; `now_s` is monotonic seconds, `utc` the wall clock.
None of them sleeps, reads a clock, draws a random number or knows what a job is. A gate answers with a `Hold`: for how
long, and why, nothing may be sent; None is a free way.
"""

from batchgen.pacing.allowance import AccountState, Budget, Day, Lease, Pace, Tickets, grant
from batchgen.pacing.gates import (
    BARREN_COOLDOWNS,
    BARREN_S,
    DEFAULT_COOLDOWN_S,
    MAX_GROWN_COOLDOWN_S,
    PROBE_PAUSES_S,
    RETRY_COST,
    RETRY_TOKENS,
    Adaptive,
    Allotment,
    Breaker,
    Cooldown,
    Gates,
    RetryBudget,
)
from batchgen.pacing.waits import (
    ABSURD_S,
    QUOTA_HINT_S,
    Hold,
    Told,
    backoff_s,
    clock_skew,
    next_reset,
    retry_after_s,
    span_s,
    told,
)

__all__ = [
    "ABSURD_S",
    "BARREN_COOLDOWNS",
    "BARREN_S",
    "DEFAULT_COOLDOWN_S",
    "MAX_GROWN_COOLDOWN_S",
    "PROBE_PAUSES_S",
    "QUOTA_HINT_S",
    "RETRY_COST",
    "RETRY_TOKENS",
    "AccountState",
    "Adaptive",
    "Allotment",
    "Breaker",
    "Budget",
    "Cooldown",
    "Day",
    "Gates",
    "Hold",
    "Lease",
    "Pace",
    "RetryBudget",
    "Tickets",
    "Told",
    "backoff_s",
    "clock_skew",
    "grant",
    "next_reset",
    "retry_after_s",
    "span_s",
    "told",
]
