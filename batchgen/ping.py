"""A dead man's switch: tells a URL that a run has begun and how it ended. It may fail, and nothing else fails with it.

The URL may hold a token: it is never shown, and neither is an error's own text, which could hold it.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit, urlunsplit

from batchgen.model import Secret

TIMEOUT_S = 10.0
PAUSES_S = (1.0, 3.0)
PATIENCE_S = 20.0
BODY_BYTES = 10_000
_SLICE_S = 0.1


class Ping:
    """`begin` and `end` of one run, which `rid` (a UUID) holds together at the other end."""

    def __init__(self, url: Secret, rid: str, user_agent: str, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._url, self._rid, self._agent, self._pauses_s = url, rid, user_agent, pauses_s
        self._ending = threading.Event()
        self._beginning: threading.Thread | None = None
        self.failures: dict[str, str] = {}
        self.refused = False

    def begin(self) -> None:
        """Tell `URL/start`, beside everything else."""
        self._beginning = self._spawn("start", None)

    def end(self, exit_code: int, text: str, impatient: Callable[[], bool] = lambda: False) -> None:
        """Tell `URL/<exit code>` and why; comes back after 20 seconds at the latest, or where `impatient` says so."""
        self._ending.set()
        deadline_s = time.monotonic() + PATIENCE_S

        def over() -> bool:
            return time.monotonic() >= deadline_s or impatient()

        if self._beginning:
            _join(self._beginning, lambda: over() or time.monotonic() >= deadline_s - PATIENCE_S / 2)
        thread = self._spawn(str(int(exit_code)), _body(text))
        _join(thread, over)
        if thread.is_alive():
            self.failures.setdefault(str(int(exit_code)), "no answer")

    def _spawn(self, what: str, body: bytes | None) -> threading.Thread:
        thread = threading.Thread(target=self._tell, args=(what, body), name="batchgen-ping", daemon=True)
        thread.start()
        return thread

    def _tell(self, what: str, body: bytes | None) -> None:
        for pause_s in (*self._pauses_s, None):
            failure, again = self._try(what, body)
            if failure is None:
                self.failures.pop(what, None)
                return
            self.failures[what] = failure
            hurried = body is None and self._ending.is_set()
            if not again or pause_s is None or hurried:
                return
            if body is None:
                self._ending.wait(pause_s)
            else:
                time.sleep(pause_s)

    def _try(self, what: str, body: bytes | None) -> tuple[str | None, bool]:
        """What went wrong, and whether to try again."""
        try:
            headers = {"User-Agent": self._agent, "Content-Type": "text/plain; charset=utf-8"}
            request = urllib.request.Request(address(self._url, what, self._rid), body, headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return None, False
        except urllib.error.HTTPError as error:
            self.refused |= 400 <= error.code < 500 and error.code not in (408, 429)
            error.close()
            return f"HTTP {error.code}", not self.refused
        except Exception as error:
            reason = getattr(error, "reason", error)
            return (reason.strerror if isinstance(reason, OSError) else None) or type(reason).__name__, True


def address(url: Secret, what: str, rid: str) -> str:
    """The URL with another step behind its path, and `rid` in its query."""
    parts = urlsplit(url.reveal())
    query = "&".join(filter(None, (parts.query, f"rid={rid}")))
    return urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{what}", query, ""))


def _body(text: str) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= BODY_BYTES:
        return data
    return data[: BODY_BYTES - 4].decode("utf-8", "ignore").encode() + "…".encode()


def _join(thread: threading.Thread, over: Callable[[], bool]) -> None:
    while thread.is_alive() and not over():
        thread.join(_SLICE_S)
