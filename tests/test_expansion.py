"""One row that stands for many jobs: matrix, repeat, seeds and variables, their counts and their mistakes."""

from __future__ import annotations

import io
import json
from collections import Counter
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.manifest import Format, Rules, Tally, jobs, read, survey
from batchgen.manifest.expansion import Expansion
from batchgen.manifest.row import Row, nowhere
from batchgen.manifest.templates import compiled, parse, rendered, tells_apart
from batchgen.manifest.unfold import unfold
from batchgen.model import FileInput, Job, ManifestError, Problem

GRID = """
- id: "{animal}-{style}"
  prompt: "a {animal}, {style}"
  matrix: {animal: [cat, dog], style: [oil painting, neon]}
  repeat: 2
  seed: 7
"""


def rules(**changes: Any) -> Rules:
    """Rules of a manifest called `m`, with a default model, beside which every picture lies."""
    said: dict[str, Any] = {"defaults": {"model": "flux"}, "digest": lambda path: FileInput(path, path)}
    return Rules("m", "nebula", **(said | changes))


def found(yaml: str, **changes: Any) -> list[Job | Problem]:
    """Jobs and problems of a YAML manifest."""
    document = read("m", Format.YAML, io.BytesIO(yaml.encode()))
    return list(jobs(document.rows, rules(**{"defaults": {"model": "flux"} | document.header.defaults} | changes)))


def jobs_of(yaml: str, **changes: Any) -> list[Job]:
    """The jobs of a YAML manifest without problems."""
    all_found = found(yaml, **changes)
    assert [str(p) for p in all_found if isinstance(p, Problem)] == []
    return [job for job in all_found if isinstance(job, Job)]


def jobs_of_row(values: dict[str, Any], **variables: Any) -> list[Job | Problem]:
    """Jobs and problems of one row, with a table's other columns as variables."""
    return list(jobs([Row(1, values, nowhere, variables)], rules()))


def said(job: Job | Problem) -> tuple[str, str, dict[str, Any], str]:
    """All that makes a job the job it is."""
    assert isinstance(job, Job), job
    return job.id, job.model, job.request, job.fingerprint


# --- matrix


def test_a_grid_is_every_combination_in_order() -> None:
    """The first axis varies slowest, the repetition fastest, and each job says where in the grid it stands."""
    grid = jobs_of(GRID)
    assert [(job.id, job.prompt, job.request["seed"]) for job in grid] == [
        (f"{animal}-{style.replace(' ', '-')}-{n}", f"a {animal}, {style}", 6 + n)
        for animal, style, n in product(["cat", "dog"], ["oil painting", "neon"], [1, 2])
    ]
    assert grid[2].axes == {"animal": "cat", "style": "neon", "repeat": "1"}


def test_three_by_four_by_five_is_sixty() -> None:
    """A matrix of 3 x 4 with five repetitions gives sixty jobs."""
    assert len(jobs_of('- {prompt: "{a}{b}", matrix: {a: [1, 2, 3], b: [p, q, r, s]}, repeat: 5}')) == 60


def test_excluded_combinations_are_left_out() -> None:
    """An exclude drops all the combinations that match every value it gives, and no other."""
    grid = GRID + "  exclude: [{animal: cat, style: neon}, {style: oil painting, animal: dog}]\n"
    assert [job.id for job in jobs_of(grid)] == ["cat-oil-painting-1", "cat-oil-painting-2", "dog-neon-1", "dog-neon-2"]
    assert len(jobs_of(GRID + "  exclude: [{animal: cat}]\n")) == 4


def test_an_axis_named_like_a_field_sets_it() -> None:
    """Fields, models, single params and whole prompts vary with their own types, and templates may name them."""
    text = """
- id: "{prompt}/{model}-{guidance_scale}-{params.strength}"
  matrix:
    prompt: ["a {model} fox", a cat]
    model: [x/flux, sdxl]
    guidance_scale: [3.50, 7.0]
    params.strength: [0.5]
  params: {scheduler: ddim}
"""
    first, *_, last = jobs_of(text)
    assert first.id == "a-model-fox/x-flux-3.5-0.5"
    assert (first.model, first.request) == (
        "x/flux",
        {"prompt": "a x/flux fox", "guidance_scale": 3.5, "scheduler": "ddim", "strength": 0.5},
    )
    assert (last.id, last.request["guidance_scale"]) == ("a-cat/sdxl-7-0.5", 7.0)


