"""batchgen models, and what a run with a money limit asks before it spends anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import MODEL, Beside, Place

from batchgen.cli import main


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NEBULA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sandbox-key")


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """What the command says as JSON."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


# batchgen models


def test_the_list_has_types_and_prices(beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    """Nebula Block tells what each model makes and costs; those that make pictures come first."""
    found = told(capsys, "models", "--api-url", beside().url)
    assert (found["api"], found["v"]) == ("nebula", 1)
    assert {"name": MODEL, "kind": "Image", "price_usd": 0.003} in found["models"]
    kinds = [model["kind"] for model in found["models"]]
    assert kinds == ["Image"] * 4 + kinds[4:] and "Text" in kinds


def test_the_list_of_an_openai_server_has_names(beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    """That shape tells neither type nor price, and none is invented."""
    assert main(["models", "--api", "openai", "--api-url", beside().openai_url]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(MODEL))
    assert line.split() == [MODEL, "-", "-"]


def test_a_manifest_says_whose_list(place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    """The manifest's api is asked, where the flags name no other."""
    server = beside()
    manifest = place.jobs("a", api={"style": "openai", "url": server.openai_url, "key_env": "OPENAI_API_KEY"})
    assert told(capsys, "models", str(manifest))["url"] == server.openai_url
    assert told(capsys, "models", "--api", "sandbox")["models"]


def test_a_list_that_cannot_be_had_is_told(
    beside: Beside, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No list is exit code 2, a refused key 6, no key 2; and each says why."""
    server = beside()
    assert "status 404" in told(capsys, "models", "--api-url", server.url + "/elsewhere", code=2)["error"]
    monkeypatch.setenv("NEBULA_API_KEY", "wrong")
    assert "refused the key" in told(capsys, "models", "--api-url", server.url, code=6)["error"]
    monkeypatch.delenv("NEBULA_API_KEY")
    assert "there is no API key" in told(capsys, "models", "--api-url", server.url, code=2)["error"]
    assert server.ledger.requests == 0


def test_an_unknown_model_is_told_with_the_nearest(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]
) -> None:
    """check --online knows the list of an OpenAI-compatible server, too."""
    manifest = place.jobs("a", defaults={"model": "flux.1-schnel"})
    found = told(capsys, "check", str(manifest), "--online", "--api", "openai", "--api-url", beside().openai_url)
    assert any("flux.1-schnel" in line and f"did you mean {MODEL}?" in line for line in found["notices"])


# Prices and balance before a run


def run(capsys: pytest.CaptureFixture[str], place: Place, url: str, *flags: str, code: int = 0) -> Any:
    manifest = place.jobs("a", "b", "c")
    return told(capsys, "run", str(manifest), "--api-url", url, "--max-cost", "1", "--quiet", *flags, code=code)


def test_a_money_limit_takes_the_apis_prices(place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the manifest gives none, the API's own prices are counted with; what the user says holds."""
    server = beside()
    assert run(capsys, place, server.url)["cost_usd"] == 0.009
    assert run(capsys, place, server.url, "--redo", "--price", f"{MODEL}=0.1")["cost_usd"] == 0.3


def test_a_balance_that_pays_for_some_is_told(place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    """The run begins and says how far the money goes; the account's own refusal ends it."""
    server = beside()
    server.ledger.balance_usd = 0.007
    found = run(capsys, place, server.url, "-c", "1", code=6)
    assert (found["done"], found["pending"]) == (2, 1)
    assert any("it pays for about 2 of 3 pictures" in notice for notice in found["notices"])


def test_a_balance_that_pays_for_nothing_refuses(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even the first request is sent, no folder is left, and the exit code says whose matter it is."""
    server = beside()
    server.ledger.balance_usd = 0.001
    found = run(capsys, place, server.url, code=6)
    assert "top it up first" in found["error"]
    assert server.ledger.requests == 0
    assert not place.output.exists()


def test_an_api_that_tells_nothing_is_no_obstacle(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]
) -> None:
    """With prices of one's own a run goes on where neither list nor balance can be had; without them it is refused."""
    nowhere = beside().url + "/none"
    assert "max_cost_usd needs prices" in run(capsys, place, nowhere, code=2)["error"]
    found = run(capsys, place, nowhere, "--price", f"{MODEL}=0.1", code=2)
    assert "not_found" in found["verdict"] and any("status 404" in notice for notice in found["notices"])


def test_without_a_money_limit_nobody_is_asked(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty account is then told by its own refusal."""
    server = beside()
    server.ledger.balance_usd = 0.001
    found = told(capsys, "run", str(place.jobs("a")), "--api-url", server.url, "--quiet", code=6)
    assert (found["pending"], server.ledger.requests) == (1, 1)
