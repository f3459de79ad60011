"""batchgen schema: the manifest's JSON Schema."""

from __future__ import annotations

import argparse

from batchgen.commands import common

ABOUT = """\
Print the JSON Schema (draft 7) of YAML manifests. Editors with YAML support then complete fields and underline mistakes
in a manifest whose first line is: # yaml-language-server: $schema=./batchgen.schema.json

  batchgen schema > batchgen.schema.json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def act(arguments: argparse.Namespace) -> int:
    from batchgen import schema

    common.tell(schema.text().rstrip("\n"))
    return 0
