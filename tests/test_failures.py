"""The classification of failures: what each answer means, what follows from it, and how often a job may be resent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from samples import life

from batchgen.failures import (
    LIFETIME_DOUBTS,
    LIFETIME_RETRIES,
    RULES,
    Again,
    Allowance,
    Effect,
    End,
    Step,
    classify,
    counts,
    next_step,
    step_at_start,
)
from batchgen.model import Attempt, Billed, Counts, ExitCode, Failure, Outcome, ServerError
from batchgen.protocol import read_error
from batchgen.protocol.nebula import encode_error

HTML = b"<html><head><title>Bad gateway</title></head><body>nginx</body></html>"
SHORT = encode_error("something went wrong")
LONG = encode_error("something went wrong", "some_code")
SLOW_S = 10.0
RETRY, RATION, DOUBT = Counts.RETRY, Counts.RATION, Counts.DOUBT


def failure_of(status: int, body: bytes, elapsed_s: float = SLOW_S, fastest_s: float | None = None) -> Failure:
    """What an answer with this body means, by the same road as in the pool."""
    return classify(status, read_error(body), elapsed_s=elapsed_s, fastest_s=fastest_s)


# One row a line of table (b): status, what it means in the API's two error shapes, and with a page or nothing.
BY_STATUS = [
    (204, Failure.UNCLASSIFIED, Failure.UNCLASSIFIED),
    (301, Failure.REDIRECT, Failure.REDIRECT),
    (302, Failure.REDIRECT, Failure.REDIRECT),
    (303, Failure.REDIRECT, Failure.REDIRECT),
    (307, Failure.REDIRECT, Failure.REDIRECT),
    (308, Failure.REDIRECT, Failure.REDIRECT),
    (300, Failure.REDIRECT, Failure.REDIRECT),
    (399, Failure.REDIRECT, Failure.REDIRECT),
    (400, Failure.BAD_REQUEST, Failure.BAD_REQUEST),
    (401, Failure.UNAUTHORIZED, Failure.UNAUTHORIZED),
    (402, Failure.BILLING, Failure.BILLING),
    (403, Failure.FORBIDDEN, Failure.FORBIDDEN),
    (404, Failure.NOT_FOUND, Failure.NOT_FOUND),
    (405, Failure.NOT_FOUND, Failure.NOT_FOUND),
    (408, Failure.SERVER_TIMEOUT, Failure.SERVER_TIMEOUT),
    (409, Failure.CONFLICT, Failure.CONFLICT),
    (413, Failure.BAD_REQUEST, Failure.BAD_REQUEST),
    (415, Failure.BAD_REQUEST, Failure.BAD_REQUEST),
    (418, Failure.UNCLASSIFIED, Failure.UNCLASSIFIED),
    (422, Failure.BAD_REQUEST, Failure.BAD_REQUEST),
    (425, Failure.SERVER_TIMEOUT, Failure.SERVER_TIMEOUT),
    (429, Failure.RATE_LIMITED, Failure.RATE_LIMITED),
    (500, Failure.SERVER_ERROR, Failure.GATEWAY),
    (502, Failure.GATEWAY, Failure.GATEWAY),
    (503, Failure.UNAVAILABLE, Failure.UNAVAILABLE),
    (504, Failure.GATEWAY, Failure.GATEWAY),
    (520, Failure.GATEWAY, Failure.GATEWAY),
    (599, Failure.GATEWAY, Failure.GATEWAY),
    (600, Failure.UNCLASSIFIED, Failure.UNCLASSIFIED),
    (999, Failure.UNCLASSIFIED, Failure.UNCLASSIFIED),
]


@pytest.mark.parametrize(("status", "shaped", "bare"), BY_STATUS, ids=[str(row[0]) for row in BY_STATUS])
def test_every_status_has_its_row(status: int, shaped: Failure, bare: Failure) -> None:
    """A status means its row of the table, in both error shapes of the API, and as a proxy's page, text or nothing."""
    assert [failure_of(status, body) for body in (SHORT, LONG)] == [shaped] * 2
    assert [failure_of(status, body) for body in (HTML, b"oops", b"", b"null", b"[]", b"{}")] == [bare] * 6


OF_200 = [
    pytest.param(SHORT, Failure.API_FAILED, id="failed without a code"),
    pytest.param(LONG, Failure.API_FAILED, id="failed with an unknown code"),
    pytest.param(HTML, Failure.BAD_GATEWAY_BODY, id="a proxy's page"),
    pytest.param(b"<p>daily rate limit, billing, nsfw</p>", Failure.BAD_GATEWAY_BODY, id="a page that says anything"),
    pytest.param(encode_error("Too many requests"), Failure.RATE_LIMITED, id="rate limit"),
    pytest.param(encode_error("slow down", "rate_limit_exceeded"), Failure.RATE_LIMITED, id="rate limit by code"),
    pytest.param(encode_error("Daily limit reached"), Failure.QUOTA_SPENT, id="quota"),
    pytest.param(encode_error("no", "insufficient_balance"), Failure.BILLING, id="balance by code"),
    pytest.param(encode_error("no", "content_policy_violation"), Failure.REFUSED_CONTENT, id="content by code"),
]


