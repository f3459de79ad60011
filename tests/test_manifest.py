"""Manifests of every format: what is read, what is refused, and where the problems are said to stand."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.manifest import FIELDS, LIMITS, Format, Rules, canonical, fingerprint, format_of, jobs, overrides, read
from batchgen.model import Api, FileInput, Job, ManifestError, Problem, UsageError


def file_input(path: str) -> FileInput:
    """Stands for the files beside a manifest: every path holds a picture, but those called `missing`."""
    if "missing" in path:
        raise ValueError(f"{path} does not exist")
    return FileInput(path, "ab" * 32)


def found(format: str, text: str | bytes, **rules: Any) -> list[Job | Problem]:
    """Jobs and problems of a manifest called `m`, with a default model."""
    data = text if isinstance(text, bytes) else text.encode()
    document = read("m", Format(format), io.BytesIO(data))
    defaults = {"model": "flux"} | document.header.defaults | rules.pop("defaults", {})
    place = document.default_place
    return list(jobs(document.rows, Rules("m", "nebula", file_input, defaults, default_place=place, **rules)))


def jobs_of(format: str, text: str | bytes, **rules: Any) -> list[Job]:
    """The jobs of a manifest that has no problems."""
    all_found = found(format, text, **rules)
    assert [str(p) for p in all_found if isinstance(p, Problem)] == []
    return [job for job in all_found if isinstance(job, Job)]


def problems_of(format: str, text: str | bytes, **rules: Any) -> list[str]:
    """The problems of a manifest as people see them, wherever they were found."""
    try:
        return [str(p) for p in found(format, text, **rules) if isinstance(p, Problem)]
    except ManifestError as error:
        assert error.count == len(error.problems)
        return str(error).split("\n")


SAME_JOBS = {
    "yaml": 'jobs: [{id: a, prompt: "a fox", width: 512, seed: 7, params: {s: 2}}, {id: b, prompt: "no\\u2028pe"}]',
    "bare list": '[{id: a, prompt: "a fox", width: 512, seed: 7, params: {s: 2}}, {id: b, prompt: "no\\u2028pe"}]',
    "csv": "id,Prompt,WIDTH,seed,params.s\na,a fox,512,7,2\nb,no\u2028pe,,,\n",
    "tsv": "id\tprompt\twidth\tseed\tparams.s\r\na\ta fox\t512\t7\t2\r\nb\tno\u2028pe",
    "jsonl": '{"id":"a","prompt":"a fox","width":512,"seed":7,"params":{"s":2}}\n\n{"prompt":"no\u2028pe","id":"b"}',
}


@pytest.mark.parametrize("name", SAME_JOBS)
def test_every_format_says_the_same(name: str) -> None:
    """The same jobs come out with the same fingerprints, whichever format they were written in."""
    one, two = jobs_of("yaml" if name == "bare list" else name, SAME_JOBS[name])
    assert (one.id, one.model, one.request) == ("a", "flux", {"prompt": "a fox", "width": 512, "seed": 7, "s": 2})
    assert (two.id, two.request) == ("b", {"prompt": "no\u2028pe"})
    assert one.fingerprint == fingerprint("nebula", "flux", one.request)


PROMPTS = [
    pytest.param(
        "tsv", 'Prompt\tNote\n"GO" in neon, "tall"\tx\n', ['"GO" in neon, "tall"'], id="tsv row starts with a quote"
    ),
    pytest.param("tsv", "prompt\n a fox  \n", [" a fox  "], id="edge blanks stay"),
    pytest.param("csv", b"\xef\xbb\xbfprompt\r\n\xc3\xa9\r\n", ["é"], id="byte order mark"),
    pytest.param(
        "csv", 'prompt,width\r\n"a\r\nb, ""c""",1\r\n\r\n,\r\nd\r\n', ['a\r\nb, "c"', "d"], id="CRLF in quotes"
    ),
    pytest.param("csv", 'prompt,width\nab"c,\n', ['ab"c'], id="quote inside a bare cell"),
    pytest.param("csv", "prompt,width,,\na,1,,\n", ["a"], id="empty columns at the end"),
    pytest.param("csv", "prompt\n" + "x" * 200_000, ["x" * 200_000], id="a cell of 200 kB"),
    pytest.param("txt", "a\r\n\r\n  \n b \na", ["a", " b ", "a"], id="text lines"),
    pytest.param("txt", "a\u2028b\x85c\n", ["a\u2028b\x85c"], id="only line feeds end lines"),
    pytest.param(
        "yaml", "- 1984\n- no\n- {prompt: 16:9}\n- {prompt: 1e3}\n", ["1984", "no", "16:9", "1e3"], id="as written"
    ),
    pytest.param("yaml", "- |\n  two\n  lines\n", ["two\nlines\n"], id="yaml block"),
    pytest.param("yaml", "jobs: []", [], id="no jobs"),
    pytest.param("csv", "", [], id="empty file"),
    pytest.param("csv", "prompt,width\n", [], id="header only"),
    pytest.param("jsonl", "\n\r\n", [], id="blank lines only"),
    pytest.param("txt", "{0.__class__} %s {{ x }}", ["{0.__class__} %s {{ x }}"], id="templates are text"),
]


