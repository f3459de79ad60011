"""The OpenAI-compatible shape, both directions: requests, forms, answers with links, errors as servers send them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import json_values

from batchgen.manifest.jobs import fingerprint
from batchgen.model import BadAnswer, ServerError
from batchgen.protocol import Answer, Drawn, Model, read_error
from batchgen.protocol.answers import MAX_LINKS, decode_answer, filled, links
from batchgen.protocol.multipart import decode_form, encode_form
from batchgen.protocol.openai import (
    decode_models,
    decode_size,
    decode_texts,
    encode_answer,
    encode_error,
    encode_models,
    encode_post,
)

PNG, JPEG, WEBP = b"\x89PNG\r\n\x1a\n...", b"\xff\xd8\xff...", b"RIFF\0\0\0\0WEBP"
TEXT = base64.b64encode(PNG).decode()


def sent(request: dict[str, Any], model: str = "m") -> Any:
    """What travels for a request without pictures."""
    post = encode_post(model, request, {})
    assert (post.path, post.content_type) == ("/images/generations", "application/json")
    return json.loads(post.body)


# Requests

BASE = {"model": "m", "n": 1, "response_format": "b64_json", "prompt": "a fox"}
FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, BASE),
    ({"width": 1024, "height": 512}, BASE | {"size": "1024x512"}),
    ({"width": 1024}, BASE | {"width": 1024}),
    ({"width": 8, "height": 8, "size": "auto"}, BASE | {"size": "auto"}),
    ({"width": 8, "height": 8, "size": None}, BASE | {"width": 8, "height": 8}),
    ({"n": 2}, BASE | {"n": 2}),
    ({"n": None}, {name: value for name, value in BASE.items() if name != "n"}),
    ({"response_format": None}, {name: value for name, value in BASE.items() if name != "response_format"}),
    ({"response_format": "url"}, BASE | {"response_format": "url"}),
    ({"quality": "high", "background": "transparent"}, BASE | {"quality": "high", "background": "transparent"}),
    ({"seed": 7, "num_steps": 4, "negative_prompt": "x"}, BASE | {"seed": 7, "num_steps": 4, "negative_prompt": "x"}),
    ({"extra": {"deep": [1]}}, BASE | {"extra": {"deep": [1]}}),
]


@pytest.mark.parametrize(("said", "travels"), FIELDS, ids=[str(row[0]) for row in FIELDS])
def test_what_a_generation_asks_for(said: dict[str, Any], travels: dict[str, Any]) -> None:
    """One picture as base64 in the size that was given; what a job says itself wins, and null leaves a field out."""
    assert sent({"prompt": "a fox"} | said) == travels


def test_an_edit_is_a_form_with_files() -> None:
    """Pictures travel as files with their own types, everything else as texts."""
    request = {"prompt": "a hat", "width": 64, "height": 32, "strength": 0.5, "on": True, "extra": {"a": 1}}
    post = encode_post("m", request, {"image": JPEG, "mask": PNG})
    assert post.path == "/images/edits"
    parts = decode_form(post.content_type, post.body)
    assert parts.pop("image") == JPEG and parts.pop("mask") == PNG
    assert {name: data.decode() for name, data in parts.items()} == {
        "model": "m",
        "n": "1",
        "response_format": "b64_json",
        "prompt": "a hat",
        "size": "64x32",
        "strength": "0.5",
        "on": "true",
        "extra": '{"a":1}',
    }
    assert b'name="image"; filename="image.jpeg"\r\nContent-Type: image/jpeg\r\n' in post.body
    assert b'name="mask"; filename="mask.png"\r\nContent-Type: image/png\r\n' in post.body


def test_the_same_edit_is_the_same_bytes() -> None:
    """A repeated request can be told by its digest, because its boundary follows from its parts; another's differs."""
    first = encode_post("m", {"prompt": "a"}, {"image": PNG})
    assert encode_post("m", {"prompt": "a"}, {"image": PNG}) == first
    assert encode_post("m", {"prompt": "b"}, {"image": PNG}).content_type != first.content_type


@given(
    st.dictionaries(st.text(max_size=8), st.text(max_size=40), max_size=4),
    st.dictionaries(st.sampled_from(["image", "mask", "image[]"]), st.binary(max_size=80), max_size=3),
)
def test_a_form_comes_back(fields: dict[str, str], files: dict[str, bytes]) -> None:
    """Whatever texts and bytes it holds, line ends and dashes among them, a form is read as it was written."""
    fields = {
        name: text for name, text in fields.items() if name not in files and name.isprintable() and '"' not in name
    }
    form = encode_form(fields, files)
    assert decode_form(form.content_type, form.body) == {n: t.encode() for n, t in fields.items()} | files


BAD_FORMS = [
    ("application/json", b"{}"),
    ("multipart/form-data", b"--x--"),
    ("multipart/form-data; boundary=x", b""),
    ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb'),
    ("multipart/form-data; boundary=x", b"--x\r\nnothing\r\n\r\nb\r\n--x--"),
]


