"""Everything that reads bytes from outside, fed with damaged and hostile ones: it answers, or refuses as documented.

`make soak` runs these, and all other properties, with many thousands of examples each.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import random
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from samples import entry, json_values, told

from batchgen import images, joblog
from batchgen.folder import State, read_state
from batchgen.folder.records import fold_lines, lines
from batchgen.images import MAX_PIXELS, ImageFacts
from batchgen.joblog import BAD_LINE, Fold, Intent, Lives, encode, prepared
from batchgen.layout import picture_file, superseded
from batchgen.manifest import Format, Rules, ids, jobs, overrides, read
from batchgen.model import BadAnswer, FileInput, Job, ManifestError, Problem, ServerError, UsageError
from batchgen.pacing import ABSURD_S, clock_skew, retry_after_s
from batchgen.protocol import Drawn, decode_base64, read_error
from batchgen.protocol.answers import _read_whole
from batchgen.protocol.nebula import (
    decode_answer,
    decode_request,
    encode_answer,
    encode_error,
    encode_request,
)
from batchgen.sandbox.drawing import Order
from batchgen.sandbox.orders import Refused, read_order
from batchgen.sandbox.shapes import Error
from batchgen.text import printable

pytestmark = pytest.mark.no_cover  # as in test_nights
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
UNSHOWABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# What parsers trip over: quotes, brackets, line ends, byte order marks, bytes that are no UTF-8, odd numbers.
SPLICES = (
    *(b'"', b"\\", b"'", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"\t", b"\0", b" ", b"=", b"~", b"../"),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xe2\x80\xae", b"\xc2\x85", b"\x1b[2J"),
    *(
        b"null",
        b"true",
        b"NaN",
        b"-1",
        b"1e999",
        b"9" * 400,
        b"0.5",
        b"\\ud800",
        b"\\u0000",
        b"[" * 200,
        b'{"a":' * 200,
    ),
)


@st.composite
def mutated(draw: st.DrawFn, samples: Iterable[bytes]) -> bytes:
    """A sample with bytes changed, taken out, put in or repeated at a few places, and perhaps cut."""
    data = bytearray(draw(st.sampled_from(list(samples))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = at + draw(st.integers(0, 40))
        data[at:end] = draw(st.sampled_from(SPLICES) | st.binary(max_size=6) | st.just(bytes(data[at:end]) * 2))
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


def is_showable(shown: str) -> bool:
    return not any(unicodedata.category(char) in UNSHOWABLE for char in shown)


# Manifests

YAML = b"""\
api: {style: nebula, url: "https://x/v1", key_env: MY_KEY}
limits: {concurrency: 8, requests_per_minute: 1e3, max_cost_usd: 5}
prices_usd: {flux: 0.003}
defaults: &d {model: flux, width: 1024, params: {a: 1}, meta: {m: x}}
jobs:
  - a fox
  - {id: night/fox, prompt: 16:9, seed: 7, guidance_scale: .5, image: a.png, meta: {"k\\u00e9": [1, {b: ~}]}}
  - {<<: *d, id: "f\xc3\xa9", prompt: |-
     two
     lines}
