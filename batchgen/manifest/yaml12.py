"""YAML text -> a tree of nodes with positions, by YAML 1.2's core schema. Knows nothing of manifests or fields.

PyYAML finds the structure; what a plain scalar means is decided by `scalars`. Whatever is built is built once per
anchor, so a document of aliases costs its length.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import yaml

from batchgen import text
from batchgen.manifest.scalars import MAX_DEPTH, resolve
from batchgen.model import Problem

MAX_VALUES = 1_000_000

_CORE = "tag:yaml.org,2002:"
_PLAIN = "plain"
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KINDS: dict[str, type | tuple[type, ...]] = {"null": type(None), "bool": bool, "int": int, "float": (int, float)}


class Node(msgspec.Struct, frozen=True):
    """One value and where it starts; lines and columns count from 1.

    `text` is a scalar as it was written. `items` are a mapping's values, `keys` the places of its keys, `elements` a
    list's values. `size` counts the values from here down with every alias written out, `depth` their levels.
    """

    line: int
    column: int
    value: Any
    text: str | None = None
    items: dict[str, Node] = {}
    keys: dict[str, tuple[int, int]] = {}
    elements: list[Node] = []
    size: int = 1
    depth: int = 1

    @property
    def place(self) -> tuple[int, int]:
        return self.line, self.column


class _Fatal(Exception):
    """A mistake after which nothing more can be said about the document."""


def parse(file: str, document: str) -> tuple[Node | None, list[Problem]]:
    """The tree of one document (None: it is empty or broken) and its problems; `file` is what they call it."""
    problems: list[Problem] = []
    if bad := _UNREADABLE.search(document):
        line = document.count("\n", 0, bad.start()) + 1
        column = bad.start() - document.rfind("\n", 0, bad.start())
        what = f"the character {text.printable(bad[0])} may not stand in YAML"
        return None, [Problem(file, line, column, what, 'write it as an escape in double quotes, as in "\\u0007"')]
    builder = _Builder(file, problems)
    try:
        root = _Composer(document).get_single_node()
        return (builder.build(root) if root is not None else None), problems
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax(file, error))
    except yaml.YAMLError as error:
        problems.append(Problem(file, 0, 0, f"not valid YAML: {text.printable(str(error))}"))
    except _Fatal as fatal:
        problems.append(fatal.args[0])
    return None, problems


class _Composer(yaml.CSafeLoader):
    """Nodes only: leaves plain scalars unresolved and refuses deep nesting before the C stack has to."""

    _depth = 0

    def resolve(self, kind: type, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _CORE + "str"
        return _CORE + ("seq" if kind is yaml.SequenceNode else "map")

    def descend_resolver(self, parent: Any, index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=parent.start_mark)

    def ascend_resolver(self) -> None:
        self._depth -= 1


_TOO_DEEP = f"more than {MAX_DEPTH} levels inside each other"


def _syntax(file: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    problem = text.printable(str(error.problem), 200)
    if "another document" in problem:
        return Problem(file, line, column, "a second YAML document starts here", "keep one document in a file")
    fix = "check indentation (blanks, not tabs), colons and quotes" if problem != _TOO_DEEP else ""
    return Problem(file, line, column, f"not valid YAML: {problem}", fix)


class _Builder:
    """PyYAML's nodes -> ours. Every node is built once, however many aliases lead to it."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.built: dict[int, Node] = {}
        self.open: set[int] = set()
        self.copied = 0  # by merges, each of which costs its size at once

    def build(self, node: yaml.Node) -> Node:
        key = id(node)
        if key in self.built:
            return self.built[key]
        if key in self.open:
            raise _Fatal(self._problem(node, "an alias stands inside the very thing that it repeats"))
        self.open.add(key)
        if isinstance(node, yaml.ScalarNode):
            built = self._scalar(node)
        elif isinstance(node, yaml.SequenceNode):
            built = self._sequence(node)
        else:
            assert isinstance(node, yaml.MappingNode)
            built = self._mapping(node)
        self.open.remove(key)
        return self.built.setdefault(key, built)

    def _scalar(self, node: yaml.ScalarNode) -> Node:
        written: str = node.value
        value: Any = written
        if node.tag == _PLAIN:
            value = resolve(written)
        elif node.tag != _CORE + "str":
            kind = node.tag.removeprefix(_CORE) if node.tag.startswith(_CORE) else ""
            value = resolve(written)
            if kind not in _KINDS:
                self._tag(node)
            elif not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "bool"):
                self.problems.append(self._problem(node, f"{text.printable(written, 60)!r} is no {kind}"))
            elif kind == "float":
                value = float(written)
        return Node(*_start(node), value, text=written)

    def _sequence(self, node: yaml.SequenceNode) -> Node:
        if node.tag != _CORE + "seq":
            self._tag(node)
        elements = [self.build(child) for child in node.value]
        size, depth = self._measure(node, elements)
        return Node(*_start(node), [e.value for e in elements], elements=elements, size=size, depth=depth)

    def _mapping(self, node: yaml.MappingNode) -> Node:
        if node.tag != _CORE + "map":
            self._tag(node)
        items: dict[str, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        merged: list[Node] = []
        for key, child in node.value:
            built = self.build(child)
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(self._problem(key, "a key must be a plain text"))
            elif key.value in keys:
                what = f"the key {text.printable(key.value, 60)!r} stands here twice"
                self.problems.append(self._problem(key, what, f"remove one; the first is in line {keys[key.value][0]}"))
            else:
                keys[key.value] = _start(key)
                if key.value == "<<" and key.tag == _PLAIN:
                    merged = self._merged(key, built)
                else:
                    items[key.value] = built
        if merged:
            del keys["<<"]
        size, depth = self._measure(node, [*items.values(), *merged])
        for base in merged:
            for name, child in base.items.items():
                items.setdefault(name, child)
                keys.setdefault(name, base.keys[name])
        value = {k: v.value for k, v in items.items()}
        return Node(*_start(node), value, items=items, keys=keys, size=size, depth=depth)

    def _merged(self, key: yaml.Node, value: Node) -> list[Node]:
        bases = value.elements or [value]
        if all(isinstance(base.value, dict) for base in bases):
            self.copied += sum(len(base.items) for base in bases)
            if self.copied > MAX_VALUES:
                raise _Fatal(self._too_large(key))
            return bases
        self.problems.append(self._problem(key, "`<<` takes a mapping or a list of mappings"))
        return []

    def _measure(self, node: yaml.Node, children: list[Node]) -> tuple[int, int]:
        """Size and depth of a node with these children. Raises before anybody walks what is too large."""
        size = 1 + sum(child.size for child in children)
        depth = 1 + max((child.depth for child in children), default=0)
        if size > MAX_VALUES:
            raise _Fatal(self._too_large(node))
        if depth > MAX_DEPTH:
            raise _Fatal(self._problem(node, _TOO_DEEP))
        return size, depth

    def _too_large(self, node: yaml.Node) -> Problem:
        what = f"with its aliases written out this holds more than {MAX_VALUES:,} values"
        return self._problem(node, what, "put the rows into a CSV or JSONL file")

    def _tag(self, node: yaml.Node) -> None:
        what = f"the tag {text.printable(node.tag, 60)!r} is not supported"
        self.problems.append(self._problem(node, what, "remove it"))

    def _problem(self, node: yaml.Node, what: str, fix: str = "") -> Problem:
        return Problem(self.file, *_start(node), what, fix)


def _start(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
