"""What may be said on the command line, and the words that explain it. Loads nothing heavy and does nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from batchgen import __version__

EXIT_CODES = """\
exit codes: 0 all selected jobs are done, 2 something said is wrong, 3 some jobs failed or are uncertain,
4 work is left (run the same command again), 5 another run is at work there, 6 the account was refused,
7 storage failed, 1 an error in batchgen, 129/130/143 ended by a signal
"""

EPILOG = f"""\
first steps, without a key and without a network:
  batchgen run jobs/demo.yaml --api sandbox     draw with the built-in stand-in for the API
  batchgen check jobs/demo.yaml                 validate and plan; sends nothing
  batchgen status jobs/demo.yaml                where it stands

with the real API, put the key into NEBULA_API_KEY (never on the command line):
  batchgen run jobs/demo.yaml --api nebula

{EXIT_CODES}"""

RUN = f"""\
Make every picture of MANIFEST that is not there yet. The same command starts a run, resumes it after anything, and does
nothing when nothing is left to do. Every flag beats the environment, the environment beats the manifest.

  batchgen run jobs/animals.csv --max-cost 5 --price black-forest-labs/FLUX.1-schnell=0.003 --until 06:30
  batchgen run prompts.txt -D model=black-forest-labs/FLUX.1-schnell --limit 5
  generate-prompts | batchgen run - --format jsonl -o outputs/tonight

{EXIT_CODES}"""

CHECK = """\
Validate MANIFEST and say what a run would do: every problem at once, with its place; then the jobs to be done, what
changed of them, money, time, nights and disk, each number with its source. Sends nothing paid, changes nothing.

  batchgen check jobs/animals.csv
  batchgen check jobs/animals.csv --online --rpm 60 --rpd 200
  batchgen check jobs/animals.csv --exit-code --json || batchgen run jobs/animals.csv

exit codes: 0 there is something to do, or nothing; 2 something said is wrong, 6 the key was refused (--online).
With --exit-code: 0 nothing to do, 10 work to do.
"""

STATUS = """\
Where an output folder stands, from its log; also while a run is at work there.

  batchgen status outputs/animals
  batchgen status jobs/animals.csv --json"""

INIT = """\
Write a starter manifest, its JSON Schema for editors, a Makefile and an example of a crontab line into DIR. They work
as they are, with the built-in sandbox. Nothing is ever overwritten.

  batchgen init pictures && make -C pictures"""

SCHEMA = """\
Print the JSON Schema (draft 7) of YAML manifests. Editors with YAML support then complete fields and underline mistakes
in a manifest whose first line is: # yaml-language-server: $schema=./batchgen.schema.json

  batchgen schema > batchgen.schema.json"""

LIMIT_FLAGS: tuple[tuple[str, str, str, str], ...] = (
    ("-c", "--concurrency", "concurrency", "requests in flight at most (default 8)"),
    ("", "--rpm", "requests_per_minute", "requests a minute at most"),
    ("", "--rpd", "requests_per_day", "requests a UTC day at most, over all runs with this key"),
    ("", "--attempts", "attempts", "tries for a job in this run (default 4)"),
    ("", "--timeout", "timeout_s", "seconds to wait for one answer (default 180; a shorter wait may pay for nothing)"),
    ("", "--max-cost", "max_cost_usd", "US dollars that this output may cost over all its runs"),
    ("", "--max-requests", "max_requests", "requests that this output may take over all its runs"),
)


class Misused(SystemExit):
    """The arguments cannot be understood, and that has been said; `message` says it again for programs."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class _Parser(argparse.ArgumentParser):
    """Says what was wrong without repeating what was given: it could be a key, and cron mails what is said."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Told here, by the command's own parser, what is left over is told with that command's flags."""
        found, left = super().parse_known_args(args, namespace)
        if left:
            self.error(self._unknown(left))
        return found, left

    def _unknown(self, left: Sequence[str]) -> str:
        from difflib import get_close_matches

        names = [word.partition("=")[0] if word.startswith("--") else word[:2] for word in left if word[0:1] == "-"]
        if not names:
            return f"{len(left)} too many of the arguments; quote what holds blanks"
        known = [flag for flag in self._option_string_actions if flag.startswith("--")]
        near = get_close_matches(names[0], known, n=1, cutoff=0.75)
        hint = f"; did you mean {near[0]}?" if near else f"; `{self.prog} --help` lists them all"
        if any("key" in name for name in names):
            hint = " (a key is never an argument: use NEBULA_API_KEY)"
        return f"unknown argument{'s' * (len(names) != 1)} {' '.join(names)}{hint}"

    def error(self, message: str) -> NoReturn:
        from batchgen.progress import say

        say(f"{self.format_usage()}{self.prog}: error: {message}")
        raise Misused(message)


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="batchgen",
        description="Turns a manifest of prompts into pictures: overnight, unattended, nothing lost, nothing bought"
        " twice.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"batchgen {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    _run_command(commands)
    _check_command(commands)
    _status_command(commands)
    _sandbox_command(commands)
    _init_command(commands)
    _command(commands, "schema", "the manifest's JSON Schema, for editors", SCHEMA)
    return parser


def _command(commands: Any, name: str, help: str, about: str) -> Any:
    return commands.add_parser(
        name, help=help, description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def _manifest_arguments(parser: argparse.ArgumentParser) -> None:
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
        type=Path,
        metavar="DIR",
        help="output folder (default: outputs/<manifest name> in the nearest folder above the manifest with outputs/)",
    )
    parser.add_argument("--api", metavar="STYLE", help="nebula (default) or sandbox, the built-in stand-in")
    parser.add_argument("--api-url", metavar="URL", help="another address of the API")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="where the key is, instead of NEBULA_API_KEY")
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
    choice.add_argument("--limit", type=_count, metavar="N", help="do at most N jobs: the first, or a sample")
    choice.add_argument(
        "--shuffle",
        metavar="SEED",
        help="the jobs in a random order, always the same for a SEED (any word); with --limit N: a random sample",
    )
    parser.add_argument(
        "--json", action="store_true", help="the result, or why there is none, as one JSON object on standard output"
    )


