"""YAML by the core schema of version 1.2, with positions and without blow-ups."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.manifest.scalars import resolve
from batchgen.manifest.yaml12 import Node, parse

NULLS = ("", "~", "null", "Null", "NULL")
NUMBERS = {"0": 0, "-1": -1, "+12": 12, "010": 10, "0777": 777, "0o17": 15, "0xfF": 255, "1e3": 1000.0, "1.": 1.0} | {
    ".5": 0.5,
    "-1.5E-2": -0.015,
    ".inf": math.inf,
    "-.INF": -math.inf,
    "9" * 5000: math.inf,
    "-" + "9" * 5000: -math.inf,
    "0x" + "f" * 5000: math.inf,
}
TEXTS = (
    *(
        "16:9",
        "12:30:45",
        "no",
        "Yes",
        "on",
        "off",
        "y",
        "2026-11-22",
        "1_000",
        "0b1",
        "=",
        "nan",
        "inf",
        "-0x1",
        "0o8",
    ),
    *("1e", ".", "+", "tRue", "nulL", "1 ", "١", "1\n", "true\n", "0X1", "+.nan"),
)
SCALARS: dict[str, Any] = {
    **dict.fromkeys(NULLS),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **NUMBERS,
    **{text: text for text in TEXTS},
}


@pytest.mark.parametrize("text", SCALARS, ids=lambda text: text[:12])
def test_plain_scalars(text: str) -> None:
    """A plain scalar means what the core schema says and nothing that YAML 1.1 added."""
    assert repr(resolve(text)) == repr(SCALARS[text])


def test_not_a_number() -> None:
    """`.nan` is the float that is no number."""
    assert math.isnan(float(resolve(".nan") or 0))


@given(st.integers(-(10**50), 10**50))
def test_integers_survive(number: int) -> None:
    """Every decimal integer is read as itself."""
    assert resolve(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive(number: float) -> None:
    """Every float that Python prints is read as itself."""
    assert resolve(repr(number)) == number


def tree(text: str) -> Node:
    """The tree of a document without problems."""
    root, problems = parse("m", text)
    assert root is not None and not problems, problems
    return root


def problems_of(text: str) -> list[str]:
    """The problems of a document."""
    return [str(problem) for problem in parse("m", text)[1]]


def test_values_and_places() -> None:
    """Every value, and every key, knows its line and column and how it was written."""
    root = tree("a: 010\nb:\n  - no\n  - 'é': \"1\"\n")
    assert root.value == {"a": 10, "b": ["no", {"é": "1"}]}
    assert (root.items["a"].place, root.items["a"].text, root.keys["b"]) == ((1, 4), "010", (2, 1))
    assert root.items["b"].elements[1].items["é"].place == (4, 10)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("!!str 1", "1", id="str"),
        pytest.param("!!int '7'", 7, id="int"),
        pytest.param("!!float 3", 3.0, id="float"),
        pytest.param("!!null ''", None, id="null"),
        pytest.param("!!bool 'true'", True, id="bool"),
        pytest.param("!!seq [a]", ["a"], id="seq"),
        pytest.param("!!map {a: b}", {"a": "b"}, id="map"),
        pytest.param("{a: &x [1], b: *x}", {"a": [1], "b": [1]}, id="alias"),
        pytest.param(
            "{a: &x {p: 1, q: 1}, b: {<<: *x, q: 2}}", {"a": {"p": 1, "q": 1}, "b": {"q": 2, "p": 1}}, id="merge"
        ),
        pytest.param("{<<: [{a: 1}, {a: 2, b: 2}]}", {"a": 1, "b": 2}, id="merge of several"),
        pytest.param("{'<<': 1}", {"<<": 1}, id="quoted merge key"),
        pytest.param("%YAML 1.1\n--- yes", "yes", id="an old version is read as the new one"),
    ],
)
def test_structures(text: str, value: Any) -> None:
    """Core tags, aliases and merge keys build plain values."""
    assert repr(tree(text).value) == repr(value)


def bomb(levels: int) -> str:
    """Nine aliases to the level before, on each level."""
    return "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, levels))


CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200))
WIDE = "a: &a {" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}\nb:\n" + "- {<<: *a}\n" * 1000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            "a: 1\nb: 2\na: 3", "m:3:1: the key 'a' stands here twice; remove one; the first is in line 1", id="twice"
        ),
        pytest.param("{1: a, '1': b}", "m:1:8: the key '1' stands here twice", id="twice, as a number"),
        pytest.param("!!python/object:os.system x", "m:1:1: the tag", id="python tag"),
        pytest.param("- !x [1]", "m:1:3: the tag '!x' is not supported", id="list tag"),
        pytest.param("- !!set {a}", "m:1:3: the tag", id="set"),
        pytest.param("!!int x", "m:1:1: 'x' is no int", id="no int"),
        pytest.param("!!int true", "m:1:1: 'true' is no int", id="a boolean is no int"),
        pytest.param("a: 1\n---\nb: 2", "m:2:1: a second YAML document starts here", id="two documents"),
        pytest.param("{[a]: b}", "m:1:2: a key must be a plain text", id="a list as a key"),
        pytest.param("{<<: 3}", "m:1:2: `<<` takes a mapping", id="merge of a number"),
        pytest.param("a: *x", "m:1:4: not valid YAML: found undefined alias", id="unknown alias"),
        pytest.param("a:\n\t- b", "m:2:1: not valid YAML", id="tab"),
        pytest.param("a: b\x07", r"m:1:5: the character \x07 may not stand in YAML", id="control character"),
        pytest.param("&a [*a]", "m:1:1: an alias stands inside the very thing", id="recursive list"),
        pytest.param("a: &a {b: {<<: *a}}", "m:1:4: an alias stands inside", id="recursive merge"),
        pytest.param("[" * 200_000, "m:1:100: not valid YAML: more than 100 levels", id="deep"),
        pytest.param(CHAIN, "m:100:6: more than 100 levels", id="deep by aliases"),
        pytest.param(
            bomb(10), "m:7:5: with its aliases written out this holds more than 1,000,000 values", id="laughs"
        ),
        pytest.param(
            bomb(2000), "m:7:5: with its aliases written out this holds more than 1,000,000 values", id="many laughs"
        ),
        pytest.param(WIDE, "m:503:4: with its aliases written out", id="merge bomb"),
    ],
)
def test_problems(text: str, problem: str) -> None:
    """What cannot be read, or would blow up, is refused at its place."""
    assert problems_of(text)[0].startswith(problem)


def test_mistakes_are_gathered() -> None:
    """Mistakes that leave the structure readable are all told."""
    assert len(problems_of("{a: 1, a: 2, b: !x 1, [c]: 1}")) == 3