@pytest.mark.parametrize(("format", "text", "prompts"), PROMPTS)
def test_prompts_are_kept_exactly(format: str, text: str | bytes, prompts: list[str]) -> None:
    """A prompt is sent exactly as it was written, whatever its format does with quotes, blanks and line ends."""
    assert [job.prompt for job in jobs_of(format, text)] == prompts


def test_other_columns_become_meta() -> None:
    """Columns that are no fields ride along as text, under the header's own spelling."""
    (job,) = jobs_of("csv", "Prompt,Category,Note,prompt_id,meta.n,params.n\nfox,animals,,7,010,010\n")
    assert job.meta == {"Category": "animals", "prompt_id": "7", "n": "010"}
    assert job.request == {"prompt": "fox", "n": 10}


def test_the_row_wins_over_flags_and_flags_over_defaults() -> None:
    """A field comes from the row, else from -D, else from the defaults; params and meta are merged by name."""
    text = """
defaults: {model: old, width: 1, height: 1, params: {a: 1, b: 1, c: 1}, meta: {m: 1}}
jobs: [{prompt: p, width: 3, params: {c: 3}, meta: {n: 3}}]
"""
    (job,) = jobs_of(
        "yaml", text, overrides=overrides(["model=new", "height=2", "width=2", "params.b=2", "params.c=2"])
    )
    assert job.model == "new"
    assert job.request == {"prompt": "p", "width": 3, "height": 2, "a": 1, "b": 2, "c": 3}
    assert list(job.request) == ["prompt", "width", "height", "a", "b", "c"]
    assert job.meta == {"m": 1, "n": 3}


def test_the_header_is_read() -> None:
    """API, limits, prices and defaults of a YAML manifest arrive with their right types."""
    text = """
api: {style: openai, url: "http://127.0.0.1:9997/v1", key_env: MY_KEY}
limits: {concurrency: 8, requests_per_minute: 0.5, max_cost_usd: "5"}
prices_usd: {a/b: 0.003}
defaults: {model: 010, width: "512"}
jobs: []
"""
    header = read("m", Format.YAML, io.BytesIO(text.encode())).header
    [api] = header.apis
    assert (api.style, api.url, api.key_env) == ("openai", "http://127.0.0.1:9997/v1", "MY_KEY")
    assert header.limits == {"concurrency": 8, "requests_per_minute": 0.5, "max_cost_usd": 5.0}
    assert header.prices_usd == {"a/b": 0.003}
    assert header.defaults == {"model": "010", "width": 512}
    [short] = read("m", Format.YAML, [b"api: sandbox\n", b"jobs: []"]).header.apis
    assert short.style == "sandbox"


def test_a_list_of_endpoints_is_read() -> None:
    """Each entry is an endpoint, in their order; a word is one, and so is a single mapping."""
    text = """
api:
  - {style: openai, url: "http://a/v1", limits: {concurrency: 2, requests_per_minute: "60"}, name: 7}
  - {style: openai, url: "http://a/v1", key_env: B_KEY}
  - openai
jobs: []
"""
    first, second, third = read("m", Format.YAML, io.BytesIO(text.encode())).header.apis
    assert (first.limits, first.name) == ({"concurrency": 2, "requests_per_minute": 60.0}, "7")
    assert (second.key_env, third) == ("B_KEY", Api("openai"))