"""
TABLES: dict[Format, tuple[bytes, ...]] = {
    Format.YAML: (
        YAML,
        b"- a\n- {prompt: b, id: c}\n",
        b'{"jobs": [{"prompt": "\\ud83e\\udd8a", "params": {"x": 1e3}}]}',
    ),
    Format.CSV: (
        b'id,prompt,width,params.x,Category,image\r\na,"a ""red"" fox,\nnext",512,1e3,x,a.png\r\n,caf\xc3\xa9,,,,\r\n',
        b"\xef\xbb\xbfPrompt\nfox\nfox\n",
    ),
    Format.TSV: (b'id\tprompt\tseed\tmeta.n\na\t"GO"\t7\t1\nb\tfox\t\t\n',),
    Format.JSONL: (
        b'{"id": "a", "prompt": "\\u00e9", "params": {"x": [1.5, null]}}\n\n{"prompt": "b", "width": 512}\n',
    ),
    Format.JSON: (
        b'[{"id": "a", "prompt": "b", "include": [{"n": 1}]}, "c",\n {"prompt": "\\u00e9", "seed": 1}]',
        b'{"fox": "a fox", "night/owl": {"Prompt": "an owl", "width": 512}}',
    ),
    Format.TXT: (b"a red fox\r\n\n  caf\xc3\xa9 \nfox\nfox", b'--prompt "a fox" --steps 20 --sampler_name "x"\n'),
}
PIECES = (
    *("prompt", "id", "jobs", "params", "meta.", "width", "seed", "image", "<<", "&a ", "*a", "!!int ", "- ", "---"),
    *(":", "{", "}", "[", "]", '"', ",", "\t", "\n", "\r", " ", "#", "|", "\0", "\ufeff", "\ud7ff", "é", "a"),
    *("1e3", ".nan", "0x1", "null", '{"prompt":', '"a"', "\\ud800", "- from: ", "a.csv", "columns: ", "format: csv"),
    *('{"custom_id":"a","body":{', '"size":"1x1"', "sep=;\n", ";", "--prompt ", "--seed 1 ", "'", "matrix", "caption"),
    *("repeat", "auto", "exclude", "{a}", "{{", "[1, 2]", "{b: [c]}"),
)
soups = st.tuples(
    st.sampled_from([b"", b"prompt,width\n", b"prompt\twidth\n", b"jobs:\n- "]),
    st.lists(st.sampled_from(PIECES), max_size=40).map(lambda pieces: "".join(pieces).encode())
    | st.binary(max_size=200),
).map(b"".join)


def digest(path: str) -> FileInput:
    """Stands for the files beside a manifest: those with a dot are pictures."""
    if "." not in path:
        raise ValueError(f"there is no file {path!r}")
    return FileInput(path, "ab" * 32)


def check_job(job: Job) -> None:
    """A job that was let through can be named, sent and logged."""
    assert ids.complaint(job.id) is None
    assert len(job.fingerprint) == 32
    assert job.line >= 1
    plain = {name: value for name, value in job.request.items() if not isinstance(value, FileInput)}
    assert decode_request(encode_request(job.model, plain, {}))["prompt"] == job.prompt
    line = encode(entry(job=job.id, request=job.request, meta=job.meta, line=job.line, model=job.model))
    assert joblog.decode(line).job == job.id


def check_problem(problem: Problem) -> None:
    """A problem tells its place and is one harmless line, whatever it quotes."""
    assert problem.line >= 0
    assert problem.column >= 0
    assert is_showable(str(problem))
    assert problem.what
    assert len(str(problem)) < 1000


@pytest.mark.parametrize("format", Format)
@given(data=st.data())
def test_a_manifest_gives_jobs_and_problems(format: Format, data: st.DataObject) -> None:
    """Whatever the bytes, reading ends in jobs that can be done and problems that can be shown."""
    document = data.draw(mutated(TABLES[format]) | soups)
    try:
        found = read("m", format, io.BytesIO(document))
        rules = Rules("m", "nebula", digest, {"model": "flux"} | found.header.defaults, {}, found.default_place)
        made = list(jobs(found.rows, rules))
    except ManifestError as error:
        assert error.count == len(error.problems) > 0
        made = list(error.problems)
    for each in made:
        check_problem(each) if isinstance(each, Problem) else check_job(each)
    names = [ids.collision_key(each.id) for each in made if isinstance(each, Job)]
    assert len(names) == len(set(names))


@given(st.lists(mutated([b"width=512", b"params.a=1", b"meta.n=x", b"seed=", b"prompt=a fox", b"id=3"]), max_size=3))
def test_defaults_from_the_command_line(assignments: list[bytes]) -> None:
    """An assignment of any text is taken or refused with words that can be shown."""
    try:
        overrides([text.decode(errors="surrogateescape") for text in assignments])
    except UsageError as error:
        assert all(map(is_showable, str(error).split("\n")))


# Ids and names


id_texts = (
    st.text("abCON.-_/~ \\é²１ﬁ\u0301ßſKİıΣς가", max_size=12) | st.text(max_size=8) | st.text("aé文𠀀", min_size=170)
)
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@given(id_texts, st.integers(0, 99), st.integers(0, 9999), st.sampled_from(["png", "jpg", "webp"]))
def test_an_accepted_id_stays_in_its_folder(job_id: str, position: int, index: int, extension: str) -> None:
    """Any id that is accepted names a file below its folder that every common filesystem can hold."""
    if ids.complaint(job_id):
        return
    file = picture_file(job_id, position, index, extension)
    for name, root in ((file, "images"), (superseded(file, "ab" * 16, "cd" * 32), "superseded")):
        path = PurePosixPath(name)
        assert (str(path), path.parts[0]) == (name, root)
        assert not {".", ".."} & set(path.parts)
        assert all(len(part.encode()) <= 255 and part[0] not in ".-" for part in path.parts)
        assert is_showable(name) and not set('\\:*?"<>| ') & set(name)


@given(
    id_texts, st.sampled_from([str, str.upper, str.lower, str.swapcase, str.title]), st.sampled_from(FORMS), id_texts
)
def test_ids_that_a_filesystem_mixes_up_collide(one: str, change: Any, form: Any, other: str) -> None:
    """Of ids that are the same to a filesystem, only the first is taken."""
    for two in (unicodedata.normalize(form, change(one)), other):
        if ids.complaint(one) or ids.complaint(two):
            continue
        book = ids.IdBook()
        assert book.claim(one)
        if book.claim(two):
            for same in FORMS:
                for fold in (str.lower, str.casefold):
                    assert fold(unicodedata.normalize(same, one)) != fold(unicodedata.normalize(same, two))  # type: ignore[arg-type]


@given(st.text(max_size=60) | id_texts, st.integers(1, 3))
def test_a_derived_id_is_a_legal_one(prompt: str, copies: int) -> None:
    """Whatever the prompt, the name made from it may be given by hand too, and equal rows get different ones."""
    book = ids.IdBook()
    made = [book.claim_derived(ids.derived(prompt, b"said")) for _ in range(copies)]
    assert [ids.complaint(job_id) for job_id in made] == [None] * copies
    assert len(set(made)) == copies


# Answers

BASE64 = (
    "",
    "QUJD",
    "QQ==",
    "QQ",
    "QR==",
    "+/+/",
    "-_-_",
    r"\/\/+/",
    "data:,QUJD",
    "QUJD\\n",
    "%",
    "QUJD\\\\",
    '\\"',
    "é",
)
NAMES = ("b64_json", "data", "index", "timings", "inference", "status", "message", "error")
ODD_NAMES = ('x\\"b64_json', "b64\\u005fjson", "b64_json ")


def objects(members: st.SearchStrategy[list[tuple[str, str]]]) -> st.SearchStrategy[str]:
    """JSON objects as text, in which a name may stand several times."""
    return members.map(lambda pairs: "{" + ",".join(f'"{name}": {value}' for name, value in pairs) + "}")


base64_texts = st.sampled_from(BASE64).map(lambda text: f'"{text}"')
scalars = base64_texts | st.sampled_from(
    ("null", "0", "1.5", "NaN", "true", '"failed"', '"error"', "{}", "[]", r'"\"b64_json\": \"QUJD\""')
)
names = st.sampled_from(NAMES + ODD_NAMES)
nested = st.recursive(
    scalars,
    lambda inner: (
        objects(st.lists(st.tuples(names, inner), max_size=3))
        | st.lists(inner, max_size=3).map(lambda values: f"[{','.join(values)}]")
    ),
    max_leaves=6,
)
items = objects(
    st.lists(
        st.tuples(st.just("b64_json") | names, st.sampled_from(BASE64).map(lambda text: f'"{text}"') | nested),
        max_size=3,
    )
)
data_lists = st.lists(items, max_size=3).map(lambda made: f"[{','.join(made)}]")
answers = objects(
    st.lists(st.tuples(st.just("data"), data_lists) | st.tuples(names, nested), min_size=1, max_size=4)
).map(str.encode)
WHOLE_ANSWERS = (
    encode_answer("m", [Drawn(bytes(range(256)), 0, 1.5)]),
    json.dumps({"data": [{"b64_json": "QUJD"}, {"index": 1, "b64_json": "+/+/QQ=="}], "model": "m"}, indent=1).encode(),
    json.dumps({"status": "failed", "message": '"b64_json": "QUJD"', "data": [{"b64_json": "QUJD"}]}).encode(),
    b'<html><body>"b64_json":"QUJD"</body></html>',
)


@given(answers | mutated(WHOLE_ANSWERS) | answers.flatmap(lambda made: mutated([made])) | st.binary(max_size=200))
@example(b'{"data":[{"b64_json":"QUJD","b64_json":"QQ=="},{"b64_json":{"b64_json":""}}]}')
def test_both_roads_lead_to_the_same_answer(body: bytes) -> None:
    """However an answer is written or damaged, cutting its pictures out says what reading all of it says."""
    found = told(decode_answer, body)
    assert found == told(_read_whole, body)
    if isinstance(found, ServerError):
        assert printable(found.message, 510) == found.message
    elif isinstance(found, tuple):
        assert found[0] is BadAnswer
        assert is_showable(found[1])


ENCODED = (base64.b64encode(bytes(range(180, 256))), b"data:image/png;base64,QUJD", b"QUJD\r\nQUJD\r\nQQ==", b"-_-_QQ")


@given(mutated(ENCODED).map(lambda raw: raw.decode("utf-8", "replace")) | st.text(max_size=60))
def test_base64_means_what_its_characters_say(written: str) -> None:
    """What is read is what a plain decoder makes of the same characters; all else is a bad answer."""
    with contextlib.suppress(BadAnswer):
        data = decode_base64(written)
        bare = "".join(written.rpartition(",")[2].split()).replace("-", "+").replace("_", "/").rstrip("=")
        assert data == base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


ERRORS = (
    encode_error("no"),
    encode_error("Daily limit", "daily_limit", {"a": "b"}),
    b'{"detail": [{"loc": ["body", "width"], "msg": "too large"}]}',
    b"<html><head><title>502</title><script>x()</script></head><body>Bad Gateway</body></html>",
)


@given(
    mutated(ERRORS)
    | st.binary(max_size=200)
    | json_values.map(lambda value: json.dumps({"error": value, "message": value}).encode())
)
def test_an_error_is_short_and_showable(body: bytes) -> None:
    """Whatever came, there is a message of one harmless line, and a code that is one as well."""
    error = read_error(body)
    for said in (error.message, error.code or "x"):
        assert 0 < len(said) <= 510
        assert is_showable(said)


# Headers

DATES = (b"Sun, 22 Nov 2026 12:00:30 GMT", b"Sunday, 22-Nov-26 12:00:30 GMT", b"Sun Nov 22 12:00:30 2026", b"0", b"1.5")
header_values = (
    mutated(DATES).map(lambda raw: raw.decode("latin-1"))
    | st.text(max_size=40)
    | st.from_regex(r"[SMTWF][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} [\d:]{8} ?[-+\dGMTZ]{0,6}")
)
moments = st.just(NOON) | st.datetimes(timezones=st.just(UTC))


@given(header_values, header_values, moments)
def test_a_wait_is_never_absurd(one: str, two: str, utc: datetime) -> None:
    """Whatever a server asks for, the wait is finite, not negative and at most 48 hours, or not said."""
    asked_s = retry_after_s({"retry-after": one, "retry-after-ms": two}, utc)
    assert asked_s is None or (math.isfinite(asked_s) and 0 <= asked_s <= ABSURD_S)


@given(header_values, moments)
def test_a_clock_is_never_absurdly_off(text: str, utc: datetime) -> None:
    """Whatever a server says the time is, it is at most 48 hours from ours, or not said."""
    skew = clock_skew(text, utc)
    assert skew is None or abs(skew) <= timedelta(seconds=ABSURD_S)


# The log


class Memory:
    """As much of a file as a reader of lines needs."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, handle: int, offset: int, size_bytes: int) -> bytes:
        return self.data[offset : offset + min(size_bytes, 700)]

    def read(self, path: str) -> bytes:
        return self.data