@pytest.mark.parametrize(("kind", "body"), BAD_FORMS, ids=[repr(row[1][:20]) + row[0] for row in BAD_FORMS])
def test_a_bad_form_is_told(kind: str, body: bytes) -> None:
    """A form that is none is a ValueError with a sentence for the client."""
    with pytest.raises(ValueError, match=r"\.$"):
        decode_form(kind, body)


def test_what_a_server_reads_of_texts() -> None:
    """Numbers become numbers again, a size two of them, and a prompt stays text whatever it looks like."""
    read = decode_texts({"prompt": b"1984", "n": b"2", "user": b"no", "image[]": b"abc", "size": b"64x32"})
    assert read == {"prompt": "1984", "n": 2, "user": "no", "image": "YWJj", "size": "64x32"}
    assert decode_size(read) == {"prompt": "1984", "n": 2, "user": "no", "image": "YWJj", "width": 64, "height": 32}
    assert decode_size({"size": "auto", "a": 1}) == {"a": 1}
    with pytest.raises(ValueError, match="1024x1024"):
        decode_size({"size": "large"})


def test_the_style_counts_into_the_fingerprint() -> None:
    """The same request of another style is another picture; the recipe is frozen, for it names what was bought."""
    request = {"prompt": "a fox", "width": 64, "params": None}
    assert fingerprint("openai", "m", request) == "ea1edca2f7c019ee8567ac8ce2f21d8b"
    assert fingerprint("nebula", "m", request) != fingerprint("openai", "m", request)


# Answers


def answer(*items: Any, **more: Any) -> bytes:
    return json.dumps({"created": 1, "data": list(items)} | more).encode()


def test_an_answer_with_all_that_servers_add() -> None:
    """Pictures, what the server drew instead of the prompt, and what it used; no timing is invented."""
    body = answer(
        {"b64_json": TEXT, "url": None, "revised_prompt": "a red fox"},
        {"b64_json": TEXT},
        usage={"total_tokens": 9, "input_tokens_details": {"text_tokens": 1, "odd": "x"}, "bad": True},
    )
    assert decode_answer(body) == Answer(
        (Drawn(PNG, 0, None, "a red fox"), Drawn(PNG, 1)),
        {"total_tokens": 9, "input_tokens_details": {"text_tokens": 1}},
    )
    assert links(body) == ()


@given(st.lists(st.builds(Drawn, st.binary(max_size=30), revised_prompt=st.none() | st.text(max_size=20)), min_size=1))
def test_an_answer_comes_back(pictures: list[Drawn]) -> None:
    """Pictures and revised prompts that the server wrote are read the same, in their order."""
    found = decode_answer(encode_answer(pictures, 1))
    assert isinstance(found, Answer)
    assert [(p.data, p.revised_prompt) for p in found.pictures] == [(p.data, p.revised_prompt) for p in pictures]


def test_a_revised_prompt_that_is_no_unicode_cannot_break_the_log() -> None:
    """A lone surrogate is replaced: the log is UTF-8."""
    found = decode_answer(b'\xef\xbb\xbf{"data": [{"b64_json": "QUJD", "revised_prompt": "a\\ud800b"}]}')
    assert isinstance(found, Answer)
    assert found.pictures[0].revised_prompt == "a?b"


LINKS = [
    pytest.param(answer({"url": "https://x/a"}), ("https://x/a",), id="one"),
    pytest.param(answer({"url": "https://x/a", "b64_json": None}), ("https://x/a",), id="beside null"),
    pytest.param(answer({"url": "https://x/a", "b64_json": ""}), ("https://x/a",), id="beside nothing"),
    pytest.param(answer({"url": "a"}, {"url": "b"}), ("a", "b"), id="two"),
    pytest.param(answer({"url": "https:\\/\\/x"}).replace(b"\\\\", b"\\"), ("https://x",), id="escaped"),
    pytest.param(answer({"url": "a"}, {"b64_json": TEXT}), (), id="one is there"),
    pytest.param(answer({"url": "a"}, {}), (), id="one is nowhere"),
    pytest.param(answer({"url": "a"}, 1), (), id="one is none"),
    pytest.param(answer({"url": "data:image/png;base64,QUJD"}), (), id="data"),
    pytest.param(answer({"url": None, "b64_json": TEXT}), (), id="null"),
    pytest.param(answer({"url": 7}), (), id="a number"),
    pytest.param(b'\xef\xbb\xbf{"data": [{"url": "a\\ud800"}]}', (), id="no Unicode"),
    pytest.param(answer({"url": "a" * 10_000}), (), id="far too long"),
    pytest.param(answer(*[{"url": "a"}] * (MAX_LINKS + 1)), (), id="far too many"),
    pytest.param(b'{"data": {"url": "a"}}', (), id="no list"),
    pytest.param(b'"url"', (), id="no object"),
    pytest.param(b'{"url"', (), id="no JSON"),
    pytest.param(b'{"url": "a", "x": [' + b"0," * 200_000, (), id="large"),
]