BAD_ENDPOINTS = [
    ("[]", "3:6: api: the list is empty"),
    ("[openai, nebula]", "3:15: api: the endpoints of one manifest have one style"),
    ("[{url: https://a/v1}, {url: https://a/v1/}]", "3:28: api: the same url with the same key twice"),
    ("[openai, openai]", "the same url with the same key twice"),
    ("[{key_env: A_KEY, name: x}, {key_env: B_KEY, name: x}]", "two endpoints are called 'x'"),
    ("[{style: sandbox, url: http://localhost:1}, sandbox]", "several sandboxes need an address each"),
    ("[{ulr: https://a/v1}]", "'ulr' is not a known field; did you mean 'url'?"),
    ("[{limits: {max_cost_usd: 5}}]", "3:17: api.limits: 'max_cost_usd' is no limit of one endpoint"),
    ("[{limits: {concurency: 5}}]", "did you mean 'concurrency'?"),
    ("[{limits: {concurrency: 0}}]", "api.limits: concurrency: expected a whole number from 1"),
    ("[{limits: 5}]", "limits: expected a mapping with concurrency"),
    ("[{name: ''}]", "name: expected up to 60 printable ASCII characters"),
    ("[17]", "3:7: api: expected nebula, sandbox or openai, got 17"),
    ("[[nebula]]", "expected nebula, sandbox or openai"),
]


@pytest.mark.parametrize(("api", "why"), BAD_ENDPOINTS, ids=[row[0] for row in BAD_ENDPOINTS])
def test_bad_endpoints(api: str, why: str) -> None:
    """What is wrong with one of them is told at its place, once."""
    with pytest.raises(ManifestError) as caught:
        read("m", Format.YAML, io.BytesIO(f"defaults: {{model: m}}\n# endpoints\napi: {api}\njobs: [a]\n".encode()))
    [problem] = caught.value.problems
    assert why in str(problem) and problem.line == 3


def test_a_switch_is_true_or_false() -> None:
    """`embed` takes the two words of YAML and nothing that only looks like them; left empty it is not said."""
    said = [read("m", Format.YAML, [f"embed: {word}\n".encode(), b"jobs: []"]).header.embed for word in ("false", "")]
    assert said == [False, None]
    assert problems_of("yaml", "embed: no\njobs: []") == ["m:1:8: embed: expected true or false, got 'no'"]
    assert problems_of("yaml", "embd: true\njobs: []") == ["m:1:1: 'embd' is not known here; did you mean 'embed'?"]


TEN_MISTAKES = """\
limits: {concurrency: 0}
defaults: {heigth: 512}
jobs:
  - {id: a, prompt: fox, width: wide}
  - {id: A, prompt: fox}
  - {id: ../b, prompt: fox}
  - {id: c, promt: fox}
  - {id: d, prompt: "  ", num_steps: true}
  - {id: e, prompt: fox, matrix: {}, params: {width: 1, x: .nan}}
"""


def test_ten_mistakes_are_ten_problems() -> None:
    """All the mistakes of a manifest are told at once, each with its line and column."""
    assert problems_of("yaml", TEN_MISTAKES) == [
        "m:1:23: limits: concurrency: expected a whole number from 1 to 10000, got 0",
        "m:2:12: defaults: 'heigth' is not a known field; did you mean 'height'?",
        "m:4:33: job 'a': width: expected a whole number of pixels from 1 to 65536, got 'wide'",
        "m:5:10: job 'A': id: 'A' is taken by an earlier job (case and forms of the same letter do not tell ids apart)"
        "; give each job an id of its own",
        "m:6:10: job '../b': id: a part of an id may not start with '.' or '-', got '../b'",
        "m:7:5: job 'c': prompt: not given",
        "m:7:13: job 'c': 'promt' is not a known field; did you mean 'prompt'?",
        "m:8:21: job 'd': prompt: expected text that is not blank, without control characters, got ''",
        "m:8:38: job 'd': num_steps: expected a whole number from 1 to 10000, got true",
        "m:9:26: job 'e': matrix: no axes; write it as in 'matrix: {animal: [cat, dog]}'",
        "m:9:54: job 'e': params: 'width' is a field of its own; write 'width' beside params",
        "m:9:60: job 'e': params.x: expected a finite number, got nan",
    ]


