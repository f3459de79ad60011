"""`batchgen check`: the plan before money is spent, for people, for programs and for make; and its errors as data."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import MODEL

from batchgen.cli import main
from batchgen.folder import locked
from batchgen.runner.online import nearest

if TYPE_CHECKING:
    from conftest import Beside, Place

NEGATIVE = {"id": "n", "prompt": "n", "negative_prompt": "people"}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBULA_API_KEY", "sandbox-key")


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str]) -> Any:
    """`check --json` with these arguments: the object that it prints, and the exit code is what the object says."""

    def check(*arguments: str | Path, name: str = "check") -> Any:
        capsys.readouterr()
        code = main([name, *map(str, arguments), "--json"])
        [line] = capsys.readouterr().out.splitlines()
        found = json.loads(line)
        assert found["exit_code"] == code
        return found

    return check


def run(manifest: Path, *arguments: str) -> int:
    return main(["run", str(manifest), "--quiet", *arguments])


# What changed


def test_what_changed_is_told_by_parameter_and_by_job(place: Place, checked: Any) -> None:
    """After an edit the plan counts which parameters changed in how many jobs, and --diff names them job by job."""
    picture = place.root / "head.jpg"
    shutil.copy(Path(__file__).parent.parent / "jobs/inputs/head.jpg", picture)
    jobs: list[dict[str, Any]] = [{"id": id, "prompt": id, "num_steps": 4} for id in "abc"]
    jobs.append({"id": "cap", "prompt": "cap", "image": "head.jpg"})
    assert run(place.jobs(*jobs, api="sandbox")) == 0
    jobs[0] |= {"num_steps": 8}
    jobs[1] |= {"num_steps": 8, "prompt": "new"}
    del jobs[2]
    picture.write_bytes(picture.read_bytes() + b"\0")
    manifest = place.jobs(*jobs, "d", api="sandbox")
    found = checked(manifest, "--diff")
    assert found["standings"] == {"changed": 3, "pending": 1}
    assert found["changed_by"] == {"num_steps": 2, "prompt": 1, "image": 1}
    assert [(job["job"], job["standing"]) for job in found["jobs"]] == [
        ("a", "changed"),
        ("b", "changed"),
        ("cap", "changed"),
        ("d", "pending"),
    ]
    assert found["jobs"][0]["changes"] == [{"name": "num_steps", "before": 4, "after": 8}]
    assert (found["gone"], found["orphans"]) == (["c"], 1)
    assert checked(manifest)["jobs"] is None


def test_the_diff_for_people(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a job: what changed of it, that it is new, or that it is gone."""
    run(place.jobs("a", "gone", api="sandbox"))
    capsys.readouterr()
    assert main(["check", str(place.jobs({"id": "a", "prompt": "fox"}, "new", api="sandbox")), "--diff"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-3:] == ['a: prompt "a" -> "fox"', "new: new", "gone: gone from the manifest"]
    assert "  changed    prompt (1)" in said


def test_a_change_is_one_against_the_last_entry(place: Place, checked: Any) -> None:
    """What a job asked for two edits ago does not matter."""
    for prompt in ("one", "two"):
        run(place.jobs({"id": "a", "prompt": prompt}, api="sandbox"))
    found = checked(place.jobs({"id": "a", "prompt": "three"}, api="sandbox"), "--diff")
    assert found["jobs"][0]["changes"] == [{"name": "prompt", "before": "two", "after": "three"}]


def test_an_entry_of_which_little_can_be_read_stops_no_check(place: Place, checked: Any) -> None:
    """A changed job whose old entry lacks fields is changed all the same."""
    run(place.jobs("a", api="sandbox"))
    log = place.output / "log.jsonl"
    log.write_text(json.dumps({**place.log[0], "timings": {"response_s": 1.0}, "manifest": None}) + "\n")
    assert checked(place.jobs({"id": "a", "prompt": "b"}, api="sandbox"))["standings"] == {"changed": 1}


# Numbers and where they come from


def test_earlier_pictures_are_the_measure(place: Place, checked: Any) -> None:
    """After a run of some jobs the others are estimated by what those took; before it, by assumptions."""
    manifest = place.jobs("a", "b", "c", api="sandbox")
    before = checked(manifest)["estimate"]["models"][MODEL]
    assert (before["response_s"], before["response_source"], before["picture_bytes"]) == (13.4, "assumed", 576)
    run(manifest, "--limit", "2")
    after = checked(manifest)["estimate"]["models"][MODEL]
    assert (after["requests"], after["earlier_pictures"], after["response_source"]) == (1, 2, "log")
    sizes = [image["size_bytes"] for line in place.log for image in line["images"]]
    assert after["picture_bytes"] == round(sum(sizes) / 2)
    assert checked(manifest)["estimate"]["disk"]["free_bytes"] > 0


def test_what_was_sent_today_is_off_the_days_quota(place: Place, beside: Beside, checked: Any) -> None:
    """The account's count of today, from whatever manifest, shortens the first night."""
    flags = ["--api", "nebula", "--api-url", beside().url, "--rpd", "3"]
    run(place.jobs("x", "y", name="other.yaml"), *flags)
    time = checked(place.jobs(*"abcde"), *flags)["estimate"]["time"]
    assert (time["sent_today"], time["nights"], time["requests_per_day"]) == (2, 3, 3)


def test_a_broken_count_of_the_account_stops_no_check(
    place: Place, checked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account's store is only looked at: what cannot be read there is not known."""
    monkeypatch.setenv("XDG_STATE_HOME", str(place.root))
    store = place.write("batchgen/accounts.sqlite3", "no database")
    assert checked(place.jobs("a"), "--rpd", "3")["estimate"]["time"]["sent_today"] is None
    store.unlink()
    sqlite3.connect(store).close()
    assert checked(place.jobs("a"), "--rpd", "3")["estimate"]["time"]["sent_today"] is None


def test_money_that_was_spent_here_is_off_the_budget(place: Place, beside: Beside, checked: Any) -> None:
    """The budget covers the folder's lifetime, so the plan tells what is left of it, and for how many it lasts."""
    flags = ["--api", "nebula", "--api-url", beside().url, "--price", f"{MODEL}=0.5", "--max-cost", "2"]
    run(place.jobs("a", "b", "c"), *flags)
    found = checked(place.jobs("a", "b", "c", "d", "e"), *flags)
    money = found["estimate"]["money"]
    assert (money["cost_usd"], money["spent_usd"], money["budget_left_usd"]) == (1.0, 1.5, 0.5)
    assert any("enough for about 1 of 2 requests" in note for note in found["notices"])


def test_the_plan_for_people(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Every number of the plan stands on a line of its own with its source."""
    manifest = place.jobs("a", NEGATIVE, prices_usd={MODEL: 0.25})
    assert main(["check", str(manifest), "--rpm", "60", "--rpd", "1", "--max-cost", "5", "-c", "14"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "disk" not in line] == [
        "2 jobs: 2 to do",
        f"  to do      2 x {MODEL}, 13.4 s each (assumed, none was made here yet)",
        f"  warning    1 job: negative_prompt is not documented for {MODEL}; it may be ignored or refused"
        " (job 'n', line 1)",
        "  cost       $0.5000, $5.0000 left of $5",
        "  time       about 14 s, bound by the requests a minute, without retries",
        "  in flight  14 at most; 60 requests a minute keep about 14 busy",
        "  nights     2 quota days of 1 requests",
    ]


def test_warnings_are_told_at_the_start_of_a_run_and_refuse_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """A parameter that the model is not documented to take is sent, with a warning."""
    assert main(["run", str(place.jobs(NEGATIVE, api="sandbox"))]) == 0
    assert "negative_prompt is not documented" in capsys.readouterr().err
    assert place.log[0]["request"]["negative_prompt"] == "people"


@pytest.mark.parametrize(
    ("flags", "longest_s"),
    [
        pytest.param([], None, id="none"),
        pytest.param(["--max-runtime", "90s"], 90.0, id="runtime"),
        pytest.param(["--max-runtime", "90h", "--until", "soon"], 3600.0, id="the earlier end"),
    ],
)
def test_check_knows_when_a_run_would_end(
    place: Place, checked: Any, flags: list[str], longest_s: float | None
) -> None:
    """The flags that end a night are taken by `check`, and tell how long a run could work."""
    soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%H:%MZ")
    flags = [soon if flag == "soon" else flag for flag in flags]
    runtime_s = checked(place.jobs("a", api="sandbox"), *flags)["estimate"]["time"]["runtime_s"]
    if longest_s is None:
        assert runtime_s is None
    else:
        assert longest_s - 120 <= runtime_s <= longest_s


def test_what_a_run_would_refuse_is_a_note(place: Place, checked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, or with most pictures gone, the plan is told all the same, and that a run would not begin."""
    monkeypatch.delenv("NEBULA_API_KEY")
    [note] = checked(place.jobs("a"))["notices"]
    assert note.startswith("a run would be refused: there is no API key")


# Exit codes and choices


def test_exit_codes_for_make(place: Place, checked: Any) -> None:
    """--exit-code tells work to do (10) from none (0); without it both are 0."""
    manifest = place.jobs("a", api="sandbox")
    assert [checked(manifest, *flags)["exit_code"] for flags in ([], ["--exit-code"])] == [0, 10]
    run(manifest)
    assert checked(manifest, "--exit-code")["exit_code"] == 0
    run(place.jobs({"id": "a", "prompt": "other"}, api="sandbox"))
    found = checked(place.jobs("a", api="sandbox"), "--exit-code")
    assert (found["exit_code"], found["restorable"], found["to_do"]) == (10, 1, {})


def test_a_selection_of_nothing_is_not_nothing_to_do(place: Place, checked: Any) -> None:
    """A misspelt --only, which a run refuses, does not pass for finished work; the plan itself is still told."""
    manifest = place.jobs("a", api="sandbox")
    run(manifest)
    found = checked(manifest, "--only", "z", "--exit-code")
    assert (found["exit_code"], found["selected"], found["total"]) == (2, 0, 1)
    assert checked(manifest, "--only", "z")["exit_code"] == 0


def test_check_and_run_agree_on_a_sample(place: Place, checked: Any) -> None:
    """The sample that check lists is the one that run makes, and the next one is another."""
    manifest = place.jobs(*"abcdefgh", api="sandbox")
    flags = ["--limit", "3", "--shuffle", "tonight"]
    planned = [job["job"] for job in checked(manifest, *flags, "--diff")["jobs"]]
    run(manifest, *flags, "-c", "1")
    assert sorted(line["job"] for line in place.log) == sorted(planned)
    assert len(planned) == 3
    again = {job["job"] for job in checked(manifest, *flags, "--diff")["jobs"]}
    assert len(again) == 3 and again.isdisjoint(planned)


def test_a_shuffled_run_makes_everything_in_the_order_of_its_seed(place: Place) -> None:
    """Nothing is left out, and with one request at a time the log shows another order than the manifest's."""
    assert run(place.jobs(*"abcdefgh", api="sandbox"), "--shuffle", "s", "-c", "1") == 0
    made = [line["job"] for line in place.log]
    assert sorted(made) == list("abcdefgh") and made != sorted(made)


# Asking the API


def test_online_fills_in_prices_and_balance_and_pays_nothing(place: Place, beside: Beside, checked: Any) -> None:
    """Prices that were not said come from the API's list, the balance from the account; no picture is asked for."""
    server = beside()
    server.ledger.balance_usd = 0.004
    found = checked(place.jobs("a", "b"), "--online", "--api-url", server.url)
    assert found["estimate"]["models"][MODEL]["price_source"] == "api"
    money = found["estimate"]["money"]
    assert (money["cost_usd"], money["balance_usd"]) == (0.006, 0.004)
    assert any("enough for about 1 of 2 requests, by the account's balance" in note for note in found["notices"])
    assert (server.ledger.requests, server.ledger.pictures) == (0, 0)


NOTES = {
    "unknown": ("black-forest-labs/flux.1-schnel", {}, f"does not list the model .*; did you mean {MODEL}"),
    "hopeless": ("my/model", {}, "does not list the model my/model$"),
    "no pictures": ("meta-llama/Llama-3.3-70B-Instruct", {}, "makes no pictures"),
    "another price": (MODEL, {MODEL: 0.001}, r"asks \$0.003 for a picture of .*, you said \$0.001"),
}


@pytest.mark.parametrize(("model", "prices", "told"), NOTES.values(), ids=NOTES.keys())
def test_online_says_what_the_list_has_against_the_plan(
    place: Place, beside: Beside, checked: Any, model: str, prices: dict[str, float], told: str
) -> None:
    """A model that is not listed, or makes no pictures, or costs something else, is a note and no refusal."""
    manifest = place.jobs({"id": "a", "prompt": "a", "model": model}, prices_usd=prices)
    [note] = checked(manifest, "--online", "--api-url", beside().url)["notices"]
    assert re.search(told, note)


def test_a_wrong_key_is_told_before_anything_is_sent(
    place: Place, beside: Beside, checked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that the API refuses exits 6, and is not repeated."""
    monkeypatch.setenv("NEBULA_API_KEY", "wrong-key")
    found = checked(place.jobs("a"), "--online", "--api-url", beside().url)
    assert found["exit_code"] == 6
    assert "refused the key" in found["error"] and "wrong-key" not in json.dumps(found)


def test_a_broken_manifest_is_told_before_anybody_is_asked(
    place: Place, beside: Beside, checked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistakes come first: the API is asked only about a manifest that could run."""
    monkeypatch.setenv("NEBULA_API_KEY", "wrong-key")
    server = beside()
    assert checked(place.jobs({"id": "a"}), "--online", "--api-url", server.url)["exit_code"] == 2
    assert not server.ledger.refusals


def test_an_api_that_cannot_be_asked_is_a_note(place: Place, checked: Any) -> None:
    """Where nobody answers, the plan is told without prices."""
    found = checked(place.jobs("a"), "--online", "--api-url", "http://127.0.0.1:9/api/v1")
    assert found["exit_code"] == 0
    assert [note.partition(" could")[0] for note in found["notices"]] == ["the models", "the balance"]
    assert all("connect" in note.casefold() and "127.0.0.1:9" in note for note in found["notices"])


def test_an_address_that_is_no_api_is_a_note(place: Place, beside: Beside, checked: Any) -> None:
    """A server that answers something else is told with its status."""
    found = checked(place.jobs("a"), "--online", "--api-url", beside().url + "/elsewhere")
    told = "could not be asked for: status 404; look at the API address"
    assert found["notices"] == [f"{what} {told}" for what in ("the models", "the balance")]


def test_the_built_in_sandbox_can_be_asked(place: Place, checked: Any) -> None:
    """--online works without a key where the sandbox is the API."""
    assert checked(place.jobs("a", api="sandbox"), "--online")["estimate"]["money"]["cost_usd"] == 0.003


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("FLUX.1-schnell", MODEL),
        ("flux.1-schnel", MODEL),
        ("black-forest-lab/flux-1-schnell", MODEL),
        ("sdxl", None),
        ("", None),
    ],
)
def test_the_nearest_model(said: str, meant: str | None) -> None:
    """Slips of the pen and missing owners are recognised, wild guesses are not made."""
    assert nearest(said, [MODEL, "Bytedance-Seedream-3.0"]) == meant


# Problems as data


@pytest.mark.parametrize("name", ["check", "run"])
def test_mistakes_in_a_manifest_as_data(place: Place, checked: Any, name: str) -> None:
    """With --json each mistake has its file, place, job, field, value and remedy."""
    manifest = place.write("m.csv", "id,prompt,model,width\na,one,m,12\na,two,m,wide\n")
    found = checked(manifest, name=name)
    assert (found["exit_code"], found["count"], found["v"]) == (2, 2, 1)
    by_field = {problem["field"]: problem for problem in found["problems"]}
    assert by_field["width"] | {"what": "", "fix": ""} == {
        "file": str(manifest),
        "line": 3,
        "column": 9,
        "job": "a",
        "field": "width",
        "value": "wide",
        "what": "",
        "fix": "",
    }
    assert by_field["id"]["fix"] == "give each job an id of its own"


def test_a_hundred_mistakes_are_data_and_all_are_counted(place: Place, checked: Any) -> None:
    """The object stays small however wrong the manifest is."""
    found = checked(place.write("m.csv", "prompt,model,seed\n" + "".join(f"one,flux,x{n}\n" for n in range(149))))
    assert (len(found["problems"]), found["count"]) == (100, 149)


def test_a_mistake_in_a_header_has_its_field(place: Place, checked: Any) -> None:
    """Limits and defaults are named by their path; a value that could be a key is not repeated."""
    manifest = place.jobs("a", api={"key_env": "ak_secret-key"}, limits={"concurrency": 0}, defaults={"width": "x"})
    found = checked(manifest)
    fields = {problem["field"] for problem in found["problems"]}
    assert {"limits.concurrency", "defaults.width", "api.key_env"} <= fields
    assert "ak_secret" not in json.dumps(found)


def test_what_stands_in_an_unknown_field_is_not_repeated(place: Place, checked: Any) -> None:
    """A key that was pasted into a job is not carried into a report."""
    found = checked(place.jobs({"id": "a", "prompt": "a", "api_key": "ak_secret"}, api="sandbox"))
    assert [problem["field"] for problem in found["problems"]] == ["api_key"]
    assert "ak_secret" not in json.dumps(found)


def test_other_errors_as_data(place: Place, checked: Any) -> None:
    """A file that is not there, and a folder that is busy, are an error and its exit code."""
    found = checked(place.root / "none.yaml")
    assert found["exit_code"] == 2 and "No such file" in found["error"] and found["problems"] == []
    manifest = place.jobs("a", api="sandbox")
    run(manifest)
    with locked(place.output):
        assert checked(manifest, name="run")["exit_code"] == 5


def test_arguments_that_cannot_be_understood_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    """Even then a program that asked for JSON gets an object; a key given by mistake is not repeated in it."""
    with pytest.raises(SystemExit) as ended:
        main(["check", "m.yaml", "--json", "--api-key", "ak_secret"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["exit_code"] == 2 and "--api-key" in found["error"]
    assert "ak_secret" not in said.out + said.err
