"""Whole runs, in process, against the sandbox: what is bought, what is kept, what is told, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from PIL import Image

import batchgen
from batchgen import images
from batchgen.folder import locked
from batchgen.model import ExitCode, FolderBusy, ManifestError, StorageError, UsageError
from batchgen.protocol import Drawn, nebula
from batchgen.sandbox import SANDBOX_KEY, Ledger, Sandbox, Script, parse_fault
from batchgen.summary import Summary

if TYPE_CHECKING:
    from conftest import Place

MODEL = "black-forest-labs/FLUX.1-schnell"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBULA_API_KEY", SANDBOX_KEY)


def picture(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(file, "PNG")
    return file.getvalue()


@asynccontextmanager
async def sandbox(*faults: str, **settings: Any) -> AsyncIterator[Sandbox]:
    async with Sandbox(Script(latency_s=(0, 0), faults=tuple(map(parse_fault, faults)), **settings)) as found:
        yield found


async def go(manifest: Path, server: Sandbox | str, **settings: Any) -> Summary:
    """One run against this server; its numbers add up, in what is returned as in the file."""
    url = server if isinstance(server, str) else server.url
    summary = await batchgen.run_async(manifest, api="nebula", api_url=url, **settings)
    assert summary.done + summary.failed + summary.uncertain + summary.pending == summary.selected <= summary.total
    written = json.loads((Path(summary.output) / "summary.json").read_bytes())
    assert {name: written[name] for name in ("exit_code", "done", "requests", "verdict")} == {
        "exit_code": summary.exit_code,
        "done": summary.done,
        "requests": summary.requests,
        "verdict": summary.verdict,
    }
    return summary


def everything_below(root: Path) -> Iterable[tuple[Path, bytes]]:
    return ((path, path.read_bytes()) for path in root.rglob("*") if path.is_file())


# From a manifest to pictures


async def test_a_manifest_becomes_pictures_and_a_log(place: Place) -> None:
    """Every job is bought once, lies under its id, is a whole picture, and has one line in the log."""
    manifest = place.jobs("cat", "dogs/big", "schön")
    async with sandbox() as server:
        summary = await go(manifest, server)
    assert (summary.exit_code, summary.done, summary.made, summary.requests) == (0, 3, 3, 3)
    assert server.ledger.pictures == 3 and server.ledger.bought_again == 0
    assert place.files() == {"cat.png", "dogs/big.png", "schön.png"}
    assert {entry["job"] for entry in place.log} == {"cat", "dogs/big", "schön"}
    for entry in place.log:
        [kept] = entry["images"]
        facts = images.check((place.output / kept["file"]).read_bytes())
        assert (facts.format, facts.width, facts.height) == ("png", 24, 16)
        assert (kept["width"], kept["height"]) == (24, 16)
        assert entry["request"]["prompt"] == entry["job"]


async def test_the_same_command_again_does_nothing(place: Place) -> None:
    """Done jobs are skipped without a request, and log and pictures stay as they are."""
    manifest = place.jobs("a", "b")
    async with sandbox() as server:
        await go(manifest, server)
        before = {p: d for p, d in everything_below(place.output) if p.suffix in (".png", ".jsonl")}
        summary = await go(manifest, server)
        assert server.ledger.requests == 2
    assert (summary.exit_code, summary.done, summary.made, summary.requests) == (0, 2, 0, 0)
    assert summary.verdict.startswith("nothing to do")
    assert before == {p: d for p, d in everything_below(place.output) if p.suffix in (".png", ".jsonl")}


async def test_editing_one_prompt_costs_exactly_one_request(place: Place) -> None:
    """Only the job whose request changed is done again, and its old picture is kept in superseded/."""
    jobs = [f"job {n}" for n in range(20)]
    rows = [{"id": f"j{n}", "prompt": prompt} for n, prompt in enumerate(jobs)]
    async with sandbox() as server:
        await go(place.jobs(*rows), server)
        old = (place.output / "images/j7.png").read_bytes()
        rows[7]["prompt"] = "another one"
        summary = await go(place.jobs(*rows), server)
        assert server.ledger.requests == 21
        assert server.ledger.paid_prompts["another one"] == 1
    assert (summary.requests, summary.done) == (1, 20)
    [kept] = place.files("superseded")
    assert re.fullmatch(r"j7~[0-9a-f]{8}~[0-9a-f]{8}\.png", kept)
    assert (place.output / "superseded" / kept).read_bytes() == old
    assert (place.output / "images/j7.png").read_bytes() != old


async def test_a_value_more_costs_only_its_own_jobs(place: Place) -> None:
    """A grid is drawn job by job; when an axis grows, only the new combinations are bought, each with its own seed."""
    row: dict[str, Any] = {
        "id": "{animal}/{style}",
        "prompt": "a {animal}, {style}",
        "matrix": {"animal": ["cat", "dog"], "style": ["oil painting", "neon"]},
        "repeat": 2,
        "seed": "auto",
    }
    async with sandbox() as server:
        await go(place.jobs(row), server)
        row["matrix"]["animal"].insert(0, "ant")
        summary = await go(place.jobs(row), server)
    assert (summary.done, summary.requests, server.ledger.pictures) == (12, 4, 12)
    assert {f"{a}/{s}-{n}.png" for a in ("ant", "cat", "dog") for s in ("oil-painting", "neon") for n in (1, 2)} == (
        place.files()
    )
    assert len({entry["request"]["seed"] for entry in place.log}) == 12
    assert {"animal": "cat", "style": "oil painting", "repeat": "2"} in [entry["axes"] for entry in place.log]


async def test_going_back_to_an_earlier_request_buys_nothing(place: Place) -> None:
    """From A to B to A: the third run brings the first picture back, says so in the log, and sends nothing."""
    first, second = place.jobs({"id": "a", "prompt": "A"}), place.jobs({"id": "a", "prompt": "B"}, name="b.yaml")
    async with sandbox() as server:
        await go(first, server)
        original = (place.output / "images/a.png").read_bytes()
        await go(second, server, output=place.output)
        summary = await go(first, server, output=place.output)
        assert server.ledger.requests == 2
        again = await go(first, server, output=place.output)
        assert server.ledger.requests == 2
    assert (summary.exit_code, summary.requests, summary.done) == (0, 0, 1)
    assert any("brought back" in notice for notice in summary.notices)
    assert (place.output / "images/a.png").read_bytes() == original
    assert place.log[-1]["notes"] == ["brought back from superseded/"]
    assert place.log[-1]["attempts"] == [], "nothing was sent for it this time, so nothing may be counted twice"
    assert again.notices == []


async def test_asking_to_redo_buys_again_and_keeps_the_old_picture(place: Place) -> None:
    """`redo` does all selected jobs again; what was bought before moves to superseded/."""
    async with sandbox() as server:
        await go(place.jobs("a", "b"), server)
        summary = await go(place.jobs("a", "b"), server, redo=True, only=["a"])
        assert server.ledger.paid_prompts == {"a": 2, "b": 1}
        assert (await go(place.jobs("a", "b"), server)).requests == 0
    assert (summary.made, summary.selected, summary.total) == (1, 1, 2)
    assert len(place.files("superseded")) == 1


@pytest.mark.parametrize(("format", "extension"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
async def test_the_extension_is_that_of_the_bytes(place: Place, format: str, extension: str) -> None:
    """Whatever the server draws in, the file is named by what it is."""
    async with sandbox(output_format=format) as server:
        await go(place.jobs("a"), server)
    assert place.files() == {f"a.{extension}"}
    assert place.log[0]["images"][0]["format"] == format


async def test_a_redone_job_with_another_format_leaves_one_picture(place: Place) -> None:
    """A new extension does not leave the old picture beside the new one."""
    async with sandbox(output_format="png") as server:
        await go(place.jobs({"id": "a", "prompt": "A"}), server)
    async with sandbox(output_format="jpeg") as server:
        await go(place.jobs({"id": "a", "prompt": "B"}), server)
    assert place.files() == {"a.jpg"}
    assert len(place.files("superseded")) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", f"id,prompt,model\na,one,{MODEL}\nb,two,{MODEL}\n"),
        ("m.tsv", f"id\tprompt\tmodel\na\tone\t{MODEL}\nb\ttwo\t{MODEL}\n"),
        ("m.jsonl", f'{{"id": "a", "prompt": "one", "model": "{MODEL}"}}\n{{"id": "b", "prompt": "two"}}\n'),
        ("m.txt", "one\ntwo\n"),
        ("m.yaml", "- one\n- {id: b, prompt: two}\n"),
    ],
    ids=lambda value: value if value.startswith("m.") else "",
)
async def test_every_kind_of_manifest_runs(place: Place, name: str, text: str) -> None:
    """YAML, CSV, TSV, JSONL and plain text all end in pictures; flags give what the file does not say."""
    async with sandbox() as server:
        summary = await go(place.write(name, text), server, defaults={"model": MODEL, "width": 32, "height": 32})
    assert (summary.exit_code, summary.done) == (0, 2)
    assert len(place.files()) == 2


async def test_image_and_mask_are_sent_and_told_by_digest(place: Place) -> None:
    """Image-to-image sends the files' content; the log names path and digest, never the bytes."""
    for name in ("head.png", "mask.png"):
        place.write(f"inputs/{name}", b"")
        Image.new("RGB", (24, 16), "white").save(place.root / "inputs" / name)
    row = {"id": "cap", "prompt": "a red cap", "image": "inputs/head.png", "mask": "inputs/mask.png"}
    manifest = place.jobs(row, "plain")
    async with sandbox() as server:
        summary = await go(manifest, server)
        assert (summary.exit_code, summary.done) == (0, 2)
        Image.new("RGB", (24, 16), "black").save(place.root / "inputs/mask.png")
        assert (await go(manifest, server)).requests == 1, "another mask is another request"
    entry = next(e for e in place.log if e["job"] == "cap")
    assert entry["request"]["image"]["path"] == "inputs/head.png"
    assert re.fullmatch("[0-9a-f]{64}", entry["request"]["mask"]["sha256"])
    assert all(len(line) < 4000 for line in (place.output / "log.jsonl").read_bytes().splitlines())


