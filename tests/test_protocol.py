"""The wire format of Nebula Block, both directions, and what is made of answers that nobody documented."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import json_values, texts

from batchgen.model import BadAnswer, ServerError
from batchgen.protocol import Answer, Drawn, Model, decode_base64, error_in, looks_like_html, read_error
from batchgen.protocol.nebula import (
    decode_answer,
    decode_credits,
    decode_models,
    decode_request,
    encode_answer,
    encode_credits,
    encode_error,
    encode_models,
    encode_request,
)
from batchgen.text import printable

PICTURE = bytes(range(256)) + b"\xfb\xff\xfe"  # its base64 holds + and /
TEXT = base64.b64encode(PICTURE).decode()


def answer(**changes: Any) -> bytes:
    """A success answer with one picture, as the service documents it, with these fields of the picture changed."""
    item = {"timings": {"inference": 1.5}, "index": 0, "b64_json": TEXT} | changes
    return json.dumps({"model": "m", "object": "list", "data": [item], "status": "success"}).encode()


def only(body: bytes) -> Drawn:
    """The one picture of an answer."""
    found = decode_answer(body)
    assert isinstance(found, Answer)
    (drawn,) = found.pictures
    return drawn


def error(body: bytes) -> ServerError:
    """The error of a 200 answer."""
    found = decode_answer(body)
    assert isinstance(found, ServerError)
    return found


# Requests


@given(
    st.text(max_size=20),
    st.dictionaries(texts.filter(lambda name: name not in ("model", "image", "mask")), json_values, max_size=4),
    st.dictionaries(st.sampled_from(["image", "mask"]), st.binary(max_size=50)),
)
def test_a_request_arrives_as_it_was_meant(model: str, request: dict[str, Any], files: dict[str, bytes]) -> None:
    """The server reads the model, every field and the bytes of every picture that the client sent."""
    got = decode_request(encode_request(model, request, files))
    assert {name: base64.b64decode(got.pop(name), validate=True) for name in files} == files
    assert got == {"model": model} | request


def test_pictures_of_a_request_are_their_bytes() -> None:
    """Where a request names a picture, its content travels and not its path."""
    got = decode_request(encode_request("m", {"prompt": "p", "image": "head.jpg"}, {"image": PICTURE}))
    assert got == {"model": "m", "prompt": "p", "image": TEXT}


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"a":NaN}'], ids=lambda body: repr(body[:9])
)
def test_a_bad_request_is_told_in_one_way(body: bytes) -> None:
    """A body that is no JSON object is a ValueError with a sentence for the client."""
    with pytest.raises(ValueError, match=r"^The request body .*\.$"):
        decode_request(body)


# Answers

drawn = st.builds(
    Drawn,
    data=st.binary(max_size=60),
    index=st.integers(0, 9999),
    inference_s=st.none() | st.floats(0, 1e6, allow_nan=False),
)


@given(st.lists(drawn, min_size=1, max_size=4, unique_by=lambda d: d.index))
def test_an_answer_comes_back(pictures: list[Drawn]) -> None:
    """Pictures, indices and seconds that the server wrote are read the same, in the order of the indices."""
    got = decode_answer(encode_answer("m", pictures))
    assert got == Answer(tuple(sorted(pictures, key=lambda picture: picture.index)))


@given(st.lists(drawn, min_size=2, max_size=4), st.integers(0, 5))
def test_pictures_with_one_index_are_renumbered(pictures: list[Drawn], index: int) -> None:
    """Where two pictures claim the same index, their order in the answer is their index, and none is lost."""
    alike = [Drawn(picture.data, index) for picture in pictures]
    got = decode_answer(encode_answer("m", alike))
    assert got == Answer(tuple(Drawn(picture.data, place) for place, picture in enumerate(pictures)))


FORGIVEN = [
    pytest.param(TEXT, id="as documented"),
    pytest.param("data:image/png;base64," + TEXT, id="data prefix"),
    pytest.param("data:," + TEXT, id="bare data prefix"),
    pytest.param(TEXT.replace("+", "-").replace("/", "_"), id="url-safe alphabet"),
    pytest.param(TEXT.rstrip("="), id="missing padding"),
    pytest.param(TEXT + "==", id="too much padding"),
    pytest.param("\r\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)) + "\n", id="lines"),
    pytest.param(" \t" + TEXT + " ", id="blanks around"),
    pytest.param(
        "data:image/png;base64,\n" + TEXT.rstrip("=").replace("+", "-").replace("/", "_") + "\n", id="all of it"
    ),
]


@pytest.mark.parametrize("text", FORGIVEN)
def test_base64_that_is_forgiven(text: str) -> None:
    """Harmless variations of base64 are read, because the picture behind them was paid for."""
    assert decode_base64(text) == PICTURE
    assert only(answer(b64_json=text)).data == PICTURE


@given(st.binary(max_size=100), st.booleans(), st.booleans(), st.booleans())
def test_forgiving_changes_no_byte(data: bytes, prefix: bool, url_safe: bool, unpadded: bool) -> None:
    """However it was written, exactly the bytes that were encoded come out."""
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    text = text.rstrip("=") if unpadded else text
    assert decode_base64(("data:image/webp;base64," if prefix else "") + text) == data


def test_escaped_slashes_are_slashes() -> None:
    """JSON that writes a slash as backslash and slash means a slash."""
    assert "/" in TEXT
    assert only(answer().replace(b"/", rb"\/")).data == PICTURE


JUNK = [
    "%",
    TEXT + "%",
    TEXT[:8] + "!" + TEXT[8:],
    "QQ==QQ==",
    "A",
    "QUJDQ",
    "é",
    "\x00",
    TEXT + "\x00",
    "data:" + TEXT,
]


@pytest.mark.parametrize("text", JUNK, ids=[repr(text[:12]) for text in JUNK])
def test_base64_that_is_not(text: str) -> None:
    """Foreign characters, impossible lengths and padding inside are no picture."""
    with pytest.raises(BadAnswer, match="not valid base64"):
        decode_base64(text)


SECONDS = [
    pytest.param({"inference": 13.37}, 13.37, id="seconds"),
    pytest.param({"inference": 0}, 0.0, id="zero"),
    pytest.param({"inference": 2}, 2.0, id="whole"),
    pytest.param({"inference": -0.1}, None, id="negative"),
    pytest.param({"inference": "1.5"}, None, id="text"),
    pytest.param({"inference": None}, None, id="null"),
    pytest.param({"inference": True}, None, id="true"),
    pytest.param({"inference": [1]}, None, id="list"),
    pytest.param({}, None, id="missing"),
    pytest.param(None, None, id="no timings"),
    pytest.param([1.5], None, id="timings of another shape"),
    pytest.param(1.5, None, id="timings a number"),
]


@pytest.mark.parametrize(("timings", "inference_s"), SECONDS)
def test_seconds_are_never_invented(timings: Any, inference_s: float | None) -> None:
    """A senseless or missing duration is unknown, and costs no picture."""
    got = only(answer(timings=timings))
    assert (got.data, got.inference_s) == (PICTURE, inference_s)


@pytest.mark.parametrize(
    ("index", "taken"),
    [(0, 0), (7, 7), (9999, 9999), (10_000, 0), (-1, 0), (None, 0), ("1", 0), (1.0, 0), (True, 0), (10**30, 0)],
    ids=str,
)
def test_a_senseless_index_is_the_place(index: Any, taken: int) -> None:
    """An index that can be no number of a picture is replaced by the picture's place."""
    assert only(answer(index=index)).index == taken


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(answer(), id="as documented"),
        pytest.param(answer().replace(b'"status": "success"', b'"status": 7, "message": {"a": []}'), id="odd status"),
        pytest.param(json.dumps({"data": [{"b64_json": TEXT}]}).encode(), id="the least"),
        pytest.param(answer(extra={"x": [1, None]}).replace(b'"model": "m"', b'"model": [], "new": {}'), id="more"),
        pytest.param(b" \n" + answer() + b"\n ", id="blanks around"),
    ],
)
def test_a_picture_is_enough(body: bytes) -> None:
    """An answer that holds a picture is one, whatever else it says or leaves out."""
    assert only(body).data == PICTURE