def folded(data: bytes) -> tuple[Fold, int]:
    """What a log of these bytes says, and up to where it is whole."""
    fold = Fold()
    return fold, fold_lines(lines(Memory(data), 0), "log.jsonl", fold.add)  # type: ignore[arg-type]


def facts(fold: Fold) -> Any:
    """All that a fold knows, sums rounded to what money needs."""
    rows = [(j, f, fold.row(j, f)) for j in ("a", "b", "b\u2028", "é" * 9) for f in ("x", "y", "f1")]
    sums = (fold.requests, round(fold.spent_usd, 6), round(fold.exposure_usd, 6), fold.bought, fold.drawn)
    return rows, sums, fold.requests_by_day, fold.jobs, fold.counts()


def log_line(job: str, second: int, tries: int) -> bytes:
    return encode(entry(job=job, finished_at=f"2026-11-22T12:00:{second:02d}.000Z", attempts=entry().attempts * tries))


logs = st.lists(
    st.tuples(st.sampled_from(["a", "b\u2028", "é" * 9]), st.integers(0, 59), st.integers(0, 3)),
    max_size=5,
    unique_by=lambda line: line[1],  # no job ends twice at once
).map(lambda rows: [log_line(*row) for row in rows])
WHOLE_LOG = b"".join(encode(entry(job=j, fingerprint=f)) for j, f in ("ax", "bx", "ay"))


