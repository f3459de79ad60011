"""Several endpoints for one manifest: whole runs against sandboxes beside the test."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Beside, Place

from batchgen.cli import main
from batchgen.sandbox import Sandbox

JOBS = [f"job-{n}" for n in range(24)]
WRONG = "sk-wrong-0123456789"


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """What the command says as JSON."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of every sandbox in a variable of the manifest's own, and another that no server knows."""
    monkeypatch.setenv("GPU_KEY", "sandbox-key")
    monkeypatch.setenv("WRONG_KEY", WRONG)


def at(server: Sandbox, name: str | None = None, key_env: str = "GPU_KEY", **beside: Any) -> dict[str, Any]:
    return {"style": "nebula", "url": server.url, "key_env": key_env, "name": name} | beside


def who_answered(place: Place) -> Counter[str]:
    return Counter(entry["attempts"][-1]["endpoint"] for entry in place.log if entry["outcome"] == "done")


def test_three_servers_of_which_one_is_well(place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    """One says "too fast", one drops connections, one is well: every job is done once, the well one never pauses."""
    fast, drops, well = beside("429"), beside("reset"), beside(latency_s=0.01)
    manifest = place.jobs(*JOBS, api=[at(fast, "fast"), at(drops, "drops"), at(well, "well")])
    found = told(capsys, "run", str(manifest), "-c", "4")
    assert (found["done"], found["exit_code"]) == (len(JOBS), 0)
    assert well.ledger.pictures == len(JOBS) == len({entry["job"] for entry in place.log}) == len(place.log)
    assert who_answered(place) == {"well": len(JOBS)}
    assert found["endpoints"]["well"] | {"inference_p50_s": 0} == {
        "requests": len(JOBS),
        "pictures": len(JOBS),
        "failures": 0,
        "inference_p50_s": 0,
    }
    assert {name: each["pictures"] for name, each in found["endpoints"].items()} == {"well": 24, "drops": 0, "fast": 0}
    asked = Counter(attempt["endpoint"] for entry in place.log for attempt in entry["attempts"] if "failure" in attempt)
    assert asked["fast"] == fast.ledger.requests and asked["drops"] == drops.ledger.requests
    notes = [json.loads(line) for line in (place.output / ".batchgen/pace.jsonl").read_bytes().splitlines()]
    assert not [note for note in notes if note["endpoint"] == "well" and ("pause_s" in note or "outage" in note)]
    assert [note for note in notes if note["endpoint"] == "fast" and "pause_s" in note]


def test_a_wrong_key_closes_its_endpoint_alone(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run goes on with the other one, the summary tells why, and no file and no message holds a key."""
    good, other = beside(), beside()
    manifest = place.jobs(*JOBS[:6], api=[at(other, "wrong", "WRONG_KEY"), at(good, "good")])
    found = told(capsys, "run", str(manifest))
    assert (found["done"], found["exit_code"], other.ledger.pictures) == (6, 0, 0)
    [notice] = [notice for notice in found["notices"] if "not asked any more" in notice]
    assert notice.startswith("wrong is not asked any more: unauthorized")
    both = place.jobs("a", api=[at(other, "one", "WRONG_KEY"), at(good, "two", "WRONG_KEY")], name="both.yaml")
    refused = told(capsys, "run", str(both), code=6)
    assert "one: unauthorized" in refused["verdict"] and "two: unauthorized" in refused["verdict"]
    everything = b"".join(path.read_bytes() for path in place.root.rglob("*") if path.is_file())
    assert WRONG.encode() not in everything and b"sandbox-key" not in everything


def test_the_endpoints_are_no_part_of_what_is_asked_for(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one endpoint, three, or others the jobs are the same, and what is done is not done again."""
    first, second = beside(), beside()
    told(capsys, "run", str(place.jobs(*JOBS[:4], api=at(first))))
    assert "endpoint" not in place.log[0]["attempts"][0]
    again = told(capsys, "run", str(place.jobs(*JOBS[:8], api=[at(first), at(second)])))
    assert (again["done"], again["made"]) == (8, 4)
    hosts = {server.url.split("/")[2] for server in (first, second)}
    assert set(who_answered_since(place, 4)) <= hosts
    assert first.ledger.pictures + second.ledger.pictures == 8


def who_answered_since(place: Place, start: int) -> list[str]:
    return [entry["attempts"][-1]["endpoint"] for entry in place.log[start:]]


def test_each_endpoints_day_is_counted_for_itself(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also across runs, and where nothing but the folder remembers."""
    first, second = beside(), beside()
    api = [at(first, "a", limits={"requests_per_day": 3}), at(second, "b", limits={"requests_per_day": 5})]
    manifest = place.jobs(*JOBS, api=api)
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name)
    assert told(capsys, "run", str(manifest), code=4)["made"] == 8
    assert (first.ledger.requests, second.ledger.requests) == (3, 5)
    assert told(capsys, "run", str(manifest), code=4)["made"] == 0
    flag = told(capsys, "run", str(manifest), "--rpd", "6", code=4)
    assert (flag["made"], first.ledger.requests, second.ledger.requests) == (4, 6, 6)


def test_a_flag_that_names_an_address_replaces_the_list(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--api-url`, its variable and `--api` leave one endpoint, which the log need not name."""
    listed, named = beside(), beside()
    manifest = place.jobs("a", api=[at(listed, "a"), at(listed, "b", "WRONG_KEY")])
    monkeypatch.setenv("NEBULA_API_KEY", named.script.key)
    told(capsys, "run", str(manifest), "--api-url", named.url)
    assert "endpoint" not in place.log[0]["attempts"][0]
    monkeypatch.setenv("NEBULA_API_URL", named.url)
    told(capsys, "run", str(place.jobs("a", "b", api=[at(listed, "a"), at(listed, "b", "WRONG_KEY")])))
    assert (named.ledger.requests, listed.ledger.requests) == (2, 0)
    assert told(capsys, "check", str(manifest), "--api", "sandbox", "-o", str(place.root / "o"))["endpoints"] == []


def test_check_tells_of_every_endpoint(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its key is from, what it may be asked, and every key that is missing at once."""
    server = beside()
    limits = {"requests_per_minute": 60, "requests_per_day": 100, "concurrency": 2}
    api = [at(server, limits=limits), at(server, "b", "WRONG_KEY", limits=limits), at(server, "c", "C_KEY")]
    found = told(capsys, "check", str(place.jobs(*JOBS, api=api)))
    host = server.url.split("/")[2]
    assert [(each["name"], each["key_from"], each["has_key"]) for each in found["endpoints"]] == [
        (host, "GPU_KEY", True),
        ("b", "WRONG_KEY", True),
        ("c", None, False),
    ]
    assert "c: there is no API key; put it into the environment variable C_KEY" in found["notices"][-1]
    both = told(capsys, "check", str(place.jobs(*JOBS, api=api[:2])))["estimate"]
    assert (both["concurrency"]["set"], both["concurrency"]["requests_per_minute"]) == (4, 120)
    assert both["time"]["requests_per_day"] == 200
    monkeypatch.delenv("GPU_KEY")
    monkeypatch.delenv("WRONG_KEY")
    assert main(["run", str(place.jobs(*JOBS, api=api))]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("GPU_KEY", "WRONG_KEY", "C_KEY"))


def test_check_online_asks_each(place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    """Balances are added up; a key that is refused is a notice as long as another is not."""
    servers = [beside(), beside(), beside()]
    api = [at(servers[0], "a"), at(servers[1], "b")]
    found = told(capsys, "check", str(place.jobs("a", api=api)), "--online")
    assert found["estimate"]["money"]["balance_usd"] == 200
    refused = told(capsys, "check", str(place.jobs("a", api=[*api, at(servers[2], "c", "WRONG_KEY")])), "--online")
    assert refused["estimate"]["money"]["balance_usd"] is None
    assert any(notice.startswith("c: the API refused the key") for notice in refused["notices"])
    listed = told(capsys, "models", str(place.jobs("a", api=api)))
    assert len(listed["models"]) == len({model["name"] for model in listed["models"]}) and listed["notices"] == []
    nobody = [at(server, str(n), "WRONG_KEY") for n, server in enumerate(servers)]
    assert main(["check", str(place.jobs("a", api=nobody)), "--online"]) == 6


def test_a_key_file_is_for_one_endpoint(place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    """For the only one whose variable is not set; with several it would have to be guessed, and is refused."""
    server, file = beside(), place.write("key", "sandbox-key\n")
    file.chmod(0o600)
    one = place.jobs("a", "b", api=[at(server, "a"), at(beside(), "b", "NOT_SET_KEY")])
    assert told(capsys, "run", str(one), "--api-key-file", str(file))["done"] == 2
    both = place.jobs("a", api=[at(server, "a", "NOT_SET_KEY"), at(server, "b", "OTHER_KEY")])
    assert main(["run", str(both), "--api-key-file", str(file)]) == 2
    assert "holds one key, and the manifest names 2 endpoints" in capsys.readouterr().err


def test_show_report_and_export_tell_who_answered(
    place: Place, beside: Beside, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture's facts name its endpoint, wherever somebody looks."""
    server, table = beside("503:x1"), place.root / "t.csv"
    manifest = place.jobs("a", "b", "c", api=[at(server, "left"), at(server, "right", "WRONG_KEY")])
    told(capsys, "run", str(manifest))
    assert main(["show", str(place.output / "images" / "a.png")]) == 0
    assert "api nebula at left" in capsys.readouterr().out
    assert main(["report", str(place.output)]) == 0
    page = Path(place.output / "report.html").read_text()
    assert "Who answered" in page and "left" in page
    assert main(["export", str(place.output), "--to", "csv", "-o", str(table)]) == 0
    header, *rows = table.read_text().splitlines()
    assert "endpoint" in header.split(",") and all(",left," in row for row in rows)
