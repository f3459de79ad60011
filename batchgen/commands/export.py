"""batchgen export: the pictures as a dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from batchgen.commands import common

FORMATS = ("imagefolder", "webdataset", "parquet", "csv")

ABOUT = """\
Write the pictures of all jobs that are done, with what they were made from, in a form that others read:

  imagefolder   pictures (hard links where possible) and metadata.jsonl, for Hugging Face datasets
  webdataset    tar shards, for the webdataset library
  parquet       pictures inside, for datasets, pandas, DuckDB and others; needs: pip install 'batchgen[export]'
  csv           one table with paths, no pictures

  batchgen export outputs/animals --to imagefolder -o datasets/animals
  batchgen export jobs/animals.csv --to webdataset -o shards --shard-size 500MB
  batchgen export outputs/animals --to csv -o animals.csv

The same pictures give the same bytes. The same command again writes what is new and removes what is no longer there of
its own files, nothing else; after an interruption it goes on. Pictures that are not what the log says are left out.

exit codes: 0 every done job's picture is in the dataset; 3 some were left out; 2 something said is wrong,
5 another export is at work there, 7 storage failed
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="DIR|MANIFEST", help="an output folder, or a manifest")
    parser.add_argument("--to", required=True, choices=FORMATS, help="the form of the dataset")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DEST", help="a folder; for csv the file to write"
    )
    parser.add_argument(
        "--shard-size",
        type=size,
        default="1GB",
        metavar="SIZE",
        help="webdataset and parquet: a file at most this large, such as 500MB (default 1GB)",
    )
    parser.add_argument("--copy", action="store_true", help="imagefolder: copies, not hard links")
    parser.add_argument(
        "--quick", action="store_true", help="imagefolder and csv: compare sizes only, read no picture for its sha256"
    )
    parser.add_argument(
        "--show", type=common.count, metavar="N", help="name the first N pictures of each kind that are left out"
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object on standard output")


_UNITS = {"KB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def size(text: str) -> int:
    number = text.rstrip("KMGiBkmgb ")
    try:
        if (found := int(float(number) * _UNITS[text[len(number) :].strip().upper()])) >= _UNITS["KB"]:
            return found
    except (KeyError, ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500MB or 2GiB (1KB at least)")


def act(arguments: argparse.Namespace) -> int:
    from batchgen import verify
    from batchgen.clock import SystemClock
    from batchgen.progress import Meter
    from batchgen.runner import exporting
    from batchgen.runner.dataset import Order

    order = Order(
        to=arguments.to,
        destination=arguments.output,
        shard_bytes=arguments.shard_size,
        copy=arguments.copy,
        quick=arguments.quick,
        shown=arguments.show or (1000 if arguments.json else verify.SHOWN),
    )
    found = exporting.run(arguments.path, order, Meter("picture", SystemClock()))
    if arguments.json:
        common.print_json(found)
    else:
        common.tell("\n".join(exporting.render(found)))
    return found.exit_code
