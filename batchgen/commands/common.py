"""What several commands share: the arguments that make a session, kinds of values, and how a result is told."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchgen.runner.session import Session

LIMIT_FLAGS: tuple[tuple[str, str, str, str], ...] = (
    (
        "-c",
        "--concurrency",
        "concurrency",
        "requests in flight at most (default 8); of each endpoint, as --rpm, --rpd, --timeout",
    ),
    ("", "--rpm", "requests_per_minute", "requests a minute at most"),
    ("", "--rpd", "requests_per_day", "requests a UTC day at most, over all runs with this key"),
    ("", "--attempts", "attempts", "tries for a job in this run (default 4)"),
    ("", "--timeout", "timeout_s", "seconds to wait for one answer (default 180; a shorter wait may pay for nothing)"),
    ("", "--max-cost", "max_cost_usd", "US dollars that this output may cost over all its runs"),
    ("", "--max-requests", "max_requests", "requests that this output may take over all its runs"),
)
_RUN_ONLY = (
    "check",
    "embed",
    "give_up_after_s",
    "max_runtime_s",
    "until",
    "on_quota",
    "shared_account",
    "engine",
    "ray_address",
)
_CHOICE = ("retry", "redo", "redo_missing", "only", "limit", "shuffle", "shard")
_SHARED = ("output", "state", "format", "api", "api_url", "defaults", "prices", *_CHOICE)


def manifest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifest", type=Path, metavar="MANIFEST", help=".yaml, .csv, .tsv, .jsonl, .json or .txt; - is standard input"
    )
    parser.add_argument(
        "--format",
        metavar="KIND",
        help="how MANIFEST is written, where its name does not tell: yaml, csv, tsv, jsonl, json or txt",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR|URL",
        help="output folder (default: outputs/<manifest name> in the nearest folder above the manifest with outputs/);"
        " or where in an object store the pictures go: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="with an object store: the folder for log and state (default: as for -o)",
    )
    api_arguments(parser)
    parser.add_argument(
        "-D",
        dest="defaults",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a default for every job, such as -D model=NAME or -D params.scheduler=ddim (repeatable)",
    )
    parser.add_argument(
        "--price",
        dest="prices",
        action="append",
        default=[],
        metavar="MODEL=USD",
        help="a picture's price (repeatable)",
    )
    parser.add_argument(
        "--embed",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="write into each picture what it was made from (default), or keep the server's bytes exactly",
    )
    choice = parser.add_argument_group("which jobs")
    choice.add_argument(
        "--retry",
        action="append",
        default=[],
        choices=["failed", "uncertain"],
        help="also jobs that ended so before (repeatable)",
    )
    choice.add_argument("--redo", action="store_true", help="all selected jobs again; old pictures go to superseded/")
    choice.add_argument(
        "--redo-missing", action="store_true", help="make missing pictures again however many are missing"
    )
    choice.add_argument("--only", action="append", default=[], metavar="GLOB", help="only ids like this (repeatable)")
    choice.add_argument("--limit", type=count, metavar="N", help="do at most N jobs: the first, or a sample")
    choice.add_argument(
        "--shuffle",
        metavar="SEED",
        help="the jobs in a random order, always the same for a SEED (any word); with --limit N: a random sample",
    )
    choice.add_argument(
        "--shard",
        metavar="I/N",
        help="only the I-th of N parts of the jobs; all parts may run at once, each with its part of the limits",
    )
    parser.add_argument(
        "--json", action="store_true", help="the result, or why there is none, as one JSON object on standard output"
    )


def api_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--api",
        metavar="STYLE",
        help="nebula (default), openai (any server of its shape) or sandbox (the built-in stand-in); a style that"
        " is not the manifest's replaces its endpoints by one",
    )
    parser.add_argument("--api-url", metavar="URL", help="another address of the API, the only one that is asked")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="where the key is, instead of the environment (NEBULA_API_KEY, OPENAI_API_KEY); of several endpoints,"
        " that of the only one whose variable is not set",
    )


def limit_arguments(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits")
    for short, long, name, help in LIMIT_FLAGS:
        limits.add_argument(*filter(None, (short, long)), dest=name, metavar="N", help=help)
    limits.add_argument(
        "--on-quota", choices=["stop", "wait"], default="stop", help="when the day's quota is spent (default: stop)"
    )
    limits.add_argument(
        "--give-up-after",
        dest="give_up_after_s",
        type=duration,
        metavar="TIME",
        help="end when no answer came for so long (default 30m)",
    )
    limits.add_argument(
        "--until",
        metavar="HH:MM",
        help="send nothing that could end after this local time (with Z: UTC; at most 16 h away)",
    )
    limits.add_argument(
        "--max-runtime", dest="max_runtime_s", type=duration, metavar="TIME", help="end after so long, such as 8h"
    )
    limits.add_argument(
        "--shared-account",
        action="store_true",
        help="shards on this machine keep the pace and the day together instead of a part each",
    )


def session(arguments: argparse.Namespace) -> Session:
    from batchgen.flags import Flags
    from batchgen.runner.session import open_session

    names = {*_SHARED, *(name for *_, name, _ in LIMIT_FLAGS), *_RUN_ONLY}
    said = {name: value for name, value in vars(arguments).items() if name in names}
    return open_session(Flags.of(arguments.manifest, **said), os.environ, arguments.api_key_file)


def count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def duration(text: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        if (seconds := float(text[:-1]) * units[text[-1:]]) > 0:
            return seconds
    except (ValueError, KeyError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m or 8h")


def span(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2 or 0.5-2") from None


def tell(text: str) -> None:
    """What was asked for, on standard output. Raises StorageError where it cannot be kept."""
    from batchgen.progress import hand_over

    hand_over(text, sys.stdout)


def print_json(value: Any) -> None:
    import msgspec

    tell(msgspec.json.encode(value).decode())
