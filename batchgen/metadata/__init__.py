"""What a picture says about itself: written into its bytes and read back, pixels untouched. This file is the interface.

`infotext` is the text that the field's tools read, `xmp` the packet with our exact record, `exif` the block that holds
the text where a format has no texts of its own; `png`, `jpeg` and `webp` know the containers. Nothing that a server
wrote is replaced. Nothing here opens a file, decodes a pixel or decides which pictures are to have metadata.
"""

from __future__ import annotations

import struct

from batchgen.metadata import infotext, jpeg, png, webp, xmp
from batchgen.metadata.made import Carried, Container, Embedded, Made

__all__ = ["UNREADABLE", "Carried", "Embedded", "Made", "carried", "embed", "infotext", "made"]

_CONTAINERS: dict[str, Container] = {"png": png, "jpeg": jpeg, "webp": webp}
UNREADABLE = (ValueError, IndexError, struct.error)
"""What reading or finishing a picture raises whose structure is not what its format says."""

_SEALED = "no metadata was embedded: the picture carries a C2PA manifest, which any change would break"
_PROVENANCE = b"dcterms:provenance"  # a manifest that is kept elsewhere
_TAKEN = "the parameters were not embedded: the server wrote metadata of its own in their place"
_TAKEN_XMP = "the exact request was not embedded: the server wrote an XMP packet of its own"


def embed(data: bytes, format: str, size: tuple[int, int], made: Made, by: str) -> Embedded:
    """A whole picture of this format and size (pixels) with its history in it; `by` is the program and its version.

    The same arguments give the same bytes. What does not fit, or would replace what the server wrote, is left out and
    told in the notes. Raises one of UNREADABLE for a picture whose structure leaves no place for it.
    """
    container = _CONTAINERS[format]
    there = container.look(data)
    if there.sealed or _PROVENANCE in (there.xmp or b""):
        return Embedded(data, (_SEALED,))
    notes = []
    text = packet = None
    if there.taken:
        notes.append(_TAKEN)
    elif len((text := infotext.build(made, size, by)).encode("utf-16-be")) > container.MAX_TEXT_BYTES:
        notes.append(f"the parameters were not embedded: {len(text):,} characters do not fit into a {format} picture")
        text = None
    if there.xmp is not None:
        notes.append(_TAKEN_XMP)
    elif len(packet := xmp.packet(made, by)) > container.MAX_XMP_BYTES:
        notes.append(f"the exact request was not embedded: {len(packet):,} bytes do not fit into a {format} picture")
        packet = xmp.packet(None, by)
    if text is None and packet is None:
        return Embedded(data, tuple(notes))
    return Embedded(container.splice(data, size, text, packet), tuple(notes))


def carried(data: bytes, format: str) -> Carried:
    """What metadata a whole picture carries. Raises as `embed` does."""
    return _CONTAINERS[format].look(data)


def made(found: Carried) -> Made | None:
    """What our record in a picture says; None where there is none that can be read."""
    return xmp.read(found.xmp) if found.xmp is not None else None
