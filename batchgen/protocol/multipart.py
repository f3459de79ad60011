"""Forms with files (multipart/form-data, RFC 7578), both directions; equal forms are equal bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

_KINDS = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"RIFF", "webp"))
_BOUNDARY = re.compile(r'\bboundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(rb'\bname="([^"]*)"', re.IGNORECASE)


class Form(NamedTuple):
    """The type of a form, which names its boundary, and its bytes."""

    content_type: str
    body: bytes


def encode_form(fields: Mapping[str, str], files: Mapping[str, bytes]) -> Form:
    """Texts and pictures as one form. The boundary is a hash of the parts: the same form is the same bytes for ever,
    and no part holds it.
    """
    parts = [(f'name="{_quoted(name)}"', text.encode()) for name, text in fields.items()]
    for name, data in files.items():
        kind = next((kind for magic, kind in _KINDS if data.startswith(magic)), "png")
        head = f'name="{_quoted(name)}"; filename="{_quoted(name)}.{kind}"\r\nContent-Type: image/{kind}'
        parts.append((head, data))
    mark = hashlib.sha256()
    for head, data in parts:
        mark.update(b"%d %b %d %b" % (len(head.encode()), head.encode(), len(data), data))
    boundary = f"batchgen-{mark.hexdigest()[:40]}"
    pieces = [
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (boundary.encode(), head.encode(), data)
        for head, data in parts
    ]
    return Form(f"multipart/form-data; boundary={boundary}", b"".join([*pieces, b"--%b--\r\n" % boundary.encode()]))


def _quoted(name: str) -> str:
    # As browsers do it: what would end the name, or the line, is escaped.
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def decode_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts of a form by name; of several with one name the last. Raises ValueError with words for the client."""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or not found:
        raise ValueError("The request must be a multipart/form-data form.")
    pieces = (b"\r\n" + body).split(b"\r\n--" + found[1].encode())
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise ValueError("The form is cut off.")
    parts = {}
    for piece in pieces[1:-1]:
        head, blank, data = piece.partition(b"\r\n\r\n")
        if not blank or not (name := _NAME.search(head)):
            raise ValueError("A part of the form has no name.")
        parts[name[1].decode("utf-8", "replace")] = data
    return parts
