"""The pictures the sandbox draws: values in, encoded bytes out. No clock, no global randomness, no HTTP.

The scene is a small grey picture of a few soft shapes, scaled up and coloured by a palette that runs from dark to
light. That is handsome, and so cheap (one byte a pixel to scale and to compress) that drawing never limits a run.
"""

from __future__ import annotations

import functools
import io
import math
import random
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, ImageOps

from batchgen.sandbox.caption import write_caption

FORMATS = ("png", "jpeg", "webp")
SCENE_PX = 216
SMOOTH = 2
KEPT_OF_IMAGE = 0.6
KEPT_UNDER_MASK = 0.2
_SAVE = {"png": {"compress_level": 1}, "jpeg": {"quality": 90}, "webp": {"quality": 85, "method": 0}}

PALETTES = (
    ("#14102e", "#4b1d6b", "#b83b7a", "#f58a5b", "#fff0cf"),
    ("#071a2c", "#0f4c6b", "#2a9d8f", "#8fd6b4", "#fbf7dc"),
    ("#10231c", "#2c5f4a", "#7aa35a", "#e0c068", "#fff6df"),
    ("#1a1433", "#3a3a8c", "#6a7fdb", "#b9b4f0", "#fdf0f5"),
    ("#2a0f1c", "#7c1f3c", "#d9483b", "#f6a04d", "#fff1d0"),
    ("#0d1b2a", "#264b6e", "#778da9", "#e8a598", "#fff4ea"),
    ("#1c1410", "#5c3a21", "#b5713a", "#e5b878", "#fdf5e6"),
    ("#0b132b", "#1b4e8a", "#2fa4d7", "#9fdde8", "#fffbe8"),
    ("#201029", "#63326e", "#c0648f", "#f2a7a0", "#fff3e6"),
    ("#06222a", "#14606a", "#e07a5f", "#f2b880", "#fdf6e9"),
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """A picture to draw, or `count` of them. `recipe` is everything else that was asked for: it changes the picture,
    unseen. `as_link`: what is wanted is not the picture but where it lies.
    """

    prompt: str
    model: str
    width: int
    height: int
    num_steps: int | None = None
    seed: int | None = None
    recipe: str = ""
    format: str = "png"
    image: Image.Image | None = None
    mask: Image.Image | None = None
    count: int = 1
    as_link: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def small_print(self) -> tuple[str, ...]:
        steps = () if self.num_steps is None else (f"{self.num_steps} steps",)
        seed = () if self.seed is None else (f"seed {self.seed}",)
        return (self.model.rpartition("/")[2], f"{self.width}x{self.height}", *seed, *steps)


def draw_all(order: Order) -> list[bytes]:
    """All the pictures of an order, each another one."""
    return [draw(replace(order, recipe=order.recipe + f"#{n}" * (n > 0))) for n in range(order.count)]


def draw(order: Order) -> bytes:
    """The picture for `order`, encoded; the same order gives the same bytes."""
    # Random seeded with text hashes all of it, the same way on every machine.
    dice = random.Random(
        "\0".join((order.prompt, order.model, f"{order.size} {order.num_steps} {order.seed}", order.recipe))
    )
    palette = _palette(dice.choice(PALETTES))
    scene = _scene(dice, order.size)
    picture = _coloured(scene, order, palette) if order.image is None else _repainted(scene, order, palette)
    file = io.BytesIO()
    if order.format != "png":
        picture = picture.convert("RGB")
    picture.save(file, order.format, **_SAVE[order.format])
    return file.getvalue()


def _coloured(scene: Image.Image, order: Order, palette: bytes) -> Image.Image:
    write_caption(scene, (0, 0, *order.size), order.prompt, order.small_print, dark=0, light=255)
    scene.putpalette(palette)
    return scene


def _repainted(scene: Image.Image, order: Order, palette: bytes) -> Image.Image:
    """The scene over the order's image: shining through everywhere, or painted where the mask is white."""
    assert order.image is not None
    base = _fitted(order.image.convert("RGB"), order.size)
    mask = _fitted(order.mask.convert("L"), order.size) if order.mask else None
    box = (mask.getbbox() if mask else None) or (0, 0, *order.size)
    scene.putpalette(palette)
    picture = Image.blend(scene.convert("RGB"), base, KEPT_UNDER_MASK if mask else KEPT_OF_IMAGE)
    dark, light = ((*palette[:3],), (*palette[-3:],))
    write_caption(picture, box, order.prompt, order.small_print, dark=dark, light=light)
    return Image.composite(picture, base, mask) if mask else picture


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else ImageOps.fit(picture, size, Image.Resampling.BICUBIC)


@functools.cache
def _palette(stops: tuple[str, ...]) -> bytes:
    """256 RGB colours along `stops`."""
    colours = [bytes.fromhex(stop[1:]) for stop in stops]
    steps = [i / 255 * (len(stops) - 1) for i in range(256)]
    return bytes(
        round(colours[int(s)][c] + (colours[math.ceil(s)][c] - colours[int(s)][c]) * (s % 1))
        for s in steps
        for c in range(3)
    )


def _scene(dice: random.Random, size: tuple[int, int]) -> Image.Image:
    """A grey picture of `size`, drawn small: dark at 0, light at 255."""
    scale = min(1.0, SCENE_PX / math.sqrt(size[0] * size[1]))
    small = (max(8, round(size[0] * scale)), max(8, round(size[1] * scale)))
    canvas = dice.choice((_hills, _orbs, _waves, _arcs))(dice, small)
    return canvas.resize(size, Image.Resampling.BICUBIC)


def _ramp(size: tuple[int, int], top: float, bottom: float) -> Image.Image:
    ends = Image.frombytes("L", (1, 2), bytes((round(top), round(bottom))))
    column = ends.resize((1, size[1]), Image.Resampling.BILINEAR, box=(0, 0.5, 1, 1.5))
    return column.resize(size, Image.Resampling.NEAREST)


def _mist(dice: random.Random, size: tuple[int, int], low: int, high: int) -> Image.Image:
    """Clouds of tone between `low` and `high`: a handful of random points, smoothly joined."""
    points = Image.frombytes("L", (3, 3), bytes(dice.randint(low, high) for _ in range(9)))
    return points.resize(size, Image.Resampling.BICUBIC)


class _Stencil:
    """A shape with smooth edges, drawn at twice the size; coordinates are parts of the shorter side."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._mask = Image.new("L", (size[0] * SMOOTH, size[1] * SMOOTH))
        self._unit = min(size) * SMOOTH

    def disc(self, x: float, y: float, radius: float, fill: int = 255) -> _Stencil:
        x, y, radius = x * self._unit, y * self._unit, radius * self._unit
        ImageDraw.Draw(self._mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        return self

    def below(self, line: list[tuple[float, float]]) -> _Stencil:
        points = [(x * self._unit, y * self._unit) for x, y in line]
        bottom = float(self._mask.height)
        ImageDraw.Draw(self._mask).polygon([(points[0][0], bottom), *points, (points[-1][0], bottom)], fill=255)
        return self

    def paint(self, canvas: Image.Image, tone: Image.Image | int, strength: float = 1.0) -> None:
        mask = self._mask.reduce(SMOOTH)
        canvas.paste(tone, (0, 0, *canvas.size), mask if strength == 1 else mask.point(lambda v: v * strength))


def _extent(size: tuple[int, int]) -> tuple[float, float]:
    """Width and height in parts of the shorter side."""
    return size[0] / min(size), size[1] / min(size)


def _ridge(dice: random.Random, width: float, height: float, swing: float) -> list[tuple[float, float]]:
    """A line from left to right around `height`: three sines with random phases."""
    sines = [(swing / n, dice.uniform(1.1, 1.7) * n, dice.uniform(0, math.tau)) for n in (1, 2, 4)]
    steps = range(41)
    return [
        (x, height + sum(a * math.sin(f * x * 2 + phase) for a, f, phase in sines))
        for x in (width * s / 40 for s in steps)
    ]


def _hills(dice: random.Random, size: tuple[int, int]) -> Image.Image:
    width, height = _extent(size)
    canvas = _ramp(size, dice.randint(95, 150), 235)
    x, y, radius = dice.uniform(0.2, 0.8) * width, dice.uniform(0.18, 0.42) * height, dice.uniform(0.09, 0.17)
    for glow, strength in ((2.6, 0.12), (1.8, 0.18)):
        _Stencil(size).disc(x, y, radius * glow).paint(canvas, 250, strength)
    _Stencil(size).disc(x, y, radius).paint(canvas, 252)
    layers = dice.randint(3, 5)
    for layer in range(layers):
        depth = layer / (layers - 1)
        ridge = _ridge(dice, width, height * (0.48 + 0.36 * depth), 0.055 + 0.03 * depth)
        tone = 172 - 132 * depth
        _Stencil(size).below(ridge).paint(canvas, _ramp(size, tone - 25, tone + 35))
    return canvas


def _orbs(dice: random.Random, size: tuple[int, int]) -> Image.Image:
    width, height = _extent(size)
    canvas = _mist(dice, size, 60, 190)
    for _ in range(dice.randint(4, 7)):
        x, y, radius = dice.uniform(0, width), dice.uniform(0, height), dice.uniform(0.08, 0.34)
        _Stencil(size).disc(x + radius * 0.1, y + radius * 0.16, radius * 1.06).paint(canvas, 20, 0.25)
        light, dark = dice.randint(170, 245), dice.randint(45, 120)
        _Stencil(size).disc(x, y, radius).paint(canvas, _ramp(size, light, dark))
    return canvas


def _waves(dice: random.Random, size: tuple[int, int]) -> Image.Image:
    width, height = _extent(size)
    canvas = _ramp(size, 245, 200)
    layers = dice.randint(6, 9)
    for layer in range(layers):
        depth = (layer + 0.6) / layers
        ridge = _ridge(dice, width, height * depth, 0.07)
        _Stencil(size).below([(x, y - 0.025) for x, y in ridge]).paint(canvas, 10, 0.16)
        tone = 225 - 185 * depth
        _Stencil(size).below(ridge).paint(canvas, _ramp(size, tone + 25, tone - 25))
    return canvas


def _arcs(dice: random.Random, size: tuple[int, int]) -> Image.Image:
    width, height = _extent(size)
    canvas = _ramp(size, dice.randint(200, 240), dice.randint(120, 180))
    for _ in range(dice.randint(2, 3)):
        x, y, radius = dice.uniform(0, width), dice.uniform(0.35, 1.0) * height, dice.uniform(0.35, 0.7)
        rings = dice.randint(4, 7)
        for ring in range(rings):
            tone = dice.randint(30, 235)
            _Stencil(size).disc(x, y, radius * (1 - ring / rings)).paint(canvas, _ramp(size, tone + 15, tone - 15))
    return canvas
