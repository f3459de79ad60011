"""How long a job waits before it is tried again, by how it failed. tenacity computes, it never sleeps."""

from __future__ import annotations

from tenacity import RetryCallState, wait_exponential

from batchgen.failures import RULES, Effect
from batchgen.pacing import QUOTA_HINT_S, backoff_s
from batchgen.pool.task import Fault

MOMENT_S = 0.5
_bound_s = wait_exponential(multiplier=1, max=60)


def wait_s(fault: Fault, tries: int, *, pause_s: float, elsewhere: bool, jitter: float) -> float:
    """Seconds until the next try after so many `tries` in this run; `pause_s` is what is left of the failed endpoint's
    cooldown, `elsewhere` says that another one is well. `jitter` is a random number from 0 to 1.
    """
    rule = RULES[fault.failure]
    if elsewhere or rule.effect in (Effect.STOP, Effect.CANARY):
        return MOMENT_S * jitter  # the pause is for the endpoint that failed
    if rule.effect in (Effect.COOLDOWN, Effect.QUOTA):
        # After the pause another job tries the way first, if there is one: this one may be the reason.
        return pause_s + MOMENT_S + jitter
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = tries
    least_s = max(rule.min_wait_s, min(fault.asked_s or 0.0, QUOTA_HINT_S))
    return backoff_s(_bound_s(state), jitter, least_s)
