"""Metrics: what Prometheus' own reader makes of the file, and what a later run keeps of an earlier one's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as families

from batchgen.metrics import METRICS, Samples, labels, of_refusal, of_run, parse, render
from batchgen.model import Outcome
from batchgen.summary import FailureGroup, Inference, Summary

NOW = datetime(2026, 11, 22, 23, tzinfo=UTC)
OF = labels(manifest="/m.yaml", output="/out")


def summary(**changes: Any) -> Summary:
    whole = Summary(
        run="r",
        manifest="m.yaml",
        output="out",
        exit_code=3,
        verdict="finished",
        started_at="2026-11-22T22:00:00.000Z",
        finished_at="2026-11-22T23:00:00.000Z",
        wall_s=3600.5,
        total=10,
        selected=10,
        done=5,
        failed=3,
        uncertain=1,
        pending=1,
        in_doubt=1,
        made=4,
        requests=12,
        retries=2,
        pictures_per_minute=0.07,
        inference_s=Inference(1.5, 2.5, 3.0),
        cost_usd=0.012,
        exposure_usd=0.003,
        failures=[
            FailureGroup("bad_request", Outcome.FAILED, 2, "no", ["a", "b"]),
            FailureGroup("bad_request", Outcome.FAILED, 1, "never", ["c"]),
            FailureGroup("no_answer", Outcome.UNCERTAIN, 1, "?", ["d"]),
        ],
        left={"gateway": 1},
    )
    return msgspec.structs.replace(whole, **changes)


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What the official reader finds: values by name and by the labels besides those that all have."""
    assert text.endswith("\n") and not text.endswith("\n\n")
    found = {}
    for family in families(text):
        assert family.type == "gauge" and family.documentation == METRICS[family.name]
        for sample in family.samples:
            assert sample.timestamp is None
            more = tuple(sorted((k, v) for k, v in sample.labels.items() if k not in ("manifest", "output")))
            found[sample.name, more] = sample.value
    return found


def of_end(before: Samples | None = None, **changes: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return read(render(of_run(summary(**changes), before or {}, OF, NOW, running=False)))


def test_prometheus_reads_what_the_run_did() -> None:
    """Every metric of the table is there with its help, type and value; causes are added up."""
    found = of_end(exit_code=0)
    assert {name for name, _ in found} == set(METRICS)
    assert [found["batchgen_jobs", (("state", s),)] for s in ("done", "failed", "uncertain", "pending")] == [5, 3, 1, 1]
    assert found["batchgen_failures", (("failure", "bad_request"),)] == 3
    assert found["batchgen_inference_seconds", (("quantile", "0.95"),)] == 2.5
    assert found["batchgen_last_run_timestamp_seconds", ()] == NOW.timestamp()
    assert (found["batchgen_duration_seconds", ()], found["batchgen_run_cost_usd", ()]) == (3600.5, 0.012)


def test_what_is_not_known_is_not_told() -> None:
    """Without prices and pictures there is neither a cost of 0 nor a time of 0."""
    names = {name for name, _ in of_end(cost_usd=None, exposure_usd=None, inference_s=None, pictures_per_minute=None)}
    assert not {n for n in names if "cost" in n or "exposure" in n or "inference" in n or "per_minute" in n}


def test_the_last_success_outlives_failures_and_only_a_success_moves_it() -> None:
    """An alert on it must neither vanish nor be reset by a run that failed, is at work, or could not begin."""
    success = of_run(summary(exit_code=0), {}, OF, NOW, running=False)
    later = datetime(2026, 11, 24, tzinfo=UTC)
    for after in (
        of_run(summary(), parse(render(success), OF), OF, later, running=False),
        of_run(summary(exit_code=0), parse(render(success), OF), OF, later, running=True),
        of_refusal(2, parse(render(success), OF), OF, later),
    ):
        assert read(render(after))["batchgen_last_success_timestamp_seconds", ()] == NOW.timestamp()
        assert read(render(after))["batchgen_last_run_timestamp_seconds", ()] == later.timestamp()
    assert ("batchgen_last_success_timestamp_seconds", ()) not in of_end()


def test_a_run_at_work_keeps_the_last_exit_code() -> None:
    """Until a run has ended, the code is that of the run before."""
    before = of_run(summary(exit_code=7), {}, OF, NOW, running=False)
    found = read(render(of_run(summary(exit_code=4), before, OF, NOW, running=True)))
    assert (found["batchgen_running", ()], found["batchgen_last_exit_code", ()]) == (1, 7)


def test_a_run_that_could_not_begin_changes_only_what_it_knows() -> None:
    """Jobs and costs are those of the last run that had some; code, time and that nothing runs are new."""
    before = of_run(summary(), {}, OF, NOW, running=True)
    found = read(render(of_refusal(2, parse(render(before), OF), OF, NOW)))
    assert found["batchgen_last_exit_code", ()] == 2 and found["batchgen_running", ()] == 0
    assert found["batchgen_jobs", (("state", "done"),)] == 5


def test_causes_of_an_earlier_run_are_forgotten() -> None:
    """A failure that is over must not stand in the file for ever."""
    before = of_run(summary(), {}, OF, NOW, running=False)
    assert "batchgen_failures" not in {name for name, _ in of_end(before, failures=[], left={})}


def test_another_manifests_file_is_not_ours() -> None:
    """Samples with other labels, or lines that are none, tell nothing of this manifest."""
    other = labels(manifest="/m.yaml", output="/out2")
    text = render(of_run(summary(), {}, other, NOW, running=False)) + "batchgen_jobs 7\nnonsense\n"
    assert parse(text, OF) == {}


@given(st.text(), st.text())
def test_names_come_back_whole(manifest: str, output: str) -> None:
    """Whatever a path holds, Prometheus reads it as it was (what is no text, escaped), and so do we."""
    of = labels(manifest=manifest, output=output)
    text = render(of_refusal(2, {}, of, NOW))
    samples = [sample for family in families(text) for sample in family.samples]
    assert len(samples) == 3
    shown = {
        name: value.encode("utf-8", "backslashreplace").decode()
        for name, value in (("manifest", manifest), ("output", output))
    }
    assert [sample.labels for sample in samples] == [shown] * 3
    assert len(parse(text, of)) == 3
