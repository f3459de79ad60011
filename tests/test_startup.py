"""What a command loads before it does its work: time is not measured here, but what takes it is named."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from batchgen.cli import main

if TYPE_CHECKING:
    from conftest import Beside, Place

MODEL = "black-forest-labs/FLUX.1-schnell"
# Processes of their own, whose lines are counted elsewhere.
pytestmark = pytest.mark.no_cover
LIGHT = {
    "msgspec",
    "dataclasses",
    "hashlib",
    "asyncio",
    "aiohttp",
    "yaml",
    "PIL",
    "jinja2",
    "sqlite3",
    "tqdm",
    "tenacity",
}
FEW = LIGHT - {"msgspec", "dataclasses", "hashlib"} | {"ssl", "logging", "email", "tempfile", "filelock"}
OURS = {
    "batchgen.account",
    "batchgen.client",
    "batchgen.pacing",
    "batchgen.pool",
    "batchgen.sandbox",
    "batchgen.writer",
}
LOADED = """
import json, sys
from batchgen.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted(sys.modules)]))
"""


def loaded(*arguments: str, code: int = 0) -> set[str]:
    """The modules that a command has loaded when it ends, with this exit code."""
    ended = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True)
    ended_with, modules = json.loads(ended.stdout.splitlines()[-1])
    assert ended_with == code, ended.stderr
    return set(modules)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]], ids=" ".join)
def test_words_alone_load_nothing_heavy(arguments: list[str]) -> None:
    """Help and version come from argparse and the package's own words."""
    assert not loaded(*arguments) & (LIGHT | OURS)


def test_a_look_loads_nothing_that_sends(place: Place) -> None:
    """`status` of a table needs no event loop, no HTTP, no YAML, no pictures and no account."""
    table = str(place.write("m.csv", f"id,prompt,model\na,a cat,{MODEL}\n"))
    assert main(["run", table, "--api", "sandbox", "--quiet", "-D", "width=16", "-D", "height=16"]) == 0
    seen = loaded("status", table)
    assert "batchgen.plan" in seen, "the manifest was planned with"
    assert not seen & (FEW | OURS)


def test_a_first_request_waits_for_nothing_that_it_does_not_need(
    place: Place, beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a picture has come a run has loaded neither what reads pictures nor YAML, pages and bars."""
    monkeypatch.setenv("NEBULA_API_KEY", "wrong")
    table = str(place.write("m.csv", f"id,prompt,model\na,a cat,{MODEL}\n"))
    seen = loaded("run", table, "--api-url", beside().url, "--quiet", code=6)
    assert "batchgen.client" in seen
    assert not seen & {"PIL", "yaml", "jinja2", "tqdm", "batchgen.sandbox", "batchgen.schema", "batchgen.estimate"}
