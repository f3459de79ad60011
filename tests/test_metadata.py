"""Metadata in pictures: pixels and foreign bytes stay, what was said comes back, and nothing is ever replaced."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from samples import json_values, texts

from batchgen import images, metadata
from batchgen.metadata import Embedded, Made, exif, infotext, xmp
from batchgen.model import FileInput

BY = "batchgen 9.9"
SIZE = (37, 23)


def noise(mode: str = "RGB", seed: int = 1) -> Image.Image:
    """A small picture that no format can compress away."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, SIZE, random.Random(seed).randbytes(SIZE[0] * SIZE[1] * bands))


def saved(format: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    noise(mode).save(buffer, format, **options)
    return buffer.getvalue()


def own_text() -> PngImagePlugin.PngInfo:
    """Texts that a server could write beside ours."""
    found = PngImagePlugin.PngInfo()
    found.add_text("Software", "a server")
    found.add_itxt("Comment", "狐", zip=True)
    return found


PLAIN = {
    "png": saved("PNG"),
    "png with alpha": saved("PNG", "RGBA"),
    "png with texts": saved("PNG", pnginfo=own_text()),
    "png animated": saved("PNG", save_all=True, append_images=[noise(seed=2)]),
    "jpeg": saved("JPEG", quality=80),
    "jpeg progressive with profile": saved("JPEG", progressive=True, icc_profile=b"icc" * 99),
    "jpeg without JFIF": saved("JPEG", "CMYK"),
    "webp lossy": saved("WEBP", quality=80),
    "webp lossless": saved("WEBP", lossless=True),
    "webp lossless with alpha": saved("WEBP", "RGBA", lossless=True, exact=True),
    "webp lossy with alpha": saved("WEBP", "RGBA", quality=80),
    "webp with profile": saved("WEBP", icc_profile=b"icc" * 99),
    "webp animated": saved("WEBP", save_all=True, append_images=[noise(seed=2)], duration=50),
    "webp with junk behind": saved("WEBP") + b"junk",
}
each = pytest.mark.parametrize("name", PLAIN)


def made(prompt: str = "a fox", **request: Any) -> Made:
    return Made("fox-7", "5f" * 16, "nebula", "my/model", {"prompt": prompt, **request})


def embed(data: bytes, what: Made) -> Embedded:
    facts = images.check(data)
    return metadata.embed(data, facts.format, (facts.width, facts.height), what, BY)


def found(data: bytes) -> metadata.Carried:
    return metadata.carried(data, images.check(data).format)


def frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What a decoder sees: mode and pixels of every frame."""
    with Image.open(io.BytesIO(data)) as picture:
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            yield picture.mode, picture.tobytes()


def without(data: bytes, original: bytes) -> bytes:
    """A picture without what was spliced into it, found by a reader of containers that is none of ours."""
    if original.startswith(b"\x89PNG"):
        kept, at = data[:8], 8
        while at < len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            ours = data[at + 8 : end].startswith((b"parameters\0", b"XML:com.adobe.xmp\0"))
            kept, at = kept + (b"" if ours else data[at:end]), end
        return kept
    if original.startswith(b"\xff\xd8"):
        kept, at = data[:2], 2
        while data[at + 1] in (0xE0, 0xE1):
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            kept, at = kept + (data[at:end] if data[at + 1] == 0xE0 else b""), end
        return kept + data[at:]
    end = 8 + int.from_bytes(data[4:8], "little")
    kept, at = b"", 12
    while at < end:
        after = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        after += after % 2
        kind = data[at : at + 4]
        if kind == b"VP8X" and original[12:16] == b"VP8X":
            kept += original[12:30]
            assert data[20] == original[20] | 0x0C and data[21:30] == original[21:30]
        elif kind not in (b"VP8X", b"EXIF", b"XMP "):
            kept += data[at:after]
        at = after
    return b"RIFF" + struct.pack("<I", len(kept) + 4) + b"WEBP" + kept + data[end:]


prompts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)


@given(
    name=st.sampled_from(list(PLAIN)),
    prompt=prompts,
    negative=prompts,
    others=st.dictionaries(texts, json_values, max_size=2),
)
def test_only_what_was_said_is_added(name: str, prompt: str, negative: str, others: dict[str, Any]) -> None:
    """A finished picture is sound, tells exactly its request, and differs from the
    server's in nothing but what was added; to finish it again changes nothing."""
    data, what = PLAIN[name], made(prompt, **(others | {"negative_prompt": negative}))
    finished, notes = embed(data, what)
    assert notes == ()
    assert images.check(finished) == images.check(data)
    assert without(finished, data) == data
    carried = found(finished)
    assert metadata.made(carried) == what
    assert carried.infotext == infotext.build(what, SIZE, BY)
    assert embed(finished, made("another")).data is finished


@each
def test_pixels_stay(name: str) -> None:
    """A decoder sees the same frames with the same pixels."""
    finished = embed(PLAIN[name], made("é 狐", seed=7)).data
    assert list(frames(finished)) == list(frames(PLAIN[name]))


def test_transparency_is_announced() -> None:
    """The header that a simple WebP file gets says whether the picture has alpha."""
    flags = {name: embed(PLAIN[name], made()).data[20] for name in ("webp lossless", "webp lossless with alpha")}
    assert flags == {"webp lossless": 0x0C, "webp lossless with alpha": 0x1C}


def test_a_png_text_is_of_the_oldest_kind_that_can_hold_it() -> None:
    """Latin-1 goes into tEXt, which every reader knows, anything else into iTXt."""
    assert b"tEXtparameters\0caf\xe9" in embed(PLAIN["png"], made("café")).data
    assert "iTXtparameters\0\0\0\0\0狐".encode() in embed(PLAIN["png"], made("狐")).data
    assert b"iTXtparameters" in embed(PLAIN["png"], made("a\tb")).data


# What a server wrote


def png_chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return PLAIN["png"][:33] + struct.pack(">I", len(content)) + kind + content + crc + PLAIN["png"][33:]


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return PLAIN["jpeg"][:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + PLAIN["jpeg"][2:]


def webp_chunk(kind: bytes, content: bytes) -> bytes:
    data = PLAIN["webp lossy"] + kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


REMOTE = b"<x:xmpmeta dcterms:provenance='https://example.org/manifest'/>"
SEALED = {
    "png": png_chunk(b"caBX", b"jumb"),
    "jpeg": jpeg_segment(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x10jumb"),
    "webp": webp_chunk(b"C2PA", b"jumb"),
    "png, kept elsewhere": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + REMOTE),
    "jpeg, kept elsewhere": jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + REMOTE),
    "webp, kept elsewhere": webp_chunk(b"XMP ", REMOTE),
}


@pytest.mark.parametrize("data", SEALED.values(), ids=SEALED)
def test_a_picture_with_a_c2pa_manifest_is_never_touched(data: bytes) -> None:
    """Any change would break the manifest's own digest: the picture stays as it came, and that is noted."""
    finished, notes = embed(data, made())
    assert finished is data
    assert [note.split(":")[0] for note in notes] == ["no metadata was embedded"]


PARAMETERS = {
    "png tEXt": png_chunk(b"tEXt", b"parameters\0theirs"),
    "png zTXt": png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"theirs")),
    "png iTXt": png_chunk(b"iTXt", b"parameters\0\1\0en\0\0" + zlib.compress(b"theirs")),
    "jpeg": jpeg_segment(0xE1, b"Exif\0\0" + exif.block("theirs")),
    "webp": webp_chunk(b"EXIF", exif.block("theirs")),
    "webp, prefixed": webp_chunk(b"EXIF", b"Exif\0\0" + exif.block("theirs")),
}