@given(logs, st.data())
def test_a_cut_log_loses_its_last_line_at_most(written: list[bytes], data: st.DataObject) -> None:
    """A log that ends anywhere says what its whole lines say, and where the torn one begins."""
    whole = b"".join(written)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    fold, good = folded(cut)
    assert good == cut.rfind(b"\n") + 1
    assert facts(fold) == facts(folded(cut[:good])[0])
    assert fold.requests == sum(len(joblog.decode(line).attempts) for line in cut[:good].splitlines())


@given(mutated([WHOLE_LOG]) | st.lists(mutated(WHOLE_LOG.splitlines(True)), max_size=4).map(b"".join))
def test_a_damaged_log_is_read_or_refused(log: bytes) -> None:
    """Damage at the end is left out, damage before it is told with its line; nothing else happens."""
    try:
        fold, good = folded(log)
    except UsageError as error:
        assert "damaged" in str(error)
        return
    for line in log[good:].split(b"\n")[:-1]:
        with pytest.raises(BAD_LINE):
            joblog.decode_seen(line)
    assert facts(fold) == facts(folded(log[:good])[0])


NOTES = (
    encode(Intent("a", "x", 1, "2026-11-22T12:00:00.000Z", "r", 0.5)),
    encode(joblog.Ended("a", "x", entry().attempts[0], 0.5)),
    prepared(entry(), encode(entry())),
    encode(joblog.Withdrawn("a", "x", 1)),
)