def test_a_value_may_set_several_fields_and_have_texts_of_its_own() -> None:
    """A mapping sets its fields; its other keys are variables with the axis's name before them; `name` is its name."""
    text = """
- id: "{style}-{size}"
  prompt: "a fox, {style.text}, {size.width} wide"
  negative_prompt: people
  matrix:
    size: [{name: wide, width: 1344, height: 768}, {width: 512, height: 512}]
    style: [{name: oil, text: 010, negative_prompt: "{size}", params: {lora: 1}}, {name: neon, text: no, meta: {s: 2}}]
  exclude: [{size: 512-512, style: oil}]
  meta: {size: "{size}"}
"""
    oil, neon, small = jobs_of(text)
    assert (oil.id, oil.request, oil.meta) == (
        "oil-wide",
        {"prompt": "a fox, 010, 1344 wide", "negative_prompt": "wide", "width": 1344, "height": 768, "lora": 1},
        {"size": "wide"},
    )
    assert (neon.prompt, neon.request["negative_prompt"], neon.meta) == (
        "a fox, no, 1344 wide",
        "people",
        {"size": "wide", "s": 2},
    )
    assert (small.id, small.axes) == ("neon-512-512", {"size": "512-512", "style": "neon"})


def test_derived_ids_of_a_grid_tell_what_the_job_says() -> None:
    """Without an id each job is called after its own prompt, and defaults do not rename it."""
    text = '- {prompt: "a {animal}", matrix: {animal: [cat, dog], width: [8, 9]}, repeat: 2}'
    names = [job.id for job in jobs_of(text)]
    assert [name.rsplit("-", 2)[0] for name in names] == ["a-cat"] * 4 + ["a-dog"] * 4
    assert len(set(names)) == 8 and [name[-2:] for name in names] == ["-1", "-2"] * 4
    assert [job.id for job in jobs_of(text, overrides={"height": 3, "seed": "auto"})] == names


# --- repeat and seeds

SEEDS = [
    pytest.param("repeat: 3, seed: 7", [("a-1", 7), ("a-2", 8), ("a-3", 9)], id="counted on"),
    pytest.param("repeat: 2, seed: -1", [("a-1", -1), ("a-2", -1)], id="random stays random"),
    pytest.param("repeat: 2", [("a-1", None), ("a-2", None)], id="no seed"),
    pytest.param("repeat: 1", [("a-1", None)], id="one"),
    pytest.param('repeat: "2"', [("a-1", None), ("a-2", None)], id="as text, from a table"),
    pytest.param("seed: [1, 5, 9]", [("a-1", 1), ("a-2", 5), ("a-3", 9)], id="a sequence"),
    pytest.param("seed: [1, 5], repeat: 2", [("a-1", 1), ("a-2", 5)], id="a sequence and its length"),
    pytest.param("repeat: ~, matrix: ~, exclude: ~, seed: 3", [("a", 3)], id="nothing is said"),
    pytest.param("seed: auto", [("a", 85657443)], id="from the id"),
    pytest.param("seed: auto, repeat: 2", [("a-1", 568309200), ("a-2", 1413376158)], id="from each id"),
]


@pytest.mark.parametrize(("row", "expected"), SEEDS)
def test_repetitions_and_seeds(row: str, expected: list[tuple[str, int | None]]) -> None:
    """What repetitions are called and which seeds they get; automatic seeds are frozen."""
    assert [(job.id, job.request.get("seed")) for job in jobs_of(f"- {{id: a, prompt: fox, {row}}}")] == expected


def test_a_seed_among_the_defaults_counts_on_as_well() -> None:
    """A default seed, a number or `auto`, holds for repetitions as if it stood in the job."""
    assert [job.request["seed"] for job in jobs_of("{defaults: {seed: 4}, jobs: [{prompt: a, repeat: 2}]}")] == [4, 5]
    automatic = jobs_of("{defaults: {seed: auto}, jobs: [{id: a, prompt: a}, {id: b, prompt: a, seed: 9}]}")
    assert [job.request["seed"] for job in automatic] == [85657443, 9]


def test_an_automatic_seed_does_not_rename() -> None:
    """Whether `seed: auto` stands in the job, in the defaults or nowhere: the derived id is the same."""
    names = {jobs_of(f"{{defaults: {{{d}}}, jobs: [{{prompt: fox{j}}}]}}")[0].id for d, j in SAME_NAME}
    assert len(names) == 1


