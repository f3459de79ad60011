"""What a failed attempt means: how sure we are that it cost nothing, and what may follow from it.

The classification is data: one rule a failure. Nothing here sends, waits or remembers; a rule may only be softened by
what the answer itself shows, never by hope. A generation request is paid, slow and not idempotent, so only an attempt
that surely was not executed may be repeated freely; every other repetition is rationed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from batchgen.model import Attempt, Billed, Counts, ExitCode, Failure, Outcome, ServerError

LIFETIME_RETRIES = 12
TRIES_IN_RUN = 12
LIFETIME_DOUBTS = 2
TOO_FAST_S = 0.5


class End(StrEnum):
    """The four ways an attempt can end without a picture."""

    NOT_SENT = "not_sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    USELESS = "useless"


class Again(StrEnum):
    """From which allowance a job may be sent again."""

    NEVER = "never"
    FREE = "free"
    COUNTED = "counted"
    RATIONED = "rationed"
    NEXT_RUN = "next_run"


class Effect(StrEnum):
    """What a failure says about everybody else's requests."""

    NONE = "none"
    COOLDOWN = "cooldown"
    QUOTA = "quota"
    OUTAGE = "outage"
    FEWER = "fewer"
    CANARY = "canary"
    STOP = "stop"


@dataclass(frozen=True)
class Rule:
    """What follows from one failure.

    `retries` bounds the COUNTED ones of a run, `min_wait_s` is the least pause before another attempt, `exit_code` the
    run's where the failure stops it, `hint` what somebody should look at then.
    """

    end: End
    billed: Billed
    again: Again
    effect: Effect = Effect.NONE
    retries: int = 0
    min_wait_s: float = 1.0
    hint: str = ""
    exit_code: ExitCode = ExitCode.INCOMPLETE


_NO, _MAYBE, _YES = Billed.NO, Billed.MAYBE, Billed.YES

RULES: dict[Failure, Rule] = {
    Failure.NOT_CONNECTED: Rule(End.NOT_SENT, _NO, Again.FREE, Effect.OUTAGE),
    Failure.TLS: Rule(
        End.NOT_SENT, _NO, Again.NEXT_RUN, Effect.STOP, exit_code=ExitCode.USAGE, hint="look at the API address"
    ),
    Failure.TOO_MANY_FILES: Rule(End.NOT_SENT, _NO, Again.COUNTED, Effect.FEWER, retries=3, min_wait_s=5),
    Failure.RATE_LIMITED: Rule(End.REFUSED, _NO, Again.FREE, Effect.COOLDOWN),
    Failure.QUOTA_SPENT: Rule(End.REFUSED, _NO, Again.FREE, Effect.QUOTA, exit_code=ExitCode.WORK_LEFT),
    Failure.BAD_REQUEST: Rule(End.REFUSED, _NO, Again.NEVER, Effect.CANARY),
    Failure.REFUSED_CONTENT: Rule(End.REFUSED, _MAYBE, Again.NEVER),
    Failure.UNAUTHORIZED: Rule(
        End.REFUSED, _NO, Again.NEXT_RUN, Effect.STOP, exit_code=ExitCode.ACCOUNT, hint="look at the API key"
    ),
    Failure.BILLING: Rule(
        End.REFUSED, _NO, Again.NEXT_RUN, Effect.STOP, exit_code=ExitCode.ACCOUNT, hint="look at the account's balance"
    ),
    Failure.FORBIDDEN: Rule(
        End.REFUSED, _NO, Again.NEVER, Effect.CANARY, exit_code=ExitCode.ACCOUNT, hint="look at what the key may do"
    ),
    Failure.NOT_FOUND: Rule(
        *(End.REFUSED, _NO, Again.NEVER, Effect.CANARY),
        exit_code=ExitCode.USAGE,
        hint="look at the model's name and the API address",
    ),
    Failure.CONFLICT: Rule(End.REFUSED, _MAYBE, Again.NEVER),
    Failure.REDIRECT: Rule(
        End.REFUSED, _NO, Again.NEXT_RUN, Effect.STOP, exit_code=ExitCode.USAGE, hint="look at the API address"
    ),
    Failure.SERVER_TIMEOUT: Rule(End.REFUSED, _NO, Again.COUNTED, Effect.OUTAGE, retries=3),
    Failure.SERVER_ERROR: Rule(End.REFUSED, _MAYBE, Again.COUNTED, Effect.OUTAGE, retries=2),
    Failure.UNAVAILABLE: Rule(End.REFUSED, _NO, Again.COUNTED, Effect.OUTAGE, retries=3),
    Failure.GATEWAY: Rule(End.UNKNOWN, _MAYBE, Again.RATIONED, Effect.OUTAGE, min_wait_s=30),
    Failure.NO_ANSWER: Rule(End.UNKNOWN, _MAYBE, Again.RATIONED, Effect.OUTAGE, min_wait_s=30),
    Failure.API_FAILED: Rule(End.REFUSED, _MAYBE, Again.COUNTED, Effect.OUTAGE, retries=1),
    Failure.BAD_ANSWER: Rule(End.USELESS, _YES, Again.RATIONED, Effect.OUTAGE),
    Failure.BAD_GATEWAY_BODY: Rule(End.UNKNOWN, _MAYBE, Again.RATIONED, Effect.OUTAGE, min_wait_s=60),
    Failure.UNCLASSIFIED: Rule(End.UNKNOWN, _MAYBE, Again.RATIONED, Effect.OUTAGE),
    Failure.IN_DOUBT: Rule(End.UNKNOWN, _MAYBE, Again.RATIONED),
    Failure.UNSENDABLE: Rule(End.NOT_SENT, _NO, Again.NEVER),
    Failure.DOWNLOAD: Rule(End.USELESS, _YES, Again.NEVER, Effect.OUTAGE),
    Failure.INPUT_CHANGED: Rule(End.NOT_SENT, _NO, Again.NEXT_RUN),
    Failure.STORAGE: Rule(End.USELESS, _YES, Again.NEXT_RUN, Effect.STOP, exit_code=ExitCode.STORAGE),
    Failure.INTERNAL: Rule(End.USELESS, _MAYBE, Again.NEVER),
}

