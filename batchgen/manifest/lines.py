"""Bytes -> decoded lines, counted. Knows encodings and nothing of what the lines say.

Lines come as bytes and end at line feeds only: prompts may hold the other characters that Python counts as line ends.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from batchgen.model import Problem

LONE_CR = ("a carriage return stands alone", "end lines with LF or CR LF")
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass
class Lines:
    """Decodes lines and counts them; what cannot be decoded is replaced, and told in `problems`.

    UTF-8 with or without a byte order mark, and UTF-16 with one, which is how spreadsheets write "Unicode text".
    """

    file: str
    lines: Iterable[bytes]
    line: int = 0
    problems: list[Problem] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        lines = iter(self.lines)
        first = next(lines, None)
        if first is None:
            return
        if first.startswith(_UTF16_MARKS):
            yield from self._wide(chain([first], lines))
            return
        for line in chain([first.removeprefix(_UTF8_MARK)], lines):
            self.line += 1
            try:
                decoded = line.decode()
            except UnicodeDecodeError as error:
                decoded = self._replaced(line, error)
            if "\0" in decoded:
                decoded = self._without_nul(decoded)
            yield decoded

    def _wide(self, pieces: Iterable[bytes]) -> Iterator[str]:
        """The lines of UTF-16, which was cut at bytes that may be halves of characters."""
        decode = codecs.getincrementaldecoder("utf-16")(errors="replace").decode
        rest = ""
        for piece in chain(pieces, [b""]):
            rest += decode(piece, final=not piece)
            *whole, rest = rest.split("\n")
            for line in [*(f"{line}\n" for line in whole), *([rest] if rest and not piece else [])]:
                self.line += 1
                if "\ufffd" in line:
                    column = line.index("\ufffd") + 1
                    self.complain(self.line, column, "this is not UTF-16", "save the file as UTF-8")
                yield self._without_nul(line) if "\0" in line else line

    def _replaced(self, line: bytes, error: UnicodeDecodeError) -> str:
        column = len(line[: error.start].decode()) + 1
        self.complain(self.line, column, f"byte 0x{line[error.start]:02x} is not UTF-8", "save the file as UTF-8")
        return line.decode(errors="replace")

    def _without_nul(self, line: str) -> str:
        self.complain(self.line, line.index("\0") + 1, "a NUL character", "save the file as UTF-8 text")
        return line.replace("\0", "\ufffd")

    def complain(self, line: int, column: int, what: str, fix: str) -> None:
        self.problems.append(Problem(self.file, line, column, what, fix))

    def taken(self) -> list[Problem]:
        """The problems since the last call."""
        problems, self.problems = self.problems, []
        return problems
