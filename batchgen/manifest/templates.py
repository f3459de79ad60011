"""Texts with `{names}` in them: finding the names, putting values in. Knows nothing of jobs, axes or places.

A name is looked up as it stands, nothing is evaluated, and what was put in is never looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import msgspec

from batchgen import text

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template(msgspec.Struct, frozen=True, gc=False):
    """The literal texts of a template and the names between them: always one literal more than names."""

    literals: tuple[str, ...]
    names: tuple[str, ...]

    def render(self, values: Mapping[str, str]) -> str:
        pieces = list(self.literals)
        for at, name in enumerate(self.names):
            pieces[at] += values[name]
        return "".join(pieces)


@lru_cache(256)  # what stands beside `from` is the same for every row
def parse(source: str) -> Template:
    """`source` as a template; doubled braces are braces. Raises ValueError for a brace that stands alone."""
    literals, names, done = [""], [], 0
    for piece in _PIECE.finditer(source):
        literals[-1] += source[done : piece.start()]
        done = piece.end()
        if piece[1] is not None:
            names.append(piece[1])
            literals.append("")
        elif len(piece[0]) == 2:
            literals[-1] += piece[0][0]
        else:
            at = text.printable(source[max(piece.start() - 10, 0) : piece.start() + 10])
            raise ValueError(f"a lone '{piece[0]}' in '{at}'")
    literals[-1] += source[done:]
    return Template(tuple(literals), tuple(names))


def compiled(value: Any) -> Any:
    """`value` with a Template in the place of every text that holds braces, in mappings and lists as well.

    Raises ValueError as `parse` does.
    """
    if isinstance(value, str):
        return parse(value) if "{" in value or "}" in value else value
    if isinstance(value, dict):
        return {name: compiled(inner) for name, inner in value.items()}
    return [compiled(inner) for inner in value] if isinstance(value, list) else value


def names_in(value: Any) -> Iterator[str]:
    """The names in all templates of a compiled value."""
    if isinstance(value, Template):
        yield from value.names
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from names_in(inner)


def mentioned(value: Any) -> set[str]:
    """The names that a value would have if it were a template; none where it cannot be one."""
    try:
        return set(names_in(compiled(value)))
    except ValueError:
        return set()


def is_template(value: Any) -> bool:
    """Whether a compiled value holds a template anywhere; one with nothing but doubled braces is one too."""
    if isinstance(value, dict | list):
        return any(map(is_template, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Template)


def rendered(value: Any, values: Mapping[str, str]) -> Any:
    """A compiled value with `values` put into its templates."""
    if isinstance(value, Template):
        return value.render(values)
    if isinstance(value, dict):
        return {name: rendered(inner, values) for name, inner in value.items()}
    return [rendered(inner, values) for inner in value] if isinstance(value, list) else value


def tells_apart(template: Template, choices: Mapping[str, Collection[str]]) -> bool:
    """Whether different choices surely give different texts, however many combinations there are.

    They do if the text can be read back from left to right: no choice, together with the literal behind it, may begin
    another. False means only that this is no proof.
    """
    for name, behind in zip(template.names[:-1], template.literals[1:-1], strict=True):
        ends = sorted(choice + behind for choice in choices[name])
        if any(after.startswith(before) for before, after in pairwise(ends)):
            return False
    return True
