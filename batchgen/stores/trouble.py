"""What a failed call means: worth another try, or a person's. A table over what stores and obstore say.

Their own words are not passed on as they are: obstore's hold whole addresses, and an Azure address may hold a key.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from batchgen.address import AZURE, GOOGLE, Address
from batchgen.text import printable
from batchgen.world import StoreBusy, StoreFailed

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*([\w.-]{1,60})\s*</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_REFUSED = "refused the key"
_OLD_SIGNATURE = (
    "speaks only the old signature (SigV2), which batchgen does not; write to a local folder, and copy that with rclone"
)
_WRONG_REGION = "is in another region; look at NEBULA_REGION or AWS_REGION"
_CLOCK = "says that this machine's clock is wrong; set it (NTP), then run again"


@dataclass(frozen=True)
class Meaning:
    """What people are told, after the address; whether the same call may succeed a little later."""

    told: str
    code: int
    busy: bool = False


_KEYS = {
    GOOGLE: "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
    AZURE: "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_TOKEN)",
}
_AWS_KEYS = "NEBULA_ACCESS_KEY and NEBULA_SECRET_KEY, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
NO_BUCKET = Meaning("has no such bucket; make it first, or correct the address and the endpoint", errno.ENXIO)
_KEY = Meaning(f"{_REFUSED}; look at {{keys}}", errno.EACCES)
_MAY_NOT = Meaning("does not let this key do that; it needs to list, read, write and delete here", errno.EACCES)
_SLOW = Meaning("does not answer in time", errno.ETIMEDOUT, busy=True)
_UNREACHABLE = Meaning("cannot be reached", errno.ECONNREFUSED, busy=True)
_NO_STORE = Meaning("does not answer like an object store; look at the endpoint", errno.EPROTO)
_UNUSABLE = Meaning("cannot be used: its certificate or address is bad", errno.EPROTO)
_BAD_KEY = Meaning("cannot be asked with such a key; look at {keys}", errno.EACCES)
_NO_KEY = Meaning("cannot be asked without a key; put it into {keys}", errno.EACCES)

# The first pattern that is found decides. Codes are Amazon's and Azure's; the others are obstore's words.
_TABLE: tuple[tuple[str, Meaning], ...] = (
    (r"NoSuchBucket|ContainerNotFound|bucket does not exist", NO_BUCKET),
    (r"[Ss]ignature ?[Vv]ersion ?2|SigV2|V2 signature", Meaning(_OLD_SIGNATURE, errno.EPROTO)),
    (r"RequestTimeTooSkewed|RequestExpired", Meaning(_CLOCK, errno.EACCES)),
    (r"AuthorizationHeaderMalformed|PermanentRedirect|TemporaryRedirect|BareRedirect|redirect without LOCATION",
     Meaning(_WRONG_REGION, errno.EREMOTE)),
    (r"<Code>(RequestTimeout|SlowDown|ServiceUnavailable|ServerBusy|InternalError)<",
     Meaning("is overloaded or out of order", errno.EBUSY, busy=True)),
    (r"<Code>(AccessDenied|AllAccessDisabled|AuthorizationPermissionMismatch)<", _MAY_NOT),
    (r"169\.254\.169\.254|metadata\.google", _NO_KEY),
    (r"Invalid Access ?Key", _BAD_KEY),
    (r"status code: 40[13]|PermissionDenied|Unauthenticated", _KEY),
    (r"status code: (429|408|50[023468]|507|52\d)", Meaning("is overloaded or out of order", errno.EBUSY, busy=True)),
    (r"status code: 404[^<]*list", NO_BUCKET),
    (r"status code: 5", Meaning("cannot do what was asked", errno.EPROTO)),
    (r"[Cc]ertificate|builder error|invalid URL", _UNUSABLE),
    (r"token request|Missing\w*(Key|Credential)", _NO_KEY),
    (r"TimedOut|kind: Timeout|operation timed out", _SLOW),
    (r"HTTP error|error sending request|ConnectionRefused|dns error", _UNREACHABLE),
    (r"Header missing|metadata from headers|Unable to parse|invalid XML|list response", _NO_STORE),
)  # fmt: skip
_UNKNOWN = Meaning("did not do what was asked", errno.EIO)


def trouble(address: Address, doing: str, error: BaseException) -> StoreFailed:
    """The error that `error`, of obstore, stands for; `doing` is what was tried, such as `put images/a.png`."""
    raw = f"{type(error).__name__} {error}"
    listed = raw + " list" if "list request" in raw else raw
    meaning = next((meaning for pattern, meaning in _TABLE if re.search(pattern, listed)), _UNKNOWN)
    told = meaning.told.format(keys=_KEYS.get(address.scheme, _AWS_KEYS))
    place = f"{address} ({address.endpoint})" if address.endpoint else str(address)
    kind = StoreBusy if meaning.busy else StoreFailed
    return kind(f"{place}: the store {told}{_evidence(raw, address)} [{doing}]", meaning.code)


def _evidence(raw: str, address: Address) -> str:
    """What the store itself said, without anything secret."""
    status, code, message = (found[1] if (found := each.search(raw)) else "" for each in (_STATUS, _CODE, _MESSAGE))
    if address.keys:
        code, message = address.keys.secret.hide(code), address.keys.secret.hide(message)
    said = ": ".join(filter(None, (" ".join(filter(None, (status, code))), printable(message, 160))))
    return f" ({said})" if said else ""
