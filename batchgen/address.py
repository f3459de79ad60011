"""What `-o s3://bucket/prefix` names, and which variables tell how to get there. The environment is an argument."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlsplit

from batchgen.model import Secret, UsageError
from batchgen.text import printable

T = TypeVar("T")
S3, GOOGLE, AZURE = "s3", "gs", "az"
_LOOKS_SO = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:s3|gs|az):")
_ADDRESS = re.compile(r"(s3|gs|az)://([A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?)?(?:/(.*))?", re.ASCII)
_SEGMENT = re.compile(r"[^\x00-\x20\x7f\\?#%*:|\"<>\[\]^`{}~]+")
_DEFAULT_REGION = "us-east-1"
_NEBULA_BUCKET = "NEBULA_BUCKET"
# Nebula Block's documentation, Object_Storage/SDK: the names of its own variables.
_NEBULA = ("NEBULA_ACCESS_KEY", "NEBULA_SECRET_KEY", "NEBULA_ENDPOINT")
# Where obstore looks for another server than the provider's own, the first beats the others.
_ENDPOINTS = {
    S3: ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    GOOGLE: ("GOOGLE_BASE_URL",),
    AZURE: ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_GOOGLE_EMULATOR = "STORAGE_EMULATOR_HOST"
_AZURE_ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"
_AZURE_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
_AZURE_EMULATOR = "AZURE_STORAGE_USE_EMULATOR"
_AZURITE, _AZURITE_ACCOUNT = "AZURITE_BLOB_STORAGE_URL", "devstoreaccount1"
_AZURITE_DEFAULT = "http://127.0.0.1:10000"
_AZURE_SUFFIX = "core.windows.net"
_METADATA = "AWS_METADATA_ENDPOINT"
_AWS_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    _METADATA,
)


@dataclass(frozen=True)
class Keys:
    """An access key and its secret; at Azure the account's name, and its key or (`signed`) an access signature."""

    access: Secret
    secret: Secret
    signed: bool = False


@dataclass(frozen=True)
class Address:
    """A prefix in a bucket (Azure: a container), and the way there.

    `endpoint` is None for the provider's own server, `keys` where obstore finds them by itself. An `emulated` server is
    a stand-in that takes everybody.
    """

    scheme: str
    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None
    keys: Keys | None = None
    emulated: bool = False

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def in_the_clear(self) -> bool:
        """Whether it is reached without encryption, which only this machine's own servers may be."""
        return bool(self.endpoint and self.endpoint.startswith("http://"))


def is_store(output: str) -> bool:
    """Whether what `-o` says is meant as an address rather than a folder."""
    return bool(_LOOKS_SO.match(output))


def local_folder(output: T, state: T) -> T:
    """The folder of log and state that `-o` and `--state` name; None where neither does."""
    return state if output is not None and is_store(str(output)) else output


def resolve(text: str, env: Mapping[str, str], problems: list[str]) -> Address | None:
    """The address `text` with what the environment says of the way there; None where a problem was found."""
    shown = printable(re.sub(r"//[^/]*@", "//", text), 100)
    found = _ADDRESS.fullmatch(text)
    if not found:
        problems.append(f"-o {shown}: expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX")
        return None
    scheme, bucket, prefix = found[1], found[2], (found[3] or "").strip("/")
    if not bucket and scheme == S3:
        bucket = env.get(_NEBULA_BUCKET, "")
    if not bucket:
        fix = f"name it, or put it into {_NEBULA_BUCKET}" if scheme == S3 else "name it"
        problems.append(f"-o {shown}: there is no bucket; {fix}")
        return None
    for segment in prefix.split("/") if prefix else ():
        if segment in ("", ".", "..") or not _SEGMENT.fullmatch(segment) or not segment.isprintable():
            problems.append(
                f"-o {shown}: {printable(segment, 40)!r} cannot be a part of a prefix; use letters, digits and . _ - +"
            )
            return None
    return _reached(Address(scheme, bucket, prefix), env, problems)


