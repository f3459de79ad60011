"""The readers of each format: the oddities that real files bring, one small file each."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from batchgen.manifest import Format, Include, Row, Rules, included, jobs, read
from batchgen.model import FileInput, Job, Problem


def rows_of(format: str, text: str | bytes, notes: list[str] | None = None) -> list[Row | Problem]:
    """What a file called `m` says, row by row."""
    data = text if isinstance(text, bytes) else text.encode()
    said: list[str] = [] if notes is None else notes
    return list(read("m", Format(format), io.BytesIO(data), note=said.append).rows)


def values_of(format: str, text: str | bytes, notes: list[str] | None = None) -> list[dict[str, Any]]:
    """The values of the rows of a file without problems."""
    rows = rows_of(format, text, notes)
    assert [str(row) for row in rows if isinstance(row, Problem)] == []
    return [row.values for row in rows if isinstance(row, Row)]


def digest(path: str) -> FileInput:
    """Every picture is there but those called `.none`."""
    if path.endswith(".none"):
        raise ValueError(f"there is no file {path!r}")
    return FileInput(path, "ab")


def jobs_of(format: str, text: str | bytes, files: dict[str, str] | None = None) -> list[Job | Problem]:
    """Jobs and problems of a manifest beside which these files lie."""
    held = files or {}

    def include(entry: Include) -> Iterator[Row | Problem]:
        if entry.path not in held:
            yield entry.problem("there is no such file")
            return
        yield from included(entry, entry.path, io.BytesIO(held[entry.path].encode()))

    data = text if isinstance(text, bytes) else text.encode()
    document = read("m", Format(format), io.BytesIO(data), include=include)
    rules = Rules("m", "nebula", digest, {"model": "flux"} | document.header.defaults)
    return list(jobs(document.rows, rules))


def problems_of(format: str, text: str | bytes, files: dict[str, str] | None = None) -> list[str]:
    """The problems of a manifest as people see them."""
    return [str(found) for found in jobs_of(format, text, files) if isinstance(found, Problem)]


# --- tables


VALUES = [
    pytest.param("csv", "prompt;width\na, b;1\n", [{"prompt": "a, b", "width": "1"}], id="semicolons"),
    pytest.param("csv", "prompt\twidth\na, b\t1\n", [{"prompt": "a, b", "width": "1"}], id="tabs in .csv"),
    pytest.param(
        "csv",
        'prompt;"note, short";width\na;x;1\n',
        [{"prompt": "a", "width": "1", "meta": {"note, short": "x"}}],
        id="a comma in a quoted header",
    ),
    pytest.param(
        "csv",
        "prompt;Bemerkung, kurz;width\na;x;1\n",
        [{"prompt": "a", "width": "1", "meta": {"Bemerkung, kurz": "x"}}],
        id="the separator that stands most often",
    ),
    pytest.param("csv", "prompt\na;b;c;d\n", [{"prompt": "a;b;c;d"}], id="only the header counts"),
    pytest.param("csv", "sep=;\r\nprompt;width\r\na;1\r\n", [{"prompt": "a", "width": "1"}], id="line of Excel"),
    pytest.param("csv", '\ufeff"sep=|"\nprompt|width\na;b|1\n', [{"prompt": "a;b", "width": "1"}], id="odd separator"),
    pytest.param("csv", "\n\r\nprompt;width\na;1\n", [{"prompt": "a", "width": "1"}], id="blank lines before"),
    pytest.param(
        "csv", 'prompt;width\r\n"a\r\nb; ""c""";1\r\n', [{"prompt": 'a\r\nb; "c"', "width": "1"}], id="CRLF in quotes"
    ),
    pytest.param(
        "csv",
        "prompt;guidance_scale;params.s;params.t\na, b;3,5;0,75;x, y\nc;4;1;2\n",
        [
            {"prompt": "a, b", "guidance_scale": "3.5", "params": {"s": 0.75, "t": "x, y"}},
            {"prompt": "c", "guidance_scale": "4", "params": {"s": 1, "t": 2}},
        ],
        id="decimal commas",
    ),
    pytest.param("csv", 'prompt,params.t\na,"0,75"\n', [{"prompt": "a", "params": {"t": "0,75"}}], id="no comma here"),
    pytest.param("csv", "prompt,repeat\na,3\n", [{"prompt": "a", "repeat": "3"}], id="repeat rides along"),
    pytest.param(
        "csv", "prompt,exclude,from\na,b,c\n", [{"prompt": "a", "meta": {"exclude": "b", "from": "c"}}], id="own words"
    ),
    pytest.param(
        "tsv", 'prompt\tnote\n"GO" in neon\t"x\n', [{"prompt": '"GO" in neon', "meta": {"note": '"x'}}], id="tsv"
    ),
]


