"""README's chapter for cron, systemd and make: its blocks are taken from there and run as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest
import yaml
from test_ping import Switch, switch

from batchgen.metrics import METRICS
from batchgen.runner.live import Work
from batchgen.runner.look import Status
from batchgen.summary import Summary

if TYPE_CHECKING:
    from conftest import Place

__all__ = ["switch"]
README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
ROOT = "/srv/pictures"
KEY_FILE = "/etc/batchgen.key"


def blocks(kind: str) -> list[str]:
    """The chapter's blocks of this kind."""
    chapter = README.partition("\n## From cron, systemd and make\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{kind}\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)


@pytest.fixture
def installed(place: Place) -> Place:
    """What the chapter finds in /srv/pictures: the command in its environment, a manifest, a key."""
    folder = place.root / ".venv" / "bin"
    folder.mkdir(parents=True)
    # A link would look for its packages beside itself.
    place.write(".venv/bin/batchgen", f'#!/bin/sh\nexec "{sys.executable}" -m batchgen.cli "$@"\n').chmod(0o755)
    place.jobs("a", "b", name="tonight.yaml", api="sandbox")
    place.write("key", "ak_the-key\n").chmod(0o600)
    return place


def evening() -> str:
    """A time zone in which it is half past ten in the evening, so that `--until 06:30` is near."""
    now = datetime.now(UTC)
    west_min = (now.hour * 60 + now.minute - (22 * 60 + 30)) % 1440
    return f"EVE{west_min // 60}:{west_min % 60:02d}"


def moved(text: str, place: Place) -> str:
    return text.replace(ROOT, str(place.root)).replace(KEY_FILE, str(place.root / "key"))


def test_the_crontab_line_works_in_crons_environment(installed: Place, switch: type[Switch]) -> None:
    """Run by /bin/sh with what cron gives, the line makes the pictures, says nothing, and tells the switch."""
    server = switch()
    [crontab] = blocks("crontab")
    setting, line = moved(crontab, installed).splitlines()
    name, _, url = setting.partition("=")
    assert (name, url[:8]) == ("BATCHGEN_PING", "https://")
    *times, command = line.split(None, 5)
    assert times == ["30", "22", "*", "*", "*"] and "%" not in command.replace("\\%", "")
    home = installed.root / "home"
    home.mkdir()
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", name: server.url, "TZ": evening()}
    ended = subprocess.run(
        ["/bin/sh", "-c", command.replace("\\%", "%")], env=env, cwd=home, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert {path.name for path in (installed.root / "outputs/tonight/images").iterdir()} == {"a.png", "b.png"}
    assert server.steps == ["start", "0"]


def test_the_service_starts_what_it_says(installed: Place) -> None:
    """Its command, in its folder and with the key as systemd hands it over, makes the pictures."""
    service = moved(blocks("ini")[0], installed)
    said = dict(line.split("=", 1) for line in service.splitlines() if "=" in line and line[0] != "#")
    name, _, source = said["LoadCredential"].partition(":")
    credentials = installed.root / "credentials"
    credentials.mkdir()
    shutil.copy(source, credentials / name)
    (credentials / name).chmod(0o440)
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(installed.root),
        "CREDENTIALS_DIRECTORY": str(credentials),
        "TZ": evening(),
    }
    command = said["ExecStart"].split()
    ended = subprocess.run(command, cwd=said["WorkingDirectory"], env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 and "2 of 2 jobs are done" in ended.stderr
    assert "can be read by others" not in ended.stderr and name == "nebula_api_key"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze (Debian package systemd)")
def test_systemd_takes_the_units(installed: Place, tmp_path: Path) -> None:
    """systemd's own check of both units finds nothing, and the timer's hour is one."""
    units = [moved(text, installed) for text in blocks("ini")]
    for name, text in zip(("batchgen.service", "batchgen.timer"), units, strict=True):
        installed.write(name, text)
    files = [str(installed.root / name) for name in ("batchgen.service", "batchgen.timer")]
    env = os.environ | {"SYSTEMD_LOG_LEVEL": "warning"}
    ended = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, timeout=60, env=env)
    ours = [line for line in ended.stderr.splitlines() if str(installed.root) in line or "batchgen." in line]
    assert (ended.returncode, ours) == (0, [])
    [hour] = re.findall("^OnCalendar=(.*)$", units[1], re.MULTILINE)
    assert subprocess.run(["systemd-analyze", "calendar", hour], capture_output=True, timeout=60).returncode == 0


# The Makefile


class Project:
    """A folder with the chapter's Makefile and two manifests, one of which reads rows and a picture."""

    def __init__(self, place: Place) -> None:
        self.place, self.root = place, place.root
        place.write("Makefile", blocks("make")[0])
        beside: dict[str, Any] = {"api": "sandbox"}
        place.write("jobs/rows.csv.txt", "prompt one\n")
        place.jobs("a", {"from": "rows.csv.txt", "format": "txt"}, name="jobs/rows.yaml", **beside)
        place.jobs("b", name="jobs/plain.yaml", **beside)
        for path in (self.root / "jobs").iterdir():
            self.age(path, 1000)

    def make(self, *targets: str) -> str:
        batchgen = self.root / ".venv" / "bin" / "batchgen"
        command = ["make", "-k", f"BATCHGEN={batchgen}", *targets]
        ended = subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=100)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr

    def age(self, path: Path, seconds: float) -> None:
        moment = time.time() - seconds
        os.utime(path, (moment, moment), follow_symlinks=False)

    def stamps(self) -> dict[str, float]:
        return {path.stem: path.stat().st_mtime for path in (self.root / "outputs").glob("*.stamp")}