SAME_NAME = [("", ""), ("seed: auto", ""), ("", ", seed: auto")]


def test_the_number_may_stand_elsewhere_in_the_id() -> None:
    """An id that names `{repeat}` gets no number at its end."""
    assert [job.id for job in jobs_of('- {id: "{repeat}/fox", prompt: fox, repeat: 2}')] == ["1/fox", "2/fox"]


# --- variables


LITERAL = "{x} {{y}} } {0.__class__}"


@pytest.mark.parametrize("row", ["", ", repeat: 2", ", seed: [1, 2]", ", seed: auto"])
def test_braces_of_a_job_without_variables_are_braces(row: str) -> None:
    """A prompt is sent as it was written unless the job has variables; a repetition alone is none."""
    assert {job.prompt for job in jobs_of(f'- {{prompt: "{LITERAL}"{row}}}')} == {LITERAL}


def test_the_columns_of_a_table_are_variables() -> None:
    """Prompt, negative prompt, paths, params and meta take values as they are, the id takes them as slugs."""
    row = {
        "id": "{Kind}/{N}",
        "prompt": "a {Kind} {{fox}}",
        "negative_prompt": "{N}",
        "image": "in/{Kind}.png",
        "params": {"list": ["{Kind}", {"deep": "{N}"}], "n": 3},
        "meta": {"note": "{Kind}!", "Kind": "Über {Fox}"},
    }
    (job,) = jobs_of_row(row, Kind="Über {Fox}", N=7)
    assert isinstance(job, Job)
    assert (job.id, job.prompt, job.request["negative_prompt"]) == ("über-fox/7", "a Über {Fox} {fox}", "7")
    assert job.request["image"] == FileInput("in/Über {Fox}.png", "in/Über {Fox}.png")
    assert job.request["list"] == ["Über {Fox}", {"deep": "7"}]
    assert job.meta == {"note": "Über {Fox}!", "Kind": "Über {Fox}"}


def test_columns_and_axes_go_together() -> None:
    """A matrix beside a table's rows makes every combination for each of them."""
    row = {"id": "{Kind}-{light}", "prompt": "a {Kind} at {light}", "matrix": {"light": ["dawn", "dusk"]}}
    assert [said(job)[0] for job in jobs_of_row(row, Kind="red fox")] == ["red-fox-dawn", "red-fox-dusk"]


@settings(deadline=None)
@given(st.text(), st.dictionaries(st.text(st.characters(exclude_characters="{}"), max_size=5), st.text()))
def test_what_was_put_in_is_not_looked_at_again(literal: str, values: dict[str, str]) -> None:
    """Literal text with doubled braces and any values come out just as they are, whatever is in them."""
    doubled = literal.replace("{", "{{").replace("}", "}}")
    template = doubled + "".join(f"{{{name}}}{doubled}" for name in values)
    expected = literal + "".join(f"{value}{literal}" for value in values.values())
    assert rendered(compiled(template), values) == expected


# --- mistakes

