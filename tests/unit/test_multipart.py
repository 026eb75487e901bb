"""Forms: the standard library's parser reads the field as we do, and doubtful forms are refused."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import compat32
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from protocols import multipart
from protocols.multipart import DuplicateField, MultipartError, boundary, field, replace

MODEL = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm-1\r\n'
FILE = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a; name=\'model\'.mp3"\r\n'
    b"Content-Type: audio/mpeg\r\n\r\n\x00\r\n--\r\n\r\n--B\r\nbytes --b--\xff\r\n"
)
END = b"--b--\r\n"


def part(head: bytes, value: bytes = b"m-1") -> bytes:
    """A form of one part with *head* as its headers."""
    return b"--b\r\n" + head + b"\r\n\r\n" + value + b"\r\n--b--\r\n"


def disposition(rest: bytes) -> bytes:
    return part(b"Content-Disposition: form-data" + rest)


READ = {
    "alone": (MODEL + END, b"m-1"),
    "before a file": (MODEL + FILE + END, b"m-1"),
    "behind a file": (FILE + MODEL + END, b"m-1"),
    "behind a preamble": (b"for old readers\r\n" + MODEL + END, b"m-1"),
    "before an epilogue": (MODEL + END + b"the rest\r\n", b"m-1"),
    "without the last CRLF": (MODEL + b"--b--", b"m-1"),
    "with padding behind the boundaries": (MODEL.replace(b"--b", b"--b \t") + b"--b-- ", b"m-1"),
    "empty": (disposition(b'; name="model"').replace(b"m-1", b""), b""),
    "of several lines": (
        part(b'Content-Disposition: form-data; name="model"', b"a\r\n\r\nb\n"),
        b"a\r\n\r\nb\n",
    ),
    "with an unquoted name": (disposition(b"; name=model"), b"m-1"),
    "with its name behind others": (disposition(b'; filename="x\\"y"; x=1;name="model";'), b"m-1"),
    "with headers in any case and order": (
        part(b"X-A:\r\ncontent-TYPE: text/plain\r\nCONTENT-disposition:\tForm-Data;\tNAME=model\t"),
        b"m-1",
    ),
    "with a harmless encoding": (
        part(b"Content-Transfer-Encoding: 8BIT\r\nContent-Disposition: form-data; name=model"),
        b"m-1",
    ),
    "under another name": (disposition(b'; name="models"'), None),
    "under its name in other letters": (disposition(b'; name="Model"'), None),
    "as the name of a file": (disposition(b'; name="f"; filename="model"'), None),
    "without a name": (disposition(b""), None),
    "without headers": (b"--b\r\n\r\nname=model\r\n--b--\r\n", None),
    "in no part": (END, None),
}

REFUSED = {
    "nothing": b"",
    "no boundary": b"model=m-1",
    "no last boundary": MODEL,
    "a last boundary that is cut": MODEL + b"--b-",
    "another boundary": (MODEL + END).replace(b"--b", b"--c"),
    "a longer boundary": MODEL + b"--bb\r\n" + END,
    "text behind the last boundary": MODEL + b"--b--x\r\n",
    "a part behind the last boundary": FILE + END + b"X: y\r\n\r\n\r\n" + MODEL + END,
    "lines that end with LF": (MODEL + END).replace(b"\r\n", b"\n"),
    "lines that end with CR": (MODEL + END).replace(b"\r\n", b"\r"),
    "a boundary behind LF": FILE[:-2] + b"\n" + MODEL + END,
    "a boundary behind CR": FILE[:-2] + b"\r" + MODEL + END,
    "a first boundary behind LF": b"\n" + MODEL + END,
    "endless padding": MODEL.replace(b"--b", b"--b" + b" " * 65) + END,
    "a part without a blank line": b"--b\r\nContent-Disposition: form-data; name=model\r\n--b--\r\n",
    "a part without anything": b"--b\r\n--b--\r\n",
    "a header without a colon": part(b"Content-Disposition form-data; name=model"),
    "a header with a space in its name": part(b"Content-Disposition : form-data; name=model"),
    "a folded header": part(b"Content-Disposition: form-data;\r\n name=model"),
    "a header behind LF": part(b"X: y\nContent-Disposition: form-data; name=model"),
    "a header behind CR": part(b"X: y\rContent-Disposition: form-data; name=model"),
    "two dispositions": part(b"Content-Disposition: form-data; name=x\r\nContent-Disposition: form-data; name=model"),
    "another disposition": part(b"Content-Disposition: attachment; name=model"),
    "two names": disposition(b"; name=x; name=model"),
    "an escape in the name": disposition(b'; name="mo\\del"'),
    "an extended name": disposition(b"; name*=utf-8''model"),
    "a name in pieces": disposition(b"; name*0=mo; name*1=del"),
    "a name behind an escaped quote": disposition(b'; name=x; filename="y\\"; name=model; z=\\""'),
    "a quote that does not end": disposition(b'; name="model'),
    "a parameter without a value": disposition(b"; name"),
    "spaces around the equals sign": disposition(b"; name = model"),
    "parameters that a comma divides": disposition(b'; x=1, name=model"'),
    "the field in an encoding": part(
        b"Content-Transfer-Encoding: base64\r\nContent-Disposition: form-data; name=model"
    ),
    "a field that is too long": disposition(b"; name=model").replace(b"m-1", b"m" * 8193),
    "headers that are too long": part(b"X: " + b"x" * (32 << 10)),
    "headers that are too long together": (b"--b\r\nX: " + b"x" * 1024 + b"\r\n\r\n\r\n") * 40 + END,
    "too many parts": (b"--b\r\n\r\n\r\n") * 65 + END,
    "too many boundaries inside lines": b"--b\r\n\r\n" + b"x--b" * 66 + b"\r\n" + END,
}


@pytest.mark.parametrize(("body", "value"), READ.values(), ids=READ)
def test_the_field_is_found_wherever_it_stands(body: bytes, value: bytes | None) -> None:
    assert field(body, b"b", b"model") == value


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_form_that_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(MultipartError):
        field(body, b"b", b"model")


@pytest.mark.parametrize("between", [b"", FILE], ids=["side by side", "around a file"])
def test_a_field_that_occurs_twice_is_told_apart_from_other_faults(between: bytes) -> None:
    with pytest.raises(DuplicateField):
        field(MODEL + between + MODEL + END, b"b", b"model")


def test_as_many_parts_as_allowed_are_read() -> None:
    assert field(b"--b\r\n\r\n\r\n" * 63 + MODEL + END, b"b", b"model") == b"m-1"


@pytest.mark.parametrize(
    ("content_type", "found"),
    [
        (b"multipart/form-data; boundary=b", b"b"),
        (b"Multipart/Form-Data ;charset=utf-8; BOUNDARY=b;", b"b"),
        (b'multipart/form-data; boundary="a b:(c)/d=?"', b"a b:(c)/d=?"),
        (
            b"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            b"----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
        (b"multipart/form-data; boundary=" + b"b" * 70, b"b" * 70),
        (b"multipart/form-data; boundary=" + b"b" * 71, None),
        (b"multipart/form-data; boundary=", None),
        (b'multipart/form-data; boundary=""', None),
        (b'multipart/form-data; boundary="b "', None),
        (b'multipart/form-data; boundary="b', None),
        (b'multipart/form-data; boundary="b\\c"', None),
        (b"multipart/form-data; boundary=b:c", None),
        (b"multipart/form-data; boundary=b c", None),
        (b"multipart/form-data; boundary=b, text/plain", None),
        (b"multipart/form-data; boundary=b; boundary=c", None),
        (b"multipart/form-data; boundary=b; boundary*=utf-8''c", None),
        (b"multipart/form-data; boundary=b\xe9", None),
        (b"multipart/form-data", None),
        (b"multipart/mixed; boundary=b", None),
        (b"application/json", None),
        (b"", None),
    ],
)
def test_a_boundary_is_read_as_the_rfc_writes_it_and_not_guessed(content_type: bytes, found: bytes | None) -> None:
    assert boundary(content_type) == found


@pytest.mark.parametrize("body", [MODEL + FILE + END, b"pre\r\n" + FILE + MODEL + b"--b--"])
def test_replacing_the_field_leaves_every_other_byte(body: bytes) -> None:
    assert replace(body, b"b", b"model", b"upstream/name") == body.replace(b"m-1", b"upstream/name")


@pytest.mark.parametrize("value", [b"--b", b"--bc", b"x\r\ny", b"x\ny", b"x\ry"])
def test_a_value_that_would_be_read_as_a_boundary_is_not_put_in(value: bytes) -> None:
    with pytest.raises(MultipartError):
        replace(MODEL + END, b"b", b"model", value)


def test_what_is_not_there_is_not_replaced() -> None:
    with pytest.raises(MultipartError):
        replace(FILE + END, b"b", b"model", b"m-2")


def by_email(body: bytes, name: str) -> list[Any]:
    """The values of *name* in *body*, boundary b, as the standard library reads them."""
    head = b'Content-Type: multipart/form-data; boundary="b"\r\n\r\n'
    form = BytesParser(policy=compat32).parsebytes(head + body)
    return [
        each.get_payload(decode=True)
        for each in form.walk()
        if each.get_param("name", header="content-disposition") == name
    ]


NAMES = st.sampled_from([b"model", b"file", b"image[]", b"prompt"])
VALUES = st.binary(max_size=40) | st.lists(
    st.sampled_from([b"\r\n", b"\n", b"--", b"b", b"--b", b" ", b"name=model", b"\xff"]), max_size=6
).map(b"".join)
HEADS = st.sampled_from(
    [
        b'Content-Disposition: form-data; name="%s"',
        b'Content-Type: text/plain\r\ncontent-disposition: form-data; filename="a;b"; name="%s"',
        b'CONTENT-DISPOSITION:form-data;NAME=%s\r\nX-Other: name="model"',
    ]
)


@given(st.lists(st.tuples(NAMES, VALUES, HEADS), min_size=1, max_size=6), st.sampled_from([b"", b"pre\r\n"]))
def test_sound_forms_are_read_as_the_standard_library_reads_them(
    parts: list[tuple[bytes, bytes, bytes]], preamble: bytes
) -> None:
    # What a sender must see to: its boundary begins no line of any content.
    assume(not any(line.startswith(b"--b") for _, value, _ in parts for line in value.splitlines()))
    body = preamble
    for name, value, head in parts:
        body += b"--b\r\n" + head.replace(b"%s", name) + b"\r\n\r\n" + value + b"\r\n"
    body += b"--b--\r\n"
    values = [value for name, value, _ in parts if name == b"model"]
    assert by_email(body, "model") == values
    if len(values) > 1:
        with pytest.raises(DuplicateField):
            field(body, b"b", b"model")
    else:
        assert field(body, b"b", b"model") == (values[0] if values else None)
        if values:
            assert field(replace(body, b"b", b"model", b"new"), b"b", b"model") == b"new"


WHOLE = (MODEL, FILE, END, MODEL[:-2], MODEL.replace(b'"', b""), MODEL.replace(b"model", b"prompt"))
MARKS = (
    b"--b",
    b"--b\r\n",
    b"--b--",
    b"--",
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b":",
    b"\x0b",
    b"\x85",
)
WORDS = (b"x", b"\x00", b'"', b";", b"\\", b"name=", b"model", b"Content-Disposition: form-data; ", b"X: y")
FRAGMENTS = st.sampled_from(WHOLE) | st.sampled_from(MARKS + WORDS)


@given(st.lists(FRAGMENTS, max_size=10).map(b"".join), st.booleans())
@example(MODEL + b"\n", True)
@example(b"--b\r\nContent-Disposition: form-data; name=prompt\r\n\r\n\n" + MODEL, True)
def test_whatever_is_not_refused_the_standard_library_reads_in_the_same_way(body: bytes, ended: bool) -> None:
    body += END if ended else b""
    try:
        value = field(body, b"b", b"model")
    except MultipartError:
        return
    assert by_email(body, "model") == ([] if value is None else [value])


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=3))
def test_any_bytes_are_read_or_refused_and_nothing_else(body: bytes, mark: bytes) -> None:
    try:
        value = field(b"--" + mark + b"\r\n" + body + b"--" + mark + b"--", mark, b"model")
    except MultipartError:
        return
    assert value is None or value in body


@given(st.binary(max_size=80))
def test_any_content_type_has_a_sound_boundary_or_none(rest: bytes) -> None:
    found = boundary(b"multipart/form-data; boundary=" + rest)
    assert found is None or multipart.BOUNDARY.fullmatch(found)


def test_the_openai_sdk_writes_forms_that_are_read() -> None:
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        request.read()
        sent.append(request)
        return httpx2.Response(200, json={"text": "hello"})

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        client = openai.OpenAI(api_key="k", base_url="http://gateway.test/v1", http_client=http)
        client.audio.transcriptions.create(
            model="whisper-1",
            file=('odd "name"; name=model.mp3', b"\r\n--\r\n" * 1000),
            language="en",
            timestamp_granularities=["word", "segment"],
        )
    mark = boundary(sent[0].headers["content-type"].encode())
    assert mark is not None
    assert field(sent[0].content, mark, b"model") == b"whisper-1"
    assert field(sent[0].content, mark, b"language") == b"en"
    with pytest.raises(DuplicateField):
        field(sent[0].content, mark, b"timestamp_granularities[]")
    renamed = replace(sent[0].content, mark, b"model", b"large-v3")
    assert renamed == sent[0].content.replace(b"whisper-1", b"large-v3")
