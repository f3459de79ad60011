"""Datasets: names and columns, bytes that do not vary, what a second export does, and what the field's readers read."""

from __future__ import annotations

import argparse
import csv
import errno
import gc
import hashlib
import io
import json
import os
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightwork import LATER, Leavings, files_below, png, tree
from samples import entries, entry, failed, json_values, picture

from batchgen import export
from batchgen.cli import main
from batchgen.clock import SystemClock
from batchgen.commands.export import FORMATS as OFFERED
from batchgen.commands.export import size
from batchgen.export.columns import Kind, Survey, cell
from batchgen.export.names import sample_key
from batchgen.files import PosixFiles
from batchgen.model import Entry, Failure, FolderBusy, Outcome, StorageError, UsageError
from batchgen.progress import Meter
from batchgen.runner import formats
from batchgen.runner.dataset import Order
from batchgen.runner.exporting import Exported, render, run
from batchgen.runner.formats import FORMATS

if TYPE_CHECKING:
    from conftest import Place

FOLDERS = ("imagefolder", "webdataset", "parquet")
PROMPT = '=a fox, "quoted"\r\nsecond line é 狐'


@pytest.fixture
def left(tmp_path: Path) -> Leavings:
    """Jobs that are done, with one of two pictures, one that failed, and names and values that readers stumble over."""
    left = Leavings(tmp_path / "out")
    left.done("test/v1.5", png(1), request={"prompt": "a fox", "seed": 7, "scheduler": "ddim"}, meta={"n": 1})
    left.done("train", png(2), png(3), cost_usd=0.5)
    meta = {"n": 2.5, "tags": ["a", None], "source_file_name": "no-picture.png", "mixed": 1}
    left.done("狐", png(4), request={"prompt": PROMPT, "guidance_scale": 3}, meta=meta)
    left.done("a", png(5), meta={"mixed": "1"})
    left.log(entry(job="b", outcome=Outcome.FAILED, images=(), attempts=(failed(Failure.BAD_REQUEST),)))
    return left


def exported(left: Leavings, to: str, place: Path | str | None = None, **more: Any) -> Exported:
    order = Order(to, Path(place) if place else destination_of(left, to), **more)
    return run(left.root, order, Meter("picture", SystemClock()))


def destination_of(left: Leavings, to: str) -> Path:
    return left.root.parent / (f"{to}.csv" if to == "csv" else to)


def content(place: Path) -> dict[str, bytes]:
    """The dataset without what the export keeps for itself."""
    if place.is_file():
        return {place.name: place.read_bytes()}
    return {name: data for name, data in tree(place).items() if not name.startswith(".")}


# Names

KEYS = {
    ("fox", 0, 0): "fox",
    ("cat/oil-1", 0, 0): "cat~~oil-1",
    ("v1.5/a.b", 0, 3): "v1~-5~~a~-b",
    ("fox", 1, 4): "fox~4",
    ("fox/4", 0, 0): "fox~~4",
    ("狐_é", 0, 0): "狐_é",
    ("../x y", 0, 0): "~-~-~~x~x20_y",
}


@pytest.mark.parametrize("of", KEYS)
def test_names_in_a_dataset(of: tuple[str, int, int]) -> None:
    """Neither dots nor slashes, and the id can still be read."""
    assert sample_key(*of) == KEYS[of]


names = st.text(st.sampled_from("ab/.~-_x2 狐\0"), max_size=8) | st.text(max_size=300)


@given(st.tuples(names, st.integers(0, 2)), st.tuples(names, st.integers(0, 2)))
def test_different_pictures_have_different_names(one: tuple[str, int], other: tuple[str, int]) -> None:
    """Whatever ids a log holds, no picture of a dataset takes another's place, and none leaves its folder."""
    try:
        keys = [sample_key(job, index, index) for job, index in (one, other)]
    except UnicodeEncodeError:
        return  # a lone surrogate, which no log can hold
    assert (keys[0] == keys[1]) == (one == other)
    assert all(len(key.encode()) <= 200 and not set(key) & set("/.\0\\ ") for key in keys)