TWO = "matrix: {a: [p, q], b: [r, s]}"
PROBLEMS = [
    ("{prompt: x, matrix: 3}", "15: matrix: expected a mapping of axes to lists"),
    ("{prompt: x, matrix: {}}", "15: matrix: no axes; write it as in"),
    ("{prompt: x, matrix: {a: 3}}", "27: axis 'a': expected a list of values, got '3'"),
    ("{prompt: x, matrix: {a: []}}", "27: axis 'a': no values"),
    ('{prompt: "{a}", matrix: {a: [1, 01, 1]}}', "39: axis 'a': the value '1' stands here twice"),
    ("{prompt: x, matrix: {seed: [1, 0x1]}}", "34: axis 'seed': the value '1' stands here twice"),
    ('{prompt: "{a}", matrix: {a: [~]}}', "32: axis 'a': expected text without control characters, or a number"),
    ('{prompt: "{a}", matrix: {a: [[1]]}}', "32: axis 'a': value: expected text"),
    ('{prompt: "{a}", matrix: {a: ["\\e[2J"]}}', "32: axis 'a': value: expected text"),
    ('{prompt: "{a}", matrix: {a: [{}]}}', "32: axis 'a': an empty mapping"),
    ('{prompt: "{a}", matrix: {a: [{name: [1]}]}}', "39: axis 'a': name: expected text"),
    ('{prompt: "{a}", matrix: {a: [{params: {x: [1]}}]}}', "32: axis 'a': a mapping without a plain value"),
    ("{prompt: x, matrix: {a: [{id: x}]}}", "33: axis 'a': 'id' cannot stand in a value"),
    ("{prompt: x, matrix: {width: [8, wide]}}", "35: axis 'width': width: expected a whole number"),
    ("{prompt: x, matrix: {s: [{width: 0}]}}", "36: axis 's': width: expected a whole number"),
    ("{prompt: x, matrix: {params.width: [8]}}", "39: axis 'params.width': params: 'width' is a field"),
    ("{prompt: x, matrix: {model: [{name: y, seed: 3}]}}", "32: axis 'model': this value does not say its 'model'"),
    ('{prompt: x, matrix: {"a b": [1]}}', "31: axis 'a b': expected a name of letters"),
    ("{prompt: x, matrix: {id: [1]}}", "28: axis 'id': the name has a meaning of its own"),
    ("{prompt: x, matrix: {params: [1]}}", "32: axis 'params': which of the params?"),
    ("{prompt: x, matrix: {exclude: [1]}}", "33: matrix: 'exclude' is no axis; write it beside"),
    ("{prompt: x, matrix: {widht: [1]}}", "31: axis 'widht': it sets no field that is sent, and no prompt, path or id"),
    ('{prompt: x, matrix: {a: [1, 2]}, meta: {a: "{a}"}}', "27: axis 'a': it sets no field that is sent"),
    ("{prompt: x, matrix: {s: [{width: 8, heigt: 9}]}}", "46: axis 's': 'heigt' is no field, and no text names"),
    ("{prompt: x, matrix: {s: [{width: 8}], width: [9]}}", "48: axis 'width': the axis 's' sets 'width' as well"),
    (
        '{prompt: "{aa} {animal}", matrix: {animal: [1]}}',
        "12: prompt: '{aa}' is not known; known: {animal}; write",
    ),
    ('{prompt: "{anmal}", matrix: {animal: [1]}}', "12: prompt: '{anmal}' is not known; did you mean '{animal}'?"),
    ('{prompt: "{a.b.__class__} {a}", matrix: {a: [1]}}', "12: prompt: '{a.b.__class__}' is not known"),
    ('{prompt: "{a!r} {a}", matrix: {a: [1]}}', "12: prompt: '{a!r}' is not known"),
    ('{prompt: "{a} {", matrix: {a: [1]}}', "12: prompt: a lone '{' in '{a} {'; write '{{' and '}}' for braces"),
    ('{prompt: "{s.t}", matrix: {s: [{t: 3}, {name: b}]}}', "12: prompt: '{s.t}' is not known; give it to every value"),
    ('{matrix: {prompt: ["{b}"]}}', "22: matrix.prompt.0.prompt: '{b}' is not known"),
    ('{prompt: "{repeat}", matrix: {seed: [1]}}', "12: prompt: '{repeat}' is not known"),
    ('{id: "{a}", prompt: "{a}{b}", ' + TWO + "}", "8: job '{a}': id: does not name the axis 'b', so jobs would share"),
    ('{id: x, prompt: "{a}{b}", ' + TWO + "}", "8: job 'x': id: does not name the axes 'a', 'b', so jobs would share"),
    ('{id: "{a}", prompt: "{a}", matrix: {a: [N, n!]}}', "46: job '{a}': axis 'a': 'N' and 'n!' are both 'n' in an id"),
    ('{prompt: "{a}", matrix: {a: [x]}, exclude: [{a: z}]}', "51: exclude: the axis 'a' has no value 'z'"),
    (
        '{prompt: "{a}", matrix: {a: [x]}, exclude: [{b: z}]}',
        "51: exclude: 'b' is no axis of the matrix; the axes are:",
    ),
    ('{prompt: "{a}", matrix: {a: [x]}, exclude: [{}]}', "47: exclude: expected a mapping of axes to values"),
    ('{prompt: "{a}", matrix: {a: [x]}, exclude: {a: x}}', "37: exclude: expected a list of combinations"),
    ('{prompt: "{a}", matrix: {a: [x]}, exclude: [{a: x}]}', "37: exclude: no combination is left"),
    ("{prompt: x, exclude: []}", "15: exclude: there is no matrix"),
    ("{prompt: x, repeat: 0}", "15: repeat: expected a whole number from 1"),
    ("{prompt: x, repeat: true}", "15: repeat: expected a whole number from 1"),
    ("{prompt: x, repeat: 1e99}", "15: repeat: expected a whole number from 1"),
    ("{prompt: x, repeats: 2}", "15: 'repeats' is not a known field; did you mean 'repeat'?"),
    ("{prompt: x, seed: []}", "21: seed: an empty sequence"),
    ("{prompt: x, seed: [1, x]}", "25: seed: expected auto, -1 (random)"),
    ("{prompt: x, seed: [auto]}", "22: seed: a sequence holds numbers, got 'auto'"),
    ("{prompt: x, seed: [1, 1]}", "21: seed: 1 stands here twice"),
    ("{prompt: x, seed: [1, 2], repeat: 3}", "29: repeat: 3, but there are 2 seeds"),
    ("{prompt: x, seed: [1, 2], matrix: {seed: [3]}}", "21: seed: a sequence, and the axis 'seed' sets it as well"),
    ("{prompt: x, matrix: {seed: [1, 3]}, repeat: 3}", "30: axis 'seed': repeat counts on from seed 1 into the next"),
    ('{id: "{a}", prompt: "{a}", matrix: {a: [con]}}', "8: job 'con': id: 'con' is the name of a device on Windows"),
    ("{matrix: {width: [1, 2]}}", "3: prompt: not given"),
]