NO_PICTURE = [
    pytest.param(b"", id="empty"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="list"),
    pytest.param(b'"x"', id="text"),
    pytest.param(b"17", id="number"),
    pytest.param(b"1e999", id="huge number"),
    pytest.param(b"NaN", id="NaN"),
    pytest.param(b'{"data": NaN}', id="NaN inside"),
    pytest.param(b"{}", id="object without data"),
    pytest.param(b'{"data": null}', id="data null"),
    pytest.param(b'{"data": []}', id="data empty"),
    pytest.param(b'{"data": {}}', id="data an object"),
    pytest.param(b'{"data": [null]}', id="picture null"),
    pytest.param(b'{"data": [{}]}', id="picture empty"),
    pytest.param(b'{"data": [{"b64_json": null}]}', id="text null"),
    pytest.param(b'{"data": [{"b64_json": 5}]}', id="text a number"),
    pytest.param(b'{"data": [{"b64_json": "%%%"}]}', id="text junk"),
    pytest.param(b'{"data": [{"url": "https://x/y.png"}]}', id="an address"),
    pytest.param(b'{"data": [{"b64_json": "QQ=="}, {}]}', id="second picture empty"),
    pytest.param(answer()[:-1], id="cut by one"),
    pytest.param(answer()[: len(answer()) // 2], id="cut in half"),
    pytest.param(answer() + b"x", id="junk after"),
    pytest.param(answer() * 2, id="twice"),
    pytest.param(b"[" * 100_000, id="deep lists"),
    pytest.param(b'{"data":' * 100_000, id="deep objects"),
    pytest.param(b'{"data": ' + b"7" * 1_000_000 + b"}", id="a million digits"),
    pytest.param(b"\xff\xfe" + answer().decode().encode("utf-16-le"), id="UTF-16"),
    pytest.param(b'{"status": "success", "message": "Image generated successfully"}', id="success without a picture"),
]


@pytest.mark.parametrize("body", NO_PICTURE)
def test_answers_without_a_picture(body: bytes) -> None:
    """Whatever was paid for and holds no picture is a bad answer, and nothing worse."""
    with pytest.raises(BadAnswer):
        decode_answer(body)


json_objects = st.fixed_dictionaries(
    {},
    optional={
        "data": json_values | st.lists(st.fixed_dictionaries({"b64_json": json_values, "index": json_values})),
        "status": json_values | st.sampled_from(["failed", "error", "success"]),
        "message": json_values,
        "error": json_values | st.dictionaries(st.sampled_from(["code", "type", "message"]), json_values),
        "detail": json_values,
    },
)


@given(json_objects)
def test_odd_answers_are_refused_in_one_way(value: dict[str, Any]) -> None:
    """Nor does any JSON under the names that the API uses; errors in it are short and printable."""
    body = json.dumps(value).encode()
    try:
        found = decode_answer(body)
    except BadAnswer:
        found = None
    for told in (found, read_error(body)):
        if isinstance(told, ServerError):
            assert 0 < len(told.message) <= 510
            assert printable(told.message, 510) == told.message
            assert told.code is None or printable(told.code) == told.code


# Errors


ERRORS = [
    pytest.param(encode_error("no"), "no", None, True, id="short shape"),
    pytest.param(encode_error("no", "c"), "no", "c", True, id="long shape"),
    pytest.param(b'{"detail": "Not Found"}', "Not Found", None, True, id="detail"),
    pytest.param(b'{"error": "no"}', "no", None, True, id="error a text"),
    pytest.param(b'{"error": {"message": "no", "type": "t", "code": null}}', "no", "t", True, id="type for code"),
    pytest.param(b'{"error": {"message": "no", "type": "t", "code": "c"}}', "no", "c", True, id="code before type"),
    pytest.param(b'{"error": {"message": "no", "code": 404}}', "no", "404", True, id="code a number"),
    pytest.param(b'{"error": {"message": "no", "code": []}}', "no", None, True, id="code empty"),
    pytest.param(b'{"error": {"message": "no", "code": ["c"]}}', "no", '["c"]', True, id="code a list"),
    pytest.param(b'{"error": {"message": "no", "code": true}}', "no", None, True, id="code true"),
    pytest.param(b'{"error": {"code": "c"}, "message": "outer"}', "outer", "c", True, id="message outside"),
    pytest.param(b'{"message": {"a": 1}}', '{"a":1}', None, True, id="message an object"),
    pytest.param(b'{"code": "c"}', "error c", "c", True, id="code alone"),
    pytest.param(b'{"message": "  ", "detail": "d"}', "d", None, True, id="blank message"),
    pytest.param(b"oops", "oops", None, False, id="plain text"),
    pytest.param(b"", "an empty answer", None, False, id="nothing"),
    pytest.param(b"  \n", "an empty answer", None, False, id="blank"),
    pytest.param(b"null", "null", None, False, id="null"),
    pytest.param(b"[1]", "[1]", None, False, id="list"),
    pytest.param(b"{}", "{}", None, False, id="empty object"),
    pytest.param(
        b"<html><head><title>502</title><style>b{}</style></head><body><h1>Bad</h1><script>x()</script></body></html>",
        "502 Bad",
        None,
        False,
        id="a page",
    ),
    pytest.param(b'{"message": "a\\u001b[2J\\n\\u202eb"}', "a\\x1b[2J \\u202eb", None, True, id="escapes"),
    pytest.param(b'{"message": "<script>x</script>"}', "<script>x</script>", None, True, id="markup as it is"),
    pytest.param(b'\xef\xbb\xbf{"x": 1}', '\\ufeff{"x": 1}', None, False, id="byte order mark"),
]


@pytest.mark.parametrize(("body", "message", "code", "shaped"), ERRORS)
def test_errors_of_every_shape(body: bytes, message: str, code: str | None, shaped: bool) -> None:
    """Message and code are found in every shape that servers use, and a proxy's page is not taken for the API."""
    assert read_error(body) == ServerError(message, code, shaped)


@pytest.mark.parametrize(
    "message", ["x" * 1_000_000, {"a": "x" * 1_000_000}, ["x" * 1_000_000]], ids=["text", "object", "list"]
)
def test_messages_are_cut(message: Any) -> None:
    """A message of a megabyte, of whatever kind, is told in 500 characters."""
    body = json.dumps({"status": "failed", "message": message}).encode()
    assert len(read_error(body).message) == 500
    assert len(error(body).message) == 500
    assert len(read_error(b"x" * 1_000_000).message) == 500


def test_numbers_are_cut_too() -> None:
    """A code of thousands of digits is told in 500 characters, and a message as well."""
    told = read_error(b'{"code": %b, "message": %b}' % (b"7" * 4000, b"8" * 4000))
    assert len(told.message) <= 500
    assert told.code is not None
    assert len(told.code) <= 500


def test_a_message_that_is_not_utf8_is_still_a_message() -> None:
    """Bytes that are no UTF-8 are replaced, and the error keeps its shape and code."""
    body = b'{"status": "error", "error": {"code": "daily_limit", "message": "caf\xe9"}}'
    assert read_error(body) == ServerError("caf\ufffd", "daily_limit", True)


def test_an_error_in_a_200_answer_that_is_not_utf8_is_still_one() -> None:
    """The same error with status 200 is an error and no bad answer."""
    assert error(b'{"status": "failed", "message": "Daily limit caf\xe9"}').shaped


@pytest.mark.parametrize("depth", [100, 500, 5_000, 100_000])
@pytest.mark.parametrize("unit", ['{"message":', "["], ids=["objects", "lists"])
def test_deep_errors_are_errors(depth: int, unit: str) -> None:
    """Errors nested beyond any reader's depth have a message too."""
    inner = b'{"message":' + unit.encode() * depth
    closing = ("}" if unit == '{"message":' else "]").encode() * depth + b"}"
    assert read_error(inner + b"1" + closing).message
    assert read_error(inner).message


def test_no_depth_is_between_reading_and_writing() -> None:
    """There is no depth at which an error can be read and then not be told."""
    for depth in range(1, 1_100):
        body = b'{"status":"failed","message":' + b"[" * depth + b"1" + b"]" * depth + b"}"
        assert read_error(body).message


def test_errors_with_status_200() -> None:
    """An answer that calls itself failed is an error even beside data; a page is one without the API's shape."""
    assert error(encode_error("no", "c")) == ServerError("no", "c", True)
    assert error(b'{"status": "failed"}') == ServerError("status failed", None, True)
    assert error(b'{"status": "error", "data": [{"b64_json": "QQ=="}]}') == ServerError("status error", None, True)
    assert error(b" \n<html>502</html>") == ServerError("502", None, False)


@pytest.mark.parametrize(
    ("body", "html"),
    [(b"<html>", True), (b" \r\n\t<!doctype html>", True), (b"{}", False), (b"", False), (b"a<b", False)],
)
def test_what_looks_like_a_page(body: bytes, html: bool) -> None:
    """A body whose first character opens a tag is a page."""
    assert looks_like_html(body) is html


@pytest.mark.parametrize("value", [None, 5, "x", [], [{"message": "m"}], {}, {"data": []}, {"message": None}], ids=str)
def test_values_without_an_error(value: Any) -> None:
    """Only an object with a message or a code holds an error."""
    assert error_in(value) is None


# What else the service answers


def test_the_documented_shapes() -> None:
    """Errors, models and credits are written as the service's reference shows them."""
    assert json.loads(encode_error("no")) == {"status": "failed", "message": "no"}
    assert json.loads(encode_error("no", "c", {"d": 1})) == {
        "status": "error",
        "error": {"code": "c", "message": "no", "details": {"d": 1}},
    }
    assert json.loads(encode_models([{"id": "m"}]))["data"] == {"models": [{"id": "m"}]}
    assert json.loads(encode_credits(1.5))["data"] == {"available_balance": "1.50000"}
    assert json.loads(encode_answer("m", [Drawn(b"A", 0, 1.5)])) == {
        "model": "m",
        "object": "list",
        "data": [{"timings": {"inference": 1.5}, "index": 0, "b64_json": "QQ=="}],
        "message": "Image generated successfully",
        "status": "success",
    }


@pytest.mark.parametrize(
    ("before", "timing"),
    [(b"\xef\xbb\xbf", b"1.5"), (b"", b"NaN"), (b"", b"1e999"), (b"", b"-Infinity")],
    ids=["byte order mark", "NaN", "too large", "infinite"],
)
def test_an_odd_answer_keeps_its_paid_picture(before: bytes, timing: bytes) -> None:
    """What no strict reader takes, but is plainly a picture, is not thrown away; a senseless timing is none."""
    answer = decode_answer(before + b'{"data": [{"timings": {"inference": %b}, "b64_json": "QUJD"}]}' % timing)
    assert isinstance(answer, Answer)
    assert [(p.data, p.inference_s) for p in answer.pictures] == [(b"ABC", 1.5 if timing == b"1.5" else None)]


@given(st.dictionaries(texts, st.tuples(st.booleans(), st.none() | st.floats(0, 1e6, allow_nan=False)), max_size=5))
def test_models_come_back_as_they_were_written(known: dict[str, tuple[bool, float | None]]) -> None:
    """The list of models survives the way to the wire and back."""
    listed = [
        {"model_name": name, "model_type": "Image" if draws else "Text", "price": price}
        for name, (draws, price) in known.items()
    ]
    assert decode_models(encode_models(listed)) == [
        Model(name, "Image" if draws else "Text", price) for name, (draws, price) in known.items()
    ]


@given(st.floats(-1e6, 1e9, allow_nan=False))
def test_the_balance_comes_back_to_five_decimals(balance_usd: float) -> None:
    """The balance survives as far as the service's own text does."""
    assert decode_credits(encode_credits(balance_usd)) == pytest.approx(balance_usd, abs=1e-5)


@given(json_values)
def test_lists_and_balances_of_any_shape_are_read_or_refused(value: Any) -> None:
    """Whatever JSON comes, the readers give their type or say that there is none."""
    for body in (json.dumps(value), json.dumps({"data": value}), json.dumps({"data": {"models": value}})):
        with contextlib.suppress(BadAnswer):
            assert all(isinstance(model, Model) for model in decode_models(body.encode()))
        with contextlib.suppress(BadAnswer):
            assert isinstance(decode_credits(body.encode()), float)


@pytest.mark.parametrize("balance", ['"much"', "null", "true", '"nan"', "[1]", "1e999"])
def test_a_senseless_balance_is_none(balance: str) -> None:
    """What is no finite number is not taken for money."""
    with pytest.raises(BadAnswer):
        decode_credits(b'{"data": {"available_balance": %b}}' % balance.encode())
