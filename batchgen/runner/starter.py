"""`batchgen init`: the files that a new user begins with, and their writing. Nothing is ever overwritten."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from batchgen import schema
from batchgen.model import StorageError, UsageError

MANIFEST = "pictures.yaml"
CRONTAB = "crontab.example"
OUTPUT = "outputs/pictures"

_MANIFEST = f"""\
# yaml-language-server: $schema=./{schema.FILE}
# What to make. Try it: make. For real pictures change `sandbox` to `nebula` and put your key into NEBULA_API_KEY.
api: sandbox
limits: {{concurrency: 8, requests_per_minute: 60, requests_per_day: 200, max_cost_usd: 5}}
prices_usd: {{black-forest-labs/FLUX.1-schnell: 0.003}}   # what `make plan` and max_cost_usd count with
defaults: {{model: black-forest-labs/FLUX.1-schnell, width: 512, height: 512, num_steps: 4, guidance_scale: 3.5}}
jobs:
  - id: flying-cat
    prompt: a flying cat over the roofs of a sleeping town
    seed: 7
  - id: teapots/copper
    prompt: a copper teapot in the shape of a whale
    seed: 8
  - a paper boat on a puddle, morning light
"""

_MAKEFILE = """\
# make: the pictures of MANIFEST that are not there yet; the same again after anything that went wrong.
BATCHGEN ?= {command}
MANIFEST ?= {manifest}
OUTPUT := outputs/$(basename $(notdir $(MANIFEST)))

.PHONY: pictures plan status
.DELETE_ON_ERROR:

pictures: $(OUTPUT).stamp

plan: # what a run would do, cost and take
	@exec $(BATCHGEN) check $(MANIFEST) -o $(OUTPUT)

status: # where it stands
	@exec $(BATCHGEN) status $(OUTPUT)

# Written when every picture is there. What it depends on besides MANIFEST is told in a file that the next make reads.
$(OUTPUT).stamp: $(MANIFEST) | outputs
	@$(BATCHGEN) check $(MANIFEST) --deps $@ > $(OUTPUT).d~ && mv $(OUTPUT).d~ $(OUTPUT).d
	@exec $(BATCHGEN) run $(MANIFEST) -o $(OUTPUT) --stamp $@

outputs:
	@mkdir $@

-include $(OUTPUT).d
"""

_CRONTAB = """\
# Every night at 22:30, for at most 8 hours. Add the last line with `crontab -e`; cron mails when somebody is needed.
# With `api: nebula` keep the key in a file that only you can read, and add: --api-key-file $HOME/.nebula-api-key
# To be told of nights that did not happen, put BATCHGEN_PING=https://... on a line of its own above.
30 22 * * * cd {folder} && exec {command} run {manifest} -o {output} --max-runtime 8h --quiet
"""


def write(folder: Path) -> Iterator[str]:
    """Write the files into `folder`, which is made where it is missing; says what it did, a line at a time.

    Raises UsageError, with nothing written, where one of them is there already.
    """
    files = _files(folder)
    if there := [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]:
        raise UsageError(f"{folder / there[0]} is there already, and nothing is overwritten; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
            yield f"wrote {folder / name}"
    except OSError as error:
        raise StorageError(f"{error.filename or folder}: {error.strerror or error}") from error
    inside = "" if folder == Path() else f" -C {shlex.quote(str(folder))}"
    yield f"next: `make{inside}` draws {MANIFEST} with the built-in sandbox (no key, no network),"
    yield f"`make{inside} plan` tells what a run would do, cost and take"


def _files(folder: Path) -> dict[str, str]:
    command = _command()
    place = shlex.quote(str(folder.absolute()))
    return {
        MANIFEST: _MANIFEST,
        schema.FILE: schema.text(),
        "Makefile": _MAKEFILE.format(command=command.replace("$", "$$").replace("#", "\\#"), manifest=MANIFEST),
        # In a crontab a bare % ends the command.
        CRONTAB: _CRONTAB.format(
            folder=place.replace("%", "\\%"), command=command.replace("%", "\\%"), manifest=MANIFEST, output=OUTPUT
        ),
    }


def _command() -> str:
    """How a shell without this one's PATH calls the batchgen that is running."""
    beside = Path(sys.executable).with_name("batchgen")
    found = str(beside) if beside.is_file() else shutil.which("batchgen")
    return shlex.quote(str(Path(found).absolute())) if found else f"{shlex.quote(sys.executable)} -m batchgen.cli"