TABLE_PROBLEMS = [
    pytest.param(
        "csv", 'prompt,width\n"a\nb",wide\n', "m:3:4: width: expected a whole", id="cell after a line end in quotes"
    ),
    pytest.param("csv", "prompt,width\na,1\n,2\n", "m:3:1: prompt: not given", id="empty prompt"),
    pytest.param(
        "csv", "prompt,width\nred, fox,1\n", "m:2:10: 3 cells, but the header names 2 columns; quote", id="ragged"
    ),
    pytest.param("tsv", "prompt\twidth\na\twide\n", "m:2:3: width:", id="tsv cell"),
    pytest.param(
        "csv", "prompt,num_step\n", "m:1:8: column 'num_step' looks like the field 'num_steps'", id="nearly a field"
    ),
    pytest.param("csv", "promt\n", "m:1:1: column 'promt' looks like the field 'prompt'", id="nearly prompt"),
    pytest.param("csv", "prompt,Prompt\n", "m:1:8: a second column for 'prompt'", id="column twice"),
    pytest.param("csv", "prompt,,x\n", "m:1:8: a column without a name", id="nameless column"),
    pytest.param("csv", "prompt,params\n", "m:1:8: column 'params': which of the params?", id="params alone"),
    pytest.param("csv", "prompt,repeat\na,many\n", "m:2:3: repeat: expected a whole number from 1", id="repeat column"),
    pytest.param("csv", "a,b\n", "m:1:1: no column 'prompt'; there are: a, b; call", id="no prompt column"),
    pytest.param(
        "tsv",
        "prompt;width\na;1\n",
        "m:1:1: no column 'prompt'; there are: prompt;width; separate the columns by tabs",
        id="semicolons",
    ),
    pytest.param(
        "csv", 'prompt\nfox\n"open\nx\n', "m:3:1: a quoted cell that begins in this row is never", id="open quote"
    ),
    pytest.param("csv", 'prompt\n"a"b\n', "m:2:1: a closing quote is followed by more text", id="text after a quote"),
    pytest.param("csv", "prompt\na\rb\n", "m:2:1: a carriage return stands alone", id="lone carriage return"),
    pytest.param("csv", "prompt\n" + "x" * (1 << 21), "m:2:1: a cell is longer than", id="huge cell"),
    pytest.param("csv", b"prompt\ncaf\xe9\n", "m:2:4: byte 0xe9 is not UTF-8; save the file as UTF-8", id="latin-1"),
    pytest.param("csv", "prompt\na\0\n", "m:2:2: a NUL character", id="NUL"),
    pytest.param("txt", b"\xc3\xa9\xff", "m:1:2: byte 0xff is not UTF-8", id="txt bytes"),
    pytest.param(
        "txt",
        "a\x1b[2Jb",
        r"m:1:1: prompt: expected text that is not blank, without control characters, got 'a\x1b[2Jb'",
        id="escape",
    ),
    pytest.param("jsonl", '{"prompt": é}', "m:1:12: not valid JSON: invalid character", id="broken JSON"),
    pytest.param("jsonl", '{"é": é}', "m:1:7: not valid JSON: invalid character", id="columns count characters"),
    pytest.param("jsonl", '{"prompt": "\\ud800"}', "m:1:1: not valid JSON", id="lone surrogate"),
    pytest.param("jsonl", "[" * 100_000, "m:1:1: not valid JSON: nested too deep", id="deep JSON"),
    pytest.param(
        "jsonl",
        '{"prompt":"a","meta":{"x":' + "[" * 300 + "]" * 300 + "}}",
        "m:1:27: meta.x: more than 100",
        id="deep meta",
    ),
    pytest.param("jsonl", "3", "m:1:1: expected a job object", id="not an object"),
    pytest.param("jsonl", '{"prompt":"x","seed":"once"}', "m:1:22: seed: expected auto, -1 (random)", id="seed"),
    pytest.param(
        "jsonl", '{"prompt":5}', "m:1:11: prompt: expected text that is not blank", id="prompt of the wrong type"
    ),
    pytest.param(
        "jsonl", '{"prompt":"x","image":"missing.png"}', "m:1:23: image: missing.png does not exist", id="missing image"
    ),
]


@pytest.mark.parametrize(("format", "text", "problem"), TABLE_PROBLEMS)
def test_table_problems_have_a_place(format: str, text: str | bytes, problem: str) -> None:
    """A mistake in a table is told with its line, the column of its cell in characters, and what to do."""
    assert problems_of(format, text)[0].startswith(problem)


def test_reading_goes_on_after_a_problem() -> None:
    """The rows after a bad one are read as if nothing had happened, and the bad ones give no job."""
    bad = 'prompt,width\na,1\n"b"x,1\nc,0\nd,1,1\n\xff,1\ne,1\n'.encode("latin-1")
    all_found = found("csv", bad)
    assert [f.prompt if isinstance(f, Job) else f.line for f in all_found] == ["a", 3, 4, 5, 6, "e"]