@pytest.mark.parametrize(("body", "failure"), OF_200)
def test_errors_with_status_200(body: bytes, failure: Failure) -> None:
    """An error that comes with status 200 means what it says; a page that comes with it proves nothing."""
    assert failure_of(200, body) is failure


WORDINGS = [
    pytest.param(400, "", "content_policy_violation", Failure.REFUSED_CONTENT, id="400 content policy"),
    pytest.param(422, "Rejected by the content filter", None, Failure.REFUSED_CONTENT, id="422 content filter"),
    pytest.param(403, "NSFW prompt", None, Failure.REFUSED_CONTENT, id="403 nsfw"),
    pytest.param(451, "blocked by our safety system", None, Failure.REFUSED_CONTENT, id="451 safety"),
    pytest.param(400, "flagged by moderation", None, Failure.REFUSED_CONTENT, id="400 moderation"),
    pytest.param(
        429, "You exceeded your current quota", "insufficient_quota", Failure.BILLING, id="429 quota of money"
    ),
    pytest.param(403, "Insufficient balance", None, Failure.BILLING, id="403 balance"),
    pytest.param(403, "insufficient credits", None, Failure.BILLING, id="403 credits"),
    pytest.param(429, "You are out of credit", None, Failure.BILLING, id="429 credit"),
    pytest.param(402, "Daily limit", None, Failure.BILLING, id="402 says it all"),
    pytest.param(429, "Daily quota", "insufficient_funds", Failure.BILLING, id="money before quota"),
    pytest.param(
        429,
        "Rate limit: 200 requests per day",
        "rate_limit_exceeded",
        Failure.QUOTA_SPENT,
        id="a code, a day's words",
    ),
    pytest.param(429, "Limit (RPD): 200", "rate_limit_exceeded", Failure.QUOTA_SPENT, id="a day's letters"),
    pytest.param(429, "5 / day", "too_many_requests", Failure.QUOTA_SPENT, id="a day's slash"),
    pytest.param(
        429, "60 per minute, 900 per day", "rate_limit_exceeded", Failure.RATE_LIMITED, id="both words, the looser"
    ),
    pytest.param(429, "on images per min: Limit 5", "rate_limit_exceeded", Failure.RATE_LIMITED, id="a minute's words"),
    pytest.param(400, "no", "moderation_blocked", Failure.REFUSED_CONTENT, id="400 moderation by code"),
    pytest.param(400, "no", "billing_hard_limit_reached", Failure.BILLING, id="400 hard limit"),
    pytest.param(400, "no such", "model_not_found", Failure.NOT_FOUND, id="400 model"),
    pytest.param(403, "no access", "model_not_found", Failure.NOT_FOUND, id="403 model"),
    pytest.param(429, "Daily request limit reached", None, Failure.QUOTA_SPENT, id="429 daily"),
    pytest.param(429, "limit of 1000 requests per day", None, Failure.QUOTA_SPENT, id="429 per day"),
    pytest.param(429, "no", "requests_per_day", Failure.QUOTA_SPENT, id="429 per day by code"),
    pytest.param(429, "1000 images a day", None, Failure.QUOTA_SPENT, id="429 a day"),
    pytest.param(429, "Enough for today", None, Failure.QUOTA_SPENT, id="429 today"),
    pytest.param(429, "1000 in 24 hours", None, Failure.QUOTA_SPENT, id="429 24 hours"),
    pytest.param(429, "1000 / 24h", None, Failure.QUOTA_SPENT, id="429 24h"),
    pytest.param(429, "Quota exceeded", None, Failure.QUOTA_SPENT, id="429 quota exceeded"),
    pytest.param(403, "quota exhausted", None, Failure.QUOTA_SPENT, id="403 quota"),
    pytest.param(503, "quota reached", None, Failure.QUOTA_SPENT, id="503 quota"),
    pytest.param(429, "Rate limit of 60 requests per minute", None, Failure.RATE_LIMITED, id="429 per minute"),
    pytest.param(429, "Retry in 240 seconds", None, Failure.RATE_LIMITED, id="24 inside a number"),
    pytest.param(401, "Insufficient balance, nsfw, daily", None, Failure.UNAUTHORIZED, id="401 is never more"),
    pytest.param(404, "no billing account, daily", None, Failure.NOT_FOUND, id="404 is never more"),
    pytest.param(500, "rate limit", None, Failure.SERVER_ERROR, id="500 is no rate limit"),
    pytest.param(503, "rate limit", None, Failure.UNAVAILABLE, id="503 is no rate limit"),
    pytest.param(400, "Too many requests", None, Failure.BAD_REQUEST, id="400 is no rate limit"),
]


