"""The command line: arguments, messages, exit codes. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from batchgen.parser import LIMIT_FLAGS, Misused, make_parser

if TYPE_CHECKING:
    import argparse

    from batchgen.model import Problem
    from batchgen.runner import Session
    from batchgen.runner.online import Offer

_RUN_ONLY = ("give_up_after_s", "max_runtime_s", "until", "on_quota", "check")
_CHOICE = ("retry", "redo", "redo_missing", "only", "limit", "shuffle")
_SHARED = ("output", "format", "api", "api_url", "defaults", "prices", *_CHOICE)


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
    argv = sys.argv[1:] if argv is None else argv
    try:
        arguments = make_parser().parse_args(argv)
    except Misused as error:
        if "--json" in argv:
            _print_refusal(error.message, 2)
        raise
    try:
        return int(_COMMANDS[arguments.command](arguments))
    except KeyboardInterrupt:
        return 130
    except SystemExit as interrupted:
        return _ended_early(int(interrupted.code or 0), arguments)
    except Exception as error:
        return _explain(error, arguments)


def _ended_early(code: int, arguments: argparse.Namespace) -> int:
    from batchgen.progress import say

    message = "ended by a signal before anything was sent"
    say(f"batchgen: {message}")
    if getattr(arguments, "json", False):
        _print_refusal(message, code)
    return code


def _explain(error: Exception, arguments: argparse.Namespace) -> int:
    """Say what went wrong, to people and, where it was asked for, to programs; the exit code."""
    from batchgen.model import BatchgenError, ExitCode, ManifestError
    from batchgen.progress import say

    problems: Sequence[Problem] = ()
    message, code, count = str(error), ExitCode.INTERNAL, 0
    if isinstance(error, ManifestError):
        from batchgen.manifest import SHOWN_ALIKE

        say(message)
        problems, code, count = error.problems, error.exit_code, error.count
        more = f" ({len(problems)} are shown, at most {SHOWN_ALIKE} that say the same)" if count > len(problems) else ""
        message = f"{count} problem{'s' * (count != 1)} in the manifest{more}; nothing was sent"
    elif isinstance(error, BatchgenError):
        code = error.exit_code
    else:
        if getattr(arguments, "verbose", False):
            import traceback

            say("".join(traceback.format_exception(error)))
        message = f"unexpected error: {type(error).__name__}: {error} (please report it; --verbose shows where)"
    say(f"batchgen: {message}")
    if getattr(arguments, "json", False):
        _print_refusal(message, code, problems, count)
    return code


def _print_refusal(error: str, code: int, problems: Sequence[Problem] = (), count: int = 0) -> None:
    from batchgen.model import Refusal

    _print_json(Refusal(error, code, tuple(problems), count))


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
    from batchgen import runner
    from batchgen.runner.check import render

    session = _session(arguments)
    ask = (lambda: _ask(session)) if arguments.online else None
    found = runner.check(session, ask, diff=arguments.diff, by_exit_code=arguments.exit_code)
    if arguments.json:
        _print_json(found)
    else:
        _tell("\n".join(render(found)))
    return found.exit_code


def _ask(session: Session) -> Offer:
    import asyncio

    from batchgen.runner import online

    return asyncio.run(online.ask(session))


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


def _init(arguments: argparse.Namespace) -> int:
    from batchgen.runner import starter

    for line in starter.write(arguments.folder):
        _tell(line)
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from batchgen import schema

    _tell(schema.text().rstrip("\n"))
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
    "init": _init,
    "schema": _schema,
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