@pytest.mark.parametrize(("row", "problem"), PROBLEMS)
def test_a_mistake_is_one_problem_at_its_place(row: str, problem: str) -> None:
    """Each mistake in what expands a job is told once, with its column, and gives no job."""
    (told,) = found(f"- {row}")
    assert str(told).startswith(f"m:1:{problem}"), str(told)


def test_an_axis_may_not_be_called_like_a_column() -> None:
    """A name that would mean two things is refused."""
    (problem,) = jobs_of_row({"prompt": "{Kind}", "matrix": {"Kind": [1, 2]}}, Kind="x")
    assert "axis 'Kind': a column has the same name" in str(problem)


def test_a_mistake_of_some_jobs_is_told_once_for_each_cause() -> None:
    """What only some combinations do wrong stands at the value that causes it, not at every job that has it."""
    text = '- {prompt: x, image: "{file}.png", matrix: {file: [a, b, c], width: [1, 2, 3]}, repeat: 4}'

    def digest(path: str) -> FileInput:
        if path != "a.png":
            raise ValueError(f"no {path}")
        return FileInput(path, "")

    all_found = found(text, digest=digest)
    assert [str(p) for p in all_found if isinstance(p, Problem)] == [f"m:1:22: image: no {n}.png" for n in "bc"]
    assert sum(isinstance(job, Job) for job in all_found) == 12


def test_a_seed_that_counts_beyond_its_range_is_a_problem() -> None:
    """The seed of a repetition is never more than the API can take."""
    last, problem = found(f"- {{prompt: x, seed: {2**63 - 1}, repeat: 9}}")
    assert isinstance(last, Job)
    assert str(problem) == "m:1:21: seed: with 'repeat' it counts beyond 2**63-1; begin lower"


def test_a_default_that_names_a_variable_is_a_problem() -> None:
    """Nothing is bought with a prompt whose names were never replaced; other braces of a default are just braces."""
    jobs_in_braces = "jobs: [{id: '{a}', matrix: {a: [x, y]}}]"
    (problem,) = found("{defaults: {prompt: 'an {a}'}, " + jobs_in_braces + "}")
    assert str(problem).startswith("m:1:39: job '{a}': prompt: the default names '{a}', but names are replaced in jobs")
    literal = jobs_of("{defaults: {prompt: 'an {x} }'}, " + jobs_in_braces + "}")
    assert [job.prompt for job in literal] == ["an {x} }"] * 2


@pytest.mark.parametrize("field", ["matrix: {a: [1]}", "repeat: 3", "exclude: []"])
def test_what_expands_is_no_default(field: str) -> None:
    """Matrix and repeat among the defaults are told to belong into a job."""
    with pytest.raises(ManifestError, match=r"defaults: '\w+' is no default; write it into a job"):
        found(f"{{defaults: {{{field}}}, jobs: []}}")


def test_an_endless_row_of_failures_ends() -> None:
    """A row whose jobs all fail is not walked to its end."""

    def digest(path: str) -> FileInput:
        raise ValueError("no " + path)

    values = {"prompt": "x", "image": "{repeat}.png", "repeat": 10**8}
    told = list(jobs([Row(1, values | {"id": "a"}, nowhere, {"x": "y"})], rules(digest=digest)))
    assert len(told) == 1000


