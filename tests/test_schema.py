"""The JSON Schema of manifests: it takes what the reader takes, refuses typical mistakes, and is the one that ships."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import json_values

import batchgen
from batchgen import schema
from batchgen.cli import main
from batchgen.manifest import FIELDS, LIMITS, Format, Rules, jobs, read, yaml12
from batchgen.model import FileInput, ManifestError, Problem

VALIDATOR = jsonschema.Draft7Validator(schema.schema())
JOBS = Path(__file__).parent.parent / "jobs"


def reader_takes(text: str) -> bool:
    """Whether a run would begin with this YAML manifest."""
    try:
        document = read("m", Format.YAML, io.BytesIO(text.encode()))
    except ManifestError:
        return False
    defaults = {"model": "flux", "prompt": "fox"} | document.header.defaults
    found = jobs(document.rows, Rules("m", "nebula", lambda path: FileInput(path, "ab" * 32), defaults))
    return not any(isinstance(job, Problem) for job in found)


def schema_takes(text: str) -> bool:
    """Whether an editor finds nothing to underline."""
    node, problems = yaml12.parse("m", text)
    assert node and not problems
    return not list(VALIDATOR.iter_errors(node.value))


GOOD = {
    "a list": "- fox\n- {prompt: owl}\n- 1984\n- no\n",
    "no jobs": "jobs: []",
    "everything": """
api: {style: openai, url: "http://127.0.0.1:9997/v1", key_env: MY_KEY}
limits: {concurrency: 8, requests_per_minute: 0.5, requests_per_day: 1, max_cost_usd: "5", max_requests: 1,
         attempts: 100, uncertain_retries: 0, timeout_s: 86400}
prices_usd: {a/b: 0.003, c: 0}
embed: false
defaults: {model: 010, width: "512", params: {scheduler: ddim}}
jobs: [{id: 010, prompt: 1e3, negative_prompt: "", width: 65536, height: 1, num_steps: 10000, guidance_scale: -1.5,
        seed: -1, image: a.png, mask: b.png, params: {anything: [1, {deep: null}]}, meta: {n: 1}}]
