"""Several endpoints for one manifest: whole runs against sandboxes beside the test."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from conftest import Beside, Place

from batchgen.cli import main

JOBS = [f"job-{n}" for n in range(24)]


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """What the command says as JSON."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of every sandbox in a variable of the manifest's own, and another that no server knows."""
    monkeypatch.setenv("GPU_KEY", "sandbox-key")
    monkeypatch.setenv("WRONG_KEY", "sk-wrong-0123456789")


def at(server: Any, name: str, key_env: str = "GPU_KEY", **beside: Any) -> dict[str, Any]:
    return {"style": "nebula", "url": server.url, "key_env": key_env, "name": name} | beside


def who_answered(place: Place) -> Counter[str]:
    return Counter(entry["attempts"][-1]["endpoint"] for entry in place.log if entry["outcome"] == "done")


@pytest.mark.usefixtures("keys")
def test_three_servers_of_which_one_is_well(place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    """One says "too fast", one drops connections, one is well: every job is done once, the well one never pauses."""
    fast, drops, well = beside("429"), beside("reset"), beside(latency_s=0.02)
    manifest = place.jobs(*JOBS, api=[at(fast, "fast"), at(drops, "drops"), at(well, "well")])
    found = told(capsys, "run", str(manifest), "-c", "4")
    assert (found["done"], found["exit_code"]) == (len(JOBS), 0)
    assert len(place.log) == len(JOBS) == well.ledger.pictures
    assert who_answered(place) == {"well": len(JOBS)}
