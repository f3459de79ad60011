"""What may be wrong with the files of an output folder, and what is said of it. Opens no file: that is the caller's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from batchgen.model import ExitCode
from batchgen.plan import too_many_missing
from batchgen.text import counted, printable, size

SHOWN = 10


class Kind(StrEnum):
    """What a file is, beside what the log says of it."""

    MISSING = "missing"
    CHANGED = "changed"
    BROKEN = "broken"
    UNREADABLE = "unreadable"
    ORPHANED = "orphaned"


FAULTS = (Kind.MISSING, Kind.CHANGED, Kind.BROKEN, Kind.UNREADABLE)


class Finding(msgspec.Struct, frozen=True):
    """One file that is not as the log says; `job` is None where no job is known to have made it."""

    kind: Kind
    file: str
    job: str | None
    what: str
    moved_to: str | None = None

    def __str__(self) -> str:
        job = f" (job {self.job})" if self.job else ""
        moved = f"; now {printable(self.moved_to)}" if self.moved_to else ""
        return f"{printable(self.file)}{job}: {self.what}{moved}"


@dataclass
class Findings:
    """Counts what is found, and keeps the first `shown` of each kind."""

    shown: int = SHOWN
    counts: Counter[Kind] = field(default_factory=Counter)
    kept: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= self.shown:
            moved_to = as_text(finding.moved_to) if finding.moved_to else None
            self.kept.append(msgspec.structs.replace(finding, file=as_text(finding.file), moved_to=moved_to))

    @property
    def faults(self) -> int:
        return sum(self.counts[kind] for kind in FAULTS)

    def lines(self) -> Iterator[str]:
        """For people: each kind with its count and the first of its files."""
        for kind in Kind:
            if count := self.counts[kind]:
                yield f"  {kind:<10} {counted(count, 'file')}"
                kept = [finding for finding in self.kept if finding.kind is kind]
                yield from (f"    {finding}" for finding in kept)
                if count > len(kept):
                    yield f"    … and {count - len(kept)} more (--show {count} lists them)"


def as_text(name: str) -> str:
    """A file's name as JSON can tell it: bytes that are no UTF-8 are escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


class Verification(msgspec.Struct, frozen=True):
    """The files of a folder against its log.

    `jobs` are the done jobs that were looked at, `pictures` and `size_bytes` what they should have; `counts` the files
    of each kind, `findings` the first of them. `set_aside` pictures wait in `superseded/` for their job's return;
    `superseded` files are all that lie there. `unsettled` files were just being saved, or came during the look, and
    were not judged; `to_make` jobs have lost a picture and are made by the next run. `jobs_gone` is None where the
    manifest could not be read.
    """

    output: str
    manifest: str | None
    quick: bool
    at_work: bool
    jobs: int
    pictures: int
    size_bytes: int
    set_aside: int
    superseded: int
    unsettled: int
    leftovers: int
    jobs_gone: int | None
    to_make: int
    counts: dict[str, int]
    findings: list[Finding]
    notices: list[str]
    exit_code: int
    v: int = 1


def render(found: Verification) -> Iterator[str]:
    """The result for people, a line at a time."""
    lost = sum(found.counts.get(kind, 0) for kind in FAULTS)
    how = "sizes only" if found.quick else "by sha256"
    yield (
        f"{found.output}: {counted(found.pictures, 'picture')} of {counted(found.jobs, 'done job')}"
        f" ({size(found.size_bytes)}, {how}): {f'{lost} not as the log says' if lost else 'all as the log says'}"
    )
    findings = Findings(counts=Counter({Kind(kind): count for kind, count in found.counts.items()}))
    findings.kept = found.findings
    yield from findings.lines()
    for name, count, words in (
        ("set aside", found.set_aside, "wait in superseded/ and are brought back when their job is"),
        ("superseded", found.superseded, "kept in superseded/"),
        ("unsettled", found.unsettled, "that a run was just saving, or that came while this looked, were not judged"),
        ("leftovers", found.leftovers, "of a run that was cut short; the next run, or --tidy, sweeps them up"),
    ):
        if count:
            yield f"  {name:<10} {counted(count, 'file')} {words}"
    for notice in found.notices:
        yield f"  note       {notice}"


def next_steps(lost: int, passing: int, had: int, manifest: str) -> Iterator[str]:
    """What becomes of jobs without their pictures: those that a run sees are `lost`, the `passing` look right to it."""
    if passing:
        yield (
            f"{counted(passing, 'damaged picture')} would pass for done, since a run looks at sizes only; --requeue"
            " moves them aside, and the next run makes their jobs again"
        )
    if lost:
        flag = " --redo-missing" if too_many_missing(lost, had) else ""
        why = "; it asks for --redo-missing because so many are gone" if flag else ""
        yield f"the next run makes {counted(lost, 'job')} again, and pays again{why}: batchgen run {manifest}{flag}"


def exit_code(findings: Findings) -> int:
    return int(ExitCode.INCOMPLETE if findings.faults else ExitCode.OK)
