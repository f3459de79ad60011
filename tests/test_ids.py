"""Which ids are allowed, which collide, and how ids are derived."""

from __future__ import annotations

import io

import pytest

from batchgen.manifest import Format, Rules, jobs, read
from batchgen.manifest.ids import IdBook, collision_key, complaint
from batchgen.model import FileInput, Job


@pytest.mark.parametrize(
    "job_id",
    ["a", "fox-1", "a/b.c/d_e", "010", "_x", "Füchse", "हिन्दी", "キツネ", "x.png", "console", "com10", "a" * 180],
)
def test_good_ids(job_id: str) -> None:
    """Letters of every script, digits, dots, hyphens, underscores and folders may make an id."""
    assert complaint(job_id) is None


@pytest.mark.parametrize(
    ("job_id", "reason"),
    [
        ("", "empty"),
        ("a//b", "empty"),
        ("/a", "empty"),
        ("a/", "empty"),
        ("..", "start with"),
        ("a/../b", "start with"),
        (".hidden", "start with"),
        ("-rf", "start with"),
        ("a.", "end in '.'"),
        ("a./b", "end in '.'"),
        ("a b", "not ' '"),
        ("a~1", "not '~'"),
        ("a\\b", "not '\\'"),
        ("C:x", "not ':'"),
        ("a\n", "not ' '"),
        ("a\u202eb", "not '\\u202e'"),
        ("a\0", "not '\\x00'"),
        ("x²", "not '²'"),
        ("\ud800", "not '\\ud800'"),
        ("con", "device"),
        ("Aux.txt", "device"),
        ("a/LPT1", "device"),
        ("com0.x", "device"),
        ("ｃｏｎ", "device"),
        ("a.png/b", "picture"),
        ("a.JPEG/b", "picture"),
        ("a" * 181, "180 bytes"),
        ("é" * 91, "180 bytes"),
        ("/".join(["a" * 100] * 9), "800 bytes"),
    ],
)
def test_bad_ids(job_id: str, reason: str) -> None:
    """An id that a filesystem could take for something else is refused with the reason."""
    assert reason in (complaint(job_id) or "")


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("Fox", "fox", True),
        ("e\u0301", "é", True),
        ("ﬁ", "fi", True),
        ("Straße", "STRASSE", True),
        ("fox", "fox-1", False),
        ("a/b", "a-b", False),
    ],
)
def test_collisions(one: str, two: str, same: bool) -> None:
    """Ids that differ only in case or Unicode form collide, others do not."""
    book = IdBook()
    assert book.claim(one)
    assert book.claim(two) is not same
    assert (collision_key(one) == collision_key(two)) is same


def ids_of(csv: str, defaults: dict[str, object] | None = None) -> list[str]:
    """The ids of the jobs of a CSV manifest, and the text of its problems."""
    rules = Rules("m", "nebula", lambda path: FileInput(path, ""), {"model": "m"} | (defaults or {}))
    found = jobs(read("m", Format.CSV, io.BytesIO(csv.encode())).rows, rules)
    return [f.id if isinstance(f, Job) else str(f) for f in found]


def test_derived_ids_are_frozen() -> None:
    """The id derived from a row never changes."""
    rows = "prompt,width,seed,params.s,meta.m\nA red fox!,,,,\nA red fox!,512,7,x,\n!!!,,,,\nFüchse m²,,,,\n"
    assert ids_of(rows) == ["a-red-fox-93ff6bec", "a-red-fox-b3143b64", "job-218ca9cb", "füchse-m-712c32df"]


FROZEN = """
- {id: "{a}/{b}", prompt: "{a} {b}", seed: auto, matrix: {a: [SD_1.5, oil painting], b: [3.50, Über/Öl]}}
- {prompt: "a {a}", width: 8, seed: auto, repeat: 2, matrix: {a: [red fox, cat], params.s: [0.5]}}
- {prompt: "a {fox}", repeat: 2, seed: 7}
- {prompt: "a {fox}", seed: [3, 1]}
"""


def test_ids_and_seeds_of_a_grid_are_frozen() -> None:
    """The ids and automatic seeds of what a row stands for never change."""
    document = read("m", Format.YAML, io.BytesIO(FROZEN.encode()))
    found = list(jobs(document.rows, Rules("m", "nebula", lambda path: FileInput(path, ""), {"model": "m"})))
    assert [(f.id, f.request["seed"]) for f in found if isinstance(f, Job)] == GOLDEN


GOLDEN: list[tuple[str, int]] = [
    ("SD_1.5/3.50", 1009371388),
    ("SD_1.5/über-öl", 1731140300),
    ("oil-painting/3.50", 1881090696),
    ("oil-painting/über-öl", 529978849),
    ("a-red-fox-1664559d-1", 1574620676),
    ("a-red-fox-1664559d-2", 932163227),
    ("a-cat-34d15312-1", 909328426),
    ("a-cat-34d15312-2", 1833274873),
    ("a-fox-87f48c58-1", 7),
    ("a-fox-87f48c58-2", 8),
    ("a-fox-7250c09a-1", 3),
    ("a-fox-7250c09a-2", 1),
]


def test_equal_rows_are_numbered() -> None:
    """Equal rows get -2, -3 in their order, also when an id of that name was given before."""
    first, second, third = ids_of("prompt\nfox\nfox\nfox\n")
    assert (second, third) == (f"{first}-2", f"{first}-3")
    assert ids_of(f"id,prompt\n{first},cat\n{second},dog\n,fox\n,fox\n")[2:] == [third, f"{first}-4"]


def test_a_derived_id_depends_on_what_is_drawn_alone() -> None:
    """Neither a default nor a note renames a job, but another size does."""
    (plain,) = ids_of("prompt\nfox\n")
    assert ids_of("prompt,Note\nfox,nice\n", {"width": 3}) == [plain]
    assert ids_of("prompt,width\nfox,3\n") != [plain]


def test_a_given_id_may_not_be_a_derived_one() -> None:
    """A given id that an earlier job got by derivation is told as taken, with its place."""
    (derived,) = ids_of("prompt\nfox\n")
    problem = ids_of(f"prompt,id\nfox,\ncat,{derived}\n")[1]
    assert problem.startswith(f"m:3:5: job '{derived}': id: '{derived}' is taken by an earlier job")


def test_the_book_remembers_every_id_however_many() -> None:
    """Thousands of ids are told apart, and each is known when it comes again, also after the book has grown."""
    book = IdBook()
    assert all(book.claim(f"job-{number}") for number in range(5000))
    assert not any(book.claim(f"JOB-{number}") for number in range(5000))
