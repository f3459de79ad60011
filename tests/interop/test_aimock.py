"""Whole runs against a server of the OpenAI-compatible shape that is not ours (the npm package @copilotkit/aimock).

`make test` installs it where npm is; elsewhere these tests are skipped and say so.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from PIL import Image

import batchgen
from batchgen.failures import RULES
from batchgen.model import Failure

HERE = Path(__file__).parent
PROGRAM = HERE / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
DEMO = HERE.parent.parent / "jobs" / "demo.yaml"
JOURNAL = "/__aimock/journal"

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run aimock with"),
    pytest.mark.skipif(not PROGRAM.exists(), reason="aimock is not installed: make test does that where npm is"),
]


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (24, 16), (200, 80, 40)).save(file, "JPEG")
    return file.getvalue()


PICTURE = _picture()


def fixture(prompt: str | None, response: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """What aimock answers to prompts that hold these words: a picture, unless told otherwise."""
    drawn = {"images": [{"b64Json": base64.b64encode(PICTURE).decode(), "revisedPrompt": "as drawn"}]}
    match = {"endpoint": "image"} | ({"userMessage": prompt} if prompt else {})
    return {"match": match | more.pop("match", {}), "response": response or drawn, **more}


def error(status: int, message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code}, "status": status}


FIXTURES = [
    fixture("[slow down]", error(429, "Rate limited", "rate_limit_error"), match={"sequenceIndex": 0}),
    fixture("[forbidden]", error(400, "Rejected.", "image_generation_user_error", "moderation_blocked")),
    fixture("[malformed]", chaos={"malformedRate": 1}),
    fixture("[disconnect]", chaos={"disconnectRate": 1}),
    fixture("[gone]", {"images": [{"url": "http://127.0.0.1:1/gone.png"}]}),
    fixture(None),
]


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running aimock with these fixtures."""
    script = tmp_path_factory.mktemp("aimock") / "images.json"
    script.write_text(json.dumps({"fixtures": FIXTURES}))
    command = ["node", str(PROGRAM), "-p", "0", "-f", str(script), "--strict"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"listening on (http://\S+)", line):
                yield found[1]
                break
        else:
            pytest.fail(f"aimock did not start: {''.join(said)}")
        process.terminate()


def journal(aimock: str) -> list[dict[str, Any]]:
    """The requests that aimock says it had."""
    with urllib.request.urlopen(f"{aimock}{JOURNAL}?limit=1000") as answer:
        found = json.load(answer)
    entries = found if isinstance(found, list) else found["entries"]
    return [entry for entry in entries if entry["path"].startswith("/v1/images/")]


async def test_the_demo_with_only_its_api_changed(place: Place, aimock: str) -> None:
    """All its pictures are made by a server that is not ours, with timings in the log, and no invented inference."""
    text = DEMO.read_text().replace("api: sandbox", f"api: {{style: openai, url: {aimock}/v1}}")
    manifest = place.write("m.yaml", text)
    summary = await batchgen.run_async(manifest, embed=False)
    assert (summary.exit_code, summary.done, summary.requests) == (0, 6, 6)
    for entry in place.log:
        assert (entry["outcome"], entry["inference_s"], entry["api"]) == ("done", None, "openai")
        assert entry["timings"]["total_s"] >= entry["timings"]["response_s"] > 0
        assert entry["images"][0]["revised_prompt"] == "as drawn"
        assert (place.output / entry["images"][0]["file"]).read_bytes() == PICTURE
    assert (await batchgen.run_async(manifest)).requests == 0


async def test_pictures_are_edited(place: Place, aimock: str) -> None:
    """Image and mask arrive as a form that the server can read."""
    place.write("head.jpg", PICTURE)
    manifest = place.jobs(
        {"id": "cap", "prompt": "a cap", "image": "head.jpg", "mask": "head.jpg"},
        api={"style": "openai", "url": f"{aimock}/v1"},
    )
    summary = await batchgen.run_async(manifest, embed=False)
    assert (summary.exit_code, place.files()) == (0, {"cap.jpg"})
    assert any(entry["path"] == "/v1/images/edits" for entry in journal(aimock))


ENDS = {
    "good": ("done", 1),
    "limited [slow down]": ("done", 2),
    "words [forbidden]": ("failed", 1),
    "garbled [malformed]": ("uncertain", 2),
    "cut [disconnect]": ("uncertain", 2),
    "lost [gone]": ("failed", 1),
    "best": ("done", 1),
}


async def test_nothing_is_lost_and_nothing_false_is_saved(
    place: Place, aimock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rate limits, broken answers, cut connections and dead links end as they should, with as few requests as that
    takes; every job is accounted for, and only real pictures are kept."""
    for failure in (Failure.NO_ANSWER, Failure.BAD_ANSWER):
        monkeypatch.setitem(RULES, failure, replace(RULES[failure], min_wait_s=0.01))
    monkeypatch.setattr("batchgen.pool.waits._bound_s", lambda state: 0.01)
    monkeypatch.setattr("batchgen.client.downloads.PAUSES_S", (0.0,))
    jobs = [{"id": prompt.split()[0], "prompt": prompt} for prompt in ENDS]
    before = len(journal(aimock))
    manifest = place.jobs(*jobs, api={"style": "openai", "url": f"{aimock}/v1"})
    summary = await batchgen.run_async(manifest, embed=False)
    assert (summary.exit_code, summary.done, summary.failed, summary.uncertain) == (3, 3, 2, 2)
    found = {entry["request"]["prompt"]: (entry["outcome"], len(entry["attempts"])) for entry in place.log}
    assert found == ENDS
    assert len(journal(aimock)) - before == summary.requests == sum(count for _, count in ENDS.values())
    assert {(place.output / "images" / name).read_bytes() for name in place.files()} == {PICTURE}
    assert len(place.files()) == 3
