"""Pictures in object stores, shown on moto, on nanio, which checks signatures, and in Google's dialect; with faults."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY
from urllib.parse import unquote

import pytest
from stores import ACCESS, BUCKET, HANG_UP, SECRET, SERVERS, SLOW_DOWN, Fault, Proxy, env, google

from batchgen import address, cli
from batchgen.address import Address
from batchgen.files import PosixFiles
from batchgen.flags import Flags
from batchgen.model import ExitCode, UsageError
from batchgen.runner import conduct, outside
from batchgen.runner.archive import open_archive
from batchgen.runner.context import Voice
from batchgen.runner.copies import EVERY_S, Copies
from batchgen.runner.session import open_session
from batchgen.sandbox import SANDBOX_KEY, Sandbox, Script
from batchgen.sink import LocalSink
from batchgen.stores import MARK, Mark, Objects, Store, StoreFiles, probe, read_mark
from batchgen.stores import objects as objects_module
from batchgen.stores.index import Index
from batchgen.stores.trouble import trouble
from batchgen.summary import Summary
from batchgen.telling import Telling
from batchgen.world import StoreBusy, StoreFailed

if TYPE_CHECKING:
    from conftest import Place

NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(seconds=5)}
NOTHING_LISTENS = "http://127.0.0.1:9"


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a store; each test that asks for it runs on all."""
    with SERVERS[request.param]() as url:
        yield url


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The URL of the store that knows conditions."""
    with SERVERS["moto"]() as url:
        yield url


@pytest.fixture(scope="session")
def google_store() -> Iterator[str]:
    """The URL of the store that speaks as Google's does."""
    with google() as url:
        yield url


@pytest.fixture(scope="session")
def nanio() -> Iterator[str]:
    """The URL of the store that checks signatures."""
    with SERVERS["nanio"]() as url:
        yield url


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """A prefix that is this test's alone, as `-o` takes it."""
    return f"s3://{BUCKET}/{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"


def objects_at(url: str, prefix: str) -> Objects:
    return Objects(address.at(prefix, env(url)))


# What -o means


def found(text: str, **variables: str) -> Address | list[str]:
    problems: list[str] = []
    return address.resolve(text, variables, problems) or problems


KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
AZURE = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=c2VjcmV0=="
NEBULA = {"NEBULA_ACCESS_KEY": "a", "NEBULA_SECRET_KEY": "b", "NEBULA_ENDPOINT": "store.example"}


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("s3://b/p", KEYS, "s3://b/p"),
        ("s3://b/p/q/", KEYS, "s3://b/p/q"),
        ("s3://b", KEYS, "s3://b"),
        ("s3:///p", NEBULA | {"NEBULA_BUCKET": "mine"}, "s3://mine/p"),
        ("gs://b/p", {}, "gs://b/p"),
        ("az://c/p", {"AZURE_STORAGE_ACCOUNT_NAME": "acc"}, "az://c/p"),
    ],
)
def test_an_address_names_bucket_and_prefix(text: str, variables: dict[str, str], expected: str) -> None:
    """What follows the bucket is the prefix, with or without a slash at its end; a bucket may be Nebula's."""
    assert str(found(text, **variables)) == expected


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ("s3:/b/p", KEYS, "expected s3://BUCKET/PREFIX"),
        ("http://b/p", KEYS, "expected s3://BUCKET/PREFIX"),
        ("s3://user:secret@b/p", KEYS, "expected s3://BUCKET/PREFIX"),
        ("s3:///p", KEYS, "there is no bucket"),
        ("s3://b/p/../q", KEYS, "'..' cannot be a part of a prefix"),
        ("s3://b/p//q", KEYS, "'' cannot be a part of a prefix"),
        ("s3://b/p?x", KEYS, "cannot be a part of a prefix"),
        ("s3://b/p", {}, "there is no key"),
        ("s3://b/p", {"AWS_PROFILE": "night"}, "profiles are not read"),
        ("s3://b/p", {"AWS_ACCESS_KEY_ID": "a"}, "but not AWS_SECRET_ACCESS_KEY"),
        ("s3://b/p", {"NEBULA_ACCESS_KEY": "a"}, "but not NEBULA_SECRET_KEY and not NEBULA_ENDPOINT"),
        ("s3://b/p", NEBULA | {"NEBULA_ENDPOINT": "http://store.example"}, "NEBULA_ENDPOINT: http would send"),
        ("s3://b/p", NEBULA | {"NEBULA_ENDPOINT": "u:p@store.example"}, "NEBULA_ENDPOINT: expected a host"),
        ("s3://b/p", KEYS | {"AWS_ENDPOINT_URL": "http://10.0.0.1:9000"}, "AWS_ENDPOINT_URL: http would send"),
        ("gs://b/p", {"GOOGLE_BASE_URL": "http://10.0.0.1"}, "GOOGLE_BASE_URL: http would send"),
        ("gs://b/p", {"STORAGE_EMULATOR_HOST": "10.0.0.1:4443"}, "STORAGE_EMULATOR_HOST: http would send"),
        ("az://c/p", {}, "AZURE_STORAGE_ACCOUNT_NAME, or set AZURE_STORAGE_CONNECTION_STRING"),
        ("az://c/p", {"AZURE_STORAGE_ACCOUNT": "acc"}, "goes with AZURE_STORAGE_KEY"),
        ("az://c/p", {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=acc;secret@"}, "STRING: expected AccountName"),
        ("az://c/p", {"AZURE_STORAGE_CONNECTION_STRING": f"{AZURE};BlobEndpoint=http://10.0.0.1"}, "http would send"),
    ],
)
def test_what_leads_nowhere_is_told(text: str, variables: dict[str, str], words: str) -> None:
    """A wrong address and missing or dangerous variables are usage errors, which never repeat a secret."""
    [problem] = found(text, **variables)  # type: ignore[misc]
    assert words in problem and "secret@" not in problem and "u:p" not in problem