@pytest.mark.parametrize(("status", "message", "code", "failure"), WORDINGS)
def test_what_the_words_say(status: int, message: str, code: str | None, failure: Failure) -> None:
    """Known wordings tell quota, money and content apart from what their status alone would mean."""
    assert classify(status, ServerError(message, code, shaped=True), elapsed_s=SLOW_S) is failure


# What an error's code (words apart by blanks) or message (by commas) may say, and the statuses it is believed with.
ALL = frozenset(range(200, 600))
SPENT_STATUSES = frozenset({200, 403, 429, 503})
CODES: list[tuple[Failure, frozenset[int], str]] = [
    (Failure.REFUSED_CONTENT, ALL, "content_policy content_filter content_moderation moderation safety nsfw"),
    (Failure.BILLING, ALL, "insufficient_quota insufficient_balance insufficient_credit insufficient_credits"),
    (Failure.BILLING, ALL, "insufficient_funds billing payment"),
    (Failure.QUOTA_SPENT, SPENT_STATUSES, "daily per_day quota_exceeded quota_reached"),
    (Failure.RATE_LIMITED, frozenset({200, 429}), "rate_limit too_many_requests"),
    (Failure.UNAUTHORIZED, frozenset({200}), "unauthorized invalid_key invalid_api_key authentication"),
    (Failure.NOT_FOUND, frozenset({200}), "not_found"),
    (Failure.BAD_REQUEST, frozenset({200}), "bad_request invalid_request invalid_param invalid_value validation"),
]
_CONTENT, _MONEY = frozenset({200, 400, 403, 422, 451}), frozenset({200, 400, 402, 403, 429})
MESSAGES: list[tuple[Failure, frozenset[int], str]] = [
    (Failure.REFUSED_CONTENT, _CONTENT, "content policy, content filter, content moderation, content_policy, nsfw"),
    (Failure.REFUSED_CONTENT, _CONTENT, "safety system, safety filter, safety policy, safety reasons"),
    (Failure.REFUSED_CONTENT, _CONTENT, "flagged by, flagged as, blocked by, blocked as, rejected by, rejected as"),
    (Failure.REFUSED_CONTENT, _CONTENT, "violates our policy, violates guidelines"),
    (Failure.REFUSED_CONTENT, _CONTENT, f"violates {'x' * 39} policy"),
    (Failure.BILLING, _MONEY, "insufficient quota, insufficient balance, insufficient credit, insufficient credits"),
    (Failure.BILLING, _MONEY, "insufficient funds, out of credit, out of credits, balance is"),
    (Failure.BILLING, frozenset({200, 402, 403}), "billing, payment"),
    (Failure.QUOTA_SPENT, SPENT_STATUSES, "daily, per day, per-day, a day, each day, this day, for today"),
    (
        Failure.QUOTA_SPENT,
        SPENT_STATUSES,
        "24h, 24 h, 24hours, 24 hours, quota exceeded, quota reached, quota exhausted",
    ),
    (Failure.RATE_LIMITED, frozenset({200}), "rate limit, too many requests"),
]
BELIEVED = [(failure, statuses, word, None) for failure, statuses, words in CODES for word in words.split()] + [
    (failure, statuses, None, words) for failure, statuses, said in MESSAGES for words in said.split(", ")
]


@pytest.mark.parametrize(
    ("failure", "statuses", "code", "message"), BELIEVED, ids=[f"{row[2] or ''}:{row[3] or ''}" for row in BELIEVED]
)
def test_which_words_are_believed_with_which_status(
    failure: Failure, statuses: frozenset[int], code: str | None, message: str | None
) -> None:
    """Every known word means its failure with exactly its statuses; with all others it changes nothing."""
    for spelled in (str.lower, str.upper):
        said = ServerError(spelled(f"Sorry: {message or 'no'}."), code and spelled(f"an_{code}_error"), shaped=True)
        plain = ServerError("no", shaped=True)
        for status in range(200, 601):
            expected = failure if status in statuses else classify(status, plain, elapsed_s=SLOW_S)
            assert (status, classify(status, said, elapsed_s=SLOW_S)) == (status, expected)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("24 hits in a minute", id="24 and a word"),
        pytest.param("Retry in 24hx", id="24h and a letter"),
        pytest.param("quota of this minute", id="a quota of another time"),
        pytest.param("your balance", id="a balance that is not told"),
        pytest.param(f"violates {'x' * 40} policy", id="a policy far away"),
        pytest.param("violates the rules", id="rules of any kind"),
        pytest.param("content is missing", id="content of any kind"),
        pytest.param("flagged twice", id="flagged by nobody"),
        pytest.param("sent by you", id="anything by somebody"),
        pytest.param("insufficient permissions", id="a lack of anything"),
        pytest.param("on that day", id="a day of any kind"),
    ],
)
def test_words_that_only_look_alike(message: str) -> None:
    """Words near to the known ones leave an answer what its status says."""
    said = ServerError(message, shaped=True)
    meant = {200: Failure.API_FAILED, 403: Failure.FORBIDDEN, 429: Failure.RATE_LIMITED}
    assert {status: classify(status, said, elapsed_s=SLOW_S) for status in meant} == meant


