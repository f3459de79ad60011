"""The sandbox over real HTTP: its endpoints, its refusals, every fault, and what its pictures promise."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from PIL import Image, ImageDraw

from batchgen.model import BadAnswer, ServerError
from batchgen.protocol import Answer, looks_like_html, read_error
from batchgen.protocol.nebula import CREDITS_PATH, GENERATE_PATH, MODELS_PATH, decode_answer
from batchgen.sandbox import (
    FAULT_KINDS,
    IMAGE_PRICES_USD,
    SANDBOX_KEY,
    Fault,
    Sandbox,
    Script,
    digest,
    parse_fault,
)
from batchgen.sandbox.caption import drawable
from batchgen.sandbox.drawing import Order, draw
from batchgen.sandbox.script import Fate

MODEL = "black-forest-labs/FLUX.1-schnell"
SMALL: dict[str, Any] = {"model": MODEL, "prompt": "a flying cat", "width": 96, "height": 64}
KEY = {"Authorization": f"Bearer {SANDBOX_KEY}"}
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Client:
    """The least that can talk to a sandbox: a status, headers and bytes for every request."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
        self.session, self.sandbox, self.ledger = session, sandbox, sandbox.ledger

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        async with self.session.get(self.sandbox.url + path, headers=KEY if headers is None else headers) as response:
            return response.status, await response.json()

    async def post(self, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> Reply:
        target: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.session.post(
            self.sandbox.url + GENERATE_PATH,
            headers=KEY if headers is None else headers,
            allow_redirects=False,
            **target,
        ) as response:
            return Reply(response.status, dict(response.headers), await response.read())

    async def picture(self, **fields: Any) -> bytes:
        answer = decode_answer((await self.post(SMALL | fields)).body)
        assert isinstance(answer, Answer)
        return answer.pictures[0].data


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def error(self) -> ServerError:
        return read_error(self.body)


@asynccontextmanager
async def serving(*faults: str, **settings: Any) -> AsyncIterator[Client]:
    clocks = {name: settings.pop(name) for name in ("monotonic", "utc") if name in settings}
    script = Script(latency_s=(0, 0), faults=tuple(map(parse_fault, faults)), **settings)
    async with Sandbox(script, **clocks) as sandbox, aiohttp.ClientSession() as session:
        yield Client(session, sandbox)


def encoded(picture: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


async def test_a_success_answer_holds_a_picture_of_the_size_asked_for_and_its_inference_time() -> None:
    """A good request is answered in the documented shape."""
    async with serving() as client:
        reply = await client.post(SMALL)
    answer = decode_answer(reply.body)
    assert reply.status == 200
    assert isinstance(answer, Answer)
    [drawn] = answer.pictures
    assert drawn.inference_s is not None and drawn.inference_s > 0
    assert opened(drawn.data).size == (96, 64)


async def test_models_come_in_the_documented_shape() -> None:
    """The list of models names every priced image model, among models of other types."""
    async with serving() as client:
        status, body = await client.get(MODELS_PATH)
    models = body["data"]["models"]
    assert (status, body["status"]) == (200, "success")
    assert {m["model_name"]: m["price"] for m in models if m["model_type"] == "Image"} == IMAGE_PRICES_USD
    assert {m["model_type"] for m in models} == {"Image", "Text", "Embedding"}


async def test_credits_count_down_with_each_picture() -> None:
    """The balance is a text of dollars that falls by the model's price."""
    async with serving() as client:
        assert (await client.get(CREDITS_PATH))[1]["data"] == {"available_balance": "100.00000"}
        await client.picture()
        assert (await client.get(CREDITS_PATH))[1]["data"] == {"available_balance": "99.99700"}


async def test_an_account_that_is_used_up_pays_for_nothing_more() -> None:
    """When the balance is below the price, the answer is 402 and nothing is sold."""
    async with serving(balance_usd=0.004) as client:
        assert (await client.post(SMALL)).status == 200
        reply = await client.post(SMALL)
    assert (reply.status, reply.error.code) == (402, "insufficient_balance")
    assert client.ledger.pictures == 1


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": SANDBOX_KEY}])
async def test_a_wrong_key_opens_nothing(headers: dict[str, str]) -> None:
    """Every endpoint answers 401 in the documented shape."""
    async with serving() as client:
        reply = await client.post(SMALL, headers)
        answers = [await client.get(path, headers) for path in (MODELS_PATH, CREDITS_PATH)]
    assert (reply.status, reply.error.shaped) == (401, True)
    assert [(status, body["status"]) for status, body in answers] == [(401, "failed")] * 2
    assert (client.ledger.requests, client.ledger.pictures) == (1, 0)


PNG = encoded(Image.new("RGB", (8, 8)))
BAD_REQUESTS = {
    "prompt missing": ({"prompt": None}, "prompt"),
    "prompt empty": ({"prompt": " "}, "prompt"),
    "prompt a number": ({"prompt": 7}, "prompt"),
    "model missing": ({"model": None}, "model"),
    "model of texts": ({"model": "meta-llama/Llama-3.3-70B-Instruct"}, "model"),
    "width a text": ({"width": "96"}, "width"),
    "width a fraction": ({"width": 96.5}, "width"),
    "width a truth": ({"width": True}, "width"),
    "width small": ({"width": 15}, "width"),
    "height large": ({"height": 4097}, "height"),
    "no steps": ({"num_steps": 0}, "num_steps"),
    "many steps": ({"num_steps": 201}, "num_steps"),
    "guidance a text": ({"guidance_scale": "7"}, "guidance_scale"),
    "seed a text": ({"seed": "7"}, "seed"),
    "negative prompt a list": ({"negative_prompt": []}, "negative_prompt"),
    "format unknown": ({"output_format": "gif"}, "output_format"),
    "image not base64": ({"image": "***"}, "image"),
    "image a number": ({"image": 5}, "image"),
    "image not a picture": ({"image": base64.b64encode(b"words").decode()}, "image"),
    "image cut off": ({"image": base64.b64encode(base64.b64decode(PNG)[:40]).decode()}, "image"),
    "mask not a picture": ({"image": PNG, "mask": base64.b64encode(b"words").decode()}, "mask"),
    "mask alone": ({"mask": PNG}, "mask"),
    "mask of another size": ({"image": PNG, "mask": encoded(Image.new("L", (9, 8)))}, "mask"),
}


@pytest.mark.parametrize(("fields", "blamed"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_a_bad_parameter_is_refused_by_name(fields: dict[str, Any], blamed: str) -> None:
    """The answer is 400 in the documented shape, blames the field, and costs nothing."""
    async with serving() as client:
        reply = await client.post(SMALL | fields)
    assert (reply.status, reply.error.code) == (400, "invalid_parameters")
    assert reply.error.message.startswith(blamed)
    assert (client.ledger.pictures, client.ledger.refusals) == (0, {400: 1})


async def test_all_that_is_wrong_with_a_request_is_said_at_once() -> None:
    """One refusal names every bad field."""
    async with serving() as client:
        reply = await client.post({"model": MODEL, "width": 1, "seed": "x"})
    assert all(field in reply.error.message for field in ("prompt", "width", "seed"))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe"])
async def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    """Nothing but a JSON object is a request."""
    async with serving() as client:
        reply = await client.post(body)
    assert (reply.status, reply.error.code) == (400, "invalid_request")


async def test_an_unknown_model_or_path_is_not_found() -> None:
    """Both answer 404 in the documented shape."""
    async with serving() as client:
        assert (await client.post(SMALL | {"model": "nobody/nothing"})).error.code == "model_not_found"
        assert await client.get("/nowhere") == (404, {"status": "failed", "message": "Not Found"})


async def test_unknown_fields_are_accepted_and_change_the_picture() -> None:
    """A field the sandbox does not know is neither refused nor ignored."""
    async with serving() as client:
        assert await client.picture(scheduler="ddim") != await client.picture()


async def test_a_body_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is too large answers 413 in the documented shape."""
    monkeypatch.setattr("batchgen.sandbox.server.MAX_BODY_BYTES", 1000)
    async with serving() as client:
        reply = await client.post(SMALL | {"prompt": "a" * 1001})
    assert (reply.status, reply.error.shaped) == (413, True)


async def test_the_same_request_gives_the_same_bytes_and_another_seed_others() -> None:
    """Pictures follow from the request alone, across servers."""
    async with serving() as client:
        first, other = await client.picture(seed=7), await client.picture(seed=8)
    async with serving(seed=99) as client:
        assert await client.picture(seed=7) == first
    assert first != other


@pytest.mark.parametrize(
    ("name", "magic"),
    [("png", b"\x89PNG\r\n"), ("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")],
    ids=["png", "jpeg", "webp"],
)
async def test_the_format_is_the_one_asked_for_or_the_servers_own(name: str, magic: bytes) -> None:
    """Both the request and the script can choose the format."""
    async with serving() as client:
        assert (await client.picture(output_format=name)).startswith(magic)
    async with serving(output_format=name) as client:
        assert (await client.picture()).startswith(magic)


async def test_a_mask_keeps_black_and_repaints_white() -> None:
    """Under black the image's pixels come back unchanged, under white new ones; the size is the image's."""
    image = Image.radial_gradient("L").convert("RGB").resize((128, 96))
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).rectangle((64, 0, 128, 96), fill=255)
    fields = {"image": encoded(image), "mask": encoded(mask), "width": None, "height": None}
    async with serving() as client:
        painted = opened(await client.picture(**fields)).convert("RGB")
    kept, repainted = (0, 0, 64, 96), (64, 0, 128, 96)
    assert painted.size == image.size
    assert painted.crop(kept).tobytes() == image.crop(kept).tobytes()
    assert painted.crop(repainted).tobytes() != image.crop(repainted).tobytes()


async def test_an_image_without_a_mask_shines_through_at_the_size_asked_for() -> None:
    """A white start and a black one give a brighter and a darker picture."""
    means = {}
    async with serving() as client:
        for colour in ("white", "black"):
            image = encoded(Image.new("RGB", (50, 70), colour), "JPEG")
            picture = opened(await client.picture(image=image)).convert("L")
            assert picture.size == (96, 64)
            means[colour] = picture.resize((1, 1)).tobytes()[0]
    assert means["white"] > means["black"] + 50


@pytest.mark.parametrize("size", [(16, 16), (4096, 16), (16, 4096), (64, 64), (300, 60), (2048, 1024)])
@pytest.mark.parametrize("prompt", ["x", "w" * 500, "一只猫 \U0001f431 crème\n\x00 brûlée", "many words " * 60])
def test_any_prompt_fits_any_size(size: tuple[int, int], prompt: str) -> None:
    """Neither long words nor foreign letters nor narrow pictures stop the drawing."""
    picture = opened(draw(Order(prompt=prompt, model="m", width=size[0], height=size[1])))
    assert picture.size == size


def test_every_sort_of_scene_is_drawn() -> None:
    """Forty seeds give forty different pictures."""
    pictures = {draw(Order(prompt="a cat", model="m", width=64, height=64, seed=seed)) for seed in range(40)}
    assert len(pictures) == 40


def test_words_fold_to_what_the_font_can_draw() -> None:
    """Accents fold away; a run of other letters becomes one ellipsis."""
    assert drawable("crème brûlée — 漢字 漢 “ok”…") == "creme brulee - … “ok”…"


STATUSES = [302, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 520, 599]


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_fault_answers_that_status_and_sells_nothing(status: int) -> None:
    """Gateway statuses come as a proxy's page, the others in the API's shape."""
    async with serving(str(status)) as client:
        reply = await client.post(SMALL)
    assert reply.status == status
    assert looks_like_html(reply.body) == (status in (502, 504, 520))
    assert reply.error.message
    assert (client.ledger.pictures, client.ledger.faults, client.ledger.refusals) == (0, {str(status): 1}, {status: 1})


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("quota", 429, "quota_exceeded"),
        ("balance", 402, "insufficient_balance"),
        ("refuse", 400, "content_policy_violation"),
    ],
)
async def test_a_named_refusal_says_what_it_is(kind: str, status: int, code: str) -> None:
    """Refusals carry their code and cost nothing."""
    async with serving(kind) as client:
        reply = await client.post(SMALL)
    assert (reply.status, reply.error.code, client.ledger.pictures) == (status, code, 0)


async def test_failed200_is_an_error_with_a_good_status() -> None:
    """HTTP 200 can carry status failed, and costs nothing."""
    async with serving("failed200") as client:
        reply = await client.post(SMALL)
    assert reply.status == 200
    assert isinstance(decode_answer(reply.body), ServerError)
    assert client.ledger.pictures == 0


@pytest.mark.parametrize("kind", ["badjson", "badbase64", "empty"])
async def test_an_unreadable_answer_was_paid_for(kind: str) -> None:
    """These answers have status 200, hold no picture that can be read, and cost one."""
    async with serving(kind) as client:
        reply = await client.post(SMALL)
    assert reply.status == 200
    with pytest.raises(BadAnswer):
        decode_answer(reply.body)
    assert client.ledger.pictures == 1


async def test_html_is_a_proxys_page_that_was_paid_for() -> None:
    """A page with status 200 is not in the API's shape, and costs a picture."""
    async with serving("html") as client:
        reply = await client.post(SMALL)
    answer = decode_answer(reply.body)
    assert (reply.status, looks_like_html(reply.body), client.ledger.pictures) == (200, True, 1)
    assert isinstance(answer, ServerError) and not answer.shaped


@pytest.mark.parametrize("kind", ["notimage", "cutimage"])
async def test_a_damaged_picture_was_paid_for(kind: str) -> None:
    """These answers read well, but their picture does not open, and cost one."""
    async with serving(kind) as client:
        data = await client.picture()
    with pytest.raises(OSError):
        opened(data)
    assert client.ledger.pictures == 1


@pytest.mark.parametrize(("kind", "paid"), [("reset", 0), ("disconnect", 1), ("truncate", 1)])
async def test_a_broken_connection(kind: str, paid: int) -> None:
    """The client gets an error instead of an answer; whether it paid is the kind's own."""
    async with serving(f"{kind}:x1") as client:
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
            await client.post(SMALL)
        assert client.ledger.pictures == paid
        assert (await client.post(SMALL)).status == 200


async def test_slow_trickles_the_whole_answer() -> None:
    """A slow answer comes in pieces and is complete."""
    async with serving("slow", trickle_s=0.02) as client:
        assert opened(await client.picture()).size == (96, 64)
    assert client.ledger.faults == {"slow": 1}


async def test_a_hanging_request_ends_when_its_client_leaves() -> None:
    """A request that hangs sells nothing and does not stay in flight for ever."""
    async with serving("hang") as client:
        task = asyncio.create_task(client.post(SMALL))
        while not client.ledger.faults["hang"]:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        while client.ledger.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert client.ledger.pictures == 0


@pytest.mark.parametrize("fault", ["hang", "slow", "503:0"])
async def test_closing_ends_requests_in_flight(fault: str) -> None:
    """Whatever a request is waiting for, the sandbox closes and the client gets an error."""
    async with aiohttp.ClientSession() as session:
        slowly = Script(faults=(parse_fault(fault),), latency_s=(0, 0), step_s=60, trickle_s=600)
        async with Sandbox(slowly) as sandbox:
            client = Client(session, sandbox)
            task = asyncio.create_task(client.post(SMALL | ({"num_steps": 9} if fault == "503:0" else {})))
            while not sandbox.ledger.in_flight:  # noqa: ASYNC110
                await asyncio.sleep(0)
        with pytest.raises(aiohttp.ClientError):
            await task


def test_every_named_fault_is_tested_here() -> None:
    """A new fault kind needs a test."""
    tested = {
        "quota",
        "balance",
        "refuse",
        "failed200",
        "badjson",
        "badbase64",
        "empty",
        "html",
        "notimage",
        "cutimage",
    }
    assert set(FAULT_KINDS) == tested | {"reset", "disconnect", "truncate", "slow", "hang", "link", "deadlink"}


async def test_counted_faults_come_first_and_in_their_order() -> None:
    """`KIND:xN` scripts the first requests one by one."""
    async with serving("503:x2", "400:x1") as client:
        assert [(await client.post(SMALL)).status for _ in range(5)] == [503, 503, 400, 200, 200]


def test_chance_follows_the_seed_and_the_probability() -> None:
    """The same script meets the same fate; the parts come out as they were asked for."""

    def fates(seed: int, latency_s: tuple[float, float] = (0, 0)) -> list[str | None]:
        faults = (parse_fault("503:0.3"), parse_fault("html:0.2"))
        fate = Fate(Script(seed=seed, faults=faults, latency_s=latency_s))
        return [(fate.next_latency_s(), fate.next_fault())[1] for _ in range(2000)]

    assert fates(1) == fates(1, (1, 2)) != fates(2)
    assert 500 < fates(1).count("503") < 700
    assert 300 < fates(1).count("html") < 500


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("503:0.05", Fault("503", 0.05)),
        ("hang", Fault("hang", 1.0)),
        (" html:1", Fault("html", 1.0)),
        ("429:x3", Fault("429", 0.0, 3)),
    ],
)
def test_faults_are_read_from_text(text: str, fault: Fault) -> None:
    """A kind, a probability or a count."""
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text", ["", "nonsense", "200", "999", "503:", "503:2", "503:-1", "503:nan", "503:x0", "503:xy"]
)
def test_a_fault_that_makes_no_sense_is_explained(text: str) -> None:
    """The message repeats what was written."""
    with pytest.raises(ValueError, match=repr(text)):
        parse_fault(text)


@pytest.mark.parametrize(
    "wrong", [{"latency_s": (2, 1)}, {"latency_s": (-1, 1)}, {"faults": (Fault("503", 0.6), Fault("500", 0.6))}]
)
def test_a_script_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """Latencies are in order and not negative, probabilities add up to 1 at most."""
    with pytest.raises(ValueError, match=r"latency|add up"):
        Script(**wrong)


def ticking(values: list[float]) -> Callable[[], float]:
    """A clock that shows the last of `values`, which a test may append to."""
    return lambda: values[-1]


async def test_the_minute_refuses_with_retry_after_and_opens_again() -> None:
    """Beyond the requests per minute comes 429 with the seconds to wait; after them there is room."""
    now = [100.0]
    async with serving(requests_per_minute=2, monotonic=ticking(now)) as client:
        assert [(await client.post(SMALL)).status for _ in range(2)] == [200, 200]
        now.append(130.5)
        refused = await client.post(SMALL)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "30")
        assert refused.error.code == "rate_limit_exceeded"
        now.append(160.5)
        assert (await client.post(SMALL)).status == 200
    assert (client.ledger.requests, client.ledger.pictures, client.ledger.refusals) == (4, 3, {429: 1})


