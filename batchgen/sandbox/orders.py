"""What a client may ask for: the fields of a generation request -> an Order to draw, or a refusal. Pure."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

from PIL import Image

from batchgen.model import BadAnswer
from batchgen.protocol import decode_base64
from batchgen.sandbox.catalog import IMAGE_PRICES_USD, MODELS
from batchgen.sandbox.drawing import FORMATS, Order
from batchgen.sandbox.shapes import Error, Reply

DEFAULT_PX = 1024
PIXELS = (16, 4096)
STEPS = (1, 200)
PICTURES = (1, 10)
SEEDS = (-(2**63), 2**64 - 1)
MAX_INPUT_PIXELS = 64_000_000
_SHOWN = {"prompt", "model", "width", "height", "num_steps", "seed", "output_format", "n", "response_format"}


class Refused(Exception):
    """A request that is answered with an error and costs nothing."""

    def __init__(self, why: Error | Reply) -> None:
        self.why = why
        super().__init__(f"HTTP {why.status}")


def read_order(read: Callable[[], dict[str, Any]], default_format: str) -> Order:
    """The picture that is asked for with the fields that `read` finds, or raises ValueError with words for the client.

    Raises Refused with everything that is wrong with them.
    """
    try:
        # A null means the same as a field left out.
        asked = {field: value for field, value in read().items() if value is not None}
    except ValueError as mistake:
        raise Refused(Error(400, str(mistake), "invalid_request")) from mistake
    form = _Form(asked)
    model, prompt = form.text("model"), form.text("prompt")
    form.text("negative_prompt", default="")
    form.number("guidance_scale")
    num_steps, seed = form.whole("num_steps", STEPS), form.whole("seed", SEEDS)
    image, mask = form.picture("image"), form.picture("mask")
    size = tuple(min(max(px, PIXELS[0]), PIXELS[1]) for px in image.size) if image else (DEFAULT_PX, DEFAULT_PX)
    width, height = form.whole("width", PIXELS), form.whole("height", PIXELS)
    output_format = form.choice("output_format", FORMATS, default_format)
    count = form.whole("n", PICTURES)
    form.choice("response_format", ("b64_json", "url"), "b64_json")
    form.compare(image, mask)
    if model in MODELS and model not in IMAGE_PRICES_USD:
        form.problems["model"] = f"model {model} makes no pictures"
    if form.problems:
        raise Refused(Error(400, "; ".join(form.problems.values()), "invalid_parameters", details=form.problems))
    if model not in MODELS:
        raise Refused(Error(404, f"Model {model} not found.", "model_not_found"))
    return Order(
        prompt=prompt,
        model=model,
        width=width or size[0],
        height=height or size[1],
        num_steps=num_steps,
        seed=seed,
        recipe=_recipe(asked),
        format=output_format,
        image=image,
        mask=mask,
        count=count or 1,
        as_link=asked.get("response_format") == "url",
    )


def _recipe(asked: dict[str, Any]) -> str:
    """The parameters that a picture does not show, as text; those a model does not know count too."""
    rest = {
        field: hashlib.sha256(value.encode()).hexdigest() if field in ("image", "mask") else value
        for field, value in asked.items()
        if field not in _SHOWN
    }
    return json.dumps(rest, sort_keys=True) if rest else ""


class _Form:
    """Reads the fields of a request one by one and keeps what is wrong with each."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self.problems: dict[str, str] = {}

    def text(self, field: str, default: str | None = None) -> str:
        value = self._asked.get(field, default)
        if isinstance(value, str) and (value.strip() or value == default):
            return value
        self.problems[field] = f"{field} is missing or empty" if value in (None, "") else f"{field} must be a text"
        return ""

    def whole(self, field: str, limits: tuple[int, int]) -> int | None:
        value = self._asked.get(field)
        if value is None or (type(value) is int and limits[0] <= value <= limits[1]):
            return value
        self.problems[field] = f"{field} must be an integer from {limits[0]} to {limits[1]}"
        return None

    def number(self, field: str) -> None:
        if type(self._asked.get(field, 0)) not in (int, float):
            self.problems[field] = f"{field} must be a number"

    def choice(self, field: str, choices: tuple[str, ...], default: str) -> str:
        value = self._asked.get(field, default)
        if value in choices:
            return str(value)
        self.problems[field] = f"{field} must be one of {', '.join(choices)}"
        return default

    def picture(self, field: str) -> Image.Image | None:
        value = self._asked.get(field)
        if value is None:
            return None
        try:
            return _opened(value)
        except BadAnswer:
            self.problems[field] = f"{field} is not valid base64"
        # Broken pictures make Pillow raise nearly anything.
        except Exception:
            self.problems[field] = f"{field} is not a PNG, JPEG or WebP picture"
        return None

    def compare(self, image: Image.Image | None, mask: Image.Image | None) -> None:
        if mask and not image and "image" not in self.problems:
            self.problems["mask"] = "mask needs an image"
        if mask and image and mask.size != image.size:
            sizes = f"{mask.width}x{mask.height}, not {image.width}x{image.height}"
            self.problems["mask"] = f"mask must have the size of image ({sizes})"


def _opened(value: Any) -> Image.Image:
    if not isinstance(value, str):
        raise BadAnswer("not a text")
    picture = Image.open(io.BytesIO(decode_base64(value)), formats=("PNG", "JPEG", "WEBP"))
    if picture.width * picture.height > MAX_INPUT_PIXELS:
        raise ValueError("too large")
    picture.load()
    return picture