async def test_an_image_edited_during_the_run_leaves_its_job_pending(place: Place) -> None:
    """A job whose picture is no longer the one that was planned with is not sent; the next run does it."""
    head = place.write("head.png", picture("red"))
    manifest = place.jobs("first", {"id": "cap", "prompt": "a cap", "image": "head.png"})

    class Watched(Ledger):
        @contextlib.contextmanager
        def request(self) -> Any:
            if not self.requests:
                head.write_bytes(picture("blue"))
            with super().request():
                yield

    async with sandbox() as server:
        server.ledger = Watched(100.0)
        summary = await go(manifest, server, concurrency=1)
        assert server.ledger.requests == 1
        assert (summary.exit_code, summary.done, summary.pending) == (ExitCode.WORK_LEFT, 1, 1)
        assert {entry["job"] for entry in place.log} == {"first"}
        summary = await go(manifest, server)
        assert (summary.exit_code, summary.done, server.ledger.requests) == (0, 2, 2)


# What the log tells


async def test_timings_add_up(place: Place) -> None:
    """No part is negative, the parts fit into the total, and the inference time is the server's own."""
    told: list[float] = []

    async def generate(request: web.Request) -> web.Response:
        seconds = 0.125 * (len(told) + 1)
        told.append(seconds)
        return web.Response(body=nebula.encode_answer(MODEL, [Drawn(picture(), 0, seconds)]))

    async with serving(generate) as url:
        summary = await go(place.jobs(*(f"j{n}" for n in range(12))), url, concurrency=4)
    assert sorted(entry["inference_s"] for entry in place.log) == told
    for entry in place.log:
        timings = entry["timings"]
        assert all(seconds >= 0 for seconds in timings.values())
        parts = sum(timings[name] for name in ("queued_s", "waited_s", "response_s", "decode_s", "save_s"))
        assert parts <= timings["total_s"] + 1e-5
        assert timings["first_byte_s"] <= timings["response_s"] <= timings["total_s"]
        assert entry["attempts"][0]["elapsed_s"] == timings["response_s"]
    assert summary.inference_s is not None and summary.inference_s.max == max(told)