def test_nebulas_variables_beat_amazons() -> None:
    """Nebula's endpoint is a host without a scheme; its own key is taken, and Amazon's is not."""
    there = found("s3://b/p", **KEYS, **(NEBULA | {"NEBULA_ACCESS_KEY": "n", "NEBULA_REGION": "ca"}))
    assert isinstance(there, Address) and there.keys
    assert (there.endpoint, there.region, there.keys.access.reveal()) == ("https://store.example", "ca", "n")
    assert "AWS" not in repr(there) and "'n'" not in repr(there)


@pytest.mark.parametrize(
    ("said", "endpoint", "keys"),
    [
        (AZURE, None, ("acc", "c2VjcmV0==", False)),
        (f"{AZURE};EndpointSuffix=core.windows.net", None, ("acc", "c2VjcmV0==", False)),
        (f"{AZURE};EndpointSuffix=core.example", "https://acc.blob.core.example", ("acc", "c2VjcmV0==", False)),
        (f"{AZURE};BlobEndpoint=http://127.0.0.1:1/acc;", "http://127.0.0.1:1/acc", ("acc", "c2VjcmV0==", False)),
        (
            "BlobEndpoint=https://acc.blob.example/;SharedAccessSignature=?sv=1&sig=x%3D",
            "https://acc.blob.example",
            ("acc", "sv=1&sig=x%3D", True),
        ),
    ],
)
def test_an_azure_connection_string_tells_everything(
    said: str, endpoint: str | None, keys: tuple[str, str, bool]
) -> None:
    """Account, key or signature, and server; what other variables say of another account is not looked at."""
    there = found("az://c/p", AZURE_STORAGE_CONNECTION_STRING=said, AZURE_STORAGE_ACCOUNT_NAME="other")
    assert isinstance(there, Address) and there.keys
    assert (there.endpoint, (there.keys.access.reveal(), there.keys.secret.reveal(), there.keys.signed)) == (
        endpoint,
        keys,
    )
    assert "c2VjcmV0" not in repr(there) and "sig=" not in repr(there)


@pytest.mark.parametrize(
    ("text", "variables", "endpoint"),
    [
        ("az://c/p", {"AZURE_STORAGE_USE_EMULATOR": "true"}, "http://127.0.0.1:10000"),
        ("az://c/p", {"AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true"}, "http://127.0.0.1:10000"),
        ("gs://b/p", {"STORAGE_EMULATOR_HOST": "localhost:4443"}, "http://localhost:4443"),
    ],
)
def test_emulators_are_reached_as_the_providers_own_tools_reach_them(
    text: str, variables: dict[str, str], endpoint: str
) -> None:
    """Who has told all other tools to use a stand-in does not write to the real store by this one."""
    there = found(text, **variables)
    assert isinstance(there, Address)
    assert (there.endpoint, there.emulated, there.in_the_clear) == (endpoint, True, True)


def test_state_goes_with_a_store_alone(tmp_path: Path) -> None:
    """--state without a store would be a second -o; with one it is the local folder."""
    with pytest.raises(UsageError, match="--state goes with an object store"):
        Flags.of("m.yaml", output="out", state="st")
    flags = Flags.of("m.yaml", output="s3://b/p", state="st")
    assert (flags.store, flags.output) == ("s3://b/p", Path("st"))
    assert Flags.of("m.yaml", output="s3://b/p").output is None
    assert Telling.of("m.yaml", {}, output="s3://b/p", state="st").output == Path("st")


# One Files of folder and store


@pytest.fixture
def files(server: str, prefix: str, tmp_path: Path) -> Iterator[StoreFiles]:
    local = PosixFiles(tmp_path / "out")
    local.make_dir("tmp")
    yield StoreFiles(local, prefix, lambda: objects_at(server, prefix))
    local.close_root()