@pytest.mark.parametrize(("format", "text", "values"), VALUES)
def test_tables_are_read_as_they_were_meant(format: str, text: str, values: list[dict[str, Any]]) -> None:
    """Separators, Excel's first line, decimal commas and quotes come out as whoever wrote them meant them."""
    assert values_of(format, text) == values


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("format", ["csv", "tsv", "txt", "jsonl", "json"])
@given(
    prompt=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).filter(lambda text: text[0] not in '-"')
)
def test_every_encoding_gives_the_same_prompt(format: str, encoding: str, prompt: str) -> None:
    """UTF-8 with and without its mark, and UTF-16 with one, hold the same text, whatever bytes its letters have."""
    prompt = prompt.replace("\ufffd", "?").replace('"', "'").replace(",", ".").replace(";", ".") + "\u0a0a"
    shown = {"txt": prompt, "jsonl": json.dumps({"prompt": prompt}), "json": json.dumps([prompt], ensure_ascii=False)}
    text = shown.get(format, f"prompt\n{prompt}\n")
    mark = "\ufeff" if encoding.startswith("utf-16") else ""
    assert values_of(format, (mark + text).encode(encoding)) == [{"prompt": prompt}]


def test_what_is_no_utf16_is_told_with_its_place() -> None:
    """A file that ends within a character, or holds half of a pair, has its line named."""
    data = "\ufeffprompt\nfox\n".encode("utf-16-le") + b"a\0\x00\xd8b\0\n\0"
    assert problems_of("csv", data) == ["m:3:2: this is not UTF-16; save the file as UTF-8"]


@given(
    st.sampled_from(",;\t"),
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["C"]) | st.sampled_from(',;"\r\n'), min_size=1)] * 2),
        min_size=1,
        max_size=4,
    ),
)
def test_what_a_spreadsheet_writes_is_read_back(separator: str, cells: list[tuple[str, str]]) -> None:
    """Whatever cells hold, the standard way of quoting them brings them back, with each separator."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator)
    writer.writerows([("prompt", "Note"), *cells])
    assert values_of("csv", file.getvalue()) == [{"prompt": prompt, "meta": {"Note": note}} for prompt, note in cells]


def test_the_place_of_a_cell_knows_its_separator() -> None:
    """A mistake in a cell behind semicolons, and below Excel's first line, is told at its own line and column."""
    assert problems_of("csv", 'sep=;\nprompt;width\n"a;b";wide\n')[0].startswith("m:3:7: width: expected a whole")


def test_other_columns_are_variables_too() -> None:
    """Templates may name every column that is no field, by the header's own word, the empty cells too."""
    [row] = rows_of("csv", "Prompt,Animal,meta.kind,width\na,,x,3\n")
    assert isinstance(row, Row)
    assert (row.values["meta"], row.variables) == ({"kind": "x"}, {"Animal": "", "meta.kind": "x"})


# --- which column holds the prompts


GUESSED = ["Prompts", "PROMPT_TEXT", "text prompt", "caption", "Captions", "text", "description"]


@pytest.mark.parametrize("name", GUESSED)
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_likely_name_is_taken_for_the_prompt_and_that_is_said(format: str, name: str) -> None:
    """Where nothing is called `prompt`, one likely name stands for it, with a note that names it."""
    notes: list[str] = []
    text = f"{name},Category\nfox,x\n" if format == "csv" else json.dumps({name: "fox", "Category": "x"})
    assert values_of(format, text, notes) == [{"prompt": "fox", "meta": {"Category": "x"}}]
    assert notes == [f"m: the {'column' if format == 'csv' else 'key'} '{name}' is taken for the prompt"]


def test_a_name_of_prompts_is_likelier_than_any_other_text() -> None:
    """`Prompts` beside `description` is no riddle."""
    assert values_of("csv", "description,Prompts\nx,fox\n") == [{"prompt": "fox", "meta": {"description": "x"}}]


