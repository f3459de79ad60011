"""The words on a sandbox picture: the wrapped prompt on a shade, and a line of small print. Pure, like `drawing`."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from batchgen.text import printable

Colour = int | tuple[int, ...]
Box = tuple[int, int, int, int]

STAMP = "sandbox"
PROMPT_CHARS = 400
LINE_HEIGHT = 1.24
SMALLEST_PX = 9
MOST_OF_HEIGHT = 0.5
SHADE = 185
# All that Pillow's built-in font can draw.
_IN_FONT = frozenset(map(chr, range(0x20, 0x7F))) | set("·…‘’“”")
_ASCII = str.maketrans({"—": "-", "–": "-", "×": "x", "ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "œ": "oe", "ł": "l"})


def write_caption(
    picture: Image.Image, box: Box, prompt: str, small_print: Iterable[str], *, dark: Colour, light: Colour
) -> None:
    """Writes on the lower part of `box`, in place; a box without room stays as it is."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if width < 56 or height < 48:
        return
    margin = max(4, round(min(width, height) / 26))
    px, lines = _laid_out(drawable(prompt), width - 2 * margin, height * MOST_OF_HEIGHT, _prompt_px(width, height))
    small_px = max(SMALLEST_PX - 1, round(_prompt_px(width, height) * 0.36))
    step = px * LINE_HEIGHT
    text_top = bottom - margin - small_px * 1.6 - step * len(lines)
    _shade(picture, (left, max(top, round(text_top - 2.5 * step)), right, bottom), dark)

    pen = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        pen.text((left + margin, text_top + i * step), line, fill=light, font=_font(px))
    footing = bottom - margin
    pen.text((right - margin, footing), STAMP, fill=light, font=_font(small_px), anchor="rs")
    room = width - 2 * margin - _width(STAMP, small_px) - small_px
    pen.text(
        (left + margin, footing), _fitting(small_print, small_px, room), fill=light, font=_font(small_px), anchor="ls"
    )


def drawable(text: str) -> str:
    """`text` in characters that the font has: accents fold away, every other run becomes an ellipsis.

    >>> drawable("crème brûlée — 漢字")
    'creme brulee - …'
    """
    known = printable(text, PROMPT_CHARS).translate(_ASCII)
    folded = "".join(c if c in _IN_FONT else unicodedata.normalize("NFKD", c) for c in known)
    plain = "".join(c if c in _IN_FONT else "\0" for c in folded if not unicodedata.combining(c))
    return re.sub("\0[\0 ]*\0|\0", "…", plain)


def _prompt_px(width: int, height: int) -> int:
    return max(SMALLEST_PX, round(min(math.sqrt(width * height) / 17, width / 9, height / 6)))


def _laid_out(text: str, width: float, height: float, largest: int) -> tuple[int, list[str]]:
    """The largest font size at which `text` fits, and its lines; a text that never fits loses its end."""
    for part in (1, 0.85, 0.7, 0.58, 0.48, 0.4):
        px = max(SMALLEST_PX, round(largest * part))
        lines = _wrapped(text, px, width)
        room = max(1, int(height / (px * LINE_HEIGHT)))
        if len(lines) <= room:
            return px, lines
    return px, [*lines[: room - 1], lines[room - 1][:-1].rstrip() + "…"]


def _wrapped(text: str, px: int, width: float) -> list[str]:
    lines: list[str] = []
    used, space = math.inf, _advance(" ", px)
    for word in text.split():
        long = _width(word, px)
        if used + space + long <= width:
            lines[-1] += f" {word}"
            used += space + long
            continue
        lines += [word] if long <= width else _broken(word, px, width)
        used = _width(lines[-1], px)
    return lines


def _broken(word: str, px: int, width: float) -> list[str]:
    """`word` in pieces that each fit on a line."""
    pieces = [""]
    for char in word:
        if pieces[-1] and _width(pieces[-1] + char, px) > width:
            pieces.append("")
        pieces[-1] += char
    return pieces


def _fitting(parts: Iterable[str], px: int, room: float) -> str:
    """As many of `parts` as fit side by side."""
    line = ""
    for part in parts:
        longer = f"{line} · {drawable(part)}" if line else drawable(part)
        if _width(longer, px) > room:
            break
        line = longer
    return line


def _shade(picture: Image.Image, box: Box, dark: Colour) -> None:
    """Darkens `box` from nothing at its top to the full shade, so that light words stand out."""
    ramp = Image.linear_gradient("L").resize((box[2] - box[0], box[3] - box[1]))
    picture.paste(dark, box, ramp.point([min(SHADE, round(SHADE * 1.7 * i / 255)) for i in range(256)]))


@functools.lru_cache(maxsize=64)
def _font(px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(px)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@functools.lru_cache(maxsize=8192)
def _advance(char: str, px: int) -> float:
    return _font(px).getlength(char)


def _width(text: str, px: int) -> float:
    """How wide `text` is, from a table: measuring by the font would cost more than all the drawing."""
    return sum(_advance(char, px) for char in text)