@pytest.mark.parametrize(
    ("status", "message", "code", "failure"),
    [
        pytest.param(429, "no", "insufficient_quota_exceeded", Failure.BILLING, id="money before day, by code"),
        pytest.param(429, "no", "daily_rate_limit", Failure.QUOTA_SPENT, id="day before minute, by code"),
        pytest.param(403, "Blocked by us; see billing", None, Failure.REFUSED_CONTENT, id="content before money"),
        pytest.param(429, "Insufficient balance: quota exceeded", None, Failure.BILLING, id="money before day"),
        pytest.param(403, "Payment due for your daily use", None, Failure.BILLING, id="payment before day"),
        pytest.param(200, "Too many requests for today", None, Failure.QUOTA_SPENT, id="day before minute"),
    ],
)
def test_the_graver_meaning_comes_first(status: int, message: str, code: str | None, failure: Failure) -> None:
    """Where the words of an error have two meanings, the one that a pause would not mend is believed."""
    assert classify(status, ServerError(message, code, shaped=True), elapsed_s=SLOW_S) is failure


@pytest.mark.parametrize(
    "code", ["terms_policy", "content_type", "insufficient_scope", "quota_left", "not", "invalid_state"]
)
def test_codes_that_only_look_alike(code: str) -> None:
    """A code that shares a word with the known ones leaves an answer what its status says."""
    said = ServerError("no", code, shaped=True)
    assert [classify(status, said, elapsed_s=SLOW_S) for status in (200, 403)] == [
        Failure.API_FAILED,
        Failure.FORBIDDEN,
    ]


@pytest.mark.parametrize("status", [409, 424, 429, 500, 503])
def test_a_content_refusal_by_code_holds_with_any_status(status: int) -> None:
    """A refusal of the content is never sent again, whatever status the server chose for it."""
    body = encode_error("Your request was rejected.", "content_policy_violation")
    assert failure_of(status, body) is Failure.REFUSED_CONTENT


def test_advice_in_a_rate_limit_is_no_refusal_of_the_account() -> None:
    """A per-minute limit that also advertises a payment page pauses the run and does not end it for the night."""
    message = (
        "Rate limit reached for images per min. Limit: 5 / 1min. Please try again in 12s. Add a payment method to your"
        " account at https://platform.example.com/account/billing to increase your rate limit."
    )
    assert failure_of(429, encode_error(message, "rate_limit_exceeded")) is Failure.RATE_LIMITED


def test_a_code_says_more_than_a_message() -> None:
    """A per-minute limit by its code is one, though its message also tells of the daily limit."""
    body = encode_error("Slow down: 5 images a minute, 1000 a day.", "rate_limit_exceeded")
    assert failure_of(429, body) is Failure.RATE_LIMITED
    assert failure_of(429, encode_error("Slow down: 5 images a minute, 1000 a day.")) is Failure.QUOTA_SPENT


@pytest.mark.parametrize(
    ("message", "code"),
    [("unknown field 'safety_checker'", "invalid_parameter"), ("prompt 'a safety vest at work' is too long", None)],
    ids=["a parameter", "an echoed prompt"],
)
def test_a_bad_request_that_names_safety_is_a_bad_request(message: str, code: str | None) -> None:
    """A 400 for a wrong parameter counts for the canary, or it would fail the whole manifest, one job after another."""
    assert classify(400, ServerError(message, code, shaped=True), elapsed_s=SLOW_S) is Failure.BAD_REQUEST


TOO_FAST = [
    pytest.param(0.0, None, True, id="at once"),
    pytest.param(0.499, None, True, id="just under half a second"),
    pytest.param(0.5, None, False, id="half a second"),
    pytest.param(0.499, 0.1, True, id="the floor holds for fast models"),
    pytest.param(0.5, 2.5, False, id="floor and fifth meet"),
    pytest.param(1.999, 10.0, True, id="just under a fifth of the fastest"),
    pytest.param(2.0, 10.0, False, id="a fifth of the fastest"),
    pytest.param(9.0, 10.0, False, id="slow"),
]
MAYBE_GENERATED = [(500, SHORT), (500, HTML), (502, HTML), (504, LONG), (520, b""), (200, HTML)]


