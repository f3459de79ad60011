"""What came of it: how attempts and jobs end, and the line of the job log."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Outcome(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    UNCERTAIN = "uncertain"


class Billed(StrEnum):
    """Whether an attempt was paid for."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


class Failure(StrEnum):
    """Why an attempt did not succeed; `failures.RULES` says what follows from each."""

    NOT_CONNECTED = "not_connected"
    TLS = "tls"
    TOO_MANY_FILES = "too_many_files"
    RATE_LIMITED = "rate_limited"
    QUOTA_SPENT = "quota_spent"
    BAD_REQUEST = "bad_request"
    REFUSED_CONTENT = "refused_content"
    UNAUTHORIZED = "unauthorized"
    BILLING = "billing"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    REDIRECT = "redirect"
    SERVER_TIMEOUT = "server_timeout"
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    GATEWAY = "gateway"
    NO_ANSWER = "no_answer"
    API_FAILED = "api_failed"
    BAD_ANSWER = "bad_answer"
    BAD_GATEWAY_BODY = "bad_gateway_body"
    UNCLASSIFIED = "unclassified"
    DOWNLOAD = "download"
    IN_DOUBT = "in_doubt"
    INPUT_CHANGED = "input_changed"
    UNSENDABLE = "unsendable"
    STORAGE = "storage"
    INTERNAL = "internal"


class Counts(StrEnum):
    """Which of a job's allowances an attempt took; an attempt that an outage spoilt takes none."""

    RETRY = "retry"
    RATION = "ration"
    DOUBT = "doubt"


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One HTTP request for a job, counted from 1 over the job's whole life.

    `at` is when it was sent (UTC), `elapsed_s` until its answer was whole or its failure known. `urls` is where the
    pictures lie that were paid for and could not be fetched. `endpoint` names who was asked, where a run had several.
    """

    n: int
    at: str
    elapsed_s: float
    billed: Billed
    http: int | None = None
    failure: Failure | None = None
    code: str | None = None
    message: str | None = None
    counts: Counts | None = None
    urls: tuple[str, ...] = ()
    endpoint: str | None = None


class Picture(msgspec.Struct, frozen=True):
    """One saved picture; `file` is relative to the output folder, `inference_s` is the server's number.

    `size_bytes` and `sha256` are of the file; `received_sha256` is of the server's bytes, left out where they are the
    same. `revised_prompt` is what the server says it drew instead of the prompt, left out where it says nothing.
    """

    file: str
    index: int
    format: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    inference_s: float | None
    received_sha256: str | msgspec.UnsetType = msgspec.UNSET
    revised_prompt: str | msgspec.UnsetType = msgspec.UNSET


class Timings(msgspec.Struct, frozen=True):
    """Where a job's time went, in seconds.

    `queued_s`: ready, but waiting for its turn. `waited_s`: backing off after a failure. `first_byte_s` and
    `response_s`: of the last attempt. `decode_s`, `save_s`: decoding, checking and
    embedding, writing. `total_s`: from the first
    time the job was ready until its entry was written.
    """

    queued_s: float
    waited_s: float
    first_byte_s: float | None
    response_s: float | None
    decode_s: float
    save_s: float
    total_s: float


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the job log: one finished job.

    `cost_usd` is what was surely paid for it, `exposure_usd` what may have been paid without a picture; both are None
    where the model's price is not known.
    `line` counts in `file`, left out where it is the manifest itself; `axes` is left out where nothing varied, `usage`
    (what the server says it used, such as tokens) where the server says nothing.
    Fields may be added, never renamed; `v` counts incompatible changes.
    """

    v: int = 1
    job: str
    fingerprint: str
    outcome: Outcome
    run: str
    manifest: str
    line: int
    api: str
    model: str
    request: dict[str, Any]
    meta: dict[str, Any]
    images: tuple[Picture, ...]
    inference_s: float | None
    timings: Timings
    attempts: tuple[Attempt, ...]
    cost_usd: float | None
    billed: Billed
    finished_at: str
    exposure_usd: float | None = None
    notes: tuple[str, ...] = ()
    axes: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    file: str | msgspec.UnsetType = msgspec.UNSET
    usage: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    @property
    def endpoint(self) -> str | None:
        """Who answered last, where the run had several endpoints."""
        return self.attempts[-1].endpoint if self.attempts else None