def test_a_guess_that_is_not_single_is_an_error() -> None:
    """Two names that could hold the prompt are both told, and neither is taken."""
    notes: list[str] = []
    [problem] = rows_of("csv", "id,caption,Text\n1,a,b\n", notes)
    assert str(problem) == "m:1:12: no column 'prompt'; is it 'caption' or 'Text'?; call that one 'prompt'"
    assert notes == []


def test_with_a_prompt_nothing_is_guessed() -> None:
    """A column `prompt` makes `caption` one of the user's own."""
    notes: list[str] = []
    assert values_of("csv", "caption,prompt\na,b\n", notes) == [{"prompt": "b", "meta": {"caption": "a"}}]
    assert notes == []


@pytest.mark.parametrize(
    ("name", "field"),
    [("num_step", "num_steps"), ("negativ_prompt", "negative_prompt"), ("steps", "num_steps"), ("custom_id", "id")],
)
@pytest.mark.parametrize("format", ["csv", "jsonl", "json"])
def test_nearly_a_field_is_an_error_that_names_it(format: str, name: str, field: str) -> None:
    """What is nearly a field, or a field of other programs, is never silently the user's own."""
    text = f"prompt,{name}\na,1\n" if format == "csv" else json.dumps([{"prompt": "a", name: "1"}])
    [problem] = problems_of(format, text.strip("[]") if format == "jsonl" else text)
    assert f"'{name}' looks like the field '{field}'" in problem and f"'meta.{name}'" in problem


# --- JSON


BATCH_LINE = {
    "custom_id": "r-1",
    "method": "POST",
    "url": "/v1/images/generations",
    "body": {"model": "m/x", "prompt": "a fox", "size": "1024x768", "n": 1, "seed": 7, "quality": "hd"},
}

OBJECTS = [
    pytest.param(
        "jsonl",
        '{"prompt": "a", "matrix": {"x": [1]}, "exclude": [{"x": 1}], "repeat": 2}',
        [{"prompt": "a", "matrix": {"x": [1]}, "exclude": [{"x": 1}], "repeat": 2}],
        id="expansion rides along",
    ),
    pytest.param(
        "jsonl",
        '{"tag": "counting", "include": [{"class": "bus", "count": 3}], "exclude": [], "prompt": "a"}',
        [{"prompt": "a", "meta": {"tag": "counting", "include": [{"class": "bus", "count": 3}], "exclude": []}}],
        id="a benchmark's own keys",
    ),
    pytest.param(
        "jsonl",
        '{"Prompt": "a", "params.s": 1, "params": {"t": 2}, "x": 1, "meta": {"x": 2, "y": 3}}',
        [{"prompt": "a", "params": {"s": 1, "t": 2}, "meta": {"x": 2, "y": 3}}],
        id="meta wins",
    ),
    pytest.param(
        "jsonl",
        '{"prompt": "a: b", "x": {"y": "c: d"}}',
        [{"prompt": "a: b", "meta": {"x": {"y": "c: d"}}}],
        id="colons in texts",
    ),
    pytest.param("jsonl", '{"id": 17, "prompt": "a"}', [{"id": "17", "prompt": "a"}], id="numbers as ids"),
    pytest.param("jsonl", '"a fox"\n', [{"prompt": "a fox"}], id="a line that is a text"),
    pytest.param(
        "jsonl",
        json.dumps(BATCH_LINE),
        [
            {
                "id": "r-1",
                "model": "m/x",
                "prompt": "a fox",
                "width": 1024,
                "height": 768,
                "seed": 7,
                "params": {"quality": "hd"},
            }
        ],
        id="batch line",
    ),
    pytest.param(
        "jsonl",
        '{"custom_id": "a", "url": "https://h/v1/images/generations/", "team": 3,'
        ' "body": {"prompt": "x", "size": "auto", "n": 4}}',
        [{"id": "a", "prompt": "x", "params": {"n": 4}, "meta": {"team": 3}}],
        id="batch line with more",
    ),
    pytest.param(
        "json",
        ' [\n "a",\n {"prompt": "b", "k": {"deep": [1]}}\n]\n',
        [{"prompt": "a"}, {"prompt": "b", "meta": {"k": {"deep": [1]}}}],
        id="array",
    ),
    pytest.param(
        "json",
        '{"fox": "a fox", "a cat": {"prompt": "b"}, "x": {"id": "y", "prompt": "c", "meta": {"m": 1}}}',
        [
            {"id": "fox", "prompt": "a fox"},
            {"prompt": "b", "meta": {"key": "a cat"}},
            {"id": "y", "prompt": "c", "meta": {"key": "x", "m": 1}},
        ],
        id="map",
    ),
    pytest.param("json", "[]", [], id="empty array"),
    pytest.param("json", " {} ", [], id="empty map"),
    pytest.param(
        "json", json.dumps([BATCH_LINE | {"body": {"prompt": "a"}}]), [{"id": "r-1", "prompt": "a"}], id="batch"
    ),
]