YAML_PROBLEMS = [
    pytest.param("", "m:1:1: the manifest is empty", id="empty"),
    pytest.param("x", "m:1:1: expected a mapping with 'jobs', or a list of jobs", id="a word"),
    pytest.param("defaults: {}", "m:1:1: 'jobs' is missing", id="no jobs"),
    pytest.param("jobs: {a: 1}", "m:1:7: jobs: expected a list of jobs", id="jobs as a mapping"),
    pytest.param("jobs: []\nlimit: {}", "m:2:1: 'limit' is not known here; did you mean 'limits'?", id="nearly limits"),
    pytest.param("jobs: []\nprompt: x", "m:2:1: 'prompt' is not known here; fields of jobs go", id="a field on top"),
    pytest.param("jobs: []\nlimits: 3", "m:2:9: limits: expected a mapping", id="limits"),
    pytest.param("jobs: []\ndefaults: 3", "m:2:11: defaults: expected a mapping", id="defaults"),
    pytest.param("jobs: []\ndefaults: {id: x}", "m:2:12: defaults: every job would get the same id", id="default id"),
    pytest.param("jobs: []\napi: nebulla", "m:2:6: api: expected nebula, sandbox or openai, got 'nebulla'", id="api"),
    pytest.param("jobs: []\nprices_usd: {m: -1}", "m:2:17: prices_usd: m: expected a price in dollars", id="price"),
    pytest.param("jobs: []\nlimits: {timeout_s: .inf}", "m:2:21: limits: timeout_s: expected seconds", id="infinite"),
    pytest.param(
        "- a poster: big letters",
        "m:1:3: 'a poster' is not a known field; a prompt with ': ' in it needs quotes around it; ",
        id="a prompt with a colon",
    ),
    pytest.param("- [a]", "m:1:3: expected a job, got a list", id="a list as a job"),
    pytest.param("-", "m:1:2: an empty job", id="an empty job"),
    pytest.param("- {prompt: a, meta: {x: [.inf]}}", "m:1:25: meta.x: expected a finite number", id="infinity in meta"),
    pytest.param(
        "jobs: [{prompt: x}]\ndefaults: {image: missing}", "m:2:19: defaults image: missing does", id="default"
    ),
    pytest.param("- {prompt: a\nb: [", "m:2:2: not valid YAML", id="syntax"),
    pytest.param(b"- ok\n- \xc3\xa9\xff", "m:2:4: byte 0xff is not UTF-8", id="bytes"),
    pytest.param(
        "#" * (8 << 20) + "\n", "m: a YAML manifest may hold at most 8 MiB; put the rows into a CSV", id="too large"
    ),
]


@pytest.mark.parametrize(("text", "problem"), YAML_PROBLEMS)
def test_yaml_problems_have_a_place(text: str | bytes, problem: str) -> None:
    """A mistake in a YAML manifest is told with its line and column."""
    assert problems_of("yaml", text)[0].startswith(problem)


def test_a_key_in_the_wrong_place_is_not_shown() -> None:
    """A key pasted where its variable's name belongs does not appear in the message."""
    (problem,) = problems_of("yaml", "jobs: []\napi: {key_env: sk-SECRET}")
    assert "environment variable" in problem and "SECRET" not in problem


def test_a_missing_model_is_told_with_its_remedies() -> None:
    """A job without a model says the three ways of giving one."""
    rows = read("m", Format.TXT, [b"fox\n"]).rows
    (problem,) = jobs(rows, Rules("m", "nebula", file_input))
    assert str(problem) == "m:1:1: model: not given; give it in 'defaults', in the job or with '-D model=NAME'"


def test_a_bad_default_picture_is_told_once() -> None:
    """One default that cannot be read is one problem, however many jobs use it."""
    text = "defaults: {mask: missing.png}\njobs: [a, b, {prompt: c, mask: there.png}]"
    all_found = found("yaml", text)
    assert [f.prompt if isinstance(f, Job) else f.column for f in all_found] == [18, "c"]


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        pytest.param(["width=512", "prompt=010", "seed=-1"], {"prompt": "010", "width": 512, "seed": -1}, id="fields"),
        pytest.param(["params.s=1e3", "params.t=a=b"], {"params": {"s": 1000.0, "t": "a=b"}}, id="params"),
        pytest.param(["meta.n=010"], {"meta": {"n": "010"}}, id="meta is text"),
        pytest.param(["width=1", "width=2"], {"width": 2}, id="the last counts"),
        pytest.param([], {}, id="none"),
    ],
)
def test_overrides(arguments: list[str], values: dict[str, Any]) -> None:
    """-D FIELD=VALUE gives checked values of job fields."""
    assert overrides(arguments) == values