@pytest.mark.parametrize("seconds", ["NaN", "-1", "1e999", '"fast"', "null", "true", "[]"])
async def test_a_senseless_inference_time_is_none(place: Place, seconds: str) -> None:
    """A number that cannot be is not invented, and costs no picture."""

    async def generate(request: web.Request) -> web.Response:
        body = nebula.encode_answer(MODEL, [Drawn(picture(), 0, 1.5)])
        return web.Response(body=body.replace(b'"inference":1.5', f'"inference":{seconds}'.encode()))

    async with serving(generate) as url:
        summary = await go(place.jobs("a"), url, uncertain_retries=0)
    if summary.done:
        assert place.log[0]["inference_s"] is None
    else:
        assert seconds in ("NaN", "1e999"), "only what is no JSON number may spoil an answer"


async def test_costs_are_told_where_prices_are_known(place: Place) -> None:
    """Pictures times price is what a run cost; without a price nothing is invented."""
    async with sandbox() as server:
        priced = await go(place.jobs("a", "b", prices_usd={MODEL: 0.5}), server)
        unpriced = await go(place.jobs("c", name="n.yaml"), server)
    assert (priced.cost_usd, priced.exposure_usd) == (1.0, 0.0)
    assert [entry["cost_usd"] for entry in place.log] == [0.5, 0.5]
    assert unpriced.cost_usd is None