def put(files: StoreFiles, path: str, data: bytes = b"data") -> None:
    handle = files.create("tmp/draft")
    files.write(handle, data)
    files.close(handle)
    files.rename("tmp/draft", path)


def test_a_picture_is_uploaded_with_what_is_known_of_it(files: StoreFiles) -> None:
    """Its final name is one object, with type, digest and job; the local draft is gone."""
    files.make_dir("images/pets")
    put(files, "images/pets/狐 a~1.png", b"picture")
    files.sync_dir("images/pets")
    assert files.read("images/pets/狐 a~1.png") == b"picture"
    assert files.size_of("images/pets/狐 a~1.png") == 7
    handle = files.open("images/pets/狐 a~1.png")
    assert (files.size(handle), files.read_at(handle, 3, 9)) == (7, b"ture")
    files.close(handle)
    said = files.objects.attributes("images/pets/狐 a~1.png")
    digest = hashlib.sha256(b"picture").hexdigest()
    assert dict(said) == {"content-type": "image/png", "sha256": digest, "job": "pets/%E7%8B%90%20a"}
    assert files.sha256("images/pets/狐 a~1.png") == digest
    assert files.names("tmp") == [] and files.local.names(".") == ["tmp"]


def test_moving_is_copying_and_deleting(files: StoreFiles) -> None:
    """A superseded picture keeps its bytes and its digest; a name that is not there is told."""
    put(files, "images/a.png")
    files.rename("images/a.png", "superseded/a~x~y.png")
    assert (files.size_of("images/a.png"), files.size_of("superseded/a~x~y.png")) == (None, 4)
    assert files.sha256("superseded/a~x~y.png") == hashlib.sha256(b"data").hexdigest()
    with pytest.raises(FileNotFoundError):
        files.rename("images/a.png", "superseded/b.png")
    with pytest.raises(FileNotFoundError):
        files.read("images/a.png")
    files.remove("superseded/a~x~y.png")
    files.remove("superseded/a~x~y.png")
    assert files.names("superseded") == []


