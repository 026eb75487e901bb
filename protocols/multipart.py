"""Forms (multipart/form-data, RFC 7578 and RFC 2046): one field found in place.

Owns finding and replacing a simple field. It refuses to decode forms: files are neither parsed nor
copied. Pure functions over a complete body, called where a request is routed.

The gateway decides by this field, and the upstream reads it again with a parser of its own. So a form that
two parsers could read differently is refused, even where the RFCs would allow a guess: a boundary behind a
lone CR or LF, or followed by other text; folded or repeated headers; escapes in a name. No usual client sends
these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

#: Parts of one form. An image edit takes 16 images and some twenty fields; a part costs a few microseconds.
PARTS_LIMIT: Final = 64

#: Bytes of headers in the whole form. A part has two or three short lines and perhaps a file's name, which
#: systems hold to 255 bytes; this is five times what 64 such parts need, and read in a few milliseconds.
HEAD_LIMIT: Final = 32 << 10

#: Bytes of the field. Names of models have at most a few hundred.
VALUE_LIMIT: Final = 8 << 10

TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: RFC 2046 section 5.1.1: at most 70 of these characters, the last one no space.
BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")

#: `;name=value`, the value quoted or not. Each byte can match in one way only, so this takes linear time.
PARAMETER: Final = re.compile(
    rb";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s\";]*)[ \t]*", re.DOTALL
)

#: What may follow a boundary in its line, and what may follow the last one. The padding, which mail once
#: needed, is bounded so that megabytes of it cost nothing.
LINE_END: Final = re.compile(rb"[ \t]{0,64}\r\n")
LAST_END: Final = re.compile(rb"--[ \t]{0,64}(?:\r\n|\Z)")

#: Encodings that leave the bytes as they are; RFC 7578 section 4.7 wants no others in forms.
IDENTITY: Final = frozenset({b"7bit", b"8bit", b"binary"})


class MultipartError(ValueError):
    """The form cannot be read, or not in one way only. The text quotes nothing, so a client may see it."""


class DuplicateField(MultipartError):
    """The field occurs twice, and which of the two counts is anyone's guess."""


def boundary(content_type: bytes) -> bytes | None:
    """The boundary that a Content-Type tells; None where it is no form or its boundary is missing or bad."""
    kind, _, rest = content_type.partition(b";")
    if kind.strip(b" \t").lower() != b"multipart/form-data":
        return None
    try:
        parameters = _parameters(b";" + rest)
    except MultipartError:
        return None
    value = parameters.get(b"boundary", b"")
    if value.startswith(b'"'):
        value = value[1:-1]
    elif TOKEN.fullmatch(value) is None:
        return None
    return value if BOUNDARY.fullmatch(value) else None


def field(body: bytes, boundary: bytes, name: bytes) -> bytes | None:
    """The value of the field *name*; None where there is none. Raises DuplicateField and MultipartError.

    Takes one scan of the body for the boundary, and looks at each part's headers: all of them are read, since
    the field may occur again in any.
    """
    found = _find(body, boundary, name)
    return None if found is None else body[found[0] : found[1]]


def replace(body: bytes, boundary: bytes, name: bytes, value: bytes) -> bytes:
    """*body* with *value* in the place of the field's; all else byte-identical. The field must be there.

    Raises like `field`, and MultipartError for a value that would be read as a boundary.
    """
    found = _find(body, boundary, name)
    if found is None:
        raise MultipartError("the form lacks the field")
    if b"--" + boundary in value or b"\r" in value or b"\n" in value:
        raise MultipartError("the form's boundary collides with the field's new value")
    return b"".join((memoryview(body)[: found[0]], value, memoryview(body)[found[1] :]))