# --- counting without building


def grid_of(a: int, b: int, c: int, **more: Any) -> dict[str, Any]:
    """A row whose matrix has so many values on its three axes."""
    axes = {"a": [f"a{n}" for n in range(a)], "b": [f"b{n}" for n in range(b)], "c": [f"c{n}" for n in range(c)]}
    return {"id": "{a}/{b}-{c}", "prompt": "{a} {b} {c}", "matrix": axes} | more


def test_ten_million_jobs_are_counted() -> None:
    """Of a very large row a sample is built, with every value of every axis, and the rest is counted by model."""
    row = Row(1, grid_of(100, 100, 1000, exclude=[{"a": "a3"}, {"b": "b1", "c": "c1"}]), nowhere)
    *sample, tally = survey([row], rules())
    assert isinstance(tally, Tally)
    built = [job for job in sample if isinstance(job, Job)]
    assert tally.models.total() + len(built) == 99 * (100 * 1000 - 1)
    assert {job.axes["c"] for job in built} == {f"c{n}" for n in range(1000)}
    assert {(0, 0, 0), (99, 99, 999)} <= {tuple(int(v[1:]) for v in job.axes.values()) for job in built}


def test_counts_by_model_are_those_of_the_jobs() -> None:
    """A surveyed row has as many jobs of each model as a built one."""
    row = Row(1, grid_of(30, 30, 40, repeat=3), nowhere)
    row.values["matrix"]["d"] = [{"name": "x", "model": "sdxl"}, {"name": "y", "width": 8}]
    row.values["id"] += "-{d}"
    row.values["exclude"] = [{"d": "x", "a": "a1"}]
    counted: Counter[str] = Counter()
    for one in survey([row], rules()):
        counted.update(one.models if isinstance(one, Tally) else [one.model] if isinstance(one, Job) else [])
    assert counted == {"sdxl": 29 * 30 * 40 * 3, "flux": 30 * 30 * 40 * 3}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (grid_of(100, 1000, 1000, repeat=2), "matrix: 200,000,000 jobs; at most 100,000,000"),
        (grid_of(100, 100, 1000, id=None), "matrix: more than 100,000 combinations need an id"),
        (grid_of(100, 100, 1000, width="wide"), "width: expected a whole number"),
        (grid_of(100, 100, 1000, prompt=None), "prompt: not given"),
        (grid_of(100, 100, 1000, id="{a}-{b}"), "id: does not name the axis 'c'"),
        ({"prompt": "x", "repeat": 10**8 + 1}, "repeat: expected a whole number from 1 to 100000000"),
    ],
)
def test_a_mistake_in_a_huge_row_is_one_problem(values: dict[str, Any], problem: str) -> None:
    """What is wrong for ten million jobs is told once, without walking them."""
    (told,) = jobs([Row(1, values, nowhere)], rules())
    assert isinstance(told, Problem) and told.what.startswith(problem)


def test_values_that_run_into_each_other_are_found() -> None:
    """Where values could be read in two ways nothing is proven, and a real collision is a problem."""
    values = {"id": "{a}-{b}", "prompt": "{a}{b}", "matrix": {"a": ["x", "x-y"], "b": ["y-z", "z"]}}
    expansion = unfold(Row(1, values, nowhere))
    assert isinstance(expansion, Expansion) and not expansion.tells_apart()
    *_, problem = jobs_of_row(values)
    assert "'x-y-z' is taken by an earlier job" in str(problem)
    apart = unfold(Row(1, values | {"id": "{a}/{b}"}, nowhere))
    assert isinstance(apart, Expansion) and apart.tells_apart()


words = st.text("ab-", max_size=3)


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=4), st.lists(st.sets(words, min_size=1), min_size=3, max_size=3))
def test_a_proof_that_texts_differ_is_one(literals: list[str], choices: list[set[str]]) -> None:
    """Wherever it is proven that different choices give different texts, they do."""
    names = [str(n) for n in range(len(literals) - 1)]
    template = parse("".join(f"{literal}{{{n}}}" for literal, n in zip(literals, names, strict=False)) + literals[-1])
    texts = [template.render(dict(zip(names, picked, strict=False))) for picked in product(*choices[: len(names)])]
    if tells_apart(template, dict(zip(names, choices, strict=False))):
        assert len(set(texts)) == len(texts)