@pytest.mark.parametrize(("elapsed_s", "fastest_s", "fast"), TOO_FAST)
@pytest.mark.parametrize(("status", "body"), MAYBE_GENERATED, ids=["500", "500 page", "502", "504", "520", "200 page"])
def test_too_fast_to_be_a_picture(
    status: int, body: bytes, elapsed_s: float, fastest_s: float | None, fast: bool
) -> None:
    """A server error or page that came sooner than a picture can be made was not paid for; a later one may be."""
    failure = failure_of(status, body, elapsed_s, fastest_s)
    assert (failure is Failure.UNAVAILABLE) is fast
    assert RULES[failure].billed is (Billed.NO if fast else Billed.MAYBE)


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        pytest.param(400, SHORT, Failure.BAD_REQUEST, id="400"),
        pytest.param(409, SHORT, Failure.CONFLICT, id="409"),
        pytest.param(429, SHORT, Failure.RATE_LIMITED, id="429"),
        pytest.param(418, SHORT, Failure.UNCLASSIFIED, id="unknown"),
        pytest.param(302, HTML, Failure.REDIRECT, id="redirect"),
        pytest.param(200, SHORT, Failure.API_FAILED, id="the API's own failure"),
    ],
)
def test_speed_excuses_server_errors_only(status: int, body: bytes, failure: Failure) -> None:
    """However fast it came, any other answer means its own row."""
    assert failure_of(status, body, 0.0, 100.0) is failure


_REFUSED, _UNKNOWN, _NOT_SENT, _USELESS = End.REFUSED, End.UNKNOWN, End.NOT_SENT, End.USELESS
_NO, _MAYBE, _YES = Billed.NO, Billed.MAYBE, Billed.YES
# failure, end, billed, again, retries, least wait, effect, exit code of a run that it stops
TABLE = [
    (Failure.NOT_CONNECTED, _NOT_SENT, _NO, Again.FREE, 0, 1, Effect.OUTAGE, 3),
    (Failure.TLS, _NOT_SENT, _NO, Again.NEXT_RUN, 0, 1, Effect.STOP, 2),
    (Failure.TOO_MANY_FILES, _NOT_SENT, _NO, Again.COUNTED, 3, 5, Effect.FEWER, 3),
    (Failure.RATE_LIMITED, _REFUSED, _NO, Again.FREE, 0, 1, Effect.COOLDOWN, 3),
    (Failure.QUOTA_SPENT, _REFUSED, _NO, Again.FREE, 0, 1, Effect.QUOTA, 4),
    (Failure.BAD_REQUEST, _REFUSED, _NO, Again.NEVER, 0, 1, Effect.CANARY, 3),
    (Failure.REFUSED_CONTENT, _REFUSED, _MAYBE, Again.NEVER, 0, 1, Effect.NONE, 3),
    (Failure.UNAUTHORIZED, _REFUSED, _NO, Again.NEXT_RUN, 0, 1, Effect.STOP, 6),
    (Failure.BILLING, _REFUSED, _NO, Again.NEXT_RUN, 0, 1, Effect.STOP, 6),
    (Failure.FORBIDDEN, _REFUSED, _NO, Again.NEVER, 0, 1, Effect.CANARY, 6),
    (Failure.NOT_FOUND, _REFUSED, _NO, Again.NEVER, 0, 1, Effect.CANARY, 2),
    (Failure.CONFLICT, _REFUSED, _MAYBE, Again.NEVER, 0, 1, Effect.NONE, 3),
    (Failure.REDIRECT, _REFUSED, _NO, Again.NEXT_RUN, 0, 1, Effect.STOP, 2),
    (Failure.SERVER_TIMEOUT, _REFUSED, _NO, Again.COUNTED, 3, 1, Effect.OUTAGE, 3),
    (Failure.SERVER_ERROR, _REFUSED, _MAYBE, Again.COUNTED, 2, 1, Effect.OUTAGE, 3),
    (Failure.UNAVAILABLE, _REFUSED, _NO, Again.COUNTED, 3, 1, Effect.OUTAGE, 3),
    (Failure.GATEWAY, _UNKNOWN, _MAYBE, Again.RATIONED, 0, 30, Effect.OUTAGE, 3),
    (Failure.NO_ANSWER, _UNKNOWN, _MAYBE, Again.RATIONED, 0, 30, Effect.OUTAGE, 3),
    (Failure.API_FAILED, _REFUSED, _MAYBE, Again.COUNTED, 1, 1, Effect.OUTAGE, 3),
    (Failure.BAD_ANSWER, _USELESS, _YES, Again.RATIONED, 0, 1, Effect.OUTAGE, 3),
    (Failure.BAD_GATEWAY_BODY, _UNKNOWN, _MAYBE, Again.RATIONED, 0, 60, Effect.OUTAGE, 3),
    (Failure.UNCLASSIFIED, _UNKNOWN, _MAYBE, Again.RATIONED, 0, 1, Effect.OUTAGE, 3),
    (Failure.IN_DOUBT, _UNKNOWN, _MAYBE, Again.RATIONED, 0, 1, Effect.NONE, 3),
    (Failure.DOWNLOAD, _USELESS, _YES, Again.NEVER, 0, 1, Effect.OUTAGE, 3),
    (Failure.UNSENDABLE, _NOT_SENT, _NO, Again.NEVER, 0, 1, Effect.NONE, 3),
    (Failure.INPUT_CHANGED, _NOT_SENT, _NO, Again.NEXT_RUN, 0, 1, Effect.NONE, 3),
    (Failure.STORAGE, _USELESS, _YES, Again.NEXT_RUN, 0, 1, Effect.STOP, 7),
    (Failure.INTERNAL, _USELESS, _MAYBE, Again.NEVER, 0, 1, Effect.NONE, 3),
]


