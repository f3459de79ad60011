"""What is said about parameters that a documented model does not take, and what is not said."""

from __future__ import annotations

from typing import Any

import pytest
from samples import job

from batchgen.advice import DOCUMENTED, Advisor, Kind
from batchgen.model import FileInput, Job

SDXL, SCHNELL, FILL, SEEDREAM = DOCUMENTED
FILE = FileInput("head.jpg", "ab" * 32)
PAIR = {"image": FILE, "mask": FILE}


def warned(*jobs: Job) -> list[tuple[Kind, str, int]]:
    advisor = Advisor()
    for each in jobs:
        advisor(each)
    return [(warning.kind, warning.field, warning.count) for warning in advisor.warnings()]


CASES: dict[str, tuple[str, dict[str, Any], list[tuple[Kind, str]]]] = {
    "sdxl as documented": (SDXL, {"num_steps": 25, "guidance_scale": 9, "negative_prompt": "x", "width": 1023}, []),
    "sdxl with a seed": (SDXL, {"seed": 7}, [(Kind.NOT_TAKEN, "seed")]),
    "schnell as documented": (SCHNELL, {"num_steps": 4, "guidance_scale": 3.5, "seed": 0, "width": 1000}, []),
    "schnell, negative": (SCHNELL, {"negative_prompt": "x"}, [(Kind.NOT_TAKEN, "negative_prompt")]),
    "schnell, most steps": (SCHNELL, {"num_steps": 12}, []),
    "schnell, too many steps": (SCHNELL, {"num_steps": 13}, [(Kind.UNUSUAL_STEPS, "num_steps")]),
    "sdxl, least steps": (SDXL, {"num_steps": 8}, []),
    "sdxl, too few steps": (SDXL, {"num_steps": 7}, [(Kind.UNUSUAL_STEPS, "num_steps")]),
    "fill as documented": (FILL, {**PAIR, "width": 512, "height": 768, "num_steps": 40}, []),
    "fill with a seed": (FILL, {**PAIR, "seed": 1}, [(Kind.NOT_TAKEN, "seed")]),
    "fill, odd size": (FILL, {**PAIR, "width": 512, "height": 500}, [(Kind.ODD_SIZE, "width")]),
    "fill without a picture": (FILL, {}, [(Kind.NO_IMAGE, "image")]),
    "fill without a mask": (FILL, {"image": FILE}, [(Kind.NO_IMAGE, "mask")]),
    "fill with a mask alone": (FILL, {"mask": FILE}, [(Kind.MASK_WITHOUT_IMAGE, "mask")]),
    "seedream in steps": (SEEDREAM, {"num_steps": 25}, [(Kind.NOT_TAKEN, "num_steps")]),
    "a random seed": (SCHNELL, {"seed": -1}, [(Kind.RANDOM_SEED, "seed")]),
    "an unknown model": ("my/model", {"negative_prompt": "x", "seed": 1, "num_steps": 9999, "width": 7}, []),
    "an unknown model, a mask alone": ("my/model", {"mask": FILE}, [(Kind.MASK_WITHOUT_IMAGE, "mask")]),
    "a parameter of one's own": (SCHNELL, {"scheduler": "ddim"}, []),
}


@pytest.mark.parametrize(("model", "request_", "told"), CASES.values(), ids=CASES.keys())
def test_what_is_odd_about_a_job(model: str, request_: dict[str, Any], told: list[tuple[Kind, str]]) -> None:
    """A documented model is held to its documentation; an unknown model or parameter is left alone."""
    assert warned(job(model=model, **request_)) == [(kind, field, 1) for kind, field in told]


def test_every_kind_is_in_the_table() -> None:
    """No kind of warning is forgotten."""
    assert {kind for *_, told in CASES.values() for kind, _ in told} == set(Kind)


def test_alike_warnings_are_one_line_with_a_count_and_the_first_place() -> None:
    """A thousand jobs with the same oddity are told once, the most frequent oddity first."""
    advisor = Advisor()
    advisor(job("seeded", model=SDXL, seed=1))
    for number in range(1000):
        advisor(Job(f"job-{number}", "f", SCHNELL, {"prompt": "x", "negative_prompt": "y"}, {}, number + 12))
    assert [str(warning) for warning in advisor.warnings()] == [
        "1000 jobs: negative_prompt is not documented for black-forest-labs/FLUX.1-schnell; it may be ignored or"
        " refused (first in job 'job-0', line 12)",
        "1 job: seed is not documented for stabilityai/stable-diffusion-xl-base-1.0; it may be ignored or refused"
        " (job 'seeded', line 1)",
    ]


def test_warnings_do_not_grow_with_the_models() -> None:
    """Memory stays bounded however many models a manifest names."""
    assert len(warned(*(job(model=f"m{number}", seed=-1) for number in range(1000)))) == 100