@pytest.mark.parametrize(("format", "text", "values"), OBJECTS)
def test_objects_are_jobs(format: str, text: str, values: list[dict[str, Any]]) -> None:
    """Objects of every shape become jobs; what is no field rides along in `meta`, nested values unharmed."""
    assert values_of(format, text) == values


OBJECT_PROBLEMS = [
    pytest.param(
        "jsonl",
        '\n{"prompt": "a", "width": 1, "width": 2}',
        ["m:2:38: the key 'width' stands here twice; remove one"],
        id="key twice",
    ),
    pytest.param(
        "jsonl",
        '{"prompt": "a", "x": {"y": 1, "y": 1}}',
        ["m:1:1: the key 'y' stands here twice; remove one"],
        id="nested key twice",
    ),
    pytest.param(
        "jsonl",
        '{"prompt": "a", "Prompt": "b"}',
        ["m:1:27: a second key for 'prompt'; remove or rename one"],
        id="field twice",
    ),
    pytest.param(
        "jsonl",
        '{"meta": {"width": 3}, "prompt": "é", "width": "wide", "num_step": 3}',
        [
            "m:1:68: key 'num_step' looks like the field 'num_steps'; call it 'num_steps', or 'meta.num_step' to keep"
            " it as your own",
            "m:1:48: width: expected a whole number of pixels from 1 to 65536, got 'wide'",
        ],
        id="all at once",
    ),
    pytest.param(
        "jsonl",
        '["a"]',
        ["m:1:1: expected a job object; let an array of jobs be the whole of a .json file"],
        id="array in JSON Lines",
    ),
    pytest.param(
        "jsonl",
        json.dumps(
            BATCH_LINE
            | {
                "custom_id": "a b",
                "method": "GET",
                "url": "/v1/chat/completions",
                "body": {"prompt": "x", "size": "big", "width": "w"},
            }
        ),
        [
            "m:1:46: job 'a b': url: expected /v1/images/generations, got '/v1/chat/completions'",
            "m:1:32: job 'a b': method: expected POST, got 'GET'",
            "m:1:102: job 'a b': size: expected WIDTHxHEIGHT such as 1024x1024, got 'big'",
            "m:1:118: job 'a b': width: expected a whole number of pixels from 1 to 65536, got 'w'",
        ],
        id="all of a batch line",
    ),
    pytest.param(
        "jsonl",
        '{"custom_id": "a b", "body": {"prompt": "x"}}',
        ["m:1:15: job 'a b': id: an id may hold letters, digits, '.', '_', '-' and '/', not ' ', got 'a b'"],
        id="custom_id",
    ),
    pytest.param("jsonl", '{"custom_id": "a", "body": "x"}', ["m:1:28: body: expected an object, got 'x'"], id="body"),
    pytest.param(
        "json",
        '[\n {"prompt": "a",\n  "width": "wide"},\n 7]',
        [
            "m:3:12: width: expected a whole number of pixels from 1 to 65536, got 'wide'",
            'm:4:2: expected a job object; write {"prompt": "..."}',
        ],
        id="lines in an array",
    ),
    pytest.param(
        "json",
        '[{"prompt": "a"},\n {"prompt": "b",}]',
        ["m:2:17: not valid JSON: Expecting property name enclosed in double quotes"],
        id="broken array",
    ),
    pytest.param("json", '["a"', ["m:1:5: not valid JSON: expected ','"], id="open array"),
    pytest.param(
        "json",
        '{"prompt": "a", "width": 3}',
        [
            "m:1:12: 'prompt' is a field of a job, and stands where a job's name is expected;"
            " put a single job into an array: [{...}]"
        ],
        id="one job",
    ),
    pytest.param(
        "json", '{"a": "x",\n "a": "y"}', ["m:2:7: the key 'a' stands here twice; rename one"], id="name twice"
    ),
    pytest.param(
        "json",
        '{"a": "x"}\n{"a": "y"}',
        ["m:2:1: not valid JSON: Extra data; one object a line is JSON Lines: call it .jsonl, or say --format jsonl"],
        id="JSON Lines",
    ),
    pytest.param(
        "json",
        '{"jobs": ["a"]}',
        ["m:1:10: expected a job object; let an array of jobs be the whole of a .json file"],
        id="jobs within",
    ),
    pytest.param(
        "json",
        '"a"',
        ['m:1:1: expected an array of jobs, or a map from names to jobs; write [{"prompt": "..."}]'],
        id="a text",
    ),
    pytest.param("json", "", ['m:1:1: the manifest is empty; write [{"prompt": "..."}]'], id="empty"),
    pytest.param(
        "json",
        "[" + " " * (8 << 20) + "]",
        ["m: a JSON manifest may hold at most 8 MiB; write one object a line into a .jsonl file"],
        id="too large",
    ),
    pytest.param("json", b'["caf\xe9"]', ["m:1:6: byte 0xe9 is not UTF-8; save the file as UTF-8"], id="bytes"),
]


