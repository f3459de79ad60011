"""The short road of an answer: when it may be taken, and that it never says anything else than the long one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from samples import told

from batchgen.model import BadAnswer, ServerError
from batchgen.protocol import Answer, Drawn, decode_base64, read_error
from batchgen.protocol.answers import _read_parts, _read_whole, decode_answer
from batchgen.protocol.cut import MAX_VALUES, crowded, cut
from batchgen.protocol.nebula import encode_answer

ONE, TWO = b"\xfb\xff\xfe ones", b"second!!"
A, B = (base64.b64encode(data).decode() for data in (ONE, TWO))


def item(text: str = A, **more: Any) -> dict[str, Any]:
    return {"timings": {"inference": 1.5}, "index": 0, "b64_json": text} | more


def body(*items: Any, **more: Any) -> str:
    return json.dumps({"model": "m", "data": list(items), "status": "success"} | more, ensure_ascii=False)


DOCUMENTED = [
    pytest.param(encode_answer("m", [Drawn(ONE, 0, 1.5)]), [ONE], id="as the sandbox writes it"),
    pytest.param(encode_answer("m", [Drawn(ONE, 1), Drawn(TWO, 0)]), [TWO, ONE], id="two, in the order of their index"),
    pytest.param(body(item(A), item(B)), [ONE, TWO], id="two with one index"),
    pytest.param(json.dumps(json.loads(body(item())), indent=2), [ONE], id="indented"),
    pytest.param(body(item()).replace('"b64_json": ', '"b64_json"\n\t:\r\n '), [ONE], id="blanks around the colon"),
    pytest.param(body(item(prompt="a 'b64_json': fox, é")), [ONE], id="the name in a prompt"),
    pytest.param(body(item(""), item(B)), [b"", TWO], id="an empty text beside a picture"),
    pytest.param(body(item(), data_after=["b64_json"]), [ONE], id="the name as a value"),
]


@pytest.mark.parametrize(("text", "pictures"), DOCUMENTED)
def test_a_documented_answer_takes_the_short_road(text: str | bytes, pictures: list[bytes]) -> None:
    """Whatever is written as the service's reference shows it is read without a JSON reader for its pictures."""
    raw = text if isinstance(text, bytes) else text.encode()
    short = _read_parts(cut(raw))
    assert short == _read_whole(raw) == decode_answer(raw)
    assert short is not None
    assert [picture.data for picture in short.pictures] == pictures


QUOTED = json.dumps(f'"b64_json": "{B}"')
TRAPS = [
    pytest.param(body(item("data:image/png;base64," + A)), id="data prefix"),
    pytest.param(body(item("A" * 60 + "\n" + A)), id="line ends"),
    pytest.param(body(item(A.replace("+", "-").replace("/", "_"))), id="url-safe alphabet"),
    pytest.param(body(item(A.rstrip("="))), id="missing padding"),
    pytest.param(body(item("%%%")), id="no base64"),
    pytest.param(body(item("QQ==QQ==")), id="padding inside"),
    pytest.param(body(item()).replace("/", r"\/"), id="escaped slashes"),
    pytest.param(body(item()).replace("+", r"\u002b"), id="escaped plus"),
    pytest.param(body(item()).replace("b64_json", r"b64\u005fjson"), id="escaped name"),
    pytest.param("\ufeff" + body(item()), id="byte order mark"),
    pytest.param(body(item(timings={"inference": float("nan")})), id="NaN"),
    pytest.param(body(item(timings={"inference": float("inf")})), id="infinite"),
    pytest.param(body(item(prompt=f'x "b64_json": "{B}"')), id="a picture in a prompt"),
    pytest.param(body(item(), message=f'"b64_json":"{B}"'), id="a picture in a message"),
    pytest.param(f'{{"message": {QUOTED}, "data": [{{"b64_json": "{A}"}}]}}', id="a message before the picture"),
    pytest.param(f'{{"message": {QUOTED}, "data": [{{"b64\\u005fjson": ""}}]}}', id="a message instead of the picture"),
    pytest.param(f'{{"data": [{{"x\\"b64_json": "{A}", "b64\\u005fjson": ""}}]}}', id="a name that ends like it"),
    pytest.param(f'{{"data": [{{"b64_json": "{A}\\", "x": "{B}"}}]}}', id="an escaped quote ends the cut"),
    pytest.param(f'{{"data": [{{"p": "\\\\", "b64_json": "{A}"}}]}}', id="an escaped backslash before the cut"),
    pytest.param(f'{{"data": [{{"b64_json": "{A}", "b64_json": "{B}"}}]}}', id="twice in one picture"),
    pytest.param(f'{{"data": [{{"b64_json": "{A}", "b64_json": null}}]}}', id="null after it"),
    pytest.param(f'{{"data": [{{"b64_json": null, "b64_json": "{A}"}}, {{}}]}}', id="null before it"),
    pytest.param(f'{{"data": [{{"b64_json": "{A}"}}], "data": [{{"b64_json": "{B}"}}]}}', id="data twice"),
    pytest.param(f'{{"data": [{{"b64_json": "{A}"}}], "data": null}}', id="data, then none"),
    pytest.param(
        f'{{"data": [{{"b64_json":"{A}","b64_json":"{B}"}}, {{"b64_json":{{"b64_json":""}}}}]}}', id="as many by chance"
    ),
    pytest.param(f'{{"b64_json": "{A}", "data": [{{}}]}}', id="beside data"),
    pytest.param(body({"timings": {"b64_json": A}}), id="deeper"),
    pytest.param(body(item(timings={"b64_json": B})), id="one here, one deeper"),
    pytest.param(body([{"b64_json": A}]), id="in a list of lists"),
    pytest.param(body(item(), None), id="a picture and a null"),
    pytest.param(body(item(), status="failed", message="no"), id="failed beside a picture"),
    pytest.param(body(item(), status="error", error={"code": "c", "message": "m"}), id="error beside a picture"),
    pytest.param(body(status="failed", message={"b64_json": A}), id="a picture as the error's message"),
    pytest.param(body(item()) + "x", id="junk after"),
    pytest.param(body(item()) * 2, id="two answers"),
    pytest.param(body(item()).replace(A + '"', A), id="never closed"),
    pytest.param(f'{{"data": [{{"b64_json":"{A}"b64_json":"{B}"}}]}}', id="a comma lost"),
    pytest.param(body(item()).replace('"b64_json":', '"b64_json"\x0b:'), id="a blank that is none in JSON"),
    pytest.param(body(item()).replace('"b64_json":', '"b64_json"'), id="no colon"),
    pytest.param('{"data": [{"b64_json": "', id="cut at the opening quote"),
    pytest.param(body(item()).encode().replace(b'"m"', b'"\xff"').replace(b"1.5", b"NaN"), id="not UTF-8"),
    pytest.param(body(item()).encode().replace(A[:4].encode(), b"\xff\xff\xff\xff"), id="base64 not UTF-8"),
    pytest.param(b'<html>"b64_json":"QUJD"</html>', id="a page"),
    pytest.param(body(), id="no picture"),
]


