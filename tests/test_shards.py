"""Shards: who holds which job, what each may use, who may be at work beside whom, what they leave together."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from samples import entry, failed

import batchgen
from batchgen import joblog, shards
from batchgen.clock import SystemClock
from batchgen.files import PosixFiles
from batchgen.flags import Flags
from batchgen.folder import Folder, Records, Spending, locked
from batchgen.joblog import Ended
from batchgen.layout import Books, books_among
from batchgen.limits import Limits
from batchgen.model import Billed, Counts, ExitCode, Failure, FolderBusy, Header, Outcome, Picture, Shard, UsageError
from batchgen.runner import look
from batchgen.runner.archive import open_archive
from batchgen.sandbox import SANDBOX_KEY, Sandbox, Script
from batchgen.settings import resolve
from batchgen.summary import Summary

if TYPE_CHECKING:
    from conftest import Place

some_shards = st.integers(1, 50).flatmap(lambda n: st.builds(Shard, st.integers(1, n), st.just(n)))


# Who holds what


@given(st.integers(1, 50), st.text())
def test_every_job_is_in_exactly_one_shard(n: int, job: str) -> None:
    """Whatever its id, a job belongs to one of the n shards and to no other."""
    assert sum(shards.holds(Shard(i, n), job) for i in range(1, n + 1)) == 1


def test_the_split_is_frozen() -> None:
    """Ids stay in their shards in all versions: another split beside an old log would look elsewhere for its jobs."""
    found = {job: next(i for i in range(1, 6) if shards.holds(Shard(i, 5), job)) for job in ("a", "pets/fox", "狐-1")}
    assert found == {"a": 5, "pets/fox": 4, "狐-1": 1}


def test_shards_are_of_like_size() -> None:
    """Of 8,000 ids that look alike, each of 8 shards gets about 1,000."""
    sizes = [sum(shards.holds(Shard(i, 8), f"fox-{n}") for n in range(8000)) for i in range(1, 9)]
    assert sum(sizes) == 8000 and min(sizes) > 850 and max(sizes) < 1150


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/4", "1.5/4", "1/1234567", "１/４"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    """A shard is I/N with I from 1 to N; anything else is a usage error that says so."""
    with pytest.raises(UsageError, match=r"--shard .*expected I/N"):
        Flags.of("m.yaml", shard=text)


@given(some_shards)
def test_a_shard_reads_as_it_is_written(shard: Shard) -> None:
    """What messages call a shard is what --shard takes, and its books are found again by their names."""
    assert shards.parse(str(shard)) == shard
    books = Books(shard)
    names = [books.log, books.attempts.rpartition("/")[2], "log.jsonl", "log-0-of-3.jsonl", "log-4-of-3.jsonl", "x"]
    assert books_among(names) == [Books(), books]


# What each may use


@given(st.integers(1, 50), st.integers(0, 10_000))
def test_the_parts_add_up_to_the_whole(n: int, whole: int) -> None:
    """All shards together may use what was allowed, not more and not less, and no shard much more than another."""
    parts = [shards.part(Shard(i, n), whole) for i in range(1, n + 1)]
    assert sum(parts) == whole and max(parts) - min(parts) <= 1


def limits_of(shard: str, shared: bool = False, **limits: Any) -> Limits:
    flags = Flags.of("m.yaml", shard=shard, shared_account=shared, **limits)
    return resolve(
        flags, {}, Header(), output=Path("out"), find_key=lambda api, place: "k", now=SystemClock().utc()
    ).limits


def test_a_shard_gets_its_part_of_pace_day_and_money() -> None:
    """Requests a minute and a day, money and requests are divided; what bounds one process is not."""
    found = limits_of(
        "3/8", requests_per_minute=600, requests_per_day=203, max_cost_usd=4, max_requests=9, concurrency=7
    )
    assert found == Limits(concurrency=7, requests_per_minute=75, requests_per_day=26, max_cost_usd=0.5, max_requests=1)


def test_with_a_shared_account_only_money_is_divided() -> None:
    """Pace and day are then counted by all shards together, in the account's own store."""
    found = limits_of("3/8", shared=True, requests_per_minute=600, requests_per_day=200, max_cost_usd=4)
    assert (found.requests_per_minute, found.requests_per_day, found.max_cost_usd) == (600, 200, 0.5)


def test_a_part_of_nothing_is_refused() -> None:
    """A limit that leaves a shard without a single request is a mistake that is told before the run."""
    with pytest.raises(UsageError, match=r"requests_per_day 3 leaves nothing for shard 4/4; use fewer shards"):
        limits_of("4/4", requests_per_day=3)