@pytest.mark.parametrize(("format", "text", "problems"), OBJECT_PROBLEMS)
def test_mistakes_in_objects_have_their_places(format: str, text: str | bytes, problems: list[str]) -> None:
    """All that is wrong with an object is told at once, each at the line and column of its own value."""
    assert [found for found in problems_of(format, text) if "model" not in found] == problems


def test_deep_json_is_a_problem_and_no_crash() -> None:
    """Nesting that would break a reader is refused with its place, in lines as in arrays."""
    deep = "[" * 90_000
    assert "nested too deep" in problems_of("json", "[" + deep)[0]
    assert "more than 100 levels" in problems_of("json", '[{"prompt": "a", "x": ' + "[" * 200 + "]" * 200 + "}]")[0]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b:", '"c"', "é"]), inner),
    max_leaves=8,
)  # fmt: skip


@given(json_values, st.sampled_from([None, 1]), st.booleans())
def test_nested_values_ride_along_unharmed(value: Any, indent: int | None, ascii: bool) -> None:
    """Whatever a key of the user's own holds, `meta` holds the same, however the JSON was laid out."""
    text = json.dumps([{"own": value, "prompt": "a"}], indent=indent, ensure_ascii=ascii)
    assert values_of("json", text) == [{"prompt": "a", "meta": {"own": value}}]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), min_size=1, max_size=5), st.sampled_from(["", " "])
)
def test_a_key_is_said_twice_exactly_when_it_is(pairs: list[tuple[str, int]], blank: str) -> None:
    """A repeated key is always found, and nothing else is taken for one, whatever blanks and colons stand around."""
    said = ",".join(f'"{key}"{blank}:{blank}"{number}:"' for key, number in pairs)
    rows = rows_of("jsonl", f'{{"prompt": "x", {said}}}')
    assert isinstance(rows[0], Problem) is (len(dict(pairs)) < len(pairs))


# --- plain text


def test_lines_of_options_are_those_of_the_web_ui() -> None:
    """A line that starts with an option is read as the web UI's script reads it; every other line is a prompt."""
    notes: list[str] = []
    text = """\
a fox, --ar 16:9
--prompt "a cat" --negative_prompt 'a "b"' --steps 20 --cfg_scale 7 --seed 5 --width 512 --height 256 --sd_model x/y
  --prompt a dog in the rain --negative_prompt blurry, bad --sampler_name "Euler a" --restore_faces true
# a heading
--- dashes
--prompt x --n_iter 4
"""
    assert values_of("txt", text, notes) == [
        {"prompt": "a fox, --ar 16:9"},
        {"prompt": "a cat", "negative_prompt": 'a "b"', "num_steps": "20", "guidance_scale": "7", "seed": "5",
         "width": "512", "height": "256", "model": "x/y"},
        {"prompt": "a dog in the rain", "negative_prompt": "blurry, bad",
         "params": {"sampler_name": "Euler a", "restore_faces": True}},
        {"prompt": "# a heading"},
        {"prompt": "--- dashes"},
        {"prompt": "x", "repeat": "4"},
    ]  # fmt: skip
    assert notes == [f"m: --{name} is sent as it is, as one of 'params'" for name in ("sampler_name", "restore_faces")]