_BY_STATUS: dict[int, Failure] = {
    400: Failure.BAD_REQUEST,
    401: Failure.UNAUTHORIZED,
    402: Failure.BILLING,
    403: Failure.FORBIDDEN,
    404: Failure.NOT_FOUND,
    405: Failure.NOT_FOUND,
    408: Failure.SERVER_TIMEOUT,
    409: Failure.CONFLICT,
    413: Failure.BAD_REQUEST,
    415: Failure.BAD_REQUEST,
    422: Failure.BAD_REQUEST,
    425: Failure.SERVER_TIMEOUT,
    429: Failure.RATE_LIMITED,
    500: Failure.SERVER_ERROR,
    503: Failure.UNAVAILABLE,
}

_ANY = frozenset(range(200, 600))
_A_DAY = r"daily|per[ -]day|(?:a|each|this) day|/ ?day\b|\b[IR]PD\b|for today|24 ?h(?:ours)?\b"

# What servers are known to say, in code or message, whatever status they say it with. Asked in this order: a spent
# balance also "exceeds a quota", and a spent day is also "too many requests". What an error's code says holds with any
# status; the words of a message are looser, and a rate limit's may advertise a payment page.
_BY_CODE: tuple[tuple[Failure, frozenset[int], re.Pattern[str]], ...] = (
    (Failure.REFUSED_CONTENT, _ANY, re.compile(r"content_(policy|filter)|moderation|safety|nsfw", re.I)),
    (Failure.BILLING, _ANY, re.compile(r"insufficient_(quota|balance|credits?|funds)|billing|payment", re.I)),
    (Failure.QUOTA_SPENT, frozenset({200, 403, 429, 503}), re.compile(r"daily|per_day|quota_(exceeded|reached)", re.I)),
    (Failure.RATE_LIMITED, frozenset({200, 429}), re.compile(r"rate_limit|too_many_requests", re.I)),
    (Failure.UNAUTHORIZED, frozenset({200}), re.compile(r"unauthorized|invalid_(api_)?key|authentication", re.I)),
    (Failure.NOT_FOUND, frozenset({400, 403}), re.compile(r"model_not_found|DeploymentNotFound", re.I)),
    (Failure.NOT_FOUND, frozenset({200}), re.compile(r"not_found", re.I)),
    (Failure.BAD_REQUEST, frozenset({200}), re.compile(r"bad_request|invalid_(request|param|value)|validation", re.I)),
)
_BY_MESSAGE: tuple[tuple[Failure, frozenset[int], re.Pattern[str]], ...] = (
    (
        Failure.REFUSED_CONTENT,
        frozenset({200, 400, 403, 422, 451}),
        re.compile(
            r"content[_ ](policy|filter|moderation)|safety (system|filter|policy|reasons)|nsfw"
            r"|(flagged|blocked|rejected) (by|as)|violates .{0,40}(policy|guidelines)",
            re.I,
        ),
    ),
    (
        Failure.BILLING,
        frozenset({200, 400, 403, 429}),
        re.compile(r"insufficient (quota|balance|credits?|funds)|out of credits?|balance is", re.I),
    ),
    (Failure.BILLING, frozenset({200, 403}), re.compile(r"billing|payment", re.I)),
    (
        Failure.QUOTA_SPENT,
        frozenset({200, 403, 429, 503}),
        re.compile(rf"{_A_DAY}|quota (exceeded|reached|exhausted)", re.I),
    ),
    (Failure.RATE_LIMITED, frozenset({200}), re.compile(r"rate limit|too many requests", re.I)),
)
_DAY, _MINUTE = re.compile(_A_DAY, re.I), re.compile(r"per[ -]min|a minute|/ ?min|\b[IR]PM\b", re.I)


