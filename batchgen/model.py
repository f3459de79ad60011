"""The nouns: what every other module talks about. No behaviour beyond what a value knows of itself.

Nothing here imports from the package, reads a clock, opens a file or draws a random number.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import msgspec

Body = bytes | bytearray
"""What a server sent; nobody changes it."""


class ExitCode(IntEnum):
    """What a command's exit status says (DESIGN.md section 6)."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    INCOMPLETE = 3
    WORK_LEFT = 4
    BUSY = 5
    ACCOUNT = 6
    STORAGE = 7
    TO_DO = 10
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


class BatchgenError(Exception):
    """Root of the errors that batchgen raises on purpose; `exit_code` says whose fault it is."""

    exit_code = ExitCode.INTERNAL


class UsageError(BatchgenError):
    """The command, the manifest or the configuration is wrong; nothing was sent."""

    exit_code = ExitCode.USAGE


class FolderBusy(BatchgenError):
    """Another run holds the output folder."""

    exit_code = ExitCode.BUSY


class AccountRefused(BatchgenError):
    """The account was refused: its key is wrong."""

    exit_code = ExitCode.ACCOUNT


class StorageError(BatchgenError):
    """The disk failed: full, read-only, damaged or gone."""

    exit_code = ExitCode.STORAGE


class InputChanged(BatchgenError):
    """An image or mask is no longer the file that was read when the run was planned."""

    exit_code = ExitCode.WORK_LEFT


class ManifestChanged(BatchgenError):
    """The manifest was edited while a run was reading it."""

    exit_code = ExitCode.WORK_LEFT


class Interrupted(SystemExit):
    """A signal came before anything was sent; `code` says which.

    No Exception: it is raised wherever the program happens to be, and nothing on the way out may take it for its own.
    """

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__(int(exit_code))
        self.exit_code = exit_code


class Secret:
    """A key that cannot be printed by accident; `reveal` is for the one header that needs it.

    It is empty where a server asks for none; `also` are other secrets that travel with it, and are hidden like it.
    """

    __slots__ = ("_hidden", "_value")

    def __init__(self, value: str, *also: str) -> None:
        self._value = value
        self._hidden = tuple(filter(None, (value, *also)))

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        return self._value

    def hide(self, text: str) -> str:
        """`text` without the key, should a server have echoed it."""
        for value in self._hidden:
            text = text.replace(value, "***")
        return text

    def hide_bytes(self, data: Body) -> bytes:
        data = bytes(data)
        for value in self._hidden:
            data = data.replace(value.encode(), b"***")
        return data


class Problem(msgspec.Struct, frozen=True):
    """One mistake in a manifest and where it stands; lines and columns count from 1, 0 is unknown.

    `field` is what the mistake is in and `value` what was given there, as far as they are known.
    """

    file: str
    line: int
    column: int
    what: str
    fix: str = ""
    job: str | None = None
    field: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        place = ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])
        job = f" job {self.job!r}:" if self.job else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{place}:{job} {self.what}{fix}"


class ManifestError(UsageError):
    """A manifest with mistakes: the first of them in `problems`, all of them counted in `count`."""

    def __init__(self, problems: list[Problem], count: int | None = None) -> None:
        self.problems = problems
        self.count = len(problems) if count is None else count
        super().__init__("\n".join(map(str, problems)))


class Refusal(msgspec.Struct, frozen=True):
    """Why a command ended before it began, as `--json` tells it: the first `problems` of `count` in a manifest."""

    error: str
    exit_code: int
    problems: tuple[Problem, ...] = ()
    count: int = 0
    v: int = 1


class Api(msgspec.Struct, frozen=True):
    """Which server to ask. `style` is the wire format; `url`, `key_env` and `path` (of the generation, below `url`)
    override the style's own. `headers` travel with every request; `$NAME` in them stands for an environment variable.
    """

    style: str = "nebula"
    url: str | None = None
    key_env: str | None = None
    path: str | None = None
    headers: dict[str, str] = {}


class Header(msgspec.Struct, frozen=True):
    """What a manifest says beside its jobs; `embed`: whether pictures are to carry their parameters."""

    api: Api | None = None
    limits: dict[str, Any] = {}
    prices_usd: dict[str, float] = {}
    defaults: dict[str, Any] = {}
    embed: bool | None = None


class FileInput(msgspec.Struct, frozen=True):
    """A picture that a job sends: its path as the manifest has it, and the digest of its bytes."""

    path: str
    sha256: str


class Job(msgspec.Struct, frozen=True):
    """One picture request after defaults have been applied.

    `request` is what is sent beside the model, as plain JSON values; `image` and `mask` stand in it as
    `FileInput`. `fingerprint` is a hash of API style, model and request. `axes` says which values of its matrix the
    job has, and its number among the repetitions. `file` is where `line` counts if that is not the manifest itself, as
    the manifest names it.
    """

    id: str
    fingerprint: str
    model: str
    request: dict[str, Any]
    meta: dict[str, Any]
    line: int
    axes: dict[str, str] = {}
    file: str | None = None

    @property
    def prompt(self) -> str:
        return str(self.request["prompt"])


class Outcome(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    UNCERTAIN = "uncertain"


class Standing(StrEnum):
    """Where a job of the manifest stands before a run, by the log and by what is on the disk."""

    DONE = "done"
    PENDING = "pending"
    CHANGED = "changed"
    MISSING = "missing"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    UNCERTAIN = "uncertain"


class Shard(msgspec.Struct, frozen=True, order=True):
    """The part `i` of `n` of a manifest's jobs, from 1 to n."""

    i: int
    n: int

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"


class Selection(msgspec.Struct, frozen=True):
    """Which jobs of the manifest a run is for, which of the ended ones it does again, and in which order.

    `limit` counts jobs to be done. With `shuffle`, a seed, they are the first of a random order, up to `last_place`.
    """

    retry: frozenset[Outcome] = frozenset()
    redo: bool = False
    redo_missing: bool = False
    only: tuple[str, ...] = ()
    limit: int | None = None
    shuffle: str | None = None
    last_place: int | None = None
    shard: Shard | None = None


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
    pictures lie that were paid for and could not be fetched.
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


class Post(msgspec.Struct, frozen=True):
    """A request as it leaves: the path below the API's address, the type of its body, the body."""

    path: str
    content_type: str
    body: bytes


class Reply(msgspec.Struct, frozen=True):
    """What a server answered, untouched. Times in seconds since the request was handed over.

    `links` are addresses of pictures that a success answer names instead of holding them.
    """

    status: int
    headers: dict[str, str]
    body: Body
    first_byte_s: float
    response_s: float
    links: tuple[str, ...] = ()


class ServerError(msgspec.Struct, frozen=True):
    """What a server says went wrong. `shaped`: it speaks the API's own error shape, not a proxy's page."""

    message: str
    code: str | None = None
    shaped: bool = False


class AttemptFailed(BatchgenError):
    """An attempt that ended without a readable answer; `failure` says which way."""

    def __init__(self, failure: Failure, message: str) -> None:
        self.failure = failure
        super().__init__(message)


class BadAnswer(BatchgenError):
    """An answer that was paid for and holds no usable picture."""