OPTION_PROBLEMS = [
    ("--prompt don't", "m:1:1: not a line of options: no closing quotation; close each quote"),
    ("--prompt a --seed", "m:1:1: --seed has no value"),
    ("--prompt --seed 3", "m:1:1: --prompt has no value"),
    ("--seed 3 4", "m:1:1: expected an option such as --seed, got '4'"),
    ("--seed 3 --seed 4", "m:1:1: --seed stands here twice"),
    ("--prompt a --steps many", "m:1:12: num_steps: expected a whole number from 1 to 10000, got 'many'"),
    ("--seed 3", "m:1:1: prompt: not given"),
]


@pytest.mark.parametrize(("line", "problem"), OPTION_PROBLEMS)
def test_mistakes_in_options_have_their_places(line: str, problem: str) -> None:
    """A line of options that cannot be read, or holds a senseless value, is told with its line."""
    assert problems_of("txt", line)[0].startswith(problem)


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1).filter(str.strip))
@example("a --seed 2")
def test_a_quoted_prompt_comes_back(prompt: str) -> None:
    """Whatever a prompt holds, quoted for a shell it is read back exactly, unless it looks like an option itself."""
    assume(not prompt.startswith("--"))
    found = values_of("txt", f"--prompt {shlex.quote(prompt)} --seed 1\n")
    assert found == [{"prompt": prompt, "seed": "1"}]


def test_text_of_windows_without_a_last_line_end_and_with_twins() -> None:
    """Carriage returns are no part of a prompt, a last line counts without its end, and twins get numbers."""
    found = jobs_of("txt", "a fox\r\na cat\r\na fox\r\na fox")
    ids = [job.id for job in found if isinstance(job, Job)]
    assert ids[2:] == [f"{ids[0]}-2", f"{ids[0]}-3"] and len(found) == 4


# --- files named by `from`


FILES = {
    "p.csv": "Caption,Category,width\na fox,animals,\na car,,64\n",
    "t.txt": "from text\n",
    "o.jsonl": '{"prompt": "an object", "meta": {"b": 2}}\n',
    "a.json": '{"named": "from a map"}',
    "y.yaml": "- from yaml\n- {prompt: two, width: 3}\n",
    "jobs.yaml": "jobs: [last]\n",
    "animals.csv": "animal,style\ncat,oil\n",
    "odd.dat": "prompt\todd\nx\ty\n",
}


def included_values(manifest: str) -> list[tuple[str | None, dict[str, Any]]]:
    """File and values of every row of a YAML manifest beside which FILES lie."""

    def include(entry: Include) -> Iterator[Row | Problem]:
        yield from included(entry, entry.path, io.BytesIO(FILES[entry.path].encode()))

    rows = list(read("m", Format.YAML, io.BytesIO(manifest.encode()), include=include).rows)
    assert [str(row) for row in rows if isinstance(row, Problem)] == []
    return [(row.file, row.values) for row in rows if isinstance(row, Row)]


def test_from_reads_every_format_in_its_turn() -> None:
    """Rows of files stand where their entry stands, whatever the files' formats, and say where they come from."""
    manifest = "\n".join(f"- from: {name}" for name in FILES if name not in ("animals.csv", "odd.dat"))
    found = included_values(f"- first\n{manifest}\n- {{from: odd.dat, format: tsv}}\n")
    assert [(file, values["prompt"]) for file, values in found] == [
        (None, "first"), ("p.csv", "a fox"), ("p.csv", "a car"), ("t.txt", "from text"), ("o.jsonl", "an object"),
        ("a.json", "from a map"), ("y.yaml", "from yaml"), ("y.yaml", "two"), ("jobs.yaml", "last"), ("odd.dat", "x"),
    ]  # fmt: skip


