"""The text that tools for generated pictures show and paste: the prompts, then one line of settings.

The form is that of AUTOMATIC1111's web UI (modules/infotext_utils.py): prompt lines, a line `Negative prompt: ...`, a
last line of at least three `Key: value` pairs; a value with a comma, colon or line end stands in JSON quotes.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from batchgen.metadata.made import Made

_NEGATIVE = "Negative prompt:"
_BARE = re.compile(r'(?![\s"])[^,:\x00-\x1f\x7f]*(?<!\s)')
_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_MIN_PAIRS = 3
_SAMPLERS = ("sampler", "sampler_name", "scheduler")


class Infotext(NamedTuple):
    """An infotext taken apart; values are texts."""

    prompt: str
    negative_prompt: str
    settings: dict[str, str]


def build(made: Made, size: tuple[int, int], by: str) -> str:
    """The infotext of a picture; `size` is its real width and height in pixels, `by` the program and its version."""
    negative = made.request.get("negative_prompt")
    lines = [str(made.request["prompt"])]
    if negative:
        lines.append(f"{_NEGATIVE} {negative}")
    pairs = ((name, _plain(value)) for name, value in _settings(made, size, by).items())
    lines.append(", ".join(f"{name}: {value}" for name, value in pairs if value))
    return "\n".join(lines)


def _settings(made: Made, size: tuple[int, int], by: str) -> dict[str, Any]:
    """What the last line says. -1 is these tools' word for a random seed; readers refuse a text without a sampler."""
    request = made.request
    seed = request.get("seed", -1)
    samplers = [value for name in _SAMPLERS if _plain(value := request.get(name))]
    return {
        "Steps": request.get("num_steps"),
        "Sampler": samplers[0] if samplers else "default",
        "CFG scale": request.get("guidance_scale"),
        "Seed": max(seed, -1) if isinstance(seed, int) else seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model": made.model,
        "Denoising strength": request.get("strength"),
        "Version": by,
    }


def _plain(value: Any) -> str | None:
    """A value as the last line holds it; None for what is no text or number."""
    if type(value) in (int, float):
        return str(value)
    if not isinstance(value, str):
        return None
    return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def parse(text: str) -> Infotext:
    """What an infotext says, ours or another program's. A prompt line that begins `Negative prompt:` cannot be told
    from a real one: that is the form's fault."""
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < _MIN_PAIRS:
        lines, pairs = [*lines, last], []
    at = next((number for number, line in enumerate(lines) if line.strip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:]).strip().removeprefix(_NEGATIVE)
    settings = {name: _unquoted(value) for name, value in pairs}
    return Infotext("\n".join(lines[:at]).strip(), negative.strip(), settings)


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            pass
    return value.strip()
