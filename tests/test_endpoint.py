"""Which server is asked and what may go there: addresses, paths, headers, and keys that a manifest would give away."""

from __future__ import annotations

from typing import Any

import pytest

from batchgen import endpoint
from batchgen.endpoint import Place
from batchgen.model import Api
from batchgen.protocol.styles import NEBULA, OPENAI, SANDBOX, Style

ENV = {"MY_KEY": "value-1", "OTHER_TOKEN": "value-2", "HOME": "/root", "OPENAI_API_KEY": "sk-1", "BAD_KEY": "é"}


def place_of(style: Style = OPENAI, said: str | None = None, env: dict[str, str] | None = None, **api: Any) -> Place:
    """The place that a manifest's `api` leads to, where nothing is wrong with it."""
    problems: list[str] = []
    found = endpoint.find_place(style, Api(style.name, **api), said, ENV if env is None else env, problems)
    assert not problems
    return found


def problems_of(**api: Any) -> list[str]:
    problems: list[str] = []
    endpoint.find_place(OPENAI, Api("openai", **api), None, ENV, problems)
    return problems


def test_who_names_the_address() -> None:
    """Flag, the style's own variable, manifest, default; and only a manifest's own choice counts as the manifest's."""
    env = {"OPENAI_BASE_URL": "https://env/v1", "NEBULA_API_URL": "https://wrong"}
    assert place_of(said="https://flag/v1", env=env, url="https://m/v1") == Place("https://flag/v1")
    assert place_of(env=env, url="https://m/v1") == Place("https://env/v1")
    assert place_of(env={}, url="https://m/v1/") == Place("https://m/v1", by_manifest=True)
    assert place_of(env={}) == Place("https://api.openai.com/v1")
    assert place_of(SANDBOX, env={}).url == ""


def test_a_manifests_address_gets_only_the_key_that_is_named_with_it() -> None:
    """A key in the style's own variable does not go where a stranger's manifest wants it."""
    theirs, ours = place_of(url="https://m/v1"), place_of()
    assert not endpoint.key_may_go(theirs, OPENAI, Api("openai", "https://m/v1"))
    assert endpoint.key_may_go(theirs, OPENAI, Api("openai", "https://m/v1", "MY_KEY"))
    assert endpoint.key_may_go(ours, OPENAI, Api("openai"))
    assert not endpoint.key_may_go(Place("http://127.0.0.1:1"), SANDBOX, Api("sandbox"))
    assert [endpoint.key_variable(s, Api(s.name)) for s in (NEBULA, OPENAI)] == ["NEBULA_API_KEY", "OPENAI_API_KEY"]
    assert endpoint.key_variable(OPENAI, Api("openai", key_env="MY_KEY")) == "MY_KEY"


@pytest.mark.parametrize(
    "name", ["HOME", "my_key_2", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "GH_TOKEN", "DEPLOY_PRIVATE_KEY"]
)
def test_variables_that_are_no_keys_for_servers_are_not_sent(name: str) -> None:
    """Neither as the key nor in a header can a manifest have them sent, and their values are not shown."""
    for problems in (problems_of(key_env=name), problems_of(headers={"x-thing": f"a ${name}"})):
        assert problems
        assert "/root" not in "".join(problems)


def test_what_goes_where_is_said() -> None:
    """Every variable that a manifest has sent is named with the host that gets it."""
    api = Api("openai", "https://m.example/v1", "MY_KEY", headers={"x-also": "$OTHER_TOKEN"})
    found = place_of(url=api.url, key_env=api.key_env, headers=api.headers)
    (line,) = endpoint.disclosures(found, api, has_key=True, variable="MY_KEY")
    assert line == "the value of MY_KEY and OTHER_TOKEN goes to m.example, as the manifest says"
    assert endpoint.disclosures(place_of(), Api("openai"), has_key=True, variable="OPENAI_API_KEY") == []
    assert endpoint.disclosures(Place("http://127.0.0.1:1", True), api, has_key=True, variable="MY_KEY") == []


