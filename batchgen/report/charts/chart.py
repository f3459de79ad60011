"""What every chart is made of: SVG elements, a frame, and the table that tells the same without looking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDE, NARROW = 760, 340
"""Widths in pixels: for a window, and for a phone, where shrunken letters could not be read."""


class Table(NamedTuple):
    """Numbers with their headings; the first column names a row."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Chart(NamedTuple):
    """A drawing for wide and one for narrow pages, what it shows in a sentence, and its numbers.

    `legend` are class of colour and name.
    """

    title: str
    about: str
    wide: Markup
    narrow: Markup
    table: Table
    legend: tuple[tuple[str, str], ...] = ()


def element(name: str, inside: str | Markup = "", /, **attributes: object) -> Markup:
    """An SVG element; attributes as Python names, `class_` for `class`. Everything is escaped but Markup."""
    said = Markup("").join(
        Markup(' {}="{}"').format(Markup(key.rstrip("_").replace("_", "-")), value) for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), said, escape(inside))


def text(x: float, y: float, said: str, class_: str = "tick", anchor: str = "middle") -> Markup:
    return element("text", said, x=x, y=y, class_=class_, text_anchor=anchor)


def bar(x: float, y: float, width: float, height: float, class_: str, hint: str = "") -> Markup:
    """A rectangle with a hint for whoever points at it."""
    title = element("title", hint) if hint else Markup("")
    return element(
        "rect", title, x=x, y=y, width=round(max(width, 0), 2), height=round(max(height, 0), 2), class_=class_
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str = "axis") -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def group(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def drawing(width: int, height: float, parts: Iterable[Markup], about: str) -> Markup:
    """The SVG around `parts`; `about` is what is read out in its place."""
    return element(
        "svg",
        group(parts),
        viewBox=f"0 0 {width} {round(height)}",
        width=width,
        height=round(height),
        role="img",
        aria_label=about,
    )


def both(draw: Callable[[int], tuple[float, list[Markup]]], about: str) -> tuple[Markup, Markup]:
    """The wide and the narrow drawing; `draw` takes a width, and gives height and parts."""
    pair = []
    for width in (WIDE, NARROW):
        height, parts = draw(width)
        pair.append(drawing(width, height, parts, about))
    return pair[0], pair[1]