def test_what_was_spent_before_is_shared_out(tmp_path: Path) -> None:
    """A shard answers for its own spending and its part of what was spent unsharded, not for the shards beside it."""
    files = PosixFiles(tmp_path)
    for books, cost_usd in ((Books(), 4.0), (Books(Shard(1, 4)), 1.0), (Books(Shard(2, 4)), 0.5)):
        done = entry(job=str(books.shard), cost_usd=cost_usd)
        (tmp_path / books.log).write_bytes(joblog.encode(done))
    found = {shard: Records(files, shard) for shard in (None, Shard(1, 4), Shard(2, 4), Shard(3, 4))}
    for records in found.values():
        records.load()
    spent = {shard: (records.spent.requests, records.spent.spent_usd) for shard, records in found.items()}
    assert spent == {None: (3, 5.5), Shard(1, 4): (2, 2.0), Shard(2, 4): (2, 1.5), Shard(3, 4): (1, 1.0)}
    assert Spending(7, 1.0).part(4).requests == 2


# Who may be at work beside whom


@pytest.mark.parametrize(
    ("first", "second", "refusal"),
    [
        (None, None, "at work here"),
        (None, "1/2", "at work here"),
        ("1/2", None, "at work here"),
        ("1/2", "1/2", "at work on shard 1/2"),
        ("1/2", "1/3", "does not go with shard 1/3"),
        ("1/2", "2/2", None),
    ],
)
def test_only_shards_of_one_number_go_together(
    tmp_path: Path, first: str | None, second: str | None, refusal: str | None
) -> None:
    """A whole run wants the folder alone; shards share it with those that hold other jobs."""
    one, two = (None if text is None else shards.parse(text) for text in (first, second))
    with locked(tmp_path, one):
        expected: AbstractContextManager[object] = (
            pytest.raises(FolderBusy, match=refusal) if refusal else nullcontext()
        )
        with expected, locked(tmp_path, two):
            pass
    with locked(tmp_path, two):
        pass


# What they leave


async def go(manifest: Path, server: Sandbox, **settings: Any) -> Summary:
    return await batchgen.run_async(manifest, api="nebula", api_url=server.url, **settings)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBULA_API_KEY", SANDBOX_KEY)


async def test_shards_beside_each_other_make_what_one_run_makes(place: Place) -> None:
    """Four shards at once buy each picture once; a whole run after them has nothing left to do."""
    manifest = place.jobs(*(f"job-{n}" for n in range(24)), prices_usd={"black-forest-labs/FLUX.1-schnell": 0.5})
    async with Sandbox(Script(latency_s=(0, 0.01))) as server:
        found = await asyncio.gather(*(go(manifest, server, shard=f"{i}/4") for i in range(1, 5)))
        assert [summary.exit_code for summary in found] == [0] * 4
        assert sum(summary.selected for summary in found) == 24 == found[0].total
        again = await go(manifest, server)
        assert (again.exit_code, again.done, again.requests) == (0, 24, 0)
        assert (server.ledger.requests, server.ledger.bought_again) == (24, 0)
    assert len(place.files()) == 24
    now = look.now_at(place.output, SystemClock())
    assert now.shards == {f"{i}/4": "ended" for i in range(1, 5)} and not now.running
    with open_archive(place.output) as archive:
        assert len(list(archive.entries())) == 24
        assert archive.records.fold.counts()[Outcome.DONE] == 24
        assert archive.records.fold.spent_usd == 12.0


async def test_shards_keep_a_budget_together(place: Place) -> None:
    """Money and requests that were allowed are spent once, not once by each shard, also after an unsharded start."""
    manifest = place.jobs(*(f"job-{n}" for n in range(40)))
    async with Sandbox(Script(latency_s=(0, 0))) as server:
        first = await go(manifest, server, max_requests=4)
        assert (first.exit_code, first.requests) == (ExitCode.WORK_LEFT, 4)
        for i in (1, 2, 3):
            await go(manifest, server, max_requests=12, shard=f"{i}/3")
        assert 9 <= server.ledger.requests <= 12