def test_headers_hold_what_their_variables_hold() -> None:
    """`$NAME` and `${NAME}` are replaced, `$$` is a dollar, and what came from variables is a secret."""
    said = {"api-key": "$MY_KEY", "Authorization": "Key ${OTHER_TOKEN}", "x-plain": "5$$ a $ 1"}
    found = place_of(headers=said)
    assert found.headers == {"api-key": "value-1", "Authorization": "Key value-2", "x-plain": "5$ a $ 1"}
    assert (found.variables, found.secrets) == (("MY_KEY", "OTHER_TOKEN"), ("value-1", "value-2"))
    assert "value" not in repr(found)
    key = endpoint.key_for(found, OPENAI, Api(), None)
    assert key and key.hide("value-1, value-2") == "***, ***" and not key.reveal()


def test_a_variable_that_is_not_set_is_missed_only_where_something_is_sent() -> None:
    """Whoever only looks at a folder needs no key; a request would."""
    found = place_of(url="https://m/v1", headers={"api-key": "$NOT_SET_KEY"})
    assert (found.missing, found.variables) == (("NOT_SET_KEY",), ())
    assert endpoint.key_for(found, OPENAI, Api(), "k") is None


BAD_HEADERS = [
    ("Authorization", "Bearer sk-literal", "use key_env"),
    ("x-api-key", "sk-literal", "write $NAME"),
    ("X-Auth-Token", "sk-literal", "write $NAME"),
    ("x-a", "$BAD_KEY", "printable ASCII"),
    ("x-a", "a\r\nx-b: c", "printable ASCII"),
    ("x a", "b", "not the name"),
    ("x:a", "b", "not the name"),
    ("Content-Length", "3", "sets this header itself"),
    ("host", "other", "sets this header itself"),
]


@pytest.mark.parametrize(("name", "value", "why"), BAD_HEADERS, ids=[f"{n}={v!r}" for n, v, _ in BAD_HEADERS])
def test_bad_headers(name: str, value: str, why: str) -> None:
    """A header that cannot be sent, or would be a key in a manifest, is told without its value."""
    (line,) = problems_of(headers={name: value})
    assert why in line
    assert "sk-literal" not in line


@pytest.mark.parametrize(
    ("url", "style", "key", "works"),
    [
        ("http://127.0.0.1:9/v1", OPENAI, None, True),
        ("http://gpu1:8000/v1", OPENAI, None, True),
        ("http://192.168.1.5/v1", OPENAI, None, True),
        ("https://gpu.lan/v1", OPENAI, None, True),
        ("http://gpu1:8000/v1", OPENAI, "k", False),
        ("http://gpu.example/v1", OPENAI, None, False),
        ("https://gpu.example/v1", OPENAI, None, False),
        ("https://gpu.example/v1", OPENAI, "k", True),
        ("http://127.0.0.1:9/v1", NEBULA, None, False),
        ("http://gpu1:8000/v1", NEBULA, "k", False),
    ],
)
def test_who_needs_a_key(url: str, style: Style, key: str | None, works: bool) -> None:
    """A server of one's own needs no key, and plain http is for that alone: a key never goes out in the clear."""
    found = place_of(style, url=url)
    assert (
        endpoint.exposed(found, style, key) is None and endpoint.key_for(found, style, Api(), key) is not None
    ) is works


def test_a_key_that_a_manifest_names_is_needed() -> None:
    """A server of one's own needs no key, unless the manifest says that it has one."""
    found = place_of(url="http://127.0.0.1:9/v1", key_env="MY_KEY")
    assert endpoint.key_for(found, OPENAI, Api(key_env="MY_KEY"), None) is None
    assert endpoint.key_for(found, OPENAI, Api(), None) is not None


def test_a_secret_header_is_not_sent_in_the_clear_either() -> None:
    """What a variable holds is a secret in whatever header it travels."""
    found = place_of(url="http://gpu1:8000/v1", headers={"x-a": "$MY_KEY"})
    assert "use https" in (endpoint.exposed(found, OPENAI, None) or "")


def test_the_path_may_be_another() -> None:
    """Generations go to the path that the manifest names, and edits beside it."""
    encode = OPENAI.encoder("/deployments/d/images/generations?api-version=1")
    assert encode("m", {"prompt": "a"}, {}).path == "/deployments/d/images/generations?api-version=1"
    assert encode("m", {"prompt": "a"}, {"image": b"x"}).path == "/deployments/d/images/edits?api-version=1"
    assert NEBULA.encoder("/draw")("m", {"prompt": "a"}, {"image": b"x"}).path == "/draw"
    assert OPENAI.encoder(None)("m", {"prompt": "a"}, {}).path == "/images/generations"