def test_the_row_wins_over_what_stands_beside_from_and_that_over_defaults() -> None:
    """What stands beside `from` fills what rows leave open; params and meta are merged by name."""
    text = """
defaults: {width: 1, height: 1, num_steps: 1}
jobs:
  - {from: p.csv, width: 2, height: 2, meta: {Category: none, night: 3}, params: {s: 1}}
"""
    one, two = (job for job in jobs_of("yaml", text, FILES) if isinstance(job, Job))
    assert one.request == {"prompt": "a fox", "width": 2, "height": 2, "num_steps": 1, "s": 1}
    assert (one.meta, one.line) == ({"Category": "animals", "night": 3}, 2)
    assert (two.request["width"], two.meta) == (64, {"Category": "none", "night": 3})


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("p.csv", b"prompt\n", b"a\n"),
        ("p.tsv", b"prompt\n", b"a\n"),
        ("p.jsonl", b"\n", b'"a"\n'),
        ("p.txt", b"\n", b"a\n"),
    ],
)
def test_files_named_by_from_are_streamed(name: str, first: bytes, second: bytes) -> None:
    """The first row is there before the next line has been read, so any length fits into memory."""

    def lines() -> Iterator[bytes]:
        yield first
        yield second
        raise AssertionError("read too far")

    def include(entry: Include) -> Iterator[Row | Problem]:
        return included(entry, entry.path, lines())

    rows = read("m", Format.YAML, [f"- from: {name}".encode()], include=include).rows
    row = next(iter(rows))
    assert isinstance(row, Row) and row.values["prompt"] == "a"


def test_columns_say_which_column_is_which_field() -> None:
    """`columns` names a field's column, whatever its case; it wins over the column's own name, and the rest goes on."""
    found = included_values("- {from: p.csv, columns: {prompt: category, meta.text: Caption, params.w: width}}")
    assert [values for _, values in found] == [
        {"prompt": "animals", "meta": {"text": "a fox"}},
        {"params": {"w": 64}, "meta": {"text": "a car"}},
    ]
    [(_, values)] = included_values("- {from: o.jsonl, columns: {meta.own: prompt, prompt: meta}}")
    assert values["meta"] == {"own": "an object"}


def test_a_prompt_beside_from_needs_no_column() -> None:
    """Rows without prompts are the variables of the prompt that stands beside `from`; nothing is guessed."""
    manifest = '- {from: animals.csv, prompt: "a {animal}, {style}", repeat: 2, matrix: {x: [1]}}'
    assert included_values(manifest) == [
        ("animals.csv", {"prompt": "a {animal}, {style}", "repeat": 2, "matrix": {"x": ["1"]},
                         "meta": {"animal": "cat", "style": "oil"}}),
    ]  # fmt: skip


FROM_PROBLEMS = [
    ("- {from: 3}", "m:1:10: from: expected the name of a file, got 3"),
    ("- {from: odd.dat}", "m:1:10: from: the kind of file is not known by its name, 'odd.dat'; add 'format:'"),
    ("- {from: p.csv, format: excel}", "m:1:25: format: expected one of yaml, csv, tsv, jsonl, json, txt, got 'excel'"),
    ("- {from: nowhere.csv}", "m:1:10: there is no such file"),
    ("- {from: p.csv, width: wide}", "m:1:24: width: expected a whole number of pixels"),
    ("- {from: p.csv, colums: {a: b}}", "m:1:17: 'colums' is not a known field; did you mean 'columns'?"),
    ("- {from: p.csv, columns: [a]}", "m:1:26: columns: expected a mapping of fields to columns"),
    ("- {from: p.csv, columns: {promt: a}}", "m:1:34: columns: 'promt' is not a known field"),
    ("- {from: p.csv, columns: {prompt: 3}}", "m:1:35: columns: expected the name of a column, got 3"),
    ("- {from: t.txt, columns: {prompt: a}}", "m:1:26: columns: a txt file has none"),
    ("- {from: p.csv, columns: {prompt: X}}", "p.csv:1:1: no column 'X' for 'prompt'; there are: Caption, Category"),
    ("- {from: p.csv, id: fox}", "m:1:21: id: every row would get the same id"),
    ("- {from: w.csv}", "w.csv:3:3: width: expected a whole number"),
    ("- {from: head.yaml}", "head.yaml:1:1: 'from' reads only the jobs of a file"),
    ("- {from: broken.yaml}", "broken.yaml:1:1: expected a mapping with 'jobs'"),
    ("- {from: again.yaml}", "again.yaml:1:10: a file that is read by 'from' may have no 'from' of its own"),
]
BAD_FILES = {
    "w.csv": "prompt,width\na,1\nb,wide\n",
    "head.yaml": "defaults: {width: 1}\njobs: [a]",
    "broken.yaml": "text",
    "again.yaml": "- {from: p.csv}",
}


