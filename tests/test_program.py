"""batchgen from Python: the same runs as the command line, from programs with and without an event loop."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import batchgen
from batchgen.model import Job, ManifestError, UsageError

if TYPE_CHECKING:
    from conftest import Beside, Place


def test_run_makes_what_is_missing_and_returns_the_summary(place: Place) -> None:
    """A program without an event loop gets pictures and numbers from one call."""
    summary = batchgen.run(place.jobs("a", "b"), api="sandbox")
    assert (summary.exit_code, summary.done, summary.made) == (0, 2, 2)
    assert place.files() == {"a.png", "b.png"}
    assert batchgen.run(place.jobs("a", "b"), api="sandbox").made == 0


def test_run_is_silent_unless_told_otherwise(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """A library prints nothing of its own accord."""
    batchgen.run(place.jobs("a"), api="sandbox")
    assert capfd.readouterr() == ("", "")
    batchgen.run(place.jobs("a"), api="sandbox", quiet=False)
    assert "1 job: 1 done" in capfd.readouterr().err


async def test_run_inside_an_event_loop_says_what_to_do_instead(place: Place) -> None:
    """In a notebook `run` names `run_async`, leaves nothing behind, and `run_async` works."""
    manifest = place.jobs("a")
    with pytest.raises(UsageError, match=r"await batchgen\.run_async"):
        batchgen.run(manifest, api="sandbox")
    assert not (place.root / "outputs").exists()
    assert (await batchgen.run_async(manifest, api="sandbox")).done == 1


def test_settings_are_those_of_the_command_line(place: Place, beside: Beside) -> None:
    """Flags and limits go by the names of their long options; values may be numbers, a file may hold the key."""
    server = beside()
    manifest = place.jobs("a", "b", "c")
    key = place.write("key", "sandbox-key\n")
    summary = batchgen.run(
        str(manifest),
        api_url=server.url,
        api_key_file=str(key),
        output=str(place.root / "elsewhere"),
        defaults={"num_steps": 3},
        only=["[ab]"],
        concurrency=1,
        max_requests=1,
    )
    assert (summary.exit_code, summary.selected, summary.done) == (4, 2, 1)
    assert server.ledger.requests == 1
    [line] = (place.root / "elsewhere/log.jsonl").read_bytes().splitlines()
    assert json.loads(line)["request"]["num_steps"] == 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurency": 3}, "concurency"),
        ({"concurency": 3}, "'concurrency'"),
        ({"api": "midjourney"}, "midjourney"),
        ({"defaults": {"widht": 3}}, "width"),
        ({"api_url": "http://example.com"}, "https"),
        ({"retry": ["everything"]}, "everything"),
        ({"on_quota": "wiat"}, "wiat"),
        ({"check": "everything"}, "structure or full"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_that_is_wrong_is_named(place: Place, settings: dict[str, Any], told: str) -> None:
    """Misspelt settings and senseless values are UsageErrors that name what was meant, before anything is made."""
    with pytest.raises(UsageError, match=told):
        batchgen.run(place.jobs("a"), **{"api": "sandbox"} | settings)
    assert not (place.root / "outputs").exists()


def test_one_pattern_may_be_given_as_a_text(place: Place) -> None:
    """`only="cat*"` means that pattern, not its letters: whoever forgets the brackets must not pay for every job."""
    summary = batchgen.run(place.jobs("cat-1", "dog-1"), api="sandbox", only="cat*")
    assert summary.selected == 1


def test_read_yields_the_jobs_as_a_run_would_see_them(place: Place) -> None:
    """Reading needs no key and no network, applies defaults, and knows ids, places and fingerprints."""
    manifest = place.jobs("a", {"id": "b", "prompt": "two", "width": 99, "meta": {"k": "v"}})
    jobs = list(batchgen.read(manifest))
    assert all(isinstance(job, Job) for job in jobs)
    assert [(job.id, job.prompt, job.request["width"], job.meta) for job in jobs] == [
        ("a", "a", 24, {}),
        ("b", "two", 99, {"k": "v"}),
    ]
    assert len({job.fingerprint for job in jobs}) == 2
    assert list(batchgen.read(manifest)) == jobs
    assert not (place.root / "outputs").exists()


def test_read_takes_the_same_settings_as_run(place: Place) -> None:
    """A default that is given beside the manifest changes the jobs that are read."""
    [job] = batchgen.read(place.jobs("a"), defaults={"num_steps": 7})
    assert job.request["num_steps"] == 7


def test_read_raises_with_all_problems(place: Place) -> None:
    """A manifest with mistakes ends in one error that holds them all; no job is yielded behind the first mistake."""
    manifest = place.jobs("good", {"id": "bad"}, "good", {"id": "-", "prompt": "x"}, "late")
    found: list[Job] = []
    with pytest.raises(ManifestError) as caught:
        found.extend(batchgen.read(manifest))
    assert caught.value.count == 3
    assert [job.id for job in found] == ["good"]


def test_a_manifest_that_is_not_there_is_a_usage_error(place: Place) -> None:
    """A wrong path is the caller's mistake, told with the path."""
    with pytest.raises(UsageError, match=r"nowhere\.yaml"):
        batchgen.run(place.root / "nowhere.yaml")


def test_importing_batchgen_loads_nothing_heavy() -> None:
    """`import batchgen` is free: no HTTP, no YAML, no pictures, no event loop."""
    code = "import sys, batchgen; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "batchgen" in found
    assert {"aiohttp", "yaml", "PIL", "tqdm", "msgspec", "asyncio", "tenacity"} & set(found) == set()


def test_the_package_says_what_it_has() -> None:
    """Everything it exports is there, and nothing else is invented."""
    assert all(callable(getattr(batchgen, name)) for name in batchgen.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="'batchgen' has no attribute 'ruin'"):
        _ = batchgen.ruin
