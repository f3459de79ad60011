"""Whole runs of the OpenAI-compatible style against the sandbox: what travels, what is refused, what is said."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from conftest import Beside, Place
from PIL import Image

from batchgen.cli import main


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """What the command says as JSON."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def colored(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def edits(place: Place) -> list[dict[str, Any]]:
    """Jobs that draw, and that edit with and without a mask."""
    place.write("navy.png", colored("navy"))
    place.write("white.png", colored("white"))
    beside = {"width": None, "height": None}
    return [
        {"id": "drawn", "prompt": "a fox"},
        {"id": "edited", "prompt": "a cap", "image": "navy.png", **beside},
        {"id": "masked", "prompt": "a cap", "image": "navy.png", "mask": "white.png", "params": {"n": 2}, **beside},
    ]


def test_pictures_are_drawn_and_edited_once(
    place: Place, beside: Beside, edits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generations and edits are made, logged with what they used, and not asked for again."""
    server = beside("503:x1")
    monkeypatch.setenv("OPENAI_API_KEY", server.script.key)
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    manifest = place.jobs(*edits, api="openai", defaults={"model": "black-forest-labs/FLUX.1-schnell"})
    assert main(["run", str(manifest), "--quiet"]) == 0
    assert place.files() == {"drawn.png", "edited.png", "masked.png", "masked~1.png"}
    with Image.open(place.output / "images" / "masked.png") as masked:
        assert masked.size == (64, 48)
    assert {entry["job"]: entry["usage"]["total_tokens"] for entry in place.log} == {
        "drawn": 100,
        "edited": 100,
        "masked": 200,
    }
    assert (server.ledger.requests, server.ledger.pictures, server.ledger.bought_again) == (4, 3, 0)
    assert main(["run", str(manifest), "--quiet"]) == 0
    assert server.ledger.requests == 4


def test_a_manifests_own_address_gets_the_key_that_it_names(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The style's own variable is not for an address that a manifest brings; `key_env` and headers are, by name."""
    server = beside()
    for name in ("OPENAI_API_KEY", "SERVER_KEY"):
        monkeypatch.setenv(name, server.script.key)
    url = server.openai_url
    refused = place.jobs("a", api={"style": "openai", "url": url})
    assert "unauthorized" in told(capsys, "run", str(refused), "--quiet", code=6)["verdict"]
    named = place.jobs("a", api={"style": "openai", "url": url, "key_env": "SERVER_KEY"})
    assert told(capsys, "run", str(named), "--quiet")["done"] == 1
    header = place.jobs("b", api={"style": "openai", "url": url, "headers": {"Authorization": "Bearer $SERVER_KEY"}})
    assert told(capsys, "run", str(header), "--quiet", "-o", str(place.root / "other"))["done"] == 1
    everything = b"".join(path.read_bytes() for path in place.root.rglob("*") if path.is_file())
    assert server.script.key.encode() not in everything


def test_what_goes_where_is_said_before_it_goes(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """check tells whose value a manifest wants sent to which host, and sends nothing."""
    monkeypatch.setenv("SERVER_KEY", "k")
    api = {"style": "openai", "url": "https://pictures.example/v1", "key_env": "SERVER_KEY"}
    notices = told(capsys, "check", str(place.jobs("a", api=api)))["notices"]
    assert "the value of SERVER_KEY goes to pictures.example, as the manifest says" in notices
    headed = place.jobs("a", api=api | {"headers": {"x-also": "$ALSO_KEY"}})
    (*_, notice) = told(capsys, "check", str(headed))["notices"]
    assert notice == "a run would be refused: the headers of the API need ALSO_KEY; set the variable first"
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    del api["key_env"]
    (notice,) = told(capsys, "check", str(place.jobs("a", api=api)))["notices"]
    assert "add key_env: OPENAI_API_KEY" in notice


def test_another_path_is_another_place(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`path` leads to servers that are nearly compatible; a wrong one is told before the manifest is spoilt."""
    server = beside()
    monkeypatch.setenv("SERVER_KEY", server.script.key)
    root = server.openai_url.removesuffix("/v1")
    api = {"style": "openai", "url": root, "key_env": "SERVER_KEY", "path": "/v1/images/generations?api-version=1"}
    assert told(capsys, "run", str(place.jobs("a", api=api)), "--quiet")["done"] == 1
    wrong = place.jobs("a", "b", api=api | {"path": "/images"})
    found = told(capsys, "run", str(wrong), "--quiet", "-o", str(place.root / "other"), code=2)
    assert "not_found" in found["verdict"] and found["requests"] == 1