# --- properties

labels = st.lists(st.sampled_from(["cat", "dog", "Red Fox", "ü", "1"]), unique=True, min_size=1, max_size=4)


@st.composite
def grids(draw: st.DrawFn) -> dict[str, Any]:
    """Rows with up to three axes, excludes, repetitions and seeds, with and without an id."""
    axes = draw(st.dictionaries(st.sampled_from(["x", "y", "z"]), labels, min_size=1))
    values: dict[str, Any] = {"prompt": "a " + " ".join(f"{{{name}}}" for name in axes), "matrix": axes}
    if draw(st.booleans()):
        values["id"] = "/".join(f"{{{name}}}" for name in axes)
    if draw(st.booleans()):
        values["repeat"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        values["seed"] = draw(st.sampled_from([7, "auto", -1]))
    picks = st.fixed_dictionaries({}, optional={name: st.sampled_from(axes[name]) for name in axes})
    if excludes := draw(st.lists(picks.filter(bool), max_size=3)):
        values["exclude"] = excludes
    return values


@settings(deadline=None)
@given(grids())
def test_the_count_is_that_of_the_jobs(values: dict[str, Any]) -> None:
    """Arithmetic and building agree, and both with the plain definition of excluding."""
    axes, repeat = values["matrix"], values.get("repeat", 1)
    combinations = [dict(zip(axes, picked, strict=True)) for picked in product(*axes.values())]
    kept = [c for c in combinations if not any(e.items() <= c.items() for e in values.get("exclude", []))]
    expansion = unfold(Row(1, values, nowhere))
    if not kept:
        assert isinstance(expansion, list)
        return
    assert isinstance(expansion, Expansion)
    built = jobs_of_row(values)
    assert [{name: said_axis(job)[name] for name in axes} for job in built] == [c for c in kept for _ in range(repeat)]
    assert expansion.count == len(built) == expansion.models().total()
    assert len({said(job)[0] for job in built}) == len(built)


def said_axis(job: Job | Problem) -> dict[str, str]:
    assert isinstance(job, Job), job
    return job.axes


@settings(deadline=None)
@given(grids(), st.data())
def test_a_value_more_leaves_the_others_as_they_were(values: dict[str, Any], data: st.DataObject) -> None:
    """Ids, seeds and fingerprints of all jobs stay when an axis gets another value, or a job another repetition."""
    before = {said(job)[0]: job for job in jobs_of_row(values)} if has_jobs(values) else {}
    name = data.draw(st.sampled_from(sorted(values["matrix"])))
    at = data.draw(st.integers(0, len(values["matrix"][name])))
    axis = [*values["matrix"][name][:at], "new one", *values["matrix"][name][at:]]
    grown = values | {"matrix": values["matrix"] | {name: axis}}
    if "repeat" in values:
        grown["repeat"] = values["repeat"] + 1
    after = {said(job)[0]: job for job in jobs_of_row(grown)} if has_jobs(grown) else {}
    assert {job_id: after.get(job_id) for job_id in before} == before
    assert len(after) > len(before) or not after


def has_jobs(values: dict[str, Any]) -> bool:
    return isinstance(unfold(Row(1, values, nowhere)), Expansion)


NAMES = ("a", "b", "width", "name", "params", "params.x", "seed", "", "a.b")
TEXTS = ("", "{a}", "{", "x", "..", "\x1b", "auto")
junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"prompt": st.sampled_from(["x", "{a}", "{a} {b}", "{", None])},
        optional={"matrix": junk, "exclude": junk, "repeat": junk, "seed": junk, "id": junk, "meta": junk},
    ),
    st.dictionaries(st.sampled_from(["a", "c"]), junk),
)
def test_nothing_but_jobs_and_problems_comes_of_junk(values: dict[str, Any], variables: dict[str, Any]) -> None:
    """Whatever stands where axes, excludes, repetitions and seeds belong, there is no traceback and no id twice."""
    if isinstance(values.get("repeat"), int) and abs(values["repeat"]) > 5:
        values["repeat"] %= 5
    built = jobs_of_row(values, **variables)
    names = [one.id for one in built if isinstance(one, Job)]
    assert len(names) == len(set(names))
    assert all(str(one).startswith("m:") for one in built if isinstance(one, Problem))
    assert all(json.dumps(one.request, allow_nan=False) for one in built if isinstance(one, Job))
