"""How long to wait: what a server asks for, backoff, and when the next day begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

QUOTA_HINT_S = 3600.0
ABSURD_S = 48 * 3600.0
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")
_SPAN = re.compile(r"(?:([0-9.]{1,12})(ms|[dhms]))")
_SPAN_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True)
class Hold:
    """Nothing may be sent for `wait_s` seconds (infinite: until something ends), because of `reason`."""

    wait_s: float
    reason: str


@dataclass(frozen=True)
class Told:
    """What a server says of its limit: `remaining` requests may come in the next `reset_s` seconds."""

    remaining: int
    reset_s: float


def told(headers: Mapping[str, str]) -> Told | None:
    """What `x-ratelimit-remaining-requests` and `-reset-requests` say; None where they say nothing sensible.

    More remaining than `-limit-requests` is not believed. A reset of over an hour is that of another limit than the
    minute's: only a refusal says when it is reached.
    """
    remaining = headers.get("x-ratelimit-remaining-requests", "").strip()
    reset_s = span_s(headers.get("x-ratelimit-reset-requests", ""))
    if not re.fullmatch("[0-9]{1,9}", remaining) or reset_s is None or not 0 < reset_s <= QUOTA_HINT_S:
        return None
    limit = headers.get("x-ratelimit-limit-requests", "").strip()
    most = int(limit) if re.fullmatch("[1-9][0-9]{0,8}", limit) else int(remaining)
    return Told(min(int(remaining), most), reset_s)


def span_s(text: str) -> float | None:
    """The seconds in `6m0s`, `1.5s`, `20ms`, `1h2m` or a bare number; None for anything else."""
    text = text.strip()
    if (seconds := _number(text, 1.0)) is not None:
        return seconds
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    counts = [_number(number, _SPAN_S[unit]) for number, unit in parts]
    return None if None in counts else sum(filter(None, counts))


def retry_after_s(headers: Mapping[str, str], utc: datetime) -> float | None:
    """How long the server asks to wait, in seconds; None where it does not say, or says something senseless.

    Read from `retry-after-ms` and `retry-after` (seconds, decimals allowed, or an HTTP date: RFC 9110 section 10.2.3).
    Else from `x-ratelimit-reset-requests`, where nothing remains.
    Negative, non-finite and absurdly far values (over 48 h) are senseless. A date in the past is 0.
    """
    text = headers.get("retry-after", "")
    spent = headers.get("x-ratelimit-remaining-requests", "").strip() == "0"
    reset_s = span_s(headers.get("x-ratelimit-reset-requests", "")) if spent else None
    for asked in (_number(headers.get("retry-after-ms", ""), 0.001), _number(text, 1.0), _until(text, utc), reset_s):
        if asked is not None and asked <= ABSURD_S:
            return asked
    return None


def _number(text: str, scale: float) -> float | None:
    # Without its blanks: those that `strip` knows are more than `float` does.
    text = text.strip()
    return float(text) * scale if _DECIMAL.fullmatch(text) else None


def _until(text: str, utc: datetime) -> float | None:
    date = _http_date(text)
    return None if date is None else max(0.0, (date - utc).total_seconds())


def _http_date(text: str) -> datetime | None:
    """An HTTP date is UTC, also in the obsolete forms that do not say so."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)


def clock_skew(text: str | None, utc: datetime) -> timedelta | None:
    """How far the server's clock (its `Date` header) is ahead of ours; None where it says nothing sensible."""
    date = _http_date(text) if text else None
    return None if date is None or abs(date - utc) > timedelta(seconds=ABSURD_S) else date - utc


def backoff_s(bound_s: float, jitter: float, least_s: float) -> float:
    """Full jitter: a random part (`jitter`, 0 to 1) of the exponential `bound_s`, but at least `least_s`, itself spread
    by a quarter so that jobs that failed together do not come back together."""
    return max(bound_s * jitter, least_s * (1 + jitter / 4))


def next_reset(utc: datetime, jitter: float) -> datetime:
    """When the next quota day begins: 00:00 UTC, and 30 to 300 s more for clocks that disagree."""
    midnight = datetime.combine(utc.date() + timedelta(days=1), datetime.min.time(), UTC)
    return midnight + timedelta(seconds=30 + 270 * jitter)
