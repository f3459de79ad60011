"""batchgen show: what a picture or a job was made from."""

from __future__ import annotations

import argparse
from pathlib import Path

from batchgen.commands import common

ABOUT = """\
What a picture or a job was made from: prompt, model, every parameter, when, how long, what it cost, all attempts. A
picture in an output folder is looked up in its log, also one in superseded/ or with another name; any other picture
tells by the metadata that it carries. An id is looked up in the folder that is named, else in the one around the
current folder or in those under the nearest outputs/.

  batchgen show outputs/animals/images/fox-7.png
  batchgen show fox-7 outputs/animals
  batchgen show ~/mail/fox.png --manifest > again.yaml && batchgen check again.yaml

exit codes: 0 found; 2 nothing is known of it"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="FILE|ID", help="a picture, or a job's id")
    parser.add_argument(
        "where", type=Path, nargs="?", metavar="DIR|MANIFEST", help="the output folder to look in, or its manifest"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as one JSON object on standard output")
    form.add_argument("--manifest", action="store_true", help="as a YAML manifest that makes it again")


def act(arguments: argparse.Namespace) -> int:
    from batchgen import shown
    from batchgen.model import UsageError
    from batchgen.runner.show import show

    found = show(arguments.what, arguments.where)
    if arguments.json:
        common.print_json(found)
    elif not arguments.manifest:
        common.tell("\n".join(shown.render(found)))
    elif found.made:
        common.tell(shown.manifest_text(found.made, found.entry.meta if found.entry else {}))
    else:
        raise UsageError(f"{found.file}: another program wrote its parameters; they are not enough for a manifest")
    return 0
