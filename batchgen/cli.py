"""The command line: arguments, messages, exit codes. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from batchgen.parser import LIMIT_FLAGS, make_parser

if TYPE_CHECKING:
    import argparse

    from batchgen.runner import Session

_RUN_ONLY = ("give_up_after_s", "max_runtime_s", "until", "on_quota")
_SHARED = (
    "output",
    "api",
    "api_url",
    "defaults",
    "prices",
    "retry",
    "redo",
    "redo_missing",
    "only",
    "limit",
    "shuffle",
)


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
    arguments = make_parser().parse_args(argv)
    try:
        return int(_COMMANDS[arguments.command](arguments))
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


def _session(arguments: argparse.Namespace) -> Session:
    from batchgen.runner import open_session
    from batchgen.settings import Flags

    names = {*_SHARED, *(name for *_, name, _ in LIMIT_FLAGS), *_RUN_ONLY}
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


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "check": _check,
    "status": _status,
    "sandbox": _sandbox,
}


def _tell(text: str) -> None:
    """What was asked for, on standard output."""
    from batchgen.progress import write_line

    write_line(text, sys.stdout)


def _print_json(value: Any) -> None:
    import msgspec

    _tell(msgspec.json.encode(value).decode())


if __name__ == "__main__":
    entry()
