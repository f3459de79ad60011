"""The command line: arguments, messages, exit codes. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from batchgen import __version__

if TYPE_CHECKING:
    from batchgen.runner import Session

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
Validate MANIFEST and say what a run would do: every problem at once, with its place, and what had to be guessed. Sends
nothing, changes nothing.

  batchgen check jobs/animals.csv"""

STATUS = """\
Where an output folder stands, from its log; also while a run is at work there.

  batchgen status outputs/animals
  batchgen status jobs/animals.csv --json"""

_LIMIT_FLAGS: tuple[tuple[str, str, str, str], ...] = (
    ("-c", "--concurrency", "concurrency", "requests in flight at most (default 8)"),
    ("", "--rpm", "requests_per_minute", "requests a minute at most"),
    ("", "--rpd", "requests_per_day", "requests a UTC day at most, over all runs with this key"),
    ("", "--attempts", "attempts", "tries for a job in this run (default 4)"),
    ("", "--timeout", "timeout_s", "seconds to wait for one answer (default 180; a shorter wait may pay for nothing)"),
    ("", "--max-cost", "max_cost_usd", "US dollars that this output may cost over all its runs"),
    ("", "--max-requests", "max_requests", "requests that this output may take over all its runs"),
)


_RUN_ONLY = ("give_up_after_s", "max_runtime_s", "until", "on_quota")
_SHARED = ("output", "format", "api", "api_url", "defaults", "prices", "retry", "redo", "redo_missing", "only", "limit")


def entry() -> None:
    """The installed command."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        # What a full disk or a reader that has gone keeps in a buffer must not change the exit code.
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except KeyboardInterrupt:
        return 130
    except SystemExit as interrupted:
        from batchgen.progress import say

        say("batchgen: ended by a signal before anything was sent")
        return int(interrupted.code or 0)
    except Exception as error:
        return _explain(error, verbose=getattr(arguments, "verbose", False))


def _explain(error: Exception, *, verbose: bool) -> int:
    from batchgen.model import BatchgenError, ExitCode, ManifestError
    from batchgen.progress import say

    if isinstance(error, ManifestError):
        say(str(error))
        more = f" (the first {len(error.problems)} are shown)" if error.count > len(error.problems) else ""
        say(f"batchgen: {error.count} problem{'s' * (error.count != 1)} in the manifest{more}; nothing was sent")
        return error.exit_code
    if isinstance(error, BatchgenError):
        say(f"batchgen: {error}")
        return error.exit_code
    if verbose:
        import traceback

        say("".join(traceback.format_exception(error)))
    say(f"batchgen: unexpected error: {type(error).__name__}: {error} (please report it; --verbose shows where)")
    return ExitCode.INTERNAL


class _Parser(argparse.ArgumentParser):
    """Says what was wrong without repeating what was given: it could be a key, and cron mails what is said."""

    def error(self, message: str) -> NoReturn:
        head, colon, given = message.partition("unrecognized arguments: ")
        if colon:
            names = [word.partition("=")[0] for word in given.split() if word.startswith("--")]
            hint = " (a key is never an argument: use NEBULA_API_KEY)" if any("key" in name for name in names) else ""
            message = f"{head}unknown arguments {' '.join(names)}{hint}"
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="batchgen",
        description="Turns a manifest of prompts into pictures: overnight, unattended, nothing lost, nothing bought"
        " twice.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"batchgen {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _run_command(commands)
    _check_command(commands)
    _status_command(commands)
    _sandbox_command(commands)
    return parser


def _command(commands: Any, name: str, does: Callable[[argparse.Namespace], int], help: str, about: str) -> Any:
    parser = commands.add_parser(
        name, help=help, description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.set_defaults(command=does)
    return parser


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
    choice.add_argument("--limit", type=_count, metavar="N", help="do at most N jobs")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on standard output")


def _run_command(commands: Any) -> None:
    parser = _command(commands, "run", _run, "make what is missing", RUN)
    _manifest_arguments(parser)
    limits = parser.add_argument_group("limits")
    for short, long, name, help in _LIMIT_FLAGS:
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
    voice = parser.add_argument_group("what is said")
    voice.add_argument("--quiet", action="store_true", help="say nothing unless somebody is needed")
    voice.add_argument("--verbose", action="store_true", help="say every failed attempt")


def _check_command(commands: Any) -> None:
    _manifest_arguments(_command(commands, "check", _check, "validate and plan; sends nothing", CHECK))


def _status_command(commands: Any) -> None:
    parser = _command(commands, "status", _status, "where it stands", STATUS)
    parser.add_argument("path", type=Path, metavar="DIR|MANIFEST", help="an output folder, or a manifest")
    parser.add_argument("--json", action="store_true", help="as one JSON object on standard output")


def _sandbox_command(commands: Any) -> None:
    about = """\
