"""A run's numbers as Prometheus reads them from a file (text exposition format 0.0.4, without timestamps). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from batchgen.model import ExitCode
from batchgen.summary import Summary

METRICS: Mapping[str, str] = {
    "batchgen_running": "Whether a run is at work (1) or not (0).",
    "batchgen_last_exit_code": "Exit code of the last run that ended, also of one that could not begin.",
    "batchgen_last_run_timestamp_seconds": "When the last run ended or, while it is at work, was last heard of.",
    "batchgen_last_success_timestamp_seconds": "When a run last ended with exit code 0.",
    "batchgen_start_timestamp_seconds": "When the run began.",
    "batchgen_duration_seconds": "How long the run took.",
    "batchgen_jobs": "Selected jobs by state: done, failed, uncertain, pending.",
    "batchgen_jobs_in_doubt": "Jobs that may have been paid for without an answer.",
    "batchgen_failures": "Jobs without a picture, by the cause of their last failure.",
    "batchgen_left": "Jobs that the run left to another one, by cause.",
    "batchgen_run_pictures": "Jobs for which the run made pictures.",
    "batchgen_run_requests": "Requests that the run sent.",
    "batchgen_run_retries": "Requests of the run that were repetitions.",
    "batchgen_run_cost_usd": "What the run cost, in US dollars.",
    "batchgen_run_exposure_usd": "What the run may have paid without a picture, in US dollars.",
    "batchgen_pictures_per_minute": "Pictures a minute over the whole run.",
    "batchgen_inference_seconds": "The server's own seconds a picture, by quantile.",
}
# What tells of other runs than the one at work.
_LASTING = ("batchgen_last_exit_code", "batchgen_last_success_timestamp_seconds")
_SAMPLE = re.compile(r"(batchgen_\w+)\{(.*)\} (\S+)")

Samples = dict[str, dict[str, str]]


def labels(**named: str) -> str:
    """Label pairs as they stand between braces, with backslashes, quotes and line ends escaped."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in named.items())


def _escaped(value: str) -> str:
    value = value.encode("utf-8", "backslashreplace").decode()
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def parse(text: str, of: str) -> Samples:
    """The samples of a file that `render` has written, as far as they carry the labels `of`."""
    found: Samples = {}
    for line in text.split("\n"):
        match = _SAMPLE.fullmatch(line)
        if match and match[1] in METRICS and f"{match[2]},".startswith(f"{of},"):
            found.setdefault(match[1], {})[match[2]] = match[3]
    return found


def of_run(summary: Summary, before: Samples, of: str, utc: datetime, *, running: bool) -> Samples:
    """The samples of a run that has ended or is at work; `before` is what the file told until now."""
    found: Samples = {}

    def tell(name: str, value: float | None, **more: str) -> None:
        if value is not None:
            found.setdefault(name, {})[f"{of},{labels(**more)}" if more else of] = _number(value)

    for name in _LASTING:
        if of in before.get(name, {}):
            found[name] = {of: before[name][of]}
    tell("batchgen_running", running)
    tell("batchgen_last_run_timestamp_seconds", utc.timestamp())
    if not running:
        tell("batchgen_last_exit_code", summary.exit_code)
    if not running and summary.exit_code == ExitCode.OK:
        tell("batchgen_last_success_timestamp_seconds", utc.timestamp())
    tell("batchgen_start_timestamp_seconds", datetime.fromisoformat(summary.started_at).timestamp())
    tell("batchgen_duration_seconds", summary.wall_s)
    for state in ("done", "failed", "uncertain", "pending"):
        tell("batchgen_jobs", getattr(summary, state), state=state)
    tell("batchgen_jobs_in_doubt", summary.in_doubt)
    for failure, count in _failures(summary).items():
        tell("batchgen_failures", count, failure=failure)
    for failure, count in sorted(summary.left.items()):
        tell("batchgen_left", count, failure=failure)
    tell("batchgen_run_pictures", summary.made)
    tell("batchgen_run_requests", summary.requests)
    tell("batchgen_run_retries", summary.retries)
    tell("batchgen_run_cost_usd", summary.cost_usd)
    tell("batchgen_run_exposure_usd", summary.exposure_usd)
    tell("batchgen_pictures_per_minute", summary.pictures_per_minute)
    if times := summary.inference_s:
        for quantile, value in (("0.5", times.p50), ("0.95", times.p95), ("1", times.max)):
            tell("batchgen_inference_seconds", value, quantile=quantile)
    return found


def of_refusal(exit_code: int, before: Samples, of: str, utc: datetime) -> Samples:
    """The samples after a run that ended without a summary: what it cannot know stays as it was."""
    now = {
        "batchgen_running": "0",
        "batchgen_last_exit_code": _number(exit_code),
        "batchgen_last_run_timestamp_seconds": _number(utc.timestamp()),
    }
    return before | {name: {of: value} for name, value in now.items()}


def render(samples: Samples) -> str:
    """The file, metric after metric, each with its help and type."""
    return "".join(_lines(samples))


def _lines(samples: Samples) -> Iterator[str]:
    for name, help in METRICS.items():
        if found := samples.get(name):
            yield f"# HELP {name} {help}\n# TYPE {name} gauge\n"
            yield from (f"{name}{{{of}}} {value}\n" for of, value in found.items())


def _failures(summary: Summary) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in summary.failures:
        found[group.failure] = found.get(group.failure, 0) + group.count
    return found


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 6))
