"""A job as the manifest that makes it again, and as people read it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from samples import attempt, entry, failed, json_values, picture

from batchgen.manifest import FIELDS, Format, Rules, fingerprint, jobs, read
from batchgen.metadata import Made
from batchgen.model import Failure, FileInput, Job, Outcome, Problem
from batchgen.shown import Other, Shown, Whereabouts, made_of, manifest_text, render

NASTY = [
    'say "hi": {braces} {{twice}}, [x]',
    "- a dash\n# no comment\n\ttabbed\r\nend ",
    "é 狐 😀 \u0301",
    "\x85\u2028\u2029\ufeff\ufffe\uffff\xa0\x7f",
    "010",
    "no",
    "~",
    "1e3",
    "2026-11-22",
    "&a *b !c |d >e %f @g `h",
    "\\n is no newline, \\u0041 neither",
    "<<",
    " ",
]
_text = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n\r\x85\x7f"), min_size=1)
prose = (st.sampled_from(NASTY) | _text).map(lambda text: text if text.strip() else f"a{text}b")
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda name: name not in FIELDS)
requests = st.fixed_dictionaries(
    {"prompt": prose},
    optional={
        "negative_prompt": prose | st.just(""),
        "width": st.integers(1, 65536),
        "height": st.integers(1, 65536),
        "num_steps": st.integers(1, 10000),
        "guidance_scale": st.floats(-1e300, 1e300),
        "seed": st.integers(-1, 2**63 - 1),
        "image": st.just({"path": "in put/ä: {x}.png", "sha256": "ab" * 32}),
    },
)
ids = st.sampled_from(["010", "no", "1e3", "night/fox-7", "_", "狐", "null", "true", "0x10"])


def read_back(text: str) -> Job:
    """The one job of a manifest."""
    document = read("m", Format.YAML, io.BytesIO(text.encode()))
    [api] = document.header.apis
    rules = Rules("m", api.style, lambda path: FileInput(path, "ab" * 32), document.header.defaults)
    [job] = list(jobs(document.rows, rules))
    assert not isinstance(job, Problem), str(job)
    return job


def hashed(api: str, model: str, request: dict[str, Any]) -> str:
    files = {name: FileInput(**value) for name, value in request.items() if name == "image"}
    return fingerprint(api, model, request | files)


@given(
    id=ids,
    api=st.sampled_from(["nebula", "sandbox"]),
    model=prose.map(lambda text: "m" + " ".join(text.split())).filter(lambda name: "\x7f" not in name),
    request=requests,
    params=st.dictionaries(names, json_values, max_size=3),
    meta=st.dictionaries(names, json_values, max_size=2),
)
@example("no", "sandbox", "a: b", {"prompt": "- x: {y}"}, {"<<": {"a": 1e16}, "?": [1e-7, -0.0, 2**63 - 1]}, {"": None})
def test_a_job_comes_back_from_its_manifest(
    id: str, api: str, model: str, request: dict[str, Any], params: dict[str, Any], meta: dict[str, Any]
) -> None:
    """The reader makes of the text the same id, model and fingerprint, whatever characters the request holds."""
    whole = request | params
    made = Made(id, hashed(api, model, whole), api, model, whole)
    job = read_back(manifest_text(made, meta))
    assert (job.id, job.model, job.fingerprint) == (id, model, made.fingerprint)
    assert job.meta == meta


def test_a_manifest_is_easy_to_read_and_to_edit() -> None:
    """One field a line, in the order of the fields; what the API takes beside them stands under params."""
    request = {"prompt": "a fox", "seed": 7, "mask": {"path": "m.png", "sha256": "x"}, "scheduler": "ddim", "width": 8}
    assert manifest_text(Made("fox", "f", "nebula", "flux", request), {"campaign": "spring"}).splitlines() == [
        'api: "nebula"',
        "jobs:",
        '  - id: "fox"',
        '    model: "flux"',
        '    prompt: "a fox"',
        "    width: 8",
        "    seed: 7",
        '    mask: "m.png"',
        '    params: {"scheduler": "ddim"}',
        '    meta: {"campaign": "spring"}',
    ]


def test_people_see_everything_of_a_job() -> None:
    """Every parameter, the picture's place, when, how long, the cost, each attempt, notes, the job's other entries."""
    request = {"width": 8, "prompt": "a fox\nat night", "image": {"path": "in/a.png", "sha256": "ab" * 32}, "x": [1]}
    told = entry(
        request=request,
        meta={"campaign": "spring"},
        attempts=(failed(Failure.RATE_LIMITED, http=429), attempt(2)),
        cost_usd=0.003,
        exposure_usd=0.006,
        notes=("odd size",),
    )
    other = Other(Outcome.FAILED, "0123456789", "2026-11-21T12:00:00.000Z", (None,))
    where = Whereabouts("images/a.png", 64, 32, "png", 1000)
    shown = Shown(source="log", made=made_of(told), output="out", entry=told, pictures=(where,), others=(other,))
    assert list(render(shown)) == [
        "a: done",
        "  prompt         a fox",
        "                 at night",
        "  width          8",
        "  image          in/a.png (relative to the manifest; sha256 abababababababab…)",
        "  x              [1]",
        "  model          flux",
        "  meta.campaign  spring",
        "  picture        images/a.png (64 x 32 png, 1000 bytes)",
        "  made           2026-11-22T12:00:00.000Z by run r, line 1 of m.yaml, api nebula",
        "  time           1.5 s inference, 2.0 s in all",
        "  cost           $0.0030 (and $0.0060 in doubt)",
        "  attempt 1      2026-11-22T12:00:00.000Z HTTP 429 rate_limited: it was rate_limited (1.0 s, billed: no)",
        "  attempt 2      2026-11-22T12:00:00.000Z HTTP 200 (1.0 s, billed: yes)",
        "  note           odd size",
        "  otherwise      failed 2026-11-21T12:00:00.000Z, fingerprint 01234567 missing",
        "  fingerprint    f1",
        "  told by        the log of out",
    ]


@pytest.mark.parametrize("where", ["prompt", "name"])
def test_a_picture_from_elsewhere_cannot_drive_the_terminal(where: str) -> None:
    """Control characters in what a foreign file says are shown, not obeyed."""
    request = {"prompt": "a \x1b[2J"} if where == "prompt" else {"prompt": "a", "\x1b[2J": 1}
    shown = Shown(source="picture", made=Made("a", "f", "nebula", "flux", request), file="a.png")
    assert "\\x1b[2J" in "\n".join(render(shown)) and "\x1b" not in "\n".join(render(shown))


def test_another_programs_text_is_shown_as_it_is() -> None:
    """A picture that carries nothing of ours still tells what it does carry."""
    shown = Shown(source="picture", made=None, file="a.png", infotext="a fox\nSteps: 4")
    assert list(render(shown)) == [
        "a.png",
        "  parameters  a fox",
        "              Steps: 4",
        "  told by     the picture itself, a.png",
    ]


def test_a_failed_job_has_no_picture() -> None:
    """What ended without a picture says when it ended."""
    told = entry(outcome=Outcome.FAILED, images=(), inference_s=None)
    lines = list(render(Shown(source="log", made=made_of(told), output="out", entry=told)))
    assert lines[0] == "a: failed"
    assert any(line.startswith("  ended ") for line in lines)
    assert not any("inference" in line or line.startswith("  picture") for line in lines)
    assert picture().file not in "\n".join(lines)
