"""A peek at a request's body: which model, and whether a stream.

Owns the two readers, one for JSON and one for forms. They look at the top level only, and refuse to change anything;
what else the body says is the backend's. Called by `gateway.router` when a body is complete.
"""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import Fault, Kind, Side
from protocols import multipart
from protocols.http1.fields import Role
from protocols.openai.body import BodyError, decode_fields, model_of, wants_stream


def read_json(call: Call) -> Fault | None:
    """Find the model, and whether a stream is asked for."""
    try:
        call.fields = fields = decode_fields(call.body)
    except BodyError as error:
        return Fault(Side.CLIENT, Kind.BAD_JSON, f"The body is not valid JSON: {error}")
    try:
        call.model = model_of(fields)
    except BodyError as error:
        return Fault(Side.CLIENT, Kind.BAD_MODEL, str(error), param="model")
    if "stream" in fields and not (call.endpoint.streams and bytes(fields["stream"]) == b"null"):
        try:
            call.stream = wants_stream(fields)
        except BodyError as error:
            return Fault(Side.CLIENT, Kind.BAD_STREAM, str(error), param="stream")
    elif call.endpoint.streams:
        call.stream = True
    return None


def read_form(call: Call) -> Fault | None:
    """The same for a path that takes multipart/form-data as well as JSON."""
    if b"json" in (call.request.special[Role.CONTENT_TYPE] or b"").lower():
        return read_json(call)
    boundary = multipart.boundary(call.request.special[Role.CONTENT_TYPE] or b"")
    if boundary is None:
        return Fault(Side.CLIENT, Kind.BAD_MEDIA_TYPE, "Send application/json or multipart/form-data.")
    try:
        model = multipart.field(call.body, boundary, b"model")
        stream = multipart.field(call.body, boundary, b"stream")
    except ValueError as error:
        return Fault(Side.CLIENT, Kind.BAD_REQUEST, f"The form cannot be read: {error}")
    call.model = model.decode("utf-8", "replace") if model is not None else ""
    call.stream = stream is not None and stream.lower() == b"true"
    return None