def _limit_arguments(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits")
    for short, long, name, help in LIMIT_FLAGS:
        limits.add_argument(*filter(None, (short, long)), dest=name, metavar="N", help=help)
    limits.add_argument(
        "--on-quota", choices=["stop", "wait"], default="stop", help="when the day's quota is spent (default: stop)"
    )
    limits.add_argument(
        "--give-up-after",
        dest="give_up_after_s",
        type=_duration,
        metavar="TIME",
        help="end when no answer came for so long (default 30m)",
    )
    limits.add_argument(
        "--until",
        metavar="HH:MM",
        help="send nothing that could end after this local time (with Z: UTC; at most 16 h away)",
    )
    limits.add_argument(
        "--max-runtime", dest="max_runtime_s", type=_duration, metavar="TIME", help="end after so long, such as 8h"
    )


def _run_command(commands: Any) -> None:
    parser = _command(commands, "run", "make what is missing", RUN)
    _manifest_arguments(parser)
    _limit_arguments(parser)
    parser.add_argument(
        "--check",
        choices=["structure", "full"],
        default="structure",
        help="what a picture must pass to be kept: its structure (default), or also the decoding of every pixel",
    )
    voice = parser.add_argument_group("what is said")
    voice.add_argument("--quiet", action="store_true", help="say nothing unless somebody is needed")
    voice.add_argument("--verbose", action="store_true", help="say every failed attempt")


def _check_command(commands: Any) -> None:
    parser = _command(commands, "check", "validate, plan, cost and time; sends nothing paid", CHECK)
    _manifest_arguments(parser)
    _limit_arguments(parser)
    parser.add_argument("--diff", action="store_true", help="list the jobs to be done, and what changed of each")
    parser.add_argument(
        "--online", action="store_true", help="ask the API for models, prices and balance, with the key; nothing paid"
    )
    parser.add_argument("--exit-code", action="store_true", help="exit 10 where there is work to do, for make")


def _status_command(commands: Any) -> None:
    parser = _command(commands, "status", "where it stands", STATUS)
    parser.add_argument("path", type=Path, metavar="DIR|MANIFEST", help="an output folder, or a manifest")
    parser.add_argument("--json", action="store_true", help="as one JSON object on standard output")


def _sandbox_command(commands: Any) -> None:
    about = """\
Serve a stand-in for the image API on 127.0.0.1 until interrupted: real HTTP, real pictures, faults on demand.

  batchgen sandbox --port 8080 --latency 0.5-2 --fail 503:0.05
  NEBULA_API_URL=http://127.0.0.1:8080/api/v1 NEBULA_API_KEY=sandbox-key batchgen run jobs/demo.yaml --api nebula

--fail takes KIND:PROBABILITY or KIND:xN (the first N requests). KIND is an HTTP status or one of: reset, hang, quota,
balance, refuse, failed200, disconnect, slow, truncate, badjson, badbase64, notimage, cutimage, empty, html."""
    parser = _command(commands, "sandbox", "the stand-in API, with faults on demand", about)
    parser.add_argument("--port", type=int, default=8080, help="port on 127.0.0.1 (default 8080; 0 takes a free one)")
    parser.add_argument(
        "--latency",
        type=_range,
        default=(0.02, 0.1),
        metavar="FROM-TO",
        help="seconds a picture (default 0.02-0.1)",
    )
    parser.add_argument("--fail", action="append", default=[], metavar="KIND:PART", help="a fault (repeatable)")
    parser.add_argument("--rpm", type=_count, metavar="N", help="refuse more requests a minute")
    parser.add_argument("--rpd", type=_count, metavar="N", help="refuse more requests a day")
    parser.add_argument(
        "--format", choices=["png", "jpeg", "webp"], default="png", help="of the pictures (default png)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides which requests meet a fault (default 0)")


def _init_command(commands: Any) -> None:
    parser = _command(commands, "init", "a starter manifest, Makefile and crontab line", INIT)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="where to (default: the current folder)"
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _duration(text: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        if (seconds := float(text[:-1]) * units[text[-1:]]) > 0:
            return seconds
    except (ValueError, KeyError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m or 8h")


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2 or 0.5-2") from None