@pytest.mark.parametrize(
    ("failure", "end", "billed", "again", "retries", "wait_s", "effect", "exit_code"), TABLE, ids=[r[0] for r in TABLE]
)
def test_the_rules_are_the_table(
    failure: Failure,
    end: End,
    billed: Billed,
    again: Again,
    retries: int,
    wait_s: float,
    effect: Effect,
    exit_code: int,
) -> None:
    """Each rule says what the classification table says: money, repetition, pause, effect, exit code."""
    rule = RULES[failure]
    assert (rule.end, rule.billed, rule.again, rule.retries) == (end, billed, again, retries)
    assert (rule.min_wait_s, rule.effect, rule.exit_code) == (wait_s, effect, ExitCode(exit_code))


def test_every_failure_has_a_row() -> None:
    """No failure is without a rule, and the table of these tests misses none."""
    assert set(RULES) == set(Failure) == {row[0] for row in TABLE}


def test_what_may_have_been_paid_is_never_free() -> None:
    """Only an attempt that surely cost nothing may be repeated without end."""
    assert {rule.billed for rule in RULES.values() if rule.again is Again.FREE} == {Billed.NO}
    assert all(rule.again is not Again.FREE for rule in RULES.values() if rule.end in (End.UNKNOWN, End.USELESS))
    assert all(rule.billed is not Billed.NO for rule in RULES.values() if rule.again is Again.RATIONED)
    assert all((rule.retries > 0) is (rule.again is Again.COUNTED) for rule in RULES.values())


@pytest.mark.parametrize("failure", Failure)
def test_which_allowance_a_failure_takes(failure: Failure) -> None:
    """Unknown answers take the ration, transient ones count if others succeed, a probe takes nothing unless paid."""
    taken = {Again.RATIONED: (RATION, RATION), Again.COUNTED: (RETRY, None)}.get(RULES[failure].again, (None, None))
    assert counts(failure, others_succeed=True, probing=False) is taken[0]
    assert counts(failure, others_succeed=False, probing=False) is taken[1]
    probed = taken[0] if RULES[failure].billed is Billed.YES else None
    assert counts(failure, others_succeed=True, probing=True) is probed
    assert counts(failure, others_succeed=False, probing=True) is probed


def test_which_probes_are_surely_paid() -> None:
    """A useless answer to a probe takes the ration like any other; a lost one does not."""
    assert counts(Failure.BAD_ANSWER, others_succeed=False, probing=True) is RATION
    assert counts(Failure.NO_ANSWER, others_succeed=False, probing=True) is None
    assert counts(Failure.UNAVAILABLE, others_succeed=True, probing=True) is None


@pytest.mark.parametrize("failure", [f for f in Failure if RULES[f].again is Again.NEVER])
def test_permanent_failures_end_the_job(failure: Failure) -> None:
    """A permanent failure costs one request, whatever the allowances say."""
    assert next_step(failure, life(None), 0, Allowance(100, 10)) is Step.FAIL


@pytest.mark.parametrize("failure", [f for f in Failure if RULES[f].again is Again.NEXT_RUN])
def test_failures_of_the_surroundings_leave_the_job(failure: Failure) -> None:
    """A failure that a person has to mend fails no job."""
    assert next_step(failure, life(None), 0, Allowance()) is Step.LEAVE


@pytest.mark.parametrize("failure", [f for f in Failure if RULES[f].again is Again.FREE])
def test_free_failures_are_repeated_for_ever(failure: Failure) -> None:
    """What surely was not executed is sent again, however often."""
    assert next_step(failure, life(*[None] * 50, *[RETRY] * 50, *[RATION] * 5), 0, Allowance(1, 0)) is Step.RETRY