@pytest.mark.parametrize(
    ("limits", "prices", "most"),
    [
        ({"max_requests": 8}, {}, 8),
        ({"max_cost_usd": 8.0}, {"black-forest-labs/FLUX.1-schnell": 1.0}, 8),
        ({"requests_per_day": 8}, {}, 8),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
async def test_what_one_shard_left_is_not_spent_twice(
    place: Place, limits: dict[str, Any], prices: dict[str, float], most: int
) -> None:
    """What a whole run took of the part that a shard had left is not there for that shard any more."""
    manifest = place.jobs(*(f"job-{n}" for n in range(40)), prices_usd=prices)
    async with Sandbox(Script(latency_s=(0, 0))) as server:
        await go(manifest, server, shard="1/2", **limits)
        assert server.ledger.requests == most / 2
        await go(manifest, server, **limits)
        assert server.ledger.requests == most
        await go(manifest, server, shard="2/2", **limits)
        assert server.ledger.requests == most


async def test_another_number_of_shards_goes_on_where_the_last_stopped(place: Place) -> None:
    """What other shards have done stays done, whatever their number was."""
    manifest = place.jobs(*(f"job-{n}" for n in range(12)))
    async with Sandbox(Script(latency_s=(0, 0))) as server:
        await go(manifest, server, shard="1/2")
        for i in (1, 2, 3):
            await go(manifest, server, shard=f"{i}/3")
        assert (server.ledger.requests, server.ledger.bought_again) == (12, 0)


async def test_a_shards_lost_log_is_noticed_however_much_its_neighbours_know(place: Place) -> None:
    """What a shard has bought is not bought again without a word when its log is gone, whoever else has a log there."""
    manifest = place.jobs(*(f"job-{n}" for n in range(12)))
    async with Sandbox(Script(latency_s=(0, 0))) as server:
        for i in (1, 2):
            assert (await go(manifest, server, shard=f"{i}/2")).done
        log = place.output / Books(Shard(1, 2)).log
        whole = log.read_bytes()
        log.unlink()
        with pytest.raises(UsageError, match=r"bring log-1-of-2\.jsonl back"):
            await go(manifest, server, shard="1/2")
        log.write_bytes(whole)
        assert (await go(manifest, server, shard="1/2")).exit_code == 0
        assert server.ledger.requests == 12


def test_attempts_of_earlier_shards_are_known_and_those_beside_are_left_alone(tmp_path: Path) -> None:
    """A ration that a job spent under another split is spent; a shard does not read what its neighbours write."""
    spent = failed(Failure.NO_ANSWER, billed=Billed.MAYBE, counts=Counts.RATION)
    for shard in (Shard(1, 4), Shard(1, 2)):
        path = tmp_path / Books(shard).attempts
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(joblog.encode(Ended(f"of {shard}", "f", spent)))
    records = Records(PosixFiles(tmp_path), Shard(2, 4))
    records.load()
    assert records.lives.of("of 1/2", "f") == (spent,)
    assert not records.lives.of("of 1/4", "f")


def test_a_shard_adopts_its_own_jobs_only(tmp_path: Path) -> None:
    """A picture that lost its log line with an unsharded run is adopted by the shard that holds its job."""
    data, job = b"picture", "a"
    assert shards.holds(Shard(5, 5), job)
    kept = Picture(f"images/{job}.png", 0, "png", 24, 16, len(data), hashlib.sha256(data).hexdigest(), None)
    done = entry(job=job, images=(kept,))
    (tmp_path / ".batchgen").mkdir()
    (tmp_path / ".batchgen/attempts.jsonl").write_bytes(joblog.prepared(done, joblog.encode(done)))
    (tmp_path / "images").mkdir()
    (tmp_path / done.images[0].file).write_bytes(data)
    adopted = []
    for i in (4, 5, 1):
        folder = Folder(PosixFiles(tmp_path), Shard(i, 5))
        folder.load()
        adopted.append([each.job for each in folder.entries()])
        folder.close()
    assert adopted == [[], ["a"], ["a"]]


# The recipes


def recipe(heading: str, language: str) -> str:
    """The block of README that follows this sentence."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    found = re.search(rf"{re.escape(heading)}.*?```{language}\n(.*?)```", text, re.DOTALL)
    assert found, heading
    return found[1]


def started(place: Place, script: str, **env: str) -> list[str]:
    """The --shard arguments of what a shell script starts, where `batchgen` writes down what it is told."""
    note = place.write("bin/batchgen", '#!/bin/sh\necho "$*" >> "$0.said"\n')
    note.chmod(0o755)
    path = f"{note.parent}:/usr/bin:/bin"
    subprocess.run(["sh", "-c", script], env={"PATH": path, "HOME": str(place.root), **env}, check=True)
    said = (place.root / "bin/batchgen.said").read_text().splitlines()
    assert {line.partition(" --shard ")[0] for line in said} == {"run jobs/tonight.csv --quiet"}
    return sorted(line.rpartition(" ")[2] for line in said)


@pytest.mark.skipif(shutil.which("parallel") is None, reason="GNU parallel is not installed")
def test_the_recipe_for_gnu_parallel_starts_every_part(place: Place) -> None:
    """The line of README starts all four parts."""
    assert started(place, recipe("With GNU parallel:", "sh")) == ["1/4", "2/4", "3/4", "4/4"]


def test_the_recipe_for_slurm_starts_the_part_of_its_task(place: Place) -> None:
    """A task of the array does the part that its number names, whatever the size of the array."""
    script = recipe("As a Slurm array", "sh")
    assert started(place, script, SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_TASK_COUNT="4") == ["3/4"]


def test_the_recipe_for_kubernetes_counts_from_one(place: Place) -> None:
    """A pod's index from 0 becomes the part from 1, and as many pods are asked for as there are parts."""
    job = yaml.safe_load(recipe("As an indexed Job of Kubernetes", "yaml"))["spec"]
    shell, dash_c, script = job["template"]["spec"]["containers"][0]["command"]
    assert (shell, dash_c, job["completionMode"]) == ("sh", "-c", "Indexed")
    for index in range(job["completions"]):
        found = started(place, script, JOB_COMPLETION_INDEX=str(index))
    assert found == ["1/4", "2/4", "3/4", "4/4"]