def classify(status: int, error: ServerError, *, elapsed_s: float, fastest_s: float | None = None) -> Failure:
    """The failure behind an answer that is not a picture.

    `elapsed_s` is how long the answer took and `fastest_s` the quickest success of its model so far: a server error or
    a proxy's page that comes sooner than a picture can be made was not a generation, and is treated as UNAVAILABLE.
    """
    if said := _by_words(status, error):
        return said
    if 300 <= status < 400:
        return Failure.REDIRECT
    if status == 200:
        failure = Failure.API_FAILED if error.shaped else Failure.BAD_GATEWAY_BODY
    elif status == 500 and not error.shaped:
        failure = Failure.GATEWAY
    else:
        failure = _BY_STATUS.get(status) or (Failure.GATEWAY if 500 <= status < 600 else Failure.UNCLASSIFIED)
    return Failure.UNAVAILABLE if _too_fast(failure, elapsed_s, fastest_s) else failure


def _by_words(status: int, error: ServerError) -> Failure | None:
    if status == 200 and not error.shaped:
        return None
    for text, table in ((error.code, _BY_CODE), (error.message, _BY_MESSAGE)):
        for failure, statuses, pattern in table:
            if text and status in statuses and pattern.search(text):
                # Some servers have one code for all their limits, and only the words tell the day's from the minute's.
                of_day = failure is Failure.RATE_LIMITED and _of_the_day(error.message)
                return Failure.QUOTA_SPENT if of_day else failure
    return None


def _of_the_day(message: str) -> bool:
    return bool(_DAY.search(message)) and not _MINUTE.search(message)


def _too_fast(failure: Failure, elapsed_s: float, fastest_s: float | None) -> bool:
    quick = elapsed_s < max(TOO_FAST_S, (fastest_s or 0.0) / 5)
    return quick and failure in (Failure.GATEWAY, Failure.BAD_GATEWAY_BODY, Failure.SERVER_ERROR)


@dataclass(frozen=True)
class Allowance:
    """How often a job may be sent again: `attempts` in a run, `uncertain_retries` in its life after unknown answers."""

    attempts: int = 4
    uncertain_retries: int = 1


class Step(StrEnum):
    """What happens to a job after an attempt failed."""

    RETRY = "retry"
    LEAVE = "leave"
    FAIL = "fail"
    PARK = "park"

    @property
    def outcome(self) -> Outcome | None:
        """How the job ends by this step; None where it does not end."""
        return {Step.FAIL: Outcome.FAILED, Step.PARK: Outcome.UNCERTAIN}.get(self)


def counts(failure: Failure, *, others_succeed: bool, probing: bool) -> Counts | None:
    """Which allowance a failed attempt takes.

    `others_succeed`: another request succeeded since this job's previous attempt, so the fault may be the job's own.
    `probing`: the attempt was sent to find out whether an outage is over, and takes nothing unless it was surely paid.
    """
    rule = RULES[failure]
    if probing and rule.billed is not Billed.YES:
        return None
    match rule.again:
        case Again.RATIONED:
            return Counts.RATION
        case Again.COUNTED if others_succeed:
            return Counts.RETRY
    return None


def next_step(failure: Failure, life: tuple[Attempt, ...], in_run: int, allowance: Allowance) -> Step:
    """What to do after the last attempt of `life` (all the job's attempts ever) failed; `in_run` is the place in
    `life` where this run's attempts begin."""
    rule = RULES[failure]
    match rule.again:
        case Again.NEVER:
            return Step.FAIL
        case Again.NEXT_RUN:
            return Step.LEAVE
        case Again.RATIONED:
            return Step.RETRY if _taken(life, Counts.RATION) <= allowance.uncertain_retries else Step.PARK
        case Again.COUNTED:
            if _taken(life, Counts.RETRY) >= LIFETIME_RETRIES:
                return Step.FAIL
            spent = _taken(life[in_run:], Counts.RETRY)
            # Where nobody else succeeds nothing counts; yet one last job must not be tried all night.
            tries = sum(a.failure is not None and RULES[a.failure].again is Again.COUNTED for a in life[in_run:])
            again = spent <= min(rule.retries, allowance.attempts - 1) and tries < TRIES_IN_RUN
            return Step.RETRY if again else Step.LEAVE
    return Step.RETRY


def step_at_start(life: tuple[Attempt, ...], allowance: Allowance) -> Step:
    """Whether a job with these earlier attempts may be sent at all: a job that is in doubt for the third time, or whose
    ration was spent before the run ended, is parked."""
    doubts, rationed = _taken(life, Counts.DOUBT), _taken(life, Counts.RATION)
    return Step.PARK if doubts > LIFETIME_DOUBTS or rationed > allowance.uncertain_retries else Step.RETRY


def _taken(life: tuple[Attempt, ...], which: Counts) -> int:
    return sum(attempt.counts is which for attempt in life)
