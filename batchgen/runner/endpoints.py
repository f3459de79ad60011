"""What is known of a session's endpoints before anything is sent: where they are, and what they may be asked today."""

from __future__ import annotations

import msgspec

from batchgen.account import account_name, sent_on, store_path
from batchgen.clock import SystemClock
from batchgen.folder import Records
from batchgen.runner.session import Session
from batchgen.text import printable


class EndpointCheck(msgspec.Struct, frozen=True):
    """One of several endpoints: where it is, where its key is from (None: it has none), and its own limits."""

    name: str
    url: str
    key_from: str | None
    has_key: bool
    concurrency: int
    requests_per_minute: float | None
    requests_per_day: int | None

    def __str__(self) -> str:
        key = f"key from {self.key_from}" if self.key_from else "no key"
        key += "" if self.has_key else ", and it needs one"
        limits = [f"{self.concurrency} in flight"]
        limits += [] if self.requests_per_minute is None else [f"{self.requests_per_minute:g} a minute"]
        limits += [] if self.requests_per_day is None else [f"{self.requests_per_day} a day"]
        return f"  endpoint   {self.name}: {printable(self.url, 100)}, {key}, {', '.join(limits)}"


def endpoints_of(session: Session) -> list[EndpointCheck]:
    """Of several endpoints each."""
    found = session.settings.endpoints
    return [
        EndpointCheck(
            name=each.name,
            url=each.place.url,
            key_from=source or None,
            has_key=each.key is not None or session.settings.api.stands_in,
            concurrency=each.limits.concurrency,
            requests_per_minute=each.limits.requests_per_minute,
            requests_per_day=each.limits.requests_per_day,
        )
        for each, source in zip(found, session.key_sources, strict=True)
        if len(found) > 1
    ]


def sent_today(session: Session, records: Records | None) -> int | None:
    """Today's requests, as far as this folder and the account's own count know."""
    settings, today = session.settings, SystemClock().utc().date().isoformat()
    known: list[int | None] = []
    if records:
        ended = sum(each.attempt.at.startswith(today) for each in records.lives.ended())
        known.append(records.spent.by_day[today] + ended)
    path = store_path(session.env)
    if path and not settings.in_process:
        shard = None if settings.shared_account else settings.shard
        names = {account_name(each.place.url, each.key, shard) for each in settings.endpoints if each.key}
        counts = [count for name in names if (count := sent_on(today, path, name)) is not None]
        known.append(sum(counts) if counts else None)
    return max((count for count in known if count is not None), default=None)