""",
    "a word for the api": "api: sandbox\njobs: [a]",
    "nothing said": "api:\nlimits:\nprices_usd:\ndefaults:\njobs: [{prompt: a, width: , seed: null, params: }]",
    "quoted numbers": '- {prompt: a, width: " 512 ", seed: "7", num_steps: "0x10", guidance_scale: "1e0"}',
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_what_the_reader_takes_the_schema_takes(text: str) -> None:
    """No editor underlines what runs."""
    assert reader_takes(text)
    assert schema_takes(text)


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_fit_the_schema(path: Path) -> None:
    """The manifests that ship are without a mark."""
    assert schema_takes(path.read_text())


BAD = {
    "unknown field": "- {prompt: a, widht: 512}",
    "unknown section": "job: [a]\njobs: []",
    "a job's field at the top": "width: 512\njobs: [a]",
    "no jobs": "defaults: {width: 512}",
    "jobs that are no list": "jobs: {prompt: a}",
    "a job that is a list": "- [a, b]",
    "an empty job": "- a\n-\n",
    "wrong type": "- {prompt: a, width: wide}",
    "a list for a number": "- {prompt: a, width: [1, 2]}",
    "a half pixel": "- {prompt: a, width: 1.5}",
    "out of range": "- {prompt: a, width: 0}",
    "too large": "- {prompt: a, height: 65537}",
    "too many steps": "- {prompt: a, num_steps: 10001}",
    "a seed below -1": "- {prompt: a, seed: -2}",
    "a blank prompt": "- {prompt: '  '}",
    "a mapping for a prompt": "- {prompt: {a: b}}",
    "a truth for a number": "- {prompt: a, width: true}",
    "a field below params": "- {prompt: a, params: {width: 3}}",
    "params that are a list": "- {prompt: a, params: [1]}",
    "a typo in limits": "limits: {concurency: 3}\njobs: [a]",
    "a limit of nothing": "limits: {concurrency: 0}\njobs: [a]",
    "a pace of nothing": "limits: {requests_per_minute: 0}\njobs: [a]",
    "limits that are a number": "limits: 3\njobs: [a]",
    "a negative price": "prices_usd: {a: -1}\njobs: [a]",
    "a price in words": "prices_usd: {a: cheap}\njobs: [a]",
    "unknown api": "api: nebulous\njobs: [a]",
    "unknown part of api": "api: {key: ak_123}\njobs: [a]",
    "an address without a scheme": "api: {url: 127.0.0.1}\njobs: [a]",
    "a key for its variable": "api: {key_env: ak-1 2}\njobs: [a]",
    "an id for all": "defaults: {id: a}\njobs: [a]",
    "unknown default": "defaults: {steps: 4}\njobs: [a]",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_typical_mistakes_are_refused_by_both(text: str) -> None:
    """What a run would refuse is underlined while it is written."""
    assert not reader_takes(text)
    assert not schema_takes(text)


EXPANDING = {
    "matrix": "- {id: '{a}-{width}', prompt: 'a {a}', matrix: {a: [cat, {name: dog, seed: 7}], width: [1]}}",
    "exclude": "- {prompt: '{a}{b}', matrix: {a: [1, 2], b: [x]}, exclude: [{a: 1, b: x}]}",
    "repeat": "- {prompt: a, repeat: 4, seed: auto}",
    "seeds": "- {prompt: a, seed: [1, 2, 3]}",
    "seeds of all": "defaults: {seed: auto}\njobs: [a]",
    "a template for a number": "- {prompt: a, width: '{w}', matrix: {w: [512, 768]}}",
    "rows of a file": "- {from: p.dat, format: csv, columns: {prompt: Caption}, width: 512}",
}


@pytest.mark.parametrize("text", EXPANDING.values(), ids=EXPANDING.keys())
def test_jobs_that_stand_for_several_fit_the_schema(text: str) -> None:
    """Matrix, repetition, seeds and files of rows have their shapes."""
    assert schema_takes(text)


WRONG_EXPANDING = {
    "an axis without values": "- {prompt: a, matrix: {b: []}}",
    "an axis that is no list": "- {prompt: a, matrix: {b: c}}",
    "a matrix without axes": "- {prompt: a, matrix: {}}",
    "a matrix that is a list": "- {prompt: a, matrix: [b]}",
    "repeat of nothing": "- {prompt: a, repeat: 0}",
    "no seeds": "- {prompt: a, seed: []}",
    "seeds in words": "- {prompt: a, seed: [auto]}",
    "unknown format": "- {from: a, format: xls}",
    "a matrix for all": "defaults: {matrix: {a: [1]}}\njobs: [a]",
}


@pytest.mark.parametrize("text", WRONG_EXPANDING.values(), ids=WRONG_EXPANDING.keys())
def test_mistakes_in_jobs_that_stand_for_several(text: str) -> None:
    """Shapes that no matrix and no list of seeds has are refused, by the reader too."""
    assert not schema_takes(text)
    assert not reader_takes(text)


VALUES = json_values | st.integers(-3, 70_000) | st.sampled_from(["512", "auto", "a", "", " ", "1e3", "{a}", -1, 2**63])


@given(
    st.lists(st.dictionaries(st.sampled_from([*FIELDS, "steps"]), VALUES, max_size=4) | VALUES, max_size=2),
    st.dictionaries(st.sampled_from([*LIMITS, "rpm"]), VALUES, max_size=3) | VALUES,
    # An id in defaults is refused by the schema even where it is empty and the reader lets it pass.
    st.dictionaries(st.sampled_from([name for name in FIELDS if name != "id"]), VALUES, max_size=3) | VALUES,
)
def test_nothing_that_runs_is_underlined(rows: list[Any], limits: Any, defaults: Any) -> None:
    """Whatever stands in fields, limits and defaults: what the reader takes the schema takes."""
    text = json.dumps({"limits": limits, "defaults": defaults, "jobs": rows})
    if reader_takes(text):
        assert schema_takes(text)


def test_the_schema_is_one_itself() -> None:
    """It follows the draft that it names."""
    jsonschema.Draft7Validator.check_schema(schema.schema())


def test_the_schema_that_ships_is_the_generated_one(capsys: pytest.CaptureFixture[str]) -> None:
    """`batchgen schema > batchgen/batchgen.schema.json` after the tables have changed."""
    assert main(["schema"]) == 0
    shipped = (Path(batchgen.__file__).parent / schema.FILE).read_text()
    assert shipped == capsys.readouterr().out == schema.text()


def test_every_field_explains_itself() -> None:
    """An editor shows what each field is for."""
    found = schema.schema()["definitions"]["job"]["then"]["properties"]
    assert all(len(field["description"]) > 10 for field in found.values())
    assert set(found) > set(FIELDS)