def test_the_first_of_two_keeps_a_name_where_the_store_can_tell(moto: str, google_store: str, prefix: str) -> None:
    """Amazon's If-None-Match and Google's generation 0: who comes second changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", google_store)
        google = Objects(address.at(prefix.replace("s3://", "gs://"), os.environ))
    for there in (objects_at(moto, prefix), google):
        there.create("mark", b"first", {"Content-Type": "application/json"})
        there.create("mark", b"second", {})
        assert there.get("mark") == b"first"
        assert there.attributes("mark")["content-type"] == "application/json"


def test_a_store_without_conditions_is_written_to_all_the_same(nanio: str, prefix: str) -> None:
    """nanio takes no notice of the condition; other stores say 501, and then it is left out."""
    with Proxy(nanio) as proxy:
        proxy.rule = lambda method, path: Fault(501, "NotImplemented") if proxy.count("PUT") < 4 else None
        objects_at(proxy.url, prefix).create("mark", b"first", {})
        assert proxy.count("PUT") == 4
        objects_at(proxy.url, prefix).create("mark", b"second", {})
        assert objects_at(nanio, prefix).get("mark") == b"second"


def test_a_digest_that_the_store_did_not_keep_is_read(files: StoreFiles) -> None:
    """An object that somebody else put there has no digest beside it."""
    files.objects.put("images/a.png", b"foreign", {"sha256": "nonsense"})
    assert files.sha256("images/a.png") == hashlib.sha256(b"foreign").hexdigest()


def test_one_listing_answers_for_all(server: str, prefix: str, tmp_path: Path) -> None:
    """Sizes of a thousand pictures cost a request or two, and stay right while pictures come and go."""
    before = objects_at(server, prefix)
    for name in ("images/a.png", "images/pets/b.png", "superseded/c.png", "elsewhere.png"):
        before.put(name, b"12345")
    with Proxy(server) as proxy:
        files = StoreFiles(PosixFiles(tmp_path / "out"), prefix, lambda: objects_at(proxy.url, prefix))
        sizes = {name: files.size_of(name) for name in ("images/a.png", "images/pets/b.png", "superseded/c.png")}
        assert set(sizes.values()) == {5}
        assert [files.size_of(f"images/{n}.png") for n in range(1000)] == [None] * 1000
        assert (files.size_of("images/pets"), files.size_of("images")) == (-1, -1)
        assert len(proxy.seen) == proxy.count("GET") == 3
        assert sorted(files.names("images")) == ["a.png", "pets"]


def test_the_index_needs_about_a_hundred_bytes_an_object() -> None:
    """A million pictures in a store cost about 100 MB, not a gigabyte."""
    names = ((f"images/folder-{n // 1000}/job-{n}.png", 1_000_000 + n) for n in range(10_000))
    tracemalloc.start()
    try:
        index = Index(names)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert index.get("images/folder-9/job-9999.png") == 1_009_999
    assert held / 10_000 < 130


@pytest.mark.parametrize("path", ["images/../x", "images//x", "images/./x", "superseded/.."])
def test_nothing_is_touched_outside_the_prefix(tmp_path: Path, path: str) -> None:
    """A path that leaves the prefix is refused before the store is asked."""
    files = StoreFiles(PosixFiles(tmp_path), "s3://b/p", lambda: pytest.fail("asked"))
    with pytest.raises(OSError, match="not a path inside"):
        files.read(path)
    with pytest.raises(OSError, match="pictures in a store"):
        files.create("images/x")


# What stores say


@pytest.mark.parametrize(
    ("fault", "kind", "code", "words"),
    [
        (SLOW_DOWN, StoreBusy, errno.EBUSY, r"overloaded or out of order \(503 SlowDown: Please reduce"),
        (Fault(500), StoreBusy, errno.EBUSY, "overloaded"),
        (Fault(429), StoreBusy, errno.EBUSY, "overloaded"),
        (Fault(400, "RequestTimeout"), StoreBusy, errno.EBUSY, "overloaded"),
        (HANG_UP, StoreBusy, errno.ECONNREFUSED, "cannot be reached"),
        (Fault(wait_s=5), StoreBusy, errno.ETIMEDOUT, "does not answer in time"),
        (Fault(403, "InvalidAccessKeyId"), StoreFailed, errno.EACCES, "refused the key; look at NEBULA_ACCESS_KEY"),
        (Fault(401), StoreFailed, errno.EACCES, "refused the key"),
        (Fault(403, "AccessDenied"), StoreFailed, errno.EACCES, "does not let this key do that"),
        (Fault(403, "RequestTimeTooSkewed"), StoreFailed, errno.EACCES, "this machine's clock is wrong"),
        (Fault(404, "NoSuchBucket"), StoreFailed, errno.ENXIO, "has no such bucket"),
        (Fault(400, "InvalidRequest", "Please use Signature Version 2"), StoreFailed, errno.EPROTO, "SigV2"),
        (Fault(301, "PermanentRedirect"), StoreFailed, errno.EREMOTE, "another region"),
        (Fault(400, "AuthorizationHeaderMalformed"), StoreFailed, errno.EREMOTE, "another region"),
        (Fault(501, "NotImplemented"), StoreFailed, errno.EPROTO, "cannot do what was asked"),
        (Fault(400, "Odd", f"your key is {SECRET}"), StoreFailed, errno.EIO, r"\(400 Odd: your key is \[key\]\)|\*\*"),
    ],
    ids=lambda value: f"{value.status}{value.code}" if isinstance(value, Fault) else "",
)
def test_what_a_store_says_is_told_from_what_it_means(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, kind: type[StoreFailed], code: int, words: str
) -> None:
    """What may pass is told apart from what a person must mend, with advice and the store's own words, without keys."""
    monkeypatch.setattr(objects_module, "RETRIES", NO_RETRIES)
    monkeypatch.setattr(objects_module, "TIMEOUTS", {"timeout": "300ms"})
    with Proxy(rule=lambda method, path: fault) as proxy, pytest.raises(StoreFailed, match=words) as error:
        objects_at(proxy.url, "s3://b/p").put("images/a.png", b"data")
    assert (type(error.value), error.value.errno) == (kind, code)
    assert SECRET not in str(error.value) and "s3://b/p" in str(error.value) and "put images/a.png" in str(error.value)


def test_a_server_that_is_not_there_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is worth another try."""
    monkeypatch.setattr(objects_module, "RETRIES", NO_RETRIES)
    with pytest.raises(StoreBusy, match="cannot be reached"):
        objects_at(NOTHING_LISTENS, "s3://b/p").get("x")


def test_a_page_of_somebody_else_is_no_store() -> None:
    """A web server that says yes to everything is not taken for a store."""
    with Proxy(rule=lambda method, path: Fault(200)) as proxy, pytest.raises(StoreFailed, match="like an object store"):
        probe(objects_at(proxy.url, "s3://b/p"), "x")


def test_amazons_session_token_is_not_sent_with_nebulas_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else lies in the environment for another store stays here."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another-account")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", NOTHING_LISTENS)
    with Proxy(rule=lambda method, path: Fault(200)) as proxy:
        objects_at(proxy.url, "s3://b/p").put("x", b"")
        [headers] = proxy.headers
    assert f"Credential={ACCESS}/" in headers["authorization"]
    assert "of-another-account" not in str(headers)


def test_google_and_azure_are_asked_in_their_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """gs:// and az:// lead to objects below the prefix, and an Azure key in an address is never told."""
    with Proxy(rule=lambda method, path: Fault(400, "Odd")) as proxy:
        monkeypatch.setenv("GOOGLE_BASE_URL", proxy.url)
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", google_key(proxy.url))
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", proxy.url)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=SECRETSIGNATURE")
        connected = f"BlobEndpoint={proxy.url};AccountName=acc;SharedAccessSignature=?sv=2&sig=SECRETSIGNATURE"
        for scheme, connection in (("gs", ""), ("az", ""), ("az", connected)):
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
            with pytest.raises(StoreFailed) as error:
                Objects(address.at(f"{scheme}://bucket/p", os.environ)).put("images/a.png", b"data")
            assert "SECRETSIGNATURE" not in str(error.value)
        paths, said = zip(*(path.partition("?")[::2] for _, path in proxy.seen), strict=True)
        assert [unquote(path) for path in paths] == ["/bucket/p/images/a.png"] * 3
        assert said == ("", "sv=1&sig=SECRETSIGNATURE", "sv=2&sig=SECRETSIGNATURE")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (
            "Error performing token request: Error performing GET http://169.254.169.254/computeMetadata/v1/instance"
            " - Server returned non-2xx status code: 403 Forbidden",
            "cannot be asked without a key",
        ),
        ("Generic MicrosoftAzure error: Invalid Access Key: Invalid symbol 32", "cannot be asked with such a key"),
    ],
)
def test_a_key_that_is_missing_is_told_from_one_that_is_refused(raw: str, words: str) -> None:
    """Where there is no key, or one that cannot be one, nobody looks for a fault in the store's rights."""
    assert words in str(trouble(Address("gs", "b", "p"), "put x", ValueError(raw)))