def _find(body: bytes, boundary: bytes, name: bytes) -> tuple[int, int] | None:
    """Where the field's value starts and ends."""
    found = None
    room = HEAD_LIMIT
    for start, end in _parts(body, boundary):
        headers, content = _headers(body, start, min(end, start + room))
        room -= content - start
        if _name(headers.get(b"content-disposition")) != name:
            continue
        if found is not None:
            raise DuplicateField("the form has the field twice")
        if headers.get(b"content-transfer-encoding", b"binary").lower() not in IDENTITY:
            raise MultipartError("the form has the field in a transfer encoding")
        if end - content > VALUE_LIMIT:
            raise MultipartError("the form's field is too long")
        found = content, end
    return found


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Where each part starts, with its headers, and where it ends. The whole body is judged on the way."""
    mark = b"--" + boundary
    start = -1
    closed = False
    seen = 0
    at = body.find(mark)
    while at >= 0:
        # Those inside a line are no boundaries, but they count: no client chooses the turns of this loop.
        seen += 1
        if seen > PARTS_LIMIT + 1:
            raise MultipartError(f"the form has more than {PARTS_LIMIT} parts")
        after = at + len(mark)
        if _begins_line(body, at):
            if closed:
                raise MultipartError("the form goes on after its last boundary")
            if start >= 0:
                yield start, at - 2
            closed = body.startswith(b"--", after)
            line = (LAST_END if closed else LINE_END).match(body, after)
            if line is None:
                raise MultipartError("the form has other text in the line of a boundary")
            start = line.end()
        at = body.find(mark, after)
    if not closed:
        raise MultipartError("the form lacks its last boundary")


def _begins_line(body: bytes, at: int) -> bool:
    before = body[max(at - 2, 0) : at]
    if at == 0 or before == b"\r\n":
        return True
    if before.endswith((b"\r", b"\n")):
        raise MultipartError("the form has a boundary behind a lone CR or LF")
    return False


def _headers(body: bytes, start: int, end: int) -> tuple[dict[bytes, bytes], int]:
    """The headers of the part, names in lower case, and where its content starts."""
    # From the end of the boundary's line on, since a part without headers starts with the blank line.
    blank = body.find(b"\r\n\r\n", start - 2, end)
    if blank < 0:
        raise MultipartError("the form has a part whose headers do not end, or headers that are too long")
    headers: dict[bytes, bytes] = {}
    for line in body[start:blank].split(b"\r\n") if blank > start else ():
        name, colon, value = line.partition(b":")
        # A folded line starts with a space, so it has no name.
        if not colon or TOKEN.fullmatch(name) is None or b"\r" in value or b"\n" in value:
            raise MultipartError("the form has a part with a malformed header")
        name = name.lower()
        if name in headers:
            raise MultipartError("the form has a part with a header twice")
        headers[name] = value.strip(b" \t")
    return headers, blank + 4


def _name(disposition: bytes | None) -> bytes | None:
    """The name in a Content-Disposition; None for a part that has none, which is no field."""
    if disposition is None:
        return None
    kind, _, rest = disposition.partition(b";")
    if kind.strip(b" \t").lower() != b"form-data":
        raise MultipartError("the form has a part that is no form data")
    name = _parameters(b";" + rest).get(b"name")
    if name is not None and b"\\" in name:
        raise MultipartError("the form has a part with an escape in its name")
    return name.strip(b'"') if name is not None else None


def _parameters(text: bytes) -> dict[bytes, bytes]:
    """The parameters in *text*, names in lower case, values as they stand, with their quotes."""
    found: dict[bytes, bytes] = {}
    at = 0
    text = text.rstrip(b" \t;")
    while at < len(text):
        match = PARAMETER.match(text, at)
        if match is None:
            raise MultipartError("the form has a malformed parameter in a header")
        name, value = match[1].lower(), match[2]
        if name in found:
            raise MultipartError("the form has a parameter twice in a header")
        # RFC 2231's spellings of a parameter, for those who know them the same one.
        if name.startswith((b"name*", b"boundary*")):
            raise MultipartError("the form has an extended parameter in a header")
        # Some end the text at an escaped quote, and would read what follows a semicolon as parameters.
        if b'\\"' in value and b";" in value:
            raise MultipartError("the form has a parameter that can be read in two ways")
        found[name] = value
        at = match.end()
    return found