Serve a stand-in for the image API on 127.0.0.1 until interrupted: real HTTP, real pictures, faults on demand.

  batchgen sandbox --port 8080 --latency 0.5-2 --fail 503:0.05
  NEBULA_API_URL=http://127.0.0.1:8080/api/v1 NEBULA_API_KEY=sandbox-key batchgen run jobs/demo.yaml --api nebula

--fail takes KIND:PROBABILITY or KIND:xN (the first N requests). KIND is an HTTP status or one of: reset, hang, quota,
balance, refuse, failed200, disconnect, slow, truncate, badjson, badbase64, notimage, cutimage, empty, html."""
    parser = _command(commands, "sandbox", _sandbox, "the stand-in API, with faults on demand", about)
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


def _session(arguments: argparse.Namespace) -> Session:
    from batchgen.runner import open_session
    from batchgen.settings import Flags

    names = {*_SHARED, *(name for *_, name, _ in _LIMIT_FLAGS), *_RUN_ONLY}
    said = {name: value for name, value in vars(arguments).items() if name in names}
    return open_session(Flags.of(arguments.manifest, **said), os.environ, arguments.api_key_file)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from batchgen import runner, summary
    from batchgen.progress import say

    voice = runner.Voice(arguments.quiet, arguments.verbose)
    found = asyncio.run(runner.run(_session(arguments), voice))
    if not arguments.quiet or found.exit_code:
        say("\n".join(summary.render(found)))
    if arguments.json:
        _print_json(found)
    return found.exit_code


def _check(arguments: argparse.Namespace) -> int:
    from batchgen import plan, runner

    session = _session(arguments)
    found, planned = runner.check(session)
    if arguments.json:
        _print_json(found)
    else:
        _tell("\n".join(plan.render(planned, session.settings.prices_usd)))
        if found.orphans:
            _tell(f"  orphans    {found.orphans} jobs of the log are no longer in the manifest")
        for notice in found.notices:
            _tell(f"note: {notice}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from batchgen import runner
    from batchgen.runner import look

    found = runner.status(arguments.path, os.environ)
    if arguments.json:
        _print_json(found)
    else:
        _tell("\n".join(look.render(found)))
    return 0


def _sandbox(arguments: argparse.Namespace) -> int:
    import asyncio

    from batchgen.model import UsageError
    from batchgen.sandbox import Script, parse_fault

    try:
        script = Script(
            latency_s=arguments.latency,
            faults=tuple(map(parse_fault, arguments.fail)),
            requests_per_minute=arguments.rpm,
            requests_per_day=arguments.rpd,
            output_format=arguments.format,
            seed=arguments.seed,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    asyncio.run(_serve(script, arguments.port))
    return 0


async def _serve(script: Any, port: int) -> None:
    import asyncio
    import signal

    from batchgen.model import UsageError
    from batchgen.sandbox import Sandbox

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with Sandbox(script, port=port) as sandbox:
            _tell(f"NEBULA_API_URL={sandbox.url}")
            await stop.wait()
    except (OSError, OverflowError) as error:
        raise UsageError(f"port {port} cannot be used: {getattr(error, 'strerror', error)}") from error


def _tell(text: str) -> None:
    """What was asked for, on standard output."""
    from batchgen.progress import write_line

    write_line(text, sys.stdout)


def _print_json(value: Any) -> None:
    import msgspec

    _tell(msgspec.json.encode(value).decode())


if __name__ == "__main__":
    entry()
