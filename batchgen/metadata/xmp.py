"""The XMP packet (ISO 16684-1), both ways: that a model made the picture, with which program, and the exact record.

The record is JSON in one property of a namespace of our own, which other readers show or skip.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from batchgen.metadata.made import Made
from batchgen.model import FileInput

NAMESPACE = "urn:batchgen:1.0#"
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_RECORD = f"{{{NAMESPACE}}}made"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    f' xmlns:batchgen="{NAMESPACE}">\n'
    "<xmp:CreatorTool>%s</xmp:CreatorTool>\n"
    f"<Iptc4xmpExt:DigitalSourceType>{SOURCE}</Iptc4xmpExt:DigitalSourceType>\n"
    "%s</rdf:Description>\n</rdf:RDF></x:xmpmeta>\n"
    '<?xpacket end="r"?>'
)


def packet(made: Made | None, by: str) -> bytes:
    """The packet as UTF-8; without `made` it says only that the picture was generated, and by which program."""
    record = f"<batchgen:made>{_escaped(_json(made))}</batchgen:made>\n" if made else ""
    return (_PACKET % (_escaped(by), record)).encode()


def _json(made: Made) -> str:
    # In ASCII, because XML may not hold every character that a prompt may.
    return _encoder.encode(msgspec.structs.asdict(made))


def _file(value: Any) -> dict[str, str]:
    if isinstance(value, FileInput):
        return {"path": value.path, "sha256": value.sha256}
    raise TypeError(f"not JSON: {type(value).__name__}")


_encoder = json.JSONEncoder(default=_file, separators=(",", ":"), allow_nan=False)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def read(data: bytes) -> Made | None:
    """The record in a packet, also where another program has written the packet anew; None where there is none."""
    if b"<!" in data or NAMESPACE.encode() not in data:  # no packet of ours declares entities
        return None
    from xml.etree import ElementTree  # a run only writes, and should not load what only reading needs

    try:
        root = ElementTree.fromstring(data.decode("utf-8", "strict").strip("\ufeff\0 \n"))
        found = next((e.text or "" for e in root.iter(_RECORD)), None)
        found = found or next((value for e in root.iter() if (value := e.get(_RECORD))), "")
        return msgspec.convert(json.loads(found), Made)
    except (ElementTree.ParseError, ValueError, msgspec.ValidationError, RecursionError):
        return None