async def test_the_day_refuses_until_midnight_utc() -> None:
    """Beyond the requests per day comes 429 that names the quota; the next UTC day opens."""
    clock = [NOON]
    async with serving(requests_per_day=1, utc=lambda: clock[-1]) as client:
        assert (await client.post(SMALL)).status == 200
        refused = await client.post(SMALL)
        assert (refused.status, refused.error.code, "quota" in refused.error.message) == (429, "quota_exceeded", True)
        assert "Retry-After" not in refused.headers
        clock.append(datetime(2026, 11, 23, tzinfo=UTC))
        assert (await client.post(SMALL)).status == 200


async def test_the_ledger_knows_what_was_bought_and_what_was_bought_again() -> None:
    """Requests, pictures by digest and by prompt, and the highest number in flight are counted."""
    async with serving() as client:
        await asyncio.gather(*(client.post(SMALL | {"seed": seed}) for seed in (1, 2, 3, 3)))
        body = b'{"model": "black-forest-labs/FLUX.1-schnell", "prompt": "a dog", "width": 16, "height": 16}'
        await client.post(body)
    ledger = client.ledger
    assert (ledger.requests, ledger.pictures, ledger.bought_again, ledger.in_flight) == (5, 5, 1, 0)
    assert 1 <= ledger.highest_in_flight <= 4
    assert ledger.paid[digest(body)] == 1
    assert ledger.paid_prompts == {"a flying cat": 4, "a dog": 1}


async def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    """Two sandboxes cannot share a port; the first goes on."""
    async with serving() as client:
        port = int(client.sandbox.url.split(":")[2].split("/")[0])
        with pytest.raises(OSError):
            await Sandbox(port=port).__aenter__()
        assert (await client.post(SMALL)).status == 200
