"""Text for people and for names: what is escaped, what is cut, what a slug keeps."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.text import SLUG_CHARS, counted, printable, slug

PRINTABLE = [
    pytest.param("a fox", "a fox", id="plain"),
    pytest.param("  a \t\r\n b  ", "a b", id="blanks become one"),
    pytest.param("\x1b[2Jx", "\\x1b[2Jx", id="terminal escape"),
    pytest.param("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07", id="clipboard escape"),
    pytest.param("a\x00b\x7fc", "a\\x00b\\x7fc", id="NUL and DEL"),
    pytest.param("\x80\x9b\x85.", "\\x80\\x9b\\x85.", id="C1"),
    pytest.param("a\u202eb\u2066c\u200bd", "a\\u202eb\\u2066c\\u200bd", id="bidirectional and zero width"),
    pytest.param("a\u2028b\u2029c", "a\\u2028b\\u2029c", id="line separators"),
    pytest.param("\ud800x", "\\ud800x", id="lone surrogate"),
    pytest.param("\ue000\ufdd0", "\\ue000\\ufdd0", id="private and unassigned"),
    pytest.param("\U000e0001", "\\U000e0001", id="format character beyond the BMP"),
    pytest.param("café\xa0猫 🐈", "café\xa0猫 🐈", id="what people write stays"),
    pytest.param("<b>&=1+1", "<b>&=1+1", id="markup is other people's task"),
    pytest.param("", "", id="nothing"),
]


@pytest.mark.parametrize(("text", "shown"), PRINTABLE)
def test_what_could_drive_a_terminal_is_escaped(text: str, shown: str) -> None:
    """Nothing that a terminal or a log reader would act upon passes; everything that people write does."""
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("length", "shown"),
    [(4, "xxxx"), (5, "xxxxx"), (6, "xxxx…"), (7, "xxxx…"), (100, "xxxx…")],
)
def test_a_cut_is_marked(length: int, shown: str) -> None:
    """Text up to the limit is whole, longer text ends in an ellipsis and fills the limit exactly."""
    assert printable("x" * length, 5) == shown


def test_escapes_count_towards_the_limit() -> None:
    """Escaping cannot blow a message up beyond its limit."""
    assert printable("\x00" * 500, 500) == "\\x00" * 124 + "\\x0…"


@given(st.text(), st.integers(1, 60))
def test_printable_is_one_short_harmless_line(text: str, limit: int) -> None:
    """Whatever comes in, one line of at most `limit` encodable characters without control characters comes out."""
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()


@given(st.text())
def test_printable_is_stable(text: str) -> None:
    """What has been made printable once is not changed again."""
    assert printable(printable(text)) == printable(text)


SLUGS = [
    pytest.param("A red fox, 4K!", "a-red-fox-4k", id="as documented"),
    pytest.param("--a__b//c--", "a-b-c", id="one hyphen for anything"),
    pytest.param("Ä Cafe\u0301", "ä-café", id="letters of all scripts, composed"),
    pytest.param("猫が飛ぶ", "猫が飛ぶ", id="no case"),
    pytest.param("../../etc/passwd", "etc-passwd", id="no way out of a folder"),
    pytest.param("!!!", "", id="nothing left"),
    pytest.param("x" * 50, "x" * 40, id="cut"),
    pytest.param("x" * 39 + " y", "x" * 39, id="no hyphen at the cut"),
    pytest.param("a\u202eb\x00c", "a-b-c", id="nothing invisible"),
]


@pytest.mark.parametrize(("text", "made"), SLUGS)
def test_slugs(text: str, made: str) -> None:
    """A slug keeps letters and digits in lower case and puts single hyphens for the rest."""
    assert slug(text) == made


@given(st.text())
def test_a_slug_is_a_safe_name(text: str) -> None:
    """A slug is short, of letters with their marks, digits and inner single hyphens, and has no upper case."""
    made = slug(text)
    assert len(made) <= SLUG_CHARS
    assert all(c == "-" or c.isalnum() or unicodedata.category(c).startswith("M") for c in made)
    assert not made.startswith("-")
    assert not made.endswith("-")
    assert "--" not in made
    assert made == made.lower()


@pytest.mark.parametrize(
    ("text", "made"), [("नमस्ते दुनिया!", "नमस्ते-दुनिया"), ("สวัสดี ครับ", "สวัสดี-ครับ")], ids=["Hindi", "Thai"]
)
def test_marks_stay_with_their_letters(text: str, made: str) -> None:
    """Words of scripts that write vowels as marks do not fall apart."""
    assert slug(text) == made


@pytest.mark.parametrize(
    "text",
    ["\u0301heart", "\ufe0fheart", "❤️ heart", "heart ❤️", "heart \u034f"],
    ids=["first", "selector", "before", "after", "joiner"],
)
def test_a_slug_holds_nothing_invisible(text: str) -> None:
    """What an emoji leaves behind is no part of a file name."""
    assert slug(text) == "heart"


@pytest.mark.parametrize(("n", "shown"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs")])
def test_counted(n: int, shown: str) -> None:
    """One is one, all else is many."""
    assert counted(n, "job") == shown
