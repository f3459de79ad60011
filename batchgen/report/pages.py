"""The page's text: template, style and script put together, with a policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from batchgen.report import charts
from batchgen.report.charts import Chart, Table
from batchgen.report.compare import compare
from batchgen.report.gathering import Report
from batchgen.report.numbers import Numbers, RunNumbers
from batchgen.report.verdict import dollars, iso_of, moment, verdict
from batchgen.summary import FailureGroup, percentile
from batchgen.text import counted, duration

RUNS_LISTED = 40
TIMELINES = 6
_FEW = 3
_SCRIPTS = ("data.js", "state.js", "tiles.js", "grid.js", "dialog.js", "main.js")
_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src '{style}'; script-src '{script}';"
    " base-uri 'none'; form-action 'none'"
)


def render(report: Report) -> Iterator[str]:
    """The page in pieces. `report` must have taken in all entries."""
    template, numbers, scene = _environment().get_template("report.html"), report.numbers, report.scene
    runs = numbers.in_order()
    found = compare(runs)
    groups = report.groups
    style, script = _source("style.css"), _script()
    yield from template.generate(
        policy=_POLICY.format(style=_digest(style), script=_digest(script)),
        style=Markup(style),
        script=Markup(script),
        version=scene.version,
        stand=scene.stand,
        made=moment(scene.stand.made_at),
        verdict=verdict(scene, numbers, groups, found),
        notices=_notices(report),
        failures=[_failure(n, group, scene.stand.command) for n, group in _by_count(groups)],
        charts=_charts(numbers),
        timelines=_timelines(runs, report),
        trend=charts.trend(runs),
        comparisons=found,
        runs=_table_of_runs(runs),
        endpoints=_table_of_endpoints(numbers),
        listed=report.listed,
        jobs=len(report.rows.rows),
        pieces=(Markup(piece) for piece in report.rows.data(_beside(report))),
    )


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("batchgen.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _script() -> str:
    """All scripts as one, so that they share names with each other and with nothing else."""
    return '(() => {\n"use strict";\n' + "\n".join(map(_source, _SCRIPTS)) + "})();\n"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _beside(report: Report) -> dict[str, Any]:
    groups = [
        group.failure.replace("_", " ") + (f": {group.message}" if group.message else "") for group in report.groups
    ]
    return {"v": 1, "name": report.scene.stand.name, "axes": report.scene.axes, "groups": groups}


def _notices(report: Report) -> list[str]:
    found = [*report.scene.notices, *(report.scene.summary.notices if report.scene.summary else ())]
    if report.broken:
        found.append(f"{counted(report.broken, 'picture')} cannot be shown; `batchgen verify` names them and says why")
    if report.edited:
        found.append(f"{counted(report.edited, 'file')} changed since the log told of it")
    return found


def _by_count(groups: Sequence[FailureGroup]) -> list[tuple[int, FailureGroup]]:
    return sorted(enumerate(groups), key=lambda item: -item[1].count)


def _failure(number: int, group: FailureGroup, command: str | None) -> dict[str, Any]:
    """A group for the page: few jobs are named in its command, of many all that ended alike are taken."""
    again = None
    if command:
        only = [f"--only {shlex.quote(job)}" for job in group.jobs] if group.count <= _FEW else []
        again = " ".join([command, f"--retry {group.outcome.value}", *only])
    return {"number": number, "group": group, "more": group.count - len(group.jobs), "command": again}


def _charts(numbers: Numbers) -> list[Chart]:
    drawn = (
        charts.distribution(numbers.inference_by_model()),
        charts.where_time_went(numbers.spent),
        charts.per_day(numbers.days, priced=numbers.priced),
    )
    return [chart for chart in drawn if chart]


def _timelines(runs: Sequence[RunNumbers], report: Report) -> list[Chart]:
    """Of the last runs, the last first."""
    found = (charts.timeline(run, report.scene.pace) for run in reversed(runs))
    return [chart for chart, _ in zip(filter(None, found), range(TIMELINES), strict=False)]


def _table_of_runs(runs: Sequence[RunNumbers]) -> Table:
    head = ("Run", "Took", "Done", "Failed", "Uncertain", "Requests", "p50", "p95", "Cost")
    return Table(head, [_row(run) for run in list(reversed(runs))[:RUNS_LISTED]])


def _table_of_endpoints(numbers: Numbers) -> Table:
    """No rows where no run had several."""
    rows = []
    for name, each in sorted(numbers.endpoints.items(), key=lambda item: (-item[1].pictures, item[0])):
        p50 = f"{percentile(sorted(each.inference_s), 0.5):.2f} s" if each.inference_s else "–"
        rows.append((name, f"{each.jobs:,}", f"{each.pictures:,}", f"{each.failures:,}", p50))
    return Table(("Endpoint", "Jobs", "Pictures", "Failed attempts", "p50"), rows)


def _row(run: RunNumbers) -> tuple[str, ...]:
    seconds = run.all_inference_s()
    p50, p95 = (f"{percentile(seconds, part):.2f} s" if seconds else "–" for part in (0.5, 0.95))
    counts = (f"{n:,}" for n in (run.done, run.failed, run.uncertain, run.requests))
    return (moment(iso_of(run)), duration(run.wall_s), *counts, p50, p95, dollars(run.cost_usd) if run.priced else "–")
