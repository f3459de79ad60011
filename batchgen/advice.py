"""What the documented models are known to take, as a table, and the warnings that follow from it. Never a refusal:
models come and go, and what is not in the table is sent without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from batchgen.model import Job
from batchgen.text import counted, printable

_MOST_WARNINGS = 100


class Kind(StrEnum):
    """What a warning is about."""

    NOT_TAKEN = "not_taken"
    MASK_WITHOUT_IMAGE = "mask_without_image"
    NO_IMAGE = "no_image"
    ODD_SIZE = "odd_size"
    RANDOM_SEED = "random_seed"
    UNUSUAL_STEPS = "unusual_steps"


class Known(NamedTuple):
    """What the service's pages say of a model.

    `not_taken` are the fields that they do not list, `steps` the typical number and the limits of the usual. One that
    `repaints` changes a picture under a mask; `multiple_of` pixels is what it rounds width and height to.
    """

    not_taken: frozenset[str] = frozenset()
    steps: tuple[int, int, int] | None = None
    repaints: bool = False
    multiple_of: int = 1


_SIZE = frozenset({"width", "height"})
_PICTURES = frozenset({"image", "mask"})

DOCUMENTED = {
    "stabilityai/stable-diffusion-xl-base-1.0": Known(_PICTURES | {"seed"}, (25, 8, 100)),
    "black-forest-labs/FLUX.1-schnell": Known(_PICTURES | {"negative_prompt"}, (4, 1, 12)),
    "black-forest-labs/FLUX.1-Fill-dev": Known(frozenset({"negative_prompt", "seed"}), (30, 8, 100), True, 16),
    "Bytedance-Seedream-3.0": Known(_PICTURES | {"negative_prompt", "num_steps", "seed"}),
}
_UNKNOWN = Known()


class Advice(msgspec.Struct):
    """What may be a mistake in `count` jobs, the first of which is `job` in `line` of the manifest."""

    kind: Kind
    model: str
    field: str
    what: str
    fix: str
    count: int
    job: str
    line: int

    def __str__(self) -> str:
        first = "job" if self.count == 1 else "first in job"
        return f"{counted(self.count, 'job')}: {self.what}; {self.fix} ({first} {self.job!r}, line {self.line})"


@dataclass
class Advisor:
    """Looks at the jobs that are to be done, and groups what is odd about them by kind, model and field."""

    _warnings: dict[tuple[Kind, str, str], Advice] = field(default_factory=dict)

    def __call__(self, job: Job) -> None:
        for kind, name in _oddities(job, DOCUMENTED.get(job.model, _UNKNOWN)):
            if found := self._warnings.get((kind, job.model, name)):
                found.count += 1
            elif len(self._warnings) < _MOST_WARNINGS:
                what, fix = _words(kind, name, job)
                self._warnings[kind, job.model, name] = Advice(kind, job.model, name, what, fix, 1, job.id, job.line)

    def warnings(self) -> list[Advice]:
        """What was found, the most frequent first."""
        return sorted(self._warnings.values(), key=lambda warning: -warning.count)


def _oddities(job: Job, known: Known) -> Iterator[tuple[Kind, str]]:
    """Each thing that is odd about a job, and the field that it is about."""
    request = job.request
    if odd := request.keys() & known.not_taken:
        yield from ((Kind.NOT_TAKEN, name) for name in sorted(odd))
    if "mask" in request and "image" not in request:
        yield Kind.MASK_WITHOUT_IMAGE, "mask"
    elif known.repaints and not ("image" in request and "mask" in request):
        yield Kind.NO_IMAGE, "mask" if "image" in request else "image"
    if request.get("seed") == -1:
        yield Kind.RANDOM_SEED, "seed"
    if known.multiple_of > 1 and any(request.get(name, 0) % known.multiple_of for name in _SIZE):
        yield Kind.ODD_SIZE, "width"
    if known.steps and not known.steps[1] <= request.get("num_steps", known.steps[0]) <= known.steps[2]:
        yield Kind.UNUSUAL_STEPS, "num_steps"


def _words(kind: Kind, name: str, job: Job) -> tuple[str, str]:
    """What is odd, with the values of the job, and what to do."""
    known, model = DOCUMENTED.get(job.model, _UNKNOWN), printable(job.model, 60)
    match kind:
        case Kind.NOT_TAKEN:
            return f"{name} is not documented for {model}", "it may be ignored or refused"
        case Kind.MASK_WITHOUT_IMAGE:
            return "a mask without an image", "give the picture that it belongs to as 'image'"
        case Kind.NO_IMAGE:
            return f"{model} repaints a picture under a mask, and there is no {name}", f"give '{name}'"
        case Kind.RANDOM_SEED:
            return "seed -1 draws at random", "give a seed from 0 up to get the same picture again"
        case Kind.ODD_SIZE:
            size = f"{job.request.get('width', '?')} x {job.request.get('height', '?')}"
            return f"{size} is not made of multiples of {known.multiple_of}", f"{model} will choose a size by itself"
    typical = known.steps[0] if known.steps else 0
    return f"num_steps {job.request['num_steps']} is unusual for {model}", f"typical are {typical}"
