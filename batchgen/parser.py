"""How arguments are read and what is said of those that cannot be; each command brings its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from batchgen import __version__
from batchgen.commands import COMMANDS, EXIT_CODES, load

EPILOG = f"""\
first steps, without a key and without a network:
  batchgen run jobs/demo.yaml --api sandbox     draw with the built-in stand-in for the API
  batchgen check jobs/demo.yaml                 validate and plan; sends nothing
  batchgen status jobs/demo.yaml                where it stands

with the real API, put the key into NEBULA_API_KEY (never on the command line):
  batchgen run jobs/demo.yaml --api nebula

{EXIT_CODES}"""


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
        if left and not self._taken_late(found, left):
            self.error(self._unknown(left))
        return found, []

    def _taken_late(self, found: argparse.Namespace, left: Sequence[str]) -> bool:
        """Whether the word left over was the last argument, which argparse takes for absent behind a flag."""
        last = self._get_positional_actions()[-1:]
        if len(left) != 1 or left[0].startswith("-") or not last or last[0].nargs != "?" or not callable(last[0].type):
            return False
        if getattr(found, last[0].dest) is not None:
            return False
        setattr(found, last[0].dest, last[0].type(left[0]))
        return True

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


class _Command(_Parser):
    """Asks its command for arguments and words only when something is to be parsed: other commands stay unloaded."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if not self.description:
            command = load(self.prog.rpartition(" ")[2])
            self.description = command.ABOUT
            command.arguments(self)
        return super().parse_known_args(args, namespace)


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
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True, parser_class=_Command
    )
    for name, help in COMMANDS.items():
        commands.add_parser(name, help=help, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    return parser