@pytest.mark.parametrize(("manifest", "problem"), FROM_PROBLEMS)
def test_mistakes_around_from_have_their_places(manifest: str, problem: str) -> None:
    """What is wrong with an entry stands in the manifest; what is wrong in its file stands in that file."""
    assert problems_of("yaml", manifest, FILES | BAD_FILES)[0].startswith(problem)


def test_seeds_beside_from_make_a_picture_each_of_every_row() -> None:
    """What makes several jobs of one may stand beside `from` as it may in a job."""
    found = jobs_of("yaml", "- {from: t.txt, seed: [3, 14], matrix: {width: [1, 2]}}\n", FILES)
    said = [(job.request["width"], job.request["seed"]) for job in found if isinstance(job, Job)]
    assert said == [(1, 3), (1, 14), (2, 3), (2, 14)] and len(found) == 4


@pytest.mark.parametrize("beside", ["width: wide", "params: {width: 1}", "meta: {x: .nan}", "widht: 3", "id: fox"])
def test_one_mistake_beside_from_is_one_problem(beside: str) -> None:
    """What is wrong beside `from` is told once, at its own place, however many rows it would be the default of."""
    (problem,) = problems_of("yaml", f"- {{from: t.txt, {beside}}}\n", FILES | {"t.txt": "a\nb\n"})
    assert problem.startswith("m:1:")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        pytest.param("\nprompt\tseed\na fox\t1\n", True, id="a table saved as text"),
        pytest.param("a fox\na cat,\tsitting\n", False, id="a tab somewhere"),
    ],
)
def test_a_table_in_a_text_file_is_told_before_its_header_is_drawn(lines: str, told: bool) -> None:
    """A spreadsheet's "Unicode text" ends in .txt, where each line is a prompt: a tab in the first is a hint."""
    notes: list[str] = []
    assert [set(values) for values in values_of("txt", lines, notes)] == [{"prompt"}] * 2
    assert notes == ["m: its first line holds a tab; is it a table? then --format csv, or tsv"] * told


@pytest.mark.parametrize(
    ("beside", "problem"),
    [
        ("matrix: {a: 3}", "m:1:29: axis 'a': expected a list"),
        ("repeat: 0", "m:1:17: repeat: expected a whole number"),
        ("matrix: {a: [1, 2]}", "m:1:29: axis 'a': it sets no field"),
        ("seed: [3, 3]", "m:1:23: seed: 3 stands here twice"),
        ("image: gone.none", "m:1:24: image: there is no file 'gone.none'"),
        ("matrix: {image: [gone.none]}", "m:1:34: image: there is no file 'gone.none'"),
        ("repeat: 2, id: fox", "m:1:32: id: 'fox-1' is taken by an earlier job"),
    ],
)
def test_one_mistake_that_only_jobs_show_is_one_problem(beside: str, problem: str) -> None:
    """What stands beside `from` and is wrong for every row alike is told once, at its place in the manifest."""
    told = problems_of("yaml", f"- {{from: t.txt, {beside}}}\n", FILES | {"t.txt": "a\nb\nc\n"})
    assert told[0].startswith(problem)
    assert len(told) == (2 if "id" in beside else 1)


def test_a_template_beside_from_is_told_for_each_row_that_it_does_not_fit() -> None:
    """What depends on the row is told where the row stands: each may need a remedy of its own."""
    rows = {"o.jsonl": '{"prompt": "x", "pic": "a"}\n{"prompt": "y", "pic": "b"}\n{"prompt": "z", "image": "c.none"}\n'}
    told = problems_of("yaml", '- {from: o.jsonl, image: "{pic}.none"}\n', rows)
    assert [problem.partition("; ")[0] for problem in told] == [
        "o.jsonl:1:1: image: there is no file 'a.none'",
        "o.jsonl:2:1: image: there is no file 'b.none'",
        "o.jsonl:3:26: image: there is no file 'c.none'",
    ]