RATIONS = [
    pytest.param(0, 0, Step.RETRY, id="ration 0, an outage took none"),
    pytest.param(0, 1, Step.PARK, id="ration 0, first"),
    pytest.param(1, 1, Step.RETRY, id="ration 1, first"),
    pytest.param(1, 2, Step.PARK, id="ration 1, second"),
    pytest.param(2, 2, Step.RETRY, id="ration 2, second"),
    pytest.param(2, 3, Step.PARK, id="ration 2, third"),
]


@pytest.mark.parametrize(("ration", "taken", "step"), RATIONS)
@pytest.mark.parametrize("failure", [f for f in Failure if RULES[f].again is Again.RATIONED])
def test_unknown_answers_are_rationed_for_life(failure: Failure, ration: int, taken: int, step: Step) -> None:
    """After an unknown answer a job is sent again `uncertain_retries` times in its life, over all runs, then parked."""
    attempts = life(*[RATION] * taken, RETRY, DOUBT, None)
    assert next_step(failure, attempts, 0, Allowance(4, ration)) is step
    assert next_step(failure, attempts, len(attempts) - 1, Allowance(4, ration)) is step


COUNTED = [
    # attempts allowed, counted in this run, step for a failure with three, two, one retries
    (4, 0, Step.RETRY, Step.RETRY, Step.RETRY),
    (4, 1, Step.RETRY, Step.RETRY, Step.RETRY),
    (4, 2, Step.RETRY, Step.RETRY, Step.LEAVE),
    (4, 3, Step.RETRY, Step.LEAVE, Step.LEAVE),
    (4, 4, Step.LEAVE, Step.LEAVE, Step.LEAVE),
    (3, 2, Step.RETRY, Step.RETRY, Step.LEAVE),
    (3, 3, Step.LEAVE, Step.LEAVE, Step.LEAVE),
    (2, 1, Step.RETRY, Step.RETRY, Step.RETRY),
    (2, 2, Step.LEAVE, Step.LEAVE, Step.LEAVE),
    (1, 0, Step.RETRY, Step.RETRY, Step.RETRY),
    (1, 1, Step.LEAVE, Step.LEAVE, Step.LEAVE),
    (9, 4, Step.LEAVE, Step.LEAVE, Step.LEAVE),
]


@pytest.mark.parametrize(("allowed", "counted", "three", "two", "one"), COUNTED)
def test_transient_failures_are_counted_in_a_run(allowed: int, counted: int, three: Step, two: Step, one: Step) -> None:
    """A transient failure is tried again up to its row's number and the run's, whichever is less, then left pending."""
    attempts = life(*[RETRY] * counted, None)
    steps = {Failure.UNAVAILABLE: three, Failure.SERVER_ERROR: two, Failure.API_FAILED: one}
    for failure, step in steps.items():
        assert next_step(failure, attempts, 0, Allowance(allowed, 1)) is step


def test_earlier_runs_do_not_count_against_a_run() -> None:
    """A run gives every job its attempts anew."""
    attempts = life(*[RETRY] * 8)
    assert next_step(Failure.UNAVAILABLE, attempts, 0, Allowance()) is Step.LEAVE
    assert next_step(Failure.UNAVAILABLE, attempts, 4, Allowance()) is Step.LEAVE
    assert next_step(Failure.UNAVAILABLE, attempts, 5, Allowance()) is Step.RETRY


@pytest.mark.parametrize(
    ("failure", "tries", "step"),
    [
        (Failure.UNAVAILABLE, 11, Step.RETRY),
        (Failure.UNAVAILABLE, 12, Step.LEAVE),
        (Failure.NOT_CONNECTED, 12, Step.RETRY),
        (None, 12, Step.RETRY),
    ],
)
def test_a_run_tries_one_job_at_most_twelve_times(failure: Failure | None, tries: int, step: Step) -> None:
    """Where nobody else succeeds nothing counts, and yet one job is not tried all night; connections are not tries."""
    earlier = tuple(msgspec.structs.replace(a, failure=Failure.UNAVAILABLE) for a in life(*[None] * 20))
    attempts = tuple(msgspec.structs.replace(a, failure=failure) for a in life(*[None] * tries))
    assert next_step(Failure.UNAVAILABLE, (*earlier, *attempts), len(earlier), Allowance()) is step


@pytest.mark.parametrize(("taken", "step"), [(11, Step.RETRY), (12, Step.FAIL), (13, Step.FAIL)])
def test_a_life_has_twelve_counted_attempts(taken: int, step: Step) -> None:
    """A job that failed twelve times while others succeeded is failed, in however many runs."""
    assert LIFETIME_RETRIES == 12
    attempts = life(*[RETRY] * taken, None, RATION, DOUBT)
    assert next_step(Failure.UNAVAILABLE, attempts, len(attempts), Allowance()) is step