# Without a picture


async def test_a_failing_job_disturbs_no_other(place: Place) -> None:
    """One refused job among others: they are done, it is told with its cause, and the exit code says so."""
    async with sandbox("refuse:x1") as server:
        summary = await go(place.jobs("a", "b", "c"), server, concurrency=1)
        assert server.ledger.requests == 3
    assert (summary.exit_code, summary.done, summary.failed) == (ExitCode.INCOMPLETE, 2, 1)
    [group] = summary.failures
    assert (group.failure, group.count, group.jobs) == ("refused_content", 1, ["a"])
    assert place.files() == {"b.png", "c.png"}
    failed = next(entry for entry in place.log if entry["job"] == "a")
    assert (failed["outcome"], failed["images"]) == ("failed", [])
    assert failed["attempts"][0]["failure"] == "refused_content"


async def test_failed_jobs_are_tried_again_only_when_asked_for(place: Place) -> None:
    """A failed job is skipped, and counted as such, until `retry` names failed ones."""
    manifest = place.jobs("a", "b")
    async with sandbox("refuse:x1") as server:
        await go(manifest, server, concurrency=1)
        skipped = await go(manifest, server)
        assert server.ledger.requests == 2
        assert (skipped.exit_code, skipped.failed, skipped.requests) == (ExitCode.INCOMPLETE, 1, 0)
        assert [group.jobs for group in skipped.failures] == [["a"]]
        other = await go(manifest, server, retry=["uncertain"])
        assert (other.failed, other.requests) == (1, 0)
        again = await go(manifest, server, retry=["failed"])
        assert (again.exit_code, again.done, again.requests) == (0, 2, 1)
    assert [attempt["n"] for entry in place.log if entry["job"] == "a" for attempt in entry["attempts"]] == [1, 2]


async def test_an_answer_that_is_no_picture_is_paid_uncertain_and_kept(place: Place) -> None:
    """A useless answer ends the job uncertain, with its body in quarantine, and the others are done."""
    async with sandbox("notimage:x1") as server:
        summary = await go(place.jobs("a", "b"), server, concurrency=1, uncertain_retries=0)
        assert server.ledger.pictures == 2
        assert (await go(place.jobs("a", "b"), server, uncertain_retries=0)).requests == 0
        retried = await go(place.jobs("a", "b"), server, retry=["uncertain"])
    assert (summary.exit_code, summary.done, summary.uncertain) == (ExitCode.INCOMPLETE, 1, 1)
    assert place.files(".batchgen/quarantine") == {"a~1.body"}
    assert (retried.exit_code, retried.done) == (0, 2)