def test_all_bad_overrides_are_told() -> None:
    """Every mistake among the -D arguments is told at once."""
    bad = ["width=x", "foo", "id=3", "params=3", "params.x=.nan", "promp=3", "model=a\udc80", "seed=", "mask= "]
    bad += ["\udcffwidth=1", "meta.\udcff=x"]
    with pytest.raises(UsageError) as caught:
        overrides(bad)
    assert len(str(caught.value).split("\n")) == len(bad)


def test_every_field_and_limit_explains_itself() -> None:
    """Each entry of the tables says what it expects and what it is for."""
    assert all(field.expects and field.help for field in [*FIELDS.values(), *LIMITS.values()])


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.YML", Format.YAML),
        ("b/c.tsv", Format.TSV),
        ("x.ndjson", Format.JSONL),
        ("x.json", Format.JSON),
        ("csv", None),
    ],
)
def test_the_suffix_tells_the_format(name: str, format: Format | None) -> None:
    """The format is known from the suffix, whatever its case."""
    assert format_of(name) is format


def test_tables_are_read_lazily() -> None:
    """The first job is there before the second line of rows has been read, so any length fits into memory."""

    def lines() -> Any:
        yield b"prompt\n"
        yield b"first\n"
        raise AssertionError("read too far")

    assert isinstance(
        next(jobs(read("m", Format.CSV, lines()).rows, Rules("m", "nebula", file_input, {"model": "x"}))), Job
    )


# --- properties


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
requests = st.dictionaries(st.sampled_from(["prompt", "width", "seed", "a", "b"]), json_values, max_size=5)


def backwards(value: Any) -> Any:
    """The same value with the keys of its mappings in the opposite order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(inner) for inner in value] if isinstance(value, list) else value


@given(json_values)
def test_canonical_ignores_the_order_of_keys(value: Any) -> None:
    """Mappings that differ only in the order of their keys have the same canonical form."""
    assert canonical(value) == canonical(backwards(value))


@given(requests, requests)
def test_the_fingerprint_changes_exactly_with_the_request(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Two requests share a fingerprint exactly when their canonical forms are equal."""
    same = canonical(one) == canonical(two)
    assert (fingerprint("s", "m", one) == fingerprint("s", "m", two)) is same
    assert fingerprint("s", "m", one) != fingerprint("t", "m", one) != fingerprint("t", "n", one)


def test_the_path_of_an_input_does_not_count() -> None:
    """A picture that moves keeps the fingerprint, one whose bytes change does not."""
    one, moved, other = FileInput("a", "1"), FileInput("b", "1"), FileInput("a", "2")
    prints = [fingerprint("s", "m", {"image": picture}) for picture in (one, moved, other)]
    assert prints[0] == prints[1] != prints[2]


# --- frozen recipes: a change here renames jobs and buys pictures again


GOLDEN_REQUEST: dict[str, Any] = {
    "prompt": 'a "red" fox\n\u2028é😀\x7f',
    "width": 1024,
    "guidance_scale": 3.5,
    "strength": 1e-7,
    "big": 1e22,
    "whole": 4.0,
    "image": FileInput("a.png", "ab" * 32),
    "list": [True, None, -0.0, 10**30],
}


def test_the_canonical_form_is_frozen() -> None:
    """Canonical JSON stays byte for byte what it was."""
    assert canonical(GOLDEN_REQUEST).decode() == (
        '{"big":1e+22,"guidance_scale":3.5,"image":{"sha256":"'
        + "ab" * 32
        + '"},"list":[true,null,0,'
        + "1"
        + "0" * 30
        + "],"
        '"prompt":"a \\"red\\" fox\\n\u2028é😀\x7f","strength":1e-07,"whole":4,"width":1024}'
    )


def test_the_fingerprint_is_frozen() -> None:
    """The fingerprint of a given request never changes."""
    assert (
        fingerprint("nebula", "black-forest-labs/FLUX.1-schnell", GOLDEN_REQUEST) == "201adccc827408e3142fe6ade9ab21a5"
    )