@pytest.mark.parametrize("data", PARAMETERS.values(), ids=PARAMETERS)
def test_the_servers_own_parameters_stay(data: bytes) -> None:
    """A second text would make a file ambiguous or invalid: the server's stays, our exact record is added."""
    finished, notes = embed(data, made())
    assert len(notes) == 1 and notes[0].startswith("the parameters were not embedded")
    assert found(finished).infotext == "theirs"
    assert metadata.made(found(finished)) == made()
    assert images.check(finished) == images.check(data)
    assert list(frames(finished)) == list(frames(data))


THEIRS = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">theirs</x:xmpmeta>'
PACKETS = {
    "png": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + THEIRS),
    "jpeg": jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + THEIRS),
    "webp": webp_chunk(b"XMP ", THEIRS),
}


@pytest.mark.parametrize("data", PACKETS.values(), ids=PACKETS)
def test_the_servers_own_packet_stays(data: bytes) -> None:
    """A file has one XMP packet: where the server wrote it, ours stays out, and the parameters go in."""
    finished, notes = embed(data, made())
    assert len(notes) == 1 and notes[0].startswith("the exact request was not embedded")
    assert found(finished).xmp == THEIRS
    assert metadata.made(found(finished)) is None
    assert infotext.parse(found(finished).infotext or "").prompt == "a fox"
    assert list(frames(finished)) == list(frames(data))


# What does not fit


