"""Pure text: what may be shown, what a name may be made of. Knows nothing of jobs, files or the wire."""

from __future__ import annotations

import re
import unicodedata

SLUG_CHARS = 40
_CONTROL = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str, limit: int = 500) -> str:
    """`text` on one line, at most `limit` characters, with everything that could drive a terminal escaped.

    Control characters (C0, C1), format characters (bidirectional overrides among them), line and paragraph
    separators and lone surrogates become `\\xNN`/`\\uNNNN`; runs of white space become one space.
    """
    line = re.sub(r"[ \t\r\n]+", " ", text[: limit * 4]).strip()
    shown = "".join(_escaped(c) if unicodedata.category(c) in _CONTROL else c for c in line[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _escaped(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode() if ord(char) > 0x7F else f"\\x{ord(char):02x}"


def counted(n: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{n} {noun}{'s' * (n != 1)}"


def duration(seconds: float) -> str:
    """Seconds for people: `0.8 s`, `42 s`, `3 min 05 s`, `7 h 02 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(size_bytes: float) -> str:
    """Bytes for people.

    >>> size(900), size(1_572_864), size(5_000_000_000_000)
    ('900 bytes', '1.5 MiB', '4.5 TiB')
    """
    if size_bytes < 1024:
        return f"{size_bytes:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        size_bytes /= 1024
        if size_bytes < 999.95:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1024:.1f} TiB"


def slug(text: str) -> str:
    """Letters and digits of `text` in lower case, everything else as single hyphens, at most 40 characters.

    >>> slug("A red fox, 4K!")
    'a-red-fox-4k'
    """
    folded = unicodedata.normalize("NFC", text[:400]).lower()
    if not folded.isascii():
        # Marks belong to their letters: without them Hindi and Thai words fall apart. Alone they are invisible.
        folded = "".join(c if c.isascii() or unicodedata.category(c)[0] in "LM" else "-" for c in folded)
        folded = "".join(c for k, c in enumerate(folded) if not _lone_mark(folded[k - 1 : k], c))
        return re.sub(r"[\x00-,.-/:-`{-\x7f-]+", "-", folded).strip("-")[:SLUG_CHARS].rstrip("-")
    return re.sub("[^a-z0-9]+", "-", folded).strip("-")[:SLUG_CHARS].rstrip("-")


def _lone_mark(before: str, char: str) -> bool:
    return (
        unicodedata.category(char)[0] == "M" and not before.isalpha() and unicodedata.category(before or "-")[0] != "M"
    )