# Columns


def columns_of(*found: Entry) -> dict[str, Kind]:
    survey = Survey()
    for one in found:
        for row in export.rows(one):
            survey.add(row)
    return {column.name: column.kind for column in survey.columns()}


KINDS: list[tuple[list[Any], Kind]] = [
    ([True, False], Kind.BOOL),
    ([1, None], Kind.INT),
    ([2**63 - 1], Kind.INT),
    ([2**63], Kind.TEXT),
    ([1, 2.5], Kind.FLOAT),
    ([2**60, 2.5], Kind.TEXT),
    ([1, True], Kind.TEXT),
    ([1, "1"], Kind.TEXT),
    ([["a"], ["b"]], Kind.TEXT),
    ([{"a": 1}], Kind.TEXT),
    ([None], Kind.TEXT),
]


@pytest.mark.parametrize(("values", "kind"), KINDS)
def test_a_column_has_one_kind_that_fits_all_its_values(values: list[Any], kind: Kind) -> None:
    """What fits nothing else is text, and the order of the rows does not matter."""
    found = [entry(meta={"x": value}) for value in values]
    assert columns_of(*found)["meta.x"] is columns_of(*reversed(found))["meta.x"] is kind


@given(st.lists(json_values, min_size=1, max_size=5))
def test_every_value_fits_its_column(values: list[Any]) -> None:
    """Whatever JSON a log holds, a cell is None or of its column's kind; texts stay as they are."""
    kind = columns_of(*(entry(meta={"x": value}) for value in values))["meta.x"]
    types = {Kind.BOOL: bool, Kind.INT: int, Kind.FLOAT: float, Kind.TEXT: str}
    for value in values:
        found = cell(value, kind)
        assert found is None if value is None else type(found) is types[kind]
        assert found == value or kind is Kind.TEXT


def test_the_columns_of_a_row() -> None:
    """The prompt is `text`; what varies from manifest to manifest has a prefix; a job's cost counts once."""
    asked = {"prompt": "p", "negative_prompt": "n", "seed": 3, "width": 9, "scheduler": "x", "mask": {"path": "m.png"}}
    one, two = export.rows(
        entry(
            job="j",
            request=asked,
            meta={"k": 1, "a_file_name": "x", "a_file_name_": "y"},
            axes={"animal": "cat"},
            images=(picture(), picture(2, None, "images/j~2.jpg")),
            cost_usd=0.5,
        )
    )
    expected = {
        "id": "j",
        "text": "p",
        "negative_prompt": "n",
        "model": "flux",
        "seed": 3,
        "width": 64,
        "height": 32,
        "num_steps": None,
        "input_mask": "m.png",
        "params.scheduler": "x",
        "meta.k": 1,
        "meta.a_file_name_": "x",
        "meta.a_file_name__": "y",
        "axes.animal": "cat",
        "index": 0,
        "inference_s": 1.5,
        "cost_usd": 0.5,
        "api": "nebula",
    }
    assert {name: one.values[name] for name in expected} == expected
    assert (one.file_name, two.file_name) == ("a.png".replace("a", "j"), "j~2.jpg")
    assert (two.values["index"], two.values["inference_s"], two.values["cost_usd"]) == (2, None, None)


@given(entries)
def test_any_entry_can_be_told_in_every_text_form(of: Entry) -> None:
    """Nothing that a log can hold breaks a line, and a line of CSV or JSON reads back as its cells."""
    survey = Survey()
    found = export.rows(of)
    for row in found:
        survey.add(row)
    columns = survey.columns()
    for row in found:
        assert msgspec.json.decode(export.json_line(row, columns))["id"] == of.job
        line = export.csv_header(columns) + export.csv_line(row, columns, "p")
        if "\0" not in line.decode():
            [read] = csv.DictReader(io.StringIO(line.decode(), newline=""))
            assert (read["id"], read["model"], len(read)) == (of.job, of.model, len(columns) + 1)