def test_a_jpeg_holds_what_fits_into_a_segment() -> None:
    """Up to the last byte of a segment the text goes in; one letter more is left out and noted, never cut."""
    room = 65_533 - len(b"Exif\0\0") - len(exif.block(""))
    frame = len(infotext.build(made(""), SIZE, BY))
    fits, too_long = (embed(PLAIN["jpeg"], made("x" * (room // 2 - frame + more))) for more in (0, 1))
    assert len(found(fits.data).infotext or "") == room // 2
    assert not any("parameters" in note for note in fits.notes)
    assert found(too_long.data).infotext is None
    assert any("parameters were not embedded" in note for note in too_long.notes)
    assert images.check(too_long.data) == images.check(fits.data) == images.check(PLAIN["jpeg"])


def test_a_jpeg_says_that_it_was_generated_however_long_the_request_is() -> None:
    """Where the exact request does not fit, the packet still tells the kind of source."""
    finished, notes = embed(PLAIN["jpeg"], made("狐" * 40_000))
    assert len(notes) == 2
    assert metadata.made(found(finished)) is None
    assert xmp.SOURCE.encode() in (found(finished).xmp or b"")


@pytest.mark.parametrize("name", ["png", "webp lossy"])
def test_other_formats_hold_any_prompt(name: str) -> None:
    """A prompt of a megabyte goes into PNG and WebP whole."""
    finished, notes = embed(PLAIN[name], made("狐" * 350_000))
    assert notes == ()
    assert metadata.made(found(finished)) == made("狐" * 350_000)


def test_a_webp_file_that_ends_oddly_is_refused() -> None:
    """Where a chunk's padding is missing nothing is put behind it: that is an error, and the caller keeps the bytes."""
    data = webp_chunk(b"ODD ", b"123")[:-1]
    data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert images.check(data) == images.check(PLAIN["webp lossy"])
    with pytest.raises(ValueError, match="chunks do not end where"):
        embed(data, made())


@pytest.mark.parametrize("name", ["png", "jpeg", "webp lossy"])
def test_damage_is_an_error_of_a_few_kinds(name: str) -> None:
    """A picture that is cut anywhere is read or refused, with the errors that the interface names and no other."""
    whole = embed(
        PLAIN[name],
        made(),
    ).data
    for length in range(12, len(whole), 7):
        try:
            metadata.made(metadata.carried(whole[:length], name.split()[0]))
        except metadata.UNREADABLE:
            continue


# The texts


REQUESTS: list[tuple[dict[str, Any], str]] = [
    (
        {"num_steps": 4, "guidance_scale": 3.5, "seed": 42},
        "Steps: 4, Sampler: default, CFG scale: 3.5, Seed: 42, Size: 37x23, Model: my/model, Version: batchgen 9.9",
    ),
    ({}, "Sampler: default, Seed: -1, Size: 37x23, Model: my/model, Version: batchgen 9.9"),
    (
        {"seed": 0, "scheduler": "ddim", "strength": 0.6},
        "Sampler: ddim, Seed: 0, Size: 37x23, Model: my/model, Denoising strength: 0.6, Version: batchgen 9.9",
    ),
    (
        {"sampler": "a, b: c", "scheduler": "karras"},
        'Sampler: "a, b: c", Seed: -1, Size: 37x23, Model: my/model, Version: batchgen 9.9',
    ),
    ({"scheduler": {"kind": "x"}}, "Sampler: default, Seed: -1, Size: 37x23, Model: my/model, Version: batchgen 9.9"),
]


@pytest.mark.parametrize(("request_", "last"), REQUESTS, ids=[last[:20] for _, last in REQUESTS])
def test_the_last_line_tells_the_settings(request_: dict[str, Any], last: str) -> None:
    """Fields go by the names of the field's tools; a value that could be misread is quoted; what is unknown is left
    out, but never so much that readers would take the line for a prompt."""
    text = infotext.build(made("two\nlines", negative_prompt="blur", **request_), SIZE, BY)
    assert text == f"two\nlines\nNegative prompt: blur\n{last}"
    parsed = infotext.parse(text)
    assert (parsed.prompt, parsed.negative_prompt) == ("two\nlines", "blur")
    assert parsed.settings["Sampler"] == request_.get("sampler", "ddim" if "strength" in request_ else "default")


@given(prompts.filter(lambda text: "Negative prompt:" not in text), texts, st.integers(-1, 2**63 - 1))
def test_an_infotext_is_read_back(prompt: str, sampler: str, seed: int) -> None:
    """Prompt, sampler and seed come back, whatever characters they hold; the readers of the form strip prompts."""
    parsed = infotext.parse(infotext.build(made(prompt, sampler=sampler, seed=seed), SIZE, BY))
    assert parsed.prompt == prompt.strip()
    assert parsed.settings == {
        "Sampler": sampler or "default",
        "Seed": str(seed),
        "Size": "37x23",
        "Model": "my/model",
        "Version": BY,
    }


def test_a_text_without_settings_is_all_prompt() -> None:
    """A last line of fewer than three pairs is a part of the prompt."""
    assert infotext.parse("a fox\nSteps: 4, Seed: 7") == ("a fox\nSteps: 4, Seed: 7", "", {})


def test_files_are_told_by_path_and_digest() -> None:
    """Pictures that a job sends stand in the record as they stand in the log."""
    finished = embed(PLAIN["png"], made(image=FileInput("in/a.png", "ab" * 32))).data
    record = metadata.made(found(finished))
    assert record and record.request["image"] == {"path": "in/a.png", "sha256": "ab" * 32}


def test_a_packet_that_another_program_wrote_anew_is_still_read() -> None:
    """The record is found as an attribute and under another prefix too."""
    value = '{"job":"a","fingerprint":"f","api":"n","model":"m","request":{"prompt":"&lt;"}}'.replace('"', "&quot;")
    packet = f'<r xmlns:other="{xmp.NAMESPACE}"><d other:made="{value}"/></r>'
    assert xmp.read(packet.encode()) == Made("a", "f", "n", "m", {"prompt": "<"})


@given(st.binary(max_size=80) | st.builds(bytes.__add__, st.sampled_from([b"MM\0*", b"II*\0"]), st.binary(max_size=80)))
def test_any_bytes_may_stand_where_metadata_belongs(data: bytes) -> None:
    """Foreign blocks and packets are read or passed over, whatever they hold."""
    assert exif.comment(data) is None or isinstance(exif.comment(data), str)
    assert xmp.read(data + xmp.NAMESPACE.encode()) is None


def test_other_programs_comments_are_read() -> None:
    """Both byte orders of the block and of the text, and plain ASCII."""
    for comment in (b"UNICODE\0" + "a fox".encode("utf-16-le"), b"ASCII\0\0\0a fox\0\0"):
        block = Image.Exif()
        block.get_ifd(0x8769)[0x9286] = comment
        assert exif.comment(block.tobytes().removeprefix(b"Exif\0\0")) == "a fox"
    assert exif.comment(exif.block("a fox")) == "a fox"


def test_declared_entities_are_not_expanded() -> None:
    """A packet with a document type of its own is not read: it could grow without end."""
    packet = f'<!DOCTYPE r [<!ENTITY a "b">]><r xmlns:o="{xmp.NAMESPACE}"><o:made>&a;</o:made></r>'
    assert xmp.read(packet.encode()) is None


# Other readers

WORDS = 'a "red" fox, é 狐: 50% <b>&amp;</b>\nsecond line {x}'
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
ASKED: dict[str, Any] = {"num_steps": 4, "guidance_scale": 3.5, "seed": 42, "scheduler": "ddim"}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A finished picture of each format."""
    what = made(WORDS, negative_prompt="blur, dogs", **ASKED)
    paths = {extension: tmp_path / f"fox.{extension}" for extension in FORMATS}
    for extension, path in paths.items():
        path.write_bytes(embed(saved(FORMATS[extension]), what).data)
    return paths


@pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed (tests/debian.txt names it)")
def test_exiftool_reads_the_jobs_parameters(files: dict[str, Path]) -> None:
    """exiftool finds the text, the kind of source and the exact record in every format, and nothing to warn of."""
    ran = subprocess.run(
        ["exiftool", "-json", "-a", "-charset", "utf8", *map(str, files.values())], capture_output=True, check=True
    )
    for extension, told in zip(files, json.loads(ran.stdout), strict=True):
        text = infotext.parse(told["Parameters" if extension == "png" else "UserComment"])
        assert (text.prompt, text.negative_prompt) == (WORDS, "blur, dogs")
        assert [text.settings[name] for name in ("Steps", "CFG scale", "Seed", "Sampler")] == ["4", "3.5", "42", "ddim"]
        assert told["DigitalSourceType"] == xmp.SOURCE and told["CreatorTool"] == BY
        record = told["Made"] if isinstance(told["Made"], dict) else json.loads(told["Made"])
        assert record["request"] == {"prompt": WORDS, "negative_prompt": "blur, dogs", **ASKED}
        assert "Warning" not in told


@pytest.mark.parametrize("extension", FORMATS)
def test_a_public_prompt_reader_reads_the_jobs_parameters(files: dict[str, Path], extension: str) -> None:
    """sd-parsers sees prompts, model, sampler and settings as the job has them."""
    from sd_parsers import ParserManager

    told = ParserManager().parse(files[extension])
    assert told
    [sampler] = told.samplers
    assert ([p.value for p in sampler.prompts], [p.value for p in sampler.negative_prompts]) == (
        [WORDS],
        ["blur, dogs"],
    )
    assert sampler.name == "ddim" and sampler.model and sampler.model.name == "my/model"
    assert sampler.parameters == {"steps": "4", "cfg_scale": "3.5", "seed": "42"}