@pytest.mark.parametrize(("body", "urls"), LINKS)
def test_where_an_answer_says_its_pictures_lie(body: bytes, urls: tuple[str, ...]) -> None:
    """Only an answer that holds no picture and says where each of them is has links to follow."""
    assert links(body) == urls


def test_fetched_pictures_take_their_links_place() -> None:
    """Once its pictures were fetched, an answer is read as if it had held them; without them it has none."""
    body = answer({"url": "https://x/a", "revised_prompt": "r"}, {"url": "https://x/b"})
    found = decode_answer(filled(body, [PNG, JPEG]))
    assert found == Answer((Drawn(PNG, 0, None, "r"), Drawn(JPEG, 1)))
    with pytest.raises(BadAnswer, match="no b64_json"):
        decode_answer(body)


def test_a_data_address_is_the_picture() -> None:
    """An address that holds the picture needs no fetching."""
    found = decode_answer(answer({"url": f"data:image/png;base64,{TEXT}"}))
    assert found == Answer((Drawn(PNG, 0),))


@given(json_values)
def test_no_answer_ends_the_program(value: Any) -> None:
    """Links are looked for in anything that a server may send."""
    for body in (json.dumps({"data": value, "url": 1}).encode(), json.dumps({"data": [{"url": value}]}).encode()):
        assert all(isinstance(url, str) for url in links(body))


# Errors as they were seen at real servers

ERRORS = [
    pytest.param(
        b'{"error": {"message": "Bad size", "type": "invalid_request_error", "param": null, "code": null}}',
        ServerError("Bad size", "invalid_request_error", True),
        id="code null",
    ),
    pytest.param(
        b'{"error": {"message": "No money", "type": "insufficient_quota", "code": 429}}',
        ServerError("No money", "insufficient_quota", True),
        id="code a number",
    ),
    pytest.param(
        b'{"error": {"message": "x", "type": "t", "code": "model_not_found"}}',
        ServerError("x", "model_not_found", True),
        id="a code of its own",
    ),
    pytest.param(b'{"error": {"message": "x", "code": 400}}', ServerError("x", "400", True), id="a number alone"),
    pytest.param(b'{"detail": "Invalid key"}', ServerError("Invalid key", None, True), id="detail"),
    pytest.param(
        b'{"detail": [{"loc": ["body", "size"], "msg": "bad", "type": "x"}, {"msg": "worse", "type": "y"}]}',
        ServerError("body.size: bad; worse", None, True),
        id="a list of what is wrong",
    ),
    pytest.param(b'{"detail": [1, "x"]}', ServerError('[1,"x"]', None, True), id="another list"),
    pytest.param(
        b'{"detail": {"message": "no", "code": "moderation_blocked"}}',
        ServerError("no", "moderation_blocked", True),
        id="detail with a code",
    ),
    pytest.param(b'{"message": "no", "object": "error"}', ServerError("no", None, True), id="message"),
    pytest.param(b'{"error": "model not loaded"}', ServerError("model not loaded", None, True), id="error a text"),
    pytest.param(b"Internal Server Error", ServerError("Internal Server Error"), id="plain text"),
    pytest.param(b"<html><h1>502</h1></html>", ServerError("502"), id="a page"),
]


@pytest.mark.parametrize(("body", "said"), ERRORS)
def test_errors_of_real_servers(body: bytes, said: ServerError) -> None:
    """Message and code are found wherever servers of this shape put them."""
    assert read_error(body) == said


def test_an_error_comes_back() -> None:
    """What the sandbox writes as an error is read as that error, also with status 200."""
    body = encode_error("No.", "rate_limit_error", "rate_limit_exceeded")
    assert read_error(body) == ServerError("No.", "rate_limit_exceeded", True) == decode_answer(body)


@pytest.mark.parametrize("body", [answer(), b'{"data": null}', b'{"created": 1}', b"{}"])
def test_an_answer_without_pictures_and_error_was_paid_for(body: bytes) -> None:
    """Nothing in it says that nothing was drawn."""
    with pytest.raises(BadAnswer, match="holds no picture"):
        decode_answer(body)


# Models

MODELS = [
    (encode_models(["a", "b"]), [Model("a"), Model("b")]),
    (b'[{"id": "a", "type": "image"}, {"id": "b", "type": "chat"}]', [Model("a", "image"), Model("b", "chat")]),
    (b'{"data": [{"id": "a", "type": "model"}, {"id": 1}, 7]}', [Model("a")]),
]


@pytest.mark.parametrize(("body", "found"), MODELS)
def test_lists_of_models(body: bytes, found: list[Model]) -> None:
    """A list is read with or without its wrapping; what is no model is left out."""
    assert decode_models(body) == found


@pytest.mark.parametrize("body", [b"{}", b'{"data": {}}', b"1", b"<html>"])
def test_what_is_no_list_of_models_is_told(body: bytes) -> None:
    """Whatever else comes is a BadAnswer."""
    with pytest.raises(BadAnswer):
        decode_models(body)