# What the readers of the field make of it


# The webdataset library leaves the files open that it has read.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_readers_of_the_field_take_every_form(
    left: Leavings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`datasets`, `webdataset`, `pandas` and pyarrow read all pictures, texts and values, in one split."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for to in FORMATS:
        assert exported(left, to).exit_code == 0
    for kind, place in (("imagefolder", "imagefolder"), ("parquet", "parquet")):
        check_features(kind, destination_of(left, place), tmp_path)
    check_webdataset(destination_of(left, "webdataset"))
    check_pandas(left)
    gc.collect()


IDS = ["a", "test/v1.5", "train", "train", "狐"]
PIXELS = [5, 1, 2, 3, 4]


def check_features(kind: str, place: Path, tmp_path: Path) -> None:
    import datasets

    found = datasets.load_dataset(kind, data_dir=str(place), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"]
    rows = found["train"]
    assert list(rows["id"]) == IDS
    assert [image.convert("L").getpixel((0, 0)) for image in rows["image"]] == PIXELS
    by_id = {row["id"]: row for row in rows}
    assert by_id["狐"]["text"] == PROMPT and by_id["狐"]["guidance_scale"] == 3.0
    assert [by_id[name]["meta.n"] for name in ("test/v1.5", "狐", "a")] == [1.0, 2.5, None]
    assert [by_id[name]["meta.mixed"] for name in ("狐", "a")] == ["1", "1"]
    assert json.loads(by_id["狐"]["meta.tags"]) == ["a", None]
    assert by_id["狐"]["meta.source_file_name_"] == "no-picture.png"
    assert by_id["test/v1.5"]["params.scheduler"] == "ddim"


def check_webdataset(place: Path) -> None:
    import webdataset

    shards = [str(path) for path in sorted(place.glob("*.tar"))]
    found = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil"))
    assert [sample["json"]["id"] for sample in found] == IDS
    assert [sample["png"].convert("L").getpixel((0, 0)) for sample in found] == PIXELS
    assert [sample["txt"] for sample in found][-1] == PROMPT
    assert [sample["__key__"] for sample in found] == ["a", "test~~v1~-5", "train", "train~1", "狐"]


def check_pandas(left: Leavings) -> None:
    import pandas
    import pyarrow.parquet

    place = destination_of(left, "csv")
    table = pandas.read_csv(place)
    assert list(table["id"]) == IDS and table["text"].iloc[-1] == PROMPT
    assert all((place.parent / path).is_file() for path in table["file_name"])
    inside = pandas.read_parquet(destination_of(left, "parquet"))
    assert [row["bytes"] for row in inside["image"]] == [png(n) for n in PIXELS]
    schema = pyarrow.parquet.read_schema(destination_of(left, "parquet") / "data/train-00000.parquet")
    assert (str(schema.field("seed").type), str(schema.field("cost_usd").type)) == ("int64", "double")


def test_of_many_rows_those_come_first_that_show_every_columns_type(
    left: Leavings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that infers types from the first rows alone sees a value of every column, and each row once."""
    left.done("zebra", meta={"late": 1})
    for few in (1000, 3):
        monkeypatch.setattr(formats, "_FEW", few)
        exported(left, "imagefolder")
        lines = (destination_of(left, "imagefolder") / "train/metadata.jsonl").read_bytes().splitlines()
        rows = [json.loads(line) for line in lines]
        assert sorted(row["id"] for row in rows) == sorted([*IDS, "zebra"])
        missing = [name for name in rows[0] if all(row[name] is None for row in rows[:5])]
        assert (missing == []) is (few == 3), missing


def test_a_tar_is_as_plain_as_can_be(left: Leavings) -> None:
    """A sample's members are adjacent, and no time, owner or mode of this machine is in them."""
    exported(left, "webdataset")
    with tarfile.open(destination_of(left, "webdataset") / "00000.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members[:4]] == ["a.png", "a.json", "a.txt", "test~~v1~-5.png"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


# Again


@pytest.mark.parametrize("to", FORMATS)
def test_the_same_pictures_give_the_same_bytes(left: Leavings, to: str) -> None:
    """In another place the same, whatever the order of the log; and a second export touches no file."""
    exported(left, to)
    log = left.root / "log.jsonl"
    log.write_bytes(b"".join(reversed(log.read_bytes().splitlines(keepends=True))))
    other = destination_of(left, to).with_name("other")
    exported(left, to, other)
    one, two = content(destination_of(left, to)), content(other)
    assert list(one.values()) == list(two.values())
    written = [path for path in (other, *other.rglob("*")) if path.is_file() and path.name != "files.jsonl"]
    before = {path: path.stat().st_mtime_ns for path in written}
    found = exported(left, to, other)
    assert (found.written, found.linked, found.removed) == (0, 0, 0) and found.kept > 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("to", FOLDERS)
def test_a_second_export_writes_what_is_new_and_removes_what_is_gone(left: Leavings, to: str) -> None:
    """A job that was made again and one that is new change their files only; what is not its own stays."""
    place = destination_of(left, to)
    exported(left, to, shard_bytes=1000)
    place.joinpath("README.md").write_text("mine")
    mine = place / ("train/mine.png" if to == "imagefolder" else "data/mine" if to == "parquet" else "mine.tar")
    mine.write_bytes(b"mine")
    left.done("train", png(9), fingerprint="new", finished_at=LATER)
    left.done("zebra", png(8))
    found = exported(left, to, shard_bytes=1000)
    assert found.exit_code == 0 and found.kept > 0
    fresh = destination_of(left, to).with_name("fresh")
    exported(left, to, fresh, shard_bytes=1000)
    added = {"README.md": b"mine", str(mine.relative_to(place)): b"mine"}
    assert content(place) == content(fresh) | added
    assert found.removed == (1 if to == "imagefolder" else 0)
    if to != "imagefolder":
        assert found.written == 2  # train, and zebra in the place of train's second picture


def test_pictures_are_hard_links_and_copies_on_demand(left: Leavings) -> None:
    """Links cost no space; `--copy` makes them files of their own, and without it they become links again."""
    place, source = destination_of(left, "imagefolder") / "train/a.png", left.root / "images/a.png"
    for copy, same in ((False, True), (True, False), (False, True)):
        exported(left, "imagefolder", copy=copy)
        assert place.samefile(source) is same


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_links_are_impossible_pictures_are_copied(
    left: Leavings, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Another file system is no obstacle, and the next export keeps the copies."""

    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(PosixFiles, "link", fail)
    found = exported(left, "imagefolder")
    assert (found.exit_code, found.linked, found.written) == (0, 0, 6)
    assert exported(left, "imagefolder").kept == 6


@pytest.mark.parametrize("to", FOLDERS)
@pytest.mark.parametrize("step", ["rename", "make_dir", "link", "sync"])
def test_an_export_that_is_cut_short_anywhere_is_finished_by_the_same_command(
    left: Leavings, monkeypatch: pytest.MonkeyPatch, to: str, step: str
) -> None:
    """It dies before its n-th operation, for every n, and pictures change meanwhile: as from one go."""
    fresh = destination_of(left, to).with_name("fresh")
    place = destination_of(left, to)
    real = getattr(PosixFiles, step)
    left.done("train", png(9), fingerprint="new", finished_at=LATER)
    exported(left, to, fresh, shard_bytes=1000)
    for n in range(1, 30):
        calls = Counter[str]()

        def die(files: PosixFiles, *args: Any, n: int = n, calls: Counter[str] = calls) -> Any:
            calls[step] += 1
            if calls[step] == n:
                raise KeyboardInterrupt
            return real(files, *args)

        monkeypatch.setattr(PosixFiles, step, die)
        try:
            exported(left, to, shard_bytes=1000)
            break
        except KeyboardInterrupt:
            monkeypatch.setattr(PosixFiles, step, real)
        left.done("a", png(20 + n), fingerprint=f"f{n}", finished_at=f"2028-01-01T00:00:{n:02}.000Z")
        exported(left, to, fresh, shard_bytes=1000)
        if n % 3 == 0:
            exported(left, to, shard_bytes=1000)
    assert content(place) == content(fresh)
    assert files_below(place / ".batchgen-export/tmp") == set()


def test_a_ledger_that_was_cut_short_loses_nobodys_files(left: Leavings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power goes while a line is written: files whose line is gone are known again by their bytes, and stay known."""
    exported(left, "imagefolder")
    path = destination_of(left, "imagefolder") / ".batchgen-export/files.jsonl"
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        found = exported(left, "imagefolder")
        assert (found.exit_code, found.kept) == (0, 6)
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize("to", FOLDERS)
def test_a_dataset_that_was_copied_elsewhere_is_known_by_its_bytes(left: Leavings, to: str) -> None:
    """Times are lost on the way; nothing is written again for that."""
    exported(left, to)
    for path in destination_of(left, to).rglob("*.*"):
        if path.is_file() and path.name != "files.jsonl":
            os.utime(path, (1, 1))
    found = exported(left, to)
    assert (found.written, found.linked, found.removed, found.exit_code) == (0, 0, 0, 0)


# What is left out, and what is refused


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("damage", ["missing", "same size"])
def test_a_picture_that_is_not_what_the_log_says_is_left_out_and_told(left: Leavings, to: str, damage: str) -> None:
    """Exit 3 with its job; all others are there, and it returns with the next export once it is whole again."""
    path = left.root / "images/train.png"
    whole = path.read_bytes()
    path.unlink()
    if damage == "same size":
        path.write_bytes(png(99))
    found = exported(left, to, shard_bytes=1000)
    assert (found.exit_code, found.pictures, sum(found.counts.values())) == (3, 4, 1)
    assert found.findings[0].job == "train"
    assert "left out   1 picture" in "\n".join(render(found))
    path.unlink(missing_ok=True)
    path.write_bytes(whole)
    assert exported(left, to, shard_bytes=1000).exit_code == 0
    other = exported(left, to, destination_of(left, to).with_name("other"), shard_bytes=1000)
    assert list(content(destination_of(left, to)).values()) == list(content(Path(other.destination)).values())


def test_a_picture_that_waits_in_superseded_is_in_no_dataset_and_no_fault(left: Leavings) -> None:
    """Its job has left the manifest, or a run brings it back."""
    path = left.root / "images/a.png"
    left.put(f"superseded/a~ffffffff~{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.png", path.read_bytes())
    path.unlink()
    found = exported(left, "csv")
    assert (found.exit_code, found.pictures) == (0, 4)


def test_a_folder_whose_pictures_are_gone_empties_no_dataset(left: Leavings) -> None:
    """A disk that is not mounted is refused before anything is removed."""
    exported(left, "imagefolder")
    (left.root / "images").rename(left.root / "elsewhere")
    before = content(destination_of(left, "imagefolder"))
    with pytest.raises(UsageError, match="not mounted"):
        exported(left, "imagefolder")
    assert content(destination_of(left, "imagefolder")) == before


def test_nothing_done_is_nothing_to_export(tmp_path: Path) -> None:
    """Exit 2, and no empty dataset is left that a reader would choke on."""
    left = Leavings(tmp_path / "out")
    with pytest.raises(UsageError, match="no job is done"):
        exported(left, "imagefolder")
    assert not destination_of(left, "imagefolder").exists()


AMONG = [".", "images", "images/new", "superseded/x", ".batchgen", "log.jsonl", "summary.json"]


@pytest.mark.parametrize("place", AMONG)
@pytest.mark.parametrize("to", ["imagefolder", "csv"])
def test_an_export_never_goes_among_the_files_of_an_output_folder(left: Leavings, place: str, to: str) -> None:
    """Neither of its own nor of another's; beside them, in a folder of its own, it may."""
    before = tree(left.root)
    with pytest.raises(UsageError):
        exported(left, to, left.root / place)
    assert tree(left.root) == before
    assert exported(left, to, left.root / "datasets" / "one").exit_code == 0


def test_what_is_not_an_export_is_refused(left: Leavings) -> None:
    """A folder with something in it, a file, another export's folder, another table."""
    holiday = left.root.parent / "holiday"
    holiday.mkdir()
    (holiday / "photo.png").write_bytes(b"dear")
    exported(left, "parquet")
    for to, place in (
        ("imagefolder", holiday),
        ("imagefolder", holiday / "photo.png"),
        ("webdataset", destination_of(left, "parquet")),
        ("csv", holiday / "photo.png"),
        ("csv", holiday),
    ):
        with pytest.raises(UsageError, match="-o"):
            exported(left, to, place)
    assert tree(holiday) == {"photo.png": b"dear"}


def test_a_file_that_is_not_its_own_is_never_overwritten(left: Leavings) -> None:
    """It is told, its row is left out, and exit is 3; moved away, the next export is whole."""
    exported(left, "imagefolder")
    stranger = destination_of(left, "imagefolder") / "train/zebra.png"
    stranger.write_bytes(b"mine")
    left.done("zebra")
    found = exported(left, "imagefolder")
    assert (found.exit_code, found.in_the_way, found.pictures, stranger.read_bytes()) == (3, 1, 5, b"mine")
    assert "zebra.png: is there and not of this export" in "\n".join(render(found))
    stranger.unlink()
    assert exported(left, "imagefolder").exit_code == 0


def test_two_exports_at_once_do_not_mix(left: Leavings) -> None:
    """The second is refused with exit code 5."""
    from batchgen.folder import only_one

    place = destination_of(left, "imagefolder")
    exported(left, "imagefolder")
    with only_one(place / ".batchgen-export", "another export"), pytest.raises(FolderBusy):
        exported(left, "imagefolder")


def test_a_full_disk_is_told_as_that(left: Leavings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 7, not an unexpected error."""

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PosixFiles, "write", fail)
    with pytest.raises(StorageError, match="No space left"):
        exported(left, "webdataset")


def test_parquet_without_pyarrow_says_what_to_install(left: Leavings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, and nothing has been touched."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'batchgen\[export\]'"):
        exported(left, "parquet")
    assert not destination_of(left, "parquet").exists()


def test_text_like_a_formula_is_told_and_not_altered(left: Leavings) -> None:
    """What a spreadsheet could run is a note; the cell is the prompt, to the byte."""
    found = exported(left, "csv")
    assert "formula" in " ".join(found.notices)
    with destination_of(left, "csv").open(newline="", encoding="utf-8") as file:
        assert [row["text"] for row in csv.DictReader(file)][-1] == PROMPT


# The command


def test_the_command_offers_the_forms_that_there_are() -> None:
    """Its choices are written down where nothing heavy is loaded."""
    assert tuple(FORMATS) == OFFERED


@pytest.mark.parametrize(("text", "expected"), [("1GB", 10**9), ("0.5 MiB", 1 << 19), ("500mb", 5 * 10**8)])
def test_sizes_on_the_command_line(text: str, expected: int) -> None:
    """Decimal and binary units."""
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "1", "GB", "0GB", "1XB", "-1GB", "nanGB", "1e999GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A shard of nothing would never end."""
    with pytest.raises(argparse.ArgumentTypeError):
        size(text)


def test_from_a_run_to_a_dataset(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The way of a user, by the manifest: run, export, and the numbers as JSON."""
    manifest = place.jobs("a", "b/c")
    assert main(["run", str(manifest), "--api", "sandbox", "--quiet"]) == 0
    told = ["export", str(manifest), "--to", "imagefolder", "-o", str(place.root / "ds"), "--json"]
    assert main(told) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["v"], found["pictures"], found["linked"], found["written"], found["exit_code"]) == (1, 2, 2, 1, 0)
    assert files_below(place.root / "ds/train") == {"a.png", "b~~c.png", "metadata.jsonl"}