def google_key(url: str) -> str:
    return f'{{"gcs_base_url":"{url}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}'


def test_without_the_package_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore is an extra: who has not installed it is told so, at once."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"s3://b/p: object stores need the package obstore.*pip install obstore"):
        objects_at(NOTHING_LISTENS, "s3://b/p")


def test_a_damaged_mark_is_not_taken_for_none(tmp_path: Path) -> None:
    """A folder that no longer says where its pictures are is not used as if they were files."""
    (tmp_path / MARK).parent.mkdir()
    (tmp_path / MARK).write_bytes(b'{"id": ')
    with pytest.raises(UsageError, match=r"store\.json is damaged: bring it back"):
        read_mark(PosixFiles(tmp_path))


# Publishing


def test_a_group_is_uploaded_side_by_side_and_goes_on_where_it_stopped(
    nanio: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that fails takes nothing with it; the next call uploads only what is left."""
    monkeypatch.setattr(objects_module, "RETRIES", NO_RETRIES)
    local = PosixFiles(tmp_path / "out")
    local.make_dir("tmp")
    with Proxy(nanio) as proxy:
        files = StoreFiles(local, prefix, lambda: objects_at(proxy.url, prefix))
        sink = LocalSink(files, "tmp", at_once=4)
        moves = {f"images/{n}.png": sink.stage(b"%d" % n, hashlib.sha256(b"%d" % n).hexdigest()) for n in range(12)}
        sink.sync(moves.values())
        proxy.rule = lambda method, path: SLOW_DOWN if "images/5." in path else None
        with pytest.raises(StoreBusy):
            sink.publish(moves)
        assert set(moves) == {"images/5.png"}
        proxy.rule, before = lambda method, path: None, proxy.count("PUT")
        sink.publish(moves)
        assert (moves, proxy.count("PUT") - before) == ({}, 1)
    assert sorted(files.names("images")) == sorted(f"{n}.png" for n in range(12))
    assert local.names("tmp") == []


# Runs


@dataclasses.dataclass
class Night:
    """Runs of one manifest with its pictures at `prefix` of a store."""

    place: Place
    prefix: str
    shop: Sandbox

    async def run(self, wait: Callable[[float], None] = lambda seconds: None, **settings: Any) -> Summary:
        settings = {"api": "nebula", "api_url": self.shop.url, "output": self.prefix} | settings
        session = open_session(Flags.of(self.place.root / "m.yaml", **settings), os.environ)
        there = dataclasses.replace(outside.real(), pause=wait)
        return await conduct.run(session, Voice(quiet=True), there)

    def standing(self) -> list[str]:
        """The names of all objects."""
        there = Objects(address.at(self.prefix, os.environ))
        return sorted(name for folder in ("images", "superseded") for name, _ in there.below(folder))


def lead(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name, value in {**env(url), "NEBULA_API_KEY": SANDBOX_KEY}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def night(place: Place, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    async with Sandbox(Script(latency_s=(0, 0.01))) as shop:
        yield Night(place, prefix, shop)


async def test_a_night_with_a_store(night: Night, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, resume, change, change back, lose an object: the same as with a folder, and nothing is bought twice."""
    lead(monkeypatch, server)
    place = night.place
    place.jobs("a", "pets/b", "c")
    first = await night.run()
    assert (first.exit_code, first.made, first.store) == (0, 3, night.prefix)
    assert night.standing() == ["images/a.png", "images/c.png", "images/pets/b.png"]
    assert place.files() == set() and place.files(".batchgen/tmp") == set()
    assert (await night.run()).requests == 0

    place.jobs({"id": "a", "prompt": "other"}, "pets/b", "c")
    assert (await night.run()).made == 1
    [away] = [name for name in night.standing() if name.startswith("superseded/")]
    place.jobs("a", "pets/b", "c")
    again = await night.run()
    assert (again.exit_code, again.requests) == (0, 0) and away not in night.standing()

    Objects(address.at(night.prefix, os.environ)).delete("images/c.png")
    redone = await night.run(redo_missing=True)
    assert (redone.exit_code, redone.made, redone.requests) == (0, 1, 1)
    assert night.shop.ledger.requests == 5


async def test_a_night_with_googles_store(
    night: Night, google_store: str, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """Run, change, resume with gs://, in the words of Google's XML API."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google_store)
    monkeypatch.setenv("NEBULA_API_KEY", SANDBOX_KEY)
    night.prefix = prefix.replace("s3://", "gs://")
    night.place.jobs("a", "pets/b")
    assert (await night.run()).made == 2
    night.place.jobs("a", {"id": "pets/b", "prompt": "other"})
    assert (await night.run()).made == 1
    assert [name.split("~")[0] for name in night.standing()] == [
        "images/a.png",
        "images/pets/b.png",
        "superseded/pets/b",
    ]
    assert Objects(address.at(night.prefix, os.environ)).attributes("images/pets/b.png")["job"] == "pets/b"
    assert (await night.run()).requests == 0


async def test_copies_of_log_and_summary_lie_beside_the_pictures(
    night: Night, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who loses the local folder brings the log back from the store, and nothing is bought again."""
    lead(monkeypatch, server)
    night.place.jobs("a", "b")
    await night.run()
    there, output = Objects(address.at(night.prefix, os.environ)), night.place.output
    copies = {name: there.get(name) for name in ("log.jsonl", "summary.json", MARK)}
    assert copies == {name: (output / name).read_bytes() for name in copies}
    output.rename(output.with_name("lost"))
    with pytest.raises(UsageError, match=r"whose log is in .*outputs/m"):
        await night.run()
    for name in ("log.jsonl", MARK):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(copies[name])
    assert (await night.run()).requests == 0


async def test_a_folder_and_a_prefix_belong_together(
    night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another folder on the prefix, another prefix for the folder, and a prefix that was emptied are refused unpaid."""
    lead(monkeypatch, nanio)
    night.place.jobs("a")
    await night.run()
    with pytest.raises(UsageError, match=r"holds the pictures of m\.yaml"):
        await night.run(state=tmp_path / "other")
    with pytest.raises(UsageError, match=r"pictures are in .*, not in"):
        await night.run(output=night.prefix + "-2")
    with pytest.raises(UsageError, match=f"add -o {night.prefix} --state"):
        await night.run(output=None)
    Objects(address.at(night.prefix, os.environ)).delete(MARK)
    with pytest.raises(UsageError, match="or was it emptied"):
        await night.run()
    assert (await night.run(redo_missing=True)).exit_code == 0
    night.place.jobs("a", name="n.yaml")
    local = open_session(Flags.of(night.place.root / "n.yaml", api="sandbox"), os.environ)
    await conduct.run(local, Voice(quiet=True))
    with pytest.raises(UsageError, match="has its pictures in the folder itself"):
        await conduct.run(
            open_session(Flags.of(night.place.root / "n.yaml", api="sandbox", output=night.prefix + "-3"), os.environ),
            Voice(quiet=True),
        )
    assert night.shop.ledger.requests == 1


async def test_of_two_that_begin_at_once_one_is_refused(
    night: Night, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is a moment later than another machine in an empty prefix leaves, unpaid, and its folder is free again."""
    lead(monkeypatch, moto)
    night.place.jobs("a")
    theirs = Mark("theirs", night.prefix, "host", "/other", "n.yaml")
    create = Objects.create

    def late(self: Objects, name: str, data: bytes, attributes: Any) -> None:
        create(self, name, theirs.encode(), {})
        create(self, name, data, attributes)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "create", late)
        with pytest.raises(UsageError, match=r"holds the pictures of n\.yaml"):
            await night.run()
    assert night.shop.ledger.requests == 0
    assert (await night.run(output=night.prefix + "-mine")).exit_code == 0


async def test_shards_share_a_store(night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that begin at once agree on one mark, and leave what one run leaves."""
    lead(monkeypatch, nanio)
    night.place.jobs(*(f"job-{n}" for n in range(8)))
    both = await asyncio.gather(*(night.run(shard=f"{i}/2") for i in (1, 2)))
    assert [summary.exit_code for summary in both] == [0, 0]
    assert (await night.run()).requests == 0
    assert (night.shop.ledger.requests, len(night.standing())) == (8, 8)


@pytest.mark.parametrize(
    ("secret", "bucket", "words"),
    [("wrong", BUCKET, "refused the key"), (SECRET, "no-such-bucket", "has no such bucket")],
)
async def test_a_store_that_cannot_be_used_costs_nothing(
    night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch, secret: str, bucket: str, words: str
) -> None:
    """A wrong key or a missing bucket ends the run with exit code 7 before anything is sent."""
    lead(monkeypatch, nanio)
    monkeypatch.setenv("NEBULA_SECRET_KEY", secret)
    night.place.jobs("a")
    with pytest.raises(StoreFailed, match=words) as error:
        await night.run(output=f"s3://{bucket}/p")
    assert error.value.exit_code is ExitCode.STORAGE
    assert night.shop.ledger.requests == 0


async def test_a_store_that_may_not_be_listed_costs_nothing(
    night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that may put, read and delete, but not list, is found out before anything is sent, in a new prefix too."""
    night.place.jobs("a")
    with Proxy(nanio, lambda method, path: Fault(403, "AccessDenied") if "list-type" in path else None) as proxy:
        lead(monkeypatch, proxy.url)
        with pytest.raises(StoreFailed, match="does not let this key"):
            await night.run()
    assert night.shop.ledger.requests == 0


async def test_a_store_that_is_overloaded_is_waited_for(
    night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 SlowDown beyond the library's own retries: the pictures wait here, and are uploaded when it passes."""
    lead(monkeypatch, nanio)
    monkeypatch.setattr(objects_module, "RETRIES", NO_RETRIES)
    night.place.jobs("a", "b", "c")
    with Proxy(nanio, lambda method, path: SLOW_DOWN if method == "PUT" and "images/" in path else None) as proxy:
        lead(monkeypatch, proxy.url)

        def passes(seconds: float) -> None:
            proxy.rule = lambda method, path: None

        found = await night.run(passes)
    assert (found.exit_code, found.made) == (0, 3)
    [notice] = found.notices
    assert "overloaded" in notice and "what was paid for is kept here" in notice
    assert night.shop.ledger.requests == 3


async def test_a_move_that_stops_halfway_is_gone_on_with(
    night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old picture that was copied to superseded/ but not deleted is there once when the store works again."""
    lead(monkeypatch, nanio)
    monkeypatch.setattr(objects_module, "RETRIES", NO_RETRIES)
    night.place.jobs("a")
    await night.run()
    night.place.jobs({"id": "a", "prompt": "other"})
    with Proxy(nanio, lambda method, path: SLOW_DOWN if method == "DELETE" and "images/" in path else None) as proxy:
        lead(monkeypatch, proxy.url)

        def passes(seconds: float) -> None:
            proxy.rule = lambda method, path: None

        found = await night.run(passes)
    assert (found.exit_code, found.made) == (0, 1)
    lead(monkeypatch, nanio)
    [new, old] = night.standing()
    assert new == "images/a.png" and old.startswith("superseded/a~") and "~00000000~" not in old


async def test_what_was_paid_for_is_kept_when_the_store_refuses(
    night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights that are taken away in the middle end the run with 7; the next one adopts every answer that came."""
    lead(monkeypatch, nanio)
    night.place.jobs(*(f"job-{n}" for n in range(12)))
    denied = Fault(403, "AccessDenied")
    with Proxy(nanio) as proxy:
        proxy.rule = lambda method, path: denied if method == "PUT" and proxy.count("PUT", "images/") > 3 else None
        lead(monkeypatch, proxy.url)
        found = await night.run(concurrency=4)
        assert (found.exit_code, "does not let this key" in found.verdict) == (ExitCode.STORAGE, True)
        bought = night.shop.ledger.requests
        assert len(night.place.files(".batchgen/tmp")) == bought - 3
        proxy.rule = lambda method, path: None
        again = await night.run()
    assert (again.exit_code, again.done, night.shop.ledger.requests) == (0, 12, 12)
    assert night.shop.ledger.bought_again == 0


CRASHING = Path(__file__).with_name("crashing.py")


@pytest.mark.parametrize("crash_at", ["remove:2", "remove:3"])
async def test_killed_between_upload_and_log_line(
    night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch, crash_at: str
) -> None:
    """The picture is in the store and the log does not know: the next run adopts it and buys nothing twice."""
    lead(monkeypatch, nanio)
    night.place.jobs("a", "b")
    run = ["run", str(night.place.root / "m.yaml"), "-o", night.prefix, "--api-url", night.shop.url, "--quiet"]
    process = await asyncio.create_subprocess_exec(sys.executable, str(CRASHING), crash_at, *run)
    assert await process.wait() == -9
    assert len(night.standing()) > len(night.place.log)
    again = await night.run()
    assert (again.exit_code, again.done) == (0, 2)
    assert "was adopted" in again.notices[0]
    assert (night.shop.ledger.requests, night.standing()) == (2, ["images/a.png", "images/b.png"])


# Those who only look


async def test_lookers_see_the_store(
    night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """status and check know where pictures are, what is missing there, and what is wrong with the way there."""
    lead(monkeypatch, nanio)
    manifest = night.place.jobs("a", "b")
    await night.run()
    with open_archive(night.place.output) as archive:
        file = next(iter(archive.entries())).images[0].file
        assert archive.store == night.prefix and archive.records.files.read(file).startswith(b"\x89PNG")
    Objects(address.at(night.prefix, os.environ)).delete(file)
    assert await asyncio.to_thread(cli.main, ["status", str(manifest)]) == 0
    told = capsys.readouterr().out
    assert f"pictures   {night.prefix}" in told and "pending    1" in told
    check = ["check", str(manifest), "-o", night.prefix, "--api", "nebula", "--api-url", night.shop.url]
    assert await asyncio.to_thread(cli.main, check) == 0
    assert "--online tries" in capsys.readouterr().out
    assert await asyncio.to_thread(cli.main, [*check, "--online"]) == 0
    assert "put, head, get and delete work" in capsys.readouterr().out
    assert await asyncio.to_thread(cli.main, [*check, "--online", "--state", str(night.place.root / "other")]) == 2
    assert "holds the pictures of m.yaml" in capsys.readouterr().err
    monkeypatch.setenv("NEBULA_SECRET_KEY", "wrong")
    assert await asyncio.to_thread(cli.main, ["status", str(manifest)]) == 7
    assert "refused the key" in capsys.readouterr().err
    assert await asyncio.to_thread(cli.main, ["status", night.prefix]) == 2
    assert "name the local folder" in capsys.readouterr().err


async def test_verify_report_and_export_read_the_store(
    night: Night, nanio: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damage is found and moved aside in the store, the page is put beside the pictures, a dataset holds them."""
    lead(monkeypatch, nanio)
    manifest = str(night.place.jobs("a", "pets/b", "c"))
    await night.run()

    def call(*arguments: str) -> tuple[int, str]:
        code = cli.main(arguments)
        return code, capsys.readouterr().out

    assert await asyncio.to_thread(call, "verify", manifest) == (0, ANY)
    assert await asyncio.to_thread(call, "report", manifest) == (0, ANY)
    there = Objects(address.at(night.prefix, os.environ))
    assert b"images/pets/b.png" in there.get("report.html") and len(list(there.below("thumbs"))) == 3
    dataset = night.place.root / "dataset"
    assert await asyncio.to_thread(call, "export", manifest, "--to", "imagefolder", "-o", str(dataset)) == (0, ANY)
    assert (dataset / "train/c.png").read_bytes() == there.get("images/c.png")

    there.put("images/c.png", b"x" * (there.size("images/c.png") or 0))
    there.put("images/stranger.png", b"who")
    code, told = await asyncio.to_thread(call, "verify", manifest, "--requeue", "--tidy")
    assert code == 3 and f"{manifest} -o {night.prefix}" in told
    assert [name.split("~")[0] for name in night.standing()[2:]] == ["superseded/c", "superseded/stranger"]
    assert (await night.run()).made == 1
    lead(monkeypatch, NOTHING_LISTENS)
    monkeypatch.setattr(objects_module, "RETRIES", NO_RETRIES)
    assert [(await asyncio.to_thread(call, command, manifest))[0] for command in ("verify", "report")] == [7, 7]


# Copies now and then


class Watch:
    """A clock that is set by hand."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def utc(self) -> Any:
        raise AssertionError


def test_copies_are_made_at_intervals_and_only_of_what_changed(nanio: str, prefix: str, tmp_path: Path) -> None:
    """Every five minutes a log that grew is uploaded; a failure is told at the end and stops nothing."""
    local, clock = PosixFiles(tmp_path / "out"), Watch()
    local.make_dir(".batchgen")
    with Proxy(nanio) as proxy:
        store = Store(address.at(prefix, env(proxy.url)), local)
        store.claim(Mark("id", prefix, "host", "folder", "m.yaml"))
        copies = Copies(store, clock, "log.jsonl", "summary.json")
        (tmp_path / "out" / "log.jsonl").write_bytes(b"one\n")
        copies.tick()
        assert copies.finish() == "" and proxy.count("PUT", "log.jsonl") == 1
        clock.now_s += EVERY_S
        copies.tick()
        assert copies.finish() == "" and proxy.count("PUT", "log.jsonl") == 1
        (tmp_path / "out" / "log.jsonl").write_bytes(b"one\ntwo\n" * (2 << 20))
        clock.now_s += EVERY_S
        copies.tick()
        assert copies.finish() == "" and store.files.objects.size("log.jsonl") == 16 << 20
        (tmp_path / "out" / "summary.json").write_bytes(b"{}")
        proxy.rule = lambda method, path: Fault(403, "AccessDenied") if method == "PUT" else None
        assert "does not let this key" in copies.finish()
