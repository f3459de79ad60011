"""Row -> Job: defaults, id, fingerprint. Knows neither formats nor files; digests of inputs come from a callable."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from batchgen import text
from batchgen.manifest import ids, templates
from batchgen.manifest.expansion import Expansion, Variant
from batchgen.manifest.fields import FIELDS, MAX_SEED, NESTED, Complaint, Wrong, check, merged, shown
from batchgen.manifest.row import Place, Row, nowhere
from batchgen.manifest.unfold import LARGE, stands_for_itself, unfold
from batchgen.model import FileInput, Job, Problem

T = TypeVar("T")

MAX_FAILURES = 1000
"""Jobs of one row that may fail before the others are not looked at any more."""

_AUTOMATIC = ("seed", "auto")
_INPUTS = ("image", "mask")
_SENT = tuple(name for name in FIELDS if name not in ("id", "model", *NESTED))
_TAKEN = "is taken by an earlier job (case and forms of the same letter do not tell ids apart)"
_NO_MODEL = "give it in 'defaults', in the job or with '-D model=NAME'"


@dataclass(frozen=True)
class Rules:
    """How the rows of one manifest become jobs.

    `name` is what problems call the file; `style` enters the fingerprint. A row's field wins over `overrides` (`-D`),
    these win over `defaults`; both must have passed the checks. `digest` reads a picture by its path in the manifest
    and raises ValueError with a message for people when it cannot serve. `default_place` says where a default stands.
    """

    name: str
    style: str
    digest: Callable[[str], FileInput]
    defaults: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    default_place: Place = nowhere


class Tally(msgspec.Struct, frozen=True):
    """Jobs of one row that were counted and not built: how many ask for which model."""

    models: Counter[str]


def jobs(rows: Iterable[Row | Problem], rules: Rules) -> Iterator[Job | Problem]:
    """The jobs of `rows` in their order, and every problem at its turn; a row with problems yields no job.

    Holds nothing of a row once it is done but hashes of its jobs' ids.
    """
    builder = _Builder(rules)
    return _walk(rows, builder, builder.jobs)


def survey(rows: Iterable[Row | Problem], rules: Rules) -> Iterator[Job | Problem | Tally]:
    """As `jobs`, but of a row that stands for very many only a sample is built and checked; the rest is a Tally.

    That is done where the template of the ids proves that no two of the row's jobs share one.
    """
    builder = _Builder(rules)
    return _walk(rows, builder, builder.survey)


def _walk(
    rows: Iterable[Row | Problem], builder: _Builder, several: Callable[[Row], Iterable[T]]
) -> Iterator[Job | Problem | T]:
    """`several` reads the rows that stand for more than one job."""
    for row in rows:
        if isinstance(row, Problem):
            yield row
        elif builder.stands_for_itself(row):
            yield from builder.alone(row)
        else:
            yield from several(row)


def canonical(value: Any) -> bytes:
    """JSON that is equal for equal values: keys sorted, no blanks, UTF-8, 4.0 written as 4; a file is its digest.

    This recipe is frozen: another would change every fingerprint, and so buy every picture again.
    """
    return _encode(_plain(value))


_encode = msgspec.json.Encoder(order="sorted").encode
_ATOMS = frozenset({str, int, bool, type(None)})


def _plain(value: Any) -> Any:
    if type(value) in _ATOMS:
        return value
    if isinstance(value, dict):
        return {name: inner if type(inner) in _ATOMS else _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):  # repr is fixed by the language, the encoder's way with exponents is not
        return int(value) if value.is_integer() and abs(value) < 1e21 else msgspec.Raw(repr(value).encode())
    assert isinstance(value, FileInput), f"not JSON: {type(value)}"
    return {"sha256": value.sha256}


def fingerprint(style: str, model: str, request: dict[str, Any]) -> str:
    """32 hex digits that change exactly when what is asked for changes; where an input file lies does not count."""
    said = _encode({"style": style, "model": model, "request": _plain(request)})
    return hashlib.sha256(said).hexdigest()[:32]


class _Builder:
    """Builds the jobs of one manifest; remembers the ids taken and the digests of default pictures."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.book = ids.IdBook()
        self.base = merged(rules.defaults, rules.overrides)
        self.default_inputs: dict[str, FileInput | None] = {}
        self.told: set[Problem] = set()
        mentioned = {name: templates.mentioned(value) for name, value in self.base.items()}
        self.default_names = {name: names for name, names in mentioned.items() if names}

    def stands_for_itself(self, row: Row) -> bool:
        return not self.default_names and stands_for_itself(row)

    def alone(self, row: Row) -> Iterable[Job | Problem]:
        """The job of a row that stands for itself, or its problems."""
        built = self._build(Variant(row))
        return (built,) if isinstance(built, Job) else dict.fromkeys(built)

    def jobs(self, row: Row) -> Iterator[Job | Problem]:
        """All the jobs that a row stands for, or its problems."""
        expansion = self._expansion(row)
        yield from expansion if isinstance(expansion, list) else self._built(expansion.variants())

    def survey(self, row: Row) -> Iterator[Job | Problem | Tally]:
        """As `jobs`, with a Tally in the place of very many."""
        expansion = self._expansion(row)
        if isinstance(expansion, list):
            yield from expansion
        elif expansion.count <= LARGE or not expansion.tells_apart():
            yield from self._built(expansion.variants())
        else:
            yield from self._sampled(expansion)

    def _sampled(self, expansion: Expansion) -> Iterator[Job | Problem | Tally]:
        models = Counter({model or self.base.get("model", ""): count for model, count in expansion.models().items()})
        for found in self._built(expansion.sample()):
            yield found
            models.subtract([found.model] if isinstance(found, Job) else [])
        yield Tally(models)

    def _expansion(self, row: Row) -> Expansion | list[Problem]:
        """What the row stands for, or what is wrong with all its jobs alike."""
        expansion = unfold(row)
        if isinstance(expansion, Expansion):
            set_by_axes = {name for axis in expansion.grid.axes for name in axis.sets}
            given = expansion.fields | dict.fromkeys(set_by_axes)
            wrong = [*_missing(self.base | given, row.values), *self._literal(expansion, given)]
            if not wrong:
                return expansion
            expansion = wrong
        return self._problems(row, expansion)

    def _problems(self, row: Row, complaints: Iterable[Complaint]) -> list[Problem]:
        """Complaints at their places; one that the rows of a file have in common is told for the first of them only."""
        problems = []
        for complaint in complaints:
            problem = row.problem(self.rules.name, *complaint)
            if problem in self.told:
                continue
            if row.is_lent(complaint.field):
                self.told.add(problem)
            problems.append(problem)
        return problems

    def _literal(self, expansion: Expansion, given: Container[str]) -> Iterator[Complaint]:
        """Defaults that were meant as templates: they would be sent with the names in them."""
        known = expansion.columns.keys() | set[str]().union(*(axis.variables for axis in expansion.grid.axes))
        for name, names in self.default_names.items():
            if name not in given and (meant := sorted(names & known)):
                what = f"{name}: the default names '{{{meant[0]}}}', but names are replaced in jobs alone"
                yield Complaint(name, what, f"write the {name} into the job")

    def _built(self, variants: Iterable[Variant]) -> Iterator[Job | Problem]:
        """The jobs of one row. A problem that many of them share is told once."""
        told: set[tuple[int, int, str]] = set()
        failures = 0
        for variant in variants:
            built = self._build(variant)
            if isinstance(built, Job):
                yield built
                continue
            for problem in built:
                mark = (problem.line, problem.column, problem.what)
                if mark not in told:
                    told.add(mark)
                    yield problem
            failures += 1
            if failures >= MAX_FAILURES:
                return

    def _build(self, variant: Variant) -> Job | list[Problem]:
        """The job, or what keeps the row from being one; nothing at all when that has been said for an earlier row."""
        row = variant.row
        complaints: list[Complaint] = []
        try:
            given = check(row.values)
        except Wrong as wrong:
            given, complaints = wrong.clean, wrong.complaints
        whole = merged(self.base, given)
        if "prompt" not in whole or "model" not in whole:
            complaints += _missing(whole, row.values)
        job_id = self._claim(given, variant.suffix, complaints)
        if "seed" in whole or variant.seed is not None:
            whole["seed"] = _seed(whole.get("seed"), variant, job_id, complaints)
        problems = self._problems(row, complaints) if complaints else []
        usable = self._read_inputs(row, given, whole, problems) if "image" in whole or "mask" in whole else True
        if complaints or not usable:
            return problems
        model = whole["model"]
        request = {name: whole[name] for name in _SENT if name in whole}
        if "params" in whole:
            request |= whole["params"]
        mark = fingerprint(self.rules.style, model, request)
        return Job(job_id, mark, model, request, whole.get("meta", {}), row.line, variant.axes, row.file)

    def _claim(self, given: dict[str, Any], suffix: str, complaints: list[Complaint]) -> str:
        """The job's id, taken in the book; complains about one that may not be."""
        if "id" in given:
            job_id: str = given["id"]
            if wrong := ids.complaint(job_id):
                complaints.append(Complaint("id", f"id: {wrong}, got {shown(job_id)}"))
            elif not self.book.claim(job_id):
                complaints.append(Complaint("id", f"id: {shown(job_id)} {_TAKEN}", "give each job an id of its own"))
            return job_id
        if complaints:
            return ""
        said = {name: value for name, value in given.items() if name != "meta" and (name, value) != _AUTOMATIC}
        return self.book.claim_derived(ids.derived(given.get("prompt", ""), canonical(said)) + suffix)

    def _read_inputs(self, row: Row, given: dict[str, Any], whole: dict[str, Any], problems: list[Problem]) -> bool:
        """Put the digests of image and mask into `whole`; False if one is unusable."""
        usable = True
        for name in _INPUTS:
            if name in given:
                try:
                    whole[name] = self.rules.digest(given[name])
                except ValueError as error:
                    problems += self._problems(row, [Complaint(name, f"{name}: {text.printable(str(error))}")])
                    usable = False
            elif name in whole:
                whole[name] = self._default_input(name, whole[name], problems)
                usable = usable and whole[name] is not None
        return usable

    def _default_input(self, name: str, path: str, problems: list[Problem]) -> FileInput | None:
        """The digest of a default picture. Its problem is told once, at the default's own place."""
        if name not in self.default_inputs:
            self.default_inputs[name] = None
            try:
                self.default_inputs[name] = self.rules.digest(path)
            except ValueError as error:
                overridden = name in self.rules.overrides
                place = (0, 0) if overridden else self.rules.default_place(name)
                source = "-D" if overridden else "defaults"
                what = f"{source} {name}: {text.printable(str(error))}"
                problems.append(Problem(self.rules.name, *place, what))
        return self.default_inputs[name]


def _seed(said: int | str | None, variant: Variant, job_id: str, complaints: list[Complaint]) -> int | None:
    """The job's own seed: from the sequence, derived from its id, or counted on from the one that was said."""
    if variant.seed is not None:
        return variant.seed
    if not isinstance(said, int):
        return ids.seed(job_id)
    seed = said if said < 0 or not variant.number else said + variant.number - 1
    if seed > MAX_SEED:
        complaints.append(Complaint("seed", "seed: with 'repeat' it counts beyond 2**63-1", "begin lower"))
    return seed


def _missing(whole: dict[str, Any], values: dict[str, Any]) -> Iterator[Complaint]:
    if "prompt" not in whole and values.get("prompt") is None:
        yield Complaint("prompt", "prompt: not given")
    if "model" not in whole and values.get("model") is None:
        yield Complaint("model", "model: not given", _NO_MODEL)