@pytest.mark.parametrize(
    ("fault", "exit_code", "left"),
    [
        ("401", ExitCode.ACCOUNT, "unauthorized"),
        ("balance", ExitCode.ACCOUNT, "billing"),
        ("403", ExitCode.ACCOUNT, "forbidden"),
        ("404", ExitCode.USAGE, "not_found"),
        ("307", ExitCode.USAGE, "redirect"),
        ("quota", ExitCode.WORK_LEFT, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_wrong_for_all_stops_the_run_after_one_request(
    place: Place, fault: str, exit_code: ExitCode, left: str | None
) -> None:
    """A bad key, an empty account, a wrong address or a spent day costs one request; every job stays pending and the
    next run does them all."""
    manifest = place.jobs("a", "b", "c")
    async with sandbox(f"{fault}:x1") as server:
        summary = await go(manifest, server)
        assert server.ledger.requests == 1
        assert (summary.exit_code, summary.done, summary.pending) == (exit_code, 0, 3)
        assert summary.left.get(left or "") in (1, None)
        assert place.log == []
        summary = await go(manifest, server)
        assert (summary.exit_code, summary.done) == (0, 3)


async def test_a_wrong_key_is_the_accounts_exit_code(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the server does not know ends with exit 6 after one request."""
    monkeypatch.setenv("NEBULA_API_KEY", "mistyped")
    async with sandbox() as server:
        summary = await go(place.jobs("a", "b"), server)
        assert server.ledger.requests == 1
    assert summary.exit_code == ExitCode.ACCOUNT
    assert "Invalid or missing API key" in summary.verdict


async def test_the_limit_on_requests_holds_over_runs(place: Place) -> None:
    """`max_requests` counts what earlier runs of the folder sent; reaching it leaves work, and says which limit."""
    manifest = place.jobs("a", "b", "c")
    async with sandbox() as server:
        first = await go(manifest, server, max_requests=2)
        assert (first.exit_code, first.done, first.pending) == (ExitCode.WORK_LEFT, 2, 1)
        assert "--max-requests" in first.verdict
        assert (await go(manifest, server, max_requests=2)).requests == 0
        assert server.ledger.requests == 2
        assert (await go(manifest, server, max_requests=3)).exit_code == 0


# Missing files


async def test_a_missing_picture_is_made_again_with_a_notice(place: Place) -> None:
    """A deleted or emptied picture costs one request, and the summary says why."""
    manifest = place.jobs("a", "b", "c")
    async with sandbox() as server:
        await go(manifest, server)
        (place.output / "images/a.png").unlink()
        (place.output / "images/b.png").write_bytes(b"")
        summary = await go(manifest, server)
        assert server.ledger.requests == 5
    assert (summary.exit_code, summary.made) == (0, 2)
    assert any(re.match("2 finished pictures are gone", notice) for notice in summary.notices)
    assert place.files() == {"a.png", "b.png", "c.png"}


async def test_many_missing_pictures_are_not_bought_again_unasked(place: Place) -> None:
    """A folder that lost most of its pictures was moved or is not mounted: exit 2, until `redo_missing` says so."""
    manifest = place.jobs(*(f"j{n}" for n in range(12)))
    async with sandbox() as server:
        await go(manifest, server, concurrency=8)
        (place.output / "images").rename(place.root / "moved")
        with pytest.raises(UsageError, match=r"12 of 12 .*--redo-missing"):
            await go(manifest, server)
        assert server.ledger.requests == 12
        summary = await go(manifest, server, redo_missing=True)
        assert (summary.exit_code, server.ledger.requests) == (0, 24)


# Refusals before anything is sent


TEN_MISTAKES = f"""\
defaults: {{model: {MODEL}}}
jobs:
  - {{id: a, prompt: a good one}}
  - {{id: b, prompt: one, width: -1}}
  - {{id: a, prompt: two}}
  - {{id: ../b, prompt: three}}
  - {{id: c}}
  - {{id: d, prompt: ''}}
  - {{id: e, prompt: five, num_step: 4}}
  - {{id: f, prompt: six, image: nowhere.png}}
  - {{id: g, prompt: seven, colour: red}}
  - [eight]
  - {{id: h, prompt: nine, seed: lucky}}
"""


async def test_all_mistakes_are_told_at_once_with_their_places(place: Place) -> None:
    """A manifest with ten mistakes is refused with all ten, each with its line, and nothing is sent or made."""
    manifest = place.write("m.yaml", TEN_MISTAKES)
    async with sandbox() as server:
        with pytest.raises(ManifestError) as caught:
            await go(manifest, server)
        assert server.ledger.requests == 0
    assert caught.value.count == 10
    assert [problem.line for problem in caught.value.problems] == list(range(4, 14))
    assert all(problem.column > 0 for problem in caught.value.problems)
    told = str(caught.value).splitlines()
    assert [line.startswith(f"{manifest}:{n}:") for n, line in enumerate(told, 4)] == [True] * 10
    assert "did you mean" in told[5] and "num_steps" in told[5]
    assert not (place.root / "outputs").exists()


async def test_another_manifest_does_not_share_a_default_folder(place: Place) -> None:
    """Two manifests of one name share a default folder only if somebody says so with an output of his own."""
    async with sandbox() as server:
        await go(place.jobs("a"), server)
        other = place.write("m.jsonl", json.dumps({"id": "b", "prompt": "b", "model": MODEL}))
        with pytest.raises(UsageError, match=r"another manifest .*m\.yaml.*-o"):
            await go(other, server)
        assert server.ledger.requests == 1
        assert (await go(other, server, output=place.output)).exit_code == 0


async def test_the_sandbox_does_not_replace_bought_pictures(place: Place) -> None:
    """A folder that holds pictures of the real API is closed to the sandbox."""
    manifest = place.jobs("a")
    async with sandbox() as server:
        await go(manifest, server)
    before = dict(everything_below(place.output / "images"))
    with pytest.raises(UsageError, match="bought"):
        await batchgen.run_async(manifest, api="sandbox")
    assert dict(everything_below(place.output / "images")) == before


async def test_drawn_pictures_never_pass_for_bought_ones(place: Place) -> None:
    """After a rehearsal with the sandbox the real run buys every picture."""
    manifest = place.jobs("a", "b")
    rehearsal = await batchgen.run_async(manifest, api="sandbox")
    assert rehearsal.exit_code == 0
    async with sandbox() as server:
        assert (await go(manifest, server)).made == 2
    assert len(place.files("superseded")) == 2


async def test_a_busy_folder_is_left_alone(place: Place) -> None:
    """While another run holds the folder nothing is sent and nothing changed."""
    manifest = place.jobs("a", "b")
    async with sandbox() as server:
        await go(place.jobs("a"), server)
        before = dict(everything_below(place.output))
        with locked(place.output), pytest.raises(FolderBusy, match="nothing was touched"):
            await go(manifest, server)
        assert server.ledger.requests == 1
    assert dict(everything_below(place.output)) == before


async def test_without_a_key_nothing_begins(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key: the message says where it belongs, and no folder is made."""
    monkeypatch.delenv("NEBULA_API_KEY")
    with pytest.raises(UsageError, match="NEBULA_API_KEY"):
        await batchgen.run_async(place.jobs("a"))
    assert not (place.root / "outputs").exists()


@pytest.mark.parametrize("settings", [{"max_cost_usd": 5}, {"concurrency": 0}, {"api": "other"}, {"concurency": 3}])
async def test_wrong_settings_are_refused_before_anything_is_made(place: Place, settings: dict[str, Any]) -> None:
    """A budget without prices, a senseless limit, an unknown style or setting: UsageError, and nothing is made."""
    with pytest.raises(UsageError):
        await batchgen.run_async(place.jobs("a"), **settings)
    assert not (place.root / "outputs").exists()


@pytest.mark.parametrize("in_the_way", ["m", "m/images", "m/log.jsonl"], ids=lambda path: path)
async def test_an_output_that_cannot_be_written_is_told_as_such(place: Place, in_the_way: str) -> None:
    """Something of the wrong kind in the place of folder or log ends with a storage error, before any request."""
    wrong = place.root / "outputs" / in_the_way
    wrong.parent.mkdir(parents=True)
    if in_the_way.endswith("log.jsonl"):
        wrong.mkdir()
    else:
        wrong.write_bytes(b"in the way")
    async with sandbox() as server:
        with pytest.raises((StorageError, UsageError), match=re.escape(str(place.output))):
            await go(place.jobs("a"), server)
        assert server.ledger.requests == 0


async def test_a_folder_in_a_pictures_place_fails_storage_and_loses_nothing(place: Place) -> None:
    """The paid picture waits under its temporary name until the folder is moved away, and is adopted then."""
    (place.output / "images/a.png").mkdir(parents=True)
    manifest = place.jobs("a")
    async with sandbox() as server:
        summary = await go(manifest, server, redo_missing=True)
        assert (summary.exit_code, summary.pending) == (ExitCode.STORAGE, 1)
        (place.output / "images/a.png").rmdir()
        summary = await go(manifest, server, redo_missing=True)
        assert (summary.exit_code, summary.done, server.ledger.requests) == (0, 1, 1)
    assert place.files() == {"a.png"}


async def test_somebody_elses_file_at_a_pictures_name_is_kept(place: Place) -> None:
    """A file that batchgen did not make is moved aside, not overwritten."""
    place.write("outputs/m/images/a.png", b"my own drawing")
    async with sandbox() as server:
        with pytest.raises(UsageError, match="no log tells of"):
            await go(place.jobs("a"), server)
        assert (await go(place.jobs("a"), server, redo_missing=True)).exit_code == 0
    [kept] = place.files("superseded")
    assert (place.output / "superseded" / kept).read_bytes() == b"my own drawing"


async def test_changes_of_pace_are_kept_with_their_reason(place: Place) -> None:
    """Every change of the concurrency limit, also one that nobody was told of, stands in pace.jsonl with its reason."""
    async with sandbox() as server:
        await go(place.jobs(*(f"job-{n}" for n in range(12))), server, concurrency=4)
    lines = (place.output / ".batchgen/pace.jsonl").read_bytes().splitlines()
    messages = [json.loads(line)["message"] for line in lines]
    assert messages == [f"concurrency {n}: answers are good" for n in (2, 3, 4)]


async def test_a_log_that_is_gone_buys_nothing_again(place: Place) -> None:
    """With the log emptied or cut back nothing is sent before somebody says that it shall be paid for again."""
    names = [f"job-{n}" for n in range(30)]
    async with sandbox() as server:
        await go(place.jobs(*names), server)
        whole = (place.output / "log.jsonl").read_bytes()
        for left in (b"", b"".join(whole.splitlines(keepends=True)[:10])):
            (place.output / "log.jsonl").write_bytes(left)
            with pytest.raises(UsageError, match="--redo-missing"):
                await go(place.jobs(*names), server)
        (place.output / "log.jsonl").write_bytes(whole)
        assert (await go(place.jobs(*names), server)).made == 0
    assert server.ledger.requests == 30


# Where things go


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ([], "jobs/night/outputs/m"),
        (["outputs"], "outputs/m"),
        (["outputs", "jobs/outputs"], "jobs/outputs/m"),
        (["jobs/night/outputs", "outputs"], "jobs/night/outputs/m"),
    ],
    ids=["beside the manifest", "at the top", "the nearest", "beside beats above"],
)
async def test_the_default_output_folder(
    place: Place, monkeypatch: pytest.MonkeyPatch, folders: list[str], expected: str
) -> None:
    """Pictures go to the nearest outputs/ above the manifest, else beside it; never to the current directory."""
    for folder in folders:
        (place.root / folder).mkdir(parents=True)
    manifest = place.jobs("a", name="jobs/night/m.yaml")
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    summary = await batchgen.run_async(manifest, api="sandbox")
    assert list(elsewhere.iterdir()) == []
    assert summary.output == str(place.root / expected)
    assert (place.root / expected / "images/a.png").exists()


async def test_what_a_run_leaves_is_the_owners_alone(place: Place) -> None:
    """Files have mode 0600 and folders 0700, from the output folder down."""
    await batchgen.run_async(place.jobs("a/b"), api="sandbox")
    modes = {path: path.stat().st_mode & 0o777 for path in [place.output, *place.output.rglob("*")]}
    assert {str(p): oct(m) for p, m in modes.items() if m != (0o700 if p.is_dir() else 0o600)} == {}


async def test_only_and_limit_choose(place: Place) -> None:
    """A pattern selects by id, a limit by number; the rest of the manifest is counted but not touched."""
    manifest = place.jobs("cat/1", "cat/2", "dog/1")
    async with sandbox() as server:
        summary = await go(manifest, server, only=["cat/*"], limit=1)
        assert (summary.exit_code, summary.total, summary.selected, summary.done) == (0, 3, 1, 1)
        assert server.ledger.paid_prompts == {"cat/1": 1}
        assert (await go(manifest, server)).requests == 2


# The key

CANARY = "canary-0123456789-abcdef"


@asynccontextmanager
async def serving(generate: Any) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/api/v1/images/generation", generate)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1"
    finally:
        await runner.cleanup()


def echoes(auth: str) -> dict[str, web.Response]:
    """Answers of a server that tells everybody the key it was given, by the prompt that brings them about."""
    coded = {"status": "error", "error": {"code": auth, "message": f"no: {auth}"}}
    return {
        "message": web.json_response({"status": "failed", "message": f"no: {auth}"}, status=400),
        "code": web.json_response(coded, status=422),
        "escaped": web.Response(
            body=json.dumps(coded).replace("canary", "\\u0063anary").encode(), status=400, content_type="text/plain"
        ),
        "page": web.Response(text=f"<html>{auth}</html>", status=409),
        "useless": web.json_response({"data": [{"b64_json": "bm8="}], "echo": auth}),
        "code200": web.json_response({"status": "error", "error": {"code": f"moderation {auth}", "message": "no"}}),
        "failed200": web.json_response({"status": "failed", "message": f"content_policy: {auth}"}),
    }


@pytest.mark.parametrize(
    "case",
    ["message", "code", "escaped", "page", "useless", "failed200", "code200"],
)
async def test_the_key_is_nowhere(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    """A server may echo the key in any way it likes: neither the folder nor what --verbose prints holds it."""
    monkeypatch.setenv("NEBULA_API_KEY", CANARY)

    async def generate(asked: web.Request) -> web.Response:
        return echoes(asked.headers["Authorization"])[case]

    async with serving(generate) as url:
        summary = await go(place.jobs("a"), url, uncertain_retries=0, quiet=False, verbose=True)
    assert (summary.done, summary.requests) == (0, 1)
    said = capfd.readouterr()
    assert CANARY not in said.out + said.err + repr(summary)
    assert [str(path) for path, data in everything_below(place.root) if CANARY.encode() in data] == []
    kept = [path for path, data in everything_below(place.root) if b"***" in data]
    assert kept, "what the server said is kept, but for the key"


# After an end that was not a good one


def state(place: Place) -> dict[str, Any]:
    found = json.loads((place.output / ".batchgen/state.json").read_bytes())
    assert isinstance(found, dict)
    return found


async def test_after_a_run_nobody_is_said_to_be_at_work(place: Place) -> None:
    """The state names no process once the run is over."""
    await batchgen.run_async(place.jobs("a"), api="sandbox")
    assert "pid" not in state(place) and state(place)["doing"] == "ended"


async def test_after_a_refused_run_nobody_is_said_to_be_at_work(place: Place) -> None:
    """A run that is refused for its manifest does not leave a folder that looks busy."""
    await batchgen.run_async(place.jobs("a"), api="sandbox")
    with pytest.raises(ManifestError):
        await batchgen.run_async(place.jobs("a", "a"), api="sandbox")
    assert "pid" not in state(place)
