"""The official `openai` package as a client of our sandbox: its OpenAI-compatible shape tells the truth."""

from __future__ import annotations

import base64
import io
import urllib.request
from collections.abc import Iterator

import openai
import pytest
from conftest import MODEL, Beside
from openai import OpenAI
from PIL import Image

from batchgen.sandbox import Sandbox


@pytest.fixture
def sandbox(beside: Beside) -> Sandbox:
    return beside(requests_per_minute=10)


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[OpenAI]:
    with OpenAI(base_url=sandbox.openai_url, api_key=sandbox.script.key, max_retries=0) as client:
        yield client


def opened(text: str | None) -> Image.Image:
    assert text
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_it_generates(client: OpenAI, sandbox: Sandbox) -> None:
    """Several pictures in the size that was asked for, as base64, with what they used."""
    answer = client.images.generate(model=MODEL, prompt="a fox", n=2, size="256x256", response_format="b64_json")
    assert answer.data and [opened(image.b64_json).size for image in answer.data] == [(256, 256)] * 2
    assert answer.data[0].b64_json != answer.data[1].b64_json
    assert answer.usage and answer.usage.total_tokens == 200
    assert round(100 - sandbox.ledger.balance_usd, 6) == 0.006


def test_it_is_told_where_a_picture_lies(client: OpenAI) -> None:
    """Asked for an address, the sandbox gives one that anybody can fetch the picture from."""
    answer = client.images.generate(model=MODEL, prompt="a fox", size="256x256", response_format="url")
    assert answer.data and answer.data[0].url
    with urllib.request.urlopen(answer.data[0].url) as response:
        assert Image.open(io.BytesIO(response.read())).size == (256, 256)


def test_it_edits(client: OpenAI) -> None:
    """Image and mask of its forms are read, and the picture is another than without them."""
    files = []
    for color in ("navy", "white"):
        file = io.BytesIO()
        Image.new("RGB", (64, 48), color).save(file, "PNG")
        files.append((f"{color}.png", file.getvalue(), "image/png"))
    edited = client.images.edit(model=MODEL, image=files[0], mask=files[1], prompt="a cap")
    drawn = client.images.generate(model=MODEL, prompt="a cap")
    assert edited.data and drawn.data
    assert opened(edited.data[0].b64_json).size == (64, 48)
    assert edited.data[0].b64_json != drawn.data[0].b64_json


def test_it_lists_the_models(client: OpenAI) -> None:
    """What the sandbox sells is in its list."""
    assert MODEL in [model.id for model in client.models.list()]


def test_its_errors_are_the_packages_own(client: OpenAI, beside: Beside) -> None:
    """Each refusal is the exception that the package has for it, with message and code."""
    with pytest.raises(openai.NotFoundError) as unknown:
        client.images.generate(model="nobody/none", prompt="a fox")
    assert (unknown.value.code, unknown.value.type) == ("model_not_found", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="1024x1024"):
        client.images.generate(model=MODEL, prompt="a fox", size="large")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    refusing = beside("refuse:x1", "balance:x1", "quota:x1")
    with OpenAI(base_url=refusing.openai_url, api_key=refusing.script.key, max_retries=0) as poor:
        for kind, code in (
            (openai.BadRequestError, "content_policy_violation"),
            (openai.RateLimitError, "insufficient_quota"),
            (openai.RateLimitError, "rate_limit_exceeded"),
        ):
            with pytest.raises(kind) as refused:
                poor.images.generate(model=MODEL, prompt="a fox")
            assert refused.value.code == code


def test_limits_are_told_in_headers(client: OpenAI) -> None:
    """Every answer says how much of the minute is left, and the refusal when it is over."""
    for left in range(9, -1, -1):
        raw = client.images.with_raw_response.generate(model=MODEL, prompt="a", size="16x16")
        assert raw.headers["x-ratelimit-remaining-requests"] == str(left)
    assert raw.headers["x-ratelimit-limit-requests"] == "10"
    assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
    with pytest.raises(openai.RateLimitError) as refused:
        client.images.generate(model=MODEL, prompt="a fox")
    assert int(refused.value.response.headers["retry-after"]) > 0