def _reached(address: Address, env: Mapping[str, str], problems: list[str]) -> Address | None:
    if address.scheme == S3 and any(env.get(name) for name in _NEBULA):
        return _nebula(address, env, problems)
    variable = next((name for name in _ENDPOINTS[address.scheme] if env.get(name)), None)
    endpoint = _endpoint(variable, env[variable], problems) if variable else None
    if variable and endpoint is None:
        return None
    found = replace(address, endpoint=endpoint)
    if address.scheme == GOOGLE:
        return _google(found, env, problems)
    if address.scheme == AZURE:
        return _azure(found, env, problems)
    if wanted := _missing_keys(env):
        problems.append(f"{address}: {wanted}")
        return None
    return replace(found, region=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION"))


def _missing_keys(env: Mapping[str, str]) -> str | None:
    """What to do where there can be no key: obstore would ask the network for one, and wait for it in vain."""
    if env.get("AWS_ACCESS_KEY_ID") and not env.get("AWS_SECRET_ACCESS_KEY"):
        return "AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY"
    if any(env.get(name) for name in _AWS_CREDENTIALS):
        return None
    fix = "put it into NEBULA_ACCESS_KEY, NEBULA_SECRET_KEY and NEBULA_ENDPOINT, or AWS_ACCESS_KEY_ID and"
    role = f"for the role of an Amazon machine, set {_METADATA}=http://169.254.169.254"
    profile = "profiles are not read, but this brings their keys: eval $(aws configure export-credentials --format env)"
    return f"there is no key; {fix} AWS_SECRET_ACCESS_KEY; {profile if env.get('AWS_PROFILE') else role}"


def _nebula(address: Address, env: Mapping[str, str], problems: list[str]) -> Address | None:
    if missing := [name for name in _NEBULA if not env.get(name)]:
        known = next(name for name in _NEBULA if env.get(name))
        problems.append(f"{address}: {known} is set, but not {' and not '.join(missing)}")
        return None
    access, secret, said = (env[name].strip() for name in _NEBULA)
    endpoint = _endpoint("NEBULA_ENDPOINT", said if "://" in said else f"https://{said}", problems)
    if endpoint is None:
        return None
    region = env.get("NEBULA_REGION") or _DEFAULT_REGION
    keys = Keys(Secret(access), Secret(secret))
    return Address(address.scheme, address.bucket, address.prefix, endpoint, region, keys)


def _google(address: Address, env: Mapping[str, str], problems: list[str]) -> Address | None:
    """Google's own libraries go to an emulator, without a key, where its host is named."""
    said = env.get(_GOOGLE_EMULATOR)
    if address.endpoint or not said:
        return address
    endpoint = _endpoint(_GOOGLE_EMULATOR, said if "://" in said else f"http://{said}", problems)
    return replace(address, endpoint=endpoint, emulated=True) if endpoint else None


def _azure(address: Address, env: Mapping[str, str], problems: list[str]) -> Address | None:
    """What Azure's own tools read beside obstore's variables; a connection string tells everything."""
    if said := env.get(_AZURE_CONNECTION):
        return _connected(address, said, env, problems)
    if env.get(_AZURE_EMULATOR, "").lower() in ("1", "true", "yes", "on"):
        return _azurite(address, env, problems)
    if env.get(_AZURE_ACCOUNT):
        return address
    account, key, signature = (env.get(f"AZURE_STORAGE_{name}", "") for name in ("ACCOUNT", "KEY", "SAS_TOKEN"))
    if account and (key or signature):
        return replace(address, keys=_azure_keys(account, key, signature))
    wanted = f"put the storage account's name into {_AZURE_ACCOUNT}"
    if account:
        wanted += " (AZURE_STORAGE_ACCOUNT goes with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN)"
    problems.append(f"{address}: {wanted}, or set {_AZURE_CONNECTION}")
    return None


def _azurite(address: Address, env: Mapping[str, str], problems: list[str]) -> Address | None:
    endpoint = _endpoint(_AZURITE, env.get(_AZURITE) or _AZURITE_DEFAULT, problems)
    return replace(address, endpoint=endpoint, emulated=True) if endpoint else None


def _connected(address: Address, said: str, env: Mapping[str, str], problems: list[str]) -> Address | None:
    """By NAME=VALUE between semicolons, as in Microsoft's "Configure Azure Storage connection strings"."""
    pairs = (part.partition("=") for part in said.split(";") if part.strip())
    told = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if told.get("usedevelopmentstorage", "").lower() == "true":
        return _azurite(address, env, problems)
    account, key, signature = (told.get(n, "") for n in ("accountname", "accountkey", "sharedaccesssignature"))
    blobs = told.get("blobendpoint", "")
    account = account or (urlsplit(blobs).hostname or "").partition(".")[0]
    if not account or not (key or signature):
        problems.append(
            f"{_AZURE_CONNECTION}: expected AccountName=…;AccountKey=…, or BlobEndpoint=…;SharedAccessSignature=…"
        )
        return None
    suffix = told.get("endpointsuffix", _AZURE_SUFFIX)
    if not blobs and suffix != _AZURE_SUFFIX:
        blobs = f"{told.get('defaultendpointsprotocol', 'https')}://{account}.blob.{suffix}"
    endpoint = _endpoint(_AZURE_CONNECTION, blobs, problems) if blobs else None
    if blobs and endpoint is None:
        return None
    return replace(address, endpoint=endpoint, keys=_azure_keys(account, key, signature))


def _azure_keys(account: str, key: str, signature: str) -> Keys:
    return Keys(Secret(account), Secret(key or signature.removeprefix("?")), signed=not key)


def _endpoint(variable: str, url: str, problems: list[str]) -> str | None:
    """The address of a server; None where it is not one, or would be sent keys and pictures in the clear."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isprintable()
        usable = usable and not (parts.username or parts.password or parts.query or parts.fragment or " " in url)
    except ValueError:
        usable = False
    if not usable:
        problems.append(f"{variable}: expected a host, or https://HOST, without user, password and ? or # part")
        return None
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        problems.append(f"{variable}: http would send pictures in the clear; use https")
        return None
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def at(url: str, env: Mapping[str, str]) -> Address:
    """The address that an output folder remembers. Raises UsageError where the environment does not tell the way."""
    problems: list[str] = []
    found = resolve(url, env, problems)
    if found is None:
        raise UsageError("\n".join(problems))
    return found