@pytest.mark.parametrize("text", TRAPS)
def test_an_odd_answer_takes_the_long_road(text: str | bytes) -> None:
    """What only looks like a picture, or is one in another dress, is left to the reader of the whole answer."""
    raw = text if isinstance(text, bytes) else text.encode()
    assert _read_parts(cut(raw)) is None
    assert told(decode_answer, raw) == told(_read_whole, raw)


def test_both_roads_are_equally_strict() -> None:
    """The strict decoder says the same of a text and of the bytes that it was cut from."""
    for text in (A, B, "", "QQ==", "QR==", "QQ=", "Q", "QQ", "====", "QUJD====", "QUJD\n", "QUJD "):
        raw = body(item(text)).encode()
        short = _read_parts(cut(raw))
        assert short is None or short.pictures[0].data == decode_base64(text)


def test_what_is_cut_lies_in_one_text() -> None:
    """The cuts and the rest make up the answer, whatever it is."""
    texts, rest = cut(b'"b64_json":"ab" x "b64_json" : "" "b64_json":"c')
    assert [bytes(text) for text in texts] == [b"ab", b""]
    assert rest == b'"b64_json":"" x "b64_json" : "" "b64_json":"c'


CROWDS = [
    pytest.param(b'{"data": [' + b"{}," * MAX_VALUES + b"{}]}", id="empty items"),
    pytest.param(b'{"data": [' + b'{"b64_json":""},' * MAX_VALUES + b"{}]}", id="items with empty pictures"),
    pytest.param(b'{"data": [{}], "x": [' + b"[]," * MAX_VALUES + b"[]]}", id="empty lists beside data"),
    pytest.param(b'{"status": "failed", "data": [' + b"0," * MAX_VALUES + b"0]}", id="numbers of a failed answer"),
]


@pytest.mark.parametrize("raw", CROWDS)
def test_a_crowd_is_no_answer(raw: bytes) -> None:
    """An answer of so many values that reading them would cost gigabytes is bad, or told as text, unread."""
    assert crowded(raw)
    with pytest.raises(BadAnswer, match="more than 100,000 values"):
        decode_answer(raw)
    assert not read_error(raw).shaped


def test_commas_in_base64_or_a_page_are_no_crowd() -> None:
    """Neither what stands in a picture's text nor a proxy's page is counted as values."""
    assert decode_answer(b"<html>" + b"{}," * MAX_VALUES) == ServerError("{}," * 166 + "{…", None, False)
    with pytest.raises(BadAnswer, match="base64"):
        decode_answer(body(item("," * (MAX_VALUES + 1))).encode())


def test_as_many_pictures_as_may_be() -> None:
    """Thousands of pictures in one answer are still read."""
    raw = encode_answer("m", [Drawn(b"abc", number) for number in range(5_000)])
    found = decode_answer(raw)
    assert isinstance(found, Answer)
    assert len(found.pictures) == 5_000
