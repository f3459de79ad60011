"""Objects below one prefix of one bucket, through obstore. The only module that knows it.

Calls block, from any number of threads. Never obstore's async calls: they can abort the interpreter when it ends.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from batchgen import threads
from batchgen.address import AZURE, GOOGLE, S3, Address
from batchgen.model import UsageError
from batchgen.stores.trouble import NO_BUCKET, trouble

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")
_PAGE = 1000
_POLL_S = 0.1
_UNCONDITIONAL = re.compile(r"NotImplemented|not (yet )?implemented|status code: 501|[Nn]otSupported")
# obstore tries again by itself what is worth it; a put that timed out is left to whoever called.
RETRIES: dict[str, Any] = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=500), "max_backoff": timedelta(seconds=15), "base": 2},
}
TIMEOUTS = {"connect_timeout": "10s", "timeout": "120s"}


class Objects:
    """What can be done with the objects of a store. Raises StoreFailed, or StoreBusy where another try may succeed;
    FileNotFoundError where there is no such object.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        try:
            import obstore
        except ImportError as error:
            raise UsageError(
                f'{address}: object stores need the package obstore (the extra "cloud"): pip install obstore'
            ) from error
        self._obstore = obstore
        try:
            self._store = _connect(address, RETRIES)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise trouble(address, "open", error) from None

    def _do(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return _interruptible(call)
        except FileNotFoundError as error:
            found, name = trouble(self.address, doing, error), doing.partition(" ")[2]
            if found.errno == NO_BUCKET.code:
                raise found from None
            raise FileNotFoundError(errno.ENOENT, "there is no such object", f"{self.address}/{name}") from None
        except (self._obstore.exceptions.BaseError, ValueError, OSError) as error:
            raise trouble(self.address, doing, error) from None

    def put(self, name: str, data: bytes | Iterable[bytes], attributes: Mapping[str, str] | None = None) -> None:
        """Write an object whole, in place of one that bears the name. Pieces are sent as parts of one upload."""
        whole = isinstance(data, bytes)
        self._do(
            f"put {name}",
            lambda: self._obstore.put(
                self._store,
                name,
                data if isinstance(data, bytes) else iter(data),
                attributes=dict(attributes or {}),
                use_multipart=not whole,
            ),
        )

    def create(self, name: str, data: bytes, attributes: Mapping[str, str]) -> None:
        """Write an object where none bears the name; of several who do so at once one succeeds, if the store can tell.

        One that says it cannot simply writes, and some write without a word: only who reads it back knows whose it is.
        "Cannot" is a server's error (501), which is tried again but a little.
        """
        errors = self._obstore.exceptions
        impatient = _connect(self.address, RETRIES | {"max_retries": 2})

        def put() -> None:
            try:
                self._obstore.put(impatient, name, data, attributes=dict(attributes), mode="create")
            except (errors.AlreadyExistsError, errors.PreconditionError):
                return
            except (errors.BaseError, NotImplementedError) as error:
                if not _UNCONDITIONAL.search(str(error)):
                    raise
                self._obstore.put(self._store, name, data, attributes=dict(attributes))

        self._do(f"put {name}", put)

    def get(self, name: str) -> bytes:
        return self._do(f"get {name}", lambda: bytes(self._obstore.get(self._store, name).bytes()))

    def attributes(self, name: str) -> Mapping[str, str]:
        """What was said of the object when it was put, as far as the store keeps it."""
        found = self._do(f"get {name}", lambda: self._obstore.get(self._store, name).attributes)
        return {key.lower(): value for key, value in found.items()}

    def size(self, name: str) -> int | None:
        """The size in bytes; None where there is no such object, or no such bucket."""
        with suppress(FileNotFoundError):
            return self._do(f"head {name}", lambda: int(self._obstore.head(self._store, name)["size"]))
        return None

    def changed_s(self, name: str) -> float | None:
        """When the object was put, in seconds since the epoch; None where there is none."""
        with suppress(FileNotFoundError):
            found = self._do(f"head {name}", lambda: self._obstore.head(self._store, name))
            return float(found["last_modified"].timestamp())
        return None

    def copy(self, old: str, new: str) -> None:
        self._do(f"copy {old}", lambda: self._obstore.copy(self._store, old, new))

    def delete(self, name: str) -> None:
        """Make the object be gone; it may be gone already."""
        with suppress(FileNotFoundError):
            self._do(f"delete {name}", lambda: self._obstore.delete(self._store, name))

    def below(self, folder: str) -> Iterator[tuple[str, int]]:
        """Names and sizes of all objects in a folder and its folders, a page at a time."""
        pages = iter(self._obstore.list(self._store, folder, chunk_size=_PAGE))
        while page := self._do(f"list {folder}", lambda: next(pages, None)):
            yield from ((found["path"], found["size"]) for found in page)


def _interruptible(call: Callable[[], T]) -> T:
    """Signals end a program in its main thread, which must not sit in a call that waits for a server."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threads.start("batchgen-store", run)
    while thread.is_alive():
        thread.join(_POLL_S)
    if errors:
        raise errors[0]
    return results[0]


def _connect(address: Address, retries: dict[str, Any]) -> ObjectStore:
    from obstore.store import AzureStore, GCSStore, S3Store

    common: dict[str, Any] = {
        "prefix": address.prefix or None,
        "client_options": {**TIMEOUTS, "allow_http": address.in_the_clear},
        "retry_config": retries,
    }
    if address.scheme == GOOGLE:
        # obstore looks for a key even where none is asked for.
        emulated: dict[str, Any] = {"base_url": address.endpoint, "bearer_token": "nobody"} if address.emulated else {}
        return GCSStore(address.bucket, **emulated, **common)
    if address.scheme == AZURE:
        return AzureStore(address.bucket, **_azure_way(address), **common)
    assert address.scheme == S3
    way: dict[str, Any] = {"disable_bulk_delete": True}
    if address.endpoint:
        way |= {"endpoint": address.endpoint, "aws_endpoint_url_s3": address.endpoint}
    if address.region:
        way["region"] = address.region
    if keys := address.keys:
        # A provider rather than plain keys: else a session token of AWS_SESSION_TOKEN would be sent with them.
        held = {"access_key_id": keys.access.reveal(), "secret_access_key": keys.secret.reveal()}
        way["credential_provider"] = lambda: {**held, "token": None, "expires_at": None}
        way |= {"virtual_hosted_style_request": False, "skip_signature": False}
    return S3Store(address.bucket, **way, **common)


def _azure_way(address: Address) -> dict[str, Any]:
    way: dict[str, Any] = {"use_emulator": True} if address.emulated else {}
    if keys := address.keys:
        secret = {"sas_token" if keys.signed else "access_key": keys.secret.reveal()}
        way |= {"account_name": keys.access.reveal(), "credential_provider": lambda: {**secret, "expires_at": None}}
        if address.endpoint:
            way["endpoint"] = address.endpoint
    return way