@given(st.lists(mutated(NOTES), max_size=6))
def test_damaged_notes_are_read_or_told(written: list[bytes]) -> None:
    """A line of the attempts file is taken in or is one of the errors that readers expect; what was read adds up."""
    lives = Lives(lambda job, fingerprint: 0)
    for line in written:
        with contextlib.suppress(*BAD_LINE):
            lives.add(line)
    for ended in lives.ended():
        assert ended.attempt in lives.of(ended.job, ended.fingerprint)
        encode(ended)
    assert len(lives.doubtful()) <= len(lives.ended())


@given(
    mutated([msgspec.json.encode(State("m.yaml", "nebula", ("a=1",), "csv", 3, "r", 7, "host", "t", "t", "working"))])
)
def test_a_damaged_state_is_none(data: bytes) -> None:
    """What the folder remembers is read or, however it is damaged, not there."""
    found = read_state(Memory(data))  # type: ignore[arg-type]
    assert found is None or 0 <= found.pid < 2**31


# Pictures


def noise() -> Image.Image:
    return Image.frombytes("RGB", (37, 23), random.Random(1).randbytes(37 * 23 * 3))


def picture(format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    noise().save(buffer, format, **options)
    return buffer.getvalue()


PICTURES = (
    picture("PNG"),
    picture("JPEG", progressive=True, restart_marker_rows=1),
    picture("JPEG", exif=b"Exif\0\0" + b"\xff\xd9" * 20),
    picture("WEBP"),
    picture("WEBP", lossless=True, exif=b"Exif\0\0odd"),
    picture("WEBP", save_all=True, append_images=[Image.new("RGB", (37, 23))], duration=50),
)


@given(mutated(PICTURES) | mutated([made[:60] for made in PICTURES]) | st.binary(max_size=200))
def test_a_damaged_picture_is_refused_or_known(data: bytes) -> None:
    """However a picture is damaged, the check gives facts within the cap or says what is wrong."""
    found = told(images.check, data)
    if isinstance(found, ImageFacts):
        assert found.format in images.EXTENSIONS
        assert 0 < found.width * found.height <= MAX_PIXELS
    else:
        assert found[0] is BadAnswer
        assert is_showable(found[1])


# Requests, as the sandbox reads them

MODEL = "black-forest-labs/FLUX.1-schnell"
REQUESTS = (
    encode_request(MODEL, {"prompt": "a fox", "width": 64, "height": 64, "num_steps": 4, "seed": 7}, {}),
    encode_request(MODEL, {"prompt": "é", "guidance_scale": 3.5, "x": {"y": [1]}}, {"image": PICTURES[0]}),
    encode_request(MODEL, {"prompt": "a", "output_format": "png"}, {"image": PICTURES[1], "mask": PICTURES[1]}),
)
FIELDS = ("prompt", "negative_prompt", "width", "height", "num_steps", "seed", "guidance_scale", "image", "mask", "x")
asked = st.dictionaries(st.sampled_from((*FIELDS, "output_format", "model")), json_values | st.just(MODEL), max_size=6)


@given(mutated(REQUESTS) | asked.map(lambda fields: encode_request(MODEL, {"prompt": "a"} | fields, {})))
def test_a_request_is_an_order_or_refused(body: bytes) -> None:
    """Whatever a client sends, the sandbox would draw it, or answers with an error of the API's shape."""
    try:
        order = read_order(lambda: decode_request(body), "png")
    except Refused as refused:
        assert isinstance(refused.why, Error)
        assert refused.why.status in (400, 404)
    else:
        assert isinstance(order, Order)
        assert 16 <= min(order.size) <= max(order.size) <= 4096
