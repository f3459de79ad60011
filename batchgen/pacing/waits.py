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


@dataclass(frozen=True)
class Hold:
    """Nothing may be sent for `wait_s` seconds (infinite: until something ends), because of `reason`."""

    wait_s: float
    reason: str


def retry_after_s(headers: Mapping[str, str], utc: datetime) -> float | None:
    """How long the server asks to wait, in seconds; None where it does not say, or says something senseless.

    Read from `retry-after-ms` and `retry-after` (seconds, decimals allowed, or an HTTP date: RFC 9110 section 10.2.3).
    Negative, non-finite and absurdly far values (over 48 h) are senseless. A date in the past is 0.
    """
    text = headers.get("retry-after", "")
    for asked in (_number(headers.get("retry-after-ms", ""), 0.001), _number(text, 1.0), _until(text, utc)):
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
