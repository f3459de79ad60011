"""Plain text -> rows: one prompt a line, or the options of the Stable Diffusion web UI's "Prompts from file".

A line is options when it starts with `--` and a letter, after blanks; every other line, `#` included, is a prompt.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from batchgen import text
from batchgen.manifest.lines import LONE_CR, Lines
from batchgen.manifest.reading import Reading, Rows
from batchgen.manifest.row import Row
from batchgen.manifest.scalars import resolve
from batchgen.model import Problem

OPTIONS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "sd_model": "model",
    "seed": "seed",
    "steps": "num_steps",
    "cfg_scale": "guidance_scale",
    "width": "width",
    "height": "height",
    "n_iter": "repeat",
}
"""What options are fields here; all others become `params`."""

_OPTION_LINE = re.compile(r"\s*--[A-Za-z]")
_PROSE = ("prompt", "negative_prompt")


def txt_rows(reading: Reading, lines: Iterable[bytes]) -> Rows:
    """One job a line; blank lines are skipped."""
    source = Lines(reading.file, lines)
    first = True
    for line in source:
        prompt = line.removesuffix("\n").removesuffix("\r")
        if source.problems:
            yield from source.taken()
        elif "\r" in prompt:
            yield Problem(reading.file, source.line, prompt.index("\r") + 1, *LONE_CR)
        elif _OPTION_LINE.match(prompt):
            yield _option_row(reading, source.line, prompt)
        elif prompt.strip():
            if first and "\t" in prompt:
                reading.note(f"{reading.file}: its first line holds a tab; is it a table? then --format csv, or tsv")
            first = False
            yield Row(source.line, {"prompt": prompt}, partial(_line_start, source.line))


def _line_start(line: int, _: str) -> tuple[int, int]:
    return line, 1


class _Unreadable(Exception):
    """A line of options that cannot be understood: what is wrong, what to do."""


def _option_row(reading: Reading, line: int, said: str) -> Row | Problem:
    values: dict[str, Any] = {}
    params: dict[str, Any] = {}
    try:
        for name, value in _options(said):
            field = OPTIONS.get(name)
            if (field or name) in values or name in params:
                raise _Unreadable(f"--{text.printable(name, 60)} stands here twice", "remove one")
            if field:
                values[field] = value
            else:
                params[name] = resolve(value)
                reading.note(f"{reading.file}: --{text.printable(name, 60)} is sent as it is, as one of 'params'")
    except _Unreadable as wrong:
        return Problem(reading.file, line, 1, *wrong.args)
    if params:
        values["params"] = params
    return Row(line, values, partial(_option_place, line, said))


def _options(said: str) -> Iterator[tuple[str, str]]:
    """Names and values, cut as a shell would; a prompt goes on to the next option."""
    try:
        words = shlex.split(said)
    except ValueError as error:
        fix = "close each quote, and put a text with an apostrophe into double quotes"
        raise _Unreadable(f"not a line of options: {str(error).lower()}", fix) from None
    at = 0
    while at < len(words):
        word, name = words[at], words[at].removeprefix("--")
        if not word.startswith("--") or not name:
            fix = "put a value of several words into quotes"
            raise _Unreadable(f"expected an option such as --seed, got '{text.printable(word, 60)}'", fix)
        end = min(at + 2, len(words))
        while name in _PROSE and end < len(words) and not words[end].startswith("--"):
            end += 1
        if end == at + 1 or words[at + 1].startswith("--"):
            raise _Unreadable(f"--{text.printable(name, 60)} has no value", "write it behind the option")
        yield name, " ".join(words[at + 1 : end])
        at = end


def _option_place(line: int, said: str, path: str) -> tuple[int, int]:
    """Where an option stands, as far as a look at the line tells."""
    names = [name for name, field in OPTIONS.items() if field == path] or [path.removeprefix("params.")]
    found = re.search(rf"--{re.escape(names[0])}(?=\s)", said)
    return line, found.start() + 1 if found else 1