AT_START = [
    pytest.param((), Step.RETRY, id="never sent"),
    pytest.param((DOUBT, DOUBT), Step.RETRY, id="in doubt twice"),
    pytest.param((DOUBT, DOUBT, DOUBT), Step.PARK, id="in doubt a third time"),
    pytest.param((DOUBT, RATION, DOUBT), Step.RETRY, id="doubts and ration are two allowances"),
    pytest.param((RATION,), Step.RETRY, id="ration just used"),
    pytest.param((RATION, RATION), Step.PARK, id="ration overdrawn"),
    pytest.param((RETRY,) * 11, Step.RETRY, id="transient failures"),
    pytest.param((None,) * 40, Step.RETRY, id="outages"),
]


@pytest.mark.parametrize(("taken", "step"), AT_START)
def test_who_may_be_sent_at_all(taken: tuple[Counts | None, ...], step: Step) -> None:
    """A job that was in doubt three times, or whose ration is spent, is parked before it is bought again."""
    assert LIFETIME_DOUBTS == 2
    assert step_at_start(life(*taken), Allowance(4, 1)) is step


@pytest.mark.parametrize(
    ("ration", "taken", "step"), [(0, 0, Step.RETRY), (0, 1, Step.PARK), (2, 2, Step.RETRY), (2, 3, Step.PARK)]
)
def test_the_ration_holds_at_the_start(ration: int, taken: int, step: Step) -> None:
    """The ration is the same at the start of a run as within one."""
    assert Allowance() == Allowance(attempts=4, uncertain_retries=1)
    assert step_at_start(life(*[RATION] * taken), Allowance(4, ration)) is step


@pytest.mark.parametrize(
    ("step", "outcome"),
    [(Step.RETRY, None), (Step.LEAVE, None), (Step.FAIL, Outcome.FAILED), (Step.PARK, Outcome.UNCERTAIN)],
)
def test_only_two_steps_end_a_job(step: Step, outcome: Outcome | None) -> None:
    """A job ends by failing or by being parked; otherwise it stays pending."""
    assert step.outcome is outcome


def requests_until_it_ends(failure: Failure, allowance: Allowance, *, others_succeed: bool, runs: int) -> int:
    """How often a job whose every attempt fails this way is sent, over several runs."""
    attempts: tuple[Attempt, ...] = ()
    for _ in range(runs):
        in_run = len(attempts)
        if step_at_start(attempts, allowance) is not Step.RETRY:
            break
        step = Step.RETRY
        while step is Step.RETRY and len(attempts) < 1000:
            taken = counts(failure, others_succeed=others_succeed, probing=False)
            attempts = (*attempts, msgspec.structs.replace(life(taken)[0], n=len(attempts) + 1, failure=failure))
            step = next_step(failure, attempts, in_run, allowance)
        if step.outcome:
            break
    return len(attempts)


SPENT: list[Any] = [
    pytest.param(Failure.BAD_REQUEST, Allowance(), True, 9, 1, id="400 once"),
    pytest.param(Failure.NO_ANSWER, Allowance(), True, 9, 2, id="no answer twice over all runs"),
    pytest.param(Failure.NO_ANSWER, Allowance(), False, 9, 2, id="no answer twice, outage or not"),
    pytest.param(Failure.NO_ANSWER, Allowance(uncertain_retries=0), True, 9, 1, id="no answer once"),
    pytest.param(Failure.UNAVAILABLE, Allowance(), True, 1, 4, id="503 four times a run"),
    pytest.param(Failure.UNAVAILABLE, Allowance(), True, 9, 12, id="503 twelve times over all runs"),
    pytest.param(Failure.SERVER_ERROR, Allowance(), True, 1, 3, id="500 three times a run"),
    pytest.param(Failure.API_FAILED, Allowance(), True, 1, 2, id="failed twice a run"),
    pytest.param(Failure.UNAVAILABLE, Allowance(attempts=1), True, 1, 1, id="one attempt is one attempt"),
    pytest.param(Failure.UNAUTHORIZED, Allowance(), True, 3, 3, id="401 once a run"),
]


@pytest.mark.parametrize(("failure", "allowance", "others_succeed", "runs", "requests"), SPENT)
def test_what_a_hopeless_job_costs(
    failure: Failure, allowance: Allowance, others_succeed: bool, runs: int, requests: int
) -> None:
    """The number of requests that a job which always fails the same way takes in its life is known beforehand."""
    assert requests_until_it_ends(failure, allowance, others_succeed=others_succeed, runs=runs) == requests
