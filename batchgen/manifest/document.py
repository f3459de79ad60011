"""A YAML manifest -> its header and rows. Knows the top level; the fields of a job are the business of `fields`."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from batchgen import text
from batchgen.manifest.endpoints import API, odd_one
from batchgen.manifest.fields import (
    ENDPOINT_LIMITS,
    FIELDS,
    LIMITS,
    NESTED,
    SWITCHES,
    TEXT_FIELDS,
    Field,
    Wrong,
    check,
    check_each,
    nearest,
    shown,
)
from batchgen.manifest.include import OWN, Include, Open, read_entry
from batchgen.manifest.jobs import Rules, survey
from batchgen.manifest.mistakes import Mistakes
from batchgen.manifest.reading import MAX_WHOLE_BYTES, Rows
from batchgen.manifest.row import Place, Row, nowhere
from batchgen.model import Api, FileInput, Header, Problem

if TYPE_CHECKING:
    from batchgen.manifest.yaml12 import Node

PRICE = Field("", Annotated[float, Meta(ge=0, le=1e300)], "a price in dollars from 0 up", "price of one picture")
_ENTRY = frozenset((*FIELDS, *OWN))
_TOP = ("api", "limits", "prices_usd", *SWITCHES, "defaults", "jobs")


@dataclass(frozen=True)
class Document:
    """A manifest that has been read: its header and its rows, and where the fields of its defaults stand."""

    header: Header
    rows: Iterable[Row | Problem]
    default_place: Place = nowhere


@dataclass(frozen=True)
class _Jobs:
    """The rows of a list of jobs, and in their turn those of the files that its `from` entries name."""

    entries: list[Row | Problem | Include]
    include: Open

    def __iter__(self) -> Rows:
        for entry in self.entries:
            if isinstance(entry, Include):
                yield from self.include(entry)
            else:
                yield entry


def read(file: str, lines: Iterable[bytes], include: Open) -> Document:
    """The document in `lines`, called `file` in problems. Raises ManifestError for every problem that can be known.

    `include` reads the files of `from` entries, when the rows are walked.
    """
    reader = _Reader(file, include)
    root = reader.root(lines)
    document = reader.document(root) if root else None
    if document is None or reader.problems:
        rows = document.rows if document else []
        raise Mistakes.of(sorted(reader.problems + reader.in_rows(rows), key=lambda p: (p.line, p.column))).error()
    return document


class _Reader:
    """Reads one document and gathers its problems."""

    def __init__(self, file: str, include: Open) -> None:
        self.file = file
        self.include = include
        self.problems: list[Problem] = []
        self.defaults: dict[str, Any] = {}

    def root(self, lines: Iterable[bytes]) -> Node | None:
        data = bytearray()
        for line in lines:
            data += line
            if len(data) > MAX_WHOLE_BYTES:
                what = f"a YAML manifest may hold at most {MAX_WHOLE_BYTES >> 20} MiB"
                self._complain((0, 0), what, "put the rows into a CSV or JSONL file")
                return None
        try:
            document = data.removeprefix(b"\xef\xbb\xbf").decode()
        except UnicodeDecodeError as error:
            before = bytes(error.object[: error.start]).decode().rpartition("\n")
            place = before[0].count("\n") + len(before[1]) + 1, len(before[2]) + 1
            self._complain(place, f"byte 0x{error.object[error.start]:02x} is not UTF-8", "save the file as UTF-8")
            return None
        # PyYAML takes longer to load than a small table takes to read.
        from batchgen.manifest import yaml12

        root, problems = yaml12.parse(self.file, document)
        self.problems += problems
        if root is None and not problems:
            self._complain((1, 1), "the manifest is empty", "write a list of jobs")
        return root

    def document(self, root: Node) -> Document:
        if isinstance(root.value, list):
            return Document(Header(), self._entries(root))
        if not isinstance(root.value, dict):
            self._complain(root.place, "expected a mapping with 'jobs', or a list of jobs")
            return Document(Header(), [])
        for name in root.items:
            if name not in _TOP:
                self._complain(root.keys[name], *_unknown(name))
        sections = {name: node for name, node in root.items.items() if node.value is not None}
        defaults = sections.get("defaults")
        header = Header(
            self._apis(sections["api"]) if "api" in sections else (),
            self._section("limits", sections, LIMITS),
            self._section("prices_usd", sections, None),
            self._defaults(defaults) if defaults else {},
            **self._switches(sections),
        )
        return Document(header, self._jobs(root), _places(defaults, FIELDS) if defaults else nowhere)

    def _apis(self, node: Node) -> tuple[Api, ...]:
        """One endpoint, or a list of them, which must be of one style and differ in address or key."""
        if not isinstance(node.value, list):
            return (self._api(node),)
        if not node.elements:
            self._complain(node.place, "api: the list is empty", "name an endpoint in it, or leave api out")
        found: list[Api] = []
        for element in node.elements:
            wrong, api = len(self.problems), self._api(element)
            if len(self.problems) > wrong and not isinstance(element.value, dict):
                continue
            if wrong_beside := odd_one(api, found, several=len(node.elements) > 1):
                self._complain(element.place, f"api: {wrong_beside[0]}", wrong_beside[1])
            found.append(api)
        return tuple(found)

    def _api(self, node: Node) -> Api:
        if isinstance(node.value, dict):
            said = self._checked("api", node, API)
            if "limits" in said:
                said["limits"] = self._checked("api.limits", node.items["limits"], ENDPOINT_LIMITS)
            return Api(**said)
        clean, complaints = check_each({"style": node.value}, API)
        for complaint in complaints:
            self._complain(node.place, complaint.what.replace("style", "api", 1))
        return Api(**clean)

    def _switches(self, sections: Mapping[str, Node]) -> dict[str, Any]:
        """What is said of the whole run beside limits; unlike in a variable, no text will do for true or false."""
        found = {name: sections[name] for name in SWITCHES if name in sections}
        for name, node in found.items():
            if not isinstance(node.value, bool):
                self._complain(node.place, f"{name}: expected {SWITCHES[name].expects}, got {shown(node.value)}")
        return {name: node.value for name, node in found.items()}

    def _section(self, name: str, sections: Mapping[str, Node], table: Mapping[str, Field] | None) -> dict[str, Any]:
        """The checked values of a mapping; without a table its keys are free and its values are prices."""
        if name not in sections:
            return {}
        node = sections[name]
        if not isinstance(node.value, dict):
            self._complain(node.place, f"{name}: expected a mapping")
            return {}
        return self._checked(name, node, table if table is not None else dict.fromkeys(node.items, PRICE))

    def _checked(self, section: str, node: Node, table: Mapping[str, Field]) -> dict[str, Any]:
        values = {name: _said(child, name in table and table[name].is_text) for name, child in node.items.items()}
        clean, complaints = check_each(values, table)
        for field, what, fix in complaints:
            self._complain(_places(node, table)(field), f"{section}: {what}", fix, f"{section}.{field}")
        return clean

    def _defaults(self, node: Node) -> dict[str, Any]:
        if not isinstance(node.value, dict):
            self._complain(node.place, "defaults: expected a mapping")
            return {}
        values = _values(node)
        if values.pop("id", None) is not None:
            self._complain(node.keys["id"], "defaults: every job would get the same id", "remove it")
        try:
            self.defaults = check(values)
        except Wrong as wrong:
            self.defaults = wrong.clean
            for field, what, fix in wrong.complaints:
                self._complain(_places(node, FIELDS)(field), f"defaults: {what}", fix, f"defaults.{field}")
        return self.defaults

    def _jobs(self, root: Node) -> Iterable[Row | Problem]:
        node = root.items.get("jobs")
        if node is None:
            self._complain(root.place, "'jobs' is missing", "list the jobs under it")
        elif not isinstance(node.value, list):
            self._complain(node.place, "jobs: expected a list of jobs", "begin each job with '- '")
        else:
            return self._entries(node)
        return []

    def _entries(self, node: Node) -> _Jobs:
        entries: list[Row | Problem | Include] = []
        for element in node.elements:
            if "from" in element.items:
                has_prompt = "prompt" in self.defaults
                place = _places(element, _ENTRY)
                found, problems = read_entry(self.file, _values(element), place, has_prompt=has_prompt)
                entries += [*problems, *([found] if found else [])]
            else:
                entries.append(self._row(element))
        return _Jobs(entries, self.include)

    def _row(self, node: Node) -> Row | Problem:
        if isinstance(node.value, dict):
            return Row(node.line, _values(node), _places(node, FIELDS))
        if node.text is not None and node.value is not None:
            return Row(node.line, {"prompt": node.text}, lambda _: node.place)
        what = "an empty job" if node.value is None else "expected a job, got a list"
        return Problem(self.file, *node.place, what, "write its prompt, or its fields")

    def in_rows(self, rows: Iterable[Row | Problem]) -> list[Problem]:
        """What is wrong with the jobs, as far as the broken header lets one see; files of `from` are left for later."""
        if isinstance(rows, _Jobs):
            rows = [entry for entry in rows.entries if not isinstance(entry, Include)]
        rules = Rules(self.file, "", lambda path: FileInput(path, ""), {"model": "unknown"} | self.defaults)
        return [found for found in survey(rows, rules) if isinstance(found, Problem)]

    def _complain(self, place: tuple[int, int], what: str, fix: str = "", field: str | None = None) -> None:
        self.problems.append(Problem(self.file, *place, what, fix, field=field))


def _values(node: Node) -> dict[str, Any]:
    """What a mapping says; a text field is what was written, `010` and `no` included."""
    return {
        name: _grid(name, child) if name in ("matrix", "exclude") else _said(child, name in TEXT_FIELDS)
        for name, child in node.items.items()
    }


def _said(node: Node, is_text: bool) -> Any:
    return node.text if is_text and node.text is not None and node.value is not None else node.value


def _grid(name: str, node: Node) -> Any:
    """What `matrix` and `exclude` say: values of an axis that is no field are texts, as they were written."""
    if name in NESTED:
        return node.value
    if isinstance(node.value, dict):
        return {inner: _grid(inner, child) for inner, child in node.items.items()}
    if isinstance(node.value, list):
        return [_grid(name, child) for child in node.elements]
    return _said(node, name in TEXT_FIELDS or name.partition(".")[0] not in FIELDS)


def _places(node: Node, known: Container[str]) -> Place:
    """Where the fields of a mapping stand: a known one's value, the name of one that is not known."""

    def place(path: str) -> tuple[int, int]:
        if path in node.keys and path not in known:
            return node.keys[path]
        here = node
        while path:
            name = next((name for name in here.items if f"{path}.".startswith(f"{name}.")), path.partition(".")[0])
            if name in here.items:
                here = here.items[name]
            elif name.isdecimal() and int(name) < len(here.elements):
                here = here.elements[int(name)]
            else:
                break
            path = path[len(name) + 1 :]
        return here.place

    return place


def _unknown(name: str) -> tuple[str, str]:
    what = f"'{text.printable(name, 60)}' is not known here"
    if name in FIELDS:
        return what, "fields of jobs go into 'jobs' or 'defaults'"
    guess = nearest(name, _TOP, cutoff=0.6)
    return what, f"did you mean '{guess}'?" if guess else f"known: {', '.join(_TOP)}"