def test_the_makefile_makes_what_is_needed_and_nothing_else(installed: Place) -> None:
    """All manifests at first, then nothing; a file that one of them reads makes exactly that one again, and publishing
    copies what is complete, for everybody to read."""
    project = Project(installed)
    said = project.make("publish")
    assert said.count("jobs are done") == 2 and set(project.stamps()) == {"rows", "plain"}
    page = project.root / "public" / "rows" / "report.html"
    picture = next((project.root / "public" / "rows" / "images").iterdir())
    assert page.is_file() and picture.stat().st_mode & 0o444 == 0o444
    before = project.stamps()
    assert "batchgen run" not in project.make("publish") and project.stamps() == before
    for path in (project.root / "outputs").rglob("*"):
        project.age(path, 100)
    installed.write("jobs/rows.csv.txt", "prompt one\nprompt two\n")
    before = project.stamps()
    said = project.make()
    assert "3 of 3 jobs are done" in said and said.count("jobs are done") == 1
    after = project.stamps()
    assert after["rows"] > before["rows"] and after["plain"] == before["plain"]
    would = project.make("-n", "plan", "report")
    assert "for file in jobs/plain.yaml jobs/rows.yaml; do" in would and "for name in plain rows; do" in would


# Tables


def rows(after: str) -> set[str]:
    """What the first table behind a text names in its first column."""
    table = README.partition(after)[2].partition("|---|---|\n")[2].partition("\n\n")[0]
    return {name for row in table.splitlines() for name in re.findall("`([^`]+)`", row.split("|")[1])}


def test_every_field_of_a_summary_is_documented() -> None:
    """The table of `summary.json` names its fields, all of them and no others."""
    assert rows("### summary.json\n") == set(get_type_hints(Summary))


def test_every_field_of_a_status_is_documented() -> None:
    """The table of `status --json` names every field, and those of a run at work."""
    named = rows("`--json` prints one object (with `--watch`")
    assert {name for name in named if not name.startswith("work.")} | {"v"} == set(Status.__struct_fields__)
    text = README.partition("### Where it stands")[2].partition("### summary.json")[0]
    assert [name for name in Work.__struct_fields__ if f"`{name}`" not in text and f"`work.{name}`" not in text] == []


def test_every_metric_is_documented_and_alerts_name_real_ones() -> None:
    """The table of metrics and the two rules know no metric that is not written."""
    assert {name.partition("{")[0] for name in rows("### Metrics\n")} == set(METRICS)
    [rules] = [block for block in blocks("yaml") if "groups:" in block]
    found = yaml.safe_load(rules)["groups"][0]["rules"]
    named = {name for rule in found for name in re.findall(r"batchgen_\w+", rule["expr"])}
    assert len(found) == 2 and named <= set(METRICS)
