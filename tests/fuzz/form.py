"""Forms: only declared errors, and a field that is replaced is replaced there and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from protocols import multipart
from protocols.multipart import MultipartError

TYPE = b'multipart/form-data; boundary="B"'
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: a/b\r\n\r\n\0\r\n-\r\n'
    b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--B--\r\n'
)

WORDS = [
    *(
        b"--B",
        b"--B--",
        b"\r\n",
        b"\r\n--B\r\n",
        b"\r\n--B--\r\n",
        b'Content-Disposition: form-data; name="model"\r\n\r\n',
        b"\n",
        b"\r",
    ),
    *(
        b'; filename="f"',
        b"; name=model",
        b"name*=",
        b'\\"',
        b"Content-Transfer-Encoding: 8bit\r\n",
        b"Content-Type: text/plain\r\n",
    ),
    *(b"multipart/form-data; boundary=B\n", b' boundary="', b";", b"=", b'"', b" ", b"\t", b"\0", b"\xe9"),
]
SEEDS = [FORM, TYPE + b"\n" + FORM, FORM.replace(b"\r\n--B--", b"\r\n--B\r\nX: y\r\n\r\nz\r\n--B--")]


def opened() -> AbstractContextManager[Callable[[bytes], None]]:
    return nullcontext(check)


def check(data: bytes) -> None:
    """The bytes are a Content-Type up to the first LF, and a form; without an LF, a form with the boundary B."""
    kind, line_end, form = data.partition(b"\n")
    boundary = multipart.boundary(kind) if line_end else b"B"
    if boundary is None:
        return
    assert 1 <= len(boundary) <= 70
    try:
        found = multipart.field(form if line_end else data, boundary, b"model")
    except MultipartError:
        return
    if found is not None:
        judge(form if line_end else data, boundary, found)


def judge(form: bytes, boundary: bytes, found: bytes) -> None:
    other = b"another-name"
    try:
        changed = multipart.replace(form, boundary, b"model", other)
    except MultipartError:
        assert b"--" + boundary in other
        return
    assert multipart.field(changed, boundary, b"model") == other
    if not set(found) & set(b"\r\n") and b"--" + boundary not in found:
        assert multipart.replace(changed, boundary, b"model", found) == form
